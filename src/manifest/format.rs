//! Numbers of the manifest's layout (`docs/format.md`, "Manifest").

/// First bytes of a manifest.
pub(crate) const MANIFEST_MAGIC: [u8; 4] = *b"ICMF";
/// Version of the layout that this build writes, and the newest it reads.
pub(crate) const MANIFEST_VERSION: u16 = 1;
/// Size of the header, in bytes. It stays where it is in every version, CRC included.
pub(crate) const MANIFEST_HEADER_SIZE: usize = 44;
/// First bytes of a record, before its frame.
pub(crate) const EDIT_MAGIC: [u8; 4] = *b"ICED";
/// What devices write whole; a torn write lacks one of these.
pub(crate) const SECTOR_SIZE: usize = 512;
/// The lists of an edit are cut into records of about this many bytes, far below what a frame may hold.
pub(crate) const RECORD_SIZE_TARGET: usize = 1 << 20;
/// A manifest below this size, in bytes, is not worth writing anew.
pub(crate) const REWRITE_SIZE_MIN: u64 = 64 << 10;
/// A manifest is written anew when it has grown to this multiple of what it was when it was last written
/// anew.
pub(crate) const REWRITE_FACTOR: u64 = 4;
/// There are never more live blocks than this: blocks are few and big.
pub(crate) const BLOCK_COUNT_MAX: usize = 1 << 16;
/// Behind a record that cannot be read, so many starts of later ones are tried before it counts as damage.
pub(crate) const RESYNC_COUNT_MAX: usize = 1 << 12;
