//! Compressed request bodies to plain bytes, within a bound that is checked before anything is allocated.
//!
//! Pure: bytes in, bytes out. Called by the server with the value of `Content-Encoding`.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{MultiGzDecoder, ZlibDecoder};

use crate::error::{Error, Result};

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 1950, what HTTP calls "deflate".
    Deflate,
    /// Snappy: one block as remote write sends it, or the framed stream; told apart by the stream's first bytes.
    Snappy,
}

/// No snappy block grows by more than this when it is decompressed: its densest element is a copy of 64 bytes
/// written in 3.
const SNAPPY_GROWTH_MAX: usize = 22;
/// The first bytes of the framed format ("Snappy framing format description", section 4.1).
const SNAPPY_STREAM_START: &[u8] = b"\xff\x06\x00\x00sNaPpY";
/// Room that a decompressed stream gets before its size is known, as a multiple of the compressed size.
const GROWTH_FIRST: usize = 4;

impl Encoding {
    /// From the value of `Content-Encoding`, absent being the empty string. `None` for one that is not known.
    pub fn from_header(value: &str) -> Option<Self> {
        match value.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Some(Encoding::Identity),
            "gzip" | "x-gzip" => Some(Encoding::Gzip),
            "deflate" => Some(Encoding::Deflate),
            "snappy" | "x-snappy-framed" => Some(Encoding::Snappy),
            _ => None,
        }
    }
}

/// The plain bytes of `body`, borrowed when it is not compressed.
///
/// # Errors
/// `LimitExceeded` when they are more than `size_max`; `InvalidInput` when the body is not what `encoding` says. What
/// is allocated never exceeds `size_max`, nor a small multiple of what the body has shown so far.
pub fn decode(encoding: Encoding, body: &[u8], size_max: usize) -> Result<Cow<'_, [u8]>> {
    decode_reserving(encoding, body, size_max, &mut |_| Ok(()))
}

/// As [`decode`], and `reserve` is asked with the number of bytes before that many more are allocated.
///
/// # Errors
/// Those of `reserve` besides.
pub fn decode_reserving<'a>(
    encoding: Encoding,
    body: &'a [u8],
    size_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Cow<'a, [u8]>> {
    let plain = match encoding {
        Encoding::Identity if body.len() > size_max => return Err(too_big(size_max)),
        Encoding::Identity => return Ok(Cow::Borrowed(body)),
        Encoding::Gzip => read_bounded(MultiGzDecoder::new(body), "gzip", body.len(), size_max, reserve)?,
        Encoding::Deflate => read_bounded(ZlibDecoder::new(body), "deflate", body.len(), size_max, reserve)?,
        Encoding::Snappy if body.starts_with(SNAPPY_STREAM_START) => {
            read_bounded(snap::read::FrameDecoder::new(body), "snappy", body.len(), size_max, reserve)?
        }
        Encoding::Snappy => {
            let mut plain = Vec::new();
            reserve(snappy_block_size(body, size_max)?)?;
            decode_snappy_block(body, size_max, &mut plain)?;
            plain
        }
    };
    Ok(Cow::Owned(plain))
}

/// Decompresses one snappy block into `plain`, whose former content is dropped and whose memory is used again.
///
/// # Errors
/// As [`decode`]. The declared length is checked against `size_max` and against what a block of this size can hold
/// before `plain` grows.
pub fn decode_snappy_block(body: &[u8], size_max: usize, plain: &mut Vec<u8>) -> Result<()> {
    plain.resize(snappy_block_size(body, size_max)?, 0);
    let size =
        snap::raw::Decoder::new().decompress(body, plain).map_err(|error| damaged("snappy", &error))?;
    plain.truncate(size);
    Ok(())
}

/// The size that a snappy block declares, if it can be.
fn snappy_block_size(body: &[u8], size_max: usize) -> Result<usize> {
    let declared = snap::raw::decompress_len(body).map_err(|error| damaged("snappy", &error))?;
    if declared > size_max {
        return Err(too_big(size_max));
    }
    if declared > body.len().saturating_mul(SNAPPY_GROWTH_MAX) {
        return Err(Error::invalid_input(format!(
            "snappy body of {} bytes declares {declared} bytes, more than it can hold",
            body.len()
        )));
    }
    Ok(declared)
}

fn read_bounded(
    mut reader: impl Read,
    name: &str,
    compressed: usize,
    size_max: usize,
    reserve: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut room = compressed.saturating_mul(GROWTH_FIRST).clamp(64, size_max.max(64));
    loop {
        reserve(room)?;
        plain.reserve_exact(room);
        let wanted = u64::try_from(room).unwrap_or(u64::MAX);
        let read =
            reader.by_ref().take(wanted).read_to_end(&mut plain).map_err(|error| damaged(name, &error))?;
        if plain.len() > size_max {
            return Err(too_big(size_max));
        }
        if read < room {
            return Ok(plain);
        }
        // Doubling, but no further than one byte past the limit, by which it is told that there is more.
        room = plain.len().min(size_max.saturating_add(1) - plain.len());
    }
}

