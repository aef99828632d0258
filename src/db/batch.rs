//! Batches: many samples that are written, and recovered, as one.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

use crate::db::series::Series;
use crate::error::{Error, Result};
use crate::head::key_hash;
use crate::model::{SampleValue, SeriesKey, Timestamp, ValueRef, ValueType, encode_key};
use crate::wal::{BatchColumns, WAL_RECORD_SIZE_MAX};

/// Samples collected for one [`Db::write`](crate::Db::write): all of them are kept, or none.
///
/// Samples may be of any series and any age, in any order; of two samples of one series at one time
/// the later wins. The memory is kept from one write to the next. Handles are borrowed, so that a
/// sample by handle costs some nanoseconds; samples by name and tags cost a look-up each.
#[derive(Default)]
pub struct Batch<'a> {
    pub(super) data: BatchData,
    /// Which database the handles belong to; 0 while there is none.
    pub(super) database: usize,
    handles: PhantomData<&'a ()>,
}

/// What a batch holds; moved through the commit queue.
#[derive(Debug, Default)]
pub(super) struct BatchData {
    pub(super) columns: BatchColumns,
    /// Series that are yet to be looked up, in order of their samples.
    pub(super) named: Vec<Named>,
    /// The canonical keys of `named`, one behind the other.
    pub(super) keys: Vec<u8>,
}

/// Samples of one series by name: where they stand in the columns of their kind, and where the key lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) position: u32,
    pub(super) count: u32,
    pub(super) value_type: ValueType,
    pub(super) hash: u64,
    pub(super) key_start: usize,
    pub(super) key_end: usize,
}

impl Named {
    pub(super) fn positions(&self) -> Range<u32> {
        self.position..self.position + self.count
    }
}

/// A key with what the registry looks it up by, for those who write a series many times without a handle.
#[derive(Clone, Debug)]
pub(crate) struct HashedKey {
    pub(crate) key: SeriesKey,
    pub(super) hash: u64,
}

impl HashedKey {
    pub(crate) fn new(key: SeriesKey) -> Self {
        let hash = key_hash(key.as_bytes());
        HashedKey { key, hash }
    }
}

impl BatchData {
    pub(super) fn clear(&mut self) {
        self.columns.clear();
        self.named.clear();
        self.keys.clear();
    }

    /// Where the next sample of this type will stand.
    fn next_position(&self, value_type: ValueType) -> usize {
        if value_type == ValueType::Bytes { self.columns.bytes_ids.len() } else { self.columns.ids.len() }
    }

    /// Adds samples of a series by its key.
    pub(super) fn push_hashed<'v>(
        &mut self,
        key: &HashedKey,
        value_type: ValueType,
        samples: impl Iterator<Item = (Timestamp, ValueRef<'v>)>,
    ) {
        let position = self.next_position(value_type);
        samples.for_each(|(time, value)| push_value(&mut self.columns, u32::MAX, time, value));
        let count = self.next_position(value_type) - position;
        let key_start = self.keys.len();
        self.keys.extend_from_slice(key.key.as_bytes());
        let (position, count, key_end) = (position as u32, count as u32, self.keys.len());
        self.named.push(Named { position, count, value_type, hash: key.hash, key_start, key_end });
    }
}

