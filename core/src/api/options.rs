//! The options of an acquire: one table of them, by which the bindings read them, and what of them can be refused
//! without asking a backend. Table, limits and their error texts share this file, so that a new option is one row in it.

use std::fmt::{self, Display};
use std::time::Duration;

use super::lock::Lock;
use crate::config::hint;
use crate::contract::{AcquireOptions, Capabilities, Mode};
use crate::drivers::unsupported;
use crate::error::{Error, Result, show};

/// An option of an acquire that every language has.
pub struct AcquireOption {
    /// The name. Node writes it in camelCase, see [`Camel`].
    pub name: &'static str,
    /// The effect of the option, in a line.
    pub doc: &'static str,
    /// The kind of its value.
    pub kind: OptionKind,
    set: fn(&mut AcquireOptions, OptionValue<'_>),
    get: fn(&AcquireOptions) -> Option<OptionValue<'_>>,
}

/// The kinds of values of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionKind {
    /// A time.
    Time,
    /// Yes or no.
    Flag,
    /// Text.
    Text,
    /// A whole number.
    Count,
    /// A number of tries and the time from one to the next.
    Retry,
}

impl OptionKind {
    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Flag => "flag",
            Self::Text => "text",
            Self::Count => "count",
            Self::Retry => "retry",
        }
    }
}

/// The value of an option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OptionValue<'a> {
    /// Of [`OptionKind::Time`].
    Time(Duration),
    /// Of [`OptionKind::Flag`].
    Flag(bool),
    /// Of [`OptionKind::Text`].
    Text(&'a str),
    /// Of [`OptionKind::Count`].
    Count(u32),
    /// Of [`OptionKind::Retry`].
    Retry((u32, Duration)),
}

/// The names, in a complaint, of the two values of [`OptionKind::Retry`].
pub const RETRY: [&str; 2] = ["retry: tries", "retry: delay"];

impl AcquireOption {
    /// The value that these options have. `None`: none, which is the default where there can be none.
    pub fn value<'a>(&self, options: &'a AcquireOptions) -> Option<OptionValue<'a>> {
        (self.get)(options)
    }
}

/// The option of this name.
pub fn find(name: &str) -> Option<&'static AcquireOption> {
    OPTIONS.iter().find(|option| option.name == name)
}

impl Lock {
    /// Sets an option to a value of its kind, as a binding has read it.
    #[must_use]
    pub fn set(self, option: &AcquireOption, value: OptionValue<'_>) -> Self {
        self.with(|options| (option.set)(options, value))
    }
}

/// The value of a field of the options, as an `OptionValue` of this kind.
macro_rules! value {
    (Text, $field:expr) => {
        $field.as_deref()
    };
    ($kind:ident, $field:expr) => {
        Option::from($field)
    };
}

