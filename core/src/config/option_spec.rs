//! One option of a backend: its name, what a value must be and where the value may come from.

/// One URL scheme of a backend and what it says by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// The text before `://`, in lower case.
    pub name: &'static str,
    /// True if it sets the option `tls`. A schema with such a scheme has the TLS options.
    pub tls: bool,
    /// The value that it sets the option `mode` to. The mode of a backend's first scheme is its default.
    pub mode: Option<&'static str>,
}

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// Any text without NUL.
    Text,
    /// `true`, `false`, `1` or `0`.
    Flag,
    /// A whole number from 0.
    Count,
    /// A duration, see [`duration`](super::duration::duration).
    Time,
    /// Texts separated by commas.
    List,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// One option of a backend.
///
/// An option that is no secret must be expressible in a URL: either by a parameter (`url`), or in what the backend's
/// `authority` writes and its `parts` reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionSpec {
    /// Its name: of the typed argument, the YAML key, the URL parameter; in capitals the end of the variable.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: ValueKind,
    /// True if a value is never shown.
    pub secret: bool,
    /// True if there is a variable `DLOCK_<DRIVER>_<NAME>`.
    pub env: bool,
    /// True if it may stand in the backend's YAML block.
    pub yaml: bool,
    /// True if it may stand as `?name=` in a URL.
    pub url: bool,
}

impl OptionSpec {
    /// An option of a service that stands in a URL in the backend's own way.
    pub const fn of_service(name: &'static str, kind: ValueKind) -> Self {
        Self { name, kind, secret: false, env: true, yaml: true, url: false }
    }

    pub(super) const fn common(name: &'static str, kind: ValueKind) -> Self {
        Self { name, kind, secret: false, env: false, yaml: true, url: true }
    }
}
