//! The writes that are not yet in a block, in memory, backed by the log.
//!
//! A [`Head`] is one memtable: it is filled by the commit queue alone, in order of LSNs, then frozen and
//! written as blocks. So it is always exactly the result of a prefix of the log. Samples lie in
//! shards, each with a lock of its own, so that readers meet the writer only for the length of a frame.
//! Lock order: the registry before a shard; only the commit queue holds two shards at once, and then no
//! reader waits for a second one.

mod registry;
mod replay;
mod series;

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::head::series::{HeadSeries, STAGING_COUNT_MAX, STAGING_COUNT_MIN};
use crate::model::{Column, SeriesKey, Timestamp, ValueType};
use crate::sync::atomic::{AtomicI64, AtomicIsize, AtomicU64, Ordering};
use crate::sync::{Mistake, RwLock, RwLockWriteGuard, makes};
use crate::wal::{BatchColumns, DeleteRecord};

pub(crate) use registry::{Registry, key_hash};
pub(crate) use replay::Replay;
pub(crate) use series::{Run, Scratch};

const SHARD_COUNT: usize = 16;
/// Neighbouring numbers share a shard, since batches tend to name neighbours one after the other.
const NEIGHBOUR_BITS: u32 = 6;
/// Bytes that all staging together may take before it is sealed earlier than it could be.
const STAGING_BUDGET: usize = 8 << 20;
/// Counted for a series: its slot and its place in the index.
const SLOT_SIZE: isize = size_of::<HeadSeries>() as isize + 4 + 16;

/// Where the samples of one epoch or more lie until they are in a block.
#[derive(Debug)]
pub(crate) struct Head {
    registry: Arc<RwLock<Registry>>,
    shards: Vec<RwLock<Shard>>,
    size: AtomicIsize,
    series_count: AtomicU64,
    sample_count: AtomicU64,
    min_time: AtomicI64,
    max_time: AtomicI64,
    /// The last LSN before this head.
    previous_lsn: u64,
    last_lsn: AtomicU64,
    /// Deletes that were carried out here, with their LSNs; each stands here before the first shard shows it.
    deletes: RwLock<Vec<(u64, DeleteRecord)>>,
}

#[derive(Debug, Default)]
struct Shard {
    /// By the local part of a number: the place in `slots` plus one, or 0.
    index: Vec<u32>,
    slots: Vec<HeadSeries>,
    /// How many of the head's deletes were carried out on these series.
    delete_count: usize,
}

/// The samples of one series as a reader takes them: sealed runs, oldest first, and the rest as columns.
#[derive(Clone, Debug)]
pub(crate) struct HeadSamples {
    pub(crate) runs: Vec<Run>,
    pub(crate) times: Vec<i64>,
    pub(crate) values: Column,
    /// How many of the head's deletes were carried out on them.
    pub(crate) delete_count: usize,
}

/// The shards that the commit queue holds, by number.
#[derive(Default)]
struct Locked<'a>([Option<RwLockWriteGuard<'a, Shard>>; SHARD_COUNT]);

fn place(id: u32) -> (usize, usize) {
    let shard = (id >> NEIGHBOUR_BITS) as usize % SHARD_COUNT;
    let local = (id as usize >> NEIGHBOUR_BITS) / SHARD_COUNT;
    (shard, local << NEIGHBOUR_BITS | (id as usize & ((1 << NEIGHBOUR_BITS) - 1)))
}

impl Shard {
    fn get(&self, local: usize) -> Option<&HeadSeries> {
        let slot = *self.index.get(local)?;
        self.slots.get((slot as usize).checked_sub(1)?)
    }

    #[inline]
    fn get_mut(&mut self, local: usize) -> Option<&mut HeadSeries> {
        let slot = *self.index.get(local)?;
        self.slots.get_mut((slot as usize).checked_sub(1)?)
    }

    fn add(&mut self, local: usize, series: HeadSeries) {
        if self.index.len() <= local {
            self.index.resize(local + 1, 0);
        }
        self.slots.push(series);
        let slot = self.slots.len() as u32;
        if let Some(place) = self.index.get_mut(local) {
            *place = slot;
        }
    }
}

