//! What only MySQL and MariaDB show: sessions and what ends them, names, a clock that is set, and other clients.

#![allow(clippy::print_stdout, reason = "measurements")]

mod common;
mod mutants;
mod names;
mod other_clients;
mod sessions;
mod table;
mod waits;
