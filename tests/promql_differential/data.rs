//! Random series: jittered times, gaps, late starts, ends with and without a staleness marker, counter resets.

use std::path::Path;

use icecore::{Batch, Db, Options, Timestamp};

use super::Random;
use super::servers::{Client, WriteRequest, WriteSample, WriteSeries};

/// The first time, in seconds: a whole minute.
pub(crate) const START: i64 = 1_699_999_980;
const SECONDS: i64 = 2 * 3600;
/// The NaN by which Prometheus says that a series ended.
const STALE_BITS: u64 = 0x7ff0_0000_0000_0002;

/// A series with its times in milliseconds.
pub(crate) struct Series {
    name: &'static str,
    tags: Vec<(String, String)>,
    samples: Vec<WriteSample>,
}

/// Counters, gauges, a gauge of odd values, and classic histograms.
pub(crate) fn series(random: &mut Random) -> Vec<Series> {
    let mut all = Vec::new();
    let tags = |pairs: &[(&str, &str)]| {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect::<Vec<_>>()
    };
    for (index, (job, instance)) in pairs(&["api", "web", "db"], &["a", "b", "c", "d"]).enumerate() {
        let code = ["200", "500"][index % 2];
        let of = tags(&[("job", job), ("instance", instance), ("code", code)]);
        // Resets have no gaps near them: what a counter had lost would carry it to zero there.
        let samples = regular(random, counter(1e6 * (index + 1) as f64, 50.0, 150));
        all.push(Series { name: "requests_total", tags: of.clone(), samples });
        if index % 3 != 0 {
            let samples = column(random, counter(1e5, 3.0, u64::MAX));
            all.push(Series { name: "errors_total", tags: of, samples });
        }
    }
    for (room, floor) in pairs(&["hall", "lab", "roof"], &["1", "2"]) {
        let of = tags(&[("room", room), ("floor", floor)]);
        let samples = column(random, |random, _| (random.unit() - 0.4) * 100.0);
        all.push(Series { name: "temperature", tags: of.clone(), samples });
        let samples = column(random, |random, last| (last + random.unit() * 4.0 - 2.0).clamp(1.0, 99.0));
        all.push(Series { name: "humidity", tags: of.clone(), samples });
        let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 1.0, -7.5, 1e300, 5e-324];
        all.push(Series { name: "odd", tags: of, samples: column(random, |random, _| random.pick(&odd)) });
    }
    for path in ["/", "/login", "/search"] {
        let mut share = 0.0;
        for le in ["0.1", "0.5", "1", "5", "+Inf"] {
            share += 10.0;
            let samples = regular(random, counter(1e5 * share, share, 150));
            all.push(Series { name: "latency_bucket", tags: tags(&[("path", path), ("le", le)]), samples });
        }
    }
    all
}

fn pairs<'a>(left: &'a [&str], right: &'a [&str]) -> impl Iterator<Item = (&'a str, &'a str)> {
    left.iter().flat_map(move |a| right.iter().map(move |b| (*a, *b)))
}

/// Rises from `start`, and falls back to it now and then in the second hour; it never comes near zero.
fn counter(start: f64, step: f64, reset_one_in: u64) -> impl FnMut(&mut Random, f64) -> f64 {
    let mut count = 0;
    move |random, last| match last {
        _ if last < start / 2.0 => start,
        _ if {
            count += 1;
            count > SECONDS / 30
        } && random.one_in(reset_one_in) =>
        {
            start
        }
        _ if random.one_in(10) => last,
        _ => last + random.unit() * step,
    }
}

/// Never a whole second, so that no sample lies on the border of a window.
fn moment(random: &mut Random, second: i64) -> i64 {
    (START + second) * 1000 + 1 + random.below(998) as i64
}

/// A sample every 15 s, moved by up to a second, with gaps.
fn column(random: &mut Random, mut next: impl FnMut(&mut Random, f64) -> f64) -> Vec<WriteSample> {
    let from = if random.one_in(4) { random.below(SECONDS as u64 / 2) as i64 } else { 0 };
    let to = if random.one_in(4) { SECONDS - random.below(SECONDS as u64 / 2) as i64 } else { SECONDS };
    let (mut samples, mut second, mut value) = (Vec::new(), from, 50.0);
    while second < to {
        value = next(random, value);
        samples.push(WriteSample { time: moment(random, second), value });
        second += 15;
        if random.one_in(60) {
            let stale = WriteSample { time: moment(random, second), value: f64::from_bits(STALE_BITS) };
            random.one_in(2).then(|| samples.push(stale));
            second += 15 + random.below(900) as i64;
        }
    }
    samples
}

/// A sample every 15 s without gaps, as all buckets of a histogram have theirs.
fn regular(random: &mut Random, mut next: impl FnMut(&mut Random, f64) -> f64) -> Vec<WriteSample> {
    let mut value = 0.0;
    let mut sample = |n: i64| {
        value = next(random, value);
        WriteSample { time: moment(random, n * 15), value }
    };
    (0..SECONDS / 15).map(&mut sample).collect()
}

/// Sends all of it, ten minutes of every series at a time.
pub(crate) fn send(client: &mut Client, series: &[Series]) {
    for from in (0..SECONDS + 1000).step_by(600) {
        let times = (START + from) * 1000..(START + from + 600) * 1000;
        let part = |series: &Series| WriteSeries {
            samples: series.samples.iter().filter(|s| times.contains(&s.time)).copied().collect(),
            ..WriteSeries::new(series.name, &series.tags)
        };
        let parts = series.iter().map(part).filter(|part| !part.samples.is_empty());
        client.write(&WriteRequest { series: parts.collect() });
    }
}

/// A database with all of it, the first half in blocks and the rest in the head.
pub(crate) fn store(path: &Path, series: &[Series]) -> Db {
    let db = Db::open_with(path, Options::default()).unwrap();
    let middle = (START + SECONDS / 2) * 1000;
    for half in [true, false] {
        for series in series {
            let tags: Vec<(&str, &str)> = series.tags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let handle = db.series::<f64>(series.name, &tags).unwrap();
            let mut batch = Batch::new();
            for sample in series.samples.iter().filter(|s| (s.time < middle) == half) {
                batch.push(&handle, Timestamp::from_millis(sample.time), sample.value).unwrap();
            }
            db.write(&mut batch).unwrap();
        }
        if half {
            db.flush().unwrap();
        }
    }
    db
}