impl Head {
    /// An empty head over the series of `registry`, after the frame `previous_lsn`.
    pub(crate) fn new(registry: Arc<RwLock<Registry>>, previous_lsn: u64) -> Self {
        Head {
            registry,
            shards: (0..SHARD_COUNT).map(|_| RwLock::default()).collect(),
            size: AtomicIsize::new(0),
            series_count: AtomicU64::new(0),
            sample_count: AtomicU64::new(0),
            min_time: AtomicI64::new(i64::MAX),
            max_time: AtomicI64::new(i64::MIN),
            previous_lsn,
            last_lsn: AtomicU64::new(previous_lsn),
            deletes: RwLock::default(),
        }
    }

    /// Applies a batch, whose series are all in the registry, and moves to its LSN. Only the commit queue calls this.
    pub(crate) fn apply(&self, columns: &BatchColumns, lsn: u64, scratch: &mut Scratch) {
        self.append(columns, scratch);
        self.last_lsn.store(lsn, Ordering::Release);
    }

    /// Applies samples whose frame is still open. Only the commit queue calls this.
    pub(crate) fn append(&self, columns: &BatchColumns, scratch: &mut Scratch) {
        // Kept until the frame is in whole, so that a reader finds all of its samples of a series, or none.
        let mut locked = Locked::default();
        let mut start = 0;
        let runs = columns.ids.chunk_by(|a, b| a == b).map(|run| {
            let range = start..start + run.len();
            start = range.end;
            let times = columns.times.get(range.clone()).unwrap_or_default();
            let words = columns.words.get(range).unwrap_or_default();
            (run.first().copied().unwrap_or_default(), (times, words))
        });
        self.apply_each(&mut locked, runs, |series, (times, words), count| {
            series.push_words(times, words, count, scratch)
        });
        let bytes = columns.bytes_ids.iter().zip(&columns.bytes_times).zip(columns.bytes.iter());
        let bytes = bytes.map(|((id, time), value)| (*id, (*time, value)));
        self.apply_each(&mut locked, bytes, |series, (time, value), count| {
            series.push_bytes(time, value, count, scratch)
        });
        drop(locked);
        self.sample_count.fetch_add(columns.len() as u64, Ordering::Relaxed);
        self.cover(&columns.times);
        self.cover(&columns.bytes_times);
    }

    /// Applies one sample of an f64 or i64 series whose frame is still open. Only the commit queue calls this.
    pub(crate) fn append_word(&self, id: u32, time: i64, word: u64, scratch: &mut Scratch) {
        let one = std::iter::once((id, (time, word)));
        self.apply_each(&mut Locked::default(), one, |series, (time, word), count| {
            series.push_words(&[time], &[word], count, scratch)
        });
        self.sample_count.fetch_add(1, Ordering::Relaxed);
        self.cover(&[time]);
    }

    /// Applies one sample of a bytes series whose frame is still open. Only the commit queue calls this.
    pub(crate) fn append_bytes(&self, id: u32, time: i64, value: &[u8], scratch: &mut Scratch) {
        let one = std::iter::once((id, (time, value)));
        self.apply_each(&mut Locked::default(), one, |series, (time, value), count| {
            series.push_bytes(time, value, count, scratch)
        });
        self.sample_count.fetch_add(1, Ordering::Relaxed);
        self.cover(&[time]);
    }

