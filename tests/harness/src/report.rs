//! The output at the end of a run of the cases.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::play::Measured;
use crate::skips::Skips;

/// One cell of the table.
pub(crate) struct Cell {
    pub(crate) language: &'static str,
    pub(crate) backend: &'static str,
    pub(crate) passed: Vec<String>,
    /// The skipped cases, each with the words that its cell lacks.
    pub(crate) skipped: Vec<(String, Vec<String>)>,
    pub(crate) failed: Vec<String>,
    pub(crate) measured: Vec<Measured>,
    pub(crate) took: Duration,
}

impl Cell {
    pub(crate) fn new(language: &'static str, backend: &'static str) -> Self {
        let (passed, skipped, failed, measured) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { language, backend, passed, skipped, failed, measured, took: Duration::ZERO }
    }

    /// Returns the text of the cell: `201 ok 12 skip 43 s`. Failures are in capitals.
    fn text(&self) -> String {
        let part = |many: usize, word| if many == 0 { String::new() } else { format!(" {many} {word}") };
        let (skipped, failed) = (part(self.skipped.len(), "skip"), part(self.failed.len(), "FAILED"));
        format!("{} ok{failed}{skipped} {:.0} s", self.passed.len(), self.took.as_secs_f64())
    }
}

/// Prints everything, and returns true if all is well. The cells are in the order of languages and backends. `whole`:
/// nothing was left out, so a line of skips.txt that was not used is a failure. `covering`: the backends on which
/// everything was played; on the others each case was played in one language.
pub(crate) fn print(cells: &[Cell], skips: &Skips, whole: bool, covering: Option<&Vec<&str>>) -> bool {
    let mut trouble = skips.unnamed();
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut times: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for cell in cells {
        let here = format!("{} on {}", cell.language, cell.backend);
        trouble.extend(cell.failed.iter().map(|failed| format!("{here}: {failed}")));
        for (case, lacking) in &cell.skipped {
            match skips.reason(cell.language, cell.backend, case, lacking) {
                Some(reason) => reasons.entry(format!("{here}: {reason}")).or_default().push(case.clone()),
                None => trouble.push(format!(
                    "{here}: {case}: skipped, since it needs {}, and no line of skips.txt allows it",
                    lacking.join(" and ")
                )),
            }
        }
        for measured in &cell.measured {
            let ms = measured.took.as_secs_f64() * 1000.0;
            times.entry(&measured.what).or_default().push(format!("{here} {ms:.1} ms"));
        }
    }
    if whole {
        trouble.extend(skips.unused());
    }
    println!("\nmeasured");
    for (what, all) in &times {
        println!("  {what}: {}", all.join(" · "));
    }
    println!("\nskipped");
    for (reason, cases) in &reasons {
        println!("  {reason}: {}", cases.join(" "));
    }
    println!("\n{}", table(cells));
    if let Some(all) = covering {
        println!("\ncovering: all on {}, each case in one language on each other backend", all.join(" and "));
    }
    if !trouble.is_empty() {
        println!("\nfailed");
        for one in &trouble {
            println!("  {one}");
        }
    }
    let passed: usize = cells.iter().map(|cell| cell.passed.len()).sum();
    println!("\n{passed} passed, {} failed", trouble.len());
    trouble.is_empty()
}

/// Returns the table: a row for each language, a column for each backend.
fn table(cells: &[Cell]) -> String {
    let (mut languages, mut backends) = (Vec::new(), Vec::new());
    for cell in cells {
        if !languages.contains(&cell.language) {
            languages.push(cell.language);
        }
        if !backends.contains(&cell.backend) {
            backends.push(cell.backend);
        }
    }
    let of = |language, backend| cells.iter().find(|cell| (cell.language, cell.backend) == (language, backend));
    let mut rows = vec![std::iter::once("").chain(backends.iter().copied()).map(str::to_owned).collect::<Vec<_>>()];
    for language in languages {
        let texts = backends.iter().map(|backend| of(language, backend).map_or_else(|| "-".to_owned(), Cell::text));
        rows.push(std::iter::once(language.to_owned()).chain(texts).collect());
    }
    let widths: Vec<_> = (0..=backends.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(text, &width)| format!("{text:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_passed_failed_and_skipped() {
        let mut all = ["memory", "file"].map(|backend| Cell::new("c", backend));
        all[0].passed = vec!["exclusion/one".to_owned(); 3];
        all[0].skipped = vec![("exclusion/two".to_owned(), Vec::new())];
        all[1].failed = vec!["exclusion/one: why".to_owned(); 2];
        all[1].took = Duration::from_millis(1600);
        assert_eq!(table(&all), "   memory           file\nc  3 ok 1 skip 0 s  0 ok 2 FAILED 2 s");
    }
}
