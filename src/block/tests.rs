//! Blocks written to a simulated disk and read back: whole, damaged, cut short, by both ways of reading.

use std::path::Path;
use std::sync::Arc;

use super::verify::{Damage, Verified};
use super::*;
use crate::chunk::merge::ColumnSlice;
use crate::chunk::{Effort, cut_pages, encode_page};
use crate::env::Random;
use crate::error::{ErrorKind, Result};
use crate::fs::{Fs, MemoryFs};
use crate::model::{Column, Match, Selector, SeriesKey, ValueRef, ValueType};

const OPTIONS: BlockOptions = BlockOptions { database_id: [7; 16], number: 3, level: 1 };
const LSNS: LsnRange = LsnRange { first: 10, last: 20 };

#[derive(Clone, Debug, PartialEq)]
struct Samples {
    key: SeriesKey,
    times: Vec<i64>,
    values: Column,
}

fn column(value_type: ValueType, count: usize, mut value: impl FnMut(usize) -> f64) -> Column {
    let mut column = Column::new(value_type);
    for index in 0..count {
        let value = value(index);
        let text = format!("{value}");
        let value = match value_type {
            ValueType::F64 => ValueRef::F64(value),
            ValueType::I64 => ValueRef::I64(value as i64),
            _ => ValueRef::Bytes(text.as_bytes()),
        };
        assert!(column.push(value));
    }
    column
}

/// Series of all types with regular, jittered, shared, partly shared and single times.
fn samples(seed: u64, series_count: usize, sample_count: usize) -> Vec<Samples> {
    let mut random = Random::new(seed);
    let jittered: Vec<i64> =
        (0..sample_count as i64).map(|i| i * 1_000_000_000 + random.below(999) as i64).collect();
    let mut all = Vec::new();
    for index in 0..series_count {
        let value_type = [ValueType::F64, ValueType::I64, ValueType::Bytes, ValueType::F64][index % 4];
        let tags = [
            ("host", format!("h{}", index / 3)),
            ("part", ["", "a", "b", "ab"][random.below(4) as usize].to_owned()),
            ("rack", format!("{}", random.below(5))),
        ];
        let name = ["cpu", "disk", "mem"][index * 3 / series_count];
        let key = SeriesKey::new(name, tags).unwrap();
        let mut times = match index % 5 {
            0 => (0..sample_count as i64).map(|i| i * 1_000_000_000).collect(),
            4 => vec![random.below(1000) as i64],
            _ => jittered.clone(),
        };
        if index % 5 == 3 && times.len() > 10 {
            times.remove(7);
        }
        let shape = random.below(4);
        let values = column(value_type, times.len(), |_| match shape {
            0 => 42.0,
            1 => random.below(100) as f64,
            2 => random.below(1_000_000) as f64 / 100.0,
            _ => f64::from_bits(random.next_u64() >> 3),
        });
        all.push(Samples { key, times, values });
    }
    all.sort_by(|a, b| (&a.key, a.values.value_type()).cmp(&(&b.key, b.values.value_type())));
    all.dedup_by(|a, b| a.key == b.key && a.values.value_type() == b.values.value_type());
    all
}

fn write(fs: &Arc<dyn Fs>, path: &Path, all: &[Samples]) -> Result<BlockMeta> {
    let mut writer = BlockWriter::create(fs.clone(), path, OPTIONS)?;
    for samples in all {
        writer.series(&samples.key, samples.values.value_type())?;
        let values = ColumnSlice::new(&samples.values, 0, samples.values.len());
        for range in cut_pages(&samples.times, values) {
            let values = values.slice(range.start, range.end);
            writer.page(&encode_page(&samples.times[range], values, Effort::Flush))?;
        }
    }
    writer.finish(LSNS)
}

fn block(all: &[Samples]) -> (Arc<dyn Fs>, BlockMeta) {
    let fs: Arc<dyn Fs> = Arc::new(MemoryFs::new(1));
    let meta = write(&fs, Path::new("/b"), all).unwrap();
    (fs, meta)
}

fn open(fs: &Arc<dyn Fs>, mode: ReadMode) -> Result<BlockReader> {
    BlockReader::open(fs.open(Path::new("/b"))?, mode, Arc::new(Cache::new(1 << 20)))
}

/// A disk whose only file holds these bytes.
fn disk_of(bytes: &[u8]) -> Arc<dyn Fs> {
    let fs: Arc<dyn Fs> = Arc::new(MemoryFs::new(1));
    fs.create(Path::new("/b")).unwrap().write_at(bytes, 0).unwrap();
    fs
}

