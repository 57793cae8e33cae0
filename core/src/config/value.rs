//! A value of an option, and how text or a typed argument becomes what the option wants.

use std::time::Duration;

use super::duration;
use super::names::{hint, list};
use super::option_spec::{OptionSpec, ValueKind};
use crate::error::show;

/// The value of an option. It shows its text in `Debug`; [`Values`](super::schema::Values) doesn't where that is a
/// secret.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Text, or one word of a choice.
    Text(String),
    /// Yes or no.
    Flag(bool),
    /// A whole number.
    Count(u64),
    /// A duration.
    Time(Duration),
    /// Several texts.
    List(Vec<String>),
}

/// Makes of a value what the option wants. The complaint doesn't name the option, and shows no secret.
pub(crate) fn convert(opt: &OptionSpec, value: Value) -> Result<Value, String> {
    let shown = match &value {
        _ if opt.secret => "its value (not shown)".to_owned(),
        Value::Text(text) => show(text),
        other => written(other),
    };
    let complain = |why: &str| format!("{shown} {why}");
    if contains_nul(&value) {
        return Err("has a NUL character; take it out".to_owned());
    }
    match (opt.kind, value) {
        (ValueKind::Text, value @ Value::Text(_))
        | (ValueKind::Flag, value @ Value::Flag(_))
        | (ValueKind::Count, value @ Value::Count(_)) => Ok(value),
        (ValueKind::Text, Value::Count(number)) => Ok(Value::Text(number.to_string())),
        (ValueKind::Flag, Value::Count(number @ 0..=1)) => Ok(Value::Flag(number == 1)),
        (ValueKind::Flag, Value::Text(text)) => {
            flag(&text).map(Value::Flag).ok_or_else(|| complain("isn't a boolean; write true, false, 1 or 0"))
        }
        (ValueKind::Count, Value::Text(text)) => {
            let number = text.trim();
            let number = if number.starts_with('+') { None } else { number.parse().ok() };
            let limit = u64::MAX;
            number.map(Value::Count).ok_or_else(|| complain(&format!("isn't a whole number from 0 to {limit}")))
        }
        (ValueKind::Time, Value::Time(time)) => duration::check(time).map(Value::Time).map_err(|why| complain(&why)),
        (ValueKind::Time, Value::Count(seconds)) => {
            duration::check(Duration::from_secs(seconds)).map(Value::Time).map_err(|why| complain(&why))
        }
        (ValueKind::Time, Value::Text(text)) => duration::parse(&text).map(Value::Time).map_err(|why| complain(&why)),
        (ValueKind::List, Value::Text(text)) if text.trim().is_empty() => Ok(Value::List(Vec::new())),
        (ValueKind::List, Value::Text(text)) => entries(text.split(',')).map_err(|why| complain(&why)),
        (ValueKind::List, Value::List(texts)) => {
            entries(texts.iter().map(String::as_str)).map_err(|why| complain(&why))
        }
        (ValueKind::Choice(words), Value::Text(text)) => {
            let word = words.iter().find(|word| **word == text.trim());
            word.map(|word| Value::Text((*word).to_owned())).ok_or_else(|| {
                let hint = if opt.secret { String::new() } else { hint(&text, words.iter().copied()) };
                complain(&format!("isn't one of {}{hint}", list(words.iter())))
            })
        }
        (kind, _) => Err(complain(&format!("is of the wrong type; give {}", describe(kind)))),
    }
}

/// `true`, `false`, `1`, `0`, in any case.
pub(crate) fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

/// The words that YAML has beside: `yes`, `no`, `on`, `off`, in any case.
pub(crate) fn yaml_flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "yes" | "on" => Some(true),
        "no" | "off" => Some(false),
        other => flag(other),
    }
}

/// The text that [`convert`] reads back as the same value.
pub(crate) fn written(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Flag(flag) => flag.to_string(),
        Value::Count(number) => number.to_string(),
        Value::Time(time) => duration::write(*time),
        Value::List(texts) => texts.join(","),
    }
}

fn entries<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Value, String> {
    let texts: Vec<String> = texts.map(|text| text.trim().to_owned()).collect();
    if texts.iter().any(|text| text.is_empty() || text.contains(',')) {
        return Err("has an entry that is empty or has a comma inside; commas stand between entries only".to_owned());
    }
    Ok(Value::List(texts))
}

fn contains_nul(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.contains('\0'),
        Value::List(texts) => texts.iter().any(|text| text.contains('\0')),
        Value::Flag(_) | Value::Count(_) | Value::Time(_) => false,
    }
}

/// Returns true if a value is of the kind that is wanted.
pub(crate) fn is_kind(kind: ValueKind, value: &Value) -> bool {
    matches!(
        (kind, value),
        (ValueKind::Text | ValueKind::Choice(_), Value::Text(_))
            | (ValueKind::Flag, Value::Flag(_))
            | (ValueKind::Count, Value::Count(_))
            | (ValueKind::Time, Value::Time(_))
            | (ValueKind::List, Value::List(_))
    )
}

fn describe(kind: ValueKind) -> String {
    match kind {
        ValueKind::Text => "text".to_owned(),
        ValueKind::Flag => "true or false".to_owned(),
        ValueKind::Count => "a whole number".to_owned(),
        ValueKind::Time => "a duration such as 10s".to_owned(),
        ValueKind::List => "a list of texts".to_owned(),
        ValueKind::Choice(words) => format!("one of {}", list(words.iter())),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::DEPOT;
    use super::super::schema::option;
    use super::*;

    fn read(name: &str, value: Value) -> Result<Value, String> {
        convert(&option(&DEPOT, name).unwrap_or_else(|| panic!("no option {name}")), value)
    }

    #[test]
    fn turns_text_into_what_is_wanted() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(read("addrs", text("a:1, b:2")), Ok(Value::List(vec!["a:1".to_owned(), "b:2".to_owned()])));
        assert_eq!(read("tls", text("TRUE")), Ok(Value::Flag(true)));
        assert_eq!(read("db", text("7")), Ok(Value::Count(7)));
        assert_eq!(read("dial_timeout", Value::Count(2)), Ok(Value::Time(Duration::from_secs(2))));
        assert_eq!(read("password", Value::Count(42)), Ok(text("42")));
        for (name, bad) in [("tls", "yes"), ("db", "-1"), ("db", "+1"), ("dial_timeout", "5 days"), ("addrs", "a,,b")] {
            assert!(read(name, text(bad)).is_err(), "{name}={bad}");
        }
        let why = read("mode", text("mnay")).expect_err("no such mode");
        assert!(why.contains("did you mean many?"), "{why}");
        assert!(read("db", Value::Flag(true)).is_err_and(|why| why.contains("a whole number")));
    }

    #[test]
    fn complains_about_a_secret_without_it() {
        for value in [Value::List(vec!["hunter2".to_owned()]), Value::Text("hunter2\0".to_owned())] {
            let why = read("password", value).expect_err("not text");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
