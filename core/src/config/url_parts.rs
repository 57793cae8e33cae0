//! The parts of a URL that a backend reads.

use std::fmt;

/// The parts between the scheme and the parameters of a URL, percent-decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct UrlParts {
    /// The hosts with their ports. An IPv6 address is without its brackets.
    pub hosts: Vec<(String, Option<u16>)>,
    /// Before the first `:` of what stands before the `@`; an empty one is `None`.
    pub user: Option<String>,
    /// After that `:`; an empty one is `None`.
    pub password: Option<String>,
    /// From the first `/` on, with it; empty where there is none.
    pub path: String,
}

impl fmt::Debug for UrlParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "***");
        let mut parts = f.debug_struct("UrlParts");
        parts.field("hosts", &self.hosts).field("user", &self.user).field("password", &password);
        parts.field("path", &self.path).finish()
    }
}
