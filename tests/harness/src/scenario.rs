//! What scenarios on every backend share: bounds, waits, and calls that have to succeed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dlock::event::{Event, EventKind, subscribe};
use dlock::{Client, Error, Kind, Lease, Lock, Op, ReleaseOutcome};

use crate::backends::TestServer;
use crate::proxy::{Mode, Proxy};

/// How long anything may take that has no bound of its own.
pub const LONG: Duration = Duration::from_secs(10);

/// What a loaded machine may add to a bound.
pub const SLACK: Duration = Duration::from_millis(700);

/// How long after its deadline a call may return.
pub const LATE: Duration = Duration::from_millis(100);

/// Milliseconds.
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Another number each time.
pub fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The same client, after its first answer.
///
/// # Panics
/// When it can't lock a key of its own.
pub fn answered(client: Client) -> Client {
    let warm = client.lock(&format!("warm-{}", next())).try_acquire().wait().unwrap().unwrap();
    released(&warm);
    client
}

/// The warnings from now on that name this server.
///
/// # Panics
/// When there is no thread for them.
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

/// A lock that waits for a bounded time.
pub fn lock(client: &Client, key: &str, ttl: Duration) -> Lock {
    client.lock(key).ttl(ttl).wait(LONG)
}

/// A lease that lasts for as long as a scenario.
///
/// # Panics
/// When it isn't granted.
pub fn acquired(client: &Client, key: &str) -> Lease {
    lock(client, key, ms(30_000)).acquire().wait().unwrap()
}

/// Begins an acquire that goes on whatever this thread does.
pub fn begin(lock: &Lock) -> JoinHandle<dlock::Result<Lease>> {
    let op: Op<Lease> = lock.acquire();
    std::thread::spawn(move || op.wait())
}

/// Releases it.
///
/// # Panics
/// When it was lost.
pub fn released(lease: &Lease) {
    assert_eq!(lease.release().wait().unwrap(), ReleaseOutcome::Released, "{}", lease.key());
}

/// Waits for it, in small steps.
///
/// # Panics
/// When it doesn't come about within the limit.
pub fn until(what: &str, limit: Duration, mut come: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !come() {
        assert!(Instant::now() < end, "within {limit:?} it didn't come about: {what}");
        std::thread::sleep(ms(1));
    }
}

/// Waits until so many hold and wait.
///
/// # Panics
/// When it doesn't come about.
pub fn until_contenders(server: &dyn TestServer, key: &str, n: usize) {
    until(&format!("{n} contenders of {key}"), LONG, || server.contenders(key) == n);
}

/// Waits until no holder and no waiter has anything at the server.
///
/// # Panics
/// When something is left after the limit.
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

/// Lets bytes pass again. A stream of which a part was lost is never gone on with.
pub fn heal(proxy: &Proxy, lost: bool) {
    if lost {
        proxy.cut();
    }
    proxy.both(Mode::Pass);
}

/// Returns the error of a first contact with this URL, after checking that it comes in time and never shows the secret.
///
/// # Panics
/// If that isn't so, or nothing is refused.
pub fn refused(url: &str, secret: &str) -> Error {
    const TIMEOUT: Duration = Duration::from_millis(1500);
    let url = format!("{url}{}connect_timeout=1500ms", if url.contains('?') { '&' } else { '?' });
    let client = Client::connect(&url).unwrap();
    assert!(!format!("{client:?}").contains(secret), "{client:?}");
    let begun = Instant::now();
    let ping = client.ping().wait().unwrap_err();
    let error = lock(&client, "k", LONG).acquire().wait().unwrap_err();
    assert!(begun.elapsed() < (TIMEOUT + LATE) * 2 + SLACK, "{:?}", begun.elapsed());
    assert_eq!((ping.kind(), ping.is_temporary()), (error.kind(), error.is_temporary()));
    for text in [format!("{error}"), format!("{error:?}"), format!("{ping:?}"), format!("{client:?}")] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(error.kind(), Kind::Backend);
    error
}

/// Checks whether trying again can help, and that the message has these words.
///
/// # Panics
/// If that isn't so.
pub fn says(error: &Error, temporary: bool, words: &[&str]) {
    assert_eq!(error.is_temporary(), temporary, "{error:?}");
    for word in words {
        assert!(error.message().contains(word), "no {word:?} in {error}");
    }
}

/// Checks that a client of this URL can do all that a lock needs.
///
/// # Panics
/// If it can't.
pub fn works(url: &str) {
    let client = Client::connect(url).unwrap();
    let lease = lock(&client, "k", LONG).acquire().wait().unwrap();
    lease.renew(None).wait().unwrap();
    assert_eq!(client.contenders("k").wait().unwrap().len(), 1);
    released(&lease);
    client.ping().wait().unwrap();
}