    fn apply_each<'a, V>(
        &'a self,
        locked: &mut Locked<'a>,
        samples: impl Iterator<Item = (u32, V)>,
        mut push: impl FnMut(&mut HeadSeries, V, usize) -> isize,
    ) {
        let seal_count = self.seal_count();
        let mut grown = 0;
        for (id, samples) in samples {
            let (shard_index, local) = place(id);
            let (Some(shard), Some(guard)) = (self.shards.get(shard_index), locked.0.get_mut(shard_index))
            else {
                continue;
            };
            let shard = guard.get_or_insert_with(|| shard.write());
            if let Some(series) = shard.get_mut(local) {
                grown += push(series, samples, seal_count);
                continue;
            }
            let Some(value_type) = self.value_type(id) else { continue };
            let mut series = HeadSeries::new(id, value_type);
            grown += push(&mut series, samples, seal_count) + SLOT_SIZE;
            shard.add(local, series);
            self.series_count.fetch_add(1, Ordering::Relaxed);
        }
        self.size.fetch_add(grown, Ordering::Relaxed);
    }

    fn value_type(&self, id: u32) -> Option<ValueType> {
        // A recursive read: a query may hold the registry while it reads a shard that this waits for.
        self.registry.read_recursive().get(id).map(|(_, value_type)| value_type)
    }

    fn seal_count(&self) -> usize {
        let series = self.series_count.load(Ordering::Relaxed).max(1) as usize;
        (STAGING_BUDGET / 16 / series).clamp(STAGING_COUNT_MIN, STAGING_COUNT_MAX)
    }

    fn cover(&self, times: &[i64]) {
        if let (Some(min), Some(max)) = (times.iter().min(), times.iter().max()) {
            self.min_time.fetch_min(*min, Ordering::Relaxed);
            self.max_time.fetch_max(*max, Ordering::Relaxed);
        }
    }

    /// Removes what `record` deletes, and moves to its LSN. Only the commit queue calls this.
    ///
    /// A reader that finds a series without these samples finds the delete in [`Head::deletes`], and leaves them out
    /// of what is older as well.
    pub(crate) fn delete(&self, record: &DeleteRecord, lsn: u64) {
        let ids = self.registry.read().select(&record.selector);
        let mut by_shard = vec![Vec::new(); SHARD_COUNT];
        for (shard, local) in ids.into_iter().map(place) {
            if let Some(locals) = by_shard.get_mut(shard) {
                locals.push(local);
            }
        }
        let delete_count = {
            let mut deletes = self.deletes.write();
            deletes.push((lsn, record.clone()));
            deletes.len()
        };
        let mut grown = 0;
        for (shard, locals) in self.shards.iter().zip(by_shard) {
            let mut shard = shard.write();
            for local in locals {
                grown += shard.get_mut(local).map_or(0, |series| series.delete(record.range));
            }
            if !makes(Mistake::ForgetDelete) {
                shard.delete_count = delete_count;
            }
        }
        self.size.fetch_add(grown, Ordering::Relaxed);
        self.last_lsn.store(lsn, Ordering::Release);
    }

    /// The deletes with the numbers `range` that were carried out here, with their LSNs, in order.
    pub(crate) fn deletes(&self, range: Range<usize>) -> Vec<(u64, DeleteRecord)> {
        let deletes = self.deletes.read();
        let end = range.end.min(deletes.len());
        deletes.get(range.start..end).unwrap_or_default().to_vec()
    }

    /// How many deletes were carried out here.
    pub(crate) fn delete_count(&self) -> usize {
        self.deletes.read().len()
    }

    /// Moves to the LSN of a frame that holds no samples.
    pub(crate) fn advance(&self, lsn: u64) {
        self.last_lsn.store(lsn, Ordering::Release);
    }

    /// The samples of one series, or `None` when it never had one here.
    pub(crate) fn read(&self, id: u32) -> Option<HeadSamples> {
        let (shard_index, local) = place(id);
        let shard = self.shards.get(shard_index)?.read();
        let (runs, times, values) = shard.get(local)?.read();
        Some(HeadSamples { runs, times, values, delete_count: shard.delete_count })
    }

    /// Appends the samples of a series to empty columns of its type, sorted and free of duplicates, if it has none in
    /// runs; else returns false.
    pub(crate) fn read_staged(
        &self,
        id: u32,
        scratch: &mut Scratch,
        times: &mut Vec<i64>,
        values: &mut Column,
    ) -> bool {
        let (shard_index, local) = place(id);
        let Some(shard) = self.shards.get(shard_index).map(|shard| shard.read()) else { return false };
        shard.get(local).is_some_and(|series| series.read_staged(scratch, times, values))
    }

    /// Calls `visit` with smallest time, largest time and count of each run and of what is staged.
    pub(crate) fn visit_spans(&self, id: u32, visit: impl FnMut(i64, i64, u32)) {
        let (shard_index, local) = place(id);
        let Some(shard) = self.shards.get(shard_index).map(|shard| shard.read()) else { return };
        if let Some(series) = shard.get(local) {
            series.visit_spans(visit);
        }
    }

    /// Whether the series has a place here.
    pub(crate) fn contains(&self, id: u32) -> bool {
        let (shard_index, local) = place(id);
        self.shards.get(shard_index).is_some_and(|shard| shard.read().get(local).is_some())
    }

    /// The series that `ids` names and that have a place here, with key and type, ascending by both.
    pub(crate) fn sorted(&self, ids: impl IntoIterator<Item = u32>) -> Vec<(SeriesKey, ValueType, u32)> {
        let registry = self.registry.read();
        let mut found: Vec<_> = ids
            .into_iter()
            .filter(|id| self.contains(*id))
            .filter_map(|id| registry.get(id).map(|(key, value_type)| (key.clone(), value_type, id)))
            .collect();
        drop(registry);
        found.sort_unstable();
        found
    }

    /// All series that have a place here, ascending by key and type.
    ///
    /// They are put together by name first: within a name, numbers often rise with keys, and what rises is sorted in one
    /// pass.
    pub(crate) fn all_sorted(&self) -> Vec<(SeriesKey, ValueType, u32)> {
        let mut ids: Vec<u32> = Vec::with_capacity(self.series_count.load(Ordering::Relaxed) as usize);
        for shard in &self.shards {
            ids.extend(shard.read().slots.iter().map(|series| series.id));
        }
        ids.sort_unstable();
        let registry = self.registry.read();
        let mut by_name: HashMap<&[u8], Vec<(&SeriesKey, ValueType, u32)>> = HashMap::new();
        for id in &ids {
            let Some((key, value_type)) = registry.get(*id) else { continue };
            by_name.entry(key.name_bytes()).or_default().push((key, value_type, *id));
        }
        let mut names: Vec<_> = by_name.into_iter().collect();
        names.sort_unstable_by_key(|(name, _)| *name);
        let mut sorted = Vec::with_capacity(ids.len());
        for (_, mut series) in names {
            series.sort();
            sorted.extend(series.into_iter().map(|(key, value_type, id)| (key.clone(), value_type, id)));
        }
        sorted
    }

    /// The registry that names the series.
    pub(crate) fn registry(&self) -> &Arc<RwLock<Registry>> {
        &self.registry
    }

    /// Smallest and largest time of any sample ever applied here.
    pub(crate) fn time_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let min = self.min_time.load(Ordering::Relaxed);
        let max = self.max_time.load(Ordering::Relaxed);
        (min <= max).then(|| (Timestamp::from_nanos(min), Timestamp::from_nanos(max)))
    }

    /// The smallest LSN that a frame applied here can have.
    pub(crate) fn first_lsn(&self) -> u64 {
        self.previous_lsn + 1
    }

    /// LSN of the last frame applied.
    pub(crate) fn last_lsn(&self) -> u64 {
        self.last_lsn.load(Ordering::Acquire)
    }

    /// Bytes of memory that a flush of this head frees.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed).max(0) as usize
    }

    /// Number of samples applied, duplicates included.
    pub(crate) fn sample_count(&self) -> u64 {
        self.sample_count.load(Ordering::Relaxed)
    }

    /// Number of sealed runs, and of series with staged samples beside them.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn run_count(&self) -> u64 {
        let mut count = 0;
        for shard in &self.shards {
            shard.read().slots.iter().for_each(|series| series.visit_spans(|_, _, _| count += 1));
        }
        count
    }

    /// Whether nothing was ever applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.sample_count() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::env::Random;
    use crate::model::{Selector, TimeRange, Value};

    fn head_with(types: &[ValueType]) -> (Head, Vec<SeriesKey>) {
        let registry = Arc::new(RwLock::new(Registry::default()));
        let mut keys = Vec::new();
        for (number, value_type) in types.iter().enumerate() {
            let key = SeriesKey::new("m", [("n", number.to_string())]).unwrap();
            let mut registry = registry.write();
            let hash = key_hash(key.as_bytes());
            assert_eq!(registry.insert(key.clone(), *value_type, hash) as usize, number);
            keys.push(key);
        }
        (Head::new(registry, 0), keys)
    }

    /// All samples of a series by the duplicate rule.
    fn collect(head: &Head, id: u32) -> BTreeMap<i64, Value> {
        let mut map = BTreeMap::new();
        let Some(samples) = head.read(id) else { return map };
        let mut add = |times: &[i64], values: &Column| {
            assert!(times.is_sorted_by(|a, b| a < b));
            for (index, time) in times.iter().enumerate() {
                map.insert(*time, values.get(index).unwrap().to_value());
            }
        };
        for run in &samples.runs {
            let (mut times, mut values) = (Vec::new(), Column::new(samples.values.value_type()));
            run.decode_times(&mut times).unwrap();
            run.decode_values(&mut values).unwrap();
            add(&times, &values);
        }
        add(&samples.times, &samples.values);
        map
    }

    #[test]
    fn the_head_is_the_result_of_its_frames() {
        const TYPES: [ValueType; 3] = [ValueType::F64, ValueType::I64, ValueType::Bytes];
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let types: Vec<ValueType> = (0..200).map(|id| TYPES[id % 3]).collect();
            let (head, _) = head_with(&types);
            let mut model: Vec<BTreeMap<i64, Value>> = vec![BTreeMap::new(); types.len()];
            let mut scratch = Scratch::default();
            for lsn in 1..60 {
                if random.below(12) == 0 {
                    let start = random.below(3000) as i64;
                    let range =
                        TimeRange::from(Timestamp::from_nanos(start)..Timestamp::from_nanos(start + 300));
                    let number = random.below(200).to_string();
                    let selector = Selector::name("m").with("n", number.as_str());
                    head.delete(&DeleteRecord { selector, range }, lsn);
                    let id: usize = number.parse().unwrap();
                    model[id].retain(|time, _| !range.contains(Timestamp::from_nanos(*time)));
                    continue;
                }
                let mut columns = BatchColumns::default();
                // A few series get many samples, so that runs are sealed; some come late or twice.
                for _ in 0..400 {
                    let id = if random.below(2) == 0 { random.below(3) } else { random.below(200) } as u32;
                    let time = lsn as i64 * 50 + random.below(100) as i64 - random.below(40) as i64 * 5;
                    let word = random.next_u64();
                    let value = match types[id as usize] {
                        ValueType::Bytes => {
                            columns.bytes_ids.push(id);
                            columns.bytes_times.push(time);
                            columns.bytes.push(&word.to_le_bytes());
                            Value::Bytes(word.to_le_bytes().to_vec())
                        }
                        ValueType::I64 => Value::I64(word as i64),
                        _ => Value::F64((word % 1000) as f64),
                    };
                    if let Value::F64(_) | Value::I64(_) = value {
                        columns.ids.push(id);
                        columns.times.push(time);
                        columns.words.push(match value {
                            Value::F64(value) => value.to_bits(),
                            _ => word,
                        });
                    }
                    model[id as usize].insert(time, value);
                }
                head.apply(&columns, lsn, &mut scratch);
            }
            for (id, expected) in model.iter().enumerate() {
                assert_eq!(&collect(&head, id as u32), expected, "seed {seed}, series {id}");
            }
            assert!(head.size() > 0);
        }
    }

    #[test]
    fn an_active_series_with_one_sample_is_small() {
        let (head, _) = head_with(&[ValueType::F64; 64]);
        let mut scratch = Scratch::default();
        for id in 0..64 {
            head.append_word(id, 1, 2, &mut scratch);
        }
        let registry = head.registry().read().size();
        assert!((head.size() + registry) / 64 < 400, "{} + {registry}", head.size());
    }

    #[test]
    fn series_come_sorted_by_key_and_only_with_samples() {
        let (head, keys) = head_with(&[ValueType::F64; 20]);
        let mut scratch = Scratch::default();
        for id in [17, 3, 9] {
            head.append_word(id, 1, 2, &mut scratch);
        }
        let mut expected = vec![keys[17].clone(), keys[3].clone(), keys[9].clone()];
        expected.sort();
        let found: Vec<SeriesKey> = head.all_sorted().into_iter().map(|(key, _, _)| key).collect();
        assert_eq!(found, expected);
        assert_eq!(head.time_bounds(), Some((Timestamp::from_nanos(1), Timestamp::from_nanos(1))));
    }
}
