//! A folder that processes enter, and what it shows of their entries. It knows nothing about locks.

use std::fmt::{Display, Formatter};
use std::path::Path;
use std::str::FromStr;

use rustc_hash::FxHashMap;
use tempfile::TempDir;

/// The entries that may be inside at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// One.
    Alone,
    /// Any number of readers, or one writer. Every fourth entry of a process is a writer.
    Readers,
    /// So many.
    Permits(u32),
}

impl Rule {
    /// Returns the word by which the entry of this number, from 1 on, enters.
    pub(super) fn how(self, n: usize) -> String {
        match self {
            Self::Readers if !n.is_multiple_of(4) => "reader".to_owned(),
            Self::Permits(limit) => limit.to_string(),
            _ => ALONE.to_owned(),
        }
    }

    /// Returns true if an entry may be inside beside the others.
    fn allows(self, entry: &Entry) -> bool {
        match self {
            Self::Permits(limit) => entry.beside.len() < limit as usize,
            _ if is_alone(&entry.own) => entry.beside.is_empty(),
            _ => !entry.beside.iter().any(|other| is_alone(other)),
        }
    }
}

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alone => f.write_str(ALONE),
            Self::Readers => f.write_str("readers"),
            Self::Permits(limit) => limit.fmt(f),
        }
    }
}

impl FromStr for Rule {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            ALONE => Self::Alone,
            "readers" => Self::Readers,
            limit => Self::Permits(limit.parse()?),
        })
    }
}

/// The word by which an entry enters that has to be alone.
pub const ALONE: &str = "alone";

fn is_alone(file: &str) -> bool {
    file.ends_with(".alone")
}

/// Returns the name of the process that a file belongs to.
fn process(file: &str) -> &str {
    file.split_once('.').map_or(file, |(process, _)| process)
}

fn is_ours(file: &str) -> bool {
    file.starts_with("inside/ours-")
}

/// The folder.
#[derive(Debug)]
pub(super) struct Room(TempDir);

impl Room {
    pub(super) fn new() -> std::io::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("inside"))?;
        std::fs::write(folder.path().join("count"), "0\n")?;
        Ok(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns what has come of so many entries of each of so many processes.
    pub(super) fn outcome(&self, rule: Rule, processes: usize, each: usize) -> Outcome {
        let read = |name: &str| std::fs::read_to_string(self.path().join(name)).unwrap_or_default();
        let entry = |line: &str| {
            let mut files = line.split(' ').map(str::to_owned);
            let own = files.next().unwrap_or_default();
            Entry { beside: files.filter(|file| *file != own).collect(), own }
        };
        let count = read("count").trim().parse().unwrap_or_default();
        Outcome { rule, processes, each, count, entries: read("order").lines().map(entry).collect() }
    }
}

/// One entry.
#[derive(Debug)]
struct Entry {
    own: String,
    /// The files of the others that were inside.
    beside: Vec<String>,
}

/// What has come of the entries.
#[derive(Debug)]
pub struct Outcome {
    rule: Rule,
    processes: usize,
    each: usize,
    /// What the entries that have to be alone have counted.
    count: usize,
    /// The entries in their order.
    entries: Vec<Entry>,
}

impl Outcome {
    /// Returns the number of entries that should have been.
    pub(super) fn expected(&self) -> usize {
        self.processes * self.each
    }

    /// Returns the number of entries beside somebody who should not have been inside.
    pub fn overlaps(&self) -> usize {
        self.entries.iter().filter(|entry| !self.rule.allows(entry)).count()
    }

    /// Checks that nobody was inside who should not have been, and that no entry and no update of the count is missing.
    ///
    /// # Errors
    /// If one of these isn't so.
    pub fn judge(&self) -> Result<(), String> {
        let alone = self.processes * (1..=self.each).filter(|n| self.rule.how(*n) == ALONE).count();
        let (expected, overlaps, signed) = (self.expected(), self.overlaps(), self.entries.len());
        if overlaps > 0 || self.count != alone || signed != expected {
            let counted = format!("{} of {alone} counted", self.count);
            return Err(format!("{expected} entries: {overlaps} overlaps, {counted}, {signed} signed"));
        }
        Ok(())
    }

    /// Returns the number of entries of one side that came after an entry of the other side.
    pub(super) fn turns(&self) -> usize {
        self.entries.windows(2).filter(|pair| is_ours(&pair[0].own) != is_ours(&pair[1].own)).count()
    }

    /// Returns the number of entries of one side while the other side was inside.
    pub(super) fn together(&self) -> usize {
        let mixed = |entry: &&Entry| entry.beside.iter().any(|other| is_ours(other) != is_ours(&entry.own));
        self.entries.iter().filter(mixed).count()
    }

    /// Returns the greatest number of processes that were inside at once.
    pub(super) fn fullest(&self) -> usize {
        self.entries.iter().map(|entry| entry.beside.len() + 1).max().unwrap_or_default()
    }

    /// Returns the number of entries of the slowest process when the first one had all its entries.
    pub(super) fn slowest(&self) -> usize {
        let mut seen = FxHashMap::default();
        for entry in &self.entries {
            let entered = seen.entry(process(&entry.own)).or_insert(0);
            *entered += 1;
            if *entered == self.each {
                break;
            }
        }
        if seen.len() == self.processes { seen.into_values().min().unwrap_or_default() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the judgement of eight entries of two processes: seven of a first one by this word, and then one beside
    /// others.
    fn judged(rule: Rule, word: &str, count: usize, beside: &[&str]) -> Result<(), String> {
        let room = Room::new().unwrap();
        let own = format!("inside/ours-0.{word}");
        let others: String = beside.iter().map(|other| format!(" inside/{other}")).collect();
        std::fs::write(room.path().join("order"), format!("{own} {own}\n").repeat(7) + &own + &others).unwrap();
        std::fs::write(room.path().join("count"), format!("{count}\n")).unwrap();
        room.outcome(rule, 2, 4).judge()
    }

    #[test]
    fn somebody_inside_who_should_not_be_is_noticed() {
        judged(Rule::Alone, "alone", 8, &[]).unwrap();
        judged(Rule::Alone, "alone", 7, &[]).unwrap_err();
        judged(Rule::Alone, "alone", 8, &["theirs-0.alone"]).unwrap_err();
        judged(Rule::Readers, "reader", 2, &["theirs-0.reader", "theirs-1.reader"]).unwrap();
        judged(Rule::Readers, "reader", 2, &["theirs-0.reader", "theirs-1.alone"]).unwrap_err();
        judged(Rule::Readers, "alone", 2, &["theirs-0.reader"]).unwrap_err();
        judged(Rule::Permits(2), "2", 0, &["theirs-0.2"]).unwrap();
        judged(Rule::Permits(2), "2", 0, &["theirs-0.2", "theirs-1.2"]).unwrap_err();
    }
}
