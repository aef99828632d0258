//! Random samples, overwrites and deletes in random sources and pages; random queries; every answer
//! compared, bit for bit, with one computed from a plain map in the most naive way.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::memory::{MemoryPage, MemorySeries, MemorySource, snapshot};
use crate::chunk::merge::sort_columns;
use crate::env::Random;
use crate::model::{
    Column, Match, STALE_NAN_BITS, Selector, SeriesKey, TimeRange, Timestamp, Value, ValueType, is_stale,
};
use crate::query::aggregate::{Aggregate, Compare};
use crate::query::builder::Query;
use crate::query::result::SeriesColumns;
use crate::query::source::{Snapshot, Source, Tombstone};

type Model = BTreeMap<(SeriesKey, ValueType), BTreeMap<i64, Value>>;

/// Values are whole multiples of this, so that the naive sum is an integer sum.
const UNIT: f64 = 1.0 / (1 << 20) as f64;

struct World {
    random: Random,
    snapshot: Snapshot,
    model: Model,
}

fn some_value(random: &mut Random, value_type: ValueType) -> Value {
    match value_type {
        ValueType::F64 => Value::F64(match random.below(40) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => -0.0,
            4 => 0.0,
            5 | 6 => f64::from_bits(STALE_NAN_BITS),
            7..20 => random.below(100) as f64,
            _ => (random.below(1 << 44) as i64 - (1 << 43)) as f64 * UNIT,
        }),
        ValueType::I64 => Value::I64(match random.below(10) {
            0 => (random.below(1 << 30) as i64) - (1 << 29),
            _ => random.below(50) as i64 - 10,
        }),
        ValueType::Bytes => Value::Bytes(vec![b'x'; random.below(5) as usize]),
    }
}

/// A calm world has long pages of finite values, whose aggregates are used.
fn world(seed: u64) -> World {
    let mut random = Random::new(seed);
    let calm = seed.is_multiple_of(2);
    let span = if calm { 4_000 } else { 60 };
    let mut model = Model::new();
    let (mut sources, mut tombstones, mut lsn) = (Vec::<Arc<dyn Source>>::new(), Vec::new(), 0);
    for _ in 0..1 + random.below(4) {
        let mut source = MemorySource::default();
        // As a block has its pages, and may be one; or as a head has them.
        let apart = random.below(2) == 0;
        for host in 0..4 {
            for value_type in [ValueType::F64, ValueType::I64, ValueType::Bytes] {
                if random.below(3) == 0 {
                    continue;
                }
                let (host, core) = (format!("h{}", host / 2), format!("{}", host % 2));
                let key = SeriesKey::new("m", [("host", host), ("core", core)]).unwrap();
                let entry = model.entry((key.clone(), value_type)).or_default();
                let pages = some_pages(&mut random, value_type, calm, span, apart, entry);
                source.series.push(MemorySeries { key, value_type, pages });
            }
        }
        source.sort();
        lsn += 10;
        source.lsn_last = lsn;
        let is_block = apart && !source.series.is_empty() && random.below(2) == 0;
        sources.push(if is_block { Arc::new(source.to_block()) as _ } else { Arc::new(source) as _ });
        if random.below(2) == 0 {
            let start = random.below(span) as i64;
            let range = times(start, start + random.below(span / 2) as i64);
            let selector = Selector::all().with("core", if random.below(2) == 0 { "0" } else { "1" });
            for ((key, _), samples) in &mut model {
                if selector.matches(key) {
                    samples.retain(|time, _| !range.contains(Timestamp::from_nanos(*time)));
                }
            }
            tombstones.push(Tombstone { lsn: lsn + 1, selector, range });
        }
    }
    let mut snapshot = snapshot(Vec::new());
    (snapshot.sources, snapshot.tombstones) = (sources, tombstones);
    if random.below(4) == 0 {
        snapshot.floor = Timestamp::from_nanos(random.below(span / 2) as i64);
        model.values_mut().for_each(|samples| samples.retain(|time, _| *time >= snapshot.floor.nanos()));
    }
    model.retain(|_, samples| !samples.is_empty());
    World { random, snapshot, model }
}

