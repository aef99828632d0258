//! Postings: the sorted ordinals of the series that carry a symbol, and sets of ordinals made of them.
//!
//! Up to [`LIST_COUNT_MAX`] ordinals are a list of differences, more are a serialised `roaring` bitmap.
//! Called by the index writer and by `select` in the reader.

use roaring::RoaringBitmap;

use crate::codec::varint::{Reader, put_uvarint};
use crate::error::{Error, Result};

/// Most ordinals that are kept as a list.
pub(crate) const LIST_COUNT_MAX: usize = 16;

/// Appends the postings `ordinals`, which strictly rise.
pub(crate) fn put_postings(out: &mut Vec<u8>, ordinals: &[u32]) {
    put_uvarint(out, ordinals.len() as u64);
    if ordinals.len() <= LIST_COUNT_MAX {
        let mut next = 0;
        for ordinal in ordinals {
            put_uvarint(out, u64::from(ordinal - next));
            next = ordinal.saturating_add(1);
        }
    } else if let Ok(bitmap) = RoaringBitmap::from_sorted_iter(ordinals.iter().copied()) {
        put_bitmap(out, bitmap);
    }
}

/// Appends the postings of a symbol that all of `count` series carry.
pub(crate) fn put_all_postings(out: &mut Vec<u8>, count: u32) {
    if count as usize <= LIST_COUNT_MAX {
        return put_postings(out, &(0..count).collect::<Vec<_>>());
    }
    put_uvarint(out, u64::from(count));
    let mut bitmap = RoaringBitmap::new();
    bitmap.insert_range(0..count);
    put_bitmap(out, bitmap);
}

fn put_bitmap(out: &mut Vec<u8>, mut bitmap: RoaringBitmap) {
    bitmap.optimize();
    bitmap.serialize_into(out).expect("writing to memory cannot fail");
}

/// How many ordinals the postings in `bytes` hold.
pub(crate) fn postings_count(bytes: &[u8]) -> Result<usize> {
    Reader::new(bytes).uvarint_max(u32::MAX as usize, "number of postings")
}

/// Reads the postings that `bytes` hold whole; `series_count` bounds the ordinals.
///
/// # Errors
/// `Corruption` when they do not rise, reach `series_count`, or their number is not the stated one.
pub(crate) fn read_postings(bytes: &[u8], series_count: u32) -> Result<Set> {
    let (count, mut reader) = read_count(bytes, series_count)?;
    if count > LIST_COUNT_MAX {
        return read_bitmap(reader.rest(), count, series_count).map(Set::Bitmap);
    }
    let mut ordinals = Vec::with_capacity(count);
    read_list(&mut reader, count, series_count, &mut ordinals)?;
    Ok(Set::List(ordinals))
}

fn read_count(bytes: &[u8], series_count: u32) -> Result<(usize, Reader<'_>)> {
    let mut reader = Reader::new(bytes);
    Ok((reader.uvarint_max(series_count as usize, "number of postings")?, reader))
}

fn read_bitmap(bytes: &[u8], count: usize, series_count: u32) -> Result<RoaringBitmap> {
    let bitmap = RoaringBitmap::deserialize_from(bytes)
        .map_err(|error| Error::corrupt(format!("postings: {error}")))?;
    if bitmap.len() != count as u64 || bitmap.max().is_some_and(|max| max >= series_count) {
        return Err(Error::corrupt("postings do not hold the stated series"));
    }
    Ok(bitmap)
}

fn read_list(
    reader: &mut Reader<'_>,
    count: usize,
    series_count: u32,
    ordinals: &mut Vec<u32>,
) -> Result<()> {
    let mut next = 0u64;
    for _ in 0..count {
        let ordinal = next.saturating_add(reader.uvarint()?);
        match u32::try_from(ordinal) {
            Ok(ordinal) if ordinal < series_count => ordinals.push(ordinal),
            _ => return Err(Error::corrupt(format!("postings name series {ordinal} of {series_count}"))),
        }
        next = ordinal + 1;
    }
    reader.finish()
}

