//! The errors of an acquire that got no lock, in words.

use std::time::Duration;

use tokio::sync::watch;

use super::contenders;
use super::resource::Resource;
use crate::clock::Instant;
use crate::contract::{AcquireOptions, Claim, ContenderInfo};
use crate::error::{Error, Kind, Result, show};
use crate::observe::event::{self, EventKind};
use crate::runtime;

/// The error of a backend that didn't answer in time.
pub(super) fn no_answer() -> Error {
    Error::unavailable("the backend gave no answer in time; try again")
}

/// The error of a cancelled acquire.
pub(super) fn cancelled(options: &AcquireOptions) -> Error {
    Error::new(Kind::Cancelled, "the acquire was cancelled").with_key(options.key.clone())
}

/// The error of a lock that is busy: `by` is what is known of its holder.
pub(super) fn busy_error(resource: &Resource, claim: &Claim, waited: Duration, by: &str) -> Error {
    let text = match (waited.is_zero(), by) {
        (true, _) => "the lock is busy".to_owned(),
        (false, "") => format!("the lock is busy: not obtained within {:.3} s", waited.as_secs_f64()),
        (false, by) => format!("the lock is busy: not obtained within {:.3} s, held{by}", waited.as_secs_f64()),
    };
    resource.in_context(Error::new(Kind::Timeout, text).temporary(true), claim)
}

/// The error of a deadline, with what can be found out of the holder within `limit`.
pub(super) async fn timeout_error(resource: &Resource, claim: &Claim, waited: Duration, limit: Duration) -> Error {
    if !claim.wait {
        return busy_error(resource, claim, waited, "");
    }
    event::emit(|| EventKind::TimedOut { wait: waited }.of(resource.shared.name(), &claim.options.key));
    let holder = holder(resource, claim, limit).await;
    busy_error(resource, claim, waited, &holder.as_ref().map(described).unwrap_or_default())
}

fn described(holder: &ContenderInfo) -> String {
    let mut by = " by".to_owned();
    match (&holder.host, holder.pid) {
        (Some(host), Some(pid)) => by += &format!(" process {pid} on {host}"),
        (None, Some(pid)) => by += &format!(" process {pid}"),
        _ => by += " another holder",
    }
    if let Some(label) = &holder.label {
        by += &format!(" ({})", show(label));
    }
    if let Some(age) = holder.age {
        by += &format!(" for {:.1} s", age.as_secs_f64());
    }
    by
}

/// The holder, if it can be found out in time. However many claims ask in one moment, the backend is asked once.
async fn holder(resource: &Resource, claim: &Claim, limit: Duration) -> Option<ContenderInfo> {
    let mut inspection = resource.queue.inspect(limit, || {
        let (send, inspection) = watch::channel(None);
        let (shared, queue, name) = (resource.shared.clone(), resource.queue.clone(), claim.options.name.clone());
        runtime::spawn(async move {
            let asked = Instant::now();
            let all = tokio::time::timeout(limit, contenders::at_backend(queue.gate(), &name)).await;
            if let Ok(all) = &all {
                shared.answered(asked, all);
            }
            let first = all.ok().and_then(Result::ok).and_then(|all| all.into_iter().next());
            drop(send.send(Some(first.filter(|first| first.held))));
        });
        inspection
    });
    let done = tokio::time::timeout(limit, inspection.wait_for(Option::is_some)).await;
    done.ok()?.ok()?.clone()?
}