fn times(start: i64, end: i64) -> TimeRange {
    TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) }
}

/// Pages as a block has them (apart) or as a head has them (anywhere, later ones win).
fn some_pages(
    random: &mut Random,
    value_type: ValueType,
    calm: bool,
    span: u64,
    apart: bool,
    model: &mut BTreeMap<i64, Value>,
) -> Vec<MemoryPage> {
    let mut pages = Vec::new();
    let mut start = random.below(span / 2);
    for _ in 0..1 + random.below(5) {
        let count = if calm { 100 + random.below(500) } else { 1 + random.below(12) };
        let (mut page_times, mut values) = (Vec::new(), Column::new(value_type));
        for _ in 0..count {
            start += if calm { 1 } else { 1 + random.below(3) };
            let value = if calm && value_type == ValueType::F64 && random.below(5_000) != 0 {
                Value::F64((random.below(1 << 30) as f64 - 1e8) * UNIT)
            } else {
                some_value(random, value_type)
            };
            page_times.push(start as i64);
            values.push(value.as_ref());
        }
        sort_columns(&mut page_times, &mut values);
        for (index, time) in page_times.iter().enumerate() {
            model.insert(*time, values.get(index).unwrap().to_value());
        }
        let aggregated = random.below(4) != 0;
        pages.push(MemoryPage { aggregated, ..MemoryPage::new(page_times, values) });
        if !apart {
            start = random.below(span);
        }
    }
    pages
}

const AGGREGATES: [Aggregate; 13] = [
    Aggregate::Count,
    Aggregate::Sum,
    Aggregate::Avg,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::First,
    Aggregate::Last,
    Aggregate::Stddev,
    Aggregate::Quantile(0.0),
    Aggregate::Quantile(0.7),
    Aggregate::Rate,
    Aggregate::Increase,
    Aggregate::Delta,
];

/// A question, in a form that both sides can answer.
#[derive(Clone, Debug)]
struct Question {
    range: TimeRange,
    window: Option<i64>,
    origin: i64,
    filter: Option<(Compare, f64)>,
    by: Option<Vec<&'static str>>,
    without: bool,
    only_host: bool,
}

