//! One service, completely described.

use std::fmt;
use std::time::Duration;

use super::names::{hint, list};
use super::option_spec::Scheme;
use super::redact;
use super::schema::{self, MODE, SERVICES, Schema, Schemas, TLS, TLS_ONLY, Values, option, options};
use super::to_url;
use super::url;
use super::value::{self, Value};
use crate::error::{Error, Result, show};

/// The usual meaning of an empty argument.
pub(super) const UNSET: &str =
    "perhaps a variable isn't set. Give a value, or leave the argument out to have the default client";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The ttl of a lock for which none is given.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// One service, completely described: its schema and the options that are set. Equal ones share one client.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Config {
    values: Values,
}

impl Config {
    pub(crate) fn typed(
        schemas: Schemas,
        backend: &str,
        given: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<Self> {
        if backend.trim().is_empty() {
            return Err(Error::invalid(format!("the name of the backend is empty; {UNSET}")));
        }
        let schema = schema::schema(schemas, backend)?;
        let mut values = Values::new(schema);
        for (name, value) in given {
            let refuse =
                |why: String| Error::invalid(format!("the option {} {why}", show(&name))).with_backend(schema.name);
            let opt = option(schema, &name).ok_or_else(|| {
                let names = || options(schema).map(|opt| opt.name);
                refuse(format!("doesn't exist{}; there are: {}", hint(&name, names()), list(names())))
            })?;
            if values.contains(opt.name) {
                return Err(refuse("is given twice; give it once".to_owned()));
            }
            values.set(opt.name, value::convert(&opt, value).map_err(|why| refuse(format!("can't be used: {why}")))?);
        }
        Self::complete(values)
    }

    pub(crate) fn parse(schemas: Schemas, text: &str) -> Result<Self> {
        if text.trim().is_empty() {
            return Err(Error::invalid(format!("the URL is empty; {UNSET}")));
        }
        let Some((scheme, _)) = url::scheme(text) else {
            return Err(unknown_scheme(schemas, text, "it has no scheme", ""));
        };
        let found =
            schemas.iter().find_map(|schema| Some((*schema, schema.schemes.iter().find(|s| s.name == scheme)?)));
        let Some((schema, scheme)) = found else {
            let names = schemas.iter().flat_map(|schema| schema.schemes).map(|scheme| scheme.name);
            let lacks = |service: &&&str| {
                scheme.starts_with(**service) && schemas.iter().all(|schema| schema.name != **service)
            };
            let why = SERVICES.iter().find(lacks).map(|service| schema::absent(schemas, service));
            let why = why.unwrap_or_else(|| "its scheme is unknown".to_owned());
            return Err(unknown_scheme(schemas, text, &why, &hint(&scheme, names)));
        };
        let url = url::parse(schemas, text)?;
        let refuse = |why: String| {
            Error::invalid(format!("URL {}: {why}", show(&redact::redact(schemas, text)))).with_backend(schema.name)
        };
        let mut values = Values::new(schema);
        (schema.parts)(&url.parts, &mut values)?;
        for (name, value) in url.parameters {
            let names = || options(schema).filter(|opt| opt.url).map(|opt| opt.name);
            let opt = option(schema, &name).filter(|opt| opt.url).ok_or_else(|| {
                let (hint, names) = (hint(&name, names()), list(names()));
                refuse(format!("{} can't be a parameter{hint}; those that can: {names}", show(&name)))
            })?;
            if values.contains(opt.name) {
                return Err(refuse(format!("{name} is given by the address and as a parameter; give it once")));
            }
            let value = value::convert(&opt, Value::Text(value));
            values.set(opt.name, value.map_err(|why| refuse(format!("the parameter {name} can't be used: {why}")))?);
        }
        apply_scheme(scheme, &mut values).map_err(refuse)?;
        Self::complete(values)
    }

    /// Settles what follows from other options, so that equal meanings are equal configurations.
    pub(crate) fn complete(mut values: Values) -> Result<Self> {
        let schema = values.schema;
        let refuse = |why: String| Err(Error::invalid(why).with_backend(schema.name));
        let given = TLS_ONLY.into_iter().find(|name| values.contains(name));
        for name in ["ca", "cert", "key"] {
            if values.text(name).is_some_and(|text| text.contains("-----BEGIN")) {
                return refuse(format!("the option {name} is the path of a PEM file, not its text; write the path"));
            }
        }
        for (name, other) in [("cert", "key"), ("key", "cert")] {
            if values.contains(name) && !values.contains(other) {
                return refuse(format!("the option {name} needs the option {other} too: give both, or neither"));
            }
        }
        match (values.flag(TLS), given) {
            (Some(false), Some(name)) => {
                return refuse(format!(
                    "the option {name} is for TLS, which tls = false switches off: drop one of them"
                ));
            }
            (None, Some(_)) if option(schema, TLS).is_some() => values.set(TLS, Value::Flag(true)),
            (Some(false), None) => values.unset(TLS),
            _ => {}
        }
        if let (false, Some(mode)) = (values.contains(MODE), schema.schemes.first().and_then(|scheme| scheme.mode)) {
            values.set(MODE, Value::Text(mode.to_owned()));
        }
        Ok(Self { values })
    }

    /// The schema of the backend.
    pub fn schema(&self) -> &'static Schema {
        self.values.schema
    }

