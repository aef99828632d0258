//! The envelope of a frame and the header of a segment: to bytes and back, pure.
//!
//! `docs/format.md`, "Segment header" and "Frame". The CRC of a frame starts from the number and the
//! incarnation of its segment, so that bytes left over from another file or another life of the
//! database never pass.

use crate::codec::varint::{Reader, put_u8, put_u16, put_u32, put_u64};
use crate::error::{Error, Result};
use crate::wal::format::{
    FRAME_HEADER_SIZE, FRAME_MAGIC, FRAME_SIZE_MAX, FrameKind, SEGMENT_HEADER_SIZE, SEGMENT_MAGIC,
    SEGMENT_VERSION,
};

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    /// The database that the segment belongs to.
    pub(crate) database_id: [u8; 16],
    /// The segment's own number, as in its file name.
    pub(crate) number: u64,
    /// Which open of the database wrote it.
    pub(crate) incarnation: u64,
    /// The number of the first segment of its epoch: references are valid among segments that agree.
    pub(crate) epoch: u64,
    /// LSN of the last frame before the segment. Frames of earlier segments above it were never acknowledged.
    pub(crate) previous_lsn: u64,
    /// Everything up to this LSN was on the device when the segment was begun.
    pub(crate) durable_lsn: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_SIZE);
        out.extend_from_slice(&SEGMENT_MAGIC);
        put_u16(&mut out, SEGMENT_VERSION);
        put_u16(&mut out, 0);
        out.extend_from_slice(&self.database_id);
        put_u64(&mut out, self.number);
        put_u64(&mut out, self.incarnation);
        put_u64(&mut out, self.epoch);
        put_u64(&mut out, self.previous_lsn);
        put_u64(&mut out, self.durable_lsn);
        let crc = crc32fast::hash(&out);
        put_u32(&mut out, crc);
        out
    }

    /// Reads the first bytes of a segment.
    ///
    /// # Errors
    /// `UnsupportedVersion` for a newer layout, otherwise `Corruption`.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let header = bytes
            .get(..SEGMENT_HEADER_SIZE)
            .ok_or_else(|| Error::corrupt("the segment is shorter than its header"))?;
        let mut reader = Reader::new(header);
        if reader.array::<4>()? != SEGMENT_MAGIC {
            return Err(Error::corrupt("the segment does not start with its magic"));
        }
        let version = reader.u16()?;
        let (body, crc) = header.split_at(SEGMENT_HEADER_SIZE - 4);
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Err(Error::corrupt("CRC of the segment's header differs"));
        }
        if version > SEGMENT_VERSION {
            return Err(Error::unsupported_version("", u32::from(version), u32::from(SEGMENT_VERSION)));
        }
        let reserved = reader.u16()?;
        let header = SegmentHeader {
            database_id: reader.array()?,
            number: reader.u64()?,
            incarnation: reader.u64()?,
            epoch: reader.u64()?,
            previous_lsn: reader.u64()?,
            durable_lsn: reader.u64()?,
        };
        if version == 0 || reserved != 0 {
            return Err(Error::corrupt("reserved bytes of the segment's header are set"));
        }
        Ok(header)
    }

    /// The CRC state from which every frame of this segment starts.
    pub(crate) fn seed(&self) -> crc32fast::Hasher {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.database_id);
        hasher.update(&self.number.to_le_bytes());
        hasher.update(&self.incarnation.to_le_bytes());
        hasher
    }
}

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    pub(crate) lsn: u64,
    /// LSN of the frame before it, in whichever segment.
    pub(crate) previous_lsn: u64,
    /// Everything up to this LSN was on the device when the frame was written.
    pub(crate) durable_lsn: u64,
}

/// Appends a frame around the payload that `write` appends.
pub(crate) fn put_frame(
    out: &mut Vec<u8>,
    seed: &crc32fast::Hasher,
    header: FrameHeader,
    write: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&FRAME_MAGIC);
    put_u64(out, 0); // length and CRC, filled in below
    put_u8(out, header.kind as u8);
    out.extend_from_slice(&[0; 3]);
    put_u64(out, header.lsn);
    put_u64(out, header.previous_lsn);
    put_u64(out, header.durable_lsn);
    write(out);
    let length = (out.len() - start - FRAME_HEADER_SIZE) as u32;
    if let Some(frame) = out.get_mut(start..) {
        frame[4..8].copy_from_slice(&length.to_le_bytes());
        let mut crc = seed.clone();
        crc.update(&length.to_le_bytes());
        crc.update(&frame[12..]);
        frame[8..12].copy_from_slice(&crc.finalize().to_le_bytes());
    }
}

/// Reads the frame at the start of `bytes`: its header and payload. `None` when no whole, sound frame
/// lies there.
pub(crate) fn get_frame<'a>(bytes: &'a [u8], seed: &crc32fast::Hasher) -> Option<(FrameHeader, &'a [u8])> {
    let mut reader = Reader::new(bytes);
    if reader.array::<4>().ok()? != FRAME_MAGIC {
        return None;
    }
    let length = reader.array::<4>().ok()?;
    let crc = reader.u32().ok()?;
    let size = u32::from_le_bytes(length) as usize;
    if size > FRAME_SIZE_MAX {
        return None;
    }
    let checked = bytes.get(12..FRAME_HEADER_SIZE + size)?;
    let mut actual = seed.clone();
    actual.update(&length);
    actual.update(checked);
    if actual.finalize() != crc {
        return None;
    }
    let kind = FrameKind::from_number(reader.u8().ok()?)?;
    reader.bytes(3).ok()?;
    let header = FrameHeader {
        kind,
        lsn: reader.u64().ok()?,
        previous_lsn: reader.u64().ok()?,
        durable_lsn: reader.u64().ok()?,
    };
    Some((header, bytes.get(FRAME_HEADER_SIZE..FRAME_HEADER_SIZE + size)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: SegmentHeader = SegmentHeader {
        database_id: [3; 16],
        number: 5,
        incarnation: 2,
        epoch: 4,
        previous_lsn: 99,
        durable_lsn: 98,
    };
    const FRAME: FrameHeader =
        FrameHeader { kind: FrameKind::Batch, lsn: 100, previous_lsn: 99, durable_lsn: 50 };

    #[test]
    fn segment_header_round_trips_and_rejects_every_flip() {
        let bytes = HEADER.encode();
        assert_eq!(bytes.len(), SEGMENT_HEADER_SIZE);
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), HEADER);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn frame_round_trips_and_rejects_every_flip_cut_and_other_segment() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, &HEADER.seed(), FRAME, |out| out.extend_from_slice(b"payload"));
        assert_eq!(get_frame(&bytes, &HEADER.seed()), Some((FRAME, &b"payload"[..])));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(get_frame(&flipped, &HEADER.seed()), None, "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(get_frame(&bytes[..cut], &HEADER.seed()), None);
        }
        let other = SegmentHeader { incarnation: 3, ..HEADER };
        assert_eq!(get_frame(&bytes, &other.seed()), None);
    }
}
