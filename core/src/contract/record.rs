//! The record of a claim, as backends store it beside its place in the queue:
//! `1 <claim> <n> <user's token, n bytes><label>`.

use super::claim::Claim;
use super::contender_info::ContenderInfo;
use super::owner::parse_owner;

/// Returns the record of a claim.
pub(crate) fn record(claim: &Claim) -> Vec<u8> {
    let (token, label) = (&claim.options.token, &claim.options.label);
    let (token, label) = (token.as_deref().unwrap_or_default(), label.as_deref().unwrap_or_default());
    format!("1 {} {} {token}{label}", claim.id(), token.len()).into_bytes()
}

/// The owner of a place, as its record names it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct OwnerRecord<'a> {
    pub(crate) claim: &'a str,
    pub(crate) token: &'a str,
    pub(crate) label: &'a str,
}

impl<'a> OwnerRecord<'a> {
    /// Reads a record. `None`: another client wrote it.
    pub(crate) fn read(record: &'a [u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(record).ok()?.strip_prefix("1 ")?.splitn(3, ' ');
        let claim = parts.next()?;
        let length = parts.next()?.parse().ok()?;
        let (token, label) = parts.next()?.split_at_checked(length)?;
        Some(Self { claim, token, label })
    }
}

/// Returns what a record tells of its owner: nothing if another client wrote it.
pub(crate) fn contender_info(record: &[u8]) -> ContenderInfo {
    let Some(record) = OwnerRecord::read(record) else { return ContenderInfo::default() };
    let (host, pid) = parse_owner(record.claim);
    let token = if record.token.is_empty() { record.claim } else { record.token };
    ContenderInfo {
        token: Some(token.to_owned()),
        label: Some(record.label.to_owned()).filter(|label| !label.is_empty()),
        host,
        pid,
        ..ContenderInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract::AcquireOptions;

    #[test]
    fn a_record_tells_what_was_put_into_it() {
        let mut options = AcquireOptions::new("k");
        options.token = Some("mine é".into());
        options.label = Some("nightly report".into());
        let claim = Claim::new(1, Arc::new(options), true);
        let (record, id) = (record(&claim), claim.id());
        let read = OwnerRecord { claim: &id, token: "mine é", label: "nightly report" };
        assert_eq!(OwnerRecord::read(&record), Some(read));
        assert_eq!(contender_info(&record).label.as_deref(), Some("nightly report"));
    }

    #[test]
    fn other_clients_records_tell_nothing() {
        for record in [&b""[..], b"1", b"1 x", b"1 x 9 short", b"\xff", b"2 x 0 ", "1 x 1 é".as_bytes()] {
            assert_eq!(OwnerRecord::read(record), None, "{record:?}");
        }
    }
}
