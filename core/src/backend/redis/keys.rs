//! The keys of a lock: the user's own, and the side keys for fence and queue, in the same slot of a cluster.

use std::sync::OnceLock;

use crc::{CRC_16_XMODEM, Crc};

use crate::error::{Error, Result, show};

/// The keys of one lock.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// The lock itself, as the user named it.
    pub(super) key: String,
    /// The last fence and its claim.
    pub(super) fence: String,
    /// The queue, ordered by arrival.
    pub(super) queue: String,
    /// The details of each contender in the queue.
    pub(super) details: String,
}

/// Checks that this can be the name of a lock.
///
/// # Errors
/// `Invalid` for a key that would be the side key of another.
pub(super) fn check(key: &str) -> Result<()> {
    if ["dlock:f:", "dlock:q:", "dlock:d:"].iter().any(|own| key.starts_with(own)) {
        return Err(Error::invalid(format!(
            "the key {} begins like those that dlock keeps beside its locks; use another, or a prefix",
            show(key)
        )));
    }
    Ok(())
}

impl Keys {
    pub(super) fn new(key: &str) -> Self {
        let (tag, tail) = tag(key);
        let side = |kind: char| format!("dlock:{kind}:{{{tag}}}{tail}");
        Self { key: key.to_owned(), fence: side('f'), queue: side('q'), details: side('d') }
    }

    /// Adds the keys to a script's call, in the order of every script but the renewal.
    pub(super) fn add_to(&self, cmd: &mut redis::Cmd) {
        cmd.arg(4).arg(&self.key).arg(&self.fence).arg(&self.queue).arg(&self.details);
    }
}

/// Returns the tag in the braces of the side keys, so that they share the key's slot, and the tail after them, so that
/// no two keys share a side key.
fn tag(key: &str) -> (&str, &str) {
    match hash_tag(key) {
        Some(tag) => (tag, key),
        None if !key.contains('}') => (key, ""),
        None => (tag_for_slot(slot(key.as_bytes())), key),
    }
}

/// Returns the hash tag of a key, which decides its slot, if it has one.
fn hash_tag(key: &str) -> Option<&str> {
    let rest = &key[key.find('{')? + 1..];
    let tag = &rest[..rest.find('}')?];
    (!tag.is_empty()).then_some(tag)
}

const SLOTS: usize = 16_384;

/// Returns the slot of a key or hash tag.
fn slot(bytes: &[u8]) -> usize {
    static CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    usize::from(CRC.checksum(bytes)) % SLOTS
}

/// Returns the smallest decimal number in a slot.
fn tag_for_slot(slot_of_key: usize) -> &'static str {
    static NUMBERS: OnceLock<Vec<String>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        let mut numbers = vec![String::new(); SLOTS];
        let mut missing = SLOTS;
        for n in 0.. {
            let text = n.to_string();
            let number = &mut numbers[slot(text.as_bytes())];
            if number.is_empty() {
                *number = text;
                missing -= 1;
                if missing == 0 {
                    break;
                }
            }
        }
        numbers
    });
    &numbers[slot_of_key]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn slot_of(key: &str) -> usize {
        slot(hash_tag(key).unwrap_or(key).as_bytes())
    }

    #[test]
    fn names_are_as_documented() {
        assert_eq!(Keys::new("job:42").fence, "dlock:f:{job:42}");
        assert_eq!(Keys::new("a{b").queue, "dlock:q:{a{b}");
        assert_eq!(Keys::new("x{u}y").details, "dlock:d:{u}x{u}y");
        assert_eq!(Keys::new("a}b").fence, "dlock:f:{20658}a}b");
        assert_eq!(slot(b"123456789"), 0x31C3);
    }

    #[test]
    fn side_keys_share_the_slot_of_their_key_and_nothing_else() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen: HashMap<String, String> = HashMap::new();
        for _ in 0..20_000 {
            let length = random.usize(1..9);
            let key: String = (0..length).map(|_| *random.choice(&['{', '}', 'a', 'b']).expect("not empty")).collect();
            let keys = Keys::new(&key);
            for side in [&keys.fence, &keys.queue, &keys.details] {
                assert_eq!(slot_of(side), slot_of(&key), "{key} {side}");
            }
            if let Some(other) = seen.insert(keys.fence.clone(), key.clone()) {
                assert_eq!(other, key, "share {}", keys.fence);
            }
        }
    }
}
