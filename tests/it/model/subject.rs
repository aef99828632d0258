//! A database on a simulated disk that loses, tears and reorders what was not synced, and beside it a plain map
//! that says what it must hold. Used by the model test and, by its path, by the fuzz target `engine_ops`.
//!
//! After a crash the database must hold the result of a prefix of the writes, no shorter than what was
//! acknowledged: everything for a death of the process, everything synced for a power cut.

use std::collections::BTreeMap;
use std::sync::Arc;

use icecore::fs::{Crash, MemoryFs};
use icecore::{
    Background, Batch, Db, Durability, Env, ManualClock, Match, Options, ReadMode, Selector, TimeRange,
    Timestamp, Value,
};

pub(crate) const ROOT: &str = "/db";
pub(crate) const SERIES: u64 = 7;

/// Values, as their bytes so that a NaN equals itself, by series and time.
pub(crate) type Model = BTreeMap<(u64, i64), Vec<u8>>;

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write { samples: Vec<(u64, i64, u64)>, sync: bool },
    Append { series: u64, time: i64, value: u64 },
    Delete { from: u64, to: u64, start: i64, end: i64 },
    Sync,
    Flush,
    Compact,
    Maintain,
    Reopen,
    Crash { power: bool },
    Snapshot,
    Check,
}

/// Random numbers from a seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn value(series: u64, word: u64) -> Value {
    match series % 3 {
        0 => Value::F64(if word.is_multiple_of(7) {
            f64::from_bits(word)
        } else {
            (word % 1000) as f64 / 10.0
        }),
        1 => Value::I64(if word.is_multiple_of(7) { word as i64 } else { (word % 100) as i64 }),
        _ => Value::Bytes(format!("event {}", word % 1000).into_bytes()),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::F64(value) => value.to_bits().to_le_bytes().to_vec(),
        Value::I64(value) => value.to_le_bytes().to_vec(),
        Value::Bytes(value) => value.clone(),
    }
}

/// A database under test, the states it may be found in after a crash, and its disk.
pub(crate) struct Subject {
    disk: MemoryFs,
    pub(crate) options: Options,
    db: Option<Db>,
    model: Model,
    /// States since the last one that a power cut must keep; the first is that one.
    since_durable: Vec<Model>,
    /// Of those, how many a death of the process must keep.
    kept_by_os: usize,
}

