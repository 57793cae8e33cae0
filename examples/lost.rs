//! A lost lock stops the work.
//!
//! You can lose a lock while you hold it, for example by `break_lock`, a suspended machine or a dead server. In this
//! example the limit `max_hold` ends the lease, so a job that hangs doesn't block the other workers for ever.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use dlock::{Client, Kind, Result};

async fn part() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::connect("memory://lost")?;
    let lock = client.lock("import").max_hold(Duration::from_millis(300));

    // To ask, between the parts of the work.
    let lease = lock.acquire().await?;
    let mut done = 0;
    let error = loop {
        if let Err(error) = lease.check() {
            break error;
        }
        part().await;
        done += 1;
    };
    assert_eq!(error.kind(), Kind::Lost);
    assert!((1..50).contains(&done));
    println!("stopped after {done} parts: {error}");

    // To be told: whichever comes first, the end of the work or the end of the lock.
    let lease = lock.acquire().await?;
    let work = async {
        loop {
            part().await;
        }
    };
    tokio::select! {
        () = work => unreachable!("it never ends by itself"),
        lost = lease.lost() => println!("the work was dropped where it stood, lost: {}", lost?),
    }
    assert!(!lease.is_held());

    client.lock("import").wait(Duration::from_secs(1)).acquire().await?.release().await?;
    println!("the next worker has it");
    Ok(())
}
