//! The options of an acquire: their names, and what of them can be refused without asking a backend.

use std::time::Duration;

use crate::config::hint;
use crate::contract::{AcquireOptions, Capabilities, Mode};
use crate::drivers::unsupported;
use crate::error::{Error, Result};

/// The options that every language has. Node writes them in camelCase.
pub const NAMES: [&str; 9] = ["ttl", "wait", "retry", "auto_renew", "max_hold", "token", "label", "fair", "handoff"];

/// What users type who know other locks or an earlier release, and the option that does it here.
const ALIASES: [(&str, &str); 11] = [
    ("renew", "auto_renew"),
    ("renewal", "auto_renew"),
    ("loss", "on_loss"),
    ("timeout", "wait"),
    ("blocking_timeout", "wait"),
    ("acquire_timeout", "wait"),
    ("lease_time", "ttl"),
    ("expire", "ttl"),
    ("value", "token"),
    ("owner", "token"),
    ("retries", "retry"),
];

/// The end of a message about an option that doesn't exist: ` (did you mean …?)`, with the name as it is in `known`, the
/// options of the caller's language. Empty if no name is near.
pub fn did_you_mean(name: &str, known: &[&str]) -> String {
    let alias = ALIASES.iter().find(|(alias, _)| folded(alias) == folded(name));
    let meant = alias.and_then(|(_, meant)| known.iter().find(|known| folded(known) == folded(meant)));
    meant.map_or_else(|| hint(name, known.iter().copied()), |meant| format!(" (did you mean {meant}?)"))
}

/// A name without what the languages' styles make of it.
fn folded(name: &str) -> String {
    name.chars().filter(|sign| *sign != '_').flat_map(char::to_lowercase).collect()
}

/// The longest ttl, hold or wait that is taken for meant.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// The longest key, in bytes.
pub(crate) const KEY_LIMIT: usize = 512;
/// The longest token or label, in bytes.
pub(crate) const TEXT_LIMIT: usize = 1024;

/// The most permits that a lock can have.
pub(crate) const PERMITS_LIMIT: u32 = 1_000_000;

/// How every token begins that isn't the user's.
const OURS: &str = "dlock:";

impl AcquireOptions {
    /// Checks everything that needs no backend's answer.
    pub(crate) fn check(&self, backend: &str, capabilities: &Capabilities) -> Result<()> {
        check_key(&self.key)?;
        check_ttl(self.ttl, backend, capabilities)?;
        for (what, value) in [("wait", self.wait), ("max_hold", self.max_hold)] {
            if let Some(value) = value.filter(|&value| value > LONGEST) {
                return Err(Error::invalid(format!(
                    "{what} of {value:?} is more than a year (366 days); leave it out for no limit"
                )));
            }
        }
        if self.max_hold.is_some_and(|hold| hold < Duration::from_millis(1)) {
            return Err(Error::invalid("max_hold of 0 would lose every lock at once; leave it out for no limit"));
        }
        if let Some((tries, delay)) = self.retry
            && (tries == 0 || delay > LONGEST)
        {
            return Err(Error::invalid(format!(
                "retry of {tries} tries, {delay:?} apart: at least 1 try, and a delay of at most 366 days"
            )));
        }
        for (what, text) in [("token", &self.token), ("label", &self.label)] {
            let Some(text) = text else { continue };
            if what == "token" && text.is_empty() || text.len() > TEXT_LIMIT || text.contains('\0') {
                return Err(Error::invalid(format!(
                    "a {what} of {} bytes: use 1 to {TEXT_LIMIT} bytes with no NUL, or leave it out",
                    text.len()
                )));
            }
        }
        if self.token.as_deref().is_some_and(|token| token.starts_with(OURS)) && !mutant!("client-token-of-ours-taken")
        {
            return Err(Error::invalid(format!(
                "a token that begins with `{OURS}`: dlock makes these for itself, and whoever has one could give back \
                 another's lock; use any other text, or leave it out"
            )));
        }
        if self.fair == Some(true) && !capabilities.fifo {
            return Err(unsupported(backend, "fair=true (first come, first served across processes)", |c| c.fifo));
        }
        match self.mode {
            Mode::Exclusive => {}
            Mode::Shared if capabilities.shared => {}
            Mode::Shared => return Err(unsupported(backend, "shared locks", |can| can.shared)),
            Mode::Permits { count, limit } => {
                if count == 0 || limit == 0 || count > limit {
                    return Err(Error::invalid(format!(
                        "{count} permits of {limit}: take at least 1, and not more than the limit"
                    )));
                }
                if limit > PERMITS_LIMIT {
                    return Err(Error::invalid(format!("a limit of {limit} permits: use at most {PERMITS_LIMIT}")));
                }
                if !capabilities.permits {
                    return Err(unsupported(backend, "permits (a semaphore)", |can| can.permits));
                }
            }
        }
        if self.handoff > 0 && !capabilities.handoff {
            return Err(unsupported(backend, "handoff", |c| c.handoff));
        }
        Ok(())
    }
}

/// A key is 1 to 512 bytes of UTF-8 with no NUL.
fn check_key(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Error::invalid(format!("the key is empty: use 1 to {KEY_LIMIT} bytes of UTF-8")));
    }
    if key.len() > KEY_LIMIT {
        return Err(Error::invalid(format!(
            "the key has {} bytes, the limit is {KEY_LIMIT}: shorten it, for example by hashing its tail",
            key.len()
        ))
        .with_key(key));
    }
    if let Some(at) = key.find('\0') {
        return Err(Error::invalid(format!("the key has a NUL at byte {at}: leave it out or encode it")).with_key(key));
    }
    Ok(())
}

/// A ttl the backend can keep.
pub(crate) fn check_ttl(ttl: Duration, backend: &str, capabilities: &Capabilities) -> Result<()> {
    if ttl < capabilities.min_ttl {
        return Err(Error::invalid(format!(
            "ttl of {ttl:?} is below the minimum of {:?} on {backend}; use that or more (the default is 30 s)",
            capabilities.min_ttl
        )));
    }
    if ttl > LONGEST {
        return Err(Error::invalid(format!(
            "ttl of {ttl:?} is more than a year (366 days); a dead holder would keep the lock that long: \
             the default of 30 s is renewed for as long as the holder lives"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_answered_in_the_style_of_the_language() {
        let node = ["ttl", "wait", "autoRenew", "maxHold"];
        for (name, known, said) in [
            ("renew", &NAMES[..], " (did you mean auto_renew?)"),
            ("renew", &node, " (did you mean autoRenew?)"),
            ("timeout", &NAMES, " (did you mean wait?)"),
            ("blockingTimeout", &node, " (did you mean wait?)"),
            ("loss", &["ttl", "on_loss"], " (did you mean on_loss?)"),
            ("max_hold", &node, " (did you mean maxHold?)"),
            ("colour", &NAMES, ""),
        ] {
            assert_eq!(did_you_mean(name, known), said, "{name}");
        }
    }
}
