//! A Redis server that answers some commands itself, and passes the others on to a real one.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::resp::{self, Scan};

type Answer = dyn Fn(&[Vec<u8>]) -> Option<Vec<u8>> + Send + Sync;

/// A running server that answers some commands itself. When it is dropped, its connections are closed and its threads
/// end.
#[derive(Debug)]
pub struct Canned {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canned {
    /// Starts a server on a free port. `answer` gets the words of each command and returns the bytes of the reply, such
    /// as `-OOM used memory > 'maxmemory'\r\n`. If it returns `None`, the server at `upstream` answers.
    ///
    /// # Errors
    /// If there is no port or thread for the server.
    pub fn start(
        upstream: SocketAddr,
        answer: impl Fn(&[Vec<u8>]) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answer: Arc<Answer> = Arc::new(answer);
        let thread = std::thread::Builder::new().name("canned".to_owned()).spawn(move || {
            let mut conns = Vec::new();
            while let Ok((client, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    break;
                }
                conns.retain(|conn: &Conn| !conn.threads.iter().all(JoinHandle::is_finished));
                conns.extend(Conn::start(client, upstream, answer.clone()));
            }
        })?;
        Ok(Self { addr, stop, thread: Some(thread) })
    }

    /// Returns the address for clients.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the URL without a password.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // The connection wakes the thread.
        let woken = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take().filter(|_| woken.is_ok()) {
            let _ = thread.join();
        }
    }
}

/// A connection, with a thread for each direction.
struct Conn {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    client: TcpStream,
    server: TcpStream,
    turn: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Default)]
struct Turn {
    /// The number of forwarded commands without a reply. A reply of `answer` waits for their replies, so that all come
    /// in order.
    open: u64,
    over: bool,
}

impl Conn {
    fn start(client: TcpStream, upstream: SocketAddr, answer: Arc<Answer>) -> io::Result<Self> {
        let server = TcpStream::connect(upstream)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let shared = Arc::new(Shared { client, server, turn: Mutex::default(), changed: Condvar::new() });
        let (asks, replies) = (shared.clone(), shared.clone());
        let threads = vec![
            std::thread::spawn(move || asks.finish(each(&asks.client, |command| asks.ask(&command, &*answer)))),
            std::thread::spawn(move || replies.finish(each(&replies.server, |value| replies.reply(&value)))),
        ];
        Ok(Self { shared, threads })
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.shared.close();
        for thread in self.threads.drain(..) {
            // A thread that panicked did so in the test's closure, which has printed the reason.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn ask(&self, command: &[u8], answer: &Answer) -> io::Result<()> {
        let Some(reply) = answer(&resp::words(command)) else {
            self.turn().open += u64::from(resp::is_answered(command));
            return (&self.server).write_all(command);
        };
        let waiting = |turn: &mut Turn| turn.open > 0 && !turn.over;
        let turn = self.changed.wait_while(self.turn(), waiting).unwrap_or_else(PoisonError::into_inner);
        (&self.client).write_all(&reply).inspect(|()| drop(turn))
    }

    fn reply(&self, value: &[u8]) -> io::Result<()> {
        let mut turn = self.turn();
        turn.open = turn.open.saturating_sub(u64::from(!resp::is_push(value)));
        self.changed.notify_all();
        (&self.client).write_all(value)
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, _ended: io::Result<()>) {
        self.close();
    }

    fn close(&self) {
        // The shutdown comes before the mutex, because a thread that writes holds the mutex. It fails if that side is
        // gone already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
        self.turn().over = true;
        self.changed.notify_all();
    }
}

/// Calls `act` with each value of the stream.
fn each(mut stream: &TcpStream, mut act: impl FnMut(Vec<u8>) -> io::Result<()>) -> io::Result<()> {
    let (mut scan, mut bytes, mut buffer) = (Scan::default(), Vec::new(), [0; 16 << 10]);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        bytes.extend(&buffer[..length]);
        let (values, fine) = resp::take(&mut scan, &mut bytes);
        values.into_iter().try_for_each(&mut act)?;
        fine.map_err(|_| io::ErrorKind::InvalidData)?;
    }
}
