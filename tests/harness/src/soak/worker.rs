//! The Rust worker: threads that take locks, use and misuse them, and write a history.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dlock::{Client, Error, Kind, Lease, ReleaseOutcome, Result};
use dlock_harness::history::record::Pen;
use dlock_harness::history::resource::Visitor;
use dlock_harness::history::{Line, Phase, Verb, now};
use serde::{Deserialize, Serialize};

/// The job of a worker, as one argument. tests/README.md explains them and the worker's output.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) url: String,
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) keys: Vec<String>,
    pub(crate) ttl_ms: u64,
    /// The ttl of a turn that lasts longer than its lease.
    pub(crate) stale_ms: u64,
    pub(crate) threads: u32,
    /// The address of the protected resource.
    pub(crate) store: String,
    /// The maximum time of a call without a deadline of its own.
    pub(crate) patience_ms: u64,
    /// True if the worker only acquires and releases.
    pub(crate) plain: bool,
    /// True if the worker sometimes enters without the lock.
    pub(crate) rogue: bool,
}

/// One thread of the worker.
struct Worker<'a> {
    job: &'a Job,
    pen: &'a Arc<Pen>,
    number: u32,
    client: Client,
    store: Visitor,
    rng: fastrand::Rng,
}

/// Works until the input ends.
pub(crate) fn main(job: &str) -> ExitCode {
    let job: Job = serde_json::from_str(job).expect("a job");
    let (pen, stop) = (Arc::new(Pen::new(&job.name, output())), Arc::new(AtomicBool::new(false)));
    let stopping = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopping.store(true, Ordering::Release);
    });
    std::thread::scope(|scope| {
        for number in 1..=job.threads {
            let (job, pen, stop) = (&job, &pen, &stop);
            scope.spawn(move || {
                let client = Client::connect(&job.url).expect("a URL that the soak has looked at");
                let store = Visitor::connect(job.store.parse().expect("an address")).expect("the store listens");
                let rng = fastrand::Rng::with_seed(job.seed ^ (u64::from(number) << 32));
                let mut worker = Worker { job, pen, number, client, store, rng };
                while !stop.load(Ordering::Acquire) {
                    if worker.job.plain { worker.plain_turn() } else { worker.turn() }
                }
            });
        }
    });
    ExitCode::from(u8::from(!dlock::runtime::drain(Duration::from_secs(5))))
}

/// Returns a copy of the standard output, which is the recorder's pipe.
fn output() -> OwnedFd {
    rustix::io::dup(std::io::stdout()).expect("a descriptor")
}

/// Returns the phase of a failed call, which shows whether the call certainly changed nothing, and the kind of its
/// error.
fn failed(error: &Error) -> (Phase, &'static str) {
    let phase = if error.kind() == Kind::Backend { Phase::Unknown } else { Phase::Fail };
    (phase, error.kind().name())
}

