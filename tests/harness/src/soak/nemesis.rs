//! The faults of the workers and their server. One fault happens at a time, in an order from the seed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlock_harness::history::Phase;
use rustix::process::Signal;

use crate::fleet::Fleet;

/// A kind of fault.
pub(crate) trait Nemesis: Send {
    /// Returns the fault's name in the history.
    fn name(&self) -> &'static str;
    /// Chooses the next target. The target's name is written before the fault begins.
    fn choose(&mut self, fleet: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String>;
    /// Begins the fault.
    fn begin(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String>;
    /// Ends the fault.
    fn end(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String>;
    /// Returns true if the fault is over as soon as it has begun.
    fn is_short(&self) -> bool {
        false
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fault that stops a worker by SIGSTOP, and lets it continue by SIGCONT.
#[derive(Default)]
pub(crate) struct Stop(usize);

impl Nemesis for Stop {
    fn name(&self) -> &'static str {
        "stop"
    }

    fn choose(&mut self, fleet: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String> {
        self.0 = rng.usize(..fleet.slots.len());
        Ok(fleet.name(self.0))
    }

    fn begin(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String> {
        locked(fleet).signal(self.0, Signal::STOP)
    }

    fn end(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String> {
        locked(fleet).signal(self.0, Signal::CONT)
    }
}

/// The fault that kills a worker by SIGKILL. Another worker takes its place.
#[derive(Default)]
pub(crate) struct Kill(usize);

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn choose(&mut self, fleet: &Fleet, rng: &mut fastrand::Rng) -> Result<String, String> {
        self.0 = rng.usize(..fleet.slots.len());
        Ok(fleet.name(self.0))
    }

    fn begin(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String> {
        locked(fleet).kill(self.0)
    }

    fn end(&mut self, fleet: &Mutex<Fleet>) -> Result<(), String> {
        locked(fleet).start(self.0)
    }

    fn is_short(&self) -> bool {
        true
    }
}

/// The schedule of the faults.
pub(crate) struct Schedule {
    pub(crate) rng: fastrand::Rng,
    pub(crate) ttl: Duration,
    pub(crate) many: u64,
    pub(crate) done: AtomicU64,
    pub(crate) over: AtomicBool,
}

impl Schedule {
    /// Injects `many` faults, or as many as there is time for. Each round has every kind once.
    pub(crate) fn run(&self, all: &mut [Box<dyn Nemesis>], fleet: &Mutex<Fleet>) -> Result<(), String> {
        let (mut rng, mut round) = (self.rng.clone(), Vec::new());
        while self.done.load(Ordering::Relaxed) < self.many {
            if !self.pause(self.ttl.mul_f64(rng.f64() * 0.6)) {
                break;
            }
            if round.is_empty() {
                round.extend(0..all.len());
                rng.shuffle(&mut round);
            }
            let Some(fault) = round.pop().and_then(|next| all.get_mut(next)) else { break };
            let target = {
                let mut fleet = locked(fleet);
                let target = fault.choose(&fleet, &mut rng).map_err(|error| format!("{}: {error}", fault.name()))?;
                fleet.note(fault.name(), &target, Phase::Begin);
                target
            };
            // The fault is mostly short enough for a lease to survive, and sometimes longer than any lease.
            let share = if rng.u8(..10) < 7 { rng.f64() * 0.4 } else { 0.8 + rng.f64() };
            let lasts = if fault.is_short() { Duration::ZERO } else { self.ttl.mul_f64(share) };
            let name = fault.name();
            fault.begin(fleet).map_err(|error| format!("{name} of {target}: {error}"))?;
            self.pause(lasts);
            fault.end(fleet).map_err(|error| format!("the end of {name} of {target}: {error}"))?;
            locked(fleet).note(name, &target, Phase::End);
            self.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Pauses for a time. Returns false if the run is over.
    fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.over.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(2).min(end.saturating_duration_since(Instant::now())));
        }
        !self.over.load(Ordering::Acquire)
    }
}
