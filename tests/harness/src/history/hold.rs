//! Calls and holds, made from the lines of a history.

use rustc_hash::FxHashMap;

use super::event::{Event, History, Name, Phase, Verb};

/// The event that ended a hold for its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Released,
    Told,
    Expired,
    Killed,
    Never,
}

/// A call. Its events are indexes into the sorted history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) inv: usize,
    pub(crate) ret: Option<usize>,
    /// The hold that the call is about, or that it makes.
    pub(crate) hold: Option<usize>,
}

/// A hold. It is definite from `start` to `end`. In this time its holder knew of the grant, had not begun a release,
/// had not been told of a loss, and its validity had not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) k: Name,
    pub(crate) p: Name,
    pub(crate) tok: Name,
    pub(crate) fence: Option<u64>,
    /// The time of the request.
    pub(crate) asked: u64,
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) why: End,
    /// The end of the validity, as reported last.
    pub(crate) vu: u64,
    /// True if the lease may be renewed in the background.
    pub(crate) auto: bool,
    /// True if nothing has moved `vu` since it was reported.
    pub(crate) sure: bool,
    /// The time at which the loss was reported.
    pub(crate) told: u64,
    /// The time at which the release began, or the lease was dropped.
    pub(crate) left: u64,
    /// The line of the grant.
    pub(crate) from: usize,
    /// The line of the end, if there is one.
    pub(crate) to: Option<usize>,
}

impl Hold {
    /// Returns true if there is a time at which the lock was certainly held.
    pub(crate) fn is_definite(&self) -> bool {
        self.start < self.end
    }
}

/// The stops and the death of a process.
#[derive(Debug, Default)]
pub(crate) struct Life {
    stops: Vec<(u64, u64)>,
    pub(crate) death: Option<u64>,
    /// The time of the process's last line.
    pub(crate) last: u64,
}

impl Life {
    /// Returns the part of this time in which the process was stopped.
    pub(crate) fn stopped(&self, from: u64, to: u64) -> u64 {
        self.stops.iter().map(|&(begin, end)| end.min(to).saturating_sub(begin.max(from))).sum()
    }
}

/// A history, sorted, with its calls and holds.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) history: &'a History,
    pub(crate) events: Vec<Event>,
    pub(crate) calls: Vec<Call>,
    pub(crate) holds: Vec<Hold>,
    /// The definite holds of each key, by their start.
    pub(crate) definite: FxHashMap<Name, Vec<usize>>,
    lives: FxHashMap<Name, Life>,
    nobody: Life,
}

impl<'a> Table<'a> {
    pub(crate) fn new(history: &'a History) -> Self {
        let mut events = history.events.clone();
        events.sort_by_key(|event| event.t);
        let mut table = Self {
            history,
            events,
            calls: Vec::new(),
            holds: Vec::new(),
            definite: FxHashMap::default(),
            lives: lives(history),
            nobody: Life::default(),
        };
        table.pair();
        for hold in &mut table.holds {
            let death = table.lives.get(&hold.p).and_then(|life| life.death).unwrap_or(u64::MAX);
            let ends = [
                (hold.left, End::Released),
                (hold.told, End::Told),
                (hold.vu, End::Expired),
                (death, End::Killed),
                (u64::MAX, End::Never),
            ];
            (hold.end, hold.why) = ends.into_iter().min_by_key(|end| end.0).expect("five of them");
        }
        let mut order: Vec<_> = (0..table.holds.len()).filter(|&at| table.holds[at].is_definite()).collect();
        order.sort_by_key(|&at| table.holds[at].start);
        for at in order {
            table.definite.entry(table.holds[at].k).or_default().push(at);
        }
        table
    }

    pub(crate) fn life(&self, process: Name) -> &Life {
        self.lives.get(&process).unwrap_or(&self.nobody)
    }

    pub(crate) fn show(&self, event: usize) -> String {
        self.history.show(&self.events[event])
    }

    fn pair(&mut self) {
        let (mut open, mut owners) = (FxHashMap::default(), FxHashMap::<_, usize>::default());
        for (at, event) in self.events.iter().enumerate() {
            let life = self.lives.entry(event.p).or_default();
            life.last = life.last.max(event.t);
            let hold = owners.get(&(event.p, event.of)).copied();
            if let (Some(vu), Some(hold)) = (event.vu, hold) {
                let hold = &mut self.holds[hold];
                hold.vu = vu;
                // A lease that is lost or released isn't renewed any more.
                let last = hold.told < u64::MAX || matches!(event.f, Verb::Release | Verb::Drop);
                hold.sure = !hold.auto || last;
            }
            match event.ph {
                Phase::Inv => {
                    open.insert((event.p, event.op), self.calls.len());
                    self.calls.push(Call { inv: at, ret: None, hold });
                    if let (Verb::Release | Verb::Drop, Some(hold)) = (event.f, hold)
                        && event.t < self.holds[hold].left
                    {
                        self.holds[hold].left = event.t;
                        self.holds[hold].to = Some(at);
                    }
                }
                Phase::Lost => {
                    if let Some(hold) = hold
                        && event.t < self.holds[hold].told
                    {
                        self.holds[hold].told = event.t;
                        self.holds[hold].to.get_or_insert(at);
                    }
                }
                _ => {
                    let Some(call) = open.remove(&(event.p, event.op)) else { continue };
                    self.calls[call].ret = Some(at);
                    if event.ph == Phase::Ok && matches!(event.f, Verb::Acquire | Verb::Try) {
                        owners.insert((event.p, event.op), self.holds.len());
                        self.calls[call].hold = Some(self.holds.len());
                        let asked = self.events[self.calls[call].inv].t;
                        self.holds.push(granted(event, asked, at));
                    }
                }
            }
        }
    }
}

fn granted(event: &Event, asked: u64, from: usize) -> Hold {
    Hold {
        k: event.k,
        p: event.p,
        tok: event.tok,
        fence: event.fence,
        asked,
        start: event.t,
        end: u64::MAX,
        why: End::Never,
        vu: event.vu.unwrap_or(u64::MAX),
        auto: event.auto,
        sure: !event.auto,
        told: u64::MAX,
        left: u64::MAX,
        from,
        to: None,
    }
}

fn lives(history: &History) -> FxHashMap<Name, Life> {
    let mut lives = FxHashMap::<_, Life>::default();
    let (stop, kill) = (history.find("stop"), history.find("kill"));
    for fault in &history.faults {
        let life = lives.entry(fault.target).or_default();
        if Some(fault.what) == stop {
            life.stops.push((fault.begin, fault.end));
        } else if Some(fault.what) == kill {
            life.death = Some(fault.begin.min(life.death.unwrap_or(u64::MAX)));
        }
    }
    lives
}