impl Worker<'_> {
    fn ms(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_micros(self.rng.u64(range.start * 1000..range.end * 1000))
    }

    /// Takes one lock, and uses it from its acquire to its end.
    fn turn(&mut self) {
        let keys = &self.job.keys;
        let key = keys[self.rng.usize(..keys.len())].clone();
        let stale = self.rng.u8(..100) == 0;
        let ttl = Duration::from_millis(if stale { self.job.stale_ms } else { self.job.ttl_ms });
        let renew = !stale && self.rng.u8(..4) > 0;
        let Some((of, lease)) = self.acquire(&key, ttl, renew) else {
            let pause = self.ms(0..5);
            return std::thread::sleep(pause);
        };
        self.watch(of, &lease);
        match self.rng.u8(..100) {
            _ if stale => {
                self.update(&lease, ttl + ttl / 3);
                self.validate(of, &lease);
                self.renew(of, &lease);
            }
            0..60 => {
                let think = self.ms(0..5);
                self.update(&lease, think);
            }
            60..70 => self.validate(of, &lease),
            70..80 => {
                self.renew(of, &lease);
                self.validate(of, &lease);
            }
            80..88 => {
                // The pause is long enough to be renewed in, or to be cut off from the server.
                let longest = if self.rng.u8(..16) == 0 { self.job.ttl_ms * 2 } else { 20 };
                let pause = self.ms(0..longest.max(1));
                std::thread::sleep(pause);
                self.validate(of, &lease);
            }
            _ => {}
        }
        if self.rng.u8(..100) < 8 {
            self.let_go(of, lease);
        } else {
            self.release(of, &lease);
        }
        let pause = self.ms(0..3);
        std::thread::sleep(pause);
    }

    /// Acquires and releases one lock.
    fn plain_turn(&mut self) {
        let keys = &self.job.keys;
        let key = keys[self.rng.usize(..keys.len())].clone();
        if self.job.rogue && self.rng.u8(..20) == 0 {
            return self.break_in(&key);
        }
        let (ttl, wait) = (Duration::from_millis(self.job.ttl_ms), self.patience());
        let op = self.begin(Verb::Acquire, 0, &key, wait);
        let result = self.client.lock(&key).ttl(ttl).wait(wait).acquire().wait();
        let Some((of, lease)) = self.granted(op, Verb::Acquire, &key, true, result.map(Some)) else { return };
        self.watch(of, &lease);
        self.update(&lease, Duration::ZERO);
        self.release(of, &lease);
        let pause = self.ms(0..1);
        std::thread::sleep(pause);
    }

    /// Enters without the lock, and writes the lines of a holder.
    fn break_in(&self, key: &str) {
        let line = || Line { k: key.to_owned().into(), ..Line::default() };
        let op = self.begin(Verb::Acquire, 0, key, self.patience());
        let granted = Line { tok: "rogue".into(), vu: Some(u64::MAX), ..line() };
        self.pen.end(self.number, op, Verb::Acquire, Phase::Ok, granted);
        std::thread::sleep(Duration::from_millis(1));
        let release = self.begin(Verb::Release, op, key, self.patience());
        self.pen.end(self.number, release, Verb::Release, Phase::Ok, Line { of: op, ..line() });
    }

    /// Writes the time at which a loss is reported.
    fn watch(&self, of: u64, lease: &Lease) {
        let (pen, number, k) = (self.pen.clone(), self.number, lease.key().to_owned());
        lease.on_lost_here(move || {
            let line = Line { of, k: k.as_str().into(), ph: Some(Phase::Lost), f: Some(Verb::Told), ..Line::default() };
            pen.write(number, line);
        });
    }

    fn acquire(&mut self, key: &str, ttl: Duration, renew: bool) -> Option<(u64, Lease)> {
        let how = self.rng.u8(..100);
        let wait = Duration::from_millis(self.rng.u64(0..self.job.ttl_ms * 2));
        let lock = self.client.lock(key).ttl(ttl).wait(wait).auto_renew(renew);
        let (verb, limit) = if how < 15 { (Verb::Try, self.patience()) } else { (Verb::Acquire, wait) };
        let op = self.begin(verb, 0, key, limit);
        let result = if how < 15 {
            lock.try_acquire().wait()
        } else if how < 25 {
            let patience = self.ms(0..20);
            let mut call = lock.acquire();
            match call.wait_for(patience) {
                Some(result) => result.map(Some),
                None if how < 20 => {
                    call.cancel();
                    call.wait().map(Some)
                }
                None => {
                    drop(call);
                    let err = "dropped".into();
                    self.pen.end(self.number, op, verb, Phase::Fail, Line { err, k: key.into(), ..Line::default() });
                    return None;
                }
            }
        } else {
            lock.acquire().wait().map(Some)
        };
        self.granted(op, verb, key, renew, result)
    }

    fn granted(&self, op: u64, f: Verb, key: &str, auto: bool, result: Result<Option<Lease>>) -> Option<(u64, Lease)> {
        let t = now();
        let line = Line { t, k: key.into(), ..Line::default() };
        let (phase, lease, line) = match result {
            Ok(Some(lease)) => {
                let (tok, vu) = (lease.token().into(), Some(lease.valid_until().nanos()));
                let line = Line { tok, fence: lease.fence(), vu, auto, ..line };
                (Phase::Ok, Some((op, lease)), line)
            }
            Ok(None) => (Phase::Fail, None, Line { err: "busy".into(), ..line }),
            Err(error) => {
                let (phase, err) = failed(&error);
                (phase, None, Line { err: err.into(), ..line })
            }
        };
        self.pen.end(self.number, op, f, phase, line);
        lease
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.job.patience_ms)
    }

    fn begin(&self, f: Verb, of: u64, key: &str, limit: Duration) -> u64 {
        self.begin_stating(f, of, key, limit, None)
    }

    fn begin_stating(&self, f: Verb, of: u64, key: &str, limit: Duration, vu: Option<u64>) -> u64 {
        let t = now();
        let by = Some(t + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX / 2));
        self.pen.begin(self.number, f, Line { t, of, by, vu, k: key.into(), ..Line::default() })
    }

    fn end(&self, op: u64, f: Verb, of: u64, lease: &Lease, result: Result<()>, vu: Option<u64>) {
        let line = Line { of, k: lease.key().into(), ..Line::default() };
        match result {
            Ok(()) => self.pen.end(self.number, op, f, Phase::Ok, Line { vu, ..line }),
            Err(error) => {
                let (phase, err) = failed(&error);
                self.pen.end(self.number, op, f, phase, Line { err: err.into(), ..line });
            }
        }
    }

    fn validate(&self, of: u64, lease: &Lease) {
        let op = self.begin(Verb::Validate, of, lease.key(), Duration::ZERO);
        let result = lease.check();
        self.end(op, Verb::Validate, of, lease, result, Some(lease.valid_until().nanos()));
    }

    fn renew(&self, of: u64, lease: &Lease) {
        let op = self.begin(Verb::Renew, of, lease.key(), self.patience());
        let result = lease.renew(None).wait();
        self.end(op, Verb::Renew, of, lease, result, Some(lease.valid_until().nanos()));
    }

    fn release(&self, of: u64, lease: &Lease) {
        let vu = Some(lease.valid_until().nanos());
        let op = self.begin_stating(Verb::Release, of, lease.key(), self.patience(), vu);
        let result = match lease.release().wait() {
            Ok(ReleaseOutcome::Released) => Ok(()),
            Ok(ReleaseOutcome::Lost) => Err(lease.loss()),
            Err(error) => Err(error),
        };
        self.end(op, Verb::Release, of, lease, result, None);
    }

    fn let_go(&self, of: u64, lease: Lease) {
        let (key, vu) = (lease.key().to_owned(), Some(lease.valid_until().nanos()));
        let op = self.begin_stating(Verb::Drop, of, &key, Duration::ZERO, vu);
        drop(lease);
        self.pen.end(self.number, op, Verb::Drop, Phase::Ok, Line { of, k: key.into(), ..Line::default() });
    }

    /// Updates the protected resource.
    fn update(&mut self, lease: &Lease, think: Duration) {
        if let Some(fence) = lease.fence() {
            let _ = self.store.update(lease.key(), fence, || std::thread::sleep(think));
        }
    }
}
