//! What one line of a history says, and a whole history read back.
//!
//! A line is a JSON object: a call's begin or end, a fault's begin or end, or a sample of who owns a key at the server.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Nanoseconds of the clock that the library counts on, the same for all processes of a host.
pub fn now() -> u64 {
    dlock::clock::Instant::now().nanos()
}

/// What a line says of its call or fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// About to be called.
    Inv,
    /// It answered yes.
    Ok,
    /// It answered no, and surely changed nothing.
    Fail,
    /// It may or may not have been done.
    Unknown,
    /// The loss of a lease was told.
    Lost,
    /// A fault begins.
    Begin,
    /// A fault has ended.
    End,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// Waits for the lock.
    Acquire,
    /// Tries once.
    Try,
    /// Renews by hand.
    Renew,
    /// Gives back.
    Release,
    /// Lets go of the lease without a word.
    Drop,
    /// Asks whether it counts.
    Validate,
    /// Nobody's call: the library told of a loss.
    Told,
    /// Nobody's call: the connection was made anew.
    Reconnect,
}

/// A line as it is written. What it doesn't say is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// When, on [`now`].
    pub t: u64,
    /// The process: a name that is used once.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub p: Cow<'a, str>,
    /// The thread or task in it.
    #[serde(skip_serializing_if = "is_zero")]
    pub w: u32,
    /// The call's number, once a process, from 1.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub op: u64,
    /// Begin, or what kind of end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ph: Option<Phase>,
    /// Which call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f: Option<Verb>,
    /// The key.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub k: Cow<'a, str>,
    /// The acquire whose lease this is about.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub of: u64,
    /// The lease's token, or the owner's in a sample.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tok: Cow<'a, str>,
    /// The fencing token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// Until when the lease counts, as far as known now; the greatest number: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vu: Option<u64>,
    /// Of a grant: it is renewed in the background, so it may count for longer than was stated.
    #[serde(skip_serializing_if = "is_false")]
    pub auto: bool,
    /// When the call has to be back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<u64>,
    /// The kind of the error.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub err: Cow<'a, str>,
    /// A fault's name.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub nem: Cow<'a, str>,
    /// The process, or whatever else, that a fault is done to.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub target: Cow<'a, str>,
    /// `owner`: the server was asked who owns the key, between `t` and `t2`; no `tok`: nobody.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub srv: Cow<'a, str>,
    /// When a sample's answer was there.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub t2: u64,
}

fn is_false(is: &bool) -> bool {
    !is
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn is_zero_long(number: &u64) -> bool {
    *number == 0
}

impl Line<'_> {
    /// The line, with its end.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a struct of numbers and texts");
        text.push('\n');
        text
    }
}

/// A text of a history, kept once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

impl Name {
    /// No text.
    pub const NONE: Self = Self(0);
}

/// A line about a call; the fields are those of [`Line`].
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Event {
    pub t: u64,
    pub p: Name,
    pub w: u32,
    pub op: u64,
    pub ph: Phase,
    pub f: Verb,
    pub k: Name,
    pub of: u64,
    pub tok: Name,
    pub fence: Option<u64>,
    pub vu: Option<u64>,
    pub auto: bool,
    pub by: Option<u64>,
    pub err: Name,
}

/// A fault and how long it lasted.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name.
    pub what: Name,
    /// What it was done to.
    pub target: Name,
    /// Before it was done.
    pub begin: u64,
    /// After it was undone; the greatest number: never.
    pub end: u64,
}

/// Who owned a key at the server at some time between two.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Before the server was asked.
    pub from: u64,
    /// After it had answered.
    pub to: u64,
    /// The key.
    pub k: Name,
    /// The owner's token; none: nobody.
    pub tok: Name,
}

/// All that was written down of one run.
#[derive(Clone, Debug)]
pub struct History {
    /// Calls, in no order.
    pub events: Vec<Event>,
    /// What was done to the processes and their server.
    pub faults: Vec<Fault>,
    /// What the server said.
    pub samples: Vec<Sample>,
    texts: Vec<Box<str>>,
    names: FxHashMap<Box<str>, Name>,
}

impl Default for History {
    fn default() -> Self {
        let (texts, names) = (vec![Box::from("")], FxHashMap::from_iter([(Box::from(""), Name::NONE)]));
        Self { events: Vec::new(), faults: Vec::new(), samples: Vec::new(), texts, names }
    }
}

impl History {
    /// The name of a text.
    pub fn name(&mut self, text: &str) -> Name {
        if let Some(&name) = self.names.get(text) {
            return name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("fewer than 4 thousand million texts"));
        self.texts.push(text.into());
        self.names.insert(text.into(), name);
        name
    }

    /// The name of a text, if the history has it.
    pub fn find(&self, text: &str) -> Option<Name> {
        self.names.get(text).copied()
    }

    /// The text of a name.
    pub fn text(&self, name: Name) -> &str {
        &self.texts[name.0 as usize]
    }

    /// Adds a line. The lines of one fault come in their order.
    pub fn push(&mut self, line: &Line<'_>) -> Result<(), String> {
        if !line.srv.is_empty() {
            let (k, tok) = (self.name(&line.k), self.name(&line.tok));
            self.samples.push(Sample { from: line.t, to: line.t2, k, tok });
            return Ok(());
        }
        let ph = line.ph.ok_or("a line without ph")?;
        if !line.nem.is_empty() {
            let (what, target) = (self.name(&line.nem), self.name(&line.target));
            let open = self.faults.iter_mut().rev().find(|f| (f.what, f.target, f.end) == (what, target, u64::MAX));
            match (ph, open) {
                (Phase::Begin, _) => self.faults.push(Fault { what, target, begin: line.t, end: u64::MAX }),
                (Phase::End, Some(open)) => open.end = line.t,
                _ => return Err(format!("{} of {} ends before it begins", line.nem, line.target)),
            }
            return Ok(());
        }
        let f = line.f.ok_or("a line without f")?;
        let (p, k, tok, err) = (self.name(&line.p), self.name(&line.k), self.name(&line.tok), self.name(&line.err));
        let Line { t, w, op, of, fence, vu, auto, by, .. } = *line;
        self.events.push(Event { t, p, w, op, ph, f, k, of, tok, fence, vu, auto, by, err });
        Ok(())
    }

    /// Adds all lines of a file. Only the last one may be cut off, and is then left out.
    pub fn read(&mut self, path: &Path) -> Result<(), String> {
        let told = |number: usize, why: String| format!("{}:{number}: {why}", path.display());
        let file = std::fs::File::open(path).map_err(|error| told(0, error.to_string()))?;
        let (mut input, mut text) = (BufReader::new(file), String::new());
        for number in 1.. {
            text.clear();
            if input.read_line(&mut text).map_err(|error| told(number, error.to_string()))? == 0
                || !text.ends_with('\n')
            {
                break;
            }
            let line: Line<'_> = serde_json::from_str(&text).map_err(|error| told(number, error.to_string()))?;
            self.push(&line).map_err(|why| told(number, why))?;
        }
        Ok(())
    }

    /// An event as it was written.
    pub fn show(&self, event: &Event) -> String {
        let text = |name| Cow::Borrowed(self.text(name));
        let Event { t, w, op, of, fence, vu, auto, by, .. } = *event;
        let (ph, f) = (Some(event.ph), Some(event.f));
        let (p, k, tok, err) = (text(event.p), text(event.k), text(event.tok), text(event.err));
        let mut line = Line { t, p, w, op, ph, f, k, of, tok, fence, vu, auto, by, err, ..Line::default() }.text();
        line.pop();
        line
    }
}
