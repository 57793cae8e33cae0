//! Plays one case: sends each step to its process and compares the outcomes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::actor::{Actor, Language};
use crate::case::{Case, Step, duration, repeat};
use crate::fixture::Fixture;

/// The time that one step may take. No step waits for anything for longer than 5 s.
const STEP_LIMIT: Duration = Duration::from_secs(15);
/// The time for which `until` tries, unless the lock of a dead process stays longer.
const UNTIL_LIMIT: Duration = Duration::from_secs(5);
/// The process of all clients that have no process of their own.
const MAIN: &str = "main";

/// A time that a case has asked for.
pub(crate) struct Measured {
    pub(crate) what: String,
    pub(crate) took: Duration,
}

/// The state of one case.
pub(crate) struct Play<'a> {
    case: &'a Case,
    language: &'a Language,
    fixture: &'a Fixture,
    folder: PathBuf,
    log: &'a Path,
    processes: HashMap<String, Actor>,
    /// The process of each lease and operation.
    home: HashMap<String, String>,
    /// The key of each operation. `fences` has the greatest fence seen of each key.
    keys: HashMap<String, String>,
    fences: HashMap<String, u64>,
    facts: HashMap<String, String>,
    measure: Option<(String, Instant)>,
    last: Duration,
    pub(crate) measured: Vec<Measured>,
}

impl<'a> Play<'a> {
    pub(crate) fn new(
        case: &'a Case,
        language: &'a Language,
        fixture: &'a Fixture,
        folder: &Path,
        log: &'a Path,
    ) -> Result<Self, String> {
        let folder = folder.join("tmp").join(case.name.replace('/', "-"));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut facts = HashMap::new();
        let url = fixture.url(&case.name)?;
        let joint = if url.contains('?') { "&" } else { "?" };
        facts.insert("url?".to_owned(), format!("{url}{joint}"));
        facts.insert("url".to_owned(), url);
        facts.insert("tmp".to_owned(), folder.display().to_string());
        facts.insert("backend".to_owned(), fixture.driver().to_owned());
        facts.insert("address".to_owned(), fixture.address(&case.name)?);
        for word in crate::case::OF_BACKENDS {
            let can = if fixture.can(word) { "yes" } else { "no" };
            facts.insert(format!("can:{word}"), can.to_owned());
        }
        Ok(Self {
            case,
            language,
            fixture,
            folder,
            log,
            processes: HashMap::new(),
            home: HashMap::new(),
            keys: HashMap::new(),
            fences: HashMap::new(),
            facts,
            measure: None,
            last: Duration::ZERO,
            measured: Vec::new(),
        })
    }

