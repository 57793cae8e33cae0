//! The state of one lock, as its row has it: the claims in the order of the queue, those that hold and those that wait. It
//! is pure: the time is an argument.
//!
//! A line for each claim: `<id> <mode> <fence> <expires> <since> <slots> <record>`. The mode is `x`, `s` or
//! `p<count>/<limit>`. The fence of a claim that waits is 0. Times are in microseconds of the server's clock. The slots
//! have commas between them, or are `-`. The record is percent-encoded.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use crate::contract::ContenderInfo;
use crate::contract::admission::{Admission, Mode, admit};
use crate::contract::record::contender_info;

/// The fence of a grant that the server is to write.
const NEW: u64 = u64::MAX;

/// A claim that holds a lock or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The id of the claim.
    pub(super) id: String,
    pub(super) mode: Mode,
    /// The fencing token; 0: the claim waits.
    pub(super) fence: u64,
    pub(super) expires: u64,
    /// The time from which it waits or holds.
    pub(super) since: u64,
    pub(super) slots: Vec<u32>,
    pub(super) record: Vec<u8>,
}

/// The claims of one lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    places: Vec<Place>,
}

/// The text of a state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) before: String,
    /// The text after the fence of the new grant, if there is one.
    pub(super) after: Option<String>,
}

/// Returns a time in microseconds.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

impl Place {
    pub(super) fn is_held(&self) -> bool {
        self.fence > 0
    }

    /// Returns the time that is left.
    pub(super) fn left(&self, now: u64) -> Duration {
        Duration::from_micros(self.expires.saturating_sub(now))
    }

    /// Returns the part of its line before the fence.
    pub(super) fn head(&self) -> String {
        match self.mode {
            Mode::Exclusive => format!("{} x ", self.id),
            Mode::Shared => format!("{} s ", self.id),
            Mode::Permits { count, limit } => format!("{} p{count}/{limit} ", self.id),
        }
    }

    /// Returns the part of its line after the times.
    pub(super) fn tail(&self) -> String {
        let slots: Vec<_> = self.slots.iter().map(u32::to_string).collect();
        let slots = if slots.is_empty() { "-".to_owned() } else { slots.join(",") };
        format!(" {slots} {}\n", percent_encode(&self.record, NON_ALPHANUMERIC))
    }

    fn read(line: &str) -> Option<Self> {
        let mut parts = line.split(' ');
        let mut next = || parts.next();
        let id = next()?.to_owned();
        let mode = match next()? {
            "x" => Mode::Exclusive,
            "s" => Mode::Shared,
            permits => {
                let (count, limit) = permits.strip_prefix('p')?.split_once('/')?;
                Mode::Permits { count: count.parse().ok()?, limit: limit.parse().ok()? }
            }
        };
        let (fence, expires, since) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
        let slots = match next()? {
            "-" => Vec::new(),
            slots => slots.split(',').map(|slot| slot.parse().ok()).collect::<Option<_>>()?,
        };
        let record = percent_decode_str(next()?).collect();
        Some(Self { id, mode, fence, expires, since, slots, record })
    }

    fn info(&self, now: u64) -> ContenderInfo {
        ContenderInfo {
            held: self.is_held(),
            fence: Some(self.fence).filter(|_| self.is_held()),
            age: Some(Duration::from_micros(now.saturating_sub(self.since))),
            ttl: Some(self.left(now)).filter(|_| self.is_held()),
            mode: self.mode,
            slots: self.slots.clone(),
            ..contender_info(&self.record)
        }
    }
}