fn read_series(block: &BlockReader, ordinal: u32) -> Result<Samples> {
    let chunk = block.chunk(ordinal)?;
    let (mut times, mut values) = (Vec::new(), Column::new(chunk.value_type()));
    for page in chunk.pages() {
        block.read_times(chunk.group(), page, &mut times)?;
        block.read_values(chunk.group(), page, &mut values)?;
    }
    Ok(Samples { key: block.key(ordinal)?, times, values })
}

fn selectors() -> Vec<Selector> {
    vec![
        Selector::all(),
        Selector::name("cpu"),
        Selector::name("cpu").with("host", "h1"),
        Selector::name("none"),
        Selector::all().with("host", Match::regex("h1.*|h2").unwrap()),
        Selector::all().with("part", Match::Absent).with("rack", Match::any_of(["1", "3"])),
        Selector::all().with("part", Match::not_equal("a")).with("host", Match::Present),
        Selector::name(Match::not_regex("c.*").unwrap()).with("rack", Match::not_equal("2")),
    ]
}

fn expected(all: &[Samples], selector: &Selector) -> Vec<u32> {
    let matching = all.iter().enumerate().filter(|(_, samples)| selector.matches(&samples.key));
    matching.map(|(ordinal, _)| ordinal as u32).collect()
}

fn damages(block: &BlockReader) -> (Verified, Vec<Damage>) {
    let mut found = Vec::new();
    let verified = verify(block, &mut |damage| found.push(damage)).unwrap();
    (verified, found)
}

#[test]
fn what_is_written_is_read_by_both_ways() {
    let all = samples(1, 200, 700);
    let (fs, meta) = block(&all);
    assert_eq!(meta.series_count as usize, all.len());
    assert_eq!((meta.first_lsn, meta.last_lsn, meta.number, meta.level), (10, 20, 3, 1));
    assert_eq!(meta.sample_count, all.iter().map(|samples| samples.times.len() as u64).sum::<u64>());
    assert_eq!(meta.min_time, all.iter().map(|samples| samples.times[0]).min().unwrap());
    assert_eq!(meta.max_time, all.iter().map(|samples| *samples.times.last().unwrap()).max().unwrap());
    for mode in [ReadMode::Pread, ReadMode::Map] {
        let block = open(&fs, mode).unwrap();
        assert_eq!(*block.meta(), meta);
        for (ordinal, samples) in all.iter().enumerate() {
            let read = read_series(&block, ordinal as u32).unwrap();
            assert_eq!(format!("{read:?}"), format!("{samples:?}"));
        }
        assert!(block.chunk(all.len() as u32).is_err());
        let (verified, damages) = damages(&block);
        assert!(damages.is_empty(), "{damages:?}");
        assert_eq!(verified.sample_count, meta.sample_count);
        assert_eq!(verified.page_count, meta.page_count);
        let parts = block.parts().unwrap();
        assert!(parts.windows(2).all(|pair| pair[0].bytes.end <= pair[1].bytes.start), "{parts:?}");
        assert_eq!(parts.last().unwrap().bytes.end, meta.size);
    }
}

#[test]
fn selection_agrees_with_a_scan() {
    for seed in 0..10 {
        let all = samples(seed, 150, 3);
        let (fs, _) = block(&all);
        let block = open(&fs, ReadMode::Pread).unwrap();
        for selector in selectors() {
            let expected = expected(&all, &selector);
            assert_eq!(block.select(&selector).unwrap(), expected, "{selector:?}");
            assert!(block.may_match(&selector) || expected.is_empty());
        }
        assert!(!block.may_match(&Selector::name("none")));
        assert!(!block.may_match(&Selector::all().with("session", "x")));
    }
}

#[test]
fn equal_time_columns_are_kept_once() {
    let times: Vec<i64> = (0..600).map(|i| i * 1_000_000_000 + (i * 7919) % 999_983).collect();
    let series = |index: usize, times: Vec<i64>| Samples {
        key: SeriesKey::new("m", [("i", format!("{index:03}"))]).unwrap(),
        values: column(ValueType::F64, times.len(), |_| 1.0),
        times,
    };
    let one = block(&[series(0, times.clone())]).1.size;
    let same: Vec<Samples> = (0..50).map(|index| series(index, times.clone())).collect();
    let (fs, meta) = block(&same);
    assert!(meta.size < one + 50 * 15, "{} bytes against {one} for one", meta.size);
    assert_eq!(read_series(&open(&fs, ReadMode::Pread).unwrap(), 40).unwrap(), same[40]);

    let lacking: Vec<Samples> = (0..50)
        .map(|index| {
            let mut times = times.clone();
            (1..index).rev().for_each(|nth| _ = times.remove(nth * 11));
            series(index, times)
        })
        .collect();
    let (fs, meta) = block(&lacking);
    assert!(meta.size < one + 50 * 80, "{} bytes against {one} for one", meta.size);
    let block = open(&fs, ReadMode::Pread).unwrap();
    for (ordinal, samples) in lacking.iter().enumerate() {
        assert_eq!(read_series(&block, ordinal as u32).unwrap(), *samples);
    }
}

