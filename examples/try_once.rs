//! Try once, wait with a timeout, or cancel: ways to limit the wait for a lock.

#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use dlock::{Client, Kind, Result};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::connect("memory://try-once")?;
    let other = client.lock("nightly-report").label("the other worker").acquire().await?;

    // Now or never.
    assert!(client.lock("nightly-report").try_acquire().await?.is_none());
    println!("busy, so this worker does something else");

    // A wait that ends. The deadline is for the whole wait and never starts again.
    let began = Instant::now();
    let waited = client.lock("nightly-report").wait(Duration::from_millis(200)).acquire().await;
    let error = waited.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    println!("gave up after {:.1?}: {error}", began.elapsed());

    // A wait that the caller ends: a dropped acquire leaves nothing behind.
    let mut acquire = client.lock("nightly-report").acquire();
    tokio::select! {
        _ = &mut acquire => unreachable!("two holders"),
        () = tokio::time::sleep(Duration::from_millis(50)) => drop(acquire),
    }

    other.release().await?;
    client.lock("nightly-report").wait(Duration::from_secs(1)).acquire().await?.release().await?;
    println!("free again");
    Ok(())
}
