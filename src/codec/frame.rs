//! An envelope around bytes: length, the bytes, CRC-32. Layout in `docs/format.md`, "Frames".
//!
//! Called by [`super::meta`] and by writers of file sections. The log has frames of its own.

use crate::codec::varint::{Reader, put_u32};
use crate::error::{Error, Result};

/// What a frame adds to its bytes: length and checksum.
pub(crate) const FRAME_OVERHEAD_SIZE: usize = 8;

/// Appends `bytes` in an envelope. The CRC also covers the length, so that a run of zeros, as a torn
/// write leaves it, is no frame.
///
/// # Panics
/// When `bytes` is 4 GiB or more; callers hold limits far below.
pub(crate) fn put_frame(out: &mut Vec<u8>, bytes: &[u8]) {
    let size = u32::try_from(bytes.len()).expect("a frame is smaller than 4 GiB");
    put_u32(out, size);
    out.extend_from_slice(bytes);
    put_u32(out, checksum(size, bytes));
}

/// The bytes of the frame at the cursor, checked.
///
/// # Errors
/// `Corruption` when it is cut short or its CRC differs.
pub(crate) fn read_frame<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8]> {
    let start = reader.position();
    let size = reader.u32()?;
    let bytes = reader.bytes(size as usize)?;
    let found = reader.u32()?;
    let expected = checksum(size, bytes);
    if found == expected { Ok(bytes) } else { Err(differs(start, expected, found)) }
}

fn checksum(size: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&size.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

#[cold]
fn differs(position: usize, expected: u32, found: u32) -> Error {
    Error::corrupt(format!(
        "CRC of the frame at byte {position} is {found:#010x}, its bytes have {expected:#010x}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_frame(&mut out, bytes);
        out
    }

    #[test]
    fn frame_has_known_bytes() {
        assert_eq!(framed(b"abc"), [3, 0, 0, 0, b'a', b'b', b'c', 0x33, 0x5d, 0xe1, 0x66]);
    }

    #[test]
    fn frames_follow_each_other() {
        let mut out = framed(b"one");
        put_frame(&mut out, b"");
        put_frame(&mut out, b"three");
        let mut reader = Reader::new(&out);
        assert_eq!(read_frame(&mut reader).unwrap(), b"one");
        assert_eq!(read_frame(&mut reader).unwrap(), b"");
        assert_eq!(read_frame(&mut reader).unwrap(), b"three");
        assert!(reader.finish().is_ok());
    }

    #[test]
    fn zeros_are_no_frame() {
        assert!(read_frame(&mut Reader::new(&[0; 64])).is_err());
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let good = framed(b"some bytes");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_frame(&mut Reader::new(&bad)).is_err(), "bit {bit}");
        }
        for size in 0..good.len() {
            assert!(read_frame(&mut Reader::new(&good[..size])).is_err(), "cut at {size}");
        }
    }
}
