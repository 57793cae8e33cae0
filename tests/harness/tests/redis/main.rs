//! What the Redis backend promises when replies are lost, networks part, servers stop and processes die: each test is a
//! scenario against servers and proxies of its own.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod cancel;
mod clock;
mod common;
mod data;
mod deaf;
mod exit;
mod foreign;
mod forged;
mod handover;
mod late;
mod limits;
mod moved;
mod mutants;
mod old;
mod outage;
mod partition;
mod peers;
mod process;
mod refusals;
mod renewal;
mod replies;
mod rotation;
mod storm;
mod strange;
mod wire;
