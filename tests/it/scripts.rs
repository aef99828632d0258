//! Sequences of events as text, one file each in `tests/scripts/`: operations, crashes, and lines that say what must
//! be found. The first lines of each say which rule it holds; each fails when that rule is taken away.
//!
//! | line | does |
//! |---|---|
//! | `seeds N` | the script is run N times, with other luck at power cuts and other random numbers (default 1) |
//! | `option NAME VALUE` | before the next opening: `flush_size`, `segment_size`, `retention` (seconds), `salvage` |
//! | `write SERIES T=V ... / SERIES T=V ...` | one batch, in the operating system; `write-sync`: on the device |
//! | `append SERIES T=V` | buffered |
//! | `delete SELECTOR FROM..TO` | seconds, half-open |
//! | `sync` `flush` `compact` `close` `open` | as the calls of their names; `close` waits for `open` |
//! | `maintain` | steps until nothing is due |
//! | `kill` `power-cut` | the process or the machine dies; the database is opened again |
//! | `advance SECONDS` | moves the clock |
//! | `snapshot DIR` `use DIR` | makes a snapshot; closes this database and goes on with that one |
//! | `flip FILE OFFSET` | changes a bit of the first file whose path holds the text; from its end, when negative |
//! | `expect SELECTOR: T=V ...` | its samples, of one series; `none` for none; alternatives behind `or` |
//! | `remember` `expect remembered` | everything that is stored, now and then |
//! | `expect blocks N`, `expect tombstones N`, `expect quarantined N`, `expect dropped N`, `expect torn` | as counted |
//! | `expect error KIND LINE` | the line fails with this kind |
//! | `expect partial SELECTOR: T=V ...` | a query that allows it answers so, and is marked partial |
//!
//! A series is `NAME` or `NAME{k="v"}`, without spaces; times are seconds, values integers. In every script, no LSN is
//! given twice, and after each line a reader beside the writer finds what the writer finds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use icecore::fs::{Crash, Fs, MemoryFs};
use icecore::{
    Background, Batch, Column, Db, Durability, Env, ManualClock, Options, Query, Result, Selector, TimeRange,
    Timestamp, ValueRef,
};

/// Series, and its samples as seconds and value.
type Dump = BTreeMap<String, Vec<(i64, i64)>>;

struct Script {
    disk: MemoryFs,
    clock: ManualClock,
    root: PathBuf,
    options: Options,
    db: Option<Db>,
    seed: u64,
    lsns: BTreeSet<u64>,
    /// Whether there are samples that only this process has.
    buffered: bool,
    remembered: Dump,
}

impl Script {
    fn new(seed: u64) -> Self {
        let options = Options {
            background: Background::Host,
            sync_interval: None,
            flush_size: 1 << 20,
            segment_size_max: 1 << 20,
            ..Options::default()
        };
        Script {
            disk: MemoryFs::new(seed),
            clock: ManualClock::new(Timestamp::from_secs(1_000_000)),
            root: PathBuf::from("/db"),
            options,
            db: None,
            seed,
            lsns: BTreeSet::new(),
            buffered: false,
            remembered: Dump::new(),
        }
    }

    fn open(&mut self) -> Result<()> {
        self.seed += 1000;
        self.options.env = Env::new(Arc::new(self.disk.clone()), Arc::new(self.clock.clone()), self.seed);
        self.db = Some(Db::open_with(&self.root, self.options.clone())?);
        Ok(())
    }

    fn db(&mut self) -> &Db {
        if self.db.is_none() {
            self.open().unwrap();
        }
        self.db.as_ref().unwrap()
    }

    fn take_lsn(&mut self, lsn: u64) {
        assert!(self.lsns.insert(lsn), "LSN {lsn:#x} was given before");
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        self.buffered &=
            matches!(verb, "append" | "compact" | "maintain" | "expect" | "remember" | "advance");
        match verb {
            "option" => self.option(rest),
            "write" => self.write(rest, Durability::Os)?,
            "write-sync" => self.write(rest, Durability::Sync)?,
            "append" => self.append(rest)?,
            "delete" => self.delete(rest)?,
            "sync" => drop(self.db().sync()?),
            "flush" => self.db().flush()?,
            "compact" => self.db().compact()?,
            "maintain" => while self.db().maintain()? {},
            "close" => self.db.take().unwrap().close()?,
            "open" => self.open()?,
            "kill" => self.crash(Crash::ProcessRestart)?,
            "power-cut" => self.crash(Crash::PowerCut)?,
            "advance" => self.clock.advance(Duration::from_secs(rest.parse().unwrap())),
            "snapshot" => self.db().snapshot(rest)?,
            "use" => {
                self.db.take().unwrap().close()?;
                self.root = rest.into();
                self.open()?;
            }
            "flip" => self.flip(rest),
            "remember" => self.remembered = dump(&self.db().query(Selector::all())),
            "expect" => self.expect(rest),
            other => panic!("{other} is no verb"),
        }
        Ok(())
    }