/// Makes of each row: its entry in the table, its setter of [`Lock`], and the check of its limits. A row is a name, the
/// kind and the Rust type of its value, what it sets the field of its name to, and its limits.
macro_rules! options {
    ($(#[doc = $doc:literal] $name:ident: $kind:ident($type:ty) = $value:expr, $limits:path;)*) => {
        /// The options that every language has.
        pub const OPTIONS: &[AcquireOption] = &[$(AcquireOption {
            name: stringify!($name),
            doc: $doc.trim_ascii_start(),
            kind: OptionKind::$kind,
            set: |options, value| {
                match value {
                    OptionValue::$kind($name) => options.$name = $value,
                    other => unreachable!("{other:?} is of another kind than {}", stringify!($name)),
                }
            },
            get: |options| value!($kind, options.$name).map(OptionValue::$kind),
        }),*];

        impl Lock {
            $(#[doc = $doc]
            #[must_use]
            pub fn $name(self, $name: $type) -> Self {
                self.with(|options| options.$name = $value)
            })*
        }

        impl AcquireOptions {
            fn check_values(&self, at: &Place<'_>) -> Result<()> {
                $(if let Some(value) = value!($kind, self.$name) {
                    $limits(stringify!($name), value, at)?;
                })*
                Ok(())
            }
        }
    };
}

options! {
    /// The time for which the backend keeps the lock with no renewal. Default 30 s.
    ttl: Time(Duration) = ttl, limit_ttl;
    /// The time to wait for the lock in all; zero: try once. Default: for ever.
    wait: Time(Duration) = Some(wait), limit_wait;
    /// Instead of waiting: at most so many attempts, so far apart.
    retry: Retry((u32, Duration)) = Some(retry), limit_retry;
    /// True: the watchdog renews the lease, every ttl/3. Default true.
    auto_renew: Flag(bool) = auto_renew, no_limit;
    /// After this long the lease is lost and deleted at the backend. Default: no limit.
    max_hold: Time(Duration) = Some(max_hold), limit_hold;
    /// The text that proves ownership, stored as given. Default: unique to each acquisition.
    token: Text(&str) = Some(token.into()), limit_token;
    /// Free text that `contenders` shows. Default: none.
    label: Text(&str) = Some(label.into()), limit_label;
    /// First come, first served across processes. Default: as the backend does.
    fair: Flag(bool) = Some(fair), limit_fair;
    /// The number of times in a row that the lock may be passed on inside this process. Default 0.
    handoff: Count(u32) = handoff, limit_handoff;
}

/// The words of other locks and of earlier releases, each with the option that does it here.
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

/// The error of an option that doesn't exist: it names the one that was probably meant, and those that `known`, the
/// options of the caller's language, lists.
pub fn unknown(name: &str, known: &[&str]) -> Error {
    let (shown, hint, known) = (show(name), did_you_mean(name, known), known.join(", "));
    Error::invalid(format!("the option {shown} doesn't exist{hint}; there are: {known}"))
}

/// ` (did you mean …?)`, with the name as it is in `known`. Empty if no name is near.
fn did_you_mean(name: &str, known: &[&str]) -> String {
    let alias = ALIASES.iter().find(|(alias, _)| folded(alias) == folded(name));
    let meant = alias.and_then(|(_, meant)| known.iter().find(|known| folded(known) == folded(meant)));
    meant.map_or_else(|| hint(name, known.iter().copied()), |meant| format!(" (did you mean {meant}?)"))
}

/// A name without what the languages' styles make of it.
fn folded(name: &str) -> String {
    name.chars().filter(|sign| *sign != '_').flat_map(char::to_lowercase).collect()
}

/// A name in camelCase.
#[derive(Clone, Copy, Debug)]
pub struct Camel<'a>(pub &'a str);

impl Display for Camel<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.split('_');
        f.write_str(words.next().unwrap_or_default())?;
        words.try_for_each(|word| {
            let (first, rest) = word.split_at(word.len().min(1));
            write!(f, "{}{rest}", first.to_ascii_uppercase())
        })
    }
}

/// The unit in which a language counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
}

impl Unit {
    fn per_second(self) -> f64 {
        match self {
            Self::Seconds => 1.0,
            Self::Millis => 1000.0,
        }
    }

    /// Reads a number of the unit.
    ///
    /// # Errors
    /// `Invalid` for a number that is no duration. `name` is what the error calls it.
    pub fn duration(self, name: impl Display, number: f64) -> Result<Duration> {
        if number.is_nan() || number < 0.0 {
            return Err(self.no_duration(name, number));
        }
        Duration::try_from_secs_f64(number / self.per_second()).map_err(|_| {
            let (unit, days) = (self.symbol(), LONGEST.as_secs() / 86_400);
            Error::invalid(format!("{name} of {number} {unit} is too long: use at most {days} days, or leave it out"))
        })
    }

