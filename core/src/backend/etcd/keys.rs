//! The keys of etcd's own mutex: below the lock's name one key for the holder and one for each waiter.

use crate::contract::Claim;

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

/// Returns the value of a claim's key: `1 <claim> <n> <user's token, n bytes><label>`. Other clients leave it empty and
/// ignore it.
pub(super) fn value(claim: &Claim) -> Vec<u8> {
    let (token, label) = (&claim.options.token, &claim.options.label);
    let (token, label) = (token.as_deref().unwrap_or_default(), label.as_deref().unwrap_or_default());
    format!("1 {} {} {token}{label}", claim.id(), token.len()).into_bytes()
}

/// The owner of a key, as its value names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct OwnerRecord<'a> {
    pub(super) claim: &'a str,
    pub(super) token: &'a str,
    pub(super) label: &'a str,
}

/// Reads a value. `None`: another client wrote it.
pub(super) fn owner_record(value: &[u8]) -> Option<OwnerRecord<'_>> {
    let mut parts = std::str::from_utf8(value).ok()?.strip_prefix("1 ")?.splitn(3, ' ');
    let claim = parts.next()?;
    let length = parts.next()?.parse().ok()?;
    let (token, label) = parts.next()?.split_at_checked(length)?;
    Some(OwnerRecord { claim, token, label })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract::AcquireOptions;

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

    #[test]
    fn a_value_tells_what_was_put_into_it() {
        let mut options = AcquireOptions::new("k");
        options.token = Some("mine é".into());
        options.label = Some("nightly report".into());
        let claim = Claim::new(1, Arc::new(options), true);
        let (value, id) = (value(&claim), claim.id());
        assert_eq!(owner_record(&value), Some(OwnerRecord { claim: &id, token: "mine é", label: "nightly report" }));
    }

    #[test]
    fn other_clients_values_tell_nothing() {
        for value in [&b""[..], b"1", b"1 x", b"1 x 9 short", b"\xff", b"2 x 0 ", "1 x 1 é".as_bytes()] {
            assert_eq!(owner_record(value), None, "{value:?}");
        }
    }
}
