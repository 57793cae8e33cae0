//! The nodes of a lock: the path of its directory, and the names of those who hold it or wait for it, as kazoo and
//! Curator have them.

use std::fmt::Write;

use crate::contract::admission::Mode;
use crate::error::{Error, Result};

/// The default parent of all locks.
pub(super) const PREFIX: &str = "/locks";

/// The names that are written: those of kazoo, which go-zookeeper honours too, or those of Curator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Kazoo,
    Curator,
}

/// The name of a contender's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contending<'a> {
    pub(super) name: &'a str,
    /// For permits the limit is that of its claim, and 0 for a claim of kazoo's.
    pub(super) mode: Mode,
    /// The server's number, which follows that of 2,147,483,647 by the least one. A holder of kazoo's `Semaphore` has none.
    pub(super) number: Option<i32>,
}

/// The marks before the number, of kazoo and of Curator.
const MARKS: [(&str, Mode); 5] = [
    ("__lock__", Mode::Exclusive),
    ("__rlock__", Mode::Shared),
    ("-lock-", Mode::Exclusive),
    ("-__WRIT__", Mode::Exclusive),
    ("-__READ__", Mode::Shared),
];

/// The mark of dlock's permits: `__permits_<count>_<limit>__`.
const PERMITS: &str = "__permits_";

/// The end of the name of the directory in which kazoo's `Semaphore` has its lock, beside that of its holders.
const TURNS: &str = "-__lock__";

impl<'a> Contending<'a> {
    /// Reads the name of a node. `None`: it is no contender of a lock.
    pub(super) fn read(name: &'a str) -> Option<Self> {
        let marked = |(mark, mode): &(&str, Mode)| Some((*mode, number(&name[name.rfind(mark)? + mark.len()..])?));
        let permits = || {
            let (mode, rest) = name[name.rfind(PERMITS)? + PERMITS.len()..].split_once("__")?;
            let (count, limit) = mode.split_once('_')?;
            Some((Mode::Permits { count: count.parse().ok()?, limit: limit.parse().ok()? }, number(rest)?))
        };
        if let Some((mode, number)) = MARKS.iter().find_map(marked).or_else(permits) {
            return Some(Self { name, mode, number: Some(number) });
        }
        let is_uuid = name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_uuid.then_some(Self { name, mode: Mode::Permits { count: 1, limit: 0 }, number: None })
    }

    /// Returns the place of this one, counted from another one: by their numbers, which wrap round. The server gives no
    /// number twice, but another program may have chosen one.
    pub(super) fn place(&self, from: &Self) -> (i32, &'a str) {
        let Some(number) = self.number else { return (i32::MIN, self.name) };
        let from = from.number.unwrap_or(number);
        if mutant!("zookeeper-numbers-as-text") {
            return (number.to_string().cmp(&from.to_string()) as i32, self.name);
        }
        (number.wrapping_sub(from), self.name)
    }

    /// Returns true if this one came before another one.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.place(other) < other.place(other)
    }
}

