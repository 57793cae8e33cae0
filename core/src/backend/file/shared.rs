//! The parts of the backend that contenders share: the directory, its open files, and one try to acquire.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustix::io::Errno;

use super::directory::{self, Directory};
use super::error;
use super::grant::FileGrant;
use super::inotify::Watcher;
use super::lock_file::{LockFile, breaks};
use super::open_files::OpenFiles;
use crate::config::Config;
use crate::contract::{Attempt, Claim};
use crate::error::{Error, Result};

/// The locks of one directory.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// True if the directory is the platform's default one, which belongs to this user alone.
    own: bool,
    force: bool,
    dir: ArcSwapOption<Directory>,
    pub(super) open_files: Arc<OpenFiles>,
    pub(super) watcher: Watcher,
}

impl File {
    /// Reads the configuration. No I/O.
    pub(super) fn new(config: &Config) -> Result<Self> {
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
            open_files: Arc::default(),
            watcher: Watcher::default(),
        })
    }

    /// Returns the directory, which is opened for the first caller.
    pub(super) fn dir(&self) -> Result<Arc<Directory>> {
        match self.dir.load_full() {
            Some(dir) => Ok(dir),
            None => self.open_dir(),
        }
    }

    /// Returns the directory if it is open.
    pub(super) fn current_dir(&self) -> Option<Arc<Directory>> {
        self.dir.load_full()
    }

    /// Opens the directory, again if it was open before.
    fn open_dir(&self) -> Result<Arc<Directory>> {
        let before = self.dir.load_full();
        let dir = Arc::new(Directory::open(&self.path, self.own, self.force, before.as_deref())?);
        self.dir.store(Some(dir.clone()));
        Ok(dir)
    }

    /// Opens a lock file.
    fn open(&self, name: &str) -> Result<LockFile> {
        let mut dir = self.dir()?;
        if !dir.is_current(&self.path) {
            dir = self.open_dir()?;
        }
        match LockFile::open(Path::new(name), dir.access()) {
            // The directory was removed.
            Err(errno) if errno == Errno::NOENT => {
                let dir = self.open_dir()?;
                LockFile::open(Path::new(name), dir.access()).map_err(|errno| error::of(errno, "open", name))
            }
            opened => opened.map_err(|errno| error::of(errno, "open", name)),
        }
    }

    /// Returns true if the lock is free, by locking it for a moment. It is for systems whose kernel has no table.
    pub(super) fn is_free(&self, name: &str) -> Result<bool> {
        if rustix::fs::stat(name).is_err() {
            return Ok(true);
        }
        self.open(name)?.lock().map_err(|errno| error::of(errno, "lock", name))
    }

    /// Tries once, with the caller's open file or a new one. A file that is locked by another process stays in `open`.
    pub(super) fn acquire(&self, claim: &Claim, open: &mut Option<LockFile>) -> Result<Option<Attempt>> {
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
            let (dir, broken) = (self.dir()?, breaks());
            // Before the check of the path: a process that replaces the file after it gets a greater fence.
            let fence = dir.counter().next_fence();
            if !file.is_current(name) {
                continue;
            }
            let (fence, since) = fence?;
            let held = FileGrant::new(self.open_files.clone(), name.clone(), file, fence, dir, (since, broken));
            return Ok(Some(Attempt::Granted { grant: Arc::new(held), since, ttl: claim.options.ttl }));
        }
        Ok(None)
    }

    /// Returns the time for which other processes go first: they wait for a lock that this process has just released.
    pub(super) fn yield_to_others(&self, claim: &Claim) -> Option<Duration> {
        claim.wait.then(|| self.open_files.yield_to_others(&claim.options.name)).flatten()
    }
}
