//! Where a client came from.

use pyo3::prelude::*;

/// Where a client came from, so that an equal one is found elsewhere: a service's name (None: the default), or a URL.
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
