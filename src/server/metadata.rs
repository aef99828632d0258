//! Metadata that is known to be stored, since senders repeat it with every request.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::Frame;
use crate::error::Result;
use crate::model::Metadata;

/// Most metrics that are remembered.
const METRIC_COUNT_MAX: usize = 100_000;

/// What was stored last, by metric.
#[derive(Debug, Default)]
pub(super) struct KnownMetadata(Mutex<HashMap<String, Metadata>>);

impl Frame {
    /// Stores what is said of the metric `name`, unless it was the last that was said.
    ///
    /// # Errors
    /// As [`Db::set_metadata`](crate::Db::set_metadata).
    pub(super) fn describe(&self, name: &str, metadata: Metadata) -> Result<()> {
        if self.known_metadata.0.lock().get(name) == Some(&metadata) {
            return Ok(());
        }
        self.db.set_metadata(name, metadata.clone())?;
        let mut known = self.known_metadata.0.lock();
        if known.len() >= METRIC_COUNT_MAX {
            known.clear();
        }
        known.insert(name.to_owned(), metadata);
        Ok(())
    }
}
