//! Columns to bytes and back: bounded reading, checksummed envelopes, encodings. Pure: no files, no series.
//!
//! Called by everything that has bytes to write or to read: log, chunks, blocks, index, manifest. The
//! byte layouts are in `docs/format.md`, "Pages and codecs".

pub(crate) mod bits;
pub(crate) mod choose;
pub(crate) mod decimal;
pub(crate) mod exact;
pub(crate) mod frame;
pub(crate) mod frame_of_reference;
pub(crate) mod meta;
pub(crate) mod packed;
pub(crate) mod pco;
pub(crate) mod prefix;
pub(crate) mod raw;
pub(crate) mod residual;
pub(crate) mod text;
pub(crate) mod varint;
