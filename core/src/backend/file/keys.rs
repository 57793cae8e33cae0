//! The path of a key's lock file: readable where that is safe, and never the same for two keys.

use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

const SUFFIX: &str = ".lock";
/// The longest file name of the usual file systems.
const LIMIT: usize = 255;
/// The length of a long key's readable part.
const HEAD: usize = 100;

/// Returns the path of the key's lock file.
pub(super) fn path(dir: &Path, key: &str) -> Result<String> {
    let name = dir.join(file_name(key)).into_os_string().into_string();
    name.map_err(|_| Error::invalid(format!("the lock directory {} is not UTF-8: use another", dir.display())))
}

/// Returns the file name of a key. Letters, digits and `-_.:@=+,` stay, other bytes become `%XX`; a long name is cut
/// and ends in `~` and a hash, which no short name contains.
fn file_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len() + SUFFIX.len());
    let mut cut = 0;
    for (at, &byte) in key.as_bytes().iter().enumerate() {
        if byte.is_ascii_alphanumeric() || b"-_:@=+,".contains(&byte) || byte == b'.' && at > 0 {
            name.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(name, "%{byte:02X}");
        }
        if name.len() <= HEAD {
            cut = name.len();
        }
    }
    if name.len() + SUFFIX.len() > LIMIT {
        name.truncate(cut);
        name.push('~');
        for byte in &Sha256::digest(key.as_bytes())[..16] {
            let _ = write!(name, "{byte:02x}");
        }
    }
    name + SUFFIX
}

/// Returns the key of a lock file's name. Of a key that was too long for a name: its head, `~` and its hash. `None`: not a
/// lock file.
pub(super) fn key(file_name: &str) -> Option<String> {
    let name = file_name.strip_suffix(SUFFIX)?;
    let (head, hash) = name.split_at(name.find('~').unwrap_or(name.len()));
    // The head of a long key may end within a character.
    let head = percent_encoding::percent_decode_str(head).collect::<Vec<_>>();
    match hash {
        // Another spelling of a name is the file of no key.
        "" => String::from_utf8(head).ok().filter(|key| !key.is_empty() && self::file_name(key) == file_name),
        _ => Some(String::from_utf8_lossy(&head).into_owned() + hash),
    }
}

#[cfg(test)]
mod tests {
    use super::{LIMIT, file_name, key};
    use proptest::prelude::*;

    #[test]
    fn readable_where_safe() {
        assert_eq!(file_name("user:42"), "user:42.lock");
        assert_eq!(file_name("a/b"), "a%2Fb.lock");
        assert_eq!(file_name(".."), "%2E..lock");
        assert_eq!(file_name("é%"), "%C3%A9%25.lock");
        assert_eq!(file_name(&"x".repeat(512)).len(), 100 + 1 + 32 + 5);
        assert_eq!(["a%2fb.lock", "%61.lock", "a", ".lock"].map(key), [const { None }; 4]);
    }

    proptest! {
        #[test]
        fn safe_and_distinct(a in "\\PC{1,200}", b in "\\PC{1,200}") {
            let (x, y) = (file_name(&a), file_name(&b));
            prop_assert_eq!(a == b, x == y);
            let told = key(&x);
            prop_assert_eq!(told.clone().filter(|_| !x.contains('~')), Some(a.clone()).filter(|_| !x.contains('~')));
            // Each of these has 12 characters of the name at most.
            let head: String = a.chars().take(8).collect();
            prop_assert!(told.is_some_and(|told| told.starts_with(&head)));
            prop_assert!(x.len() <= LIMIT && !x.starts_with('.') && !x.contains(['/', '\0']) && x.is_ascii());
        }
    }
}
