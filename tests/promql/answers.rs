//! Answers to what the acceptance scripts of Prometheus 3.5 do not ask.

use icecore::Timestamp;
use icecore::promql::{self, Labels, Options, RangeTimes, Value, WindowFunction};

use super::memory::Memory;
use super::{instant, range};

fn table(rows: &[(&str, &str, &[f64])]) -> Memory {
    let mut memory = Memory::default();
    for (name, host, values) in rows {
        for (index, value) in values.iter().enumerate() {
            memory.add(Labels::new(name, [("host", host)]), index as i64 * 60_000, *value);
        }
    }
    memory
}

/// Name, labels and value of each sample, sorted.
#[track_caller]
fn check(memory: &Memory, query: &str, expected: &[&str]) {
    let output = instant(memory, query, 60_000).unwrap();
    let Value::Vector(samples) = output.value else { panic!("no vector") };
    let mut found: Vec<String> = samples.iter().map(|s| format!("{} {}", s.labels, s.value)).collect();
    found.sort();
    assert_eq!(found, expected, "{query}");
}

#[test]
fn fill_gives_a_missing_side_a_value() {
    let memory = table(&[
        ("a", "x", &[1.0, 2.0]),
        ("a", "y", &[1.0, 3.0]),
        ("b", "y", &[5.0, 7.0]),
        ("b", "z", &[9.0; 2]),
    ]);
    check(&memory, "a + b", &[r#"{host="y"} 10"#]);
    check(&memory, "a + fill (0) b", &[r#"{host="x"} 2"#, r#"{host="y"} 10"#, r#"{host="z"} 9"#]);
    check(&memory, "a + fill_right (100) b", &[r#"{host="x"} 102"#, r#"{host="y"} 10"#]);
    check(&memory, "a - on (host) fill_left (1) b", &[r#"{host="y"} -4"#, r#"{host="z"} -8"#]);
}

#[test]
fn a_series_that_stops_is_gone_at_its_marker() {
    let memory = table(&[("a", "x", &[1.0, promql::ABSENT]), ("a", "y", &[1.0, 2.0])]);
    check(&memory, "a", &[r#"a{host="y"} 2"#]);
    check(&memory, "count_over_time(a[5m])", &[r#"{host="x"} 1"#, r#"{host="y"} 2"#]);
}

#[test]
fn the_plan_evaluates_what_is_fixed_once() {
    let query = "rate(a[5m] @ end()) + on (host) sum by (host) (b) > 2 * 3";
    let times =
        RangeTimes { start: Timestamp::from_secs(0), end: Timestamp::from_secs(60), step: 1_000_000_000 };
    let plan = promql::explain(&promql::parse(query).unwrap(), times, &Options::default()).unwrap();
    assert_eq!(
        plan,
        "binary > vector and scalar\n  binary + vectors on [\"host\"] OneToOne\n    once\n      window rate\n        \
         select a[5m] @ end()\n    aggregate sum by [\"host\"]\n      select b\n  once\n    binary * scalars\n      \
         number 2\n      number 3"
    );
}

/// A source that reduces windows itself gives the answers of the evaluator's own windows.
#[test]
fn reduced_windows_change_no_answer() {
    let values: Vec<f64> =
        (0..300).map(|n| if n % 41 == 0 { f64::NAN } else { f64::from(n * 7919 % 263) }).collect();
    let mut memory = table(&[("a", "x", &values), ("a", "y", &values[..120])]);
    memory.add(Labels::new("a", [("host", "x")]), 77 * 60_000, promql::ABSENT);
    use WindowFunction::{Count, First, Last, Max, Min, Present};
    for function in [Count, First, Last, Max, Min, Present] {
        for (window, step) in [("1m", 30_000), ("7m", 60_000), ("1h", 45_000), ("5m", 600_000)] {
            let query = format!("{}(a[{window}] offset 2m)", function.name());
            memory.reduces = false;
            let own = range(&memory, &query, 0, 300 * 60_000, step).unwrap().value;
            memory.reduces = true;
            let reduced = range(&memory, &query, 0, 300 * 60_000, step).unwrap().value;
            assert_eq!(format!("{own:?}"), format!("{reduced:?}"), "{query}");
        }
    }
}

#[test]
fn windows_slide_to_what_single_queries_answer() {
    let values: Vec<f64> = (0..200).map(|n| f64::from(n * 7919 % 101) / 8.0).collect();
    let memory = table(&[("a_total", "x", &values)]);
    for function in [
        "avg_over_time",
        "sum_over_time",
        "rate",
        "increase",
        "delta",
        "changes",
        "resets",
        "stddev_over_time",
        "irate",
        "idelta",
        "deriv",
        "max_over_time",
        "min_over_time",
    ] {
        let query = format!("{function}(a_total[13m])");
        let Value::Matrix(matrix) = range(&memory, &query, 0, 200 * 60_000, 90_000).unwrap().value else {
            panic!()
        };
        for point in &matrix[0].points {
            let Value::Vector(single) = instant(&memory, &query, point.time.millis()).unwrap().value else {
                panic!()
            };
            let difference = (single[0].value - point.value).abs();
            assert!(
                difference <= 1e-12 * point.value.abs(),
                "{query} at {}: {} {}",
                point.time,
                single[0].value,
                point.value
            );
        }
    }
}

#[test]
fn nanoseconds_are_kept_apart() {
    let mut memory = Memory::default();
    let series = memory.series.entry(Labels::new("a", [("", ""); 0])).or_default();
    series.extend([(1_000_000_000, 1.0), (1_000_000_001, 2.0), (1_000_000_002, 3.0)]);
    let expr = promql::parse("a").unwrap();
    for (nanos, expected) in [(1_000_000_000, 1.0), (1_000_000_001, 2.0), (1_000_000_005, 3.0)] {
        let time = Timestamp::from_nanos(nanos);
        let output = promql::instant(&memory, &expr, "a", time, &Options::default()).unwrap();
        let Value::Vector(samples) = output.value else { panic!("no vector") };
        assert_eq!((samples[0].value, samples[0].time), (expected, time));
    }
}

#[test]
fn annotations_say_where() {
    let memory = table(&[("a", "x", &[1.0, 2.0])]);
    let output = instant(&memory, "1 +\n  rate(a[5m]) + quantile(2, a)", 60_000).unwrap();
    assert_eq!(output.warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (2:26)"]);
    assert_eq!(
        output.infos,
        [
            "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"a\" (2:8)"
        ]
    );
    assert_eq!(output.stats.series, 2);
    assert_eq!(output.stats.samples, 4);
}

#[test]
fn errors_of_evaluation_are_those_of_prometheus() {
    let memory = table(&[("a", "x", &[1.0, 2.0]), ("b", "x", &[1.0, 2.0]), ("a", "y", &[1.0, 2.0])]);
    for (query, part) in [
        (
            "a + on () a",
            "found duplicate series for the match group {} on the right hand-side of the operation",
        ),
        ("a + on () group_left a", "many-to-many matching not allowed"),
        ("a + on () b", "many-to-one matching must be explicit (group_left/group_right)"),
        ("abs({host=\"x\"})", "vector cannot contain metrics with the same labelset"),
        ("topk(NaN, a)", "Parameter value is NaN"),
        ("count_values(\"\", a)", "invalid label name \"\""),
        ("double_exponential_smoothing(a[5m], 2, 0.5)", "invalid smoothing factor. Expected: 0 < sf < 1"),
    ] {
        let error = instant(&memory, query, 60_000).unwrap_err().to_string();
        assert!(error.contains(part), "{query}: {error}");
    }
}

/// Long queries are evaluated in several passes; the answer is that of single steps.
#[test]
fn passes_leave_no_seam() {
    let values: Vec<f64> = (0..900).map(|n| f64::from(n * 7919 % 101)).collect();
    let memory =
        table(&[("a", "x", &values), ("a", "y", &values[200..]), ("b", "x", &values), ("b", "y", &values)]);
    for query in
        ["topk(1, a)", "a * on (host) b", "label_replace(a, \"z\", \"$1\", \"host\", \"(.)\")", "a > 50 or b"]
    {
        let output = range(&memory, query, 0, 890 * 60_000, 60_000).unwrap();
        assert_eq!(
            output.stats.series,
            if query.contains('b') && !query.contains("replace") { 4 } else { 2 }
        );
        let Value::Matrix(matrix) = output.value else { panic!("no matrix") };
        for minute in (0..890).step_by(37) {
            let Value::Vector(single) = instant(&memory, query, minute * 60_000).unwrap().value else {
                panic!()
            };
            let time = Timestamp::from_secs(minute * 60);
            let mut found = 0;
            for series in &matrix {
                assert!(series.points.windows(2).all(|pair| pair[0].time < pair[1].time));
                let Some(point) = series.points.iter().find(|point| point.time == time) else { continue };
                found += 1;
                assert!(
                    single.iter().any(|s| s.labels == series.labels && s.value == point.value),
                    "{query}"
                );
            }
            assert_eq!(found, single.len(), "{query} at minute {minute}");
        }
    }
}

#[test]
fn the_end_of_a_query_need_not_be_a_step() {
    let memory = table(&[("a", "x", &[1.0, 2.0, 3.0, 4.0])]);
    let Value::Matrix(matrix) = range(&memory, "a @ end()", 0, 170_000, 90_000).unwrap().value else {
        panic!()
    };
    assert_eq!(matrix[0].points.iter().map(|point| point.value).collect::<Vec<_>>(), [3.0, 3.0]);
}

/// Which of equal values stay is decided as in Prometheus: the first to come leaves first.
#[test]
fn ties_of_topk_are_those_of_prometheus() {
    let memory = table(&[("a", "x", &[5.0; 2]), ("a", "y", &[5.0; 2]), ("a", "z", &[7.0; 2])]);
    check(&memory, "topk(2, a)", &[r#"a{host="y"} 5"#, r#"a{host="z"} 7"#]);
    check(&memory, "bottomk(1, a)", &[r#"a{host="x"} 5"#]);
}
