//! Filling a head from frames of the log, as recovery and a reader process do it.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::error::{Error, Result};
use crate::head::{Head, Scratch, key_hash};
use crate::wal::{BatchColumns, Definition, Frame, FrameKind, MetadataRecord};
use crate::wal::{decode_batch, decode_delete, decode_metadata};

/// Applies frames, in order of LSN, to one head.
///
/// References in the log are valid within one epoch; each is mapped to the head's own number of the
/// series, so frames of several epochs can fill one head.
#[derive(Debug)]
pub(crate) struct Replay {
    head: Arc<Head>,
    epoch: Option<u64>,
    ids: HashMap<u32, u32>,
    scratch: Scratch,
    /// Metadata that was replayed, with its LSNs.
    pub(crate) metadata: Vec<(u64, MetadataRecord)>,
}

impl Replay {
    /// A replay into `head`.
    pub(crate) fn new(head: Arc<Head>) -> Self {
        Replay { head, epoch: None, ids: HashMap::new(), scratch: Scratch::default(), metadata: Vec::new() }
    }

    /// Applies one frame.
    ///
    /// # Errors
    /// `Corruption` when a sound frame holds what no writer writes.
    pub(crate) fn apply(&mut self, frame: &Frame<'_>) -> Result<()> {
        self.apply_payload(frame).map_err(|error| error.at(frame.path, frame.offset))
    }

    fn apply_payload(&mut self, frame: &Frame<'_>) -> Result<()> {
        if self.epoch != Some(frame.segment.epoch) {
            self.epoch = Some(frame.segment.epoch);
            self.ids.clear();
        }
        let lsn = frame.header.lsn;
        match frame.header.kind {
            FrameKind::Batch => {
                let (definitions, mut columns) = decode_batch(frame.payload)?;
                self.define(definitions);
                self.translate(&mut columns)?;
                self.head.apply(&columns, lsn, &mut self.scratch);
            }
            FrameKind::Delete => {
                self.head.delete(&decode_delete(frame.payload)?, lsn);
            }
            FrameKind::Metadata => {
                self.metadata.push((lsn, decode_metadata(frame.payload)?));
                self.head.advance(lsn);
            }
        }
        Ok(())
    }

    fn define(&mut self, definitions: Vec<Definition>) {
        if definitions.is_empty() {
            return;
        }
        let mut registry = self.head.registry().write();
        for Definition { id, value_type, key } in definitions {
            let hash = key_hash(key.as_bytes());
            let known = registry.find(key.as_bytes(), value_type, hash);
            let own = known.unwrap_or_else(|| registry.insert(key, value_type, hash));
            self.ids.insert(id, own);
        }
    }

    fn translate(&self, columns: &mut BatchColumns) -> Result<()> {
        let mut last = None;
        for id in columns.ids.iter_mut().chain(&mut columns.bytes_ids) {
            let own = match last {
                Some((logged, own)) if logged == *id => own,
                _ => *self.ids.get(id).ok_or_else(|| undefined(*id))?,
            };
            last = Some((*id, own));
            *id = own;
        }
        Ok(())
    }
}

#[cold]
fn undefined(id: u32) -> Error {
    Error::corrupt(format!("the log uses series reference {id} without its definition"))
}
