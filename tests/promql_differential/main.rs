//! Random queries over random series, put to our evaluator and to a real Prometheus: every answer is the same.
//!
//! `PROMETHEUS` names the program, without which nothing is asked; `DIFFERENTIAL_COUNT` says how many queries (2,000),
//! `DIFFERENTIAL_SEED` where they begin:
//!
//! ```sh
//! PROMETHEUS=/usr/bin/prometheus cargo test --release --features full --test promql_differential -- --nocapture
//! ```
//!
//! Made for Prometheus 2.42. What later versions changed is kept out of the questions: samples never lie on the border
//! of a window (left-open ranges), no subquery has a step there, counters stay far from zero (extrapolation), `atan2`
//! is asked for its value only. `docs/promql.md` has the list.

mod data;
mod questions;
#[path = "../servers/mod.rs"]
mod servers;

use std::collections::BTreeMap;
use std::path::Path;

use icecore::promql::{self, EngineSource, Labels, Options, RangeTimes, Value, value_text};
use icecore::{Db, Selector, Timestamp};
use servers::{Client, Server, url};

/// splitmix64 (Steele et al., OOPSLA 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Steps of a range query, all at whole minutes.
const STEP_COUNT: i64 = 31;

/// When a question is asked: seconds, and a step of zero for one time.
#[derive(Clone, Copy, Debug)]
struct Times {
    start: i64,
    step: i64,
}

impl Times {
    fn random(random: &mut Random) -> Times {
        let start = data::START + 60 * random.below(100) as i64;
        Times { start, step: random.pick(&[0, 60, 60, 60, 120, 300]) }
    }

    fn end(self) -> i64 {
        self.start + self.step * (STEP_COUNT - 1)
    }
}

/// Values as text by time in milliseconds, of each series by its labels.
type Answer = BTreeMap<String, BTreeMap<i64, f64>>;

fn ours(db: &Db, query: &str, times: Times) -> Result<Answer, String> {
    let source = EngineSource::new(|selector: Selector| db.query(selector));
    let expr = promql::parse(query).map_err(|error| error.to_string())?;
    let (start, end) = (Timestamp::from_secs(times.start), Timestamp::from_secs(times.end()));
    let options = Options::default();
    let output = match times.step {
        0 => promql::instant(&source, &expr, query, start, &options),
        step => {
            let times = RangeTimes { start, end, step: step * 1_000_000_000 };
            promql::range(&source, &expr, query, times, &options)
        }
    };
    let mut answer = Answer::new();
    let mut put = |labels: &Labels, time: Timestamp, value: f64| {
        answer.entry(label_text(labels.name(), labels.labels())).or_default().insert(time.millis(), value);
    };
    match output.map_err(|error| error.to_string())?.value {
        Value::Vector(samples) => samples.iter().for_each(|s| put(&s.labels, s.time, s.value)),
        Value::Matrix(matrix) => {
            for series in &matrix {
                series.points.iter().for_each(|point| put(&series.labels, point.time, point.value));
            }
        }
        Value::Scalar(point) => put(&Labels::empty(), point.time, point.value),
        Value::String(..) => {}
    }
    Ok(answer)
}

fn label_text<'a>(name: &str, labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value:?}")).collect();
    format!("{name}{{{}}}", labels.join(","))
}