/// Reads the number that the server adds to a name. It pads to ten places, with the sign of a negative number.
fn number(text: &str) -> Option<i32> {
    let fits = text.len() >= 10 && text.bytes().skip(1).all(|byte| byte.is_ascii_digit());
    let fits = fits && text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

/// Returns the beginning of the name of a claim's node; the server adds its number.
pub(super) fn node_name(dialect: Dialect, guid: &str, mode: Mode) -> String {
    if let Mode::Permits { count, limit } = mode {
        return format!("{guid}{PERMITS}{count}_{limit}__");
    }
    let shared = mode == Mode::Shared;
    match dialect {
        Dialect::Kazoo => format!("{guid}{}", if shared { "__rlock__" } else { "__lock__" }),
        Dialect::Curator => {
            // As a UUID is written.
            let parts = [&guid[..8], &guid[8..12], &guid[12..16], &guid[16..20], &guid[20..]];
            format!("_c_{}{}", parts.join("-"), if shared { "-__READ__" } else { "-lock-" })
        }
    }
}

/// Returns the path of the directory in which claims for permits of a lock wait for their turn.
pub(super) fn permits_directory(directory: &str) -> String {
    format!("{directory}{TURNS}")
}

/// Returns the key of a lock's directory, or of the one in which claims for its permits wait. `None`: it is neither.
pub(super) fn key_of(prefix: &str, directory: &str) -> Option<String> {
    let key = directory.strip_prefix(prefix.trim_end_matches('/'))?.strip_prefix('/')?;
    let key = Some(key.strip_suffix(TURNS).unwrap_or(key)).filter(|key| !key.is_empty())?;
    percent_encoding::percent_decode_str(key).decode_utf8().ok().map(Into::into)
}

/// Returns the path of a lock's directory: in kazoo's dialect a `/` in a key is a level, in Curator's it is encoded.
pub(super) fn directory(dialect: Dialect, prefix: &str, key: &str) -> Result<String> {
    let mut path = String::with_capacity(prefix.len() + key.len() + 8);
    path.push_str(prefix.trim_end_matches('/'));
    path.push('/');
    let mut segment = String::new();
    let mut rest = key;
    let mut levels = 0;
    loop {
        let (part, after) = match rest.split_once('/') {
            // A slash that would leave a level empty is part of the name.
            Some((part, after))
                if dialect == Dialect::Kazoo && !after.is_empty() && !(part.is_empty() && segment.is_empty()) =>
            {
                (part, Some(after))
            }
            Some((part, after)) => {
                encode(&mut segment, part);
                segment.push_str("%2F");
                rest = after;
                continue;
            }
            None => (rest, None),
        };
        encode(&mut segment, part);
        finish(&mut path, &mut segment, levels);
        levels += 1;
        match after {
            Some(after) => {
                path.push('/');
                rest = after;
            }
            None => break,
        }
    }
    // Far below the longest message that a server accepts; the path of a node is sent in it.
    if path.len() > 4096 {
        return Err(Error::invalid(format!("the path of the lock has {} bytes: use at most 4096", path.len())));
    }
    Ok(path)
}

/// Adds a level to the path. `.`, `..`, and names that would be read as a contender's, are encoded.
fn finish(path: &mut String, segment: &mut String, levels: usize) {
    match segment.as_str() {
        "." => path.push_str("%2E"),
        ".." => path.push_str("%2E%2E"),
        name if levels > 0 && Contending::read(name).is_some_and(|one| one.number.is_some())
            || name.ends_with(TURNS) =>
        {
            let last = name.rfind(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            // The last character of the mark.
            let _ = write!(path, "{}%{:02X}{}", &name[..last], name.as_bytes()[last], &name[last + 1..]);
        }
        name => path.push_str(name),
    }
    segment.clear();
}

/// Encodes `%`, and what no path may contain: controls, private characters, and all that have two units in UTF-16.
fn encode(segment: &mut String, part: &str) {
    for char in part.chars() {
        let refused = matches!(char, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..);
        if refused || char == '%' || char == '/' {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                let _ = write!(segment, "%{byte:02X}");
            }
        } else {
            segment.push(char);
        }
    }
}

/// Returns the paths of all parents of a directory below the root, and the directory itself, the highest first.
pub(super) fn parents<'a>(root: &str, directory: &'a str) -> impl Iterator<Item = &'a str> {
    let above = if root == "/" { 0 } else { root.trim_end_matches('/').len() };
    let ends = directory.match_indices('/').map(|(at, _)| at).filter(move |at| *at > above);
    ends.chain([directory.len()]).map(|end| &directory[..end])
}

