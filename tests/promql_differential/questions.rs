//! Random queries, of the language that Prometheus 2.42 and 3.5 have in common.

use super::Random;

/// Ranges that no subquery's step fits, so that none lies on the border of a window.
const SUBQUERY_RANGES: [&str; 4] = ["145s", "325s", "625s", "1825s"];
const RANGES: [&str; 6] = ["45s", "1m", "5m", "7m30s", "20m", "1h"];
const LABELS: [&str; 5] = ["job", "instance", "code", "room", "floor"];

/// A query that answers a vector or a scalar.
pub(crate) fn question(random: &mut Random) -> String {
    match random.below(20) {
        0 => scalar(random, 2),
        1 => odd(random),
        2..4 => ranked(random),
        4 => histogram(random),
        5 => format!("sort({})", vector(random, 2)),
        depth => vector(random, 1 + depth % 4),
    }
}

/// Whether equal values may make another choice of series as good.
pub(crate) fn has_ties(query: &str) -> bool {
    query.starts_with("topk") || query.starts_with("bottomk")
}

/// Whether names that go late may make two series of one.
pub(crate) fn may_repeat_names(query: &str) -> bool {
    query.contains(" or ")
}

fn duration(random: &mut Random) -> &'static str {
    random.pick(&RANGES)
}

fn metric(random: &mut Random) -> &'static str {
    random.pick(&[
        "requests_total",
        "errors_total",
        "temperature",
        "humidity",
        "requests_total",
        "temperature",
    ])
}

