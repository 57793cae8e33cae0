//! `file:///dir`: a lock between the processes of one host, by flock(2) on an empty file that is never removed, so that
//! flock(1) and other users of flock on the same path take part.

mod contender;
mod counter;
mod directory;
mod error;
mod grant;
mod keys;
mod proc_locks;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustc_hash::FxBuildHasher;

use self::contender::{FileContender, Watcher};
use self::directory::Directory;
use self::grant::{FileGrant, LockFile};
use crate::clock::Instant;
use crate::config::{Config, OptionSpec, UrlParts, Value, ValueKind};
use crate::config::{Schema, Scheme, Values};
use crate::contract::Claim;
use crate::contract::{
    Attempt, Backend, Capabilities, Contender, ContenderInfo, Driver, DueLease, Renewal, RetryHint, downcast,
};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, _| Ok(Arc::new(Shared(Arc::new(File::new(config)?)))) };

/// The names and options of the backend.
pub static SCHEMA: Schema = Schema {
    name: "file",
    schemes: &[Scheme { name: "file", tls: false, mode: None }],
    options: &[
        OptionSpec { name: "dir", kind: ValueKind::Text, secret: false, env: true, yaml: true, url: false },
        OptionSpec { name: "force", kind: ValueKind::Flag, secret: false, env: false, yaml: true, url: true },
    ],
    service: false,
    parts,
    authority: |values| values.text("dir").map(crate::config::encode_path).unwrap_or_default(),
};

/// The number of lock files that are kept open for their next use.
const IDLE: usize = 64;
/// The time for which other processes go first after a release, before this one asks for the lock again.
const YIELD: Duration = Duration::from_micros(500);

fn capabilities() -> Capabilities {
    Capabilities {
        fence: true,
        ttl: false,
        fifo: false,
        shared: false,
        permits: false,
        handoff: false,
        processes: true,
        fork: true,
        local: true,
        min_ttl: Duration::from_millis(100),
        guarantee: "`flock(2)` in the kernel, on a local file system",
    }
}

fn parts(parts: &UrlParts, values: &mut Values) -> Result<()> {
    if parts.user.is_some() || parts.password.is_some() {
        return Err(Error::invalid("file:// takes no user and no password: file:///dir"));
    }
    if !parts.hosts.iter().all(|(host, port)| (host.is_empty() || host == "localhost") && port.is_none()) {
        return Err(Error::invalid("file:// names a directory of this host, with three slashes: file:///dir"));
    }
    if !matches!(parts.path.as_str(), "" | "/") {
        values.set("dir", Value::Text(parts.path.clone()));
    }
    Ok(())
}

/// The locks of one directory.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// True if the directory is the platform's default one, which belongs to this user alone.
    own: bool,
    force: bool,
    dir: ArcSwapOption<Directory>,
    kept: Mutex<OpenFiles>,
    watcher: Watcher,
}

/// Lock files that are kept open, and locks that were released while other processes wait for them.
#[derive(Debug, Default)]
struct OpenFiles {
    idle: HashMap<Arc<str>, LockFile, FxBuildHasher>,
    recently_released: RecentlyReleased,
}

/// Locks that were released so recently that other processes go first.
#[derive(Debug, Default)]
struct RecentlyReleased {
    at: HashMap<Arc<str>, Instant, FxBuildHasher>,
    /// The releases, oldest first.
    order: VecDeque<(Arc<str>, Instant)>,
}

impl RecentlyReleased {
    fn insert(&mut self, name: &Arc<str>, now: Instant) {
        while let Some((name, at)) = self.order.front().filter(|(_, at)| now - *at > YIELD) {
            if self.at.get(name) == Some(at) {
                self.at.remove(name);
            }
            self.order.pop_front();
        }
        self.order.push_back((name.clone(), now));
        self.at.insert(name.clone(), now);
    }

    /// Returns the time for which other processes still go first.
    fn take(&mut self, name: &str) -> Option<Duration> {
        if self.at.is_empty() {
            return None;
        }
        let left = self.at.remove(name)?.plus(YIELD).left();
        (!left.is_zero()).then_some(left)
    }
}

impl File {
    fn new(config: &Config) -> Result<Self> {
        let named = config.values().text("dir").map(PathBuf::from);
        if let Some(path) = named.as_ref().filter(|path| !path.is_absolute()) {
            return Err(Error::invalid(format!(
                "the lock directory {path:?} is not an absolute path: write file:///dir"
            )));
        }
        Ok(Self {
            own: named.is_none(),
            path: named.unwrap_or_else(directory::default_path),
            force: config.values().flag("force").unwrap_or(false),
            dir: ArcSwapOption::empty(),
            kept: Mutex::default(),
            watcher: Watcher::default(),
        })
    }

    fn dir(&self) -> Result<Arc<Directory>> {
        match self.dir.load_full() {
            Some(dir) => Ok(dir),
            None => self.open_dir(),
        }
    }

    fn open_dir(&self) -> Result<Arc<Directory>> {
        let before = self.dir.load_full();
        let dir = Arc::new(Directory::open(&self.path, self.own, self.force, before.as_deref())?);
        self.dir.store(Some(dir.clone()));
        Ok(dir)
    }

