//! The nodes of a lock: the path of its directory, and the names of those who hold it or wait for it, as kazoo and
//! Curator have them.

use std::fmt::Write;

use crate::error::{Error, Result};

/// The default parent of all locks.
pub(super) const PREFIX: &str = "/locks";

/// The names that are written: those of kazoo, which go-zookeeper honours too, or those of Curator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Kazoo,
    Curator,
}

/// What a contender of a lock is to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Exclusive,
    Shared,
}

/// The name of a contender's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contending<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// The server's number, which follows that of 2,147,483,647 by the least one.
    pub(super) number: i32,
}

/// The marks before the number, of kazoo and of Curator.
const MARKS: [(&str, Kind); 5] = [
    ("__lock__", Kind::Exclusive),
    ("__rlock__", Kind::Shared),
    ("-lock-", Kind::Exclusive),
    ("-__WRIT__", Kind::Exclusive),
    ("-__READ__", Kind::Shared),
];

impl<'a> Contending<'a> {
    /// Reads the name of a node. `None`: it is no contender of a lock.
    pub(super) fn read(name: &'a str) -> Option<Self> {
        let read = |(mark, kind): &(&str, Kind)| {
            let number = &name[name.rfind(mark)? + mark.len()..];
            // The server pads to ten places, with the sign of a negative number.
            let fits = number.len() >= 10 && number.bytes().skip(1).all(|byte| byte.is_ascii_digit());
            let fits = fits && number.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            Some((*kind, number.parse::<i32>().ok().filter(|_| fits)?))
        };
        let (kind, number) = MARKS.iter().find_map(read)?;
        Some(Self { name, kind, number })
    }

    /// Returns the place of this one, counted from another one: by their numbers, which wrap round. The server gives no
    /// number twice, but another program may have chosen one.
    pub(super) fn place(&self, from: &Self) -> (i32, &'a str) {
        if mutant!("zookeeper-numbers-as-text") {
            return (self.number.to_string().cmp(&from.number.to_string()) as i32, self.name);
        }
        (self.number.wrapping_sub(from.number), self.name)
    }

    /// Returns true if this one came before another one.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.place(other) < other.place(other)
    }
}

/// Returns the beginning of the name of a claim's node; the server adds its number.
pub(super) fn node_name(dialect: Dialect, guid: &str) -> String {
    match dialect {
        Dialect::Kazoo => format!("{guid}__lock__"),
        Dialect::Curator => {
            // As a UUID is written.
            let parts = [&guid[..8], &guid[8..12], &guid[12..16], &guid[16..20], &guid[20..]];
            format!("_c_{}-lock-", parts.join("-"))
        }
    }
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
        name if levels > 0 && Contending::read(name).is_some() => {
            let last = name.rfind(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            // The last character of the mark.
            let _ = write!(path, "{}%{:02X}{}", &name[..last], name.as_bytes()[last], &name[last + 1..]);
        }
        name => path.push_str(name),
    }
    segment.clear();
}

/// Encodes `%`, and what no path may contain.
fn encode(segment: &mut String, part: &str) {
    for char in part.chars() {
        let refused =
            matches!(char, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
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
    Err(Error::invalid(format!("the prefix {prefix:?} is no path of ZooKeeper: begin with a slash, as in /locks")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_names_of_other_clients_are_read() {
        let read = |name| Contending::read(name).map(|one| (one.kind, one.number));
        assert_eq!(read("4a7f0e1c__lock__0000000007"), Some((Kind::Exclusive, 7)));
        assert_eq!(read("4a7f0e1c__rlock__0000000008"), Some((Kind::Shared, 8)));
        assert_eq!(read("_c_1b4-lock-0000000009"), Some((Kind::Exclusive, 9)));
        assert_eq!(read("_c_1b4-__WRIT__0000000010"), Some((Kind::Exclusive, 10)));
        assert_eq!(read("_c_1b4-__READ__0000000011"), Some((Kind::Shared, 11)));
        assert_eq!(read("4a7f0e1c__lock__-2147483648"), Some((Kind::Exclusive, i32::MIN)));
        assert_eq!(read("_c_1b4-lock--2147483647"), Some((Kind::Exclusive, -i32::MAX)));
        assert_eq!(read("4a7f0e1c__lock__-000000005"), Some((Kind::Exclusive, -5)));
        assert_eq!(read("_c_1b4-lock--000000005"), Some((Kind::Exclusive, -5)));
        for other in
            ["", "0000000001", "b", "x-0000000001", "__lock__12345", "é__lock__00000000", "a__lock__9999999999"]
        {
            assert_eq!(read(other), None, "{other:?}");
        }
    }

    #[test]
    fn numbers_wrap_round() {
        let name = |number| Contending { name: "", kind: Kind::Exclusive, number };
        let twins = ["a", "b"].map(|name| Contending { name, kind: Kind::Exclusive, number: 7 });
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
        assert_eq!(kazoo("/a"), "/locks/%2Fa");
        assert_eq!(kazoo("a/"), "/locks/a%2F");
        assert_eq!(kazoo("a//b"), "/locks/a/%2Fb");
        assert_eq!(kazoo("./.."), "/locks/%2E/%2E%2E");
        assert_eq!(kazoo("50%\u{1}"), "/locks/50%25%01");
        assert_eq!(kazoo("a/x__lock__0000000001"), "/locks/a/x__lock_%5F0000000001");
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
            }
        }
    }

    #[test]
    fn a_prefix_is_a_path() {
        assert!(["/", "/locks", "/a/b/"].iter().all(|prefix| check_prefix(prefix).is_ok()));
        assert!(["", "locks", "//", "/a//b", "/..", "/a\u{1}"].iter().all(|prefix| check_prefix(prefix).is_err()));
    }
}
