//! `tests/skips.txt`: which cells of the table may be skipped, and why. Any other skip is a failure, and so is a line
//! that nothing is skipped for.

use std::cell::Cell;
use std::path::Path;

struct Line {
    number: usize,
    language: String,
    backend: String,
    /// The name of a case, or `needs:WORD` for all that need it.
    subject: String,
    reason: String,
    used: Cell<bool>,
}

pub(crate) struct Skips(Vec<Line>);

impl Skips {
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace().map(str::to_owned);
            let mut next = || words.next().unwrap_or_default();
            let (language, backend, subject) = (next(), next(), next());
            let reason = words.collect::<Vec<_>>().join(" ");
            if reason.is_empty() {
                return Err(format!("{}:{}: LANGUAGE BACKEND CASE REASON", path.display(), number + 1));
            }
            lines.push(Line { number: number + 1, language, backend, subject, reason, used: Cell::new(false) });
        }
        Ok(Self(lines))
    }

    /// Why this cell may be skipped, when it lacks these words.
    pub(crate) fn reason(&self, language: &str, backend: &str, case: &str, lacking: &[String]) -> Option<&str> {
        let is = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        let line = self.0.iter().find(|line| {
            is(&line.language, language)
                && is(&line.backend, backend)
                && (line.subject == case
                    || line.subject.strip_prefix("needs:").is_some_and(|word| lacking.iter().any(|lack| lack == word)))
        })?;
        line.used.set(true);
        Some(&line.reason)
    }

    /// The lines that nothing was skipped for.
    pub(crate) fn unused(&self) -> Vec<String> {
        let idle = self.0.iter().filter(|line| !line.used.get());
        idle.map(|line| format!("skips.txt:{}: nothing was skipped for {:?}", line.number, line.subject)).collect()
    }
}
