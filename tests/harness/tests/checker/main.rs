//! The history checker against hand-written histories, an independent checker and broken locks; and how long it takes.

#![allow(clippy::print_stdout, reason = "tests that report figures")]

mod classes;
mod differential;
mod speed;
mod toy;
