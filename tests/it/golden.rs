//! Files of format version 1, written once and never again: every later version opens them and finds the same.
//!
//! `tests/golden/v1/` holds `db`, the files of a database that was not closed, and `dump.txt`, what is in them. They
//! are made by [`write`], under a clock and random numbers that are always the same, when the directory is absent and
//! `GOLDEN=create` is set.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icecore::fs::DiskFs;
use icecore::{
    Background, Batch, Column, Db, Durability, Env, ErrorKind, ManualClock, Match, Metadata, MetricKind,
    Options, Query, ReadMode, Selector, TimeRange, Timestamp, ValueRef, inspect,
};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_700_000_000;
/// So many zeros are kept of those taken ahead behind the last frame of a segment.
const ZEROS_KEPT: usize = 16;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn options(seed: u64) -> Options {
    let clock = ManualClock::new(Timestamp::from_secs(START));
    Options {
        env: Env::new(Arc::new(DiskFs::new()), Arc::new(clock), seed),
        background: Background::Host,
        sync_interval: None,
        compaction: false,
        ..Options::default()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(START + seconds)
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Makes the database, as the process that wrote it left it when it died.
fn write(root: &Path) {
    let db = Db::open_with(root, options(1)).unwrap();
    write_values(&db);
    db.flush().unwrap();
    db.compact().unwrap();
    write_late(&db);
    db.flush().unwrap();
    write_more(&db);
    db.flush().unwrap();
    db.close().unwrap();
    damage_newest_block(root);
    let db = Db::open_with(root, options(2)).unwrap();
    assert_eq!(db.recovery().quarantined.len(), 1);
    write_log(&db);
    std::mem::forget(db);
}

/// One series for each way to write values and times, dense enough for the encodings of compaction.
fn write_values(db: &Db) {
    let mut batch = Batch::new();
    let mut walk = 0i64;
    for n in 0..300 {
        let noise = mix(n as u64);
        walk += (noise % 5) as i64 - 2;
        let (even, uneven) =
            (at(n * 10), Timestamp::from_nanos((START + n * 10) * SECOND + noise as i64 % 1_000_000));
        let host = [("host", "a"), ("dc", "eu-1")];
        let mut put = |name: &str, time, value| batch.push_named(name, &host, time, value).unwrap();
        put("constant", even, ValueRef::F64(0.1));
        put("decimal", even, ValueRef::F64((noise % 200) as f64 / 100.0));
        put("walk", even, ValueRef::I64(walk));
        put("counter", uneven, ValueRef::I64(n * 1000 + (noise % 100) as i64));
        put("jitter", uneven, ValueRef::F64(walk as f64));
        put("multiples", even, ValueRef::I64((noise % 500) as i64 * 1000 + i64::from(n % 97 == 0)));
        put("wave", even, ValueRef::F64((n as f64 / 40.0).sin()));
        if n % 4 == 0 {
            put("any bits", even, ValueRef::F64(f64::from_bits(noise)));
            put("log", even, ValueRef::Bytes(format!("GET /page/{} 200", noise % 10).as_bytes()));
        }
    }
    for (n, value) in [f64::NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE / 2.0, 0.0].into_iter().enumerate() {
        batch.push_named("odd", &[("k", "ü=;\"")], at(n as i64), ValueRef::F64(value)).unwrap();
    }
    batch.push_named("alone", &[], Timestamp::from_nanos(-1), ValueRef::I64(i64::MIN)).unwrap();
    db.write(&mut batch).unwrap();
    let metadata =
        Metadata { kind: MetricKind::Counter, unit: "requests".into(), help: "All of them.".into() };
    db.set_metadata("counter", metadata).unwrap();
}

/// Deletes that stay as tombstones, and later values at times that have some.
fn write_late(db: &Db) {
    let range = TimeRange { start: at(100), end: at(200) };
    db.delete(&Selector::name("walk").with("host", Match::regex("a|b").unwrap()), range).unwrap();
    db.delete(&Selector::all().with("dc", Match::Present), TimeRange { start: at(2900), end: at(2910) })
        .unwrap();
    let mut batch = Batch::new();
    for n in 0..40 {
        batch
            .push_named("decimal", &[("host", "a"), ("dc", "eu-1")], at(n * 20), ValueRef::F64(-1.5))
            .unwrap();
    }
    batch.push_named("event", &[], at(1), ValueRef::Bytes(b"start")).unwrap();
    db.write(&mut batch).unwrap();
}

/// What ends in quarantine.
fn write_more(db: &Db) {
    let mut batch = Batch::new();
    for n in 0..20 {
        batch.push_named("lost", &[], at(100_000 + n), ValueRef::I64(n)).unwrap();
    }
    db.write(&mut batch).unwrap();
}

fn damage_newest_block(root: &Path) {
    let mut blocks: Vec<PathBuf> =
        fs::read_dir(root.join("blocks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    blocks.sort();
    let path = blocks.pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let footer = bytes.len() - 100;
    bytes[footer] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// Frames of every kind.
fn write_log(db: &Db) {
    let mut batch = Batch::new();
    for n in 0..10 {
        batch.push_named("live", &[("host", "b")], at(4000 + n), ValueRef::F64(n as f64)).unwrap();
        batch.push_named("log", &[("host", "b")], at(4000 + n), ValueRef::Bytes(b"live")).unwrap();
        batch.push_named("walk", &[("host", "a"), ("dc", "eu-1")], at(n * 10), ValueRef::I64(-n)).unwrap();
    }
    db.write_with(&mut batch, Durability::Sync).unwrap();
    db.set_metadata("live", Metadata { kind: MetricKind::Gauge, ..Metadata::default() }).unwrap();
    db.delete(&Selector::name("live"), TimeRange { start: at(4000), end: at(4003) }).unwrap();
    batch
        .push_named("live", &[("host", "b")], at(4001), ValueRef::F64(f64::from_bits(0x7ff0_0000_0000_0002)))
        .unwrap();
    db.write(&mut batch).unwrap();
}

/// The files below `root` but the lock, by their names from there.
fn files(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for dir in ["", "wal", "blocks", "quarantine"] {
        for entry in fs::read_dir(root.join(dir)).into_iter().flatten().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.path().is_file() && name != "LOCK" {
                let name = if dir.is_empty() { name } else { format!("{dir}/{name}") };
                found.push((name, kept(fs::read(entry.path()).unwrap())));
            }
        }
    }
    found.sort();
    found
}

/// The bytes of a file without most of the zeros at its end: what is behind the last frame of a segment does not
/// count, and a block and a manifest end in a checksum or magic.
fn kept(mut bytes: Vec<u8>) -> Vec<u8> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate((used + ZEROS_KEPT).min(bytes.len()));
    bytes
}

fn copy(root: &Path) {
    for (name, bytes) in files(&golden().join("db")) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Everything that is stored, and how.
fn dump(root: &Path, query: &Query, metadata: &[(String, Metadata)]) -> String {
    let mut text = String::new();
    let found = inspect::read(&options(0).env, root).unwrap();
    for (path, reason) in &found.quarantined {
        let name = path.file_name().unwrap().to_string_lossy();
        let reason = reason.split(" (").next().unwrap_or_default();
        writeln!(text, "quarantined {name}: {reason}").unwrap();
    }
    for (lsn, selector, range) in &found.tombstones {
        let (start, end) = (range.start.nanos(), range.end.nanos());
        writeln!(text, "tombstone {lsn:#x} {selector} {start}..{end}").unwrap();
    }
    for (name, metadata) in metadata {
        let Metadata { kind, unit, help } = metadata;
        writeln!(text, "metadata {name} {} {unit:?} {help:?}", kind.name()).unwrap();
    }
    for block in &found.blocks {
        let encodings: Vec<&str> = block.encodings.iter().map(|used| used.name).collect();
        let (series, samples) = (block.series_count, block.sample_count);
        writeln!(
            text,
            "block {:#x} {series} series {samples} samples: {}",
            block.number,
            encodings.join(", ")
        )
        .unwrap();
    }
    assert_eq!(query.run().unwrap_err().kind(), ErrorKind::Corruption, "something is in quarantine");
    let result = query.clone().allow_partial().run().unwrap();
    for damaged in &result.report.damaged {
        writeln!(text, "lacks {} to {}", damaged.range.start.nanos(), damaged.range.end.nanos()).unwrap();
    }
    for series in &result.series {
        writeln!(text, "\n{} {}", series.key, series.values.value_type().name()).unwrap();
        for (index, time) in series.times.iter().enumerate() {
            let value = match &series.values {
                Column::F64(values) if values[index].is_nan() => format!("{:#x}", values[index].to_bits()),
                Column::F64(values) => format!("{:?}", values[index]),
                Column::I64(values) => values[index].to_string(),
                Column::Bytes(values) => values.get(index).unwrap().escape_ascii().to_string(),
            };
            writeln!(text, "{} {value}", time.nanos()).unwrap();
        }
    }
    text
}

/// Opens the database in `root` as a reader, which must not write, then as a writer; gives what both find.
fn found_in(root: &Path) -> String {
    let before = files(root);
    let mut dumps = Vec::new();
    for read_mode in [ReadMode::Pread, ReadMode::Map] {
        let reader = Db::open_reader_with(root, Options { read_mode, ..options(3) }).unwrap();
        dumps.push(dump(root, &reader.query(Selector::all()), &reader.all_metadata()));
    }
    assert!(files(root) == before && !root.join("LOCK").exists(), "a reader writes nothing");
    let db = Db::open_with(root, options(4)).unwrap();
    assert!(db.recovery().torn.is_none(), "{:?}", db.recovery());
    dumps.push(dump(root, &db.query(Selector::all()), &db.all_metadata()));
    assert!(dumps.iter().all(|dump| *dump == dumps[0]), "readers and writer find the same");
    dumps.remove(0)
}

#[test]
fn files_of_version_1_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let creates = std::env::var("GOLDEN").is_ok_and(|value| value == "create") && !golden().exists();
    if creates {
        write(&dir.path().join("new"));
        for (name, bytes) in files(&dir.path().join("new")) {
            let path = golden().join("db").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let root = dir.path().join("copy");
    copy(&root);
    // A reader needs no more than to read.
    for path in [root.clone(), root.join("wal"), root.join("blocks"), root.join("quarantine")] {
        set_read_only(&path, true);
    }
    let reader = Db::open_reader_with(&root, options(5)).unwrap();
    let range = TimeRange { start: Timestamp::MIN, end: at(0) };
    assert_eq!(reader.query("alone").range(range).run().unwrap().series.len(), 1);
    for path in [root.clone(), root.join("wal"), root.join("blocks"), root.join("quarantine")] {
        set_read_only(&path, false);
    }
    let found = found_in(&root);
    let path = golden().join("dump.txt");
    if creates {
        fs::write(&path, &found).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    for (number, (found, wanted)) in (1..).zip(found.lines().zip(wanted.lines())) {
        assert_eq!(found, wanted, "line {number} of dump.txt");
    }
    assert_eq!(found.len(), wanted.len());
    // What is there uses all of the format.
    for encoding in [
        "constant",
        "raw",
        "frame of reference",
        "prefix",
        "pco",
        "pco of doubles",
        "plain",
        "lz4",
        "tombstone",
    ] {
        assert!(wanted.contains(encoding), "{encoding}");
    }
}

fn set_read_only(path: &Path, read_only: bool) {
    let mut permissions = fs::metadata(path).unwrap().permissions();
    permissions.set_readonly(read_only);
    fs::set_permissions(path, permissions).unwrap();
}

/// The log is written today byte for byte as it was: its layout leaves nothing to choose. Blocks are not compared, nor
/// the manifest, which has their sizes: a later version may encode the same values in fewer bytes of the same format.
/// They hold the same.
#[test]
fn the_log_of_version_1_is_still_written() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("db");
    write(&root);
    let segments = |root: &Path| -> Vec<(String, Vec<u8>)> {
        files(root).into_iter().filter(|(name, _)| name.starts_with("wal/")).collect()
    };
    let (written, wanted) = (segments(&root), segments(&golden().join("db")));
    let names = |segments: &[(String, Vec<u8>)]| -> Vec<String> {
        segments.iter().map(|(name, bytes)| format!("{name}, {} bytes", bytes.len())).collect()
    };
    assert_eq!(names(&written), names(&wanted));
    for ((name, written), (_, wanted)) in written.iter().zip(&wanted) {
        let differs = written.iter().zip(wanted).position(|(a, b)| a != b);
        assert_eq!(differs, None, "the first byte of {name} that is another");
    }
    let without_blocks = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with("block ")).map(str::to_owned).collect()
    };
    let wanted = fs::read_to_string(golden().join("dump.txt")).unwrap();
    let released = dir.path().join("released");
    fs::create_dir_all(&released).unwrap();
    for (name, bytes) in files(&root) {
        fs::create_dir_all(released.join(&name).parent().unwrap()).unwrap();
        fs::write(released.join(name), bytes).unwrap();
    }
    assert_eq!(without_blocks(&found_in(&released)), without_blocks(&wanted));
}
