//! The contenders of a name: those that the backend knows, and those of this process.

use std::collections::HashMap;
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
    let ours = gate.find(name).map(|queue| queue.holders()).unwrap_or_default();
    // Of those with equal tokens the first.
    let by_token: HashMap<_, _> = ours.iter().rev().map(|tenure| (tenure.claim.token(), tenure)).collect();
    for held in all.iter_mut().filter(|one| one.held) {
        // The backend may not know the token.
        let known = match &held.token {
            Some(token) => by_token.get(token).copied(),
            None => ours.first().filter(|_| ours.len() == 1 && held.pid.is_none_or(|pid| pid == std::process::id())),
        };
        if let Some(tenure) = known {
            let known = here(&tenure.claim, true, tenure.age());
            held.token = held.token.take().or(known.token);
            held.label = held.label.take().or(known.label);
            held.host = held.host.take().or(known.host);
            held.pid = held.pid.or(known.pid);
            held.fence = held.fence.or(tenure.fence());
            held.age = held.age.or(known.age);
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
        mode: claim.options.mode,
        slots: Vec::new(),
    }
}