    /// Writes a duration as a number of the unit; infinity for [`Duration::MAX`].
    pub fn number(self, duration: Duration) -> f64 {
        match duration {
            Duration::MAX => f64::INFINITY,
            duration => duration.as_secs_f64() * self.per_second(),
        }
    }

    /// The error of a number that is no duration.
    pub fn no_duration(self, name: impl Display, number: impl Display) -> Error {
        let word = if self == Self::Seconds { "seconds" } else { "milliseconds" };
        Error::invalid(format!("{name} of {number} {} is not a duration: use 0 or more {word}", self.symbol()))
    }

    fn symbol(self) -> &'static str {
        if self == Self::Seconds { "s" } else { "ms" }
    }
}

/// Reads a whole number of a language that has only floating-point ones.
///
/// # Errors
/// As [`no_count`].
pub fn count(name: impl Display, number: f64) -> Result<u32> {
    if number.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&number) {
        return Err(no_count(name, number));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    Ok(number as u32)
}

/// The error of a value that is no whole number, or is out of range.
pub fn no_count(name: impl Display, number: impl Display) -> Error {
    Error::invalid(format!("{name} of {number} is out of range: use a whole number from 0 to {}", u32::MAX))
}

/// The error of text of a language whose texts may have halves of characters.
pub fn no_unicode(name: impl Display, shown: impl Display) -> Error {
    Error::invalid(format!("{name} {shown} is not valid Unicode: it has lone surrogates"))
}

/// The longest ttl, hold or wait that is taken for meant.
pub(crate) const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// The longest key, in bytes.
pub(crate) const KEY_LIMIT: usize = 512;
/// The longest token or label, in bytes.
pub(crate) const TEXT_LIMIT: usize = 1024;

/// The most permits that a lock can have.
pub(crate) const PERMITS_LIMIT: u32 = 1_000_000;

/// The beginning of every token that isn't the user's.
const OURS: &str = "dlock:";

/// The backend that is to keep the options.
struct Place<'a> {
    backend: &'a str,
    capabilities: &'a Capabilities,
}

impl AcquireOptions {
    /// Checks everything that needs no backend's answer.
    pub(crate) fn check(&self, backend: &str, capabilities: &Capabilities) -> Result<()> {
        check_key(&self.key)?;
        self.check_values(&Place { backend, capabilities })?;
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
        Ok(())
    }
}

fn no_limit(_: &str, _: bool, _: &Place<'_>) -> Result<()> {
    Ok(())
}

fn limit_ttl(_: &str, ttl: Duration, at: &Place<'_>) -> Result<()> {
    check_ttl(ttl, at.backend, at.capabilities)
}

fn limit_wait(name: &str, wait: Duration, _: &Place<'_>) -> Result<()> {
    if wait > LONGEST {
        return Err(Error::invalid(format!(
            "{name} of {wait:?} is more than a year (366 days); leave it out for no limit"
        )));
    }
    Ok(())
}

fn limit_hold(name: &str, hold: Duration, at: &Place<'_>) -> Result<()> {
    if hold < Duration::from_millis(1) {
        return Err(Error::invalid(format!("{name} of 0 would lose every lock at once; leave it out for no limit")));
    }
    limit_wait(name, hold, at)
}

fn limit_retry(name: &str, (tries, delay): (u32, Duration), _: &Place<'_>) -> Result<()> {
    if tries == 0 || delay > LONGEST {
        return Err(Error::invalid(format!(
            "{name} of {tries} tries, {delay:?} apart: at least 1 try, and a delay of at most 366 days"
        )));
    }
    Ok(())
}

fn limit_label(name: &str, text: &str, _: &Place<'_>) -> Result<()> {
    if text.len() > TEXT_LIMIT || text.contains('\0') {
        return Err(no_text(name, text));
    }
    Ok(())
}

