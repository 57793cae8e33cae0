//! The only renewal loop: one task a client. It sleeps until the earliest time at which a held lease needs something, and
//! looks at the leases that are due: a lease that is not due costs nothing, however many there are.
//!
//! Correctness never depends on its punctuality: whether a lease counts is computed from the clock.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

use super::gate::Gate;
use super::tenure::Tenure;
use crate::clock::{self, Instant};
use crate::error::Error;
use crate::runtime;

/// After how many leases it lets others run.
const AT_ONCE: usize = 2_000;

/// Runs until the gate is gone.
pub(crate) async fn run(gate: Weak<Gate<Tenure>>) {
    let Some(timer) = gate.upgrade().map(|gate| gate.shared.timer.clone()) else { return };
    loop {
        tokio::select! {
            biased;
            () = clock::sleep_until(timer.next()) => {}
            () = timer.changed() => {}
        }
        let Some(gate) = gate.upgrade() else { return };
        if timer.next().passed() {
            scan(&gate);
            drop(gate);
            tokio::task::yield_now().await;
        }
    }
}

/// Looks at the leases that are due, and renews them.
fn scan(gate: &Arc<Gate<Tenure>>) {
    let timer = &gate.shared.timer;
    timer.begin();
    let now = Instant::now();
    let (mut due, mut until, mut seen) = (Vec::new(), now, Vec::new());
    while seen.len() < AT_ONCE
        && let Some(queue) = gate.deadlines.pop(until)
    {
        fence(Ordering::SeqCst);
        for tenure in queue.holders() {
            if tenure.handle_timeout(now) {
                // Others that are due soon share its request.
                until = until.max(now.plus(tenure.slack()));
                due.push(tenure.clone());
            }
            seen.push(tenure);
        }
    }
    #[cfg(feature = "testing")]
    timer.seen.fetch_add(seen.len() as u64, Ordering::Relaxed);
    // Those whose renewal is under way too: their end is watched all the same.
    seen.iter().for_each(|tenure| tenure.schedule());
    timer.wake_by(gate.deadlines.first());
    while !due.is_empty() {
        let later = due.split_off(due.len().min(gate.shared.backend.renew_limit()));
        runtime::spawn(renew(gate.clone(), std::mem::replace(&mut due, later)));
    }
}

async fn renew(gate: Arc<Gate<Tenure>>, tenures: Vec<Arc<Tenure>>) {
    let shared = &gate.shared;
    let due: Vec<_> = tenures.iter().map(|tenure| tenure.due(None)).collect();
    let asked = Instant::now();
    let answers = shared.backend.renew(&due).await;
    if let Some(answer) = answers.iter().find(|answer| answer.is_ok()).or(answers.first()) {
        shared.answered(asked, answer);
    }
    let mut answers = answers.into_iter();
    for tenure in &tenures {
        let answer = answers.next().unwrap_or_else(|| Err(Error::unavailable("the backend gave no answer")));
        // A failure is in the events, and asked again; the lease knows what it means.
        let _ = tenure.renewed(answer, false);
        tenure.schedule();
    }
}
