//! The contenders of a name: those that the backend knows, and those of this process.

use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::tenure::Tenure;
use crate::clock::Instant;
use crate::contract::{Claim, ContenderInfo, owner};
use crate::error::Result;

/// All contenders of a name, holder first.
///
/// # Errors
/// Those of asking the backend.
pub(crate) async fn all(gate: &Arc<Gate<Tenure>>, name: &str) -> Result<Vec<ContenderInfo>> {
    let mut all = at_backend(gate, name).await?;
    if let Some(queue) = gate.find(name) {
        // A backend's queue has at the most one entry a process: these are not in it.
        all.extend(queue.waiting().iter().map(|(claim, since)| here(claim, false, Instant::now() - *since)));
    }
    Ok(all)
}

/// The contenders at the backend, with what this process knows of a holder of its own.
///
/// # Errors
/// Those of asking the backend.
pub(super) async fn at_backend(gate: &Arc<Gate<Tenure>>, name: &str) -> Result<Vec<ContenderInfo>> {
    let mut all = gate.shared.backend.contenders(name).await?;
    let ours = gate.find(name).and_then(|queue| queue.holder());
    if let (Some(first), Some(ours)) = (all.first_mut().filter(|first| first.held), ours) {
        // The backend may not know the token, and two holders may have equal ones.
        let is_ours = match &first.token {
            Some(token) => *token == ours.claim.token(),
            None => first.pid.is_none_or(|pid| pid == std::process::id()),
        };
        if is_ours {
            let known = here(&ours.claim, true, ours.age());
            first.token = first.token.take().or(known.token);
            first.label = first.label.take().or(known.label);
            first.host = first.host.take().or(known.host);
            first.pid = first.pid.or(known.pid);
            first.fence = first.fence.or(ours.fence);
            first.age = first.age.or(known.age);
        }
    }
    Ok(all)
}

/// A contender of this process.
fn here(claim: &Claim, held: bool, age: Duration) -> ContenderInfo {
    ContenderInfo {
        held,
        token: Some(claim.token()),
        label: claim.options.label.as_deref().map(str::to_owned),
        host: Some(owner::host().to_owned()),
        pid: Some(std::process::id()),
        fence: None,
        age: Some(age),
        ttl: None,
    }
}
