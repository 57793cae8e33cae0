//! A scripted backend that counts what it is asked in memory that children of fork share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlock::Client;

use crate::fake::{Answer, Call, Counts, Fake};
use crate::ms;

/// A client of one that grants nothing yet.
pub fn client() -> (Client, Arc<Fake>, &'static Counts) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // SAFETY: a fresh page of zeros, which is never unmapped, and is valid for the counters.
    let counts = unsafe {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let page = libc::mmap(std::ptr::null_mut(), size_of::<Counts>(), access, kind, -1, 0);
        assert!(page != libc::MAP_FAILED);
        &*page.cast::<Counts>()
    };
    let (client, fake, _) = Fake::counting(&format!("memory://fake-{}", NEXT.fetch_add(1, Ordering::Relaxed)), counts);
    fake.script(Call::Attempt, [Answer::No]);
    // An exchange with a server takes its time.
    fake.takes(Call::Attempt, ms(1));
    fake.retry_after.store(5, Ordering::Relaxed);
    (client, fake, counts)
}

/// A client of one that grants.
pub fn granting() -> (Client, Arc<Fake>) {
    let (client, fake, _) = client();
    fake.script(Call::Attempt, [Answer::Yes]);
    (client, fake)
}
