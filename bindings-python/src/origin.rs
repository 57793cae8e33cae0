//! The origin of a client.

use pyo3::prelude::*;

/// The origin of a client, from which an equal client is found elsewhere: a service's name (None: the default), or a
/// URL.
#[derive(Clone, IntoPyObject, FromPyObject)]
pub(crate) enum Origin {
    Service(Option<String>, bool),
    Url(String),
}

impl Origin {
    pub(crate) fn client(&self) -> dlock::Result<dlock::Client> {
        match self {
            Self::Service(name, _) => dlock::registry::shared(name.as_deref()),
            Self::Url(url) => dlock::Client::connect(url),
        }
    }
}