/// Checks the prefix of a configuration.
pub(super) fn check_prefix(prefix: &str) -> Result<()> {
    let levels = prefix.strip_prefix('/').map(|rest| rest.trim_end_matches('/').split('/'));
    let fits = |level: &str| !matches!(level, "" | "." | "..") && !level.chars().any(char::is_control);
    if prefix == "/" || levels.is_some_and(|mut levels| levels.all(fits)) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the prefix {prefix:?} is no path of ZooKeeper: put names between its slashes, as in /app/locks"
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_other_clients_are_read() {
        let read = |name| Contending::read(name).map(|one| (one.mode, one.number));
        assert_eq!(read("4a7f0e1c__lock__0000000007"), Some((Mode::Exclusive, Some(7))));
        assert_eq!(read("4a7f0e1c__rlock__0000000008"), Some((Mode::Shared, Some(8))));
        assert_eq!(read("_c_1b4-lock-0000000009"), Some((Mode::Exclusive, Some(9))));
        assert_eq!(read("_c_1b4-__WRIT__0000000010"), Some((Mode::Exclusive, Some(10))));
        assert_eq!(read("_c_1b4-__READ__0000000011"), Some((Mode::Shared, Some(11))));
        assert_eq!(read("4a7f0e1c__lock__-2147483648"), Some((Mode::Exclusive, Some(i32::MIN))));
        assert_eq!(read("_c_1b4-lock--2147483647"), Some((Mode::Exclusive, Some(-i32::MAX))));
        assert_eq!(read("4a7f0e1c__lock__-000000005"), Some((Mode::Exclusive, Some(-5))));
        assert_eq!(read("_c_1b4-lock--000000005"), Some((Mode::Exclusive, Some(-5))));
        let permits = Mode::Permits { count: 2, limit: 5 };
        let own = node_name(Dialect::Kazoo, "4a7f", permits) + "0000000012";
        assert_eq!(read(&own), Some((permits, Some(12))));
        let of_kazoo = Mode::Permits { count: 1, limit: 0 };
        assert_eq!(read("0123456789abcdef0123456789abcdef"), Some((of_kazoo, None)));
        for other in
            ["", "0000000001", "b", "x-0000000001", "__lock__12345", "é__lock__00000000", "a__lock__9999999999"]
        {
            assert_eq!(read(other), None, "{other:?}");
        }
    }

    #[test]
    fn numbers_wrap_round() {
        let name = |number| Contending { name: "", mode: Mode::Exclusive, number: Some(number) };
        let twins = ["a", "b"].map(|name| Contending { name, mode: Mode::Exclusive, number: Some(7) });
        assert!(twins[0].is_before(&twins[1]) && !twins[1].is_before(&twins[0]));
        let order = [i32::MAX - 1, i32::MAX, i32::MIN, i32::MIN + 1];
        for (at, before) in order.iter().enumerate() {
            for after in &order[at + 1..] {
                assert!(name(*before).is_before(&name(*after)) && !name(*after).is_before(&name(*before)));
            }
        }
        assert!(!name(9).is_before(&name(9)) && name(9).is_before(&name(10)) && name(-1).is_before(&name(0)));
    }

    #[test]
    fn keys_are_paths() {
        let kazoo = |key| directory(Dialect::Kazoo, "/locks", key).unwrap();
        assert_eq!(kazoo("a/b"), "/locks/a/b");
        assert_eq!(kazoo("user:42 é"), "/locks/user:42 é");
        assert_eq!(kazoo("鍵🔑"), "/locks/鍵%F0%9F%94%91");
        assert_eq!(kazoo("/a"), "/locks/%2Fa");
        assert_eq!(kazoo("a/"), "/locks/a%2F");
        assert_eq!(kazoo("a//b"), "/locks/a/%2Fb");
        assert_eq!(kazoo("./.."), "/locks/%2E/%2E%2E");
        assert_eq!(kazoo("50%\u{1}"), "/locks/50%25%01");
        assert_eq!(kazoo("a/x__lock__0000000001"), "/locks/a/x__lock_%5F0000000001");
        assert_eq!(kazoo("k-__lock__"), "/locks/k-__lock_%5F");
        assert_eq!(directory(Dialect::Curator, "/", "a/b").unwrap(), "/a%2Fb");
        assert_eq!(parents("/", "/locks/a/b").collect::<Vec<_>>(), ["/locks", "/locks/a", "/locks/a/b"]);
        assert_eq!(parents("/root", "/root/locks/a").collect::<Vec<_>>(), ["/root/locks", "/root/locks/a"]);
    }

    proptest! {
        #[test]
        fn no_two_keys_share_a_directory(a in "[a%/._0-9\u{1}é-]{1,9}", b in "[a%/._0-9\u{1}é-]{1,9}") {
            for dialect in [Dialect::Kazoo, Dialect::Curator] {
                let (x, y) = (directory(dialect, "/l", &a).unwrap(), directory(dialect, "/l", &b).unwrap());
                prop_assert_eq!(a == b, x == y, "{} {}", x, y);
                prop_assert!(x.split('/').skip(1).all(|level| !matches!(level, "" | "." | "..")), "{}", x);
                prop_assert!(!x.chars().any(char::is_control));
                prop_assert_eq!(key_of("/l", &x), Some(a.clone()));
                prop_assert_eq!(key_of("/l", &permits_directory(&x)), Some(a.clone()));
            }
        }
    }

    #[test]
    fn a_prefix_is_a_path() {
        assert!(["/", "/locks", "/a/b/"].iter().all(|prefix| check_prefix(prefix).is_ok()));
        assert!(["", "locks", "//", "/a//b", "/..", "/a\u{1}"].iter().all(|prefix| check_prefix(prefix).is_err()));
    }
}
