//! Expressions that the input chooses from the grammar, over a small database and with tight limits: no panic, an end, and
//! answers that agree with themselves, instant and range.
#![no_main]

use std::sync::LazyLock;

use icecore::promql::{
    self, AggregateOp, EngineSource, FUNCTIONS, Options, Output, RangeTimes, Value, ValueType, Variadic,
};
use icecore::{Batch, Db, Env, ErrorKind, Timestamp, ValueRef};
use libfuzzer_sys::fuzz_target;

/// Deepest expression that is made.
const DEPTH_MAX: u32 = 5;
/// Longest query that is made, in bytes, give or take one part.
const SIZE_MAX: usize = 600;
/// Time of the queries.
const NOW: i64 = 3_000;

const BINARY: [&str; 22] = [
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "atan2",
    "==",
    "!=",
    ">",
    "<",
    ">=",
    "<=",
    "== bool",
    "and",
    "or",
    "unless",
    "* on (host)",
    "+ ignoring (le) group_left",
    "/ on (job) group_right (le)",
    "and on ()",
    "- on (host) fill (0)",
];
const NUMBERS: [&str; 12] =
    ["0", "1", "-1", "0.5", "3", "1e300", "-0", "NaN", "Inf", "-Inf", "time()", "scalar(g)"];
const STRINGS: [&str; 8] =
    ["\"host\"", "\"x\"", "\"(.*)\"", "\"$1\"", "\"le\"", "\"__name__\"", "\"\"", "'a|b'"];
const SELECTORS: [&str; 9] = [
    "g",
    "c_total",
    "h_bucket",
    "i",
    "gap",
    "{job=\"j\"}",
    "{__name__=~\".+\",host!=\"a\"}",
    "none",
    "target_info",
];
const SHIFTS: [&str; 8] =
    ["", "", "", " offset 1m", " offset -10m", " @ 1500", " @ end() offset 90s", " @ start()"];
const RANGES: [&str; 7] = ["[1m]", "[5m]", "[1h]", "[1ms]", "[10m:1m]", "[30m:7s]", "[1h:]"];
const GROUPS: [&str; 6] = ["", "", " by (host)", " by (job, le)", " without (host)", " by (__name__)"];

static DB: LazyLock<Db> = LazyLock::new(|| {
    let db = Db::open_with("db", icecore::Options { env: Env::simulated(1), ..icecore::Options::default() })
        .unwrap();
    for half in 0..2 {
        let mut batch = Batch::new();
        for minute in half * 25..half * 25 + 25 {
            let time = Timestamp::from_millis(minute * 60_000 + minute % 3);
            let mut push = |name: &str, tags: &[(&str, &str)], value: ValueRef<'_>| {
                batch.push_named(name, tags, time, value).unwrap();
            };
            for (index, host) in ["a", "b", "c"].into_iter().enumerate() {
                let wave = (minute * 37 % 11 - 5) as f64 * (index as f64 + 0.5);
                let odd = [wave, f64::NAN, f64::INFINITY, f64::from_bits(0x7ff0_0000_0000_0002)];
                let pick = if minute % 17 == 0 { 1 + index } else { 0 };
                push("g", &[("host", host), ("job", "j")], ValueRef::F64(odd[pick]));
                let counter = (minute % 20) as f64 * (index as f64 + 1.0);
                push("c_total", &[("host", host), ("job", "j")], ValueRef::F64(counter));
                push("i", &[("host", host)], ValueRef::I64(minute * 1_000_000_007));
                for (le, share) in [("0.1", 0.2), ("1", 0.7), ("+Inf", 1.0)] {
                    push("h_bucket", &[("host", host), ("le", le)], ValueRef::F64((counter * share).floor()));
                }
            }
            if minute % 7 < 3 {
                push("gap", &[], ValueRef::F64(minute as f64));
            }
            push(
                "target_info",
                &[("host", "a"), ("instance", "a"), ("job", "j"), ("v", "1")],
                ValueRef::F64(1.0),
            );
            push("event", &[], ValueRef::Bytes(b"x"));
        }
        db.write(&mut batch).unwrap();
        if half == 0 {
            db.flush().unwrap();
        }
    }
    db
});

/// The input as a list of choices; when it is used up, the first of everything.
struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
    out: String,
}