fn question(random: &mut Random) -> Question {
    let start = random.below(3_000) as i64 - 500;
    let compares = [
        Compare::Equal,
        Compare::NotEqual,
        Compare::Less,
        Compare::LessOrEqual,
        Compare::Greater,
        Compare::GreaterOrEqual,
    ];
    let constant = [0.0, 7.0, -100.0, 300.0, 900.0][random.below(5) as usize];
    let keys: &[&'static str] = [&[][..], &["host"], &["core", "host"], &["none"]][random.below(4) as usize];
    Question {
        range: if random.below(2) == 0 {
            times(-1_000, 9_000)
        } else {
            times(start, start + random.below(3_000) as i64)
        },
        window: (random.below(4) != 0).then(|| [1, 3, 10, 64, 512, 720, 2_000][random.below(7) as usize]),
        origin: random.below(30) as i64 - 15,
        filter: (random.below(4) == 0).then(|| (compares[random.below(6) as usize], constant)),
        by: (random.below(3) != 0).then(|| keys.to_vec()),
        without: random.below(3) == 0,
        only_host: random.below(4) == 0,
    }
}

impl Question {
    fn query(&self, snapshot: &Snapshot) -> Query {
        let selector = Selector::name("m");
        let mut query = Query::new(Arc::new(snapshot.clone()), selector).range(self.range);
        if self.only_host {
            query = query.with("host", Match::regex("h0|x").unwrap());
        }
        if let Some((compare, constant)) = self.filter {
            query = query.where_value(compare, constant);
        }
        query
    }

    fn aggregate_query(&self, snapshot: &Snapshot, aggregate: Aggregate) -> Query {
        let mut query = self.query(snapshot).aggregate(aggregate);
        if let Some(window) = self.window {
            query =
                query.window(Duration::from_nanos(window as u64)).origin(Timestamp::from_nanos(self.origin));
        }
        match (&self.by, self.without) {
            (Some(tags), false) => query.by(tags.clone()),
            (Some(tags), true) => query.without(tags.clone()),
            (None, _) => query,
        }
    }

    /// The samples that it is about.
    fn samples<'a>(
        &self,
        key: &SeriesKey,
        samples: &'a BTreeMap<i64, Value>,
        raw: bool,
    ) -> Vec<(i64, &'a Value)> {
        if self.only_host && key.tag("host") != "h0" {
            return Vec::new();
        }
        let keeps = |value: &Value| match (self.filter, value) {
            (None, Value::F64(v)) => raw || !is_stale(*v),
            (None, _) => true,
            (Some(_), Value::F64(v)) if is_stale(*v) => false,
            (Some((compare, constant)), Value::F64(v)) => holds(compare, *v, constant),
            (Some((compare, constant)), Value::I64(v)) => holds(compare, *v as f64, constant),
            (Some(_), Value::Bytes(_)) => false,
        };
        let inside = |time: &i64| self.range.contains(Timestamp::from_nanos(*time));
        samples.iter().filter(|(time, value)| inside(time) && keeps(value)).map(|(t, v)| (*t, v)).collect()
    }

    fn group(&self, key: &SeriesKey, value_type: &ValueType) -> String {
        let Some(tags) = &self.by else { return format!("{key} {}", *value_type as u8) };
        let kept = key.tags().filter(|(tag, _)| tags.contains(tag) != self.without);
        let text: Vec<String> = kept.map(|(tag, value)| format!("{tag}={value:?}")).collect();
        format!("{{{}}}", text.join(","))
    }

    fn label(&self, time: i64) -> i64 {
        match self.window {
            None => self.range.start.nanos(),
            Some(step) => (time - self.origin).div_euclid(step) * step + self.origin,
        }
    }

    fn seconds(&self, label: i64) -> f64 {
        let end = self.window.map_or(self.range.end.nanos(), |step| label + step);
        (end.min(self.range.end.nanos()) - label.max(self.range.start.nanos())) as f64 / 1e9
    }
}

fn holds(compare: Compare, a: f64, b: f64) -> bool {
    match compare {
        Compare::Equal => a == b,
        Compare::NotEqual => a != b,
        Compare::Less => a < b,
        Compare::LessOrEqual => a <= b,
        Compare::Greater => a > b,
        Compare::GreaterOrEqual => a >= b,
    }
}

/// Group, then window, then series in order of keys, then samples in order of time.
type Pools = BTreeMap<String, BTreeMap<i64, Vec<Vec<(i64, f64)>>>>;

fn pools(question: &Question, model: &Model, count_only: bool) -> Pools {
    let mut pools = Pools::new();
    for ((key, value_type), samples) in model {
        if *value_type == ValueType::Bytes && !count_only {
            continue;
        }
        let mut windows: BTreeMap<i64, Vec<(i64, f64)>> = BTreeMap::new();
        for (time, value) in question.samples(key, samples, false) {
            let number = match value {
                Value::F64(v) => *v,
                Value::I64(v) => *v as f64,
                Value::Bytes(_) => 0.0,
            };
            windows.entry(question.label(time)).or_default().push((time, number));
        }
        let group = pools.entry(question.group(key, value_type)).or_default();
        windows.into_iter().for_each(|(label, samples)| group.entry(label).or_default().push(samples));
    }
    pools.retain(|_, windows| !windows.is_empty());
    pools
}

/// Rounded once: all finite terms are multiples of `UNIT`.
fn naive_sum(terms: &[f64]) -> f64 {
    let special: f64 = terms.iter().filter(|term| !term.is_finite()).sum();
    if terms.iter().any(|term| !term.is_finite()) {
        return special;
    }
    terms.iter().map(|term| (term / UNIT) as i128).sum::<i128>() as f64 * UNIT
}

