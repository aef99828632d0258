//! The same queries over a database on disk and over series in memory.

use icecore::promql::{self, ABSENT, EngineSource, Labels, Options, Output, RangeTimes, Source};
use icecore::{Batch, Db, SeriesKey, Timestamp, ValueRef};

use super::classify::{self, Group};
use super::memory::Memory;
use super::script::{self, Command, Item, Load, Session};
use super::{folder, run};

const MINUTES: i64 = 400;

/// Gauges, a counter with resets, an integer series, gaps, NaN and staleness markers.
fn fill(db: &Db) -> Memory {
    let mut memory = Memory::default();
    let mut floats = Vec::new();
    for host in ["x", "y", "z"] {
        for name in ["gauge", "work_total"] {
            floats.push((name, host, db.series::<f64>(name, &[("host", host)]).unwrap()));
        }
    }
    let integers = db.series::<i64>("jobs", &[("host", "x")]).unwrap();
    for minute in 0..MINUTES {
        let time = Timestamp::from_secs(minute * 60);
        let mut batch = Batch::new();
        for (index, (name, host, series)) in floats.iter().enumerate() {
            let n = minute * 31 + index as i64 * 17;
            let value = match (n % 53, *name) {
                (7, _) => continue,
                (11, "gauge") => f64::NAN,
                (13, "gauge") => ABSENT,
                (_, "gauge") => (n * 7919 % 1009) as f64 / 8.0 - 60.0,
                _ => (minute % 70) as f64 * 3.0,
            };
            batch.push(series, time, value).unwrap();
            memory.add(Labels::new(name, [("host", host)]), minute * 60_000, value);
        }
        batch.push(&integers, time, minute * minute - 500).unwrap();
        memory.add(Labels::new("jobs", [("host", "x")]), minute * 60_000, (minute * minute - 500) as f64);
        db.write(&mut batch).unwrap();
        if minute == 150 || minute == 290 {
            db.flush().unwrap();
        }
    }
    memory
}

fn range(source: &dyn Source, query: &str, step: i64) -> Output {
    let times = RangeTimes {
        start: Timestamp::from_secs(0),
        end: Timestamp::from_secs(MINUTES * 60),
        step: step * 1_000_000_000,
    };
    promql::range(source, &promql::parse(query).unwrap(), query, times, &Options::default()).unwrap()
}

#[test]
fn a_database_answers_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let db = Db::open(folder.path()).unwrap();
    let memory = fill(&db);
    let source = EngineSource::new(|selector| db.query(selector));
    for query in [
        "gauge",
        "{host=~\"x|y\"}",
        "sum by (host) (rate(work_total[7m]))",
        "max_over_time(gauge[1h])",
        "min_over_time(gauge[10m] offset 3m)",
        "sum without (host) (count_over_time({__name__=~\"gauge|jobs\",host=\"x\"}[5m]))",
        "last_over_time(jobs[30m])",
        "first_over_time(gauge{host!=\"z\"}[1h])",
        "present_over_time(gauge[2m])",
        "avg_over_time(gauge[17m])",
        "topk(1, gauge) + on () group_left jobs",
        "histogram_quantile(0.5, gauge)",
        "absent(nothing{a=\"b\"})",
    ] {
        for step in [60, 300, 600, 3_600] {
            let (ours, plain) = (range(&source, query, step), range(&memory, query, step));
            assert_eq!(format!("{:?}", ours.value), format!("{:?}", plain.value), "{query} by {step} s");
        }
    }
    db.close().unwrap();
}

/// The key of a scripted series; none for what the engine refuses: no name, or reserved tags.
fn key(labels: &Labels) -> Option<SeriesKey> {
    SeriesKey::new(labels.name(), labels.labels()).ok()
}

fn load(db: &Db, load: &Load) {
    for series in &load.series {
        let key = key(&series.labels).unwrap();
        let mut batch = Batch::new();
        for (index, item) in series.items.iter().enumerate() {
            if let Item::Float(value) = item {
                let time = Timestamp::from_millis(index as i64 * load.step_ms);
                batch.push_key(&key, time, ValueRef::F64(*value)).unwrap();
            }
        }
        if !batch.is_empty() {
            db.write(&mut batch).unwrap();
        }
    }
}

fn fits_the_engine(session: &Session) -> bool {
    session.iter().all(|command| match command {
        Command::Load(load) => load.series.iter().all(|series| key(&series.labels).is_some()),
        Command::Eval(_) => true,
    })
}

/// The acceptance scripts over a database on disk: every second load is flushed to blocks.
#[test]
fn scripts_pass_on_a_database() {
    let (mut passed, mut left_out) = (0, 0);
    for file in ["aggregators.test", "functions.test", "operators.test", "staleness.test", "subquery.test"] {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        for session in script::parse(&text) {
            let mut groups = classify::groups(file, &session).into_iter();
            if !fits_the_engine(&session) {
                left_out += groups.filter(|group| *group != Group::NativeHistogram).count();
                continue;
            }
            let data = tempfile::tempdir().unwrap();
            let db = Db::open(data.path()).unwrap();
            let source = EngineSource::new(|selector| db.query(selector));
            let mut loads = 0;
            for command in &session {
                match command {
                    Command::Load(new) => {
                        load(&db, new);
                        loads += 1;
                        if loads % 2 == 1 {
                            db.flush().unwrap();
                        }
                    }
                    Command::Eval(eval) => {
                        if groups.next().unwrap() != Group::NativeHistogram {
                            run(&source, eval)
                                .unwrap_or_else(|e| panic!("{file}:{} {}: {e}", eval.line, eval.query));
                            passed += 1;
                        }
                    }
                }
            }
            db.close().unwrap();
        }
    }
    assert!(passed > 400 && left_out < 40, "{passed} passed, {left_out} left out");
}
