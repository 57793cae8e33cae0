//! The shared parts of scenarios on every backend: bounds, waits, and calls that have to succeed.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dlock::event::{Event, EventKind, subscribe};
use dlock::{Client, Error, Kind, Lease, Lock, Op, ReleaseOutcome};

use crate::backends::{TestServer, with_option};
use crate::proxy::{Mode, Proxy};

/// The maximum time of anything that has no bound of its own.
pub const LONG: Duration = Duration::from_secs(10);

/// The time that a loaded machine may add to a bound.
pub const SLACK: Duration = Duration::from_millis(700);

/// The time after its deadline at which a call may still return.
pub const LATE: Duration = Duration::from_millis(100);

/// Returns so many milliseconds as a duration.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Returns another number each time.
pub fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns the client after its first answer.
///
/// # Panics
/// If the client can't lock a key of its own.
pub fn answered(client: Client) -> Client {
    let warm = client.lock(&format!("warm-{}", next())).try_acquire().wait().unwrap().unwrap();
    released(&warm);
    client
}

/// Receives the warnings from now on that name this server.
///
/// # Panics
/// If there is no thread for them.
pub fn warnings(server: &str) -> Receiver<String> {
    let (send, warnings) = channel();
    let server = server.to_owned();
    let send_on = move |event: Event| match event.kind {
        EventKind::Warning { note } if note.contains(&server) => drop(send.send(note)),
        _ => {}
    };
    subscribe(send_on).unwrap();
    warnings
}

/// Returns the command that runs one test of this program in another process. Variables say what the test has to do.
///
/// # Panics
/// If the program has no path.
pub fn again(test: &str) -> Command {
    let mut line = Command::new(std::env::current_exe().unwrap());
    line.args(["--exact", test, "--nocapture"]);
    line
}

/// Returns a lock that waits for a limited time.
pub fn lock(client: &Client, key: &str, ttl: Duration) -> Lock {
    client.lock(key).ttl(ttl).wait(LONG)
}

/// Acquires a lease that lasts as long as a scenario.
///
/// # Panics
/// If the lease isn't granted.
pub fn acquired(client: &Client, key: &str) -> Lease {
    lock(client, key, ms(30_000)).acquire().wait().unwrap()
}

/// Begins an acquire in another thread.
pub fn begin(lock: &Lock) -> JoinHandle<dlock::Result<Lease>> {
    let op: Op<Lease> = lock.acquire();
    std::thread::spawn(move || op.wait())
}

/// Releases the lease.
///
/// # Panics
/// If the lease was lost.
pub fn released(lease: &Lease) {
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released, "{}", lease.key());
}

/// Waits in small steps until `come` returns true.
///
/// # Panics
/// If that doesn't happen within the limit.
pub fn until(what: &str, limit: Duration, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !come() {
        assert!(Instant::now() < end, "within {limit:?} it didn't come about: {what}");
        std::thread::sleep(ms(1));
    }
}

/// Waits until a key has so many holders and waiters.
///
/// # Panics
/// If that doesn't happen.
pub fn until_contenders(server: &dyn TestServer, key: &str, n: usize) {
    until(&format!("{n} contenders of {key}"), LONG, || server.contenders(key) == n);
}

/// Waits until no holder and no waiter has anything at the server.
///
/// # Panics
/// If something is left after the limit.
pub fn until_clean(server: &dyn TestServer, limit: Duration) {
    let end = Instant::now() + limit;
    loop {
        let left = server.left_over();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left after {limit:?}: {left:?}");
        std::thread::sleep(ms(5));
    }
}

/// Lets bytes pass again. A connection that has lost bytes is cut, because it can't be used any more.
pub fn heal(proxy: &Proxy, lost: bool) {
    if lost {
        // A connection that comes now loses nothing.
        proxy.both(Mode::Hold);
        proxy.cut();
    }
    proxy.both(Mode::Pass);
}

/// Returns the error of a first contact with this URL. Checks that the error comes in time and never shows the secret.
///
/// # Panics
/// If one of these isn't so, or nothing is refused.
pub fn refused(url: &str, secret: &str) -> Error {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let url = with_option(url, "connect_timeout=1500ms");
    let client = Client::connect(&url).unwrap();
    assert!(!format!("{client:?}").contains(secret), "{client:?}");
    let begun = Instant::now();
    let ping = client.ping().wait().err();
    let error = lock(&client, "k", LONG).acquire().wait().unwrap_err();
    assert!(begun.elapsed() < (TIMEOUT + LATE) * 2 + SLACK, "{:?}", begun.elapsed());
    match &ping {
        Some(ping) => assert_eq!((ping.kind(), ping.is_temporary()), (error.kind(), error.is_temporary())),
        // ZooKeeper takes any login, and refuses where it is asked for a node.
        None => assert!(url.starts_with("zookeeper"), "the ping succeeded"),
    }
    for text in [format!("{error}"), format!("{error:?}"), format!("{ping:?}"), format!("{client:?}")] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(error.kind(), Kind::Backend);
    error
}

/// Checks the `temporary` flag of an error, and that its message has these words.
///
/// # Panics
/// If one of these isn't so.
pub fn says(error: &Error, temporary: bool, words: &[&str]) {
    assert_eq!(error.is_temporary(), temporary, "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "no {word:?} in {error}");
    }
}

/// Checks that a client of this URL can do everything that a lock needs.
///
/// # Panics
/// If the client can't.
pub fn works(url: &str) {
    let client = Client::connect(url).unwrap();
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    lease.renew(None).wait().unwrap();
    assert_eq!(client.contenders("k").wait().unwrap().len(), 1);
    released(&lease);
    client.ping().wait().unwrap();
}
