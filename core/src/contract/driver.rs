//! The entry of a backend in the list of drivers.

use std::sync::Arc;

use super::backend::Backend;
use super::capability::Capabilities;
use super::context::Context;
use crate::config::{Config, Schema, Values};
use crate::error::Result;

/// The configuration and the making of a backend.
#[derive(Debug)]
pub struct Driver {
    /// Its names and options.
    pub schema: &'static Schema,
    /// Returns what a backend with these options can do and promises: its mode may decide.
    pub capabilities: fn(&Values) -> Capabilities,
    /// Makes the backend. No I/O: that begins with the first request.
    pub connect: fn(&Config, Context) -> Result<Arc<dyn Backend>>,
}
