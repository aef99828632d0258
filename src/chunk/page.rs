//! A page: up to 2,048 samples of one series that decode on their own.
//!
//! Called by the head, which seals its runs as pages, by flush and compaction, which write them into
//! blocks, and by queries, which decode them.

use crate::chunk::aggregate::{Ends, PageAggregate, aggregate_of};
use crate::chunk::merge::{ColumnSlice, strictly_rises};
use crate::chunk::times::{TimeColumn, decode_times, encode_times};
use crate::codec::choose::{self, COLUMN_VALUE_COUNT_MAX, Effort, Encoding};
use crate::error::Result;
use crate::model::{Column, ValueRef};

/// Most samples of a page.
pub(crate) const PAGE_SAMPLE_COUNT_MAX: usize = COLUMN_VALUE_COUNT_MAX;

/// The samples of one page as bytes, and what is known of them without decoding.
#[derive(Clone, Debug)]
pub(crate) struct EncodedPage {
    /// How many samples.
    pub(crate) count: u32,
    /// Time of the first sample.
    pub(crate) min_time: i64,
    /// Time of the last sample.
    pub(crate) max_time: i64,
    /// The time column.
    pub(crate) times: TimeColumn,
    /// How `values` are written.
    pub(crate) encoding: Encoding,
    /// The value column; empty for a constant one.
    pub(crate) values: Vec<u8>,
    /// What is known of the values.
    pub(crate) aggregate: PageAggregate,
}

impl EncodedPage {
    /// Appends the times.
    ///
    /// # Errors
    /// None for a page that [`encode_page`] made.
    pub(crate) fn decode_times(&self, out: &mut Vec<i64>) -> Result<()> {
        decode_times(self.count, self.times.as_ref(), out)
    }

    /// Appends the values to `out`, which is of the series' type.
    ///
    /// # Errors
    /// None for a page that [`encode_page`] made and a column of its type.
    pub(crate) fn decode_values(&self, out: &mut Column) -> Result<()> {
        decode_values(self.encoding, &self.aggregate, &self.values, out)
    }

    /// Bytes on the heap.
    pub(crate) fn heap_size(&self) -> usize {
        self.values.capacity() + self.times.heap_size()
    }
}

/// Encodes 1 to [`PAGE_SAMPLE_COUNT_MAX`] samples whose times strictly rise. It cannot fail: there is an
/// encoding for every value.
///
/// # Panics
/// When the counts differ or are out of range, or times do not rise: those are bugs of the caller.
pub(crate) fn encode_page(times: &[i64], values: ColumnSlice<'_>, effort: Effort) -> EncodedPage {
    assert!((1..=PAGE_SAMPLE_COUNT_MAX).contains(&times.len()), "a page of {} samples", times.len());
    assert_eq!(times.len(), values.len(), "a page has as many values as times");
    debug_assert!(strictly_rises(times), "the times of a page rise");
    let (encoding, bytes) = match values {
        ColumnSlice::F64(values) => choose::encode_f64(values, effort),
        ColumnSlice::I64(values) => choose::encode_i64(values, effort),
        ColumnSlice::Bytes(column, start, end) => {
            choose::encode_bytes((start..end).map(|index| column.get(index).unwrap_or_default()))
        }
    };
    EncodedPage {
        count: times.len() as u32,
        min_time: times[0],
        max_time: times[times.len() - 1],
        times: encode_times(times, effort),
        encoding,
        values: bytes,
        aggregate: aggregate_of(values),
    }
}

