//! The watch over the backend's answers: what answers and failures tell, and a probe while a call waits.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::outage::Counted;
use super::shared::Shared;
use crate::clock::{self, Instant};
use crate::error::{Error, Kind, Result};
use crate::runtime;
use crate::timing::Backoff;

impl Shared {
    /// Takes note of what came of a request that was sent then.
    pub(crate) fn answered<T>(self: &Arc<Self>, asked: Instant, answer: &Result<T>) {
        match answer {
            Ok(_) => self.outage.answered(),
            Err(error) if error.is_temporary() => self.failed(asked, error),
            Err(error) if error.kind() == Kind::Backend => self.outage.answered(),
            // This process refused it: the backend was not asked.
            Err(_) => {}
        }
    }

    /// Takes note that a request that was sent then has had no answer.
    pub(crate) fn failed(self: &Arc<Self>, asked: Instant, error: &Error) {
        self.outage.failed(asked, error);
        self.probe();
    }

    /// Resolves when the backend has answered nobody for the time that a call which began then has to stand.
    pub(crate) async fn outage(self: &Arc<Self>, begun: Instant) -> Error {
        let _waiting = Counted::new(&self.outage.waiting);
        self.probe();
        loop {
            let mut changed = std::pin::pin!(self.outage.changed.notified());
            changed.as_mut().enable();
            let end = self.outage.end(begun, self.connect_timeout());
            if end.passed() {
                return self.outage.why();
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = clock::sleep_until(end) => {}
            }
        }
    }

    /// Asks the backend whether it is there, as long as there are no answers and somebody waits for one.
    fn probe(self: &Arc<Self>) {
        if self.outage.is_waited_in() && !self.outage.probing.swap(true, Ordering::SeqCst) {
            runtime::spawn(probe(Arc::downgrade(self)));
        }
    }
}

async fn probe(shared: Weak<Shared>) {
    let mut pauses = Backoff::up_to(Duration::from_secs(1));
    loop {
        clock::sleep(pauses.next()).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.outage.is_waited_in() {
            shared.outage.probing.store(false, Ordering::SeqCst);
            // Somebody may have come between the two.
            return shared.probe();
        }
        if shared.outage.asking.load(Ordering::SeqCst) > 0 {
            continue;
        }
        let (asked, limit) = (Instant::now(), shared.connect_timeout());
        let answer = tokio::time::timeout(limit, shared.backend.ping()).await;
        shared
            .answered(asked, &answer.unwrap_or_else(|_| Err(Error::unavailable("the backend gave no answer in time"))));
    }
}