/// A set of ordinals: a sorted list while it is short or came as one, else a bitmap.
#[derive(Clone, Debug)]
pub(crate) enum Set {
    List(Vec<u32>),
    Bitmap(RoaringBitmap),
}

impl Set {
    /// All of `0..count`.
    pub(crate) fn all(count: u32) -> Self {
        let mut bitmap = RoaringBitmap::new();
        bitmap.insert_range(0..count);
        Set::Bitmap(bitmap)
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Set::List(list) => list.is_empty(),
            Set::Bitmap(bitmap) => bitmap.is_empty(),
        }
    }

    fn contains(&self, ordinal: u32) -> bool {
        match self {
            Set::List(list) => list.binary_search(&ordinal).is_ok(),
            Set::Bitmap(bitmap) => bitmap.contains(ordinal),
        }
    }

    /// What both hold.
    #[must_use]
    pub(crate) fn intersect(self, other: Set) -> Set {
        match (self, other) {
            (Set::List(mut list), other) | (other, Set::List(mut list)) => {
                list.retain(|ordinal| other.contains(*ordinal));
                Set::List(list)
            }
            (Set::Bitmap(a), Set::Bitmap(b)) => Set::Bitmap(a & b),
        }
    }

    /// What this holds and `other` does not.
    #[must_use]
    pub(crate) fn subtract(self, other: &Set) -> Set {
        match (self, other) {
            (Set::List(mut list), other) => {
                list.retain(|ordinal| !other.contains(*ordinal));
                Set::List(list)
            }
            (Set::Bitmap(mut bitmap), Set::List(list)) => {
                list.iter().for_each(|ordinal| _ = bitmap.remove(*ordinal));
                Set::Bitmap(bitmap)
            }
            (Set::Bitmap(a), Set::Bitmap(b)) => Set::Bitmap(a - b),
        }
    }

    /// The ordinals, sorted.
    pub(crate) fn into_sorted(self) -> Vec<u32> {
        match self {
            Set::List(list) => list,
            Set::Bitmap(bitmap) => {
                let mut ordinals = Vec::with_capacity(bitmap.len() as usize);
                let mut ranges = bitmap.iter();
                while let Some(range) = ranges.next_range() {
                    ordinals.extend(range);
                }
                ordinals
            }
        }
    }
}

/// Collects the union of many postings.
#[derive(Debug)]
pub(crate) struct Union {
    series_count: u32,
    listed: Vec<u32>,
    bitmap: RoaringBitmap,
}

impl Union {
    /// Of nothing yet; all ordinals are below `series_count`.
    pub(crate) fn new(series_count: u32) -> Self {
        Union { series_count, listed: Vec::new(), bitmap: RoaringBitmap::new() }
    }

    /// Adds the postings that `bytes` hold whole.
    ///
    /// # Errors
    /// As [`read_postings`].
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let (count, mut reader) = read_count(bytes, self.series_count)?;
        if count > LIST_COUNT_MAX {
            self.bitmap |= read_bitmap(reader.rest(), count, self.series_count)?;
            return Ok(());
        }
        read_list(&mut reader, count, self.series_count, &mut self.listed)
    }

    /// The ordinals of all.
    pub(crate) fn finish(mut self) -> Set {
        if self.listed.len() > self.series_count as usize / DENSE_PART {
            self.listed = sort_by_bits(&self.listed, self.series_count);
        } else {
            self.listed.sort_unstable();
            self.listed.dedup();
        }
        if self.bitmap.is_empty() {
            return Set::List(self.listed);
        }
        if let Ok(listed) = RoaringBitmap::from_sorted_iter(self.listed) {
            self.bitmap |= listed;
        }
        Set::Bitmap(self.bitmap)
    }
}

/// When more than one in so many series is listed, sorting them costs more than walking a bit for each.
const DENSE_PART: usize = 256;

