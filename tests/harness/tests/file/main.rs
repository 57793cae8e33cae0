//! What the file backend promises when its files are removed, cut off or replaced, when the clock is set, and when
//! several users share a directory: each test is a scenario in a directory of its own, with processes of its own.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the other process answers there")]

mod common;
mod counter;
mod mutants;
mod shared;
