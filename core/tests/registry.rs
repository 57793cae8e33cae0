//! Names for clients, what is shared between equal ones, the options that are refused, and the stream of events.

use std::sync::mpsc::channel;
use std::time::Duration;

use dlock::config::Values;
use dlock::event::{self, EventKind};
use dlock::{Client, Kind, registry};
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn clients_by_name() {
    let client = Client::connect("memory://named").unwrap();
    registry::register("orders", &client).unwrap();
    let found = registry::client(Some("orders")).unwrap();
    let lease = client.lock("k").acquire().wait().unwrap();
    assert!(found.lock("k").try_acquire().wait().unwrap().is_none());
    drop(lease);
    let other = Client::connect("memory://other").unwrap();
    registry::register("orders", &other).unwrap();
    assert_eq!(registry::client(Some("orders")).unwrap().config(), other.config());
    assert_eq!(registry::register("", &client).unwrap_err().kind(), Kind::Invalid);
    let error = registry::client(Some("unheard of")).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("orders"), "{error}");
    assert_eq!(registry::client(Some("")).unwrap_err().kind(), Kind::Invalid);
    other.close(ms(100)).wait().unwrap();
    let error = registry::client(Some("orders")).unwrap().lock("k").acquire().wait().unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
}

#[test]
fn a_contender_counts_as_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    // Another client of the same directory, for the gate the same as another process.
    let (one, two) = (Client::connect(&url).unwrap(), Client::connect(&format!("{url}?prefix=")).unwrap());
    let lease = one.lock("k").acquire().wait().unwrap();
    let (tell, told) = channel();
    let canceller = two.lock("k").acquire().on_done(move |result| tell.send(result.is_ok()).unwrap());
    while two.query().unwrap() != [("k".to_owned(), false)] {
        std::thread::yield_now();
    }
    drop(lease);
    assert!(told.recv().unwrap(), "it had its turn");
    canceller.cancel();
    assert!(one.query().unwrap().is_empty());
}

