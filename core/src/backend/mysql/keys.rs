//! The names of a key's locks at the server.
//!
//! MySQL takes 64 characters and ignores their case; MariaDB takes 192 bytes, heeds the case and cuts a name at NUL. So a
//! name is sent as it is only where both agree on it.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The longest name that MySQL takes.
const LIMIT: usize = 64;

/// The longest name of a row in the table of leases, in bytes.
pub(super) const ROW: usize = 700;

/// The length of a hash: 160 bits.
const HASH: usize = 40;

/// The mark of a name that is a hash. No key that is sent as it is contains it.
const MARK: char = '#';

/// Returns the name of a key: the key where it is short and has only `a-z`, `0-9` and `_.:/-`, or else its beginning and
/// its hash.
pub(super) fn name(key: &str) -> String {
    if mutant!("mysql-unsafe-names") || is_safe(key) { key.to_owned() } else { hashed(key) }
}

fn is_safe(key: &str) -> bool {
    let safe = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.:/-".contains(byte);
    (1..=LIMIT).contains(&key.len()) && key.as_bytes().iter().all(safe)
}

/// Returns the name of a key's row: the key where it is short enough, or else its beginning and its hash.
pub(super) fn row(key: &str) -> String {
    if key.len() <= ROW {
        return key.to_owned();
    }
    with_hash(key[..key.floor_char_boundary(ROW - HASH - 1)].to_owned(), key)
}

fn hashed(key: &str) -> String {
    let safe = |c: &char| c.is_ascii_alphanumeric() || "_.:/-".contains(*c);
    let head = key.chars().filter(safe).take(LIMIT - HASH - 1).map(|c| c.to_ascii_lowercase());
    with_hash(head.collect(), key)
}

fn with_hash(mut name: String, key: &str) -> String {
    name.push(MARK);
    for byte in &Sha256::digest(key.as_bytes())[..HASH / 2] {
        // Writing to a String can't fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_safe_key_is_its_name() {
        let longest = "k".repeat(64);
        for key in ["orders:42", "a/b-c_d.e", &longest] {
            assert_eq!(name(key), key);
        }
    }

    #[test]
    fn names_that_a_server_would_confuse_differ() {
        let long = "k".repeat(65);
        let keys = ["Foo", "foo", "foo ", "foo\0", "foo\0bar", "fo\u{e9}", "foe", "", "'", "\\", &long, &long[..64]];
        let names: HashSet<_> = keys.iter().map(|key| name(key)).collect();
        assert_eq!(names.len(), keys.len(), "{names:?}");
    }

    #[test]
    fn a_row_has_the_key_or_its_beginning() {
        let long = "\u{e9}".repeat(350);
        assert_eq!(row(&long), long);
        let (one, other) = (row(&format!("{long}a")), row(&format!("{long}b")));
        assert!(one != other && one.len() <= ROW && one.starts_with(&long[..600]), "{one} {other}");
    }

    proptest! {
        #[test]
        fn every_name_is_safe(key in ".{0,80}") {
            let name = name(&key);
            let alphabet = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.:/-#".contains(c);
            prop_assert!((1..=LIMIT).contains(&name.len()) && name.chars().all(alphabet), "{name}");
        }
    }
}
