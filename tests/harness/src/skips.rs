//! The list `tests/skips.txt`: the cells of the table that may be skipped, with the reasons. Any other skip is a
//! failure. A line for which nothing is skipped is a failure too, like a line that CHANGELOG.md doesn't name. So the
//! list can't grow unnoticed.

use std::cell::Cell;
use std::path::Path;

struct Line {
    number: usize,
    language: String,
    backend: String,
    /// The name of a case, or `needs:WORD` for all cases that need the word.
    subject: String,
    reason: String,
    /// True if the change log names the line.
    named: bool,
    used: Cell<bool>,
}

pub(crate) struct Skips(Vec<Line>);

impl Skips {
    pub(crate) fn read(path: &Path, changelog: &Path) -> Result<Self, String> {
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
        let (text, log) = (read(path)?, read(changelog)?);
        let log = log.split_whitespace().collect::<Vec<_>>().join(" ");
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
            let named = log.contains(&format!("`{language} {backend} {subject}`"));
            let used = Cell::new(false);
            lines.push(Line { number: number + 1, language, backend, subject, reason, named, used });
        }
        Ok(Self(lines))
    }

    /// Returns the reason for which this cell may be skipped if it lacks these words.
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

    /// Returns a failure for each line that the change log doesn't name.
    pub(crate) fn unnamed(&self) -> Vec<String> {
        let missing = self.0.iter().filter(|line| !line.named);
        let told = |line: &Line| {
            let (language, backend, subject) = (&line.language, &line.backend, &line.subject);
            let what = format!("`{language} {backend} {subject}`");
            format!(
                "skips.txt:{}: a skip that CHANGELOG.md doesn't name: write {what} into its section Tests",
                line.number
            )
        };
        missing.map(told).collect()
    }

    /// Returns a failure for each line for which nothing was skipped.
    pub(crate) fn unused(&self) -> Vec<String> {
        let idle = self.0.iter().filter(|line| !line.used.get());
        idle.map(|line| format!("skips.txt:{}: nothing was skipped for {:?}", line.number, line.subject)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_refused_until_the_change_log_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let (skips, log) = (folder.path().join("skips.txt"), folder.path().join("CHANGELOG.md"));
        std::fs::write(&skips, "# why\nnode  *  needs:fork  it can't\nc * needs:float none\n").unwrap();
        std::fs::write(&log, "- skipped: `node *\n  needs:fork`, `c * needs:floats`\n").unwrap();
        let told = Skips::read(&skips, &log).unwrap().unnamed();
        assert!(
            told.len() == 1 && told[0].starts_with("skips.txt:3:") && told[0].contains("`c * needs:float`"),
            "{told:?}"
        );
    }
}
