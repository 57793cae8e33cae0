//! Reads the `DLOCK_*` environment variables.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::block::{Block, ENABLED};
use super::option::{Drivers, Opt, hint, list, options};
use super::value::{Value, convert, flag};
use crate::backend::Driver;
use crate::error::{Error, Result, show};

pub(super) const URL: &str = "DLOCK_URL";
pub(super) const DEFAULT: &str = "DLOCK_DEFAULT";
pub(super) const CONFIG: &str = "DLOCK_CONFIG";

/// What the environment says. A variable that is set to nothing counts as not set.
#[derive(Default)]
pub(super) struct Environment {
    pub(super) url: Option<String>,
    pub(super) default: Option<String>,
    pub(super) config: Option<String>,
    /// By the driver's name.
    pub(super) blocks: BTreeMap<&'static str, Block>,
}

impl Environment {
    /// Whether a service is switched on or off here.
    pub(super) fn enabled(&self, name: &str) -> Option<bool> {
        self.blocks.get(name)?.enabled
    }
}

/// Reads the variables that are ours. Others that begin with `DLOCK_` are left alone, but for an unknown one of a known
/// driver and one that switches on an unknown service.
pub(super) fn read(
    drivers: Drivers,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Environment> {
    // In order of their names, so that of several mistakes always the same one is told.
    let named = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value));
    let variables: BTreeMap<String, OsString> =
        environment.into_iter().filter_map(named).filter(|(name, _)| name.starts_with("DLOCK_")).collect();
    let mut found = Environment::default();
    for (name, value) in variables {
        match name.as_str() {
            URL => found.url = text(&name, value)?,
            DEFAULT => found.default = text(&name, value)?,
            CONFIG => found.config = text(&name, value)?,
            _ => match owner(drivers, &name) {
                Some(driver) => {
                    let block = found.blocks.entry(driver.name).or_insert_with(|| Block::new(driver, name.as_str()));
                    add(block, driver, &name, value).map_err(|error| error.with_service(driver.name))?;
                }
                None => switches_nothing(drivers, &name, value)?,
            },
        }
    }
    Ok(found)
}

fn add(block: &mut Block, driver: &'static Driver, name: &str, value: OsString) -> Result<()> {
    if name == variable(driver, ENABLED) {
        if !driver.service {
            return Err(Error::invalid(format!("{name} isn't needed: {} can always be used; unset it", driver.name)));
        }
        let Some(value) = text(name, value)? else { return Ok(()) };
        let on =
            flag(&value).ok_or_else(|| Error::invalid(format!("{name} is {}; set it to true or false", show(&value))));
        block.enabled = Some(on?);
        return Ok(());
    }
    let Some(opt) = options(driver).find(|opt| opt.env && variable(driver, opt.name) == name) else {
        let enabled = driver.service.then(|| variable(driver, ENABLED));
        let known =
            || options(driver).filter(|opt| opt.env).map(|opt| variable(driver, opt.name)).chain(enabled.clone());
        let names: Vec<String> = known().collect();
        let hint = hint(name, names.iter().map(String::as_str));
        return Err(Error::invalid(format!("{name} isn't known{hint}; unset it, or use one of: {}", list(known()))));
    };
    let Some(value) = text(name, value)? else { return Ok(()) };
    set(block, opt, name, value)
}

fn set(block: &mut Block, opt: Opt, name: &str, value: String) -> Result<()> {
    let value = convert(&opt, Value::Text(value));
    block.values.set(opt.name, value.map_err(|why| Error::invalid(format!("{name} can't be used: {why}")))?);
    Ok(())
}

/// The driver whose variable this is: that of the longest name, should one be the beginning of another.
fn owner(drivers: Drivers, name: &str) -> Option<&'static Driver> {
    let owns = |driver: &&&'static Driver| name.starts_with(&variable(driver, ""));
    drivers.iter().filter(owns).max_by_key(|driver| driver.name.len()).copied()
}

/// Refuses `DLOCK_<UNKNOWN>_ENABLED=true`.
fn switches_nothing(drivers: Drivers, name: &str, value: OsString) -> Result<()> {
    let Some(service) = name.strip_prefix("DLOCK_").and_then(|rest| rest.strip_suffix("_ENABLED")) else {
        return Ok(());
    };
    if text(name, value)?.is_none_or(|value| flag(&value) == Some(false)) {
        return Ok(());
    }
    let services = || drivers.iter().filter(|driver| driver.service).map(|driver| driver.name);
    let service = service.to_ascii_lowercase();
    let (hint, names) = (hint(&service, services()), list(services()));
    Err(Error::invalid(format!(
        "{name} is set, but this build has no service {}{hint}; it has: {names}. Unset the variable, or use a build with it",
        show(&service)
    )))
}

/// `DLOCK_<DRIVER>_<KEY>`.
pub(super) fn variable(driver: &Driver, key: &str) -> String {
    format!("DLOCK_{}_{key}", driver.name).to_ascii_uppercase().replace('-', "_")
}

fn text(name: &str, value: OsString) -> Result<Option<String>> {
    let text = value.into_string();
    let text = text.map_err(|_| Error::invalid(format!("{name} isn't UTF-8; set it to text that is, or unset it")))?;
    Ok(Some(text).filter(|text| !text.trim().is_empty()))
}
