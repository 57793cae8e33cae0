//! `file:///dir`: a lock between the processes of one host, by flock(2) on an empty file that is never removed, so that
//! flock(1) and other users of flock on the same path take part.

mod access;
mod contender;
mod counter;
mod directory;
mod error;
mod grant;
mod inotify;
mod keys;
mod lock_file;
mod open_files;
mod proc_locks;
mod shared;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::contender::FileContender;
use self::grant::FileGrant;
use self::shared::File;
use crate::clock::Instant;
use crate::config::{OptionSpec, Schema, Scheme, UrlParts, Value, ValueKind, Values};
use crate::contract::{
    Attempt, Backend, Capabilities, Claim, Contender, ContenderInfo, Driver, DueLease, Renewal, RetryHint,
};
use crate::error::{Error, Result};
use crate::runtime::BoxFuture;

/// The backend's entry in the table of drivers.
pub static DRIVER: Driver =
    Driver { schema: &SCHEMA, capabilities, connect: |config, _| Ok(Arc::new(File::new(config)?)) };

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

fn capabilities(_: &Values) -> Capabilities {
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

impl Backend for File {
    fn name_of(&self, key: &str) -> Result<String> {
        keys::path(&self.path, key)
    }

    fn try_now(&self, claim: &Claim) -> Option<Result<Attempt>> {
        if let Some(left) = self.yield_to_others(claim) {
            return Some(Ok(Attempt::Busy(RetryHint { after: left, on: None })));
        }
        let mut open = self.open_files.take(&claim.options.name);
        let attempt = self.acquire(claim, &mut open);
        if let Some(open) = open {
            self.open_files.keep(&claim.options.name, open);
        }
        Some(attempt.map(|attempt| attempt.unwrap_or(Attempt::Busy(RetryHint { after: Duration::ZERO, on: None }))))
    }

    fn contend(self: Arc<Self>, claim: Claim) -> Box<dyn Contender> {
        Box::new(FileContender::new(self, claim))
    }

    fn renew<'a>(&'a self, due: &'a [DueLease]) -> BoxFuture<'a, Vec<Result<Renewal>>> {
        let now = Instant::now();
        if let Some(dir) = self.current_dir() {
            // A counter that can't be read grants nothing.
            let _ = dir.counter().check();
        }
        let renewed = due.iter().map(|due| {
            let kept = due.downcast::<FileGrant>()?.touch();
            Ok(if kept { Renewal::Kept { since: now, ttl: due.ttl } } else { Renewal::Lost })
        });
        let renewed: Vec<_> = renewed.collect();
        Box::pin(std::future::ready(renewed))
    }

    fn contenders<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Vec<ContenderInfo>>> {
        Box::pin(std::future::ready(self.dir().map(|_| proc_locks::contenders(name))))
    }

    /// Replaces the locked file: the lock on the old one means nothing any more.
    fn break_lock<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool>> {
        let broken = self.dir().and_then(|dir| {
            if proc_locks::contenders(name).is_empty() && self.is_free(name)? {
                return Ok(false);
            }
            lock_file::replace(Path::new(name), dir.access()).map_err(|errno| error::of(errno, "replace", name))?;
            Ok(true)
        });
        Box::pin(std::future::ready(broken))
    }

    fn ping(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(self.dir().map(drop)))
    }

    fn diagnose(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        let found = self.dir().and_then(|_| directory::network(&self.path, &self.path.display().to_string()));
        let finding = |kind| {
            format!(
                "the lock directory {:?} is on {kind} and was forced: processes of other hosts may not be excluded; name a \
                 local directory, or use a network backend",
                self.path
            )
        };
        Box::pin(std::future::ready(found.map(|kind| kind.map(finding).into_iter().collect())))
    }

    /// Lists the keys whose files are locked. Of a key that was too long for a file name: its head and its hash.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(std::future::ready(self.dir().and_then(|_| proc_locks::keys(&self.path, prefix))))
    }
}