fn limit_token(name: &str, token: &str, at: &Place<'_>) -> Result<()> {
    if token.is_empty() {
        return Err(no_text(name, token));
    }
    limit_label(name, token, at)?;
    if token.starts_with(OURS) && !mutant!("client-token-of-ours-taken") {
        return Err(Error::invalid(format!(
            "a token that begins with `{OURS}`: dlock makes these for itself, and whoever has one could give back \
             another's lock; use any other text, or leave it out"
        )));
    }
    Ok(())
}

fn no_text(name: &str, text: &str) -> Error {
    let length = text.len();
    Error::invalid(format!("a {name} of {length} bytes: use 1 to {TEXT_LIMIT} bytes with no NUL, or leave it out"))
}

fn limit_fair(_: &str, fair: bool, at: &Place<'_>) -> Result<()> {
    if fair && !at.capabilities.fifo {
        return Err(unsupported(at.backend, "fair=true (first come, first served across processes)", |c| c.fifo));
    }
    Ok(())
}

fn limit_handoff(name: &str, times: u32, at: &Place<'_>) -> Result<()> {
    if times > 0 && !at.capabilities.handoff {
        return Err(unsupported(at.backend, name, |c| c.handoff));
    }
    Ok(())
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
    fn every_row_sets_and_tells_its_own_option() {
        for option in OPTIONS {
            let given = match option.kind {
                OptionKind::Time => OptionValue::Time(Duration::from_secs(7)),
                OptionKind::Flag => OptionValue::Flag(false),
                OptionKind::Text => OptionValue::Text("text"),
                OptionKind::Count => OptionValue::Count(7),
                OptionKind::Retry => OptionValue::Retry((7, Duration::from_secs(7))),
            };
            let mut options = AcquireOptions::new("k");
            (option.set)(&mut options, given);
            for other in OPTIONS {
                let plain = AcquireOptions::new("k");
                let expected = if other.name == option.name { Some(given) } else { other.value(&plain) };
                assert_eq!(other.value(&options), expected, "{} after {} was set", other.name, option.name);
            }
            assert!(find(option.name).is_some_and(|found| found.name == option.name));
            assert!(option.doc.len() > 20 && !option.doc.contains('\n'), "{}", option.doc);
        }
    }

    #[test]
    fn names_and_numbers_of_other_languages() {
        let camel = ["auto_renew", "ttl", "max_hold", "a_b_c", ""].map(|name| Camel(name).to_string());
        assert_eq!(camel, ["autoRenew", "ttl", "maxHold", "aBC", ""]);
        assert_eq!(Unit::Millis.duration("t", 1500.0).unwrap(), Duration::from_millis(1500));
        assert_eq!(Unit::Seconds.number(Duration::from_millis(1500)), 1.5);
        assert_eq!(Unit::Millis.number(Duration::MAX), f64::INFINITY);
        for number in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let error = Unit::Seconds.duration("t", number).unwrap_err().to_string();
            assert!(error.starts_with(&format!("t of {number} s is ")), "{error}");
        }
        assert_eq!(count("n", 4_294_967_295.0).unwrap(), u32::MAX);
        for number in [-1.0, 0.5, f64::NAN, 4_294_967_296.0] {
            assert!(count("n", number).is_err(), "{number}");
        }
    }

    #[test]
    fn an_unknown_option_is_answered_in_the_style_of_the_language() {
        let names: Vec<_> = OPTIONS.iter().map(|option| option.name).collect();
        let node = ["ttl", "wait", "autoRenew", "maxHold"];
        for (name, known, said) in [
            ("renew", &names[..], " (did you mean auto_renew?)"),
            ("renew", &node, " (did you mean autoRenew?)"),
            ("timeout", &names, " (did you mean wait?)"),
            ("blockingTimeout", &node, " (did you mean wait?)"),
            ("loss", &["ttl", "on_loss"], " (did you mean on_loss?)"),
            ("max_hold", &node, " (did you mean maxHold?)"),
            ("colour", &names, ""),
        ] {
            assert_eq!(did_you_mean(name, known), said, "{name}");
        }
    }
}
