//! Deliberate defects, chosen by name, that the safety tests must catch. They exist only under the feature `mutants`:
//! elsewhere `mutant!` is the constant `false`.

/// Returns true if the deliberate defect of this name is switched on.
macro_rules! mutant {
    ($name:literal) => {{
        #[cfg(feature = "mutants")]
        {
            $crate::mutant::is($name)
        }
        #[cfg(not(feature = "mutants"))]
        {
            false
        }
    }};
}

/// Every deliberate defect of this build, and what it breaks. A process has the one that the variable `DLOCK_MUTANT`
/// names; a simulation the one that it was given.
#[cfg(feature = "mutants")]
pub const MUTANTS: &[(&str, &str)] = &[
    ("validity-from-receipt", "a lease counts from the reply, not from the request"),
    ("hold-from-request", "the longest hold counts from the request, not from the grant"),
    ("never-expires", "a lease is not compared with the clock"),
    ("never-lost", "a loss is not told before the lease ends"),
    ("loss-ignored", "the backend's word that a lease is gone is not heard"),
    ("late-grant-entered", "a grant that was over when it came is handed out"),
    ("no-withdrawal", "an acquire that ended otherwise leaves its place and its grant behind"),
    ("no-drift", "clocks that run at different rates are not allowed for"),
    ("loss-told-late", "a loss is told when the lease is over, not before"),
    ("unknown-is-lost", "a renewal without an answer ends the lease"),
    ("turn-before-release", "the turn in the gate is passed on before the release is settled"),
    ("client-break-in-doubt-believed-undone", "after a break without an answer the lease is not looked at"),
    ("release-once", "a release without an answer is not repeated"),
    ("renew-after-release", "a lease is renewed while it is given back"),
    ("drop-forgets", "a dropped lease is not given back"),
    ("no-safety-net", "a waiter counts on being woken"),
    ("waits-for-cleanup", "a caller is kept until everything is cleaned up"),
    ("process-forked-call-goes-on", "a child of fork goes on with, or ends, what its parent has under way"),
    ("process-calls-count-as-driving", "a call counts as driving the runtime, also when it didn't have to wait"),
    ("process-dropped-wait-goes-on", "a wait goes on when its caller has left it"),
    ("process-hooks-where-they-are", "the hooks of a lost lease run where its loss is found"),
    ("process-one-pool-for-all", "names are resolved on the pool of the callbacks"),
    ("process-signals-taken", "the library's threads take the program's signals"),
    ("client-break-misses-a-grant", "a break is not told to a lease whose grant is on the way"),
    ("client-break-told-to-its-own", "a break is told to the leases of the client that broke it only"),
    ("client-token-of-ours-taken", "a user's token may be one that dlock has made"),
    ("client-closed-in-silence", "who loses a lease because a client is closed isn't told"),
    ("client-default-is-shared", "the default client is one handle for all who connect"),
    ("client-exit-passes-turns-on", "at an exit the next waiter of the process has its turn"),
    ("client-exit-keeps-sessions", "at an exit what the service keeps for the process is left there"),
    ("client-releases-one-by-one", "a close gives back one lease after the other"),
    ("modes-reader-overtakes", "a reader enters beside readers, although a writer waits before it"),
    ("modes-limit-off-by-one", "a semaphore lets in one permit too many"),
    ("modes-slot-given-twice", "two permits have one slot"),
    #[cfg(feature = "file")]
    ("file-counter-not-looked-at", "a process goes on with the fences of a counter that was removed"),
    #[cfg(feature = "file")]
    ("file-counter-forgotten", "a counter is made anew without what was granted before"),
    #[cfg(feature = "redis")]
    ("redis-handed-over-from-receipt", "a handed-over lock counts from the message, not from the request"),
    #[cfg(feature = "redis")]
    ("redis-handed-over-late-not-renewed", "a lock handed over late is entered with what is left of it"),
    #[cfg(feature = "redis")]
    ("redis-unwanted-grant-kept", "what is handed to a claim that has ended stays with it"),
    #[cfg(feature = "redis")]
    ("redis-no-reaper", "a request that may still arrive is forgotten"),
    #[cfg(feature = "redis")]
    ("redis-release-forgets-doubt", "a repeated release that finds nothing is a loss"),
    #[cfg(feature = "redis")]
    ("redis-take-overwrites", "an acquire doesn't look whether there is an owner"),
    #[cfg(feature = "redis")]
    ("redis-take-again-is-busy", "an acquire that is repeated doesn't know its own lock"),
    #[cfg(feature = "redis")]
    ("redis-take-barges", "an acquire doesn't look whether others wait"),
    #[cfg(feature = "redis")]
    ("redis-late-take-accepted", "a request that arrives after its caller has gone is served"),
    #[cfg(feature = "redis")]
    ("redis-only-releases-promote", "a waiter that finds the lock free doesn't have it given to the first"),
    #[cfg(feature = "redis")]
    ("redis-dead-contender-served", "a contender that was not heard of for long is given the lock"),
    #[cfg(feature = "redis")]
    ("redis-release-without-owner-check", "a release deletes whatever is there"),
    #[cfg(feature = "redis")]
    ("redis-renew-without-owner-check", "a renewal prolongs whatever is there"),
    #[cfg(feature = "redis")]
    ("redis-message-believed", "a message tells from when the lock counts that it grants"),
    #[cfg(feature = "redis")]
    ("redis-messages-replicated", "a replica's listeners hear of grants that were taken back"),
    #[cfg(feature = "redis")]
    ("redis-break-takes-any-owner", "a break that arrives twice takes the lock of the next owner too"),
    ("redis-break-deletes-anything", "breaking a lock deletes what is none"),
    #[cfg(feature = "redis")]
    ("redis-renewals-forget-the-fence", "a renewal doesn't keep what the lease needs beside its key"),
    #[cfg(feature = "redis")]
    ("redis-polling-head-overtaken", "the turn of a waiter that no message reaches isn't kept"),
    #[cfg(feature = "redis")]
    ("redis-fence-not-floored", "fences begin anew when the server has lost its data"),
    #[cfg(feature = "etcd")]
    ("etcd-own-key-not-checked", "a waiter with none before it doesn't look whether its own key is there"),
    #[cfg(feature = "etcd")]
    ("etcd-ended-lease-kept", "a keep-alive that is answered without a ttl counts as kept"),
    #[cfg(feature = "etcd")]
    ("etcd-deletes-by-name", "a release deletes whatever is under its key"),
    #[cfg(feature = "etcd")]
    ("etcd-listens-after-reading", "a waiter listens only after it has read whom it waits for"),
    #[cfg(feature = "etcd")]
    ("etcd-unsettled-forgotten", "a put that may still be done is forgotten"),
    #[cfg(feature = "etcd")]
    ("etcd-release-forgets-doubt", "a repeated release that finds nothing is a loss"),
    #[cfg(feature = "etcd")]
    ("etcd-one-lease-for-all", "however many keys there are, one lease carries them"),
    #[cfg(feature = "etcd")]
    ("etcd-longer-names-looked-through", "what was seen of the keys of longer names is forgotten"),
    #[cfg(feature = "mysql")]
    ("mysql-no-wait-timeout", "a session has the server's own wait_timeout"),
    #[cfg(feature = "mysql")]
    ("mysql-reconnects-under-a-lock", "a session goes on with another connection, as if it were the same"),
    #[cfg(feature = "mysql")]
    ("mysql-holder-waits", "a session that holds a lock waits for another"),
    #[cfg(feature = "mysql")]
    ("mysql-unsafe-names", "every key is sent as it is"),
    #[cfg(feature = "mysql")]
    ("mysql-table-version-ignored", "a row is written whatever its version is"),
    #[cfg(feature = "mysql")]
    ("mysql-table-expired-holds", "a claim that has expired keeps its place"),
    #[cfg(feature = "mysql")]
    ("mysql-table-waiters-overtaken", "a claim may hold beside the holders alone"),
    #[cfg(feature = "mysql")]
    ("mysql-table-fence-not-stepped", "every grant has the same fencing token"),
    #[cfg(feature = "mysql")]
    ("mysql-table-late-write-forgotten", "a write without an answer may be applied at any time"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-no-guid", "the names of a claim's nodes are those of any other claim"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-nobody-is-before", "whoever has a node has the lock"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-first-watched", "a waiter watches the first of the queue, not the one before it"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-permits-without-turn", "claims for permits don't take the lock of the permits, which kazoo's take"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-asked-timeout-trusted", "a lease counts for the whole timeout of its session"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-foreign-node-accepted", "a node of another session is taken for one's own"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-numbers-as-text", "the numbers of nodes are compared as text"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-follower-trusted", "what a follower answers counts as known to the leader"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-sync-trusted", "what a leader answers without a majority counts"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-noted-slots-forgotten", "a claim whose slots were noted without an answer begins anew"),
    #[cfg(feature = "zookeeper")]
    ("zookeeper-late-request-trusted", "a request counts as having reached its follower when it was sent"),
];

#[cfg(feature = "mutants")]
thread_local! {
    static SIMULATED: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Sets the deliberate defect of the simulation that runs on this thread.
#[cfg(feature = "testing")]
pub(crate) fn choose(name: Option<&'static str>) {
    SIMULATED.set(name);
}

/// The defect that the processes of a test are started with.
#[cfg(feature = "mutants")]
pub(crate) fn is(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    if let Some(simulated) = SIMULATED.get() {
        return simulated == name;
    }
    let chosen = CHOSEN.get_or_init(|| {
        let chosen = std::env::var("DLOCK_MUTANT").ok().filter(|name| !name.is_empty());
        if let Some(name) = &chosen {
            assert!(MUTANTS.iter().any(|(known, _)| known == name), "there is no deliberate defect {name}");
        }
        chosen
    });
    chosen.as_deref() == Some(name)
}
