//! The only list of backends, and what needs it.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use crate::config::schema::{option, schema};
use crate::config::{Config, Schema, Settings, Value, ValueKind};
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
}

/// Makes the backend of a configuration. No I/O.
///
/// # Errors
/// `Invalid` for a configuration the backend can't use.
pub(crate) fn connect(config: &Config, context: Context) -> Result<Arc<dyn Backend>> {
    let name = config.schema().name;
    let driver = DRIVERS.iter().find(|driver| driver.schema.name == name);
    let driver = driver.ok_or_else(|| Error::new(Kind::Internal, format!("no driver for {name}")))?;
    (driver.connect)(config, context)
}

/// What every backend of this build can do, by its name.
pub(crate) fn capabilities() -> impl Iterator<Item = (&'static str, Capabilities)> {
    DRIVERS.iter().map(|driver| (driver.schema.name, (driver.capabilities)()))
}

/// An `Unsupported` error that names the backends of this build that can.
pub(crate) fn unsupported(backend: &str, what: &str, able: impl Fn(&Capabilities) -> bool) -> Error {
    let able: Vec<_> = capabilities().filter(|(_, can)| able(can)).map(|(name, _)| name).collect();
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
    /// `Invalid` for an unknown backend or option (the nearest is named), one given twice, or a value of the wrong kind.
    pub fn new(backend: &str, options: impl IntoIterator<Item = (String, Value)>) -> Result<Self> {
        Self::typed(SCHEMAS, backend, options)
    }

    /// What a value of this option must be; `None` where there is no such backend or option.
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
    /// doesn't have (it is setuid or setgid, or has file capabilities) takes neither from its caller: of a file it reads
    /// only `explicit`.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn of_process(explicit: Option<&Path>) -> Result<Self> {
        Self::of_this_process(SCHEMAS, explicit)
    }
}