fn naive(aggregate: Aggregate, series: &[Vec<(i64, f64)>], seconds: f64) -> Option<f64> {
    let all: Vec<f64> = series.iter().flatten().map(|(_, value)| *value).collect();
    let mut sorted: Vec<f64> = all.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let flat = || series.iter().flatten();
    Some(match aggregate {
        Aggregate::Count => all.len() as f64,
        Aggregate::Sum => naive_sum(&all),
        Aggregate::Avg => naive_sum(&all) / all.len() as f64,
        Aggregate::Min => sorted.first().copied().unwrap_or(f64::NAN),
        Aggregate::Max => sorted.last().copied().unwrap_or(f64::NAN),
        Aggregate::First => flat().min_by_key(|(time, _)| *time)?.1,
        Aggregate::Last => flat().max_by_key(|(time, _)| *time)?.1,
        Aggregate::Stddev => naive_stddev(&all),
        Aggregate::Quantile(rank) => {
            let place = rank * (sorted.len().max(1) - 1) as f64;
            let (low, high) = (place.floor() as usize, place.ceil() as usize);
            let weight = place - low as f64;
            match (sorted.get(low), sorted.get(high)) {
                (Some(low), _) if weight == 0.0 => *low,
                (Some(low), Some(high)) => low * (1.0 - weight) + high * weight,
                _ => f64::NAN,
            }
        }
        Aggregate::Rate => naive_change(series, true)? / seconds,
        Aggregate::Increase => naive_change(series, true)?,
        Aggregate::Delta => naive_change(series, false)?,
    })
}

fn naive_stddev(all: &[f64]) -> f64 {
    if all.iter().any(|value| !value.is_finite()) {
        return f64::NAN;
    }
    let units: Vec<i128> = all.iter().map(|value| (value / UNIT) as i128).collect();
    let (count, sum) = (units.len() as i128, units.iter().sum::<i128>());
    let squares = units.iter().map(|unit| unit * unit).sum::<i128>();
    let spread = (count * squares - sum * sum) as f64 * UNIT * UNIT;
    (spread / all.len() as f64 / all.len() as f64).sqrt()
}

fn naive_change(series: &[Vec<(i64, f64)>], resets: bool) -> Option<f64> {
    let mut terms = Vec::new();
    for samples in series.iter().filter(|samples| samples.len() >= 2) {
        terms.extend([samples[samples.len() - 1].1, -samples[0].1]);
        let falls = samples.windows(2).filter(|pair| resets && pair[1].1 < pair[0].1);
        terms.extend(falls.map(|pair| pair[0].1));
    }
    (!terms.is_empty()).then(|| naive_sum(&terms))
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[track_caller]
fn check_aggregate(
    seed: u64,
    world: &World,
    question: &Question,
    pools: &Pools,
    aggregate: Aggregate,
) -> u64 {
    let result = question.aggregate_query(&world.snapshot, aggregate).run().unwrap();
    let mut expected = Vec::new();
    for (group, windows) in pools {
        let value = |(label, series): (&i64, &Vec<_>)| {
            naive(aggregate, series, question.seconds(*label)).map(|value| (*label, value))
        };
        let values: Vec<(i64, f64)> = windows.iter().filter_map(value).collect();
        if !values.is_empty() {
            expected.push((group.split(' ').next().unwrap().to_owned(), values));
        }
    }
    let values = |columns: &SeriesColumns| {
        columns.times.iter().map(|time| time.nanos()).zip(columns.doubles().iter().copied()).collect()
    };
    let found: Vec<(String, Vec<(i64, f64)>)> =
        result.series.iter().map(|columns| (columns.key.to_string(), values(columns))).collect();
    let same_values = |a: &[(i64, f64)], b: &[(i64, f64)]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
    };
    let agree = found.len() == expected.len()
        && found.iter().zip(&expected).all(|(a, b)| a.0 == b.0 && same_values(&a.1, &b.1));
    assert!(agree, "seed {seed}, {aggregate}, {question:?}:\n{found:?}\nis not\n{expected:?}");
    result.report.pages_aggregated
}

