//! Code of the user's that the library calls: it stops nothing, whatever it does.

use std::sync::mpsc::channel;

use dlock::event::{EventKind, subscribe};
use dlock::{Kind, runtime};

use crate::shared::granting;
use crate::{alone, ms};

#[test]
fn a_hook_that_panics_ends_nothing() {
    if !alone("hooks::a_hook_that_panics_ends_nothing") {
        return;
    }
    let (tell, events) = channel();
    subscribe(move |event| match event.kind {
        EventKind::Panicked { text } => tell.send((event.key.to_string(), text)).unwrap(),
        // One that panics goes on with the next.
        _ => panic!("of a subscriber"),
    })
    .unwrap();
    let (client, _) = granting();
    for (i, here) in [false, true].into_iter().enumerate() {
        let ends = client.lock(&format!("ends-{i}")).ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
        match here {
            true => ends.on_lost_here(|| panic!("of the user's")),
            false => ends.on_lost(|| panic!("of the user's")),
        }
        let told = events.recv_timeout(ms(10_000)).expect("the panic is told");
        assert_eq!(told, (format!("ends-{i}"), "of the user's".to_owned()));
        assert!(!ends.is_held());
        // The one that is lost already is told where it asks, and no panic comes back.
        ends.on_lost_here(|| panic!("at once"));
        assert_eq!(events.recv_timeout(ms(10_000)).unwrap().1, "at once");
    }
    // Those that come later are looked after all the same.
    let next = client.lock("next").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    let (tell, told) = channel();
    next.on_lost(move || tell.send(()).unwrap());
    told.recv_timeout(ms(10_000)).expect("the watchdog goes on");
}

#[test]
fn a_hook_that_waits_stops_nothing() {
    if !alone("hooks::a_hook_that_waits_stops_nothing") {
        return;
    }
    let (client, _) = granting();
    let (tell, told) = channel();
    let other = client.clone();
    let ends = client.lock("ends").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    ends.on_lost(move || tell.send(other.lock("other").acquire().wait().map(drop)).unwrap());
    told.recv_timeout(ms(10_000)).expect("the wait in the hook ends").unwrap();
}

/// Where the library itself runs, a wait would wait for itself.
#[test]
fn a_wait_where_the_library_runs_is_refused() {
    if !alone("hooks::a_wait_where_the_library_runs_is_refused") {
        return;
    }
    let (client, _) = granting();
    let (tell, told) = channel();
    let (tell_lost, other) = (tell.clone(), client.clone());
    let ends = client.lock("ends").ttl(ms(100)).auto_renew(false).acquire().wait().unwrap();
    ends.on_lost_here(move || tell_lost.send(other.lock("a").acquire().wait().map(drop)).unwrap());
    let (tell_done, other) = (tell.clone(), client.clone());
    client.lock("b").acquire().on_done(move |_| tell_done.send(other.ping().wait()).unwrap());
    let other = client.clone();
    runtime::spawn(async move { tell.send(other.ping().wait()).unwrap() });
    for _ in 0..3 {
        let refused = told.recv_timeout(ms(10_000)).expect("no wait hangs").unwrap_err();
        assert_eq!(refused.kind(), Kind::Invalid);
        assert!(refused.to_string().contains("runtime::pool"), "{refused}");
    }
    // Nor is anything left of the calls that were refused.
    client.lock("a").acquire().wait().unwrap();
}
