//! A critical section with a distributed lock: one at a time, among all threads, tasks and processes of this user.

#![allow(clippy::print_stdout)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use dlock::{Client, Result};

static BALANCE: AtomicU32 = AtomicU32::new(0);

/// Blocking code waits with `wait()`; no runtime is needed.
fn deposit(client: &Client) -> Result<()> {
    let lease = client.lock("account:7").acquire().wait()?;
    let before = BALANCE.load(Ordering::Relaxed);
    thread::sleep(Duration::from_millis(1));
    BALANCE.store(before + 1, Ordering::Relaxed);
    lease.release().wait()?;
    Ok(())
}

/// Async code awaits the same calls, on any executor.
async fn deposit_later(client: Client) -> Result<()> {
    let lease = client.lock("account:7").acquire().await?;
    let before = BALANCE.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(1)).await;
    BALANCE.store(before + 1, Ordering::Relaxed);
    lease.release().await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::connect("file://")?;

    let threads: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || deposit(&client))
        })
        .collect();
    let tasks: Vec<_> = (0..20).map(|_| tokio::spawn(deposit_later(client.clone()))).collect();
    for task in tasks {
        task.await.unwrap()?;
    }
    for thread in threads {
        thread.join().unwrap()?;
    }

    let balance = BALANCE.load(Ordering::Relaxed);
    println!("20 threads' and 20 tasks' deposits make {balance}");
    assert_eq!(balance, 40);
    Ok(())
}
