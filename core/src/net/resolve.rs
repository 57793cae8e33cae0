//! The resolution of names, on threads of its own: the system's resolver blocks for as long as a name server is silent.

use std::collections::HashMap;
use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Instant;
use crate::runtime::{PerProcess, Pool, lock, threads};

/// The age up to which a question shares its answer. A name that hangs takes no thread for each try to connect, and a
/// question that is older isn't waited for: the name may have an answer in the meantime.
const SHARED: Duration = Duration::from_secs(2);

type Answer = Option<std::result::Result<Vec<SocketAddr>, Arc<Error>>>;

/// The questions in progress, by name.
type Asked = Mutex<HashMap<Arc<str>, (Instant, watch::Receiver<Answer>)>>;

/// Resolves a host, with this port. Each call asks again, and never on a thread that does anything else.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let mut answer = ask(host)?;
    let ended = || Error::other("the thread that resolved the name has ended");
    let answer = answer.wait_for(Option::is_some).await.map_err(|_| ended())?.clone();
    let mut all = answer.unwrap_or_else(|| Err(Arc::new(ended()))).map_err(|error| again(&error))?;
    all.iter_mut().for_each(|address| address.set_port(port));
    Ok(all)
}

/// Asks for a name, or joins the question in progress.
fn ask(host: &str) -> Result<watch::Receiver<Answer>> {
    static ASKED: PerProcess<Asked> = PerProcess::new();
    static RESOLVER: PerProcess<Pool> = PerProcess::new();
    let asked = ASKED.get(Mutex::default);
    let now = Instant::now();
    let (tell, answer) = watch::channel(None);
    let host: Arc<str> = host.into();
    {
        let mut asked = lock(asked);
        if let Some((since, answer)) = asked.get(&host)
            && now - *since < SHARED
            && answer.has_changed().is_ok()
        {
            return Ok(answer.clone());
        }
        asked.insert(host.clone(), (now, answer.clone()));
    }
    let question = host.clone();
    let forget = move || {
        let mut asked = lock(asked);
        if asked.get(&question).is_some_and(|(since, _)| *since == now) {
            asked.remove(&question);
        }
    };
    let answered = forget.clone();
    let work = move || {
        // The caller may have gone while this waited for a thread.
        if tell.receiver_count() > 1 {
            let found = (&*host, 0).to_socket_addrs().map(Iterator::collect).map_err(Arc::new);
            tell.send_replace(Some(found));
        }
        answered();
    };
    let one_for_all = mutant!("process-one-pool-for-all");
    let pool = if one_for_all { Pool::callbacks() } else { RESOLVER.get(|| Pool::new("dlock-resolve")) };
    pool.run(work).map_err(|error| {
        forget();
        Error::other(threads::exhausted("no thread to resolve a name can be started", &error))
    })?;
    Ok(answer)
}

/// Copies an error for another caller.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.to_string())
}