impl<'a> Batch<'a> {
    /// An empty batch.
    pub fn new() -> Self {
        Batch::default()
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.data.columns.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// About how many bytes the batch takes in the log.
    pub(super) fn size_estimate(&self) -> u64 {
        (self.len() * 9 + self.data.columns.bytes.size() + self.data.keys.len()) as u64
    }

    /// Removes all samples, keeping the memory.
    pub fn clear(&mut self) {
        self.data.clear();
        self.database = 0;
    }

    /// Adds a sample of a series.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is added, when the time is one of the two extremes, when the batch has handles of
    /// another database, or when its byte strings would pass [`WAL_RECORD_SIZE_MAX`](crate::WAL_RECORD_SIZE_MAX).
    #[inline]
    pub fn push<T: SampleValue>(&mut self, series: &'a Series<T>, time: Timestamp, value: T) -> Result<()> {
        check_time(time)?;
        self.check_room(value.as_value_ref())?;
        self.same_database(series.database())?;
        push_value(&mut self.data.columns, series.id(), time, value.as_value_ref());
        Ok(())
    }

    /// Adds samples of one series: as many times as values.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is added, when the lengths differ, when a time is one of the two extremes (it says which),
    /// when the batch has handles of another database, or when its byte strings would pass
    /// [`WAL_RECORD_SIZE_MAX`](crate::WAL_RECORD_SIZE_MAX).
    pub fn push_columns<T: SampleValue>(
        &mut self,
        series: &'a Series<T>,
        times: &[Timestamp],
        values: &[T],
    ) -> Result<()> {
        if times.len() != values.len() {
            return Err(Error::invalid_input(format!("{} times and {} values", times.len(), values.len())));
        }
        if let Some(index) = times.iter().position(|time| !time.is_sample_time()) {
            return Err(time_out_of_range(times.get(index).copied().unwrap_or_default())
                .context(format!("time {index} of the column")));
        }
        if T::TYPE == ValueType::Bytes {
            let sizes = values.iter().map(|value| bytes_size(value.as_value_ref()));
            self.check_bytes(sizes.fold(0, usize::saturating_add))?;
        }
        self.same_database(series.database())?;
        for (time, value) in times.iter().zip(values) {
            push_value(&mut self.data.columns, series.id(), *time, value.as_value_ref());
        }
        Ok(())
    }

    /// Adds a sample of the series with this name and these tags, in any order; the series is made when
    /// it is new.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is added, for what [`SeriesKey::new`] refuses, for a time that is one of the
    /// two extremes, and when the byte strings would pass [`WAL_RECORD_SIZE_MAX`](crate::WAL_RECORD_SIZE_MAX).
    pub fn push_named(
        &mut self,
        name: &str,
        tags: &[(&str, &str)],
        time: Timestamp,
        value: ValueRef<'_>,
    ) -> Result<()> {
        check_time(time)?;
        self.check_room(value)?;
        let key_start = self.data.keys.len();
        let canonical =
            tags.is_sorted_by(|a, b| a.0 < b.0) && tags.iter().all(|(_, value)| !value.is_empty());
        let encoded = if canonical {
            encode_key(name, tags.iter().copied(), &mut self.data.keys)
        } else {
            let mut sorted: Vec<_> = tags.iter().copied().filter(|(_, value)| !value.is_empty()).collect();
            sorted.sort_by_key(|(key, _)| *key);
            encode_key(name, sorted.into_iter(), &mut self.data.keys)
        };
        self.push_encoded(encoded, key_start, time, value)
    }

    /// Adds a sample of the series `key`, which is made when it is new.
    ///
    /// # Errors
    /// `InvalidInput`, and nothing is added, when the time is one of the two extremes, or when the byte strings would
    /// pass [`WAL_RECORD_SIZE_MAX`](crate::WAL_RECORD_SIZE_MAX).
    pub fn push_key(&mut self, key: &SeriesKey, time: Timestamp, value: ValueRef<'_>) -> Result<()> {
        check_time(time)?;
        self.check_room(value)?;
        let key_start = self.data.keys.len();
        self.data.keys.extend_from_slice(key.as_bytes());
        self.push_encoded(Ok(()), key_start, time, value)
    }

    fn push_encoded(
        &mut self,
        encoded: Result<()>,
        key_start: usize,
        time: Timestamp,
        value: ValueRef<'_>,
    ) -> Result<()> {
        if let Err(error) = encoded {
            self.data.keys.truncate(key_start);
            return Err(error);
        }
        let value_type = value.value_type();
        let position = self.data.next_position(value_type);
        push_value(&mut self.data.columns, u32::MAX, time, value);
        let BatchData { named, keys, .. } = &mut self.data;
        let (before, key) = keys.split_at(key_start);
        // A column by name: the series is the one before.
        if let Some(last) = named.last_mut()
            && last.value_type == value_type
            && (last.position + last.count) as usize == position
            && before.get(last.key_start..last.key_end) == Some(key)
        {
            last.count += 1;
            keys.truncate(key_start);
            return Ok(());
        }
        let (position, hash, key_end) = (position as u32, key_hash(key), keys.len());
        named.push(Named { position, count: 1, value_type, hash, key_start, key_end });
        Ok(())
    }

    /// Refuses a byte string with which the batch could be no record of the log any more.
    #[inline]
    fn check_room(&self, value: ValueRef<'_>) -> Result<()> {
        match value {
            ValueRef::Bytes(value) => self.check_bytes(value.len()),
            _ => Ok(()),
        }
    }

    fn check_bytes(&self, added: usize) -> Result<()> {
        let size = self.data.columns.bytes.size().saturating_add(added);
        if size <= WAL_RECORD_SIZE_MAX {
            return Ok(());
        }
        Err(Error::invalid_input(format!(
            "the byte strings of the batch would take {size} bytes, more than a record of the log \
             ({WAL_RECORD_SIZE_MAX}); write it in pieces"
        )))
    }

    #[inline]
    fn same_database(&mut self, database: usize) -> Result<()> {
        if self.database != database {
            if self.database != 0 {
                return Err(Error::invalid_input("a batch takes handles of one database only"));
            }
            self.database = database;
        }
        Ok(())
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn bytes_size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Bytes(value) => value.len(),
        _ => 0,
    }
}

#[inline]
fn push_value(columns: &mut BatchColumns, id: u32, time: Timestamp, value: ValueRef<'_>) {
    let word = match value {
        ValueRef::F64(value) => value.to_bits(),
        ValueRef::I64(value) => value as u64,
        ValueRef::Bytes(value) => {
            columns.bytes_ids.push(id);
            columns.bytes_times.push(time.nanos());
            columns.bytes.push(value);
            return;
        }
    };
    columns.ids.push(id);
    columns.times.push(time.nanos());
    columns.words.push(word);
}

#[inline]
pub(super) fn check_time(time: Timestamp) -> Result<()> {
    if time.is_sample_time() { Ok(()) } else { Err(time_out_of_range(time)) }
}

#[cold]
fn time_out_of_range(time: Timestamp) -> Error {
    Error::invalid_input(format!("{time} is not the time of a sample; it is a bound of all times"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn byte_strings_stop_at_the_size_of_a_record() {
        let mut batch = Batch::new();
        let at = Timestamp::from_nanos(1);
        let half = vec![7; WAL_RECORD_SIZE_MAX / 2];
        let key = SeriesKey::new("event", [("a", "b")]).unwrap();
        batch.push_key(&key, at, ValueRef::Bytes(&half)).unwrap();
        batch.push_named("event", &[], at, ValueRef::Bytes(&half)).unwrap();
        let (keys, count) = (batch.data.keys.len(), batch.len());
        let refused = [
            batch.push_key(&key, at, ValueRef::Bytes(&[1])).unwrap_err(),
            batch.push_named("event", &[], at, ValueRef::Bytes(&[1])).unwrap_err(),
        ];
        for error in refused {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = error.to_string();
            assert!(text.contains("16777217") && text.contains("16777216"), "{text}");
        }
        assert_eq!((batch.data.keys.len(), batch.len(), batch.data.named.len()), (keys, count, 2));
        batch.push_key(&key, at, ValueRef::Bytes(&[])).unwrap();
        batch.push_key(&SeriesKey::new("m", [("a", "b")]).unwrap(), at, ValueRef::F64(1.0)).unwrap();
    }
}
