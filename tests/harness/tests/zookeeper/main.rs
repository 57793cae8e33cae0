//! What only the ZooKeeper backend shows: its nodes, its sessions, its ensembles, lost answers, and clients of other
//! libraries.

#![allow(clippy::print_stdout, reason = "measurements")]

mod common;
mod layout;
mod lost_answers;
mod members;
mod mutants;
mod other_sessions;
mod queue;
mod sessions;