/// Appends the values of a page to `out`, which is of the series' type: `bytes` are its value column,
/// whose checksum the caller has checked, `aggregate` is from its record.
///
/// # Errors
/// `Corruption` when the bytes are no such column; `out` may then hold some values more.
pub(crate) fn decode_values(
    encoding: Encoding,
    aggregate: &PageAggregate,
    bytes: &[u8],
    out: &mut Column,
) -> Result<()> {
    let constant = match &aggregate.ends {
        Ends::F64(summary) => ValueRef::F64(summary.first),
        Ends::I64(summary) => ValueRef::I64(summary.first),
        Ends::Bytes => ValueRef::Bytes(&[]),
    };
    choose::decode(encoding, aggregate.count as usize, bytes, constant, out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;
    use crate::model::{BytesColumn, STALE_NAN_BITS};

    fn times(count: usize) -> Vec<i64> {
        (0..count as i64).map(|index| 1_000 + 10 * index).collect()
    }

    /// Bits, so that NaN payloads and zeros are compared.
    fn bits(column: &Column) -> Vec<u64> {
        match column {
            Column::F64(values) => values.iter().map(|value| value.to_bits()).collect(),
            Column::I64(values) => values.iter().map(|value| *value as u64).collect(),
            Column::Bytes(_) => unreachable!(),
        }
    }

    #[track_caller]
    fn check(values: &Column) -> Encoding {
        let mut encoding = Encoding::Raw;
        for effort in [Effort::Flush, Effort::Compact] {
            let page = encode_page(&times(values.len()), ColumnSlice::new(values, 0, values.len()), effort);
            let mut out = Column::new(values.value_type());
            page.decode_values(&mut out).unwrap();
            assert_eq!(bits(&out), bits(values), "{effort:?} {:?}", page.encoding);
            let again = aggregate_of(ColumnSlice::new(&out, 0, out.len()));
            assert_eq!(format!("{again:?}"), format!("{:?}", page.aggregate));
            assert!(page.values.len() <= 8 * values.len());
            encoding = page.encoding;
        }
        encoding
    }

    #[test]
    fn every_double_comes_back() {
        let odd = [
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            -5e-324,
            f64::MAX,
            f64::MIN,
            0.1,
            1e22,
            1e23,
            9_007_199_254_740_993.0,
            9_223_372_036_854_775_808.0,
            -9_223_372_036_854_775_808.0,
            f64::from_bits(STALE_NAN_BITS),
            f64::from_bits(0x7ff8_dead_beef_0001),
            f64::from_bits(0xfff0_0000_0000_0001),
        ];
        for first in odd {
            check(&Column::F64(vec![first]));
            for second in odd {
                check(&Column::F64(vec![first, second]));
                let mut values: Vec<f64> = (0..300).map(|i| f64::from(i % 17) / 10.0).collect();
                (values[0], values[131], values[299]) = (first, second, first);
                check(&Column::F64(values));
            }
        }
        check(&Column::F64(odd.to_vec()));
        check(&Column::F64(odd.repeat(100)));
    }

    #[test]
    fn every_integer_comes_back() {
        let odd = [0, 1, -1, i64::MIN, i64::MAX, i64::MIN + 1, 1 << 53, -(1 << 62)];
        for first in odd {
            for second in odd {
                check(&Column::I64(vec![first, second]));
                let mut values: Vec<i64> = (0..300).map(|i| i * i).collect();
                (values[7], values[255]) = (first, second);
                check(&Column::I64(values));
            }
        }
        check(&Column::I64(odd.repeat(100)));
    }

    #[test]
    fn what_is_constant_takes_no_bytes() {
        assert_eq!(check(&Column::F64(vec![f64::from_bits(STALE_NAN_BITS); 2048])), Encoding::Constant);
        assert_eq!(check(&Column::I64(vec![i64::MIN; 3])), Encoding::Constant);
    }

    #[test]
    fn a_column_of_another_type_or_count_is_corrupt() {
        let page = encode_page(&times(3), ColumnSlice::I64(&[1, 2, 30]), Effort::Flush);
        let decode = |aggregate: &PageAggregate, encoding, mut out: Column| {
            decode_values(encoding, aggregate, &page.values, &mut out).unwrap_err().kind()
        };
        let wrong_type = decode(&page.aggregate, page.encoding, Column::new(crate::model::ValueType::F64));
        assert_eq!(wrong_type, ErrorKind::Corruption);
        let integers = || Column::I64(Vec::new());
        assert_eq!(decode(&page.aggregate, Encoding::Lz4, integers()), ErrorKind::Corruption);
        for count in [0, 200, 2049, u32::MAX] {
            let aggregate = PageAggregate { count, ..page.aggregate.clone() };
            assert_eq!(decode(&aggregate, page.encoding, integers()), ErrorKind::Corruption);
        }
    }

    #[test]
    #[should_panic(expected = "a page of 2049 samples")]
    fn more_samples_than_a_page_holds_are_a_bug() {
        encode_page(&times(2049), ColumnSlice::I64(&vec![0; 2049]), Effort::Flush);
    }

    /// Columns of one kind each: walks, counters, decimals, steps, noise, everything at once.
    pub(crate) fn doubles() -> impl Strategy<Value = Vec<f64>> {
        let steps = prop::collection::vec(-5i32..6, 1..600);
        let walk = (steps, 0usize..6).prop_map(|(steps, digits)| {
            let unit = [1.0, 10.0, 100.0, 1000.0, 8.0, 1e9][digits];
            let sums = steps.iter().scan(1000, |sum, step| {
                *sum += step;
                Some(*sum)
            });
            sums.map(|sum| f64::from(sum) / unit).collect()
        });
        let counter = prop::collection::vec(0u32..1_000_000, 1..600).prop_map(|steps| {
            let sums = steps.iter().scan(0u64, |sum, step| {
                *sum = if step % 97 == 0 { 0 } else { *sum + u64::from(*step) };
                Some(*sum)
            });
            sums.map(|sum| sum as f64).collect()
        });
        let rare = prop_oneof![
            20 => Just(3.0),
            1 => Just(f64::from_bits(STALE_NAN_BITS)),
            1 => Just(-0.0),
            1 => any::<u64>().prop_map(f64::from_bits),
        ];
        prop_oneof![
            walk,
            counter,
            prop::collection::vec(rare, 1..600),
            prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 1..300),
            prop::collection::vec(any::<f32>().prop_map(f64::from), 1..300),
            prop::collection::vec(-1.0..1.0f64, 1..600),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn pages_round_trip(values in doubles()) {
            check(&Column::I64(values.iter().map(|value| *value as i64).collect()));
            check(&Column::I64(values.iter().map(|value| value.to_bits() as i64).collect()));
            check(&Column::F64(values));
        }

        #[test]
        fn strings_round_trip(strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..100)) {
            let mut column = BytesColumn::default();
            strings.iter().for_each(|string| column.push(string));
            let column = Column::Bytes(column);
            let page = encode_page(&times(strings.len()), ColumnSlice::new(&column, 0, strings.len()), Effort::Flush);
            let mut out = Column::new(column.value_type());
            page.decode_values(&mut out).unwrap();
            prop_assert_eq!(out, column);
        }

        #[test]
        fn damaged_values_never_panic(
            values in doubles(), compact: bool, at: usize, xor: u8, cut: usize, count in 0u32..2100, number: u8,
        ) {
            let effort = if compact { Effort::Compact } else { Effort::Flush };
            let integers: Vec<i64> = values.iter().map(|value| *value as i64).collect();
            for column in [Column::F64(values), Column::I64(integers)] {
                let page = encode_page(&times(column.len()), ColumnSlice::new(&column, 0, column.len()), effort);
                let mut bytes = page.values.clone();
                if let Some(byte) = bytes.get_mut(at % page.values.len().max(1)) {
                    *byte ^= xor;
                }
                let cut = &page.values[..cut % (page.values.len() + 1)];
                let wrong = PageAggregate { count, ..page.aggregate.clone() };
                for bytes in [&bytes[..], cut] {
                    for encoding in [Some(page.encoding), Encoding::from_number(number % 16)].into_iter().flatten() {
                        for aggregate in [&page.aggregate, &wrong] {
                            let mut out = Column::new(column.value_type());
                            if decode_values(encoding, aggregate, bytes, &mut out).is_ok() {
                                prop_assert_eq!(out.len(), aggregate.count as usize);
                            }
                        }
                    }
                }
            }
        }
    }
}
