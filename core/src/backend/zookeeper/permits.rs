//! The slots of a lock's permits. The node of a claim for permits begins with its slots: `0,1 <record>`. A claim takes
//! slots only in its turn, so no two claims choose at a time.

use super::jute::Reader;
use super::place::Place;
use super::protocol::{Request, code};
use super::session::{Refusal, Session};
use super::shared::unreadable;
use crate::contract::admission::Mode;
use crate::net::request::Limits;

/// The mark of a claim that has no slot yet.
const NONE: &str = "-";

/// Returns the content of the node of a claim that waits for its turn: `<count>/<limit> <record>`.
pub(super) fn waiting(mode: Mode, record: &[u8]) -> Vec<u8> {
    let (count, limit) = match mode {
        Mode::Permits { count, limit } => (count, limit),
        _ => (0, 0),
    };
    [format!("{count}/{limit} ").as_bytes(), record].concat()
}

/// Returns the mode of a claim that waits for its turn, and its record.
pub(super) fn read_waiting(data: &[u8]) -> (Mode, &[u8]) {
    let read = || {
        let (first, record) = split(data)?;
        let (count, limit) = first.split_once('/')?;
        Some((Mode::Permits { count: count.parse().ok()?, limit: limit.parse().ok()? }, record))
    };
    // kazoo's take one.
    read().unwrap_or((Mode::Permits { count: 1, limit: 0 }, data))
}

/// Returns the content of the node of a claim that has these slots.
pub(super) fn with_slots(slots: &[u32], record: &[u8]) -> Vec<u8> {
    let slots = slots.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    [if slots.is_empty() { NONE } else { &slots }.as_bytes(), b" ", record].concat()
}

/// Returns the slots of a claim, and its record. A claim of another client has none.
pub(super) fn read_slots(data: &[u8]) -> (Vec<u32>, &[u8]) {
    let read = || {
        let (first, record) = split(data)?;
        let slots = if first == NONE { Vec::new() } else { numbers(first)? };
        Some((slots, record))
    };
    read().unwrap_or((Vec::new(), data))
}

fn numbers(list: &str) -> Option<Vec<u32>> {
    list.split(',').map(|number| number.parse().ok()).collect()
}

/// Splits the first word off.
fn split(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b' ')?;
    Some((std::str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
}

/// Returns the lowest slots that none of these has.
pub(super) async fn take(
    session: &Session,
    directory: &str,
    others: &[String],
    count: u32,
    limits: Limits,
) -> Result<Vec<u32>, Refusal> {
    let requests: Vec<_> =
        others.iter().map(|name| Request::Data { path: format!("{directory}/{name}"), watch: false }).collect();
    let mut taken = Vec::new();
    for reply in session.ask_all(&requests, limits).await? {
        if reply.code == code::OK {
            let data = Reader::new(&reply.body).bytes().map_err(|why| unreadable(session, why))?.to_vec();
            taken.extend(read_slots(&data).0);
        }
    }
    if mutant!("modes-slot-given-twice") {
        taken.clear();
    }
    taken.sort_unstable();
    Ok((0..).filter(|slot| taken.binary_search(slot).is_err()).take(usize::try_from(count).unwrap_or(0)).collect())
}

/// Writes the slots into the claim's node, and ends its turn. Returns false if the node or the turn is gone.
pub(super) async fn note(
    session: &Session,
    path: &str,
    data: Vec<u8>,
    turn: &mut Place,
    limits: Limits,
) -> Result<bool, Refusal> {
    let write = Request::SetData { path: path.to_owned(), data };
    let Some((turn_path, _)) = turn.node() else { return Ok(false) };
    let leave = Request::Delete { path: turn_path.to_owned() };
    let replies = session.ask_all(&[write, leave], limits).await?;
    turn.left();
    Ok(replies.iter().all(|reply| reply.code == code::OK))
}

/// Returns true if the claim's node has these slots: those that were written without an answer.
pub(super) async fn are_noted(session: &Session, path: &str, slots: &[u32], limits: Limits) -> Result<bool, Refusal> {
    session.ask(session.confirmation(), limits).await?;
    let reply = session.ask(Request::Data { path: path.to_owned(), watch: false }, limits).await?;
    if reply.code == code::NO_NODE {
        return Ok(false);
    }
    let data = Reader::new(&reply.body).bytes().map_err(|why| unreadable(session, why))?;
    Ok(read_slots(data).0 == slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_as_they_were_written() {
        for slots in [&[][..], &[0], &[3, 4, 10]] {
            let data = with_slots(slots, b"1 claim 0 label");
            assert_eq!(read_slots(&data), (slots.to_vec(), &b"1 claim 0 label"[..]));
        }
        assert_eq!(read_slots(b"worker 7"), (Vec::new(), &b"worker 7"[..]));
        assert_eq!(read_slots(b""), (Vec::new(), &b""[..]));
    }

    #[test]
    fn a_waiting_claim_tells_its_permits() {
        let mode = Mode::Permits { count: 2, limit: 5 };
        assert_eq!(read_waiting(&waiting(mode, b"1 c 0 ")), (mode, &b"1 c 0 "[..]));
        assert_eq!(read_waiting(b"a name"), (Mode::Permits { count: 1, limit: 0 }, &b"a name"[..]));
    }
}
