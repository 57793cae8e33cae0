//! The one connection of a client: made when it is needed, once for all callers, and again when it is of no use any
//! more.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::error::Result;
use crate::runtime;

/// The number of a connection among those of its client, and the mark that it is given up.
#[derive(Debug)]
pub(crate) struct Status {
    number: u64,
    given_up: AtomicBool,
}

impl Status {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, given_up: AtomicBool::new(false) }
    }

    /// Returns the number, counted from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns true if no request is to be sent on the connection any more.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Marks the connection. Returns true if it was marked before.
    pub(crate) fn give_up(&self) -> bool {
        self.given_up.swap(true, Ordering::AcqRel)
    }
}

/// A connection as [`SharedConnection`] sees it.
pub(crate) trait Connection: Send + Sync + 'static {
    /// Returns its status.
    fn status(&self) -> &Status;
}

/// The connection of a client, if there is one.
pub(crate) struct SharedConnection<C> {
    state: Mutex<State<C>>,
    next: AtomicU64,
}

/// The result of connecting, once there is one.
type Made<C> = Option<Result<Arc<C>>>;

enum State<C> {
    Idle,
    Connecting(watch::Receiver<Made<C>>),
    Live(Arc<C>),
}

impl<C: Connection> SharedConnection<C> {
    /// Returns a state without a connection. The first one will have the number 1.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Idle), next: AtomicU64::new(1) })
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        runtime::lock(&self.state)
    }

    /// Returns the connection, if there is one.
    pub(crate) fn live(&self) -> Option<Arc<C>> {
        match &*self.state() {
            State::Live(conn) if !conn.status().is_given_up() => Some(conn.clone()),
            _ => None,
        }
    }

    /// Returns the connection, or makes one; `other`: another than the one of this number. A connection is completed
    /// even if no caller waits for it any more. `None`: the runtime ended before.
    pub(crate) async fn get<F>(self: &Arc<Self>, other: Option<u64>, make: impl FnOnce(u64) -> F) -> Made<C>
    where
        F: Future<Output = Result<Arc<C>>> + Send + 'static,
    {
        let mut made = {
            let mut state = self.state();
            match &*state {
                State::Live(conn) if !conn.status().is_given_up() && other != Some(conn.status().number()) => {
                    return Some(Ok(conn.clone()));
                }
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

    /// Gives out the connection of this number no more. Returns true if it was given out until now.
    pub(crate) fn forget(&self, number: u64) -> bool {
        let mut state = self.state();
        let is_it = matches!(&*state, State::Live(conn) if conn.status().number() == number);
        if is_it {
            *state = State::Idle;
        }
        is_it
    }
}
