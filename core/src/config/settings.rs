//! The settings from environment and YAML together: services by name and which is the default.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use super::block::{self, Block, ENABLED};
use super::env::{self, DEFAULT, Environment, URL, variable};
use super::names::{hint, list};
use super::schema::{SERVICES, Schema, Schemas, Values, absent};
use super::service::{Config, UNSET};
use super::{implicit, secure, source};
use crate::error::{Error, Result, show};

/// The places where an implicit file is looked for; the first with a block of ours is taken.
const FILES: [&str; 2] = ["config.yaml", "config/config.yaml"];

/// The services that environment variables and a YAML file describe. A variable is stronger than the same key in YAML.
#[derive(Clone, Debug)]
pub struct Settings {
    schemas: Schemas,
    /// From `DLOCK_URL`, which replaces all services.
    url: Option<Config>,
    enabled: BTreeMap<&'static str, Config>,
    /// Of the schemas that need no `enabled`.
    local: BTreeMap<&'static str, Config>,
    default: Option<String>,
    notes: Vec<String>,
}

impl Settings {
    /// As [`of_process`](Self::of_process), with these schemas.
    pub(crate) fn of_this_process(schemas: Schemas, explicit: Option<&Path>) -> Result<Self> {
        let directory = std::env::current_dir().unwrap_or_default();
        if secure::is_privileged() {
            let mut settings = Self::load_from(schemas, [], &directory, explicit, false)?;
            settings
                .notes
                .push("DLOCK_* and config.yaml are ignored: this program has rights its caller lacks".to_owned());
            return Ok(settings);
        }
        Self::load_from(schemas, std::env::vars_os(), &directory, explicit, true)
    }

    #[cfg(test)]
    pub(super) fn load_of(
        schemas: Schemas,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
        explicit: Option<&Path>,
    ) -> Result<Self> {
        Self::load_from(schemas, environment, directory, explicit, true)
    }

    /// As [`load`](Self::load), with these schemas; without `search` no file that wasn't named.
    pub(crate) fn load_from(
        schemas: Schemas,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
        explicit: Option<&Path>,
        search: bool,
    ) -> Result<Self> {
        if explicit.is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(Error::invalid(format!("the name of the configuration file is empty; {UNSET}")));
        }
        let mut environment = env::read(schemas, environment)?;
        let mut notes = Vec::new();
        let named = explicit.or(environment.config.as_deref().map(Path::new)).map(|path| directory.join(path));
        let blocks = match &named {
            Some(path) => named_file(schemas, path, &environment)?,
            None if search => match implicit_file(schemas, directory, &environment, &mut notes) {
                // Nothing in it could count.
                Err(error) if environment.url.is_some() => {
                    notes.push(format!("ignored since {URL} is set: {}", error.message()));
                    Vec::new()
                }
                blocks => blocks?,
            },
            None => Vec::new(),
        };
        let url = match environment.url.take() {
            Some(_) if explicit.is_some() => {
                notes.push(format!("{URL} ignored: a configuration file was given as an argument"));
                None
            }
            Some(text) => Some(Config::parse(schemas, &text).map_err(|error| in_variable(&error))?),
            None => None,
        };
        let default = environment.default.take();
        let mut enabled = BTreeMap::new();
        let mut local = BTreeMap::new();
        for schema in schemas.iter().copied() {
            let variables = environment.blocks.remove(schema.name);
            let replaced = |url: &Config| schema.service || url.schema().name == schema.name;
            if let (Some(variables), true) = (&variables, url.as_ref().is_some_and(replaced)) {
                notes.push(format!(
                    "{} ignored, with all of {}: {URL} is set",
                    variables.place,
                    variable(schema.name, "*")
                ));
                continue;
            }
            let yaml = blocks.iter().find(|block| block.values.schema.name == schema.name);
            if !schema.service {
                local.insert(schema.name, merged(schema, None, variables.as_ref())?);
            } else if is_on(yaml, variables.as_ref()) == Some(true) {
                enabled.insert(schema.name, merged(schema, yaml, variables.as_ref())?);
            } else if let Some(variables) = variables.filter(|variables| variables.enabled.is_none()) {
                return Err(unswitched(schema.name, &variables.place));
            }
        }
        match (environment.absent, &url) {
            (Some(error), Some(_)) => notes.push(format!("ignored since {URL} is set: {}", error.message())),
            (Some(error), None) => return Err(error),
            (None, _) => {}
        }
        if let (Some(url), false) = (&url, enabled.is_empty()) {
            let names = list(enabled.keys());
            notes.push(format!("ignored since {URL} says {}: the enabled services {names}", url.url()));
            enabled.clear();
        }
        Ok(Self { schemas, url, enabled, local, default, notes })
    }

    /// The configuration of a service that is enabled, or needs no enabling.
    ///
    /// # Errors
    /// `Invalid`, saying which are enabled and how to enable this one.
    pub fn service(&self, name: &str) -> Result<Config> {
        let url = self.url.as_ref().filter(|url| url.schema().name == name);
        if let Some(config) = url.or_else(|| self.enabled.get(name)).or_else(|| self.local.get(name)) {
            return Ok(config.clone());
        }
        let can = list(self.names().into_iter().chain(self.local.keys().map(|name| (*name).to_owned())));
        let Some(schema) = self.schemas.iter().find(|schema| schema.name == name) else {
            if SERVICES.contains(&name) {
                let why = absent(self.schemas, name);
                return Err(Error::invalid(format!("{why}; those that can be used: {can}")));
            }
            let hint = hint(name, self.schemas.iter().map(|schema| schema.name));
            return Err(Error::invalid(format!(
                "there is no service {}{hint}; those that can be used: {can}",
                show(name)
            )));
        };
        let remedy = match &self.url {
            Some(_) => format!("unset {URL}, which replaces all services, or set it to the URL of this one"),
            None => {
                format!("set {}=true, or write `enabled: true` into its block in YAML", variable(schema.name, ENABLED))
            }
        };
        Err(Error::invalid(format!(
            "the service {name} isn't enabled; those that can be used: {can}. To use it, {remedy}"
        )))
    }

    /// The service to use where none is named: what `DLOCK_URL` or `DLOCK_DEFAULT` says, else the only one enabled,
    /// else the embedded default, which needs no server: the last schema in the table that isn't a service.
    ///
    /// # Errors
    /// `Invalid` if several are enabled, or if `DLOCK_DEFAULT` names one that isn't.
    pub fn default_service(&self) -> Result<(String, Config)> {
        if let Some(url) = &self.url {
            let name = url.schema().name;
            return match &self.default {
                Some(other) if other != name => Err(Error::invalid(format!(
                    "{URL} says {name}, but {DEFAULT} says {}; unset one of them",
                    show(other)
                ))),
                _ => Ok((name.to_owned(), url.clone())),
            };
        }
        if let Some(name) = &self.default {
            let config = self.service(name);
            let config = config.map_err(|error| Error::invalid(format!("{DEFAULT}: {}", error.message())))?;
            return Ok((name.clone(), config));
        }
        let mut enabled = self.enabled.iter();
        match (enabled.next(), enabled.next()) {
            (Some((name, config)), None) => Ok(((*name).to_owned(), config.clone())),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "several services are enabled: {}; name one of them in the call (service=…), or by {DEFAULT}",
                list(self.enabled.keys())
            ))),
            (None, _) => self.embedded(),
        }
    }

    /// The services that are enabled, in order of their names; those that need no enabling aren't among them.
    pub fn names(&self) -> Vec<String> {
        let url = self.url.iter().map(|url| url.schema().name);
        self.enabled.keys().copied().chain(url).map(str::to_owned).collect()
    }

    /// Returns what was ignored and why, for the debug log.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    fn embedded(&self) -> Result<(String, Config)> {
        let local = self.schemas.iter().rev().find_map(|schema| self.local.get_key_value(schema.name));
        local.map(|(name, config)| ((*name).to_owned(), config.clone())).ok_or_else(|| {
            let services = list(self.schemas.iter().filter(|schema| schema.service).map(|schema| schema.name));
            Error::invalid(format!("no service is enabled, and this build has no local one; enable one of: {services}"))
        })
    }
}

