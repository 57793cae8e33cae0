//! The options that are set, kept without ever showing a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::option::{Opt, option};
use super::value::{Value, is_kind};
use crate::backend::Driver;

/// The options that are set, by name. Values of secret options are kept, compared and hashed like all others, but
/// never shown.
#[derive(Clone)]
pub struct Values {
    pub(crate) driver: &'static Driver,
    map: BTreeMap<&'static str, Value>,
}

impl Values {
    /// Nothing set yet.
    pub fn new(driver: &'static Driver) -> Self {
        Self { driver, map: BTreeMap::new() }
    }

    /// Sets an option that the driver has, to the kind of value it wants.
    pub fn set(&mut self, name: &'static str, value: Value) {
        let fits = option(self.driver, name).is_some_and(|opt| is_kind(opt.want, &value));
        debug_assert!(fits, "{}: {name} isn't declared, or wants another kind of value", self.driver.name);
        self.map.insert(name, value);
    }

    /// Whether an option is set.
    pub fn contains(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The text, or the word of a choice.
    pub fn text(&self, name: &str) -> Option<&str> {
        if let Value::Text(text) = self.map.get(name)? { Some(text) } else { None }
    }

    /// The flag; an option that isn't set is `None`.
    pub fn flag(&self, name: &str) -> Option<bool> {
        if let Value::Flag(flag) = self.map.get(name)? { Some(*flag) } else { None }
    }

    /// The number.
    pub fn count(&self, name: &str) -> Option<u64> {
        if let Value::Count(number) = self.map.get(name)? { Some(*number) } else { None }
    }

    /// The duration.
    pub fn time(&self, name: &str) -> Option<Duration> {
        if let Value::Time(time) = self.map.get(name)? { Some(*time) } else { None }
    }

    /// The list.
    pub fn list(&self, name: &str) -> Option<&[String]> {
        if let Value::List(texts) = self.map.get(name)? { Some(texts) } else { None }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        self.map.remove(name);
    }

    pub(crate) fn merge(&mut self, stronger: &Self) {
        self.map.extend(stronger.map.iter().map(|(name, value)| (*name, value.clone())));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<Opt>, &'static str, &Value)> {
        self.map.iter().map(|(name, value)| (option(self.driver, name), *name, value))
    }

    pub(crate) fn has_secrets(&self) -> bool {
        self.iter().any(|(opt, ..)| opt.is_none_or(|opt| opt.secret))
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.driver.name == other.driver.name && self.map == other.map
    }
}

impl Eq for Values {}

impl Hash for Values {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.driver.name.hash(state);
        self.map.hash(state);
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (opt, name, value) in self.iter() {
            // An option nobody declared may be a secret.
            if opt.is_none_or(|opt| opt.secret) {
                map.entry(&name, &"***")
            } else {
                map.entry(&name, value)
            };
        }
        map.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::DEPOT;
    use super::*;

    #[test]
    fn shows_no_secret() {
        let mut values = Values::new(&DEPOT);
        values.set("password", Value::Text("hunter2".to_owned()));
        values.set("db", Value::Count(3));
        let shown = format!("{values:?}");
        assert!(!shown.contains("hunter2") && shown.contains('3'), "{shown}");
    }
}
