//! The databases that are damaged, what they hold, and what may be found in them afterwards.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icecore::fs::{Crash, Fs, MemoryFs};
use icecore::{
    Background, Batch, Column, Db, Durability, Env, ErrorKind, ManualClock, Metadata, MetricKind, Options,
    Query, QueryResult, ReadMode, Reader, Result, Selector, TimeRange, Timestamp, ValueRef, inspect,
};

pub(crate) const ROOT: &str = "/db";

/// How a damaged database answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With all that was stored, without a word.
    Right,
    /// With a state that it once had, and said where the log was cut off.
    Cut,
    /// Queries say that something is damaged.
    Marked,
    /// It does not open, and says why.
    Refused,
}

/// A database on a disk of its own, and what it held after each commit.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) disk: MemoryFs,
    /// The states that it had, the last one being that of now; those before `durable` must not come back.
    states: Vec<String>,
    durable: usize,
    seed: u64,
}

impl Subject {
    pub(crate) fn all() -> Vec<Subject> {
        vec![Self::log_only(), Self::blocks_and_log(1), Self::closed()]
    }

    /// Live frames of every kind, in several segments, some of them durable.
    fn log_only() -> Subject {
        let mut subject = Subject::new("log", 3);
        let db = subject.open(&subject.disk).unwrap();
        subject.fill(&db);
        drop(db);
        subject.stop()
    }

    /// Blocks of every type and most encodings, tombstones, metadata, and a log of two lives.
    pub(crate) fn blocks_and_log(seed: u64) -> Subject {
        let mut subject = Subject::new("blocks and log", seed);
        let db = subject.open(&subject.disk).unwrap();
        subject.write_blocks(&db, seed as i64);
        drop(db);
        subject.disk = subject.disk.crash(Crash::ProcessRestart);
        let db = subject.open(&subject.disk).unwrap();
        subject.fill(&db);
        drop(db);
        subject.stop()
    }

    /// The same blocks, merged, after a clean close.
    fn closed() -> Subject {
        let mut subject = Subject::new("closed", 4);
        let db = subject.open(&subject.disk).unwrap();
        subject.write_blocks(&db, 4);
        db.compact().unwrap();
        subject.fill(&db);
        db.close().unwrap();
        subject.durable = subject.states.len() - 1;
        subject.stop()
    }

    fn new(name: &'static str, seed: u64) -> Subject {
        Subject { name, disk: MemoryFs::new(seed), states: Vec::new(), durable: 0, seed }
    }

    fn stop(mut self) -> Subject {
        self.disk = self.disk.crash(Crash::ProcessRestart);
        self
    }

    /// Notes the state after a commit.
    fn committed(&mut self, db: &Db, durable: bool) {
        self.states.push(dump(&db.query(Selector::all()).run().unwrap()));
        if durable {
            self.durable = self.states.len() - 1;
        }
    }

    fn write_blocks(&mut self, db: &Db, seed: i64) {
        let mut batch = Batch::new();
        for n in 0..150 {
            let time = Timestamp::from_secs(n * 10 + n % 3);
            let tags = [("host", "a")];
            batch
                .push_named("gauge", &tags, time, ValueRef::F64((n * n % (90 + seed)) as f64 / 10.0))
                .unwrap();
            batch.push_named("constant", &tags, time, ValueRef::F64(seed as f64)).unwrap();
            let noise = (n + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64);
            batch.push_named("noise", &[("host", "b")], time, ValueRef::I64(noise)).unwrap();
            if n % 10 == 0 {
                let event = format!("event {} of {n}", seed % 10);
                batch.push_named("log", &[], time, ValueRef::Bytes(event.as_bytes())).unwrap();
            }
        }
        db.write(&mut batch).unwrap();
        db.set_metadata(
            "gauge",
            Metadata { kind: MetricKind::Gauge, unit: "s".into(), ..Metadata::default() },
        )
        .unwrap();
        db.flush().unwrap();
        let range = TimeRange { start: Timestamp::from_secs(100), end: Timestamp::from_secs(200) };
        db.delete(&Selector::name("gauge"), range).unwrap();
        for n in 0..20 {
            batch
                .push_named("gauge", &[("host", "a")], Timestamp::from_secs(n * 20), ValueRef::F64(0.5))
                .unwrap();
        }
        db.write(&mut batch).unwrap();
        db.flush().unwrap();
        self.committed(db, true);
    }