#[test]
fn copied_pages_make_the_same_block() {
    let all = samples(5, 100, 300);
    let (fs, _) = block(&all);
    let source = open(&fs, ReadMode::Pread).unwrap();
    let mut stream = BlockStream::new(&source).unwrap();
    let mut writer = BlockWriter::create(fs.clone(), Path::new("/copy"), OPTIONS).unwrap();
    for number in 0..source.group_count() {
        let (group, keys) = stream.group(number).unwrap();
        for ordinal in group.ordinals() {
            let (value_type, pages) = group.series(ordinal).unwrap();
            writer.series(keys.get(ordinal).unwrap(), value_type).unwrap();
            for page in pages {
                writer.page(&stream.raw_page(&group, page).unwrap()).unwrap();
            }
        }
    }
    writer.finish(LSNS).unwrap();
    let bytes = |path: &str| fs.open(Path::new(path)).unwrap().read_all().unwrap();
    assert!(bytes("/b") == bytes("/copy"));
}

/// Everything that can be asked of a block is the truth, or `Corruption`.
fn check_damaged(fs: &Arc<dyn Fs>, mode: ReadMode, all: &[Samples]) {
    let truth_or_corruption = |result: Result<bool>| match result {
        Ok(right) => assert!(right, "a wrong answer"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
    };
    let block = match open(fs, mode) {
        Ok(block) => block,
        Err(error) => return assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
    };
    for selector in selectors() {
        truth_or_corruption(block.select(&selector).map(|found| found == expected(all, &selector)));
    }
    for (ordinal, samples) in all.iter().enumerate() {
        truth_or_corruption(
            read_series(&block, ordinal as u32).map(|read| format!("{read:?}") == format!("{samples:?}")),
        );
    }
    let (_, damages) = damages(&block);
    assert!(!damages.is_empty(), "damage that verification does not find");
    assert!(damages.iter().all(|damage| damage.error.path().is_some()), "{damages:?}");
}

#[test]
fn any_flipped_bit_is_corruption_or_harmless() {
    let all = samples(2, 5, 30);
    let (fs, _) = block(&all);
    let good = fs.open(Path::new("/b")).unwrap().read_all().unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let mode = if bit % 2 == 0 { ReadMode::Pread } else { ReadMode::Map };
        check_damaged(&disk_of(&bad), mode, &all);
    }
}

#[test]
fn a_file_cut_short_is_corruption() {
    let all = samples(3, 10, 30);
    let (fs, meta) = block(&all);
    let good = fs.open(Path::new("/b")).unwrap().read_all().unwrap();
    for size in 0..meta.size as usize {
        let error = open(&disk_of(&good[..size]), ReadMode::Pread).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption);
        assert!(error.path().is_some());
    }
}

#[test]
fn verification_names_series_and_time() {
    let all = samples(4, 100, 700);
    let (fs, _) = block(&all);
    let mut bytes = fs.open(Path::new("/b")).unwrap().read_all().unwrap();
    let source = open(&fs, ReadMode::Pread).unwrap();
    let stored = |ordinal: &u32| {
        let chunk = source.chunk(*ordinal).unwrap();
        matches!(chunk.pages()[0].values, directory::ValuesEntry::Stored { .. })
    };
    let ordinal = (0..all.len() as u32).find(stored).unwrap();
    let page = source.chunk(ordinal).unwrap().pages()[0].clone();
    let directory::ValuesEntry::Stored { offset, .. } = page.values else { panic!("it is stored") };
    bytes[offset as usize + 5] ^= 4;
    let (verified, damages) = damages(&open(&disk_of(&bytes), ReadMode::Pread).unwrap());
    let [damage] = damages.as_slice() else { panic!("one damage, not {damages:?}") };
    assert_eq!(damage.error.offset(), Some(offset));
    assert_eq!(damage.series.as_ref(), Some(&all[ordinal as usize].key));
    assert_eq!(damage.times, (page.meta.min_time, page.meta.max_time));
    assert_eq!(verified.page_count + 1, source.meta().page_count);
}

#[test]
fn a_newer_version_is_told_apart() {
    let (fs, _) = block(&samples(1, 3, 3));
    let mut bytes = fs.open(Path::new("/b")).unwrap().read_all().unwrap();
    bytes[4] = 2;
    let crc = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&crc.to_le_bytes());
    let error = open(&disk_of(&bytes), ReadMode::Pread).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
}

