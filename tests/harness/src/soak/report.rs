//! The output at the end of a run.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use dlock_harness::history::Verdict;
use dlock_harness::history::resource::Damage;

/// The number of violations that are printed with their lines.
const SHOWN: usize = 10;

/// The results of a run besides the verdict.
pub(crate) struct Found {
    pub(crate) took: Duration,
    pub(crate) checked: Duration,
    /// The failures of the run itself.
    pub(crate) trouble: Vec<String>,
    pub(crate) damage: Damage,
    /// The number of grants by language.
    pub(crate) entries: BTreeMap<&'static str, u64>,
}

/// Prints everything, and returns true if all is well. `undisturbed`: no holder lost its lock, so no update of the
/// resource may be lost, even without a check of fencing tokens.
pub(crate) fn print(verdict: &Verdict, found: Found, undisturbed: bool) -> bool {
    let Found { took, checked, mut trouble, damage, entries } = found;
    println!("{} holds in {:.1} s, checked in {:.2} s", verdict.holds, took.as_secs_f64(), checked.as_secs_f64());
    let each: Vec<_> = entries.iter().map(|(language, many)| format!("{language} {many}")).collect();
    println!("entries: {}", each.join(", "));
    println!("  {:>9}  writes to the resource, {} of them stale", damage.writes, damage.stale);
    println!("  {:>9}  lost updates without a fence check, {} writes refused by it", damage.lost_open, damage.refused);
    judged(verdict);
    trouble.extend(entries.iter().filter(|entry| *entry.1 == 0).map(|entry| format!("{} got no lock", entry.0)));
    let guarded = damage.lost_guarded;
    trouble.extend((guarded > 0).then(|| format!("{guarded} updates were lost in spite of the fence check")));
    let open = if undisturbed { damage.lost_open } else { 0 };
    trouble.extend((open > 0).then(|| format!("{open} updates were lost, and no fault was done")));
    for one in &trouble {
        println!("{one}");
    }
    let good = verdict.is_good() && trouble.is_empty();
    println!("{}", if good { "1 passed, 0 failed" } else { "0 passed, 1 failed" });
    good
}

/// Prints the verdict.
pub(crate) fn judged(verdict: &Verdict) {
    for (name, count) in &verdict.counts {
        println!("  {count:>9}  {name}");
    }
    if let [.., latest] = verdict.lateness[..] {
        let at = |share: usize| ms(verdict.lateness[(verdict.lateness.len() - 1) * share / 100]);
        println!(
            "losses told after their end: median {:.1} ms, 99 % {:.1} ms, at most {:.1} ms",
            at(50),
            at(99),
            ms(latest)
        );
    }
    for violation in verdict.violations.iter().take(SHOWN) {
        println!("\n{:?} of {} at {}: {}", violation.class, violation.key, violation.t, violation.text);
        violation.lines.iter().for_each(|line| println!("    {line}"));
    }
    if verdict.violations.len() > SHOWN {
        println!("\nand {} violations more", verdict.violations.len() - SHOWN);
    }
    println!();
    for name in &verdict.missing {
        println!("never seen, so nothing is known of it: {name}");
    }
    for name in &verdict.present {
        println!("must not be: {name}");
    }
    let (operations, faults, violations) = (verdict.operations, verdict.faults, verdict.violations.len());
    println!("{operations} operations checked, {faults} faults, {violations} violations");
}

#[allow(clippy::cast_precision_loss, reason = "it is printed")]
fn ms(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Returns the command that repeats the run, as far as timing allows.
pub(crate) fn again(seed: u64) -> String {
    let mut words: Vec<_> = std::env::args().collect();
    if !words.iter().any(|word| word == "--seed" || word.starts_with("--seed=")) {
        words.extend(["--seed".to_owned(), seed.to_string()]);
    }
    words.join(" ")
}

pub(crate) fn keep(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