impl Choices<'_> {
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % count
    }

    fn pick(&mut self, words: &[&str]) {
        let index = self.below(words.len());
        self.out.push_str(words[index]);
    }

    fn expr(&mut self, kind: ValueType, depth: u32) {
        let is_deep = depth >= DEPTH_MAX || self.out.len() > SIZE_MAX;
        match kind {
            ValueType::String => self.pick(&STRINGS),
            ValueType::Scalar => match if is_deep { 0 } else { self.below(4) } {
                2 => self.binary(kind, depth, &BINARY[..13]),
                3 => self.call(kind, depth),
                _ => self.pick(&NUMBERS),
            },
            ValueType::Vector => match if is_deep { 0 } else { self.below(9) } {
                0 | 1 => {
                    self.pick(&SELECTORS);
                    self.pick(&SHIFTS);
                }
                2 | 3 => self.binary(kind, depth, &BINARY),
                4 | 5 => self.aggregate(depth),
                _ => self.call(kind, depth),
            },
            ValueType::Matrix => {
                let index = self.below(RANGES.len());
                let range = RANGES[index];
                if range.contains(':') && !is_deep {
                    self.out.push('(');
                    self.expr(ValueType::Vector, depth + 2);
                    self.out.push(')');
                } else {
                    self.pick(&SELECTORS);
                }
                self.out.push_str(range);
                self.pick(&SHIFTS);
            }
        }
    }

    fn binary(&mut self, kind: ValueType, depth: u32, operators: &[&str]) {
        self.out.push('(');
        self.expr(kind, depth + 1);
        self.out.push(' ');
        self.pick(operators);
        self.out.push(' ');
        let right = if kind == ValueType::Vector && self.below(3) == 0 { ValueType::Scalar } else { kind };
        self.expr(right, depth + 1);
        self.out.push(')');
    }

    fn aggregate(&mut self, depth: u32) {
        let index = self.below(AggregateOp::ALL.len());
        let (op, name) = AggregateOp::ALL[index];
        self.out.push_str(name);
        self.pick(&GROUPS);
        self.out.push('(');
        if let Some(parameter) = op.parameter() {
            self.expr(parameter, depth + 2);
            self.out.push_str(", ");
        }
        self.expr(ValueType::Vector, depth + 1);
        self.out.push(')');
    }

    fn call(&mut self, kind: ValueType, depth: u32) {
        let fitting: Vec<_> = FUNCTIONS.iter().filter(|function| function.returns == kind).collect();
        let choice = self.bytes.next().map_or(0, |byte| usize::from(*byte));
        let function = fitting[choice % fitting.len()];
        self.out.push_str(function.name);
        self.out.push('(');
        let most = function.args.len();
        let count = match function.variadic {
            Variadic::Fixed => most,
            Variadic::UpTo(_) => most - self.below(2).min(most),
            Variadic::Any => most - 1 + self.below(3),
        };
        for index in 0..count {
            if index > 0 {
                self.out.push_str(", ");
            }
            if function.name == "info" && index == 1 {
                self.out.push_str("{v=~\".+\"}");
            } else {
                self.expr(function.args[index.min(most - 1)], depth + 1);
            }
        }
        self.out.push(')');
    }
}

fn small() -> Options {
    Options { samples_max: 200_000, steps_max: 2_000, memory_max: 4 << 20, ..Options::default() }
}

fn settled(answer: icecore::Result<Output>, query: &str) -> Option<Output> {
    match answer {
        Ok(answer) => Some(answer),
        Err(error) => {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::InvalidInput | ErrorKind::LimitExceeded), "{query}: {error}");
            None
        }
    }
}

/// Series and bits of values, whatever their order.
fn bits(value: &Value) -> Option<Vec<(String, u64)>> {
    let mut all: Vec<(String, u64)> = match value {
        Value::Vector(samples) => samples.iter().map(|s| (s.labels.to_string(), s.value.to_bits())).collect(),
        Value::Matrix(matrix) => matrix
            .iter()
            .flat_map(|s| s.points.iter().map(|p| (s.labels.to_string(), p.value.to_bits())))
            .collect(),
        _ => return None,
    };
    all.sort();
    Some(all)
}

fuzz_target!(|bytes: &[u8]| {
    let mut choices = Choices { bytes: bytes.iter(), out: String::new() };
    choices.expr(ValueType::Vector, 0);
    let query = choices.out;
    let Ok(expr) = promql::parse(&query) else { return };
    let source = EngineSource::new(|selector| DB.query(selector));
    let now = Timestamp::from_secs(NOW);
    let ask = || settled(promql::instant(&source, &expr, &query, now, &small()), &query);
    let (once, again) = (ask(), ask());
    assert_eq!(format!("{once:?}"), format!("{again:?}"), "{query}");
    let range = |start, end| {
        let times = RangeTimes {
            start: Timestamp::from_secs(start),
            end: Timestamp::from_secs(end),
            step: 60_000_000_000,
        };
        settled(promql::range(&source, &expr, &query, times, &small()), &query)
    };
    // What these choose can follow the order of series, which only instant queries sort.
    let by_order = ["limitk", "topk", "bottomk"].iter().any(|name| query.contains(name));
    if let (Some(instant), Some(one), false) = (once, range(NOW, NOW), by_order) {
        assert_eq!(bits(&instant.value), bits(&one.value), "{query}");
    }
    range(NOW - 1_800, NOW);
});
