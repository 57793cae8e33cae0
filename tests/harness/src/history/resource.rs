//! The resource that a lock protects: logs that each holder of the lock reads and then appends to.
//!
//! Each key has two logs. The open log takes every write. The guarded log refuses writes with an older fencing token. A
//! write states the length of the log when it was read. So a write that came in between shows as a lost update.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The damage to the logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// The number of writes to the open log.
    pub writes: u64,
    /// The number of writes to the open log with an older fencing token than one seen before.
    pub stale: u64,
    /// The number of writes to the open log that did not know of an earlier write.
    pub lost_open: u64,
    /// The number of writes that the guarded log refused.
    pub refused: u64,
    /// The number of writes to the guarded log that did not know of an earlier write. It is 0 if fencing tokens ascend.
    pub lost_guarded: u64,
}

#[derive(Debug, Default)]
struct Logs {
    highest: u64,
    open: u64,
    guarded: u64,
}

#[derive(Debug, Default)]
struct State {
    logs: HashMap<String, Logs>,
    damage: Damage,
}

/// The store. Threads of this process serve it on a port of its own.
#[derive(Debug)]
pub struct Resource {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl Resource {
    /// Starts the store.
    pub fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let resource = Self { state: Arc::default(), address: listener.local_addr()? };
        let state = resource.state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let state = state.clone();
                std::thread::spawn(move || drop(attend(&client, &state)));
            }
        });
        Ok(resource)
    }

    /// Returns the address of the store.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the damage so far.
    pub fn damage(&self) -> Damage {
        locked(&self.state).damage
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a client. `read KEY FENCE` returns the lengths of both logs; `write KEY FENCE OPEN GUARDED` appends to both.
fn attend(client: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut output = client;
    for line in BufReader::new(client).lines() {
        let line = line?;
        let answer = answer(&mut locked(state), &line.split(' ').collect::<Vec<_>>()).unwrap_or("what?".to_owned());
        output.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}

fn answer(state: &mut State, words: &[&str]) -> Option<String> {
    let (key, fence) = (*words.get(1)?, words.get(2)?.parse().ok()?);
    let logs = state.logs.entry(key.to_owned()).or_default();
    let stale = fence < logs.highest;
    // A reader counts as well: a client that has read before it must not write after it.
    logs.highest = logs.highest.max(fence);
    match *words {
        ["read", ..] => Some(format!("{} {}", logs.open, logs.guarded)),
        ["write", _, _, open, guarded] => {
            let damage = &mut state.damage;
            damage.writes += 1;
            damage.stale += u64::from(stale);
            damage.lost_open += u64::from(open.parse() != Ok(logs.open));
            logs.open += 1;
            if stale {
                damage.refused += 1;
                return Some("refused".to_owned());
            }
            damage.lost_guarded += u64::from(guarded.parse() != Ok(logs.guarded));
            logs.guarded += 1;
            Some("ok".to_owned())
        }
        _ => None,
    }
}

/// A client of the store.
#[derive(Debug)]
pub struct Visitor(BufReader<TcpStream>);

impl Visitor {
    /// Connects to the store.
    pub fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, line: &str) -> std::io::Result<String> {
        self.0.get_mut().write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        Ok(answer.trim_end().to_owned())
    }

    /// Reads, calls `think` and writes. Returns false if the guarded log refused the write.
    pub fn update(&mut self, key: &str, fence: u64, think: impl FnOnce()) -> std::io::Result<bool> {
        let lengths = self.ask(&format!("read {key} {fence}"))?;
        think();
        Ok(self.ask(&format!("write {key} {fence} {lengths}"))? == "ok")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_write_is_refused_where_tokens_are_checked_and_seen_where_not() {
        let resource = Resource::start().unwrap();
        let mut late = Visitor::connect(resource.address()).unwrap();
        let mut other = Visitor::connect(resource.address()).unwrap();
        assert!(other.update("k", 1, || {}).unwrap());
        assert!(!late.update("k", 2, || assert!(other.update("k", 3, || {}).unwrap())).unwrap());
        let damage = resource.damage();
        assert_eq!(damage, Damage { writes: 3, stale: 1, lost_open: 1, refused: 1, lost_guarded: 0 });
    }

    #[test]
    fn a_lost_update_is_counted() {
        let resource = Resource::start().unwrap();
        let mut first = Visitor::connect(resource.address()).unwrap();
        let mut second = Visitor::connect(resource.address()).unwrap();
        // Two holders have the same fencing token, which no check of tokens can find.
        assert!(first.update("k", 1, || assert!(second.update("k", 1, || {}).unwrap())).unwrap());
        let damage = resource.damage();
        assert_eq!((damage.lost_open, damage.lost_guarded, damage.stale), (1, 1, 0));
    }
}
