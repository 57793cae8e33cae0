//! The lines of a history, and a whole history that is read back.
//!
//! A line is a JSON object: the begin or the end of a call, the begin or the end of a fault, or a sample of a key's
//! owner at the server.

use std::borrow::Cow;
use std::io::{BufRead, BufReader};
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

/// Returns the nanoseconds of the clock that the library uses. They are the same for all processes of a host.
pub fn now() -> u64 {
    dlock::clock::Instant::now().nanos()
}

/// The phase of a call or a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The call is about to begin.
    Inv,
    /// The call succeeded.
    Ok,
    /// The call failed, and certainly changed nothing.
    Fail,
    /// The call may or may not have had an effect.
    Unknown,
    /// The loss of a lease was reported.
    Lost,
    /// A fault begins.
    Begin,
    /// A fault has ended.
    End,
}

/// The function that is called, or an event without a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verb {
    /// The call waits for the lock.
    Acquire,
    /// The call tries once.
    Try,
    /// The call renews at once.
    Renew,
    /// The call releases the lock.
    Release,
    /// The lease is dropped, without a call of `release`.
    Drop,
    /// The call asks if the lease is held.
    Validate,
    /// The library reported a loss. This is no call.
    Told,
    /// The connection was made anew. This is no call.
    Reconnect,
}

/// A line as it is written. Empty fields are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// The time on [`now`].
    pub t: u64,
    /// The process. Its name is used only once.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub p: Cow<'a, str>,
    /// The thread or task in the process.
    #[serde(skip_serializing_if = "is_zero")]
    pub w: u32,
    /// The number of the call, unique in the process, from 1.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub op: u64,
    /// The phase: the begin, or the kind of end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ph: Option<Phase>,
    /// The function that is called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub f: Option<Verb>,
    /// The key.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub k: Cow<'a, str>,
    /// The number of the acquire that made the lease.
    #[serde(skip_serializing_if = "is_zero_long")]
    pub of: u64,
    /// The owner token of the lease, or of the owner in a sample.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tok: Cow<'a, str>,
    /// The fencing token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The end of the lease, as far as known now. The greatest number: no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vu: Option<u64>,
    /// True in a grant whose lease is renewed in the background, so it may be held beyond `vu`.
    #[serde(skip_serializing_if = "is_false")]
    pub auto: bool,
    /// The time at which the call has to return.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<u64>,
    /// The kind of the error.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub err: Cow<'a, str>,
    /// The name of a fault.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub nem: Cow<'a, str>,
    /// The target of a fault: a process, or something else.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub target: Cow<'a, str>,
    /// The text `owner` in a sample: the server was asked for the key's owner between `t` and `t2`. An empty `tok`: no
    /// owner.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub srv: Cow<'a, str>,
    /// The time at which the answer of a sample had arrived.
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
    /// Returns the line, with its line end.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string(self).expect("a struct of numbers and texts");
        text.push('\n');
        text
    }
}

/// The name of a text in a history. Each text is kept once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(u32);

impl Name {
    /// The name of the empty text.
    pub const NONE: Self = Self(0);
}

/// A line about a call. The fields are those of [`Line`].
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

/// A fault and its duration.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The name of the fault.
    pub what: Name,
    /// The target of the fault.
    pub target: Name,
    /// The time before the fault began.
    pub begin: u64,
    /// The time after the fault ended. The greatest number: never.
    pub end: u64,
}

/// The owner of a key at the server, at some moment between two times.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The time before the server was asked.
    pub from: u64,
    /// The time after the server had answered.
    pub to: u64,
    /// The key.
    pub k: Name,
    /// The owner token. None: no owner.
    pub tok: Name,
}

/// The whole record of one run.
#[derive(Clone, Debug)]
pub struct History {
    /// The calls, in no order.
    pub events: Vec<Event>,
    /// The faults of the processes and of their server.
    pub faults: Vec<Fault>,
    /// The samples of the server's owners.
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
    /// Returns the name of a text. Adds the text if it is new.
    pub fn name(&mut self, text: &str) -> Name {
        if let Some(&name) = self.names.get(text) {
            return name;
        }
        let name = Name(u32::try_from(self.texts.len()).expect("fewer than 4 thousand million texts"));
        self.texts.push(text.into());
        self.names.insert(text.into(), name);
        name
    }

    /// Returns the name of a text, if the history has it.
    pub fn find(&self, text: &str) -> Option<Name> {
        self.names.get(text).copied()
    }

    /// Returns the text of a name.
    pub fn text(&self, name: Name) -> &str {
        &self.texts[name.0 as usize]
    }

    /// Adds a line. The lines of one fault have to come in their order.
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

    /// Adds all lines of a file. Only the last line may be incomplete. Then it is left out.
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

    /// Returns an event as it was written.
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
