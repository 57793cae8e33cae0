//! How a backend is named, configured and reached.

use std::sync::Arc;

use super::backend::Backend;
use super::capability::Capabilities;
use super::context::Context;
use crate::config::{Config, Schema, Values};
use crate::error::Result;

/// How a backend is configured and made.
#[derive(Debug)]
pub struct Driver {
    /// How it is named and configured.
    pub schema: &'static Schema,
    /// What a backend with these options can do and promises: its mode may decide.
    pub capabilities: fn(&Values) -> Capabilities,
    /// Makes the backend. No I/O: that begins with the first request.
    pub connect: fn(&Config, Context) -> Result<Arc<dyn Backend>>,
}
