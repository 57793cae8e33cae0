//! What only the ZooKeeper backend shows: its nodes, its sessions, lost answers, members of an ensemble that die, and
//! clients of other libraries.

#![allow(clippy::print_stdout, reason = "measurements")]

mod common;
mod layout;
mod lost_answers;
mod members;
mod mutants;
mod other_clients;
mod other_sessions;
mod permits;
mod queue;
mod sessions;