#[cold]
fn too_big(size_max: usize) -> Error {
    Error::limit_exceeded(format!("the body takes more than {size_max} bytes when it is decompressed"))
}

#[cold]
fn damaged(name: &str, error: &dyn std::error::Error) -> Error {
    Error::invalid_input(format!("the body is not valid {name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::ErrorKind;

    const TEXT: &[u8] = b"up 1\nup{job=\"a\"} 2\nup{job=\"a\"} 3\nup{job=\"a\"} 4\n";

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn snappy_stream(plain: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(plain).unwrap();
        encoder.into_inner().unwrap()
    }

    fn snappy(plain: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(plain).unwrap()
    }

    fn forms(plain: &[u8]) -> [(Encoding, Vec<u8>); 5] {
        [
            (Encoding::Identity, plain.to_vec()),
            (Encoding::Gzip, gzip(plain)),
            (Encoding::Deflate, zlib(plain)),
            (Encoding::Snappy, snappy(plain)),
            (Encoding::Snappy, snappy_stream(plain)),
        ]
    }

    #[test]
    fn every_encoding_gives_the_plain_bytes() {
        for (encoding, body) in forms(TEXT) {
            assert_eq!(&*decode(encoding, &body, TEXT.len()).unwrap(), TEXT, "{encoding:?}");
            assert_eq!(
                decode(encoding, &body, TEXT.len() - 1).unwrap_err().kind(),
                ErrorKind::LimitExceeded,
                "{encoding:?}"
            );
        }
        let two = [gzip(b"a"), gzip(b"b")].concat();
        assert_eq!(&*decode(Encoding::Gzip, &two, 2).unwrap(), b"ab");
    }

    #[test]
    fn bombs_are_refused() {
        let plain = vec![0; 64 << 20];
        for (encoding, body) in forms(&plain).into_iter().skip(1) {
            let error = decode(encoding, &body, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::LimitExceeded, "{encoding:?}");
        }
    }

    #[test]
    fn a_declared_length_that_cannot_be_is_refused_before_allocation() {
        // 128 MiB declared, nothing behind it.
        let error = decode(Encoding::Snappy, &[0x80, 0x80, 0x80, 0x40], 1 << 30).unwrap_err();
        assert!(error.to_string().contains("more than it can hold"), "{error}");
        let densest = snappy(&vec![7; 1 << 20]);
        assert!(decode(Encoding::Snappy, &densest, 1 << 20).is_ok());
    }

    #[test]
    fn damaged_bodies_are_invalid() {
        for (encoding, body) in forms(TEXT).into_iter().skip(1) {
            for end in 0..body.len() {
                if let Ok(plain) = decode(encoding, &body[..end], 1 << 20) {
                    assert!(TEXT.starts_with(&plain), "{encoding:?} cut at {end}");
                }
            }
            for bit in 0..body.len() * 8 {
                let mut mutated = body.clone();
                mutated[bit / 8] ^= 1 << (bit % 8);
                let _ = decode(encoding, &mutated, 1 << 20);
            }
        }
        assert!(decode(Encoding::Gzip, TEXT, 1 << 20).unwrap_err().to_string().contains("not valid gzip"));
    }

    #[test]
    fn memory_is_reserved_before_it_is_taken() {
        let plain: Vec<u8> = (0..100_000u32).flat_map(|n| n.wrapping_mul(n).to_le_bytes()).collect();
        for (encoding, body) in forms(&plain).into_iter().skip(1) {
            let mut reserved = 0;
            let decoded = decode_reserving(encoding, &body, 1 << 20, &mut |size| {
                reserved += size;
                Ok(())
            });
            assert_eq!(&*decoded.unwrap(), plain, "{encoding:?}");
            assert!(reserved >= plain.len() && reserved < 6 * plain.len(), "{encoding:?} {reserved}");
            let refused = decode_reserving(encoding, &body, 1 << 20, &mut |_| Err(Error::busy("full")));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Busy);
        }
    }

    #[test]
    fn header_values_are_known_in_any_case() {
        assert_eq!(Encoding::from_header(""), Some(Encoding::Identity));
        assert_eq!(Encoding::from_header(" GZip "), Some(Encoding::Gzip));
        assert_eq!(Encoding::from_header("snappy"), Some(Encoding::Snappy));
        assert_eq!(Encoding::from_header("zstd"), None);
    }
}
