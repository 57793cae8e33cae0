//! What the Redis backend promises when replies are lost, networks part, servers stop and processes die: each test is a
//! scenario against servers and proxies of its own.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod breaking;
mod cancel;
mod clock;
mod common;
mod connection_churn;
mod deaf;
mod exit;
mod foreign;
mod forged;
mod handover;
mod late_requests;
mod moved;
mod mutants;
mod outage;
mod partition;
mod peers;
mod process;
mod refusals;
mod renewal;
mod replies;
mod resp2;
mod rotation;
mod server_limits;
mod stale_handles;
mod strange;
mod wire_patterns;