/// `ordinals` in order and each once, by way of a bit for each of `0..count`.
fn sort_by_bits(ordinals: &[u32], count: u32) -> Vec<u32> {
    let mut words = vec![0u64; count.div_ceil(u64::BITS) as usize];
    for ordinal in ordinals {
        if let Some(word) = words.get_mut(*ordinal as usize / 64) {
            *word |= 1 << (ordinal % 64);
        }
    }
    let mut sorted = Vec::with_capacity(ordinals.len());
    for (index, mut word) in words.into_iter().enumerate() {
        while word != 0 {
            sorted.push(index as u32 * 64 + word.trailing_zeros());
            word &= word - 1;
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn encoded(ordinals: &[u32]) -> Vec<u8> {
        let mut out = Vec::new();
        put_postings(&mut out, ordinals);
        out
    }

    #[track_caller]
    fn check(ordinals: &[u32], size_max: usize) {
        let bytes = encoded(ordinals);
        assert!(bytes.len() <= size_max, "{} bytes", bytes.len());
        assert_eq!(postings_count(&bytes).unwrap(), ordinals.len());
        let bound = ordinals.last().map_or(0, |last| last + 1);
        assert_eq!(read_postings(&bytes, bound).unwrap().into_sorted(), ordinals);
        if bound > 0 {
            assert!(read_postings(&bytes, bound - 1).is_err());
        }
    }

    #[test]
    fn postings_are_small() {
        check(&[], 1);
        check(&[0], 2);
        check(&(0..16).collect::<Vec<_>>(), 17);
        check(&(0..17).collect::<Vec<_>>(), 20);
        check(&(100..100_000).collect::<Vec<_>>(), 30);
        check(&(0..60_000).step_by(40).collect::<Vec<_>>(), 3_020);
    }

    #[test]
    fn postings_of_all_series_are_a_run() {
        for count in [0, 1, 16, 17, 1_000_000] {
            let mut out = Vec::new();
            put_all_postings(&mut out, count);
            assert!(out.len() <= 300, "{} bytes", out.len());
            assert_eq!(read_postings(&out, count).unwrap().into_sorted(), (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_wrong_number_of_postings_is_refused() {
        let mut bytes = encoded(&(0..20).collect::<Vec<_>>());
        bytes[0] = 21;
        assert!(read_postings(&bytes, 100).is_err());
        assert!(read_postings(&[3, 0, 0], 100).is_err());
        assert!(read_postings(&[1, 0, 0], 100).is_err());
        assert!(
            read_postings(&[2, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], 100).is_err()
        );
    }

    fn set(ordinals: &BTreeSet<u32>) -> Set {
        let list: Vec<u32> = ordinals.iter().copied().collect();
        read_postings(&encoded(&list), 1 << 20).unwrap()
    }

    proptest! {
        #[test]
        fn any_bytes_are_postings_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            ordinals in prop::collection::btree_set(0u32..200_000, 17..60),
            at: prop::sample::Index,
        ) {
            let _ = read_postings(&bytes, 1000);
            let good = encoded(&ordinals.into_iter().collect::<Vec<_>>());
            let at = at.index(good.len());
            bytes.splice(0..0, good.get(..at).unwrap_or_default().iter().copied());
            let _ = read_postings(&bytes, 1000);
        }

        #[test]
        fn sets_behave_like_sets(
            a in prop::collection::btree_set(0u32..300, 0..60),
            b in prop::collection::btree_set(0u32..300, 0..60),
        ) {
            for series_count in [300, 1 << 20] {
                let mut union = Union::new(series_count);
                union.read(&encoded(&a.iter().copied().collect::<Vec<_>>())).unwrap();
                union.read(&encoded(&b.iter().copied().collect::<Vec<_>>())).unwrap();
                prop_assert_eq!(union.finish().into_sorted(), (&a | &b).into_iter().collect::<Vec<_>>());
            }
            prop_assert_eq!(set(&a).intersect(set(&b)).into_sorted(), (&a & &b).into_iter().collect::<Vec<_>>());
            prop_assert_eq!(set(&a).subtract(&set(&b)).into_sorted(), (&a - &b).into_iter().collect::<Vec<_>>());
        }
    }
}
