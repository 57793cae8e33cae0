//! The list tests/api.txt: one operation a line, with its name in each package. The head of that file explains a line.

use std::collections::{BTreeMap, BTreeSet};

/// The columns of the list.
pub(crate) const PACKAGES: [&str; 4] = ["rust", "python", "node", "c"];
/// The cell of a package that has no such operation.
const NONE: &str = "-";

struct Line {
    number: usize,
    /// The names in each column. A column is empty if the package has no such operation.
    names: [Vec<String>; PACKAGES.len()],
}

pub(crate) struct List(Vec<Line>);

impl List {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (mut lines, mut seen) = (Vec::new(), BTreeMap::new());
        for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
            if line.is_empty() || line.starts_with(['#', '[']) {
                continue;
            }
            let (cells, reason) = line.split_once(" # ").unwrap_or((line, ""));
            let cells: Vec<_> = cells.split_whitespace().collect();
            let cells: [&str; PACKAGES.len()] =
                cells.try_into().map_err(|_| format!("api.txt:{number}: a line is {} # REASON", PACKAGES.join(" ")))?;
            if cells.contains(&NONE) == reason.is_empty() {
                return Err(format!("api.txt:{number}: a reason belongs to a line with {NONE}, and to no other"));
            }
            let mut names = [const { Vec::new() }; PACKAGES.len()];
            for (column, cell) in cells.into_iter().enumerate().filter(|(_, cell)| *cell != NONE) {
                for name in cell.split(',') {
                    if let Some(first) = seen.insert((column, name), number) {
                        return Err(format!("api.txt:{number}: {name} of {} is in line {first}", PACKAGES[column]));
                    }
                    names[column].push(name.to_owned());
                }
            }
            lines.push(Line { number, names });
        }
        Ok(Self(lines))
    }

    pub(crate) fn lines(&self) -> usize {
        self.0.len()
    }

    /// Returns the listed names of a package that don't exist, with their lines, and the existing names that aren't
    /// listed.
    pub(crate) fn compare(&self, column: usize, real: &BTreeSet<String>) -> (Vec<(usize, String)>, Vec<String>) {
        let (mut absent, mut left) = (Vec::new(), real.clone());
        for line in &self.0 {
            for name in &line.names[column] {
                let before = left.len();
                match name.strip_suffix('*') {
                    Some(start) => left.retain(|one| !one.starts_with(start)),
                    None => drop(left.remove(name)),
                }
                if left.len() == before {
                    absent.push((line.number, name.clone()));
                }
            }
        }
        (absent, left.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# head\n[lease]\nLease::renew Lease.renew,Lease.arenew Lease.renew dlock_renew\n\
        Op::* - - -  # Rust only\n";

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn both_ways() {
        let list = List::parse(TEXT).unwrap();
        assert_eq!(list.compare(0, &names(&["Lease::renew", "Op::wait", "Op::map"])), (vec![], vec![]));
        let (absent, unlisted) = list.compare(1, &names(&["Lease.renew", "Lease.extend"]));
        assert_eq!(absent, [(3, "Lease.arenew".to_owned())]);
        assert_eq!(unlisted, ["Lease.extend"]);
        let (absent, _) = list.compare(0, &names(&["Lease::renew"]));
        assert_eq!(absent, [(4, "Op::*".to_owned())], "a pattern that nothing matches");
    }

    #[test]
    fn what_is_no_line() {
        assert!(List::parse("a b c").is_err(), "a column is missing");
        assert!(List::parse("a - c d").is_err(), "no reason");
        assert!(List::parse("a b c d # why").is_err(), "a reason for nothing");
        assert!(List::parse("a b c d\nA B c D").is_err(), "twice");
    }
}