#[test]
fn equal_configurations_share_everything() {
    let (one, two) = (Client::connect("memory://shared").unwrap(), Client::connect("memory://shared").unwrap());
    let lease = one.lock("k").acquire().wait().unwrap();
    assert_eq!(two.query().unwrap(), [("k".to_owned(), true)]);
    // Closing one concerns nothing of the other.
    two.close(ms(100)).wait().unwrap();
    assert!(lease.is_held());
    assert!(two.lock("k").try_acquire().wait().is_err());
    let apart = Client::connect("memory://apart").unwrap();
    assert!(apart.lock("k").try_acquire().wait().unwrap().is_some());
    assert_eq!(Client::connect("memori://x").unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn terms_that_cant_be_used() {
    let client = Client::connect("memory://options").unwrap();
    let lock = || client.lock("k");
    let year = Duration::from_secs(367 * 86_400);
    let bad = [
        (lock().ttl(ms(99)), "minimum"),
        (lock().ttl(year), "366 days"),
        (lock().ttl(Duration::MAX), "366 days"),
        (lock().wait(year), "wait"),
        (lock().max_hold(Duration::ZERO), "max_hold"),
        (lock().max_hold(year), "max_hold"),
        (lock().retry((0, ms(1))), "retry"),
        (lock().token(""), "token"),
        (lock().token("a\0b"), "token"),
        (lock().label(&"x".repeat(1_025)), "label"),
        (client.lock(""), "empty"),
        (client.lock("a\0"), "NUL"),
        (client.lock(&"k".repeat(513)), "512"),
    ];
    for (lock, part) in bad {
        let error = lock.check().unwrap_err();
        assert_eq!((error.kind(), error.is_temporary()), (Kind::Invalid, false), "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(lock.acquire().wait().unwrap_err().kind(), Kind::Invalid);
        assert_eq!(lock.try_acquire().wait().unwrap_err().kind(), Kind::Invalid);
    }
    let error = lock().handoff(1).check().unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(lock().fair(true).check().is_ok(), "memory is fair");
    assert!(client.contenders("").wait().is_err() && client.break_lock("a\0").wait().is_err());
    assert!(client.query().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Any text is a key, or refused with the reason; keys that differ don't meet.
    #[test]
    fn any_key(key in ".{0,40}", other in ".{0,40}") {
        let client = Client::connect("memory://any-key").unwrap();
        let lock = client.lock(&key);
        prop_assert_eq!(lock.check().is_ok(), !key.is_empty() && !key.contains('\0'));
        if let Ok(lease) = lock.acquire_for(Some(Duration::ZERO)).wait() {
            prop_assert_eq!(lease.key(), key.as_str());
            if let Ok(Some(second)) = client.lock(&other).try_acquire().wait() {
                prop_assert_ne!(second.key(), key.as_str());
            }
        }
    }

    /// The file backend finds a safe name for any key, and another one for any other.
    #[test]
    fn any_file_name(key in "[ -~]{1,300}|.{1,100}", other in "[ -~]{1,300}|.{1,100}") {
        let client = Client::connect("file:///tmp/dlock-never-made").unwrap();
        let (one, two) = (client.lock(&key), client.lock(&other));
        prop_assume!(one.check().is_ok() && two.check().is_ok());
        let name = one.backend_name().strip_prefix("/tmp/dlock-never-made/").unwrap();
        prop_assert!(!name.is_empty() && name.len() <= 255);
        prop_assert!(!name.contains(['/', '\0']) && !name.starts_with('.'));
        prop_assert_eq!(one.backend_name() == two.backend_name(), key == other);
    }

    /// A ttl is kept as it is, or refused.
    #[test]
    fn any_ttl(nanos in any::<u64>()) {
        let ttl = Duration::from_nanos(nanos);
        let client = Client::connect("memory://any-ttl").unwrap();
        let lock = client.lock("k").ttl(ttl);
        let fits = ttl >= ms(100) && ttl <= Duration::from_secs(366 * 86_400);
        prop_assert_eq!(lock.check().is_ok(), fits);
        if fits {
            prop_assert_eq!(lock.acquire().wait().unwrap().ttl(), ttl);
        }
    }
}

#[test]
fn events_come_in_order() {
    let (tell, told) = channel();
    event::subscribe(move |event| {
        if &*event.key == "watched" {
            let _ = tell.send(event);
        }
    })
    .unwrap();
    let client = Client::connect("memory://events").unwrap();
    let lock = client.lock("watched");
    let lease = lock.acquire().wait().unwrap();
    assert!(client.lock("watched").wait(ms(10)).acquire().wait().is_err());
    lease.release().wait().unwrap();
    let lease = client.lock("watched").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    lease.renew(None).wait().unwrap();
    assert!(lease.lost().wait().unwrap());
    lease.release().wait().unwrap();
    let names = |what: &EventKind| match what {
        EventKind::Waiting => "waiting",
        EventKind::Granted { .. } => "granted",
        EventKind::TimedOut { wait } if *wait >= ms(10) => "timed out",
        EventKind::Renewed => "renewed",
        EventKind::Lost { held } if *held >= ms(50) => "lost",
        EventKind::Released { .. } => "released",
        _ => "?",
    };
    let expected = ["granted", "waiting", "released", "granted", "renewed", "lost"];
    let seen: Vec<_> = std::iter::from_fn(|| told.recv_timeout(ms(300)).ok()).collect();
    let seen: Vec<_> = seen.iter().map(|event| names(&event.kind)).filter(|name| *name != "timed out").collect();
    assert_eq!(seen, expected);
    assert_eq!(event::dropped(), 0);
}

/// The guarantee table of the README says what the drivers say of themselves.
#[test]
fn the_readme_tells_what_each_backend_rests_on() {
    let readme = include_str!("../../README.md");
    let row = readme.lines().find(|line| line.starts_with("| rests on |")).expect("the row of the guarantee table");
    for driver in dlock::drivers::DRIVERS {
        let guarantee = (driver.capabilities)(&Values::new(driver.schema)).guarantee;
        assert!(row.contains(guarantee), "{}: {guarantee} is not in {row}", driver.schema.name);
    }
}
