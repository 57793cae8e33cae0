//! Somebody always drives the runtime, whatever the callers do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dlock::{clock, runtime};

use crate::fake::Call;
use crate::shared::granting;
use crate::{alone, ms, until};

/// Counts as long as the runtime is driven.
fn ticks() -> Arc<AtomicU32> {
    let ticks = Arc::new(AtomicU32::new(0));
    let count = Arc::downgrade(&ticks);
    runtime::spawn(async move {
        while let Some(count) = count.upgrade() {
            count.fetch_add(1, Ordering::SeqCst);
            clock::sleep(ms(5)).await;
        }
    });
    ticks
}

/// A loop of calls that never have to wait, and in between a pause that is shorter than that after which the background
/// would take over from callers that drive.
#[test]
fn a_call_that_is_ready_drives_nothing() {
    if !alone("driving::a_call_that_is_ready_drives_nothing") {
        return;
    }
    let (client, fake) = granting();
    let lease = client.lock("k").ttl(ms(2400)).acquire().wait().unwrap();
    let calls: [&dyn Fn(); 4] = [
        &|| assert!(!lease.lost_within(Some(Duration::ZERO)).wait().unwrap()),
        &|| assert!(lease.lost().wait_for(Duration::ZERO).is_none()),
        // As a file client's `ping`.
        &|| client.ping().wait().unwrap(),
        &|| assert!(lease.lost().wait_for(Duration::from_nanos(1)).is_none()),
    ];
    for call in calls {
        let (ticks, renewals) = (ticks(), fake.count(Call::Renew));
        until("the runtime went on", || {
            call();
            ticks.load(Ordering::SeqCst) >= 20 && fake.count(Call::Renew) > renewals
        });
    }
    lease.check().unwrap();
}

/// Several threads, of which there is always one inside a call.
#[test]
fn many_callers_drive_no_more_than_one() {
    if !alone("driving::many_callers_drive_no_more_than_one") {
        return;
    }
    let (client, _) = granting();
    let ticks = ticks();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                until("the runtime went on", || {
                    client.ping().wait().unwrap();
                    ticks.load(Ordering::SeqCst) >= 20
                });
            });
        }
    });
}
