//! The case files: their steps, and the small words inside the tokens of a step.

use std::path::Path;
use std::time::Duration;

/// The words for what a backend can do: its capabilities, and what its fixture can do to it.
pub(crate) const OF_BACKENDS: &[&str] = &[
    "fence",
    "ttl",
    "fifo",
    "shared",
    "permits",
    "handoff",
    "processes",
    "fork",
    "local",
    "outside",
    "files",
    "keys",
    "longer",
    "breaks",
    "names",
];
/// The word that every case needs which breaks a lock.
const BREAKS: &str = "breaks";
/// The words for what an interpreter can do.
pub(crate) const OF_LANGUAGES: &[&str] = &["cancel", "fork", "signed", "float", "bytes", "zero", "nul", "modes"];

/// One behaviour.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The words of the lists above that the case needs. A word of a backend with `no-` before it: only without it.
    pub(crate) needs: Vec<String>,
    pub(crate) steps: Vec<Step>,
}

impl Case {
    /// Returns the words that the case needs of a language and that aren't in `able`.
    pub(crate) fn lacks(&self, able: &[String]) -> impl Iterator<Item = String> {
        self.needs.iter().filter(|need| OF_LANGUAGES.contains(&need.as_str()) && !able.contains(need)).cloned()
    }

    /// Returns the case for a backend that keeps no ttl below `least`. All times of the case grow by one factor, so
    /// that its shortest valid ttl is at least `least`.
    pub(crate) fn slowed(&self, least: Duration) -> Self {
        let words = self.steps.iter().flat_map(|step| &step.words);
        let ttls = words.filter_map(|word| duration(word.strip_prefix("ttl=")?)).filter(|ttl| *ttl >= SHORTEST);
        let factor = ttls.min().map_or(1.0, |ttl| least.as_secs_f64() / ttl.as_secs_f64()).max(1.0);
        let steps = self.steps.iter().map(|step| Step {
            place: step.place.clone(),
            words: step.words.iter().map(|word| slower(word, factor)).collect(),
            wanted: step.wanted.as_ref().map(|wanted| slower(wanted, factor)),
        });
        Self { name: self.name.clone(), needs: self.needs.clone(), steps: steps.collect() }
    }
}

/// The shortest ttl of any backend. A case that uses a shorter one expects a refusal.
const SHORTEST: Duration = Duration::from_millis(100);

/// Returns a word with each of its times multiplied by `factor`: `250ms`, `ttl=250ms`, `retry=3,250ms`.
fn slower(word: &str, factor: f64) -> String {
    let (head, tail) = word.rsplit_once(['=', ',']).map_or(("", word), |(head, tail)| (&word[..=head.len()], tail));
    match duration(tail) {
        Some(time) if factor > 1.0 => format!("{head}{}ms", (time.as_secs_f64() * factor * 1000.0).round()),
        _ => word.to_owned(),
    }
}

/// One line of a case.
#[derive(Debug)]
pub(crate) struct Step {
    /// The place of the line: `file:line`.
    pub(crate) place: String,
    pub(crate) words: Vec<String>,
    /// The text after `->`: one outcome, or several with `|` between them.
    pub(crate) wanted: Option<String>,
}

impl Step {
    /// Returns the text as written, apart from its spaces.
    pub(crate) fn text(&self) -> String {
        let words = self.words.join(" ");
        match &self.wanted {
            Some(wanted) => format!("{words} -> {wanted}"),
            None => words,
        }
    }

    fn parse(place: String, line: &str) -> Result<Self, String> {
        let (left, wanted) = match line.split_once(" -> ") {
            Some((left, wanted)) => (left, Some(wanted.split_whitespace().collect::<Vec<_>>().join(" "))),
            None => (line, None),
        };
        let words: Vec<_> = left.split_whitespace().map(str::to_owned).collect();
        let step = Self { place, words, wanted };
        if step.wanted.is_none() && !step.is_silent() {
            return Err(format!("{}: a step says its outcome: … -> OUTCOME", step.place));
        }
        Ok(step)
    }

    /// Returns true if the step has no outcome of its own. Then the harness does the step, and fails if it can't.
    fn is_silent(&self) -> bool {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        matches!(words.as_slice(), ["sleep" | "time" | "took" | "process" | "yaml" | "server", ..])
            || matches!(words.as_slice(), [_, "kill" | "stop" | "cont" | "exit"] | [_, "fork", _])
            || matches!(words.as_slice(), [_, _, ">" | "==" | "!=", _])
    }
}

