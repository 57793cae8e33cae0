//! The names of a lock's keys: the user's own, and beside it, in the same slot of a cluster, those for fence and queue.

use std::sync::OnceLock;

use crc::{CRC_16_XMODEM, Crc};

use crate::error::{Error, Result, show};

/// The keys of one lock.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// The lock itself, as the user named it.
    pub(super) key: String,
    /// The last fence, and who got it.
    pub(super) fence: String,
    /// Who waits, by when they came.
    pub(super) queue: String,
    /// What is known of each of them.
    pub(super) details: String,
}

/// Whether this can be the name of a lock.
///
/// # Errors
/// `Invalid` for one that would be the side key of another.
pub(super) fn check(key: &str) -> Result<()> {
    if ["dlock:f:", "dlock:q:", "dlock:d:"].iter().any(|own| key.starts_with(own)) {
        return Err(Error::invalid(format!(
            "the key {} begins like those that dlock keeps beside its locks; use another, or a prefix",
            show(key)
        )));
    }
    Ok(())
}

impl Names {
    pub(super) fn new(key: &str) -> Self {
        let (tag, tail) = tag(key);
        let side = |kind: char| format!("dlock:{kind}:{{{tag}}}{tail}");
        Self { key: key.to_owned(), fence: side('f'), queue: side('q'), details: side('d') }
    }

    /// Adds them to a script's call, in the order in which every script but the renewal has them.
    pub(super) fn add_to(&self, cmd: &mut redis::Cmd) {
        cmd.arg(4).arg(&self.key).arg(&self.fence).arg(&self.queue).arg(&self.details);
    }
}

/// What stands in the braces of the side keys, so that they share the key's slot, and what follows them, so that no two
/// keys share a side key.
fn tag(key: &str) -> (&str, &str) {
    match hash_tag(key) {
        Some(tag) => (tag, key),
        None if !key.contains('}') => (key, ""),
        None => (stand_in(slot(key.as_bytes())), key),
    }
}

/// The part of a key that decides its slot, if it has one.
fn hash_tag(key: &str) -> Option<&str> {
    let rest = &key[key.find('{')? + 1..];
    let tag = &rest[..rest.find('}')?];
    (!tag.is_empty()).then_some(tag)
}

const SLOTS: usize = 16_384;

fn slot(bytes: &[u8]) -> usize {
    static CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_XMODEM);
    usize::from(CRC.checksum(bytes)) % SLOTS
}

/// The smallest decimal number in that slot.
fn stand_in(slot_of_key: usize) -> &'static str {
    static NUMBERS: OnceLock<Vec<String>> = OnceLock::new();
    let numbers = NUMBERS.get_or_init(|| {
        let mut numbers = vec![String::new(); SLOTS];
        let mut missing = SLOTS;
        for n in 0.. {
            let text = n.to_string();
            let entry = &mut numbers[slot(text.as_bytes())];
            if entry.is_empty() {
                *entry = text;
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
        assert_eq!(Names::new("job:42").fence, "dlock:f:{job:42}");
        assert_eq!(Names::new("a{b").queue, "dlock:q:{a{b}");
        assert_eq!(Names::new("x{u}y").details, "dlock:d:{u}x{u}y");
        assert_eq!(Names::new("a}b").fence, "dlock:f:{20658}a}b");
        assert_eq!(slot(b"123456789"), 0x31C3);
    }

    #[test]
    fn side_keys_share_the_slot_of_their_key_and_nothing_else() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut seen: HashMap<String, String> = HashMap::new();
        for _ in 0..20_000 {
            let length = random.usize(1..9);
            let key: String = (0..length).map(|_| *random.choice(&['{', '}', 'a', 'b']).expect("not empty")).collect();
            let names = Names::new(&key);
            for side in [&names.fence, &names.queue, &names.details] {
                assert_eq!(slot_of(side), slot_of(&key), "{key} {side}");
            }
            if let Some(other) = seen.insert(names.fence.clone(), key.clone()) {
                assert_eq!(other, key, "share {}", names.fence);
            }
        }
    }
}
