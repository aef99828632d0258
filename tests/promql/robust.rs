//! No text makes the parser or the evaluator panic, run on, or eat memory.

use icecore::ErrorKind;
use icecore::promql::{self, Labels, NESTING_MAX, Options, RangeTimes};

use super::memory::Memory;
use super::script::{self, Command};
use super::{folder, instant};
use icecore::Timestamp;

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const WORDS: [&str; 72] = [
    "a",
    "b:c",
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ",",
    ":",
    "=",
    "!=",
    "=~",
    "!~",
    "==",
    ">",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "@",
    "1",
    "0",
    "5m",
    "1h30m",
    "0x1f",
    ".5",
    "1e300",
    "Inf",
    "NaN",
    "\"x\"",
    "'(.*)'",
    "`$1`",
    "\"\\xff\"",
    "sum",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "and",
    "or",
    "unless",
    "atan2",
    "offset",
    "start()",
    "end()",
    "step()",
    "topk",
    "quantile",
    "count_values",
    "limit_ratio",
    "rate",
    "abs",
    "time()",
    "label_replace",
    "label_join",
    "info",
    "histogram_quantile",
    "predict_linear",
    "é",
    "#c\n",
    " ",
    "\n",
    "le",
    "fill",
    "max_over_time",
];

fn memory() -> Memory {
    let mut memory = Memory::default();
    for (name, host) in [("a", "x"), ("a", "y"), ("b:c", "x"), ("target_info", "x")] {
        let labels = Labels::new(name, [("host", host), ("le", "1"), ("job", "j"), ("instance", host)]);
        for minute in 0..20 {
            let value = if minute == 7 { f64::NAN } else { (minute * 31 % 17) as f64 };
            memory.add(labels.clone(), minute * 60_000, value);
        }
    }
    memory
}

fn small() -> Options {
    Options { samples_max: 100_000, steps_max: 2_000, memory_max: 4 << 20, ..Options::default() }
}

/// Parses, prints, parses again; evaluates both ways.
fn exercise(memory: &Memory, query: &str) -> bool {
    let Ok(expr) = promql::parse(query) else { return false };
    let line = expr.to_string();
    let again = promql::parse(&line).unwrap_or_else(|e| panic!("{query:?} became {line:?}: {e}"));
    let same = |again: &promql::Expr| again.to_string() == line;
    assert!(same(&again), "{query:?} became {again} and not {line}");
    let pretty = promql::pretty(&expr);
    let again = promql::parse(&pretty).unwrap_or_else(|e| panic!("{query:?} became {pretty:?}: {e}"));
    assert!(same(&again), "{query:?} became {pretty:?}");
    let _ = promql::tree_json(&expr).to_string();
    let time = Timestamp::from_secs(600);
    let _ = promql::instant(memory, &expr, query, time, &small());
    let times = RangeTimes { start: time, end: Timestamp::from_secs(1_500), step: 37_000_000_000 };
    let _ = promql::range(memory, &expr, query, times, &small());
    let _ = promql::explain(&expr, times, &small());
    true
}

#[test]
fn random_words_do_no_harm() {
    let (memory, mut random) = (memory(), Random(0x9e37_79b9_7f4a_7c15));
    for _ in 0..20_000 {
        let count = 1 + random.below(12);
        let query: String = (0..count).map(|_| random.pick(&WORDS)).collect::<Vec<_>>().join(" ");
        exercise(&memory, &query);
    }
}

#[test]
fn changed_queries_do_no_harm() {
    let (memory, mut random) = (memory(), Random(42));
    let mut queries: Vec<String> = Vec::new();
    for file in
        ["functions.test", "operators.test", "aggregators.test", "subquery.test", "duration_expression.test"]
    {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        for command in script::parse(&text).into_iter().flatten() {
            if let Command::Eval(eval) = command {
                queries.push(eval.query);
            }
        }
    }
    let mut parsed = 0;
    for round in 0..8_000 {
        let mut query = queries[round % queries.len()].clone();
        for _ in 0..random.below(3) {
            let at = floor_char(&query, random.below(query.len() + 1));
            let end = floor_char(&query, (at + random.below(6)).min(query.len()));
            let word = if random.below(2) == 0 { "" } else { random.pick(&WORDS) };
            query.replace_range(at..end.max(at), word);
        }
        parsed += usize::from(exercise(&memory, &query));
    }
    assert!(parsed > 2_000, "only {parsed} queries were still well formed");
}