impl State {
    /// Reads the text of a row. `None`: another client wrote it.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(text).ok()?.lines();
        Some(Self { places: lines.map(Place::read).collect::<Option<_>>()? })
    }

    /// Returns the text of a row.
    pub(super) fn text(&self) -> Text {
        let mut text = Text { before: String::new(), after: None };
        for place in &self.places {
            let (head, times) = (place.head(), format!(" {} {}{}", place.expires, place.since, place.tail()));
            let is_new = place.fence == NEW;
            let line = text.after.as_mut().unwrap_or(&mut text.before);
            *line += &head;
            if is_new {
                text.after = Some(times);
            } else {
                // Writing to a String can't fail.
                let _ = write!(line, "{}{times}", place.fence);
            }
        }
        text
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Returns the number of claims.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Removes the claims that have expired. `asking`: this one keeps its place in the queue.
    pub(super) fn drop_expired(&mut self, now: u64, asking: &str) {
        if mutant!("mysql-table-expired-holds") {
            return;
        }
        self.places.retain(|place| place.expires > now || place.id == asking && !place.is_held());
    }

    pub(super) fn find(&self, id: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.id == id)
    }

    /// Returns true if a claim may hold the lock: at its place in the queue, or behind all.
    pub(super) fn admits(&self, id: &str, mode: Mode) -> bool {
        let at = self.places.iter().position(|place| place.id == id).unwrap_or(self.places.len());
        let ahead = self.places.iter().enumerate().filter(|(other, place)| {
            *other < at && !mutant!("mysql-table-waiters-overtaken") || *other != at && place.is_held()
        });
        admit(mode, ahead.map(|(_, place)| place.mode)) == Admission::Now
    }

    /// Puts a claim at its place as a holder, with the lowest free slots and a new fence.
    pub(super) fn hold(&mut self, mut place: Place) {
        place.fence = NEW;
        if let Mode::Permits { count, .. } = place.mode {
            place.slots = self.free_slots(count);
        }
        self.put(place);
    }

    /// Puts a claim at its place in the queue: the one that it has, or the last.
    pub(super) fn put(&mut self, place: Place) {
        match self.places.iter_mut().find(|other| other.id == place.id) {
            Some(other) => *other = Place { since: if place.is_held() { place.since } else { other.since }, ..place },
            None => self.places.push(place),
        }
    }

    fn free_slots(&self, count: u32) -> Vec<u32> {
        let taken: BTreeSet<_> = self.places.iter().flat_map(|place| &place.slots).copied().collect();
        (0..).filter(|slot| !taken.contains(slot)).take(count as usize).collect()
    }

    /// Extends the lease of a claim: never to an earlier end. Returns false if the claim holds nothing.
    pub(super) fn renew(&mut self, now: u64, id: &str, ttl: Duration) -> bool {
        let held = self.places.iter_mut().find(|place| place.id == id && place.is_held() && place.expires > now);
        let Some(held) = held else { return false };
        held.expires = held.expires.max(now + micros(ttl));
        true
    }

    /// Removes a claim. Returns true if it held the lock.
    pub(super) fn remove(&mut self, now: u64, id: &str) -> bool {
        let held = self.find(id).is_some_and(|place| place.is_held() && place.expires > now);
        self.places.retain(|place| place.id != id);
        held
    }

    /// Removes all holders. Returns false if there are none.
    pub(super) fn remove_holders(&mut self) -> bool {
        let many = self.places.len();
        self.places.retain(|place| !place.is_held());
        self.places.len() < many
    }

    /// Returns the time of the next end of a lease.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.places.iter().filter(|place| place.is_held()).map(|place| place.expires).min()
    }

    /// Returns the time at which all claims have expired.
    pub(super) fn last_end(&self) -> u64 {
        self.places.iter().map(|place| place.expires).max().unwrap_or(0)
    }

    /// Returns the holders, and then the claims that wait.
    pub(super) fn contenders(&self, now: u64) -> Vec<ContenderInfo> {
        let (held, waits): (Vec<_>, Vec<_>) = self.places.iter().partition(|place| place.is_held());
        held.into_iter().chain(waits).map(|place| place.info(now)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: Mode = Mode::Permits { count: 2, limit: 5 };

    fn place(id: &str, mode: Mode) -> Place {
        let record = format!("1 {id} 0 a label\n").into_bytes();
        Place { id: id.to_owned(), mode, fence: 0, expires: 100, since: 7, slots: Vec::new(), record }
    }

    /// Returns the state after the server has written the fence.
    fn written(state: &State, fence: u64) -> State {
        let text = state.text();
        let text = text.after.map_or(text.before.clone(), |after| format!("{}{fence}{after}", text.before));
        State::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn claims_are_granted_in_their_order() {
        let mut state = State::default();
        assert!(state.admits("a", Mode::Shared));
        state.hold(place("a", Mode::Shared));
        state = written(&state, 41);
        assert!(state.admits("b", Mode::Shared) && !state.admits("b", Mode::Exclusive));
        state.put(place("b", Mode::Exclusive));
        // A reader doesn't overtake a writer that waits.
        assert!(!state.admits("c", Mode::Shared));
        state.put(place("c", Mode::Shared));
        assert!(state.remove(50, "a") && state.admits("b", Mode::Exclusive) && !state.admits("c", Mode::Shared));
        state.hold(place("b", Mode::Exclusive));
        state = written(&state, 42);
        assert_eq!(state.find("b").map(|place| place.fence), Some(42));
        assert!(!state.admits("c", Mode::Shared));
        assert_eq!(state.contenders(50).iter().map(|one| one.held).collect::<Vec<_>>(), [true, false]);
        assert!(state.remove_holders() && state.admits("c", Mode::Shared));
        assert!(!state.remove(50, "c") && state.is_empty());
    }

    #[test]
    fn permits_have_the_lowest_free_slots() {
        let mut state = State::default();
        for id in ["a", "b"] {
            state.hold(place(id, P));
            state = written(&state, 1);
        }
        assert!(!state.admits("c", P));
        state.remove(50, "a");
        let one = Mode::Permits { count: 1, limit: 5 };
        state.hold(place("c", one));
        assert_eq!(state.find("c").unwrap().slots, [0]);
        state = written(&state, 1);
        assert!(state.admits("d", P));
        state.hold(place("d", P));
        assert_eq!(state.find("d").unwrap().slots, [1, 4]);
    }

    #[test]
    fn what_has_expired_is_passed_over() {
        let mut state = State::default();
        state.hold(place("a", Mode::Exclusive));
        state = written(&state, 1);
        state.put(place("b", Mode::Exclusive));
        state.put(place("c", Mode::Exclusive));
        state.drop_expired(99, "c");
        assert_eq!(state.len(), 3);
        assert!(state.renew(99, "a", Duration::from_micros(50)) && state.renew(99, "a", Duration::from_micros(9)));
        assert_eq!(state.next_end(), Some(149));
        state.drop_expired(100, "c");
        assert!(state.find("b").is_none() && state.find("c").is_some());
        assert!(!state.renew(149, "a", Duration::from_micros(50)) && !state.renew(99, "c", Duration::from_micros(9)));
        state.drop_expired(149, "c");
        assert!(state.admits("c", Mode::Exclusive));
    }

    #[test]
    fn other_texts_are_not_read() {
        assert_eq!(State::read(b""), Some(State::default()));
        for text in ["x", "a x 1 2 3 -", "a y 1 2 3 - r", "a p1 1 2 3 - r", "a x 1 2 3 z r", "a x -1 2 3 - r"] {
            assert_eq!(State::read(text.as_bytes()), None, "{text}");
        }
    }

    fn places() -> impl Strategy<Value = Vec<Place>> {
        let mode = prop_oneof![
            Just(Mode::Exclusive),
            Just(Mode::Shared),
            (1..9u32, 1..9u32).prop_map(|(count, limit)| Mode::Permits { count, limit })
        ];
        let times = (0..NEW, any::<u64>(), any::<u64>());
        let more = (proptest::collection::vec(any::<u32>(), 0..3), proptest::collection::vec(any::<u8>(), 1..20));
        let one = ("[a-zA-Z0-9:._-]{1,20}", mode, times, more).prop_map(
            |(id, mode, (fence, expires, since), (slots, record))| Place {
                id,
                mode,
                fence,
                expires,
                since,
                slots,
                record,
            },
        );
        proptest::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn a_state_reads_back(places in places()) {
            let state = State { places };
            let text = state.text();
            prop_assert_eq!(text.after, None);
            prop_assert_eq!(State::read(text.before.as_bytes()), Some(state));
        }
    }
}
