//! The log: durability before acknowledgement.
//!
//! A sequence of numbered segments, each a header and frames; one frame is one batch, delete or
//! metadata change. [`Log`] appends (owned by the commit lock of `db`), [`Chain`] reads back. What a
//! frame means is the caller's business. Bytes: `docs/format.md`, "Log".

mod batch;
mod format;
mod frame;
mod reader;
mod record;
mod writer;

pub(crate) use batch::{BatchColumns, Definition, decode_batch, encode_batch};
pub use format::WAL_RECORD_SIZE_MAX;
pub(crate) use format::{FRAME_SIZE_MAX, FrameKind, LSN_COUNTER_BITS, SEGMENT_SIZE_MAX};
pub(crate) use frame::FrameHeader;
#[cfg(any(test, fuzzing))]
pub(crate) use frame::{SegmentHeader, put_frame};
pub(crate) use reader::{Chain, Frame, LogEnd, SegmentCopy};
pub(crate) use record::{
    DeleteRecord, MetadataRecord, decode_delete, decode_metadata, encode_delete, encode_metadata,
};
pub(crate) use writer::{Log, LogStart, SegmentInfo};
