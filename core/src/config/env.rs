//! Reads the `DLOCK_*` environment variables.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::block::{Block, ENABLED};
use super::names::{hint, list};
use super::option_spec::OptionSpec;
use super::schema::{SERVICES, Schema, Schemas, absent, options};
use super::value::{Value, convert, flag};
use crate::error::{Error, Result, show};

pub(super) const URL: &str = "DLOCK_URL";
pub(super) const DEFAULT: &str = "DLOCK_DEFAULT";
pub(super) const CONFIG: &str = "DLOCK_CONFIG";

/// The settings from the environment. A variable that is set to nothing counts as not set.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) url: Option<String>,
    pub(super) default: Option<String>,
    pub(super) config: Option<String>,
    /// By the schema's name.
    pub(super) blocks: BTreeMap<&'static str, Block>,
    /// The services that are switched on or off here, also those that this build doesn't have.
    switches: BTreeMap<&'static str, bool>,
    /// The reason that the first variable of a service that this build doesn't have can't be used.
    pub(super) absent: Option<Error>,
}

impl Environment {
    /// Returns true if a service is switched on or off here.
    pub(super) fn enabled(&self, name: &str) -> Option<bool> {
        self.switches.get(name).copied()
    }

    fn block(&mut self, schema: &'static Schema, variable: &str) -> &mut Block {
        self.blocks.entry(schema.name).or_insert_with(|| Block::new(schema, variable))
    }
}