impl Subject {
    /// A new database under options that follow from `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed ^ 0xABCD);
        let disk = MemoryFs::new(seed);
        let mut pick = |values: &[usize]| values[random.below(values.len() as u64) as usize];
        let options = Options {
            background: Background::Host,
            sync_interval: None,
            flush_size: pick(&[1 << 10, 16 << 10, 1 << 20]),
            wal_size_max: pick(&[4 << 10, 600 << 10, 4 << 20]) as u64,
            segment_size_max: pick(&[1 << 10, 8 << 10, 1 << 20]) as u64,
            cache_size: pick(&[0, 10 << 10, 1 << 20]),
            read_mode: [ReadMode::Pread, ReadMode::Map][pick(&[0, 1])],
            compaction: pick(&[0, 1]) == 1,
            merge_size_max: pick(&[2 << 10, 20 << 10, 1 << 30]) as u64,
            ..Options::default()
        };
        let mut subject = Subject {
            disk,
            options,
            db: None,
            model: Model::new(),
            since_durable: vec![Model::new()],
            kept_by_os: 0,
        };
        subject.open(seed);
        subject
    }

    fn open(&mut self, seed: u64) {
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        self.options.env = Env::new(Arc::new(self.disk.clone()), Arc::new(clock), seed);
        self.db = Some(Db::open_with(ROOT, self.options.clone()).unwrap());
    }

    pub(crate) fn db(&self) -> &Db {
        self.db.as_ref().unwrap()
    }

    /// The model has moved on by one commit.
    fn committed(&mut self, os: bool, durable: bool) {
        self.since_durable.push(self.model.clone());
        if os {
            self.kept_by_os = self.since_durable.len() - 1;
        }
        if durable {
            self.all_durable();
        }
    }

    fn all_durable(&mut self) {
        self.since_durable = vec![self.model.clone()];
        self.kept_by_os = 0;
    }

    /// Does one operation on both, and checks what must hold; panics when it does not. `number` seeds what opening draws.
    pub(crate) fn run(&mut self, op: &Op, number: u64) {
        match op {
            Op::Write { samples, sync } => {
                let mut batch = Batch::new();
                for (series, time, word) in samples {
                    let value = value(*series, *word);
                    let tag = series.to_string();
                    let time_stamp = Timestamp::from_nanos(*time);
                    batch.push_named("m", &[("s", &tag)], time_stamp, value.as_ref()).unwrap();
                    self.model.insert((*series, *time), bytes(&value));
                }
                let durability = if *sync { Durability::Sync } else { Durability::Os };
                self.db().write_with(&mut batch, durability).unwrap();
                self.committed(true, *sync);
            }
            Op::Append { series, time, value: word } => {
                let tag = series.to_string();
                let tags = [("s", tag.as_str())];
                let at = Timestamp::from_nanos(*time);
                match value(*series, *word) {
                    Value::F64(v) => self.db().series("m", &tags).unwrap().append(at, v).unwrap(),
                    Value::I64(v) => self.db().series("m", &tags).unwrap().append(at, v).unwrap(),
                    Value::Bytes(v) => self.db().series("m", &tags).unwrap().append(at, v).unwrap(),
                }
                self.model.insert((*series, *time), bytes(&value(*series, *word)));
                self.committed(false, false);
            }
            Op::Delete { from, to, start, end } => {
                let tags = Match::any_of((*from..=*to).map(|series| series.to_string()));
                let range =
                    TimeRange { start: Timestamp::from_nanos(*start), end: Timestamp::from_nanos(*end) };
                self.db().delete(&Selector::name("m").with("s", tags), range).unwrap();
                self.model.retain(|(series, time), _| {
                    !((from..=to).contains(&series) && range.contains(Timestamp::from_nanos(*time)))
                });
                self.committed(true, false);
            }
            Op::Sync => {
                self.db().sync().unwrap();
                self.all_durable();
            }
            Op::Flush => {
                self.db().flush().unwrap();
                self.all_durable();
            }
            Op::Compact => self.db().compact().unwrap(),
            Op::Maintain => drop(self.db().maintain().unwrap()),
            Op::Reopen => {
                self.db.take().unwrap().close().unwrap();
                self.all_durable();
                self.open(number);
                assert!(self.db().recovery().clean, "{:?}", self.db().recovery());
            }
            Op::Crash { power } => self.crash(*power, number),
            Op::Snapshot => {
                let target = format!("/snapshot{number}");
                self.db().snapshot(&target).unwrap();
                self.all_durable();
                let copy = Db::open_with(&target, self.options.clone()).unwrap();
                assert_eq!(dump(&copy), self.model, "snapshot");
                copy.close().unwrap();
            }
            Op::Check => {
                assert_eq!(dump(self.db()), self.model, "the running database");
                self.check_counts();
            }
        }
    }

    fn crash(&mut self, power: bool, number: u64) {
        let kind = if power { Crash::PowerCut } else { Crash::ProcessRestart };
        self.disk = self.disk.crash(kind);
        // The old life can do no harm any more; its handles are dead.
        drop(self.db.take());
        self.open(number);
        let found = dump(self.db());
        let must_keep = if power { 0 } else { self.kept_by_os };
        let allowed = &self.since_durable[must_keep..];
        let Some(state) = allowed.iter().find(|state| **state == found) else {
            let last = self.since_durable.last().unwrap();
            panic!(
                "after a crash (power: {power}) the database holds none of {} states: {} samples found, {} in the last, \
                 {} in the first; {:?}; log: {:?}",
                allowed.len(),
                found.len(),
                last.len(),
                allowed[0].len(),
                self.db().recovery(),
                self.options.env.fs.list(std::path::Path::new("/db/wal")).unwrap()
            );
        };
        self.model = state.clone();
        // Opening made all that it kept durable.
        self.all_durable();
    }

    /// Page aggregates answer like the samples.
    fn check_counts(&self) {
        let result = self.db().query("m").count().by(["s"]).run().unwrap();
        let mut counts = BTreeMap::new();
        for (series, _) in self.model.keys() {
            *counts.entry(series.to_string()).or_insert(0.0) += 1.0;
        }
        let found: BTreeMap<String, f64> = result
            .series
            .iter()
            .map(|series| (series.key.tag("s").to_owned(), series.doubles().iter().sum()))
            .collect();
        // A NaN that is the staleness marker is not counted; the generator makes none.
        assert_eq!(found, counts);
    }
}

fn dump(db: &Db) -> Model {
    let mut model = Model::new();
    for series in db.query(Selector::all()).run().unwrap().series {
        let number: u64 = series.key.tag("s").parse().unwrap();
        assert!(series.times.is_sorted_by(|a, b| a < b));
        for (index, time) in series.times.iter().enumerate() {
            let value = bytes(&series.values.get(index).unwrap().to_value());
            model.insert((number, time.nanos()), value);
        }
    }
    model
}
