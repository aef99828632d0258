//! Numbers of the log's layout (`docs/format.md`, "Log").

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 4] = *b"ICWL";
/// Version of the segment layout that this build writes, and the newest it reads.
pub(crate) const SEGMENT_VERSION: u16 = 1;
/// Size of a segment's header, in bytes.
pub(crate) const SEGMENT_HEADER_SIZE: usize = 68;
/// First bytes of a frame.
pub(crate) const FRAME_MAGIC: [u8; 4] = *b"ICFR";
/// Size of a frame's header, in bytes.
pub(crate) const FRAME_HEADER_SIZE: usize = 40;
/// Largest payload of one frame, in bytes: what one batch may take in the log.
pub const WAL_RECORD_SIZE_MAX: usize = 16 << 20;
/// Largest payload that a frame can have, in bytes: a batch and the definitions of all series it is the first to use.
pub(crate) const FRAME_SIZE_MAX: usize = 256 << 20;
/// A segment is closed when it has grown to this many bytes.
pub(crate) const SEGMENT_SIZE_MAX: u64 = 16 << 20;
/// A segment starts with this much space allocated and doubles it as it grows.
pub(crate) const SEGMENT_SIZE_MIN: u64 = 256 << 10;
/// Bits of an LSN that count frames; the bits above hold the incarnation of the open that gave it.
pub(crate) const LSN_COUNTER_BITS: u32 = 40;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameKind {
    /// Definitions and samples.
    Batch = 1,
    /// A delete: matchers and a time range.
    Delete = 2,
    /// Metadata of a metric name.
    Metadata = 3,
}

impl FrameKind {
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(FrameKind::Batch),
            2 => Some(FrameKind::Delete),
            3 => Some(FrameKind::Metadata),
            _ => None,
        }
    }
}
