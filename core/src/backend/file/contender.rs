//! A contender for a lock file: inotify wakes it when a process closes the file, and a poll is the safety net. It never
//! blocks a thread in flock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::counter::LOOK;
use super::inotify::Watch;
use super::lock_file::LockFile;
use super::shared::File;
use crate::contract::Claim;
use crate::contract::{Attempt, Contender, RetryHint};
use crate::error::Result;
use crate::runtime::BoxFuture;

/// A claim that asks for its lock file.
pub(super) struct FileContender {
    backend: Arc<File>,
    claim: Claim,
    open: Option<LockFile>,
    watch: Option<Watch>,
    /// True if every holder in the directory knows that a process waits.
    marked: bool,
    tries: u32,
}

impl FileContender {
    pub(super) fn new(backend: Arc<File>, claim: Claim) -> Self {
        Self { backend, claim, open: None, watch: None, marked: false, tries: 0 }
    }

    /// Tries once.
    fn try_once(&mut self) -> Result<Attempt> {
        if let Some(left) = self.backend.yield_to_others(&self.claim) {
            return Ok(Attempt::Busy(RetryHint { after: left, on: None }));
        }
        let mut attempt = self.backend.acquire(&self.claim, &mut self.open)?;
        if attempt.is_none() && self.claim.wait {
            // A process that unlocks after this sees the mark and wakes us. One that has unlocked before is found by
            // the second try. If the mark can't be written, the contender polls.
            match self.backend.dir()?.counter().mark_waiting() {
                Ok(marked) => {
                    self.marked = marked;
                    self.follow();
                }
                Err(_) => self.watch = None,
            }
            attempt = self.backend.acquire(&self.claim, &mut self.open)?;
        }
        self.tries = self.tries.saturating_add(1);
        Ok(attempt.unwrap_or_else(|| Attempt::Busy(self.wake())))
    }

    /// Watches the open file.
    fn follow(&mut self) {
        let Some(open) = &self.open else { return };
        if self.watch.as_ref().is_none_or(|watch| watch.inode() != open.inode()) {
            self.watch = self.backend.watcher.watch(Path::new(&*self.claim.options.name), open.inode());
        }
    }

    /// Returns the hint for the next try.
    fn wake(&self) -> RetryHint {
        let notify = self.watch.as_ref().map(Watch::notify);
        // From 1 ms, doubled up to 50 ms. With a watch, which makes it a mere safety net, 50 ms at once.
        let longest = match &notify {
            Some(_) if self.marked => 50_000,
            // A process that has read the file before the mark was written may unlock without another read.
            Some(_) => 2 * u64::try_from(LOOK.as_micros()).unwrap_or(0),
            None => (1_000 << self.tries.min(6)).min(50_000),
        };
        let after = Duration::from_micros(fastrand::u64(longest / 2..=longest));
        RetryHint {
            after,
            on: notify.map(|notify| -> BoxFuture<'static, ()> { Box::pin(async move { notify.notified().await }) }),
        }
    }
}

impl Contender for FileContender {
    fn attempt(&mut self, _: Duration) -> BoxFuture<'_, Result<Attempt>> {
        let attempt = self.try_once();
        Box::pin(std::future::ready(attempt))
    }

    fn withdraw(&mut self) -> BoxFuture<'_, Result<()>> {
        self.open = None;
        self.watch = None;
        Box::pin(std::future::ready(Ok(())))
    }
}
