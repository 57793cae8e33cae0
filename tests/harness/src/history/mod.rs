//! Histories of lock calls. Running programs write them, recorder processes that outlive the programs keep them, and a
//! judge reads them afterwards.

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