/// Reads every `*.case` in a folder, in order of their names.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<Case>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "case"));
    paths.sort();
    let mut cases: Vec<Case> = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let group = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (number, line) in text.lines().enumerate() {
            let place = format!("{group}.case:{}", number + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
            } else if let Some(head) = line.strip_prefix("case ") {
                let case = begin(&group, &place, head)?;
                if cases.iter().any(|other| other.name == case.name) {
                    return Err(format!("{place}: a second case {}", case.name));
                }
                cases.push(case);
            } else {
                let case = cases.last_mut().ok_or(format!("{place}: a step before the first case"))?;
                let step = Step::parse(place, line)?;
                if step.words.get(1).is_some_and(|verb| verb == "break")
                    && !case.needs.iter().any(|need| need == BREAKS)
                {
                    case.needs.push(BREAKS.to_owned());
                }
                case.steps.push(step);
            }
        }
    }
    match cases.iter().find(|case| !case.steps.iter().any(|step| step.wanted.is_some())) {
        Some(case) => Err(format!("case {} shows nothing: no step has an outcome", case.name)),
        None => Ok(cases),
    }
}

fn begin(group: &str, place: &str, head: &str) -> Result<Case, String> {
    let mut words = head.split_whitespace();
    let name = words.next().ok_or(format!("{place}: a case needs a name"))?;
    let needs: Vec<_> = words.map(str::to_owned).collect();
    let needs = match needs.split_first() {
        None => Vec::new(),
        Some((first, rest)) if first == "needs" && !rest.is_empty() => rest.to_vec(),
        Some(_) => return Err(format!("{place}: case NAME [needs WORD …]")),
    };
    for need in &needs {
        let known = match need.strip_prefix("no-") {
            Some(word) => OF_BACKENDS.contains(&word),
            None => OF_BACKENDS.contains(&need.as_str()) || OF_LANGUAGES.contains(&need.as_str()),
        };
        if !known {
            return Err(format!("{place}: nobody says whether it can {need:?}"));
        }
    }
    Ok(Case { name: format!("{group}/{name}"), needs, steps: Vec::new() })
}

/// Expands `c{N}`: the character before the brace N times.
pub(crate) fn repeat(text: &str) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((head, tail)) = rest.split_once('{') {
        out.push_str(head);
        let count = tail.split_once('}').and_then(|(count, tail)| Some((count.parse::<usize>().ok()?, tail)));
        match (count, head.chars().last()) {
            (Some((count, tail)), Some(last)) if count > 0 => {
                out.extend(std::iter::repeat_n(last, count - 1));
                rest = tail;
            }
            _ => {
                out.push('{');
                rest = tail;
            }
        }
    }
    out + rest
}

/// Reads a duration: `250ms`, `1.5s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let (number, scale) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s')?, 1.0),
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * scale).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats() {
        assert_eq!(repeat("ab{3}c{2}"), "abbbcc");
        assert_eq!(repeat("{url?}a"), "{url?}a");
        assert_eq!(repeat("{2}"), "{2}");
    }

    #[test]
    fn a_step_without_outcome_is_refused() {
        assert!(Step::parse("here".to_owned(), "a acquire k").is_err());
        assert!(Step::parse("here".to_owned(), "sleep 1s").is_ok());
        let step = Step::parse("here".to_owned(), "a  try k  -> $1").unwrap();
        assert_eq!((step.words.len(), step.wanted.as_deref()), (3, Some("$1")));
    }

    #[test]
    fn a_case_is_slowed_as_a_whole() {
        let step = |line: &str| Step::parse("here".to_owned(), line).unwrap();
        let steps = vec![step("a acquire k ttl=400ms retry=3,1s -> $1"), step("sleep 1s"), step("$1 ttl -> 400ms")];
        let case = Case { name: "x/y".to_owned(), needs: Vec::new(), steps };
        let text = |case: &Case| case.steps.iter().map(Step::text).collect::<Vec<_>>();
        let slow = ["a acquire k ttl=2000ms retry=3,5000ms -> $1", "sleep 5000ms", "$1 ttl -> 2000ms"];
        assert_eq!(text(&case.slowed(Duration::from_secs(2))), slow);
        assert_eq!(text(&case.slowed(Duration::from_millis(100))), text(&case));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("forever"), None);
    }
}