    /// Runs all steps, with `main` as the first interpreter. Starts the other processes itself.
    pub(crate) fn run(&mut self, main: Actor) -> (Actor, Result<(), String>) {
        self.processes.insert(MAIN.to_owned(), main);
        let url = self.facts["url"].clone();
        let mut result = match self.ask(MAIN, &format!("case {url}")) {
            Ok(said) if said != "ok" => Err(format!("it doesn't begin: {said}")),
            other => other.map(drop),
        };
        for step in &self.case.steps {
            if result.is_err() {
                break;
            }
            result = self.step(step).map_err(|why| format!("{}: {}: {why}", step.place, step.text()));
        }
        let main = self.processes.remove(MAIN).expect("put in above");
        (main, result)
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let words: Result<Vec<_>, _> = step.words.iter().map(|word| self.fill(word)).collect();
        let words = words?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let wanted = step.wanted.as_deref().map(|wanted| self.fill(wanted)).transpose()?;
        let begun = Instant::now();
        match words.as_slice() {
            ["sleep", time] => std::thread::sleep(duration(time).ok_or("sleep 200ms")?),
            ["time", label @ ..] => {
                self.measure = Some((label.join(" "), Instant::now()));
                return Ok(());
            }
            ["took", time] => {
                let least = duration(time).ok_or("took 200ms")?;
                let took = self.last;
                return if took >= least { Ok(()) } else { Err(format!("it took only {took:?}")) };
            }
            ["process", name, env @ ..] => self.start(name, env)?,
            ["yaml", name, text @ ..] => {
                let (mode, text) = match text {
                    [mode, text @ ..] if mode.starts_with("mode=") => (&mode["mode=".len()..], text),
                    text => ("644", text),
                };
                let mode = u32::from_str_radix(mode, 8).map_err(|_| "yaml NAME mode=664 TEXT")?;
                let path = self.folder.join(name);
                let written = std::fs::write(&path, unescape(&text.join(" ")) + "\n");
                // The mode is set explicitly, because the caller's umask may change it.
                let set = || std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode));
                written.and_then(|()| set()).map_err(|error| error.to_string())?;
            }
            ["server", verb @ ..] => self.fixture.server(&self.case.name, verb)?,
            [name, verb @ ("kill" | "stop" | "cont" | "exit")] => {
                let process = self.process(name)?;
                match *verb {
                    "kill" => process.kill()?,
                    "stop" => process.signal(Signal::STOP)?,
                    "cont" => process.signal(Signal::CONT)?,
                    _ => process.exit(STEP_LIMIT)?,
                }
            }
            [parent, "fork", name] => {
                let folder = self.folder.clone();
                let child = self.process(parent)?.fork(name, &folder, STEP_LIMIT)?;
                self.facts.insert(format!("{name}.pid"), child.pid.as_raw_nonzero().to_string());
                self.processes.insert((*name).to_owned(), child);
            }
            [this, what, how @ (">" | "==" | "!="), that] => self.compare(this, what, how, that)?,
            ["until", rest @ ..] => {
                let wanted = wanted.ok_or("until … -> OUTCOME")?;
                let limit = UNTIL_LIMIT.max(self.fixture.ends_within());
                loop {
                    let got = self.say(rest, &wanted)?;
                    if agrees(&wanted, &got) {
                        self.note(begun);
                        return Ok(());
                    }
                    if begun.elapsed() > limit {
                        return Err(format!("after {limit:?} still {got:?}"));
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            _ => {
                let wanted = wanted.ok_or("the step says no outcome")?;
                let got = self.say(&words, &wanted)?;
                self.note(begun);
                if !agrees(&wanted, &got) {
                    return Err(format!("got {got:?}"));
                }
                self.granted(&words, &got)?;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Notes the time of a step with an outcome. If the case has begun a measurement, notes that time too.
    fn note(&mut self, begun: Instant) {
        self.last = begun.elapsed();
        if let Some((what, since)) = self.measure.take() {
            self.measured.push(Measured { what, took: since.elapsed() });
        }
    }

    fn start(&mut self, name: &str, env: &[&str]) -> Result<(), String> {
        let mut variables = Vec::new();
        for pair in env {
            let (key, value) = pair.split_once('=').ok_or("process NAME [VARIABLE=VALUE …]")?;
            variables.push((key.to_owned(), unescape(value)));
        }
        let mut actor = Actor::start(self.language, &self.folder, &variables, self.log)?;
        actor.ask(&format!("case {}", self.facts["url"]), STEP_LIMIT)?;
        self.facts.insert(format!("{name}.pid"), actor.pid.as_raw_nonzero().to_string());
        self.processes.insert(name.to_owned(), actor);
        Ok(())
    }

    /// Sends the step to its process: that of the client, lease or operation that comes first, or the one that is named
    /// before a lease (for the copy of the lease that a forked child has).
    fn say(&mut self, words: &[&str], wanted: &str) -> Result<String, String> {
        let [first, rest @ ..] = words else {
            return Err("an empty step".to_owned());
        };
        let (process, said) = match rest {
            [second, ..] if second.starts_with(['$', '%']) && self.processes.contains_key(*first) => (*first, rest),
            _ if self.processes.contains_key(*first) => (*first, words),
            _ if first.starts_with(['$', '%']) => {
                let home = self.home.get(*first).ok_or(format!("there is no {first}"))?;
                (home.as_str(), words)
            }
            _ => (MAIN, words),
        };
        let process = process.to_owned();
        let mut line = said.join(" ");
        let name = wanted.split('|').find(|part| part.starts_with(['$', '%']));
        if let Some(name) = name {
            line += &format!(" -> {name}");
            self.home.insert(name.to_owned(), process.clone());
        }
        self.ask(&process, &line)
    }

    fn ask(&mut self, process: &str, line: &str) -> Result<String, String> {
        self.process(process)?.ask(line, STEP_LIMIT)
    }

    fn process(&mut self, name: &str) -> Result<&mut Actor, String> {
        self.processes.get_mut(name).ok_or(format!("there is no process {name}"))
    }

    /// Checks every grant: its fence is greater than all earlier ones of the key.
    fn granted(&mut self, words: &[&str], got: &str) -> Result<(), String> {
        let key = match words {
            [_, "acquire" | "try" | "begin", key, ..] => (*key).to_owned(),
            [call, "join"] => self.keys.get(*call).cloned().unwrap_or_default(),
            _ => return Ok(()),
        };
        if got.starts_with('%') {
            self.keys.insert(got.to_owned(), key);
        } else if got.starts_with('$') && self.fixture.can("fence") {
            let fence = self.field(got, "fence")?;
            let fence: u64 = fence.parse().map_err(|_| format!("its fence is {fence:?}"))?;
            let before = self.fences.insert(key, fence);
            if before.is_some_and(|before| before >= fence) {
                return Err(format!("its fence {fence} is not greater than {before:?} of an earlier grant"));
            }
        }
        Ok(())
    }

    /// Returns a field of a lease. Asks only once, because the field doesn't change and its process may be gone later.
    fn field(&mut self, lease: &str, what: &str) -> Result<String, String> {
        let fact = format!("{lease}.{what}");
        if let Some(known) = self.facts.get(&fact) {
            return Ok(known.clone());
        }
        let home = self.home.get(lease).cloned().ok_or(format!("there is no {lease}"))?;
        let value = self.ask(&home, &format!("{lease} {what}"))?;
        self.facts.insert(fact, value.clone());
        Ok(value)
    }

    fn compare(&mut self, this: &str, what: &str, how: &str, that: &str) -> Result<(), String> {
        let (left, right) = (self.field(this, what)?, self.field(that, what)?);
        let holds = match how {
            ">" => left.parse::<u64>().ok().zip(right.parse().ok()).is_some_and(|(left, right)| left > right),
            "==" => left == right,
            _ => left != right,
        };
        if holds { Ok(()) } else { Err(format!("{left} and {right}")) }
    }

    /// Replaces each `{…}` by its value.
    fn fill(&mut self, word: &str) -> Result<String, String> {
        let word = repeat(word);
        let mut out = String::new();
        let mut rest = word.as_str();
        while let Some((head, tail)) = rest.split_once('{') {
            out.push_str(head);
            let (name, tail) = tail.split_once('}').unwrap_or(("", tail));
            let known = match (self.facts.get(name).cloned(), name.split_once('.')) {
                (Some(known), _) => Some(known),
                (None, Some((lease, what))) if lease.starts_with('$') => Some(self.field(lease, what)?),
                _ => None,
            };
            out.push_str(&known.ok_or(format!("{word:?}: {{{name}}} stands for nothing"))?);
            rest = tail;
        }
        Ok(out + rest)
    }
}

/// Returns true if the outcome is one of those wanted.
fn agrees(wanted: &str, got: &str) -> bool {
    let same = |want: &str| match (duration(want), duration(got)) {
        (Some(want), Some(got)) => want == got,
        _ => unescape(want) == got,
    };
    wanted.split('|').any(same)
}

/// Expands `''` to nothing, and `\xHH` to a byte.
fn unescape(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.extend(byte);
        out.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    if text == "''" { String::new() } else { String::from_utf8_lossy(&out).into_owned() }
}
