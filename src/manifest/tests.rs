//! The manifest under cuts, flipped bits, failing calls and crashes at every step.

use std::ops::Range;

use super::*;
use crate::error::ErrorKind;
use crate::fs::{Call, Crash, Fault, FaultFs, FaultKind, MemoryFs};
use crate::model::{Match, Metadata, MetricKind, Selector, TimeRange, Timestamp};

/// A block of these times and LSNs; the ends of the ranges are included.
pub(super) fn block(number: u64, times: Range<i64>, lsns: Range<u64>) -> BlockMeta {
    BlockMeta {
        number,
        size: 1000 + number,
        min_time: Timestamp::from_nanos(times.start),
        max_time: Timestamp::from_nanos(times.end),
        first_lsn: lsns.start,
        last_lsn: lsns.end,
        level: 1,
        series_count: 3,
        sample_count: 500,
    }
}

/// Every field has a value, every list an entry, every kind of matcher a place. Applies to a new state.
pub(super) fn edit_of_everything() -> Edit {
    let selector = Selector::name("cpu")
        .with("a", Match::NotEqual("x".to_owned()))
        .with("b", Match::any_of(["y", "z"]))
        .with("c", Match::regex("w.*").unwrap())
        .with("d", Match::not_regex("v+").unwrap())
        .with("e", Match::Present)
        .with("f", Match::Absent);
    let range = TimeRange { start: Timestamp::from_nanos(-5), end: Timestamp::MAX };
    let metadata = Metadata { kind: MetricKind::Counter, unit: "s".to_owned(), help: "Seconds.".to_owned() };
    Edit {
        blocks_added: vec![block(3, -50..40, 1..9)],
        blocks_removed: Vec::new(),
        tombstones_added: vec![Tombstone { lsn: 8, selector, range }],
        tombstones_removed: Vec::new(),
        quarantined: vec![Quarantined { block: block(2, 0..9, 1..5), reason: "CRC differs".to_owned() }],
        released: Vec::new(),
        metadata: vec![MetricMetadata { name: "cpu".to_owned(), metadata }],
        cut: Some(10),
        floor: Some(Timestamp::from_nanos(-100)),
        incarnation: Some(4),
        next_file: Some(77),
        clean_shutdown: Some(CleanShutdown { last_lsn: 10, next_segment: 6 }),
    }
}

fn dir() -> &'static Path {
    Path::new("/db")
}

