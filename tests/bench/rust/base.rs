//! The raw baselines: of one client, and of many of one process that queue among themselves first.

use std::collections::VecDeque;
use std::fs::File;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::calls::Service;
use crate::multiplexed::Multiplexed;
use crate::raw::Raw;
use crate::slices::Slice;
use crate::tally::threads;
use crate::{etcd, mysql, zookeeper};

/// A key at a server, taken and given with what that takes at the least.
pub(crate) trait Pair: Send {
    fn take(&mut self) -> Outcome<()>;
    fn give(&mut self) -> Outcome<()>;
}

/// A session at a server, for as many locks as there are names.
pub(crate) trait Session: Send + Sized {
    async fn open(url: &str) -> Outcome<Self>;
    /// Takes a lock that nobody has.
    async fn take(&mut self, name: &str) -> Outcome<()>;
    async fn give(&mut self, name: &str) -> Outcome<()>;
}

/// One client on one key that nobody else wants.
pub(crate) struct Alone<S> {
    pub(crate) runtime: Runtime,
    pub(crate) session: S,
    pub(crate) name: String,
}

impl<S: Session> Alone<S> {
    pub(crate) fn new(url: &str, name: &str) -> Outcome<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let session = runtime.block_on(S::open(url))?;
        Ok(Self { runtime, session, name: name.to_owned() })
    }
}

impl<S: Session> Pair for Alone<S> {
    fn take(&mut self) -> Outcome<()> {
        self.runtime.block_on(self.session.take(&self.name))
    }

    fn give(&mut self) -> Outcome<()> {
        self.runtime.block_on(self.session.give(&self.name))
    }
}

fn server(service: Service, url: &str) -> Outcome<Box<dyn Pair>> {
    Ok(match service {
        Service::Redis => Box::new(Raw::lock(url, "raw")?),
        Service::Etcd => Box::new(Alone::<etcd::Session>::new(url, "raw")?),
        Service::MySql => Box::new(Alone::<mysql::Session>::new(url, "raw")?),
        Service::ZooKeeper => Box::new(Alone::<zookeeper::Session>::new(url, "raw")?),
    })
}

/// What the backend does at the least for one lock and unlock.
pub(crate) enum Base {
    Memory(Arc<Mutex<()>>),
    File(File),
    Server(Box<dyn Pair>),
}

impl Base {
    pub(crate) fn open(url: &str) -> Outcome<Self> {
        if let Some(service) = Service::of(url) {
            return Ok(Self::Server(server(service, url)?));
        }
        match url.strip_prefix("file://") {
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                Ok(Self::File(File::create(format!("{folder}.raw"))?))
            }
            None => Ok(Self::Memory(Arc::default())),
        }
    }

    pub(crate) fn pair(&mut self) -> Outcome<()> {
        match self {
            Self::Memory(own) => drop(black_box(own.lock())),
            Self::File(file) => {
                file.lock()?;
                file.unlock()?;
            }
            Self::Server(key) => {
                key.take()?;
                key.give()?;
            }
        }
        Ok(())
    }
}

/// First come, first served among threads; whoever has the turn takes and gives at the backend.
pub(crate) struct Queue {
    line: Mutex<Line>,
    key: Mutex<Box<dyn Pair>>,
}

#[derive(Default)]
struct Line {
    taken: bool,
    waiting: VecDeque<(Arc<AtomicBool>, Thread)>,
}

impl Queue {
    pub(crate) fn new(service: Service, url: &str) -> Outcome<Self> {
        Ok(Self { line: Mutex::default(), key: Mutex::new(server(service, url)?) })
    }

    /// One turn. `visit` is called between, when the backend's lock was taken and before it is given.
    pub(crate) fn turn(&self, visit: impl FnOnce()) {
        let mut line = self.line.lock().expect("no worker panics");
        if std::mem::replace(&mut line.taken, true) {
            let called = Arc::new(AtomicBool::new(false));
            line.waiting.push_back((called.clone(), std::thread::current()));
            drop(line);
            while !called.load(Ordering::Acquire) {
                std::thread::park();
            }
        } else {
            drop(line);
        }
        let mut key = self.key.lock().expect("no worker panics");
        key.take().expect("the server answers");
        visit();
        key.give().expect("the server answers");
        drop(key);
        let mut line = self.line.lock().expect("no worker panics");
        match line.waiting.pop_front() {
            Some((called, thread)) => {
                drop(line);
                called.store(true, Ordering::Release);
                thread.unpark();
            }
            None => line.taken = false,
        }
    }
}

/// On one key a local queue over the raw commands, and with a key each one connection that all share; of local backends
/// the language's own mutex.
pub(crate) fn many(url: &str, workers: usize, apart: bool) -> Outcome<Slice<'static>> {
    let service = Service::of(url);
    if let Some(service) = service.filter(|_| apart) {
        let raw = Multiplexed::new(service, url, workers)?;
        return Ok(Box::new(move || raw.slice()));
    }
    let queue = service.map(|service| Queue::new(service, url)).transpose()?;
    let own: Vec<_> = (0..workers).map(|_| Mutex::new(())).collect();
    Ok(Box::new(move || {
        Ok(threads(workers, !apart, |worker, tally| {
            let mut grants = 0;
            while !tally.over() {
                let asked = Instant::now();
                if let Some(queue) = &queue {
                    queue.turn(|| tally.visit(worker, asked));
                } else {
                    let _own = own[if apart { worker } else { 0 }].lock();
                    tally.visit(worker, asked);
                }
                grants += 1;
            }
            grants
        }))
    }))
}
