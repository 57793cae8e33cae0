//! The keys of etcd's own mutex: below the lock's name one key for the holder and one for each waiter.

/// Returns the range of the keys of this lock's contenders, without its end. Keys of longer names are in it too, if the
/// part after the `/` begins as a number does; [`is_child`] tells them apart.
pub(super) fn range(name: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("{name}/0").into_bytes(), format!("{name}/g").into_bytes())
}

/// Returns the key of the contender that has this lease.
pub(super) fn key(name: &str, lease: i64) -> Vec<u8> {
    format!("{name}/{lease:x}").into_bytes()
}

/// Returns true if a key is that of a contender for this lock: the name and a lease. Keys further down belong to locks
/// of longer names.
pub(super) fn is_child(name: &str, key: &[u8]) -> bool {
    let lease = key.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
    lease.is_some_and(|lease| {
        matches!(lease.len(), 1..=16) && lease.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Returns the name of the lock that a key stands below, if it is that of a contender. The key has its name by the lease
/// that it had first.
pub(super) fn name_of_child(key: &[u8]) -> Option<&str> {
    let (name, _) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    is_child(name, key).then_some(name)
}

/// Returns the next key after this one, and after all others of the longer name that it belongs to.
pub(super) fn after(name: &str, key: &[u8]) -> Vec<u8> {
    let mut next = key.to_vec();
    match key.iter().skip(name.len() + 1).position(|byte| *byte == b'/') {
        Some(at) => {
            next.truncate(name.len() + 1 + at);
            next.push(b'/' + 1);
        }
        None => next.push(0),
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct_children_count() {
        assert!(is_child("a", &key("a", 0x2040_a1fa_4557_3b06)) && is_child("a", &key("a", i64::MAX)));
        assert!(!is_child("a", &key("a/b", 7)) && !is_child("a", &key("a/", 7)) && !is_child("a", &key("ab", 7)));
        assert!(!is_child("a", b"a/") && !is_child("a", b"a/limit") && !is_child("a", b"a/0123456789abcdef0"));
        assert!(is_child("a/b", &key("a/b", 7)));
    }

    #[test]
    fn a_contenders_key_tells_the_name() {
        assert_eq!(name_of_child(&key("a/b", 0x1f)), Some("a/b"));
        for other in [&b"a/x"[..], b"1f", b"a/", b"a/\xff"] {
            assert_eq!(name_of_child(other), None, "{other:?}");
        }
    }

    #[test]
    fn all_contenders_are_in_the_range() {
        let (from, to) = range("a");
        for lease in [1, 0xa, 0xf, 0x2040_a1fa_4557_3b06, i64::MAX] {
            assert!((&from..&to).contains(&&key("a", lease)), "{lease:x}");
        }
        assert!(!(&from..&to).contains(&&key("a/k1", 7)) && !(&from..&to).contains(&&key("a", 7)[..2].to_vec()));
    }

    #[test]
    fn a_longer_name_is_left_out_whole() {
        let next = after("a", &key("a/12", 7));
        assert!(next > key("a/12", i64::MAX) && next > key("a/12/f", 7));
        assert!(next <= key("a", 0x120) && next <= key("a/120", 0));
        assert_eq!(after("a", &key("a", 0x12)), b"a/12\0");
    }

    #[test]
    fn the_key_is_that_of_the_other_clients() {
        assert_eq!(key("a", 0x2040_a1fa_4557_3b06), b"a/2040a1fa45573b06");
        assert_eq!(key("a", 0xa), b"a/a");
    }
}