/// A minute's worth of seeds, or many with `SLOW_TESTS=1`.
fn seeds(few: u64) -> std::ops::Range<u64> {
    0..if std::env::var_os("SLOW_TESTS").is_some() { 10 * few } else { few }
}

#[test]
fn aggregates_are_those_of_the_map() {
    let mut aggregated = BTreeMap::new();
    for seed in seeds(50) {
        let mut world = world(seed);
        for _ in 0..4 {
            let question = question(&mut world.random);
            let (numbers, all) =
                (pools(&question, &world.model, false), pools(&question, &world.model, true));
            for aggregate in AGGREGATES {
                let pools = if aggregate == Aggregate::Count { &all } else { &numbers };
                let pages = check_aggregate(seed, &world, &question, pools, aggregate);
                *aggregated.entry(aggregate.name()).or_insert(0) += pages;
            }
        }
    }
    let without: Vec<_> =
        aggregated.into_iter().filter(|(_, pages)| *pages == 0).map(|(name, _)| name).collect();
    assert_eq!(without, ["quantile", "stddev"], "all others were answered from stored aggregates too");
}

/// What a list of columns holds, in words that `assert_eq` can compare and show.
fn dump(columns: impl IntoIterator<Item = (SeriesKey, ValueType, Vec<(i64, Value)>)>) -> Vec<String> {
    let bits = |value: &Value| match value {
        Value::F64(v) => format!("{:x}", v.to_bits()),
        other => format!("{other:?}"),
    };
    columns
        .into_iter()
        .flat_map(|(key, value_type, samples)| {
            samples
                .into_iter()
                .map(move |(time, value)| format!("{key} {value_type:?} {time} {}", bits(&value)))
        })
        .collect()
}

fn dump_columns(columns: &SeriesColumns) -> Vec<String> {
    let samples = columns.times.iter().enumerate();
    let samples =
        samples.map(|(at, time)| (time.nanos(), columns.values.get(at).unwrap().to_value())).collect();
    dump([(columns.key.clone(), columns.values.value_type(), samples)])
}

fn expected_samples(world: &World, question: &Question, raw: bool, last: bool) -> Vec<String> {
    dump(world.model.iter().map(|((key, value_type), samples)| {
        let mut kept = question.samples(key, samples, raw);
        if last {
            kept = kept.split_off(kept.len().saturating_sub(1));
        }
        (key.clone(), *value_type, kept.into_iter().map(|(time, value)| (time, value.clone())).collect())
    }))
}

#[test]
fn raw_samples_streams_and_last_values_are_those_of_the_map() {
    for seed in seeds(80) {
        let mut world = world(seed);
        for _ in 0..4 {
            let question = question(&mut world.random);
            let query = question.query(&world.snapshot);
            let raw = expected_samples(&world, &question, true, false);
            let run = query.run().unwrap();
            assert_eq!(run.series.iter().flat_map(dump_columns).collect::<Vec<_>>(), raw, "seed {seed}");
            let pieces = query.stream().unwrap().map(Result::unwrap);
            assert_eq!(pieces.flat_map(|piece| dump_columns(&piece)).collect::<Vec<_>>(), raw, "seed {seed}");
            let latest = query.clone().latest().run().unwrap();
            let expected = expected_samples(&world, &question, false, true);
            assert_eq!(
                latest.series.iter().flat_map(dump_columns).collect::<Vec<_>>(),
                expected,
                "seed {seed}"
            );
            if question.filter.is_none() {
                let listed = query.series().unwrap();
                let expected: Vec<_> = world
                    .model
                    .iter()
                    .filter(|((key, _), samples)| !question.samples(key, samples, true).is_empty())
                    .map(|(series, _)| series.clone())
                    .collect();
                assert_eq!(listed, expected, "seed {seed}");
            }
        }
    }
}
