//! Configuration: a URL, typed options, environment variables or a YAML file become one [`Config`].
//!
//! No backend is named here: everything comes from the schemas that are given. Secrets are kept apart by the options'
//! table and appear in no error, `Debug`, `Display` or canonical URL.

mod block;
mod duration;
mod env;
mod implicit;
mod names;
mod option_spec;
mod redact;
pub(crate) mod schema;
mod secure;
mod servers;
mod service;
mod settings;
mod source;
mod to_url;
mod url;
mod url_parts;
mod value;
mod yaml;

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;

pub use duration::duration;
pub(crate) use names::hint;
pub use option_spec::{OptionSpec, Scheme, ValueKind};
pub use schema::{Schema, Values};
pub use servers::{read_servers, write_servers};
pub use service::Config;
pub(crate) use service::DEFAULT_TTL;
pub use settings::Settings;
pub use to_url::{encode, encode_path, write_hosts};
pub use url::{host_port, join_host};
pub use url_parts::UrlParts;
pub use value::Value;
