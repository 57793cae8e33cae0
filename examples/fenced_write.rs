//! A write with a fencing token: the store rejects the write of a former holder, however late it comes.
//!
//! No lock can stop a process that sleeps between its last check of the lock and its write. The store can. It keeps the
//! greatest fencing token it has seen and rejects a write with a smaller one. `fenced_write.py` does this in SQL.

#![allow(clippy::print_stdout)]

use std::sync::Mutex;
use std::time::Duration;

use dlock::{Client, Lease, Result};

#[derive(Default)]
struct Price {
    cents: u32,
    fence: u64,
}

/// Writes if no later holder has written. Comparison and write are one step in the store.
fn write(store: &Mutex<Price>, lease: &Lease, cents: u32) -> bool {
    let fence = lease.fence().expect("this backend has fences");
    let mut price = store.lock().unwrap();
    if fence < price.fence {
        return false;
    }
    *price = Price { cents, fence };
    true
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let client = Client::connect("memory://fenced-write")?;
    let store = Mutex::new(Price { cents: 250, fence: 0 });

    // A worker without renewal that sleeps past its ttl, as a paused virtual machine would …
    let lock = client.lock("price:tea").ttl(Duration::from_millis(200)).auto_renew(false);
    let sleepy = lock.acquire().await?;
    tokio::time::sleep(Duration::from_millis(300)).await;

    // … so that another one has the lock, and writes.
    let awake = client.lock("price:tea").wait(Duration::from_secs(5)).acquire().await?;
    println!("fence {:?}: written {}", awake.fence(), write(&store, &awake, 300));
    awake.release().await?;

    // The first wakes up and knows nothing yet.
    let late = write(&store, &sleepy, 199);
    println!("fence {:?}: written {late}", sleepy.fence());

    let cents = store.lock().unwrap().cents;
    println!("the price is {cents}");
    assert!(!late);
    assert_eq!(cents, 300);
    Ok(())
}
