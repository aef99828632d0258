//! Columns to bytes and back: bounded reading, checksummed envelopes, encodings. Pure: no files, no series.
//!
//! Called by everything that has bytes to write or to read: log, chunks, blocks, index, manifest. The
//! byte layouts are in `docs/format.md`, "Pages and codecs".

pub(crate) mod frame;
pub(crate) mod meta;
pub(crate) mod packed;
pub(crate) mod varint;
