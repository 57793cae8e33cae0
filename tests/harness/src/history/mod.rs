//! Histories of lock calls: written while programs run, by processes that outlive them, and judged afterwards.

pub mod check;
mod count;
pub mod event;
mod foreign;
mod hold;
mod honest;
pub mod record;
pub mod resource;

pub use check::{Class, Plan, Verdict, Violation, check};
pub use event::{Event, Fault, History, Line, Name, Phase, Sample, Verb, now};