#[test]
fn a_dropped_writer_leaves_no_file() {
    let fs: Arc<dyn Fs> = Arc::new(MemoryFs::new(1));
    let path = Path::new("/b");
    let writer = BlockWriter::create(fs.clone(), path, OPTIONS).unwrap();
    assert!(fs.exists(path).unwrap());
    assert_eq!(writer.finish(LSNS).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(!fs.exists(path).unwrap());
}

#[test]
fn series_and_pages_out_of_order_are_refused() {
    let fs: Arc<dyn Fs> = Arc::new(MemoryFs::new(1));
    let mut writer = BlockWriter::create(fs, Path::new("/b"), OPTIONS).unwrap();
    let key = |name: &str| SeriesKey::new(name, [("a", "b")]).unwrap();
    let page = |times: &[i64]| {
        let values = column(ValueType::F64, times.len(), |index| index as f64);
        encode_page(times, ColumnSlice::new(&values, 0, times.len()), Effort::Flush)
    };
    assert!(writer.page(&page(&[1])).is_err());
    writer.series(&key("b"), ValueType::F64).unwrap();
    writer.page(&page(&[1, 2])).unwrap();
    assert!(writer.page(&page(&[2, 3])).is_err());
    assert!(writer.series(&key("b"), ValueType::F64).is_err());
    assert!(writer.series(&key("a"), ValueType::Bytes).is_err());
    writer.series(&key("b"), ValueType::I64).unwrap();
}

#[test]
fn a_series_without_pages_is_left_out() {
    let mut all = samples(6, 20, 5);
    all[3].times.clear();
    all[3].values.clear();
    let (fs, meta) = block(&all);
    all.remove(3);
    assert_eq!(meta.series_count as usize, all.len());
    assert_eq!(read_series(&open(&fs, ReadMode::Pread).unwrap(), 3).unwrap().key, all[3].key);
}

#[test]
fn a_long_series_ends_its_group() {
    let long = Samples {
        key: SeriesKey::new("a", [("k", "v")]).unwrap(),
        times: (0..3_000_000).map(|i| i * 1_000_000_000).collect(),
        values: column(ValueType::F64, 3_000_000, |_| 1.0),
    };
    let mut all = samples(7, 100, 5);
    all.insert(0, long);
    let (fs, _) = block(&all);
    let block = open(&fs, ReadMode::Pread).unwrap();
    assert_eq!(block.group(0).unwrap().ordinals(), 0..1);
    assert_eq!(block.group(1).unwrap().ordinals(), 1..65);
    assert_eq!(block.group_count(), 2 + usize::from(all.len() > 65));
    let last = all.len() as u32 - 1;
    assert_eq!(block.key(last).unwrap(), all[last as usize].key);
}

#[test]
fn what_does_not_fit_the_cache_is_read_again() {
    let all = samples(8, 100, 50);
    let (fs, _) = block(&all);
    let file = fs.open(Path::new("/b")).unwrap();
    let cache = Arc::new(Cache::new(2000));
    let block = BlockReader::open(file, ReadMode::Pread, cache.clone()).unwrap();
    for (ordinal, samples) in all.iter().enumerate() {
        assert_eq!(read_series(&block, ordinal as u32).unwrap().times, samples.times);
        assert!(cache.statistics().size <= 2000);
    }
    drop(block);
    assert_eq!(cache.statistics().size, 0);
}

/// Checksums keep damaged bytes from the decoders; should one ever pass, the decoders refuse or misread, and
/// neither panic nor take memory without bound.
#[test]
fn decoders_survive_what_checksums_let_through() {
    let all = samples(9, 40, 30);
    let (fs, meta) = block(&all);
    let bytes = fs.open(Path::new("/b")).unwrap().read_all().unwrap();
    let parts = open(&fs, ReadMode::Pread).unwrap().parts().unwrap();
    let part = |name: &str| {
        let part = parts.iter().find(|part| part.name == name).unwrap();
        bytes[part.bytes.start as usize..part.bytes.end as usize].to_vec()
    };
    let series = 0..meta.series_count.min(64);
    let check = |good: &[u8], decode: &dyn Fn(&[u8])| {
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            decode(&bad);
            decode(&good[..bit / 8]);
        }
    };
    check(&part("directory"), &|bytes| _ = Group::decode(bytes, series.clone()));
    check(&part("group table"), &|bytes| _ = format::GroupTable::decode(bytes, meta.series_count));
    check(&part("bounds"), &|bytes| _ = bounds::Bounds::decode(bytes));
}