fn matchers(random: &mut Random, metric: &str) -> String {
    let cases: &[&str] = if metric.ends_with("_total") {
        &[
            "",
            "",
            r#"{job="api"}"#,
            r#"{job!="api"}"#,
            r#"{job=~"a.*|web"}"#,
            r#"{instance!~"[ab]"}"#,
            r#"{code="500",job=~".+"}"#,
            r#"{nothing=""}"#,
            r#"{job="none"}"#,
        ]
    } else {
        &["", "", r#"{room="lab"}"#, r#"{floor!="2"}"#, r#"{room=~"h.*"}"#, r#"{room!~"roof|lab"}"#]
    };
    random.pick(cases).to_owned()
}

fn moved(random: &mut Random) -> String {
    match random.below(12) {
        0 => format!(" offset {}", duration(random)),
        1 => format!(" offset -{}", duration(random)),
        2 => format!(" @ {}", super::data::START + 60 * random.below(120) as i64),
        3 => random.pick(&[" @ start()", " @ end()"]).to_owned(),
        _ => String::new(),
    }
}

fn selector(random: &mut Random) -> String {
    let metric = metric(random);
    format!("{metric}{}", matchers(random, metric))
}

fn window(random: &mut Random, depth: u64) -> String {
    if depth > 0 && random.one_in(4) {
        let step = random.pick(&["", "30s", "60s", "120s"]);
        let range = random.pick(&SUBQUERY_RANGES);
        let (inner, moved) = (vector(random, depth - 1), moved(random));
        // 2.42 finds nothing for a time that is fixed within a time that is fixed.
        let moved = if inner.contains('@') { String::new() } else { moved };
        return format!("({inner})[{range}:{step}]{moved}");
    }
    format!("{}[{}]{}", selector(random), duration(random), moved(random))
}

fn over_time(random: &mut Random, depth: u64) -> String {
    let window = window(random, depth);
    match random.below(26) {
        0 => format!("quantile_over_time({}, {window})", random.pick(&["0", "0.3", "0.5", "0.99", "1", "2"])),
        // Without `@`, which 2.42 moves from step to step (mended by pull request 13559).
        1 => {
            let window = format!("{}[{}]", selector(random), duration(random));
            format!("predict_linear({window}, {})", random.pick(&["0", "60", "3600"]))
        }
        2 => format!("absent_over_time({window})"),
        // Counters only: of others 3.0 extrapolates another way near zero.
        3..8 => {
            let counter = random.pick(&["requests_total", "errors_total"]);
            let function = random.pick(&["rate", "increase"]);
            let matchers = matchers(random, counter);
            format!("{function}({counter}{matchers}[{}]{})", duration(random), moved(random))
        }
        other => {
            let names = [
                "delta",
                "idelta",
                "irate",
                "deriv",
                "avg_over_time",
                "min_over_time",
                "max_over_time",
                "sum_over_time",
                "count_over_time",
                "stddev_over_time",
                "stdvar_over_time",
                "last_over_time",
                "present_over_time",
                "changes",
                "resets",
                "avg_over_time",
                "max_over_time",
                "sum_over_time",
            ];
            format!("{}({window})", names[(other - 8) as usize])
        }
    }
}

/// An expression that answers a vector.
fn vector(random: &mut Random, depth: u64) -> String {
    if depth == 0 {
        return format!("{}{}", selector(random), moved(random));
    }
    match random.below(14) {
        0..4 => over_time(random, depth - 1),
        4..7 => aggregation(random, depth - 1),
        7..10 => operation(random, depth - 1),
        10..13 => call(random, depth - 1),
        _ => format!("-({})", vector(random, depth - 1)),
    }
}

fn grouping(random: &mut Random) -> String {
    let count = random.below(3);
    let mut labels: Vec<&str> = (0..count).map(|_| random.pick(&LABELS)).collect();
    labels.sort_unstable();
    labels.dedup();
    match random.below(3) {
        0 => String::new(),
        1 => format!(" by ({})", labels.join(", ")),
        _ => format!(" without ({})", labels.join(", ")),
    }
}

fn aggregation(random: &mut Random, depth: u64) -> String {
    let (grouping, input) = (grouping(random), vector(random, depth));
    match random.below(12) {
        0 => format!("quantile{grouping}({}, {input})", random.pick(&["0", "0.25", "0.9", "1", "-1"])),
        1 => {
            format!(
                "count_values{grouping}(\"value\", ({input}) > bool {})",
                random.pick(&["0", "50", "1e6"])
            )
        }
        other => {
            let names = ["sum", "avg", "min", "max", "count", "group", "sum", "avg", "stddev", "stdvar"];
            // Deviations of samples only: 2.42 takes that of one NaN or infinity for 0.
            let input = if other >= 10 { selector(random) } else { input };
            format!("{}{grouping}({input})", names[(other - 2) as usize])
        }
    }
}

/// `topk` and `bottomk`, of values that are hardly ever equal.
fn ranked(random: &mut Random) -> String {
    let name = random.pick(&["topk", "bottomk"]);
    let input = match random.below(3) {
        0 => format!("rate(requests_total[{}])", random.pick(&["5m", "20m"])),
        _ => selector(random),
    };
    format!("{name}{}({}, {input})", grouping(random), random.pick(&["1", "2", "3", "0", "50"]))
}

fn operation(random: &mut Random, depth: u64) -> String {
    let arithmetic = ["+", "-", "*", "/", "^", "==", "!=", ">", "<", ">=", "<=", "> bool", "<= bool"];
    let left = vector(random, depth);
    match random.below(11) {
        // A remainder, like a cosine, makes much of the last digits: of samples only.
        10 => format!("{} % {}", selector(random), random.pick(&["7", "-2.5", "1e3", "humidity"])),
        0..3 => format!("({left}) {} {}", random.pick(&arithmetic), scalar(random, depth.min(1))),
        3 => format!("{} {} ({left})", scalar(random, depth.min(1)), random.pick(&arithmetic)),
        4 => {
            let on = random.pick(&["", " on (job, instance)", " on (room)", " ignoring (code)", " on ()"]);
            format!("({left}) {}{on} ({})", random.pick(&["and", "or", "unless"]), vector(random, depth))
        }
        5 => {
            let (a, b) = (selector(random), random.pick(&arithmetic));
            format!("{a} {b} on (room, job, instance, floor) ({left})")
        }
        6 => {
            let many = random.pick(&["requests_total", "errors_total"]);
            let op = random.pick(&["*", "/", "-", ">", "> bool"]);
            format!(
                "rate({many}[5m]) {op} on (job) group_left () sum by (job) (requests_total{})",
                moved(random)
            )
        }
        7 => format!("abs(humidity atan2 temperature{})", moved(random)),
        _ => {
            let right = vector(random, depth);
            format!("({left}) {} ({right})", random.pick(&arithmetic))
        }
    }
}

fn call(random: &mut Random, depth: u64) -> String {
    let input = vector(random, depth);
    match random.below(16) {
        0 => format!("clamp({input}, {}, {})", random.pick(&["-5", "0"]), random.pick(&["40", "1e6"])),
        1 => format!("clamp_max({input}, {})", scalar(random, 0)),
        2 => format!("clamp_min({input}, {})", scalar(random, 0)),
        3 => format!("round({input}, {})", random.pick(&["1", "5", "0.1", "1000"])),
        4 => format!("absent({input})"),
        5 => format!("(timestamp({}{}) - {})", selector(random), moved(random), super::data::START),
        6 => format!("label_replace({input}, \"to\", \"x-$1\", \"{}\", \"(.).*\")", random.pick(&LABELS)),
        7 => format!("label_join({input}, \"to\", \"-\", \"job\", \"{}\")", random.pick(&LABELS)),
        8 => {
            let names =
                ["hour", "minute", "day_of_week", "day_of_month", "day_of_year", "days_in_month", "month"];
            format!("{}(timestamp({}))", random.pick(&names), selector(random))
        }
        9 => format!("{}({})", random.pick(&["cos", "sin", "tan", "tanh"]), selector(random)),
        _ => {
            let names =
                ["abs", "ceil", "floor", "exp", "ln", "log2", "log10", "sqrt", "sgn", "round", "deg", "rad"];
            format!("{}({input})", random.pick(&names))
        }
    }
}

/// An expression that answers a scalar.
fn scalar(random: &mut Random, depth: u64) -> String {
    match random.below(if depth == 0 { 3 } else { 6 }) {
        0 => random.pick(&["0", "1", "-2.5", "50", "1e5", "0.001"]).to_owned(),
        1 => random.pick(&["20", "3", "100"]).to_owned(),
        2 => "time() / 1e8".to_owned(),
        3 => format!("scalar({})", vector(random, depth - 1)),
        4 => format!("({} * {})", scalar(random, depth - 1), scalar(random, depth - 1)),
        _ => format!("scalar(sum({}))", vector(random, depth - 1)),
    }
}

/// Values out of the ordinary, where 2.42 and 3.5 agree what to do with them.
fn odd(random: &mut Random) -> String {
    let window = format!("odd[{}]", duration(random));
    let name = random.pick(&["min", "max", "last", "count", "present"]);
    match random.below(6) {
        0 => format!("{name}_over_time({window})"),
        1 => format!("{}({window})", random.pick(&["changes", "resets", "idelta"])),
        2 => format!("{} by (room) (odd)", random.pick(&["min", "max", "count", "group"])),
        3 => format!(
            "odd {} {}",
            random.pick(&[">", "<=", "==", "!=", "+", "*", ">= bool"]),
            scalar(random, 0)
        ),
        4 => format!("{}(odd)", random.pick(&["abs", "ceil", "sgn", "exp", "sqrt", "floor"])),
        _ => format!("odd + on (room, floor) odd offset {}", duration(random)),
    }
}

fn histogram(random: &mut Random) -> String {
    let q = random.pick(&["0", "0.1", "0.5", "0.9", "0.999", "1", "-1", "2"]);
    let rate = format!("rate(latency_bucket[{}]{})", random.pick(&["1m", "5m", "20m"]), moved(random));
    match random.below(3) {
        0 => format!("histogram_quantile({q}, {rate})"),
        1 => format!("histogram_quantile({q}, sum by (le) ({rate}))"),
        _ => format!("histogram_quantile({q}, latency_bucket)"),
    }
}
