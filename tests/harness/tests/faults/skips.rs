//! `skips.txt`: which scenarios a backend skips, and why. Any other skip is a failure, and so is a line that skips nothing.

use dlock_harness::backends::{BACKENDS, Fault, TestBackend};

use crate::common::On;

/// The name of a scenario, with its file, and the faults that it needs.
pub(crate) type Scenario = (&'static str, &'static [Fault]);

/// A line of the list.
struct Line {
    number: usize,
    backend: &'static str,
    subject: &'static str,
    reason: &'static str,
}

fn lines() -> Vec<Line> {
    let text = include_str!("skips.txt").lines().enumerate();
    let text = text.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let line = |(number, line): (usize, &'static str)| {
        let (backend, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (subject, reason) = rest.trim_start().split_once(' ').unwrap_or((rest, ""));
        let line = Line { number: number + 1, backend, subject, reason: reason.trim() };
        assert!(!line.reason.is_empty(), "skips.txt:{}: BACKEND SCENARIO REASON", line.number);
        line
    };
    text.map(line).collect()
}

impl Line {
    fn allows(&self, backend: &dyn TestBackend, (name, lacking): (&str, &[Fault])) -> bool {
        let word = self.subject.strip_prefix("needs:");
        self.backend == backend.name()
            && (name.ends_with(&format!("::{}", self.subject))
                || lacking.iter().any(|fault| word == Some(fault.word())))
    }
}

/// Returns what a scenario needs and a backend can't have.
fn lacking(backend: &dyn TestBackend, (_, needs): &Scenario) -> Vec<Fault> {
    needs.iter().copied().filter(|need| !backend.faults().contains(need)).collect()
}

/// Plays a scenario on a backend, or says why it skips it.
pub(crate) fn play(backend: &'static dyn TestBackend, scenario: &Scenario, story: fn(On)) {
    let lacking = lacking(backend, scenario);
    if lacking.is_empty() {
        return story(On::new(backend));
    }
    let lines = lines();
    let line = lines.iter().find(|line| line.allows(backend, (scenario.0, &lacking)));
    println!("skipped on {}: {}", backend.name(), line.expect("skips.txt has a line for it").reason);
}

fn all() -> impl Iterator<Item = &'static Scenario> {
    use crate::{access, exit, late, lost, outage, partition, process, queue, replies, waiting};
    let files = [
        access::ALL,
        exit::ALL,
        late::ALL,
        lost::ALL,
        outage::ALL,
        partition::ALL,
        process::ALL,
        queue::ALL,
        replies::ALL,
        waiting::ALL,
    ];
    files.into_iter().flatten()
}

#[test]
fn each_skip_has_a_line_and_each_line_a_skip() {
    let lines = lines();
    let mut used = vec![false; lines.len()];
    for backend in BACKENDS {
        for scenario in all() {
            let lacking = lacking(*backend, scenario);
            if lacking.is_empty() {
                continue;
            }
            let at = lines.iter().position(|line| line.allows(*backend, (scenario.0, &lacking)));
            used[at.unwrap_or_else(|| panic!("no line of skips.txt lets {} skip {}", backend.name(), scenario.0))] =
                true;
        }
    }
    let idle: Vec<_> = lines.iter().zip(used).filter(|(_, used)| !used).map(|(line, _)| line.number).collect();
    assert!(idle.is_empty(), "skips.txt: nothing is skipped for the lines {idle:?}");
}