    fn kept(&self) -> MutexGuard<'_, OpenFiles> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, name: &str) -> Result<LockFile> {
        let mut dir = self.dir()?;
        if !dir.is_current(&self.path) {
            dir = self.open_dir()?;
        }
        match LockFile::open(Path::new(name), dir.access()) {
            // The directory was removed.
            Err(errno) if errno == rustix::io::Errno::NOENT => {
                let dir = self.open_dir()?;
                LockFile::open(Path::new(name), dir.access()).map_err(|errno| error::of(errno, "open", name))
            }
            opened => opened.map_err(|errno| error::of(errno, "open", name)),
        }
    }

    /// Returns true if the lock is free, by locking it for a moment. It is for systems whose kernel has no table.
    fn is_free(&self, name: &str) -> Result<bool> {
        if rustix::fs::stat(name).is_err() {
            return Ok(true);
        }
        self.open(name)?.lock().map_err(|errno| error::of(errno, "lock", name))
    }

    /// Tries once, with the caller's open file or a new one. A file that is locked by another process stays in `open`.
    fn take(self: &Arc<Self>, claim: &Claim, open: &mut Option<LockFile>) -> Result<Option<Attempt>> {
        let name = &claim.options.name;
        // A file that was replaced between opening and locking is opened again. A program that replaces it all the time
        // counts as a holder.
        for _ in 0..8 {
            let file = match open.take() {
                Some(file) => file,
                None => self.open(name)?,
            };
            if !file.lock().map_err(|errno| error::of(errno, "lock", name))? {
                if file.is_current(name) {
                    *open = Some(file);
                    return Ok(None);
                }
                continue;
            }
            let dir = self.dir()?;
            // Before the check of the path: a process that replaces the file after it gets a greater fence.
            let fence = dir.counter().next_fence();
            if !file.is_current(name) {
                continue;
            }
            let (fence, since) = fence?;
            let held = FileGrant::new(self.clone(), name.clone(), file, fence, dir, since);
            return Ok(Some(Attempt::Granted { grant: Arc::new(held), since, ttl: claim.options.ttl }));
        }
        Ok(None)
    }

    /// Returns the time for which other processes go first: they wait for a lock that this process has just released.
    fn yield_to_others(&self, claim: &Claim) -> Option<Duration> {
        claim.wait.then(|| self.kept().recently_released.take(&claim.options.name)).flatten()
    }

    /// Keeps a file open.
    fn keep(&self, name: &Arc<str>, file: LockFile) {
        let mut kept = self.kept();
        if kept.idle.len() < IDLE {
            kept.idle.insert(name.clone(), file);
        }
    }
}

/// `Arc<File>` is what grants and contenders keep; the trait's methods get at it through this.
#[derive(Debug)]
struct Shared(Arc<File>);

impl Backend for Shared {
    fn capabilities(&self) -> Capabilities {
        capabilities()
    }

    fn name_of(&self, key: &str) -> Result<String> {
        keys::path(&self.0.path, key)
    }

    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        let file = &self.0;
        if let Some(left) = file.yield_to_others(claim) {
            return Some(Ok(Attempt::Busy(RetryHint { after: left, on: None })));
        }
        let mut open = file.kept().idle.remove(&claim.options.name);
        let attempt = file.take(claim, &mut open);
        if let Some(open) = open {
            file.keep(&claim.options.name, open);
        }
        Some(attempt.map(|attempt| attempt.unwrap_or(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }))))
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(FileContender::new(self.0.clone(), claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        let now = Instant::now();
        if let Some(dir) = &*self.0.dir.load() {
            // A counter that can't be read grants nothing.
            let _ = dir.counter().check();
        }
        let renewed = due.iter().map(|due| {
            let kept = downcast::<FileGrant>(&due.grant)?.touch();
            Ok(if kept { Renewal::Kept { since: now, ttl: due.ttl } } else { Renewal::Lost })
        });
        let renewed: Vec<_> = renewed.collect();
        Box::pin(std::future::ready(renewed))
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(std::future::ready(self.0.dir().map(|_| proc_locks::contenders(name))))
    }

    /// Replaces the locked file: the lock on the old one means nothing any more.
    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        let broken = self.0.dir().and_then(|dir| {
            if proc_locks::contenders(name).is_empty() && self.0.is_free(name)? {
                return Ok(false);
            }
            grant::replace(Path::new(name), dir.access()).map_err(|errno| error::of(errno, "replace", name))?;
            Ok(true)
        });
        Box::pin(std::future::ready(broken))
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(self.0.dir().map(drop)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{RecentlyReleased, YIELD};
    use crate::clock::Instant;

    #[test]
    fn names_that_were_given_back_are_forgotten_after_a_moment() {
        let (mut recently_released, mut now) = (RecentlyReleased::default(), Instant::now());
        for n in 0..1000 {
            let name: Arc<str> = format!("k{n}").into();
            recently_released.insert(&name, now);
            recently_released.insert(&name, now);
            now = now.plus(YIELD / 4);
            assert!(recently_released.at.len() <= 6 && recently_released.order.len() <= 12, "{recently_released:?}");
        }
        assert_eq!(recently_released.take("k0"), None);
        let name: Arc<str> = "k".into();
        recently_released.insert(&name, Instant::now().plus(Duration::from_secs(1)));
        assert!(recently_released.take("k").is_some() && recently_released.take("k").is_none());
    }
}