/// Refuses a variable of a service that nothing switches on: whoever set it would be on the embedded default, and not
/// know.
fn unswitched(service: &str, place: &str) -> Error {
    let switch = variable(service, ENABLED);
    let why = format!("{place} is set, but nothing says whether {service} is enabled");
    Error::invalid(format!("{why}; set {switch}=true to use it, {switch}=false not to, or unset {place}"))
        .with_backend(service)
}

/// Says that the URL came from the environment.
fn in_variable(error: &Error) -> Error {
    Error::invalid(format!("{URL}: {}", error.message()))
}

fn named_file(schemas: Schemas, path: &Path, environment: &Environment) -> Result<Vec<Block>> {
    let blocks = block::strict(schemas, path, &source::explicit(path)?)?;
    for block in &blocks {
        // Nothing said would mean: silently the embedded default.
        if block.enabled.is_none() && environment.enabled(block.values.schema.name).is_none() {
            let (place, name) = (&block.place, block.values.schema.name);
            let why =
                format!("{place}: the block {name} doesn't say whether it is enabled; write `enabled: true` or false");
            return Err(Error::invalid(why));
        }
    }
    Ok(blocks)
}

fn implicit_file(
    schemas: Schemas,
    directory: &Path,
    environment: &Environment,
    notes: &mut Vec<String>,
) -> Result<Vec<Block>> {
    for name in FILES {
        let path = directory.join(name);
        let Some(found) = source::implicit(&path, notes)? else {
            continue;
        };
        if let Some(blocks) = implicit::counted(schemas, &path, &found, |name| environment.enabled(name), notes)? {
            return Ok(blocks);
        }
    }
    Ok(Vec::new())
}

fn is_on(yaml: Option<&Block>, variables: Option<&Block>) -> Option<bool> {
    variables.and_then(|block| block.enabled).or_else(|| yaml.and_then(|block| block.enabled))
}

fn merged(schema: &'static Schema, yaml: Option<&Block>, variables: Option<&Block>) -> Result<Config> {
    let mut values = Values::new(schema);
    for block in [yaml, variables].into_iter().flatten() {
        values.merge(&block.values);
    }
    let places = [yaml, variables].into_iter().flatten().map(|block| block.place.as_str());
    Config::complete(values)
        .map_err(|error| Error::invalid(format!("{} ({})", error.message(), list(places))).with_backend(schema.name))
}
