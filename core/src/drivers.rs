//! The only list of backends, and what needs it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use crate::config::schema::{MODE, option, schema};
use crate::config::{Config, Schema, Settings, Value, ValueKind, Values};
use crate::contract::{Backend, Capabilities, Context, Driver};
use crate::error::{Error, Kind, Result};

macro_rules! drivers {
    ($($(#[$built:meta])* $backend:ident)*) => {
        /// Every backend of this build.
        pub static DRIVERS: &[&Driver] = &[$($(#[$built])* &crate::backend::$backend::DRIVER,)*];
        /// Their schemas.
        pub(crate) static SCHEMAS: &[&Schema] = &[$($(#[$built])* &crate::backend::$backend::SCHEMA,)*];
    };
}

// A new backend adds its line here and in `backend/mod.rs`. The last one that isn't a service is the embedded default.
drivers! {
    #[cfg(feature = "memory")]
    memory
    #[cfg(all(feature = "file", unix))]
    file
    #[cfg(feature = "redis")]
    redis
    #[cfg(feature = "etcd")]
    etcd
    #[cfg(feature = "mysql")]
    mysql
    #[cfg(feature = "zookeeper")]
    zookeeper
}

/// Makes the backend of a configuration. No I/O. Returns what it can do and promises, too.
///
/// # Errors
/// `Invalid` for a configuration the backend can't use.
pub(crate) fn connect(config: &Config, context: Context) -> Result<(Arc<dyn Backend>, Capabilities)> {
    let name = config.schema().name;
    let driver = DRIVERS.iter().find(|driver| driver.schema.name == name);
    let driver = driver.ok_or_else(|| Error::new(Kind::Internal, format!("no driver for {name}")))?;
    Ok(((driver.connect)(config, context)?, (driver.capabilities)(config.values())))
}

/// Returns the backends of a list that can do this, each with the mode that can if its default mode can't.
fn able(drivers: &[&Driver], can: impl Fn(&Capabilities) -> bool) -> Vec<String> {
    let able = |driver: &&Driver| {
        let (name, mut values) = (driver.schema.name, Values::new(driver.schema));
        if can(&(driver.capabilities)(&values)) {
            return Some(name.to_owned());
        }
        let Some(ValueKind::Choice(modes)) = option(driver.schema, MODE).map(|option| option.kind) else { return None };
        let mode = modes.iter().find(|mode| {
            values.set(MODE, Value::Text((**mode).to_owned()));
            can(&(driver.capabilities)(&values))
        });
        mode.map(|mode| format!("{name} with mode={mode}"))
    };
    drivers.iter().filter_map(able).collect()
}

/// Returns an `Unsupported` error that names the backends of this build that can.
pub(crate) fn unsupported(backend: &str, what: &str, can: impl Fn(&Capabilities) -> bool) -> Error {
    let able = able(DRIVERS, can);
    let remedy = if able.is_empty() {
        "no backend of this build can; leave the option out".to_owned()
    } else {
        format!("use {}, or leave the option out", able.join(" or "))
    };
    Error::new(Kind::Unsupported, format!("{backend} can't do {what}: {remedy}")).with_backend(backend)
}

impl Config {
    /// Reads a URL.
    ///
    /// # Errors
    /// `Invalid`, naming the URL without its secrets, what is wrong and what to do.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::parse(SCHEMAS, url)
    }

    /// Takes typed options for a backend by its name.
    ///
    /// # Errors
    /// `Invalid` for an unknown backend or option (the nearest is named), one given twice, or a value of the wrong
    /// kind.
    pub fn new(backend: &str, options: impl IntoIterator<Item = (String, Value)>) -> Result<Self> {
        Self::typed(SCHEMAS, backend, options)
    }

    /// Returns the kind of this option's value; `None` where there is no such backend or option.
    pub fn value_kind(backend: &str, name: &str) -> Option<ValueKind> {
        option(schema(SCHEMAS, backend).ok()?, name).map(|option| option.kind)
    }
}

impl Settings {
    /// Reads the variables and the file: `explicit`, else the one `DLOCK_CONFIG` names, else `config.yaml`, then
    /// `config/config.yaml`. Relative paths start at `directory`.
    ///
    /// A file that was named has to be right from its first line to its last. One that wasn't may be the application's
    /// own: what doesn't concern us is ignored, and [`notes`](Self::notes) lists it.
    ///
    /// # Errors
    /// `Invalid`, naming the variable, or file and line, and what to do.
    pub fn load(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        directory: &Path,
        explicit: Option<&Path>,
    ) -> Result<Self> {
        Self::load_from(SCHEMAS, environment, directory, explicit, true)
    }

    /// Reads what this process was started with: its variables and its directory. A program that has rights its caller
    /// doesn't have (it is setuid or setgid, or has file capabilities) takes neither from its caller: of a file it
    /// reads only `explicit`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_process(explicit: Option<&Path>) -> Result<Self> {
        Self::of_this_process(SCHEMAS, explicit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptionSpec;

    static SHELF: Schema = Schema {
        name: "shelf",
        schemes: &[],
        options: &[OptionSpec::of_service(MODE, ValueKind::Choice(&["plain", "table"]))],
        service: true,
        parts: |_, _| Ok(()),
        authority: |_| String::new(),
    };

    #[test]
    fn a_backend_that_can_in_one_of_its_modes_is_named_with_it() {
        fn capabilities(values: &Values) -> Capabilities {
            let table = values.text(MODE) == Some("table");
            Capabilities { shared: table, ..crate::testing::remote_capabilities() }
        }
        let driver = Driver {
            schema: &SHELF,
            capabilities,
            connect: |_, _| Err(Error::invalid("only its capabilities are asked")),
        };
        assert_eq!(able(&[&driver], |can| can.shared), ["shelf with mode=table"]);
        assert_eq!(able(&[&driver], |can| can.fence), ["shelf"]);
        assert_eq!(able(&[&driver], |can| can.handoff), [""; 0]);
    }
}