    fn fill(&mut self, db: &Db) {
        for n in 0..8 {
            let mut batch = Batch::new();
            for point in 0..5 {
                let time = Timestamp::from_secs(5000 + n * 5 + point);
                batch.push_named("gauge", &[("host", "a")], time, ValueRef::F64(n as f64)).unwrap();
                batch.push_named("log", &[], time, ValueRef::Bytes(b"live")).unwrap();
            }
            let durability = if n < 6 { Durability::Sync } else { Durability::Os };
            db.write_with(&mut batch, durability).unwrap();
            self.committed(db, n < 6);
        }
        let range = TimeRange { start: Timestamp::from_secs(5003), end: Timestamp::from_secs(5007) };
        db.delete(&Selector::name("log"), range).unwrap();
        self.committed(db, false);
    }

    /// Every file but the lock, in order of paths.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.tree(&self.disk)
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| !path.ends_with("LOCK"))
            .collect()
    }

    /// Every file and its bytes.
    pub(crate) fn tree(&self, disk: &MemoryFs) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = BTreeSet::new();
        for dir in ["", "wal", "blocks", "quarantine"] {
            let dir = Path::new(ROOT).join(dir);
            for entry in disk.list(&dir).unwrap_or_default().into_iter().filter(|entry| !entry.is_dir) {
                files.insert(dir.join(entry.name));
            }
        }
        files.into_iter().map(|path| (path.clone(), disk.open(&path).unwrap().read_all().unwrap())).collect()
    }

    /// Whether nothing that is stored lies in the file: a segment without frames, or one that the cut has passed.
    pub(crate) fn is_spare(&self, path: &Path) -> bool {
        let disk = self.disk.fork(0);
        disk.remove(path).unwrap();
        path.to_string_lossy().ends_with(".wal")
            && self.open(&disk).is_ok_and(|db| {
                db.query(Selector::all()).run().is_ok_and(|result| Some(&dump(&result)) == self.states.last())
            })
    }

    fn options(&self, disk: &MemoryFs) -> Options {
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        Options {
            env: Env::new(Arc::new(disk.clone()), Arc::new(clock), self.seed << 32 | disk.used()),
            background: Background::Host,
            sync_interval: None,
            segment_size_max: 1 << 10,
            read_mode: if disk.used().is_multiple_of(2) { ReadMode::Pread } else { ReadMode::Map },
            cache_size: 64 << 10,
            ..Options::default()
        }
    }

    pub(crate) fn open(&self, disk: &MemoryFs) -> Result<Db> {
        Db::open_with(ROOT, self.options(disk))
    }

    pub(crate) fn open_reader(&self, disk: &MemoryFs) -> Result<Reader> {
        Db::open_reader_with(ROOT, self.options(disk))
    }

    /// Checks and opens a copy of this database to which something was done.
    #[track_caller]
    pub(crate) fn outcome(&self, disk: &MemoryFs, case: &str) -> Outcome {
        let before = self.tree(disk);
        let mut damages = Vec::new();
        let env = self.options(disk).env;
        let verified = inspect::verify(&env, Path::new(ROOT), &mut |event| {
            if let inspect::Event::Damage(damage) = event {
                damages.push(damage);
            }
        });
        if let Err(error) = &verified {
            assert_says(error, case);
        }
        let reader = match self.open_reader(disk) {
            Ok(reader) => self.judge(reader.query(Selector::all()), true, case),
            Err(error) => {
                assert_says(&error, case);
                Outcome::Refused
            }
        };
        assert!(self.tree(disk) == before, "{case}: a reader has written");
        let db = match self.open(disk) {
            Ok(db) => db,
            Err(error) => {
                assert_says(&error, case);
                let is_found = verified.is_err() || !damages.is_empty();
                assert!(
                    is_found || error.kind() != ErrorKind::Corruption,
                    "{case}: verify finds nothing: {error}"
                );
                return Outcome::Refused;
            }
        };
        let torn = db.recovery().torn.is_some();
        let outcome = self.judge(db.query(Selector::all()), torn, case);
        if outcome == Outcome::Marked {
            assert!(verified.is_err() || !damages.is_empty(), "{case}: verify finds nothing");
        }
        if outcome == Outcome::Right {
            assert!(matches!(reader, Outcome::Right | Outcome::Refused), "{case}: the reader {reader:?}");
        }
        self.go_on(db, disk, outcome, case);
        outcome
    }

    /// Whether an answer is one that may be given.
    #[track_caller]
    fn judge(&self, query: Query, torn: bool, case: &str) -> Outcome {
        match query.run() {
            Ok(result) => {
                let found = dump(&result);
                let state = self.states.iter().rposition(|state| *state == found);
                let state =
                    state.unwrap_or_else(|| panic!("{case}: an answer that never was right:\n{found}"));
                if state == self.states.len() - 1 {
                    return Outcome::Right;
                }
                assert!(torn, "{case}: an old state, and not a word");
                assert!(state >= self.durable, "{case}: what was durable is lost in silence");
                Outcome::Cut
            }
            Err(error) => {
                assert_says(&error, case);
                let partial = query.allow_partial().run().unwrap_or_else(|error| panic!("{case}: {error}"));
                assert!(partial.report.is_partial(), "{case}: a partial answer is not marked");
                Outcome::Marked
            }
        }
    }

    /// The database goes on: it takes writes, and gives the same answer after a merge and a restart.
    #[track_caller]
    fn go_on(&self, db: Db, disk: &MemoryFs, outcome: Outcome, case: &str) {
        let answer = |db: &Db| db.query(Selector::all()).run().map(|result| dump(&result)).ok();
        let before = answer(&db);
        for done in [db.flush(), db.compact()] {
            if let Err(error) = done {
                assert_says(&error, case);
            }
        }
        assert_eq!(answer(&db), before, "{case}, after a merge");
        let disk = disk.fork(1).crash(Crash::PowerCut);
        drop(db);
        let again = self.open(&disk).unwrap_or_else(|error| panic!("{case}: {outcome:?}, then {error}"));
        assert_eq!(answer(&again), before, "{case}, opened again");
        let mut batch = Batch::new();
        batch.push_named("new", &[], Timestamp::from_secs(1 << 30), ValueRef::I64(1)).unwrap();
        again.write_with(&mut batch, Durability::Sync).unwrap();
        let range = TimeRange { start: Timestamp::from_secs(1 << 30), end: Timestamp::MAX };
        assert_eq!(again.query("new").range(range).run().unwrap().series.len(), 1, "{case}");
    }
}

/// Damage is said as such, with the place.
#[track_caller]
fn assert_says(error: &icecore::Error, case: &str) {
    use ErrorKind::{Corruption, InvalidInput, Io, NotFound, UnsupportedVersion};
    let fits = matches!(error.kind(), Corruption | InvalidInput | Io | NotFound | UnsupportedVersion);
    assert!(fits && error.to_string().contains("/db"), "{case}: {error:?}");
}

fn dump(result: &QueryResult) -> String {
    let mut text = String::new();
    for series in &result.series {
        let times: Vec<i64> = series.times.iter().map(|time| time.nanos()).collect();
        let values = match &series.values {
            Column::F64(values) => format!("{:?}", values.iter().map(|v| v.to_bits()).collect::<Vec<_>>()),
            other => format!("{other:?}"),
        };
        text += &format!("{} {times:?} {values}\n", series.key);
    }
    text
}