    fn option(&mut self, rest: &str) {
        let (name, value) = rest.split_once(' ').unwrap();
        let number: u64 = value.parse().unwrap();
        match name {
            "flush_size" => self.options.flush_size = number as usize,
            "segment_size" => self.options.segment_size_max = number,
            "retention" => self.options.retention = (number > 0).then(|| Duration::from_secs(number)),
            "salvage" => self.options.salvage = number > 0,
            other => panic!("{other} is no option"),
        }
    }

    fn write(&mut self, rest: &str, durability: Durability) -> Result<()> {
        let mut batch = Batch::new();
        for part in rest.split(" / ") {
            let (series, samples) = part.split_once(' ').unwrap();
            let (name, tags) = key(series);
            let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            for (time, value) in samples_of(samples) {
                batch.push_named(&name, &tags, Timestamp::from_secs(time), ValueRef::I64(value))?;
            }
        }
        let lsn = self.db().write_with(&mut batch, durability)?.lsn();
        self.take_lsn(lsn);
        Ok(())
    }

    fn append(&mut self, rest: &str) -> Result<()> {
        let (series, samples) = rest.split_once(' ').unwrap();
        let (name, tags) = key(series);
        let tags: Vec<(&str, &str)> = tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        self.buffered = true;
        let series = self.db().series::<i64>(&name, &tags)?;
        samples_of(samples).into_iter().try_for_each(|(time, v)| series.append(Timestamp::from_secs(time), v))
    }

    fn delete(&mut self, rest: &str) -> Result<()> {
        let (selector, range) = rest.split_once(' ').unwrap();
        let (start, end) = range.split_once("..").unwrap();
        let at = |text: &str| Timestamp::from_secs(text.parse().unwrap());
        let range = TimeRange { start: at(start), end: at(end) };
        let lsn = self.db().delete(&selector.parse().unwrap(), range)?.lsn();
        self.take_lsn(lsn);
        Ok(())
    }

    fn crash(&mut self, crash: Crash) -> Result<()> {
        self.disk = self.disk.crash(crash);
        drop(self.db.take());
        self.open()
    }

    fn flip(&self, rest: &str) {
        let (name, offset) = rest.split_once(' ').unwrap();
        let dirs = ["", "wal", "blocks"].map(|dir| self.root.join(dir));
        let paths = dirs.iter().flat_map(|dir| {
            let entries = self.disk.list(dir).unwrap();
            entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| dir.join(entry.name))
        });
        let path = paths.filter(|path| path.to_string_lossy().contains(name)).min().unwrap();
        let mut bytes = self.disk.open(&path).unwrap().read_all().unwrap();
        let offset: i64 = offset.parse().unwrap();
        let offset = if offset < 0 { bytes.len() as i64 + offset } else { offset };
        bytes[offset as usize] ^= 1;
        let changed = Path::new("/changed");
        self.disk.create(changed).unwrap().write_at(&bytes, 0).unwrap();
        self.disk.rename(changed, &path).unwrap();
    }

    fn expect(&mut self, rest: &str) {
        let (what, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = || value.parse::<u64>().unwrap();
        let mut stats = || self.db().stats();
        match what {
            "blocks" => assert_eq!(stats().blocks, number()),
            "tombstones" => assert_eq!(stats().tombstones, number()),
            "quarantined" => assert_eq!(stats().quarantined, number()),
            "dropped" => assert_eq!(stats().dropped_below_floor, number()),
            "torn" => assert!(self.db().recovery().torn.is_some()),
            "remembered" => assert_eq!(dump(&self.db().query(Selector::all())), self.remembered),
            "error" => {
                let (kind, line) = value.split_once(' ').unwrap();
                let error = self.line_that_fails(line);
                assert_eq!(format!("{:?}", error.kind()), kind, "{error}");
            }
            "partial" => {
                let (selector, samples) = value.split_once(": ").unwrap();
                let query = self.db().query(selector.parse::<Selector>().unwrap()).allow_partial();
                assert!(query.run().unwrap().report.is_partial(), "the answer is not marked");
                assert_samples(&dump(&query), samples);
            }
            _ => {
                let (selector, samples) = rest.split_once(": ").unwrap();
                let selector: Selector = selector.parse().unwrap();
                let found = dump(&self.db().query(selector));
                assert_samples(&found, samples);
            }
        }
    }

    fn line_that_fails(&mut self, line: &str) -> icecore::Error {
        match line.split_once(' ') {
            Some(("query", selector)) => {
                self.db().query(selector.parse::<Selector>().unwrap()).run().unwrap_err()
            }
            _ => self.line(line).unwrap_err(),
        }
    }

    /// A reader beside the writer finds what the writer finds; buffered samples only the writer has.
    fn check_reader(&self, line: &str) {
        let Some(db) = self.db.as_ref().filter(|_| !self.buffered && !line.starts_with("flip")) else {
            return;
        };
        let reader = Db::open_reader_with(&self.root, self.options.clone()).unwrap();
        assert_eq!(reader.last_lsn(), db.stats().visible_lsn, "what the reader sees");
        let found = |query: Query| query.run().map(|_| dump(&query)).map_err(|error| error.kind());
        assert_eq!(
            found(reader.query(Selector::all())),
            found(db.query(Selector::all())),
            "the reader and the writer"
        );
    }
}

