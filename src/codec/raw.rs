//! Doubles and integers as they are, eight bytes each. What everything else is compared with.
//!
//! Called by [`super::choose`]. Layout in `docs/format.md`, "Encodings".

use crate::error::{Error, Result};

/// Appends the bits of each value, little-endian.
pub(crate) fn encode(bits: impl Iterator<Item = u64>, out: &mut Vec<u8>) {
    bits.for_each(|bits| out.extend_from_slice(&bits.to_le_bytes()));
}

/// The bits of exactly `count` values.
///
/// # Errors
/// `Corruption` when the length does not fit the count.
pub(crate) fn decode(bytes: &[u8], count: usize) -> Result<impl ExactSizeIterator<Item = u64>> {
    let (words, rest) = bytes.as_chunks::<8>();
    if words.len() != count || !rest.is_empty() {
        return Err(Error::corrupt(format!("{} bytes hold no {count} raw values", bytes.len())));
    }
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_little_endian_and_counted() {
        let mut out = Vec::new();
        encode([1u64, u64::MAX].into_iter(), &mut out);
        assert_eq!(out, [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(decode(&out, 2).unwrap().collect::<Vec<_>>(), [1, u64::MAX]);
        assert!(decode(&out, 1).is_err());
        assert!(decode(&out[..15], 2).is_err());
    }
}
