//! The one connection of a client: made when it is needed, once for all who ask, and again when it is of no use any
//! more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::error::Result;
use crate::runtime;

/// A connection as [`SharedConnection`] sees it.
pub(crate) trait Connection: Send + Sync + 'static {
    /// Its number among those of its client.
    fn number(&self) -> u64;
    /// Whether nothing is to be asked on it any more.
    fn is_dead(&self) -> bool;
}

/// A client's connection, as there is one.
pub(crate) struct SharedConnection<C> {
    state: Mutex<State<C>>,
    next: AtomicU64,
}

type Made<C> = Option<Result<Arc<C>>>;

enum State<C> {
    Idle,
    Connecting(watch::Receiver<Made<C>>),
    Live(Arc<C>),
}

impl<C: Connection> SharedConnection<C> {
    /// None yet; the first one will have the number 1.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Idle), next: AtomicU64::new(1) })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        runtime::lock(&self.state)
    }

    /// The connection, if there is one.
    pub(crate) fn live(&self) -> Option<Arc<C>> {
        match &*self.state() {
            State::Live(conn) if !conn.is_dead() => Some(conn.clone()),
            _ => None,
        }
    }

    /// The connection there is, or the one that is made; `other`: another than the one of this number. It is made whole
    /// also when nobody waits for it. `None`: the runtime ended before.
    pub(crate) async fn get<F>(self: &Arc<Self>, other: Option<u64>, make: impl FnOnce(u64) -> F) -> Made<C>
    where
        F: Future<Output = Result<Arc<C>>> + Send + 'static,
    {
        let mut made = {
            let mut state = self.state();
            match &*state {
                State::Live(conn) if !conn.is_dead() && other != Some(conn.number()) => return Some(Ok(conn.clone())),
                State::Connecting(made) => made.clone(),
                _ => {
                    let (tell, made) = watch::channel(None);
                    *state = State::Connecting(made.clone());
                    let this = self.clone();
                    let making = make(self.next.fetch_add(1, Ordering::Relaxed));
                    runtime::spawn(async move {
                        let result = making.await;
                        *this.state() = match &result {
                            Ok(conn) => State::Live(conn.clone()),
                            Err(_) => State::Idle,
                        };
                        let _ = tell.send(Some(result));
                    });
                    made
                }
            }
        };
        made.wait_for(Option::is_some).await.ok().and_then(|made| made.clone())
    }

    /// Gives out the one of this number no more. Whether it was still given out.
    pub(crate) fn forget(&self, number: u64) -> bool {
        let mut state = self.state();
        let is_it = matches!(&*state, State::Live(conn) if conn.number() == number);
        if is_it {
            *state = State::Idle;
        }
        is_it
    }
}
