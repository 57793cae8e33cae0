//! What only the ZooKeeper backend shows: its nodes, its sessions, lost answers, and clients of other libraries.

mod common;
mod layout;
mod lost_answers;
mod mutants;
mod other_clients;
mod sessions;
