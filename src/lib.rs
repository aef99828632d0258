//! Embedded time-series storage engine: exact, compressed, crash-safe history of metrics, sessions
//! and events on local disk.

mod error;
mod model;

pub use error::{Error, ErrorKind, Result};
pub use model::*;