/// Reads the variables that are ours. Others that begin with `DLOCK_` are left alone, unless they are an unknown one of
/// a service or nearly one of ours.
pub(super) fn read(
    schemas: Schemas,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment> {
    // In order of their names, so that of several mistakes always the same one is told.
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    let variables: BTreeMap<String, OsString> = environment
        .into_iter()
        .filter_map(named)
        .filter(|(name, value)| name.starts_with("DLOCK_") && !of_kubernetes(name, value))
        .collect();
    let mut found = Environment::default();
    for service in SERVICES.iter().copied().chain(schemas.iter().filter(|schema| schema.service).map(|d| d.name)) {
        let name = variable(service, ENABLED);
        let Some(value) = variables.get(&name) else { continue };
        if let Some(on) = switch(&name, value.clone())? {
            found.switches.insert(service, on);
        }
    }
    for (name, value) in variables {
        match name.as_str() {
            URL => found.url = text(&name, value)?,
            DEFAULT => found.default = text(&name, value)?,
            CONFIG => found.config = text(&name, value)?,
            _ => match owner(schemas, &name) {
                Some(schema) => {
                    add(&mut found, schema, &name, value).map_err(|error| error.with_backend(schema.name))?;
                }
                None => foreign(schemas, &mut found, &name, value)?,
            },
        }
    }
    Ok(found)
}

/// Returns true if Kubernetes has made this variable, as it does for every service of a namespace: for one that is
/// called `dlock-redis`, `DLOCK_REDIS_SERVICE_HOST`, `_SERVICE_PORT`, `_PORT=tcp://…`, `_PORT_6379_TCP_ADDR` and more.
fn of_kubernetes(name: &str, value: &OsStr) -> bool {
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let protocol = |text: &str| PROTOCOLS.iter().any(|known| text.eq_ignore_ascii_case(known));
    let port = |rest: &str| {
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        let known = words.next().is_some_and(protocol);
        let end = words.next().is_none_or(|word| matches!(word, "PROTO" | "PORT" | "ADDR"));
        number && known && end && words.next().is_none()
    };
    let url = || value.to_str().and_then(|text| text.split_once("://")).is_some_and(|(scheme, _)| protocol(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.match_indices("_PORT_").any(|(at, found)| port(&name[at + found.len()..]))
        || (name.ends_with("_PORT") && url())
}

fn add(found: &mut Environment, schema: &'static Schema, name: &str, value: OsString) -> Result<()> {
    if name == variable(schema.name, ENABLED) {
        if !schema.service {
            return Err(Error::invalid(format!("{name} isn't needed: {} can always be used; unset it", schema.name)));
        }
        if let Some(on) = switch(name, value)? {
            found.block(schema, name).enabled = Some(on);
        }
        return Ok(());
    }
    let Some(opt) = options(schema).find(|opt| opt.env && variable(schema.name, opt.name) == name) else {
        let enabled = schema.service.then(|| variable(schema.name, ENABLED));
        let known =
            || options(schema).filter(|opt| opt.env).map(|opt| variable(schema.name, opt.name)).chain(enabled.clone());
        let names: Vec<String> = known().collect();
        let hint = hint(name, names.iter().map(String::as_str));
        return Err(Error::invalid(format!("{name} isn't known{hint}; unset it, or use one of: {}", list(known()))));
    };
    let Some(value) = text(name, value)? else { return Ok(()) };
    set(found.block(schema, name), opt, name, value)
}

fn set(block: &mut Block, opt: OptionSpec, name: &str, value: String) -> Result<()> {
    let value = convert(&opt, Value::Text(value));
    block.values.set(opt.name, value.map_err(|why| Error::invalid(format!("{name} can't be used: {why}")))?);
    Ok(())
}

/// The schema whose variable this is: that of the longest name, should one be the beginning of another.
fn owner(schemas: Schemas, name: &str) -> Option<&'static Schema> {
    let owns = |schema: &&&'static Schema| name.starts_with(&variable(schema.name, ""));
    schemas.iter().filter(owns).max_by_key(|schema| schema.name.len()).copied()
}

/// A variable of no schema: one of a service that this build doesn't have, one that is nearly ours, or somebody else's.
fn foreign(schemas: Schemas, found: &mut Environment, name: &str, value: OsString) -> Result<()> {
    let known = SERVICES.iter().find(|service| name.starts_with(&variable(service, "")));
    let switched =
        name.strip_prefix("DLOCK_").and_then(|rest| rest.strip_suffix(&format!("_{ENABLED}").to_uppercase()));
    let service = match (known, switched) {
        (Some(service), _) => {
            if found.enabled(service) == Some(false) || text(name, value)?.is_none() {
                return Ok(());
            }
            (*service).to_owned()
        }
        (None, Some(unknown)) => {
            if text(name, value)?.is_none_or(|value| flag(&value) == Some(false)) {
                return Ok(());
            }
            unknown.to_ascii_lowercase()
        }
        (None, None) => return misspelt(name),
    };
    found.absent.get_or_insert_with(|| {
        let remedy = match known {
            Some(service) => format!("unset the variable, or set {}=false", variable(service, ENABLED)),
            None => "unset the variable".to_owned(),
        };
        Error::invalid(format!("{name} is set, but {}; {remedy}", absent(schemas, &service)))
    });
    Ok(())
}

/// Refuses `DLOCK_URI` and its like: whoever set it would be on the embedded default, and not know.
fn misspelt(name: &str) -> Result<()> {
    let upper = name.to_ascii_uppercase();
    let near = [URL, DEFAULT, CONFIG].into_iter().find(|known| strsim::damerau_levenshtein(&upper, known) <= 1);
    near.map_or(Ok(()), |near| {
        Err(Error::invalid(format!("{name} isn't known (did you mean {near}?); rename it, or unset it")))
    })
}

/// The value of a variable that switches a service on or off.
fn switch(name: &str, value: OsString) -> Result<Option<bool>> {
    let Some(value) = text(name, value)? else { return Ok(None) };
    let on = flag(&value);
    on.map(Some).ok_or_else(|| Error::invalid(format!("{name} is {}; set it to true or false", show(&value))))
}

/// `DLOCK_<SERVICE>_<KEY>`.
pub(super) fn variable(service: &str, key: &str) -> String {
    format!("DLOCK_{service}_{key}").to_ascii_uppercase().replace('-', "_")
}

fn text(name: &str, value: OsString) -> Result<Option<String>> {
    let text = value.into_string();
    let text = text.map_err(|_| Error::invalid(format!("{name} isn't UTF-8; set it to text that is, or unset it")))?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}