fn theirs(client: &mut Client, query: &str, times: Times) -> Result<Answer, String> {
    let (start, end, text) = (times.start, times.end(), url(query));
    let path = match times.step {
        0 => format!("/api/v1/query?query={text}&time={start}"),
        step => format!("/api/v1/query_range?query={text}&start={start}&end={end}&step={step}"),
    };
    let (_, body) = client.get(&path);
    let body: serde_json::Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    if body["status"] != "success" {
        return Err(body["error"].to_string());
    }
    let mut answer = Answer::new();
    let mut put = |labels: &str, point: &serde_json::Value| {
        let millis = (point[0].as_f64().unwrap_or(0.0) * 1000.0).round() as i64;
        let value = number(point[1].as_str().unwrap_or_default());
        answer.entry(labels.to_owned()).or_default().insert(millis, value);
    };
    let result = &body["data"]["result"];
    if body["data"]["resultType"] == "scalar" {
        put("{}", result);
        return Ok(answer);
    }
    for series in result.as_array().into_iter().flatten() {
        let mut labels: BTreeMap<&str, &str> = BTreeMap::new();
        for (key, value) in series["metric"].as_object().into_iter().flatten() {
            labels.insert(key, value.as_str().unwrap_or_default());
        }
        let name = labels.remove("__name__").unwrap_or_default();
        let labels = label_text(name, labels.into_iter());
        series["value"].is_array().then(|| put(&labels, &series["value"]));
        series["values"].as_array().into_iter().flatten().for_each(|point| put(&labels, point));
    }
    Ok(answer)
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// Equal but for the last digits, which sums in another order differ in.
fn is_close(a: f64, b: f64) -> bool {
    let difference = (a - b).abs();
    a == b || (a.is_nan() && b.is_nan()) || difference <= 1e-9 * a.abs().max(b.abs()) || difference < 1e-9
}

/// Where two answers differ first.
fn difference(ours: &Answer, theirs: &Answer) -> Option<String> {
    for labels in ours.keys().chain(theirs.keys()) {
        let (Some(a), Some(b)) = (ours.get(labels), theirs.get(labels)) else {
            let whose = if ours.contains_key(labels) { "ours" } else { "theirs" };
            return Some(format!("only {whose} has {labels}"));
        };
        for time in a.keys().chain(b.keys()) {
            let text = |column: &BTreeMap<i64, f64>| {
                column.get(time).map_or("nothing".to_owned(), |value| value_text(*value))
            };
            match (a.get(time), b.get(time)) {
                (Some(x), Some(y)) if is_close(*x, *y) => {}
                _ => return Some(format!("{labels} at {time}: ours {}, theirs {}", text(a), text(b))),
            }
        }
    }
    None
}

/// Whether the same values stand at each time, whichever series they are of: equal values may be those of others
/// in `topk` and `bottomk`.
fn has_same_values(ours: &Answer, theirs: &Answer) -> bool {
    let by_time = |answer: &Answer| {
        let mut values: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for (time, value) in answer.values().flatten() {
            values.entry(*time).or_default().push(*value);
        }
        values.values_mut().for_each(|values| values.sort_by(f64::total_cmp));
        values
    };
    let (a, b) = (by_time(ours), by_time(theirs));
    a.len() == b.len()
        && a.iter().zip(&b).all(|((s, x), (t, y))| {
            s == t && x.len() == y.len() && x.iter().zip(y).all(|(x, y)| is_close(*x, *y))
        })
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn random_queries_answer_what_prometheus_answers() {
    let Some(program) = std::env::var_os("PROMETHEUS") else {
        println!("PROMETHEUS names no program to compare with");
        return;
    };
    let (seed, count) = (setting("DIFFERENTIAL_SEED", 1), setting("DIFFERENTIAL_COUNT", 2_000));
    let mut random = Random(seed);
    let series = data::series(&mut random);
    let server = Server::prometheus(Path::new(&program));
    let mut client = server.connect();
    data::send(&mut client, &series);
    let dir = tempfile::tempdir().unwrap();
    let db = data::store(&dir.path().join("db"), &series);
    let (mut same, mut refused, mut empty, mut ties, mut late) = (0, 0, 0, 0, 0);
    let mut differences = Vec::new();
    for _ in 0..count {
        let query = questions::question(&mut random);
        let times = Times::random(&mut random);
        match (ours(&db, &query, times), theirs(&mut client, &query, times)) {
            (Ok(a), Ok(b)) => match difference(&a, &b) {
                None if a.is_empty() => empty += 1,
                None => same += 1,
                Some(_) if questions::has_ties(&query) && has_same_values(&a, &b) => ties += 1,
                Some(text) => differences.push(format!("{query}\n  {times:?}\n  {text}")),
            },
            (Err(_), Err(_)) => refused += 1,
            (Err(error), Ok(_)) | (Ok(_), Err(error))
                if error.contains("same labelset") && questions::may_repeat_names(&query) =>
            {
                late += 1;
            }
            (Err(error), Ok(_)) => differences.push(format!("{query}\n  {times:?}\n  ours: {error}")),
            (Ok(_), Err(error)) => differences.push(format!("{query}\n  {times:?}\n  theirs: {error}")),
        }
    }
    println!("{same} the same, {empty} the same and empty, {refused} refused by both");
    println!("{ties} chose others of equal values, {late} made one name of two");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
    assert!(same > count / 2, "the questions ask nothing");
}