    /// The options that are set.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// Returns what stands before every key at the backend, if something was said about it (it may be empty).
    pub fn prefix(&self) -> Option<&str> {
        let own = || self.schema().options.iter().any(|option| option.name == "prefix");
        self.values.text("prefix").filter(|_| !own())
    }

    /// Returns the ttl of a lock for which none is given: 30 s, or what the service's option says.
    pub(crate) fn default_ttl(&self) -> Duration {
        self.values.time("session_timeout").unwrap_or(DEFAULT_TTL)
    }

    /// Returns how long an acquire goes on without a successful exchange with the backend; 5 s if nothing was said.
    pub fn connect_timeout(&self) -> Duration {
        self.values.time("connect_timeout").unwrap_or(CONNECT_TIMEOUT)
    }

    /// The canonical URL, without secrets. [`from_url`](Self::from_url) makes an equal configuration of it where
    /// [`has_secrets`](Self::has_secrets) is false.
    pub fn url(&self) -> String {
        to_url::url(&self.values)
    }

    /// Returns true if a secret option is set.
    pub fn has_secrets(&self) -> bool {
        self.values.has_secrets()
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("backend", &self.schema().name).field("values", &self.values).finish()
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

/// Sets what the scheme says, and refuses parameters that say otherwise.
fn apply_scheme(scheme: &Scheme, values: &mut Values) -> Result<(), String> {
    if let Some(mode) = scheme.mode {
        if values.text(MODE).is_some_and(|given| given != mode) {
            return Err(format!("the scheme {} means mode {mode}; drop the parameter mode", scheme.name));
        }
        values.set(MODE, Value::Text(mode.to_owned()));
    }
    if scheme.tls {
        if values.flag(TLS) == Some(false) {
            return Err(format!("the scheme {} means TLS; drop the parameter tls", scheme.name));
        }
        values.set(TLS, Value::Flag(true));
    }
    let only = TLS_ONLY.into_iter().find(|name| values.contains(name));
    let secure = values.schema.schemes.iter().find(|other| other.tls && other.mode == scheme.mode);
    match (only, secure) {
        (Some(name), Some(secure)) if !values.contains(TLS) => {
            Err(format!("{name} is for TLS, which {}:// doesn't use; write {}://", scheme.name, secure.name))
        }
        _ => Ok(()),
    }
}

fn unknown_scheme(schemas: Schemas, text: &str, why: &str, hint: &str) -> Error {
    let known = list(schemas.iter().flat_map(|schema| schema.schemes).map(|scheme| format!("{}://", scheme.name)));
    Error::invalid(format!("URL {}: {why}{hint}; begin it with one of: {known}", show(&redact::redact(schemas, text))))
}
