//! Columns by the crate `pco`, in its wrapped format: format version, chunk metadata and one page, one
//! behind the other. The only place that uses the crate.
//!
//! Called by [`super::choose`] at compaction, for what it saves over our own encodings. Layout in
//! `docs/format.md`, "Pco"; why wrapped, and when, in `docs/decisions/0010-value-encodings.md`.

use ::pco::ChunkConfig;
use ::pco::data_types::Number;
use ::pco::wrapped::{FileCompressor, FileDecompressor};

use crate::error::{Error, Result};

/// The bytes of `values`, of which there is at least one. `None` should the crate refuse them; it has no
/// reason to.
pub(crate) fn encode<T: Number>(values: &[T]) -> Option<Vec<u8>> {
    let file = FileCompressor::default();
    let mut out = Vec::new();
    file.write_header(&mut out).ok()?;
    let mut chunk = file.chunk_compressor(values, &ChunkConfig::default()).ok()?;
    chunk.write_meta(&mut out).ok()?;
    chunk.write_page(0, &mut out).ok()?;
    Some(out)
}

/// Appends the `count` values in `bytes` to `out`. The caller has limited the count, and checked the
/// checksum of the bytes: the crate returns an error for most damage, but does not promise it for all.
///
/// # Errors
/// `Corruption` when the bytes hold no such column.
pub(crate) fn decode<T: Number>(bytes: &[u8], count: usize, out: &mut Vec<T>) -> Result<()> {
    let start = out.len();
    out.resize(start + count, T::default());
    read(bytes, count, &mut out[start..]).map_err(|error| {
        out.truncate(start);
        Error::corrupt(format!("pco cannot be decoded: {error}"))
    })
}

fn read<T: Number>(bytes: &[u8], count: usize, out: &mut [T]) -> ::pco::errors::PcoResult<()> {
    let (file, rest) = FileDecompressor::new(bytes)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest)?;
    chunk.page_decompressor(rest, count)?.read(out)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_integers_round_trip() {
        let doubles: Vec<f64> = (0..1500).map(|i| (f64::from(i) / 40.0).sin() * 1e3).collect();
        let bytes = encode(&doubles).unwrap();
        let mut out = vec![1.0];
        decode(&bytes, doubles.len(), &mut out).unwrap();
        assert_eq!(out[1..], doubles);
        let integers = [i64::MIN, i64::MAX, 0, -1, 1];
        let mut out: Vec<i64> = Vec::new();
        decode(&encode(&integers).unwrap(), 5, &mut out).unwrap();
        assert_eq!(out, integers);
    }

    /// Bytes that pco 1.1.0 wrote: every later release of the crate must read them.
    #[test]
    fn bytes_of_the_first_release_decode() {
        let integers: [u8; 83] = [
            0x04, 0x01, 0x81, 0x3e, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x81, 0x02, 0x00, 0x9f, 0xfe,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 0x00, 0x70, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x20, 0x00, 0x02, 0x00, 0x28, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xf7, 0x53, 0xe3,
            0xa5, 0x9b, 0xc4, 0x20, 0x00, 0xa3, 0xa3, 0xa3, 0x2f, 0xe3, 0xff, 0xe3, 0xff, 0xe3, 0xff, 0xe3,
            0xff, 0xe3, 0xff, 0xe3, 0xff, 0xe3, 0xff, 0xe3, 0xc7, 0xe3, 0xc7, 0xff, 0xc7, 0xff, 0xc7, 0x20,
            0x7f, 0x5f, 0x00,
        ];
        let mut out: Vec<i64> = Vec::new();
        decode(&integers, 256, &mut out).unwrap();
        assert_eq!(out, (0..256).map(|i| i % 4 * 1000).collect::<Vec<i64>>());
        let head = [
            0x04, 0x01, 0x00, 0x42, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x80, 0x66,
            0x66, 0x66, 0x66, 0x66, 0x66, 0xee, 0x2f, 0x00, 0xcd, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xe4, 0x5f,
            0x00, 0x34, 0x33, 0x33, 0x33, 0x33, 0x33, 0xd3, 0xbf, 0x00,
        ];
        let doubles = [&head[..], &[0x6c; 64], &[0]].concat();
        let mut out: Vec<f64> = Vec::new();
        decode(&doubles, 256, &mut out).unwrap();
        assert_eq!(out, (0..256).map(|i| f64::from(i % 4) * 0.1).collect::<Vec<f64>>());
    }

    #[test]
    fn bytes_cut_short_are_corrupt() {
        let bytes = encode(&(0..900).map(|i| i * i % 1001).collect::<Vec<i64>>()).unwrap();
        for size in [0, 1, 2, 10, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode::<i64>(&bytes[..size], 900, &mut Vec::new()).is_err(), "{size}");
        }
    }
}
