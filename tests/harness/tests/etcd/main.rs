//! What the etcd backend promises when replies are lost, members stop, leases end and other clients take part: each test
//! is a scenario against servers and proxies of its own.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod common;
mod exit;
mod foreign;
mod late;
mod lost_leases;
mod many;
mod many_contenders;
mod members;
mod mutants;
mod other_clients;
mod request_counts;
mod waiting;
