//! Log lines: what an event is called in the log of every language.

use super::event::{Event, EventKind};
use crate::error::show;

/// The levels of a log line. The numbers are those of C.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Normal lock activity.
    Debug = 0,
    /// Something that a user may want to know.
    Info = 1,
    /// Something that needs attention.
    Warn = 2,
}

/// The name of the logger, where a language has loggers by name.
pub const TARGET: &str = "dlock";

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The level.
    pub level: Level,
    /// The name of the logger.
    pub target: &'static str,
    /// The text, with no line break at its end.
    pub text: String,
}

impl From<&Event> for Line {
    fn from(event: &Event) -> Self {
        let (level, what) = match &event.kind {
            EventKind::Waiting => (Level::Debug, "busy, waiting".to_owned()),
            EventKind::Granted { wait } => (Level::Debug, format!("granted after {wait:?}")),
            EventKind::TimedOut { wait } => (Level::Info, format!("not obtained within {wait:?}")),
            EventKind::Renewed => (Level::Debug, "renewed".to_owned()),
            EventKind::RenewalFailed { error } => (Level::Warn, format!("not renewed, trying again: {error}")),
            EventKind::Lost { held } => (Level::Warn, format!("lost after {held:?}")),
            EventKind::Unconfirmed => (Level::Warn, "released, but not confirmed; it ends by its ttl".to_owned()),
            EventKind::Released { held } => (Level::Debug, format!("released after {held:?}")),
            EventKind::Panicked { text } => (Level::Warn, format!("code that was called panicked: {text}")),
            EventKind::Ignored { note } => (Level::Debug, note.clone()),
            EventKind::Warning { note } => (Level::Warn, note.clone()),
        };
        // An event may concern no key, or no backend either.
        let about = match (&*event.key, event.backend) {
            ("", "") => String::new(),
            ("", backend) => format!("{backend}: "),
            (key, backend) => format!("{} on {backend}: ", show(key)),
        };
        Self { level, target: TARGET, text: about + &what }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_what_the_event_concerns() {
        let line = |kind: EventKind, backend, key: &str| Line::from(&kind.of(backend, &key.into()));
        let note = || "a note".to_owned();
        for (kind, backend, key, level, text) in [
            (EventKind::Waiting, "redis", "k\n", Level::Debug, "\"k\\n\" on redis: busy, waiting"),
            (EventKind::Warning { note: note() }, "etcd", "", Level::Warn, "etcd: a note"),
            (EventKind::Ignored { note: note() }, "", "", Level::Debug, "a note"),
            (EventKind::Panicked { text: note() }, "", "", Level::Warn, "code that was called panicked: a note"),
        ] {
            assert_eq!(line(kind, backend, key), Line { level, target: "dlock", text: text.to_owned() });
        }
    }
}
