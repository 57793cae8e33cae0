//! What the etcd backend promises when replies are lost, members stop, leases end and other clients take part: each test
//! is a scenario against servers and proxies of its own.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod beside;
mod common;
mod cost;
mod crowd;
mod exit;
mod foreign;
mod late;
mod many;
mod members;
mod mutants;
mod taken;
mod waiting;
