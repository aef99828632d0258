//! Columns of byte strings: their lengths, then all strings in one piece, plain or compressed by LZ4.
//!
//! Called by [`super::choose`] for series of events and text. Layout in `docs/format.md`, "Byte strings".

use crate::codec::frame_of_reference;
use crate::codec::varint::{Reader, put_uvarint};
use crate::error::{Error, Result};
use crate::model::BytesColumn;

/// LZ4 cannot make more of one byte than this many, so a larger claim is damage.
const EXPANSION_MAX: usize = 255;

/// Appends the lengths of `strings`, of which there is at least one, and the strings.
pub(crate) fn encode_plain<'a>(strings: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) {
    put_lengths(strings.clone(), out);
    strings.for_each(|string| out.extend_from_slice(string));
}

/// Appends the lengths, and the strings compressed. The whole is smaller than [`encode_plain`]'s, or not.
pub(crate) fn encode_compressed<'a>(strings: impl Iterator<Item = &'a [u8]> + Clone, out: &mut Vec<u8>) {
    put_lengths(strings.clone(), out);
    let joined: Vec<u8> = strings.flatten().copied().collect();
    out.extend_from_slice(&lz4_flex::block::compress(&joined));
}

fn put_lengths<'a>(strings: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) {
    let lengths: Vec<i64> = strings.map(|string| string.len() as i64).collect();
    let mut bytes = Vec::new();
    frame_of_reference::encode(&lengths, &mut bytes);
    put_uvarint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// Appends `count` plain strings to `column`.
pub(crate) fn decode_plain(bytes: &[u8], count: usize, column: &mut BytesColumn) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let (lengths, size) = read_lengths(&mut reader, count)?;
    let strings = reader.rest();
    if strings.len() != size {
        return Err(Error::corrupt(format!(
            "strings take {} bytes, their lengths say {size}",
            strings.len()
        )));
    }
    split(strings, &lengths, column)
}

/// Appends `count` compressed strings to `column`.
pub(crate) fn decode_compressed(bytes: &[u8], count: usize, column: &mut BytesColumn) -> Result<()> {
    let mut reader = Reader::new(bytes);
    let (lengths, size) = read_lengths(&mut reader, count)?;
    let compressed = reader.rest();
    if size > compressed.len().saturating_mul(EXPANSION_MAX) {
        return Err(Error::corrupt(format!("{} bytes of LZ4 cannot hold {size}", compressed.len())));
    }
    let strings = lz4_flex::block::decompress(compressed, size)
        .map_err(|error| Error::corrupt(format!("LZ4 cannot be decoded: {error}")))?;
    if strings.len() != size {
        return Err(Error::corrupt(format!("LZ4 gave {} bytes, the lengths say {size}", strings.len())));
    }
    split(&strings, &lengths, column)
}

fn read_lengths(reader: &mut Reader<'_>, count: usize) -> Result<(Vec<i64>, usize)> {
    let mut lengths = Vec::with_capacity(count);
    let mut inner = Reader::new(reader.prefixed_bytes()?);
    frame_of_reference::decode(&mut inner, count, |block| lengths.extend_from_slice(block))?;
    inner.finish()?;
    let total = lengths.iter().try_fold(0u32, |sum, length| sum.checked_add(u32::try_from(*length).ok()?));
    match total {
        Some(total) => Ok((lengths, total as usize)),
        None => Err(Error::corrupt("lengths of strings are negative or exceed 4 GiB")),
    }
}

fn split(mut strings: &[u8], lengths: &[i64], column: &mut BytesColumn) -> Result<()> {
    if column.size() + strings.len() > u32::MAX as usize {
        return Err(Error::limit_exceeded("a column of bytes stays below 4 GiB"));
    }
    for length in lengths {
        let Some((string, rest)) = strings.split_at_checked(*length as usize) else {
            return Err(Error::corrupt("strings end before their lengths do"));
        };
        column.push(string);
        strings = rest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Decode = fn(&[u8], usize, &mut BytesColumn) -> Result<()>;

    fn encoded(strings: &[Vec<u8>], compress: bool) -> (Vec<u8>, Decode) {
        let mut out = Vec::new();
        let strings = strings.iter().map(Vec::as_slice);
        if compress {
            encode_compressed(strings, &mut out);
            (out, decode_compressed)
        } else {
            encode_plain(strings, &mut out);
            (out, decode_plain)
        }
    }

    #[test]
    fn plain_has_known_bytes() {
        let (bytes, _) = encoded(&[b"ab".to_vec(), b"c".to_vec()], false);
        assert_eq!(bytes, [4, 0, 4, 0, 1, b'a', b'b', b'c']);
    }

    #[test]
    fn compressed_bytes_of_the_first_release_decode() {
        let mut bytes = vec![4, 0, 26, 0, 0, 223];
        bytes.extend_from_slice(b"state=running");
        bytes.extend_from_slice(&[13, 0, 255, 227, 96]);
        bytes.extend_from_slice(b"unning");
        let mut column = BytesColumn::default();
        decode_compressed(&bytes, 40, &mut column).unwrap();
        assert!(column.len() == 40 && column.iter().all(|string| string == b"state=running"));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_memory_is_taken() {
        let mut out = Vec::new();
        let mut lengths = Vec::new();
        frame_of_reference::encode(&[1 << 31], &mut lengths);
        put_uvarint(&mut out, lengths.len() as u64);
        out.extend_from_slice(&lengths);
        out.extend_from_slice(&[0; 10]);
        assert!(decode_compressed(&out, 1, &mut BytesColumn::default()).is_err());
        assert!(decode_plain(&out, 1, &mut BytesColumn::default()).is_err());
    }

    fn strings() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let string = prop_oneof![Just(b"state=running".to_vec()), prop::collection::vec(any::<u8>(), 0..40)];
        prop::collection::vec(string, 1..60)
    }

    proptest! {
        #[test]
        fn strings_round_trip(strings in strings(), compress: bool) {
            let (bytes, decode) = encoded(&strings, compress);
            let mut column = BytesColumn::default();
            decode(&bytes, strings.len(), &mut column).unwrap();
            prop_assert_eq!(column.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), strings);
        }

        #[test]
        fn damaged_strings_never_panic(strings in strings(), compress: bool, at: usize, xor: u8, cut: usize) {
            let (mut bytes, decode) = encoded(&strings, compress);
            let size = bytes.len();
            bytes[at % size] ^= xor;
            let _ = decode(&bytes, strings.len(), &mut BytesColumn::default());
            let _ = decode(&bytes[..cut % size], strings.len(), &mut BytesColumn::default());
        }
    }
}
