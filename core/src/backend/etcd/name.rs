//! The layout of etcd's own mutex: under the lock's name a key each for the holder and for everybody in the queue.

use crate::claim::Claim;

/// What stands before all keys of this lock.
pub(super) fn prefix(name: &str) -> Vec<u8> {
    format!("{name}/").into_bytes()
}

/// The key of the contender that has this lease.
pub(super) fn key(name: &str, lease: i64) -> Vec<u8> {
    format!("{name}/{lease:x}").into_bytes()
}

/// Whether a key below the prefix is a contender's: those further down belong to locks of longer names.
pub(super) fn is_child(prefix: &[u8], key: &[u8]) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !rest.contains(&b'/'))
}

/// What the key of a claim contains: `1 <claim> <n> <user's token, n bytes><label>`. Others leave it empty, and look
/// at none.
pub(super) fn value(claim: &Claim) -> Vec<u8> {
    let (token, label) = (&claim.terms.token, &claim.terms.label);
    let (token, label) = (token.as_deref().unwrap_or_default(), label.as_deref().unwrap_or_default());
    format!("1 {} {} {token}{label}", claim.id(), token.len()).into_bytes()
}

/// What a value tells of its contender.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) claim: &'a str,
    pub(super) token: &'a str,
    pub(super) label: &'a str,
}

/// Reads a value; `None`: another client's.
pub(super) fn told(value: &[u8]) -> Option<Told<'_>> {
    let mut parts = std::str::from_utf8(value).ok()?.strip_prefix("1 ")?.splitn(3, ' ');
    let claim = parts.next()?;
    let length = parts.next()?.parse().ok()?;
    let (token, label) = parts.next()?.split_at_checked(length)?;
    Some(Told { claim, token, label })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::claim::Terms;

    #[test]
    fn only_direct_children_count() {
        let a = prefix("a");
        assert!(is_child(&a, &key("a", 0x2040_a1fa_4557_3b06)));
        assert!(!is_child(&a, &key("a/b", 7)) && !is_child(&a, &key("a/", 7)) && !is_child(&a, &key("ab", 7)));
        assert!(is_child(&prefix("a/b"), &key("a/b", 7)));
    }

    #[test]
    fn the_key_is_that_of_the_other_clients() {
        assert_eq!(key("a", 0x2040_a1fa_4557_3b06), b"a/2040a1fa45573b06");
        assert_eq!(key("a", 0xa), b"a/a");
    }

    #[test]
    fn a_value_tells_what_was_put_into_it() {
        let mut terms = Terms::new("k");
        terms.token = Some("mine é".into());
        terms.label = Some("nightly report".into());
        let claim = Claim::new(1, Arc::new(terms), true);
        let (value, id) = (value(&claim), claim.id());
        assert_eq!(told(&value), Some(Told { claim: &id, token: "mine é", label: "nightly report" }));
    }

    #[test]
    fn other_clients_values_tell_nothing() {
        for value in [&b""[..], b"1", b"1 x", b"1 x 9 short", b"\xff", b"2 x 0 ", "1 x 1 é".as_bytes()] {
            assert_eq!(told(value), None, "{value:?}");
        }
    }
}
