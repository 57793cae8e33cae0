//! The schema of a backend: how it is named and configured; and the options that are set by it.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::names::{hint, list};
use super::option_spec::{OptionSpec, Scheme, ValueKind};
use super::url_parts::UrlParts;
use super::value::{Value, is_kind};
use crate::error::{Error, Result, show};

/// The services that configuration may speak of, whether this build has them or not: what was meant for one that it
/// doesn't have is refused, or else it would lock on files of this host.
pub(crate) const SERVICES: &[&str] = &["redis", "etcd", "mysql", "zookeeper"];

/// The names and the options of a backend.
#[derive(Debug)]
pub struct Schema {
    /// The backend's name: `client.backend`, the YAML block, the middle of `DLOCK_<NAME>_…`.
    pub name: &'static str,
    /// The URL schemes it answers to; the first is the one that typed configuration writes.
    pub schemes: &'static [Scheme],
    /// Its options beyond the common ones.
    pub options: &'static [OptionSpec],
    /// True if it is one of the services that configuration switches on by `enabled`.
    pub service: bool,
    /// Turns the parts of a URL (hosts, user, path) into options.
    pub parts: fn(&UrlParts, &mut Values) -> Result<()>,
    /// Turns options back into what stands between scheme and parameters of a URL, without secrets.
    pub authority: fn(&Values) -> String,
}

/// The backends of a build; tests bring their own.
pub(crate) type Schemas = &'static [&'static Schema];

/// The options that are set, by name. Values of secret options are kept, compared and hashed like all others, but
/// never shown.
#[derive(Clone)]
pub struct Values {
    pub(crate) schema: &'static Schema,
    map: BTreeMap<&'static str, Value>,
}

impl Values {
    /// Nothing set yet.
    pub fn new(schema: &'static Schema) -> Self {
        Self { schema, map: BTreeMap::new() }
    }

    /// Sets an option that the schema has, to the kind of value it wants.
    pub fn set(&mut self, name: &'static str, value: Value) {
        let fits = option(self.schema, name).is_some_and(|opt| is_kind(opt.kind, &value));
        debug_assert!(fits, "{}: {name} isn't declared, or wants another kind of value", self.schema.name);
        self.map.insert(name, value);
    }

    /// Returns true if an option is set.
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Option<OptionSpec>, &'static str, &Value)> {
        self.map.iter().map(|(name, value)| (option(self.schema, name), *name, value))
    }

    pub(crate) fn has_secrets(&self) -> bool {
        self.iter().any(|(opt, ..)| opt.is_none_or(|opt| opt.secret))
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.schema.name == other.schema.name && self.map == other.map
    }
}

impl Eq for Values {}

impl Hash for Values {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.schema.name.hash(state);
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

const PREFIX: OptionSpec = OptionSpec::common("prefix", ValueKind::Text);
const CONNECT_TIMEOUT: OptionSpec = OptionSpec::common("connect_timeout", ValueKind::Time);
/// The option that a scheme with `tls` sets.
pub(crate) const TLS: &str = "tls";
/// The option that a scheme with a `mode` sets.
pub(crate) const MODE: &str = "mode";
/// The options that make sense with TLS only.
pub(crate) const TLS_ONLY: [&str; 4] = ["ca", "cert", "key", "sni"];

/// The options of a schema: its own, then the common ones that it doesn't declare itself.
pub(crate) fn options(schema: &'static Schema) -> impl Iterator<Item = OptionSpec> {
    let with_tls = schema.schemes.iter().any(|scheme| scheme.tls);
    let in_env = |opt: OptionSpec| OptionSpec { env: schema.service, ..opt };
    let tls = TLS_ONLY
        .map(|name| OptionSpec { env: schema.service && name != "sni", ..OptionSpec::common(name, ValueKind::Text) });
    let common = [in_env(PREFIX), CONNECT_TIMEOUT].into_iter();
    let tls = [OptionSpec::common(TLS, ValueKind::Flag)].into_iter().chain(tls).filter(move |_| with_tls);
    let inherited = common.chain(tls).filter(|opt| !schema.options.iter().any(|own| own.name == opt.name));
    schema.options.iter().copied().chain(inherited)
}

/// The option of this name.
pub(crate) fn option(schema: &'static Schema, name: &str) -> Option<OptionSpec> {
    options(schema).find(|opt| opt.name == name)
}

/// The schema of this name, or an error that lists those there are.
pub(crate) fn schema(schemas: Schemas, name: &str) -> Result<&'static Schema> {
    schemas.iter().copied().find(|schema| schema.name == name).ok_or_else(|| {
        if SERVICES.contains(&name) {
            return Error::invalid(absent(schemas, name));
        }
        let names = || schemas.iter().map(|schema| schema.name);
        let hint = hint(name, names());
        Error::invalid(format!("there is no backend {} in this build{hint}; it has: {}", show(name), list(names())))
    })
}

/// That this build doesn't have a service, and how there would be one that does.
pub(crate) fn absent(schemas: Schemas, service: &str) -> String {
    let services = || schemas.iter().filter(|schema| schema.service).map(|schema| schema.name);
    let names = list(services());
    if SERVICES.contains(&service) {
        return format!("this build has no service {service} (it has: {names}); use one with the feature {service}");
    }
    let hint = hint(service, services().chain(SERVICES.iter().copied()));
    format!("this build has no service {}{hint}; it has: {names}", show(service))
}

#[cfg(test)]
mod tests {
    use super::super::sample::DEPOT;
    use super::*;

    #[test]
    fn a_drivers_own_option_hides_the_common_one() {
        let names: Vec<_> = options(&DEPOT).map(|opt| opt.name).collect();
        assert_eq!(names.iter().filter(|name| **name == TLS).count(), 1);
        assert!(option(&DEPOT, TLS).is_some_and(|opt| opt.env), "declared by the schema");
        assert!(option(&DEPOT, "ca").is_some_and(|opt| opt.env) && option(&DEPOT, "sni").is_some_and(|opt| !opt.env));
        assert!(option(&DEPOT, "connect_timeout").is_some_and(|opt| !opt.env && opt.url && opt.yaml));
    }

    #[test]
    fn shows_no_secret() {
        let mut values = Values::new(&DEPOT);
        values.set("password", Value::Text("hunter2".to_owned()));
        values.set("db", Value::Count(3));
        let shown = format!("{values:?}");
        assert!(!shown.contains("hunter2") && shown.contains('3'), "{shown}");
    }
}
