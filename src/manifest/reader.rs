//! Bytes of a manifest to its state; tells a write that a crash cut short from damage. Pure.
//!
//! `docs/format.md`, "Manifest". Called by [`super::read`], with whatever bytes a crash, a disk or an enemy
//! left.

use std::path::Path;

use crate::codec::frame::FRAME_OVERHEAD_SIZE;
use crate::codec::varint::{Reader, put_u16, put_u32, put_u64};
use crate::error::{Error, Result};
use crate::manifest::format::{
    EDIT_MAGIC, MANIFEST_HEADER_SIZE, MANIFEST_MAGIC, MANIFEST_VERSION, RESYNC_COUNT_MAX, SECTOR_SIZE,
};
use crate::manifest::record::{Record, read_record};
use crate::manifest::state::State;

/// What a manifest held.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loaded {
    /// The sum of its whole edits.
    pub state: State,
    /// The number of the last one.
    pub sequence: u64,
    /// Bytes behind it: of an edit that was being written, by a crashed process or by one that is at work
    /// now.
    pub torn_size: u64,
}

/// What a manifest says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) database_id: [u8; 16],
    /// The number of its first records.
    pub(super) sequence: u64,
    /// How much of the file, header included, was on the device before it was called the manifest.
    pub(super) base_size: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MANIFEST_HEADER_SIZE);
        out.extend_from_slice(&MANIFEST_MAGIC);
        put_u16(&mut out, MANIFEST_VERSION);
        put_u16(&mut out, 0);
        out.extend_from_slice(&self.database_id);
        put_u64(&mut out, self.sequence);
        put_u64(&mut out, self.base_size);
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let header = bytes.get(..MANIFEST_HEADER_SIZE);
        let header = header.ok_or_else(|| Error::corrupt("the manifest is shorter than its header"))?;
        let mut reader = Reader::new(header);
        if reader.bytes(4)? != MANIFEST_MAGIC {
            return Err(Error::corrupt("the manifest does not start with its magic"));
        }
        let (version, reserved) = (reader.u16()?, reader.u16()?);
        let (body, crc) = header.split_at(MANIFEST_HEADER_SIZE - 4);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(Error::corrupt("CRC of the manifest's header differs"));
        }
        if version > MANIFEST_VERSION {
            return Err(Error::unsupported_version("", u32::from(version), u32::from(MANIFEST_VERSION)));
        }
        if version == 0 || reserved != 0 {
            return Err(Error::corrupt("reserved bytes of the manifest's header are set"));
        }
        Ok(Header { database_id: reader.array()?, sequence: reader.u64()?, base_size: reader.u64()? })
    }
}

/// The state that `bytes` of the manifest at `path` describe.
///
/// # Errors
/// `UnsupportedVersion`; `Corruption`, with the offset, for everything that a crash while appending cannot
/// have left.
pub(super) fn load(bytes: &[u8], path: &Path) -> Result<Loaded> {
    let header = Header::decode(bytes).map_err(|error| error.at(path, 0))?;
    let mut loaded =
        Loaded { state: State::new(header.database_id), sequence: header.sequence, torn_size: 0 };
    let mut position = MANIFEST_HEADER_SIZE;
    while let Some(rest) = bytes.get(position..).filter(|rest| !rest.is_empty()) {
        let synced = (position as u64) < header.base_size;
        match load_record(rest, synced, &mut loaded) {
            Ok(size) => position += size,
            Err(error) if synced => return Err(error.at(path, position as u64)),
            Err(error) => {
                check_torn(rest, position, loaded.sequence, error)
                    .map_err(|error| error.at(path, position as u64))?;
                loaded.torn_size = rest.len() as u64;
                return Ok(loaded);
            }
        }
    }
    if (position as u64) < header.base_size {
        return Err(Error::corruption(
            path,
            position as u64,
            "the manifest ends before what was synced of it",
        ));
    }
    Ok(loaded)
}

/// Adds the record at the start of `bytes` to what is loaded; returns its size. `synced` ones all have one
/// number.
fn load_record(bytes: &[u8], synced: bool, loaded: &mut Loaded) -> Result<usize> {
    let mut reader = Reader::new(bytes);
    let Record { sequence, edit } = read_record(&mut reader)?;
    let next = if synced { loaded.sequence } else { loaded.sequence.saturating_add(1) };
    if sequence != loaded.sequence && sequence != next {
        return Err(Error::corrupt(format!("a record has number {sequence}, after {}", loaded.sequence)));
    }
    let applied = loaded.state.apply(&edit);
    applied.map_err(|problem| Error::corrupt(format!("an edit is impossible: {problem}")))?;
    loaded.sequence = sequence;
    Ok(reader.position())
}

/// Whether `tail`, the bytes from `position` on, is what a crash leaves of the write that follows number
/// `sequence`, the only one that can have been under way. `error` says why it does not start with a record.
///
/// # Errors
/// `Corruption` when it is not: later writes follow, so this one was synced; or nothing of it is missing.
fn check_torn(tail: &[u8], position: usize, sequence: u64, error: Error) -> Result<()> {
    if is_followed(tail, sequence.saturating_add(1)) {
        return Err(error.context("later records follow a damaged one"));
    }
    let whole = read_record(&mut Reader::new(tail)).is_ok();
    if !whole && (is_cut_short(tail) || lacks_a_sector(tail, position)) {
        return Ok(());
    }
    Err(error.context("the last record is damaged, not torn"))
}

/// Whether a record of a later write than `sequence` starts anywhere in `tail`.
fn is_followed(tail: &[u8], sequence: u64) -> bool {
    let starts = tail.windows(EDIT_MAGIC.len()).enumerate().filter(|(_, window)| *window == EDIT_MAGIC);
    for (count, (start, _)) in starts.enumerate() {
        if count == RESYNC_COUNT_MAX {
            // No single write looks like this.
            return true;
        }
        let mut reader = Reader::new(tail.get(start..).unwrap_or_default());
        if read_record(&mut reader).is_ok_and(|record| record.sequence > sequence) {
            return true;
        }
    }
    false
}

/// Whether the file ends inside the first record of `tail`, and not only because its length is damaged.
fn is_cut_short(tail: &[u8]) -> bool {
    let overhead = EDIT_MAGIC.len() + FRAME_OVERHEAD_SIZE;
    let Some(inside) = tail.len().checked_sub(overhead) else { return true };
    let mut whole = tail.to_vec();
    let Some(length) = whole.get_mut(EDIT_MAGIC.len()..EDIT_MAGIC.len() + 4) else { return true };
    let said = length.iter().rev().fold(0_usize, |n, byte| n << 8 | usize::from(*byte));
    length.copy_from_slice(&u32::try_from(inside).unwrap_or(u32::MAX).to_le_bytes());
    said > inside && read_record(&mut Reader::new(&whole)).is_err()
}

/// Whether a sector that `tail`, at `position` in the file, reaches into holds only zeros of it, as before
/// the write.
fn lacks_a_sector(tail: &[u8], position: usize) -> bool {
    let first = (SECTOR_SIZE - position % SECTOR_SIZE).min(tail.len());
    let (start, rest) = tail.split_at(first);
    std::iter::once(start).chain(rest.chunks(SECTOR_SIZE)).any(|part| part.iter().all(|byte| *byte == 0))
}