/// `name{k="v",l="w"}`.
fn key(text: &str) -> (String, Vec<(String, String)>) {
    let (name, tags) = text.split_once('{').unwrap_or((text, ""));
    let tags = tags.trim_end_matches('}').split(',').filter(|tag| !tag.is_empty());
    let tags = tags.map(|tag| {
        let (key, value) = tag.split_once('=').unwrap();
        (key.to_owned(), value.trim_matches('"').to_owned())
    });
    (name.to_owned(), tags.collect())
}

/// `1=10 2..5=20`: the latter is 2, 3 and 4.
fn samples_of(text: &str) -> Vec<(i64, i64)> {
    let mut samples = Vec::new();
    for sample in text.split_whitespace().filter(|text| *text != "none") {
        let (time, value) = sample.split_once('=').unwrap_or_else(|| panic!("{sample:?} is no sample"));
        let value = value.parse().unwrap();
        match time.split_once("..") {
            Some((start, end)) => {
                let times = start.parse().unwrap()..end.parse::<i64>().unwrap();
                samples.extend(times.map(|time| (time, value)));
            }
            None => samples.push((time.parse().unwrap(), value)),
        }
    }
    samples
}

fn dump(query: &Query) -> Dump {
    let mut dump = Dump::new();
    for series in query.run().unwrap().series {
        let Column::I64(values) = &series.values else { panic!("{} is not of integers", series.key) };
        let times = series.times.iter().map(|time| time.nanos() / 1_000_000_000);
        dump.insert(series.key.to_string(), times.zip(values.iter().copied()).collect());
    }
    dump
}

fn assert_samples(found: &Dump, wanted: &str) {
    assert!(found.len() <= 1, "more than one series: {found:?}");
    let found = found.values().next().cloned().unwrap_or_default();
    let any = wanted.split(" or ").any(|wanted| samples_of(wanted) == found);
    assert!(any, "found {found:?}");
}

fn run(text: &str, seed: u64) {
    let mut script = Script::new(seed);
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') || line.starts_with("seeds ") {
            continue;
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            script.line(line).unwrap();
            script.check_reader(line);
        }));
        if let Err(panic) = result {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned());
            panic!("line {number}, `{line}`, seed {seed}: {text}");
        }
    }
}

#[test]
fn every_script_finds_what_it_expects() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(paths.len() > 10, "the scripts were found");
    let only = std::env::var("SCRIPT").ok();
    let mut failures = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|only| *only != name) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let seeds =
            text.lines().find_map(|line| line.strip_prefix("seeds ")).map_or(1, |n| n.parse().unwrap());
        for seed in 0..seeds {
            if let Err(panic) = std::panic::catch_unwind(|| run(&text, seed)) {
                let why = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                failures.push(format!("{name}: {why}"));
                break;
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn a_script_that_is_wrong_fails() {
    for text in ["write m 1=1\nexpect m: 1=2", "write m 1=1\nexpect m: none", "fly", "expect blocks 1"] {
        assert!(std::panic::catch_unwind(|| run(text, 0)).is_err(), "{text}");
    }
}
