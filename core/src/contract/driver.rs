//! How a backend is named, configured and reached.

use std::sync::Arc;

use super::backend::Backend;
use super::capability::Capabilities;
use super::context::Context;
use crate::config::{Config, Schema};
use crate::error::Result;

/// How a backend is configured and made.
#[derive(Debug)]
pub struct Driver {
    /// How it is named and configured.
    pub schema: &'static Schema,
    /// What it can do and promises where nothing else is configured.
    pub capabilities: fn() -> Capabilities,
    /// Makes the backend. No I/O: that begins with the first request.
    pub connect: fn(&Config, Context) -> Result<Arc<dyn Backend>>,
}
