//! What only the Redis backend shows when faults are injected into its servers, networks and clients: each test is a
//! scenario against servers and proxies of its own. What other backends show too is in `tests/faults`.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod addresses;
mod breaking;
mod cancel;
mod clock;
mod common;
mod connection_churn;
mod deaf;
mod foreign;
mod forged;
mod handover;
mod late_requests;
mod moved;
mod mutants;
mod peers;
mod refusals;
mod renewal;
mod resp2;
mod server_limits;
mod stale_handles;
mod strange;
mod wire_patterns;