fn floor_char(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The deepest expressions that parse are evaluated within the stack of a test thread.
#[test]
fn deep_expressions_fit_the_stack() {
    let memory = memory();
    let deep =
        |open: &str, close: &str, levels: usize| format!("{}a{}", open.repeat(levels), close.repeat(levels));
    for (open, close) in [
        ("(", ")"),
        ("-(", ")"),
        ("abs(", ")"),
        ("sum by (host) (", ")"),
        ("topk(3, ", ")"),
        ("1 + (", ")"),
        ("a + on (host) (", ")"),
        ("a or (", ")"),
        ("label_join(", ", \"x\", \"-\", \"host\")"),
        ("sort(", ")"),
        ("histogram_quantile(0.5, ", ")"),
        ("vector(scalar(", "))"),
        ("info(", ")"),
        ("max_over_time(", "[1m:1m])"),
        ("", " + a"),
    ] {
        let mut levels = NESTING_MAX;
        while promql::parse(&deep(open, close, levels)).is_err() {
            levels -= 1;
        }
        assert!(levels >= NESTING_MAX / 4, "{open}: only {levels} levels parse");
        exercise(&memory, &deep(open, close, levels));
    }
}

#[track_caller]
fn fails(query: &str, options: &Options, kind: ErrorKind, part: &str) {
    let expr = promql::parse(query).unwrap();
    let error = promql::instant(&memory(), &expr, query, Timestamp::from_secs(600), options).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn queries_of_death_are_refused() {
    fails("max_over_time(a[100y:1ms])", &small(), ErrorKind::LimitExceeded, "steps_max");
    let few = Options { samples_max: 10, ..small() };
    fails("sum(rate(a[10m]))", &few, ErrorKind::LimitExceeded, "samples_max");
    let one = Options { series_max: 1, ..small() };
    fails("a", &one, ErrorKind::LimitExceeded, "series_max");
    let tiny = Options { memory_max: 100, ..small() };
    fails("topk(1, a)", &tiny, ErrorKind::LimitExceeded, "memory_max");
    let doubled = (0..60).fold("a".to_owned(), |q, _| {
        format!("label_replace({q}, \"x\", \"${{1}}${{1}}y\", \"x\", \"(.*)\")")
    });
    fails(&doubled, &small(), ErrorKind::LimitExceeded, "label");
    let regexes = format!("{{{}}}", "a=~\".{9000}\",".repeat(1_000));
    let error = promql::parse(&regexes).unwrap_err().to_string();
    assert!(error.contains("regular expression"), "{error}");
}

#[test]
fn cancelled_and_late_queries_stop() {
    use std::sync::Arc;
    use std::time::Duration;
    let cancel = icecore::CancelToken::new();
    cancel.cancel();
    fails("a", &Options { cancel, ..small() }, ErrorKind::Cancelled, "canceled");
    let clock = icecore::ManualClock::new(Timestamp::from_secs(0));
    let deadline = promql::Deadline { clock: Arc::new(clock), at: Duration::ZERO };
    fails("a", &Options { deadline: Some(deadline), ..small() }, ErrorKind::Cancelled, "timed out");
}

/// Times at the ends of what can be said do not overflow.
#[test]
fn extreme_times_do_no_harm() {
    let memory = memory();
    for query in [
        "a offset 290y",
        "a offset -290y",
        "a @ 9223372036",
        "a @ -9223372036854775",
        "rate(a[290y] offset 290y)",
        "max_over_time(a[1y:1d] @ 9e15)",
        "predict_linear(a[1h] @ -9e15, 1e300)",
        "day_of_year(vector(1e300)) + year(vector(-Inf)) + minute(vector(NaN))",
    ] {
        for millis in [0, i64::MAX / 1_000_000, i64::MIN / 1_000_000] {
            let _ = instant(&memory, query, millis);
        }
    }
}
