//! Durations as text: `10s`, `500ms`, `5m`, `1.5s`, `2h`, or a bare number of seconds.

use std::time::Duration;

use crate::error::{Error, Result, show};

/// The longest duration there is: 100 years of 365 days.
const LIMIT: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const UNITS: [(&str, u128); 5] =
    [("", 1_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000)];

/// Reads a duration: a decimal number and a unit out of `ms`, `s`, `m`, `h`; with no unit it is seconds. What is finer
/// than a nanosecond is cut off.
///
/// # Errors
/// `Invalid`, saying what is wrong: no number, negative, not finite, an unknown unit, more than 100 years.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// assert_eq!(dlock::config::duration("1.5s")?, Duration::from_millis(1500));
/// assert_eq!(dlock::config::duration("2")?, Duration::from_secs(2));
/// # Ok::<(), dlock::Error>(())
/// ```
pub fn duration(text: &str) -> Result<Duration> {
    parse(text).map_err(|why| Error::invalid(format!("{} {why}", show(text))))
}

/// [`duration`] with a complaint that doesn't repeat the text: `isn't a duration: …`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..digits], text[digits..].trim_start());
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(no_number(text));
    }
    let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err("isn't a duration: its unit is unknown; use ms, s, m or h, as in 500ms, 10s, 5m, 2h".to_owned());
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if fraction.is_empty() || fraction.contains('.') {
        return Err("isn't a duration: write the number with digits on both sides of one point, as in 1.5s".to_owned());
    }
    // 18 digits are enough for a nanosecond of an hour, and keep the product within 128 bits.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = fraction.parse::<u128>().unwrap_or(0) * scale / 10_u128.pow(fraction.len() as u32);
    let nanos = whole.parse::<u128>().ok().and_then(|whole| whole.checked_mul(*scale)?.checked_add(part));
    let nanos = nanos.filter(|nanos| *nanos <= LIMIT.as_nanos()).ok_or_else(too_long)?;
    Ok(Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32))
}

/// Refuses a typed duration that its text couldn't say.
pub(crate) fn check(time: Duration) -> Result<Duration, String> {
    if time <= LIMIT { Ok(time) } else { Err(too_long()) }
}

/// The shortest text that reads back as the same duration.
pub(crate) fn write(time: Duration) -> String {
    match (time.as_secs(), time.subsec_nanos()) {
        (seconds, 0) => format!("{seconds}s"),
        (_, nanos) if nanos % 1_000_000 == 0 => format!("{}ms", time.as_millis()),
        (seconds, nanos) => format!("{seconds}.{}s", format!("{nanos:09}").trim_end_matches('0')),
    }
}

fn too_long() -> String {
    "is too long: the limit is 100 years (876000h)".to_owned()
}

fn no_number(text: &str) -> String {
    let bare = text.trim_start_matches(['+', '-', '.']).to_ascii_lowercase();
    let why = if text.is_empty() {
        "it is empty"
    } else if bare.starts_with("nan") || bare.starts_with("inf") {
        "it must be a finite number"
    } else if text.starts_with('-') {
        "it must not be negative"
    } else {
        "it must start with a digit"
    };
    format!("isn't a duration: {why}; write one like 500ms, 10s, 5m, 2h or a number of seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_should() {
        let cases = [("10s", 10_000), ("500ms", 500), ("5m", 300_000), ("1.5s", 1500), ("2h", 7_200_000), ("3", 3000)];
        for (text, millis) in cases.into_iter().chain([("0", 0), ("0.25", 250), (" 7 s ", 7000), ("0.5ms", 0)]) {
            let read = parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(read.as_millis(), millis, "{text}");
        }
        assert_eq!(parse("0.5ms"), Ok(Duration::from_micros(500)));
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [("", "empty"), ("-1s", "negative"), ("NaN", "finite"), ("-inf", "finite"), (".inf", "finite")];
        let more = [("s", "start with a digit"), ("5d", "unit"), ("1e3", "unit"), ("1.", "digits on both sides")];
        let last = [("1..2s", "digits on both sides"), ("99999999999999999999999999999999999999999h", "100 years")];
        for (text, part) in cases.into_iter().chain(more).chain(last).chain([("876001h", "100 years")]) {
            let why = parse(text).expect_err(text);
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    #[test]
    fn writes_the_shortest() {
        assert_eq!(write(Duration::from_millis(1500)), "1500ms");
        assert_eq!(write(Duration::from_secs(90)), "90s");
        assert_eq!(write(Duration::new(1, 1000)), "1.000001s");
    }
}
