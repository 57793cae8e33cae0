//! What only the etcd backend shows when members stop, leases end and other clients take part: each test is a scenario
//! against servers and proxies of its own. What other backends show too is in `tests/faults`.

#![allow(clippy::print_stdout, reason = "measurements")]

mod access;
mod common;
mod foreign;
mod late;
mod listing;
mod lost_leases;
mod many;
mod many_contenders;
mod members;
mod mutants;
mod other_clients;
mod request_counts;
mod waiting;