fn new_disk(seed: u64) -> MemoryFs {
    let disk = MemoryFs::new(seed);
    disk.create_dir(dir()).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

/// A flush of the LSNs after `cut`, named so that the records take some sectors.
fn flush(number: u64, cut: u64) -> Edit {
    let tombstone =
        Tombstone { lsn: cut + 1, selector: Selector::name("n".repeat(400)), range: TimeRange::ALL };
    Edit {
        blocks_added: vec![block(number, 0..9, cut + 1..cut + 10)],
        tombstones_added: vec![tombstone],
        cut: Some(cut + 10),
        ..Edit::default()
    }
}

/// The edits of a short life.
fn life() -> Vec<Edit> {
    vec![
        flush(1, 0),
        flush(2, 10),
        Edit {
            blocks_added: vec![block(3, 0..9, 1..20)],
            blocks_removed: vec![1, 2],
            tombstones_removed: vec![1, 11],
            ..Edit::default()
        },
        Edit { floor: Some(Timestamp::from_nanos(3)), ..Edit::default() },
        flush(4, 20),
    ]
}

/// The states along a life, before each edit and after the last.
fn states() -> Vec<State> {
    let mut state = State::new([9; 16]);
    let mut states = vec![state.clone()];
    for edit in life() {
        state.apply(&edit).unwrap();
        states.push(state.clone());
    }
    states
}

fn new_manifest(fs: &Arc<dyn Fs>) -> Result<Manifest> {
    Manifest::create(fs.clone(), dir(), [9; 16], &Edit::default())
}

/// The bytes of a manifest that had this life, and the size after each edit.
fn bytes_of_life() -> (Vec<u8>, Vec<usize>) {
    let fs: Arc<dyn Fs> = Arc::new(new_disk(0));
    let mut manifest = new_manifest(&fs).unwrap();
    let mut sizes = vec![manifest.size() as usize];
    for edit in life() {
        manifest.append(edit).unwrap();
        sizes.push(manifest.size() as usize);
    }
    assert_eq!(Some(manifest.state()), states().last());
    let bytes = fs.open(&dir().join("MANIFEST")).unwrap().read_all().unwrap();
    assert_eq!(Some(&bytes.len()), sizes.last());
    (bytes, sizes)
}

fn load(bytes: &[u8]) -> Result<Loaded> {
    reader::load(bytes, Path::new("MANIFEST"))
}

#[track_caller]
fn damaged(bytes: &[u8], what: impl std::fmt::Display) {
    let error = load(bytes).expect_err(&format!("{what}: read as if nothing were wrong"));
    assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
    assert!(error.path().is_some() && error.offset().is_some(), "{what}: {error}");
}

#[test]
fn what_was_appended_is_read_again() {
    let fs: Arc<dyn Fs> = Arc::new(new_disk(0));
    let mut manifest = new_manifest(&fs).unwrap();
    manifest.append(edit_of_everything()).unwrap();
    let loaded = read(&*fs, dir()).unwrap();
    assert_eq!(&loaded.state, manifest.state());
    assert_eq!(loaded.torn_size, 0);
    manifest.rewrite().unwrap();
    let again = read(&*fs, dir()).unwrap();
    assert_eq!(again.state, loaded.state);
    assert!(again.sequence > loaded.sequence, "numbers go on across files");

    let edit = Edit { incarnation: Some(5), ..Edit::default() };
    let manifest = Manifest::open(fs.clone(), dir(), again, &edit).unwrap();
    assert_eq!((manifest.state().incarnation, manifest.state().clean_shutdown), (5, None));
    assert_eq!(&read(&*fs, dir()).unwrap().state, manifest.state());
}

#[test]
fn a_directory_gets_one_manifest() {
    let fs: Arc<dyn Fs> = Arc::new(new_disk(0));
    assert_eq!(read(&*fs, dir()).unwrap_err().kind(), ErrorKind::NotFound);
    new_manifest(&fs).unwrap();
    assert_eq!(new_manifest(&fs).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_manifest_cut_anywhere_says_what_its_whole_edits_say() {
    let (bytes, sizes) = bytes_of_life();
    let states = states();
    for size in 0..bytes.len() {
        let whole = sizes.iter().rposition(|end| *end <= size);
        match whole {
            // All up to here was on the device before the file had its name.
            None => damaged(&bytes[..size], format_args!("cut at {size}")),
            Some(index) => {
                let loaded = load(&bytes[..size]).unwrap();
                assert_eq!(loaded.state, states[index], "cut at {size}");
                assert_eq!(loaded.torn_size as usize, size - sizes[index]);
            }
        }
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let (bytes, _) = bytes_of_life();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        damaged(&flipped, format_args!("bit {bit}"));
    }
}

#[test]
fn missing_sectors_of_the_last_edit_are_a_torn_write_and_of_an_earlier_one_damage() {
    let (bytes, sizes) = bytes_of_life();
    let last_start = sizes[sizes.len() - 2];
    let states = states();
    let mut torn = 0;
    for sector in (MANIFEST_HEADER_SIZE.next_multiple_of(512)..bytes.len()).step_by(512) {
        let mut lacking = bytes.clone();
        let end = bytes.len().min(sector + 512);
        lacking[sector.max(last_start).min(end)..end].fill(0);
        if lacking != bytes {
            torn += 1;
            assert_eq!(load(&lacking).unwrap().state, states[states.len() - 2], "sector at {sector}");
        } else {
            lacking[sector..end].fill(0);
            damaged(&lacking, format_args!("sector at {sector}"));
        }
    }
    assert!(torn > 0);
    let mut grown = bytes.clone();
    grown.resize(bytes.len() + 700, 0);
    let loaded = load(&grown).unwrap();
    assert_eq!((&loaded.state, loaded.torn_size), (states.last().unwrap(), 700), "a size without data");
}

#[test]
fn a_whole_record_that_cannot_follow_is_damage() {
    let (bytes, _) = bytes_of_life();
    let with = |sequence, edit| {
        let mut bytes = bytes.clone();
        put_record(&mut bytes, &Record { sequence, edit }).unwrap();
        bytes
    };
    let sequence = load(&bytes).unwrap().sequence;
    assert!(load(&with(sequence + 1, Edit::default())).is_ok());
    damaged(&with(sequence + 2, Edit::default()), "a number is missing");
    damaged(&with(sequence - 1, Edit::default()), "a number comes back");
    damaged(&with(sequence + 1, Edit { blocks_removed: vec![99], ..Edit::default() }), "an impossible edit");
}

#[test]
fn any_bytes_are_answered() {
    let (bytes, _) = bytes_of_life();
    let mut random = crate::env::Random::new(7);
    for _ in 0..3000 {
        let mut copy = bytes.clone();
        for _ in 0..1 + random.below(8) {
            let at = random.below(copy.len() as u64) as usize;
            match random.below(3) {
                0 => copy[at] = random.next_u64() as u8,
                1 => copy.truncate(at.max(1)),
                _ => {
                    let piece = bytes[random.below(bytes.len() as u64) as usize..].to_vec();
                    copy.splice(at.., piece);
                }
            }
        }
        if let Err(error) = load(&copy) {
            assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnsupportedVersion), "{error}");
        }
    }
    // Starts of records as far as the eye can see must not take quadratic time.
    let mut copy = bytes;
    copy.extend(format::EDIT_MAGIC.iter().copied().chain([0, 0, 15, 0]).cycle().take(4 << 20));
    damaged(&copy, "a million starts");
}

#[test]
fn a_newer_version_is_refused_and_not_touched() {
    let (mut bytes, _) = bytes_of_life();
    bytes[4] = 2;
    let crc = crc32fast::hash(&bytes[..MANIFEST_HEADER_SIZE - 4]);
    bytes[MANIFEST_HEADER_SIZE - 4..MANIFEST_HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
    let disk = new_disk(0);
    replace::replace(&disk, dir(), "MANIFEST", &bytes).unwrap();
    let fs = FaultFs::new(Arc::new(disk));
    let error = read(&fs, dir()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.path().unwrap().ends_with("MANIFEST"));
    assert_eq!(fs.count(Call::Change), 0);
}

#[test]
fn a_long_manifest_is_written_anew() {
    let fs: Arc<dyn Fs> = Arc::new(new_disk(0));
    let mut manifest = new_manifest(&fs).unwrap();
    let mut largest = 0;
    for number in 1..500 {
        let removed = if number > 1 { vec![number - 1] } else { Vec::new() };
        manifest.append(Edit { blocks_removed: removed, ..flush(number, number * 10) }).unwrap();
        manifest.append(Edit { tombstones_removed: vec![number * 10 + 1], ..Edit::default() }).unwrap();
        largest = largest.max(manifest.size());
    }
    assert!(largest <= REWRITE_SIZE_MIN, "{largest}");
    assert_eq!(&read(&*fs, dir()).unwrap().state, manifest.state());
}

#[test]
fn an_impossible_edit_touches_nothing() {
    let disk = FaultFs::new(Arc::new(new_disk(0)));
    let fs: Arc<dyn Fs> = Arc::new(disk.clone());
    let mut manifest = new_manifest(&fs).unwrap();
    let before = disk.count(Call::Change);
    let error = manifest.append(Edit { blocks_removed: vec![5], ..Edit::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    let huge = Quarantined { block: block(1, 0..1, 1..1), reason: "x".repeat(17 << 20) };
    let error = manifest.append(Edit { quarantined: vec![huge], ..Edit::default() }).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(disk.count(Call::Change), before);
    manifest.append(flush(1, 0)).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_taken() {
    for call in [Call::Sync, Call::SyncDir] {
        let disk = FaultFs::new(Arc::new(new_disk(0)));
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut manifest = new_manifest(&fs).unwrap();
        disk.inject(Fault { call, nth: 1, kind: FaultKind::Io, sticky: false });
        let failed = if call == Call::Sync { manifest.append(flush(1, 0)) } else { manifest.rewrite() };
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(disk.fired(), 1);
        let changes = disk.count(Call::Change);
        assert_eq!(manifest.append(flush(1, 0)).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(manifest.rewrite().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(disk.count(Call::Change), changes, "not a byte more");
        assert_eq!(manifest.state().blocks.len(), 0);
    }
}

#[test]
fn a_full_disk_passes() {
    for kind in [FaultKind::NoSpace, FaultKind::Short] {
        let memory = new_disk(0);
        let disk = FaultFs::new(Arc::new(memory.clone()));
        let fs: Arc<dyn Fs> = Arc::new(disk.clone());
        let mut manifest = new_manifest(&fs).unwrap();
        manifest.append(flush(1, 0)).unwrap();
        let before = manifest.state().clone();
        disk.inject(Fault { call: Call::Write, nth: 1, kind, sticky: true });
        for _ in 0..3 {
            assert_eq!(
                manifest.append(flush(2, 10)).unwrap_err().io_kind(),
                Some(std::io::ErrorKind::StorageFull)
            );
            assert_eq!(manifest.state(), &before);
            assert_eq!(read(&memory, dir()).unwrap().state, before, "readers see whole edits");
            assert!(!memory.exists(&dir().join("MANIFEST.tmp")).unwrap(), "nothing is left in the way");
        }
        disk.heal();
        manifest.append(flush(2, 10)).unwrap();
        assert_eq!(&read(&memory, dir()).unwrap().state, manifest.state());
    }
}

/// Makes a manifest, lives, writes it anew in the middle; returns how many edits are known to be on the
/// device.
fn live(fs: &Arc<dyn Fs>) -> Option<usize> {
    let mut manifest = new_manifest(fs).ok()?;
    for (index, edit) in life().into_iter().enumerate() {
        if index == 3 && manifest.rewrite().is_err() {
            return Some(index);
        }
        if manifest.append(edit).is_err() {
            return Some(index);
        }
    }
    Some(life().len())
}

/// Stops the world before each call in turn, cuts the power, and opens what is left, again stopping before
/// each call.
#[test]
fn a_power_cut_at_any_step_leaves_what_was_acknowledged_or_what_was_under_way() {
    let states = states();
    let everything = |nth| Fault { call: Call::Any, nth, kind: FaultKind::Stop, sticky: true };
    let mut torn = 0;
    for nth in 1.. {
        let disk = new_disk(nth);
        let fault = FaultFs::new(Arc::new(disk.clone()));
        fault.inject(everything(nth));
        let known = live(&(Arc::new(fault.clone()) as Arc<dyn Fs>));
        for seed in 0..30 {
            let after = disk.fork(seed).crash(Crash::PowerCut);
            let loaded = match read(&after, dir()) {
                Ok(loaded) => loaded,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NotFound, "call {nth}, seed {seed}: {error}");
                    assert_eq!(known, None, "call {nth}, seed {seed}: an acknowledged manifest is gone");
                    continue;
                }
            };
            let found =
                states.iter().position(|state| *state == loaded.state).expect("a state between two edits");
            let known = known.unwrap_or(0);
            assert!(found == known || found == known + 1, "call {nth}, seed {seed}: {found} of {known}");
            torn += u32::from(loaded.torn_size > 0);
            crash_the_opening(&after, &loaded);
        }
        if fault.fired() == 0 {
            assert!(nth > 23, "the script has that many calls");
            assert!(torn > 0, "some writes were torn");
            return;
        }
    }
}

fn crash_the_opening(disk: &MemoryFs, loaded: &Loaded) {
    let edit = Edit { incarnation: Some(1), ..Edit::default() };
    for nth in 1.. {
        let disk = disk.fork(nth);
        let fault = FaultFs::new(Arc::new(disk.clone()));
        fault.inject(Fault { call: Call::Any, nth, kind: FaultKind::Stop, sticky: true });
        let opened = Manifest::open(Arc::new(fault.clone()), dir(), loaded.clone(), &edit);
        let after = disk.crash(Crash::PowerCut);
        let mut expected = loaded.state.clone();
        let state = read(&after, dir()).unwrap().state;
        if state != expected || opened.is_ok() {
            expected.apply(&edit).unwrap();
            assert_eq!(state, expected);
        }
        if fault.fired() == 0 {
            return;
        }
    }
}
