//! One error type: what kind, whether trying again can help, what it concerns and what caused it.

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of error, with the numbers that every language shares. A number never changes its meaning.
#[repr(i32)]
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The lock was busy until the deadline.
    Timeout = 1,
    /// The caller withdrew.
    Cancelled = 2,
    /// The lease is no longer ours, or can't be proven to be.
    Lost = 3,
    /// Nothing is held: release of an unlocked lock, a lease made before a fork.
    NotHeld = 4,
    /// The backend can't be reached, refuses or is overloaded.
    Backend = 5,
    /// A key, option, URL, configuration or handle that can't be used.
    Invalid = 6,
    /// This backend can't do it; the message names those that can.
    Unsupported = 7,
    /// A defect of this library: a panic, caught.
    Internal = 8,
    /// The caller itself holds the key, so the wait could never end.
    Deadlock = 9,
}

impl Kind {
    /// Every kind, in the order of its number.
    pub const ALL: [Self; 9] = [
        Self::Timeout,
        Self::Cancelled,
        Self::Lost,
        Self::NotHeld,
        Self::Backend,
        Self::Invalid,
        Self::Unsupported,
        Self::Internal,
        Self::Deadlock,
    ];

    /// The lower-case name used in logs and by the behaviour suite.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::NotHeld => "not-held",
            Self::Backend => "backend",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
            Self::Deadlock => "deadlock",
        }
    }
}

/// An error. Cheap to clone, so that one loss can be told to many.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    temporary: bool,
    message: String,
    key: Option<Arc<str>>,
    backend: Option<Arc<str>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of this kind that trying again doesn't cure.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            temporary: false,
            message: message.into(),
            key: None,
            backend: None,
            source: None,
        }))
    }

    /// A lease that was released before.
    pub fn released() -> Self {
        Self::new(Kind::NotHeld, "the lease was released before")
    }

    /// A key, option, URL or configuration that can't be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// The backend failed; trying again doesn't help.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Backend, message)
    }

    /// The backend failed for now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Backend, message).temporary(true)
    }

    /// A panic that was caught, by what `catch_unwind` gave.
    pub fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = panic_text(payload);
        Self::new(Kind::Internal, format!("a defect of dlock, please report it: {text}"))
    }

    /// Says whether trying again can help.
    #[must_use]
    pub fn temporary(mut self, yes: bool) -> Self {
        Arc::make_mut(&mut self.0).temporary = yes;
        self
    }

    /// Names the key concerned.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.0).key = Some(key.into());
        self
    }

    /// Names the backend concerned.
    #[must_use]
    pub fn with_backend(mut self, backend: impl Into<Arc<str>>) -> Self {
        Arc::make_mut(&mut self.0).backend = Some(backend.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// The kind, which decides what a caller does.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Returns true if trying again can help.
    pub fn is_temporary(&self) -> bool {
        self.0.temporary
    }

    /// The text without key and cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The key concerned, as the user gave it.
    pub fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// The name of the backend concerned.
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.key, &self.0.backend) {
            (Some(key), Some(backend)) => write!(f, "{} on {backend}: {}", show(key), self.0.message)?,
            (Some(key), None) => write!(f, "{}: {}", show(key), self.0.message)?,
            (None, Some(backend)) => write!(f, "{backend}: {}", self.0.message)?,
            (None, None) => f.write_str(&self.0.message)?,
        }
        match &self.0.source {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.0.kind.name())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Returns the text of a panic, from what `catch_unwind` gave.
pub(crate) fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
    text.unwrap_or("a panic without a text")
}

/// A user's text for messages and logs: quoted, escaped, cut at 128 bytes.
pub fn show(text: &str) -> String {
    const LIMIT: usize = 128;
    let cut = text.floor_char_boundary(LIMIT);
    let dots = if cut < text.len() { "…" } else { "" };
    format!("{:?}{dots}", &text[..cut])
}
