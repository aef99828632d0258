//! The acceptance scripts of Prometheus, run in process over series in memory.

#[path = "promql/answers.rs"]
mod answers;
#[path = "promql/classify.rs"]
mod classify;
#[path = "promql/compare.rs"]
mod compare;
#[path = "promql/engine.rs"]
mod engine;
#[path = "promql/memory.rs"]
mod memory;
#[path = "promql/robust.rs"]
mod robust;
#[path = "promql/script.rs"]
mod script;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use classify::Group;
use icecore::Timestamp;
use icecore::promql::{self, Labels, Options, Output, RangeTimes, Source, Value};
use memory::Memory;
use script::{Command, Eval, Item, Load, Session};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promql")
}

fn load(memory: &mut Memory, load: &Load) {
    for series in &load.series {
        for (index, item) in series.items.iter().enumerate() {
            if let Item::Float(value) = item {
                memory.add(series.labels.clone(), index as i64 * load.step_ms, *value);
            }
        }
    }
}

fn instant(source: &dyn Source, query: &str, millis: i64) -> icecore::Result<Output> {
    let expr = promql::parse(query)?;
    promql::instant(source, &expr, query, Timestamp::from_millis(millis), &Options::default())
}

fn range(source: &dyn Source, query: &str, start: i64, end: i64, step: i64) -> icecore::Result<Output> {
    let expr = promql::parse(query)?;
    let times = RangeTimes {
        start: Timestamp::from_millis(start),
        end: Timestamp::from_millis(end),
        step: step * 1_000_000,
    };
    promql::range(source, &expr, query, times, &Options::default())
}

fn run(source: &dyn Source, eval: &Eval) -> Result<(), String> {
    let answer = if eval.is_range {
        range(source, &eval.query, eval.start_ms, eval.end_ms, eval.step_ms)
    } else {
        instant(source, &eval.query, eval.end_ms)
    };
    let output = match (answer, &eval.fail) {
        (Ok(output), None) => output,
        (Ok(output), Some(_)) => return Err(format!("expected an error, got {:?}", output.value)),
        (Err(error), None) => return Err(format!("error {error}")),
        (Err(error), Some(Some(wanted))) if !compare::text_matches(&error.to_string(), wanted) => {
            return Err(format!("expected error {wanted:?}, got {error}"));
        }
        (Err(_), Some(_)) => return Ok(()),
    };
    compare::compare(eval, &output.value)?;
    compare::notes(eval, &output)?;
    as_range(source, eval)
}

/// Asks an instant query again as a range query and looks at the one step.
fn as_range(source: &dyn Source, eval: &Eval) -> Result<(), String> {
    let needs_instant = eval.is_range || eval.expects_range_vector || eval.ordered || eval.string.is_some();
    let of_query = ["start()", "end()", "range()", "step()"].iter().any(|call| eval.query.contains(call));
    if needs_instant || of_query {
        return Ok(());
    }
    let (start, end) = (eval.end_ms - 60_000, eval.end_ms + 60_000);
    let output =
        range(source, &eval.query, start, end, 60_000).map_err(|e| format!("as range: error {e}"))?;
    let Value::Matrix(matrix) = output.value else { return Err("as range: no matrix".to_owned()) };
    let mut found: Vec<(Labels, f64)> = Vec::new();
    for series in matrix {
        let at = series.points.iter().find(|point| point.time == Timestamp::from_millis(eval.end_ms));
        found.extend(at.map(|point| (series.labels, point.value)));
    }
    let compared = match eval.scalar {
        Some(wanted) => match found.as_slice() {
            [(_, value)] if compare::almost(wanted, *value) => Ok(()),
            other => Err(format!("{other:?}, expected {wanted}")),
        },
        None => compare::vector(eval, &found),
    };
    compared.map_err(|difference| format!("as range: {difference}"))
}

/// How many cases of a group pass.
#[derive(Clone, Copy, Default)]
struct Score {
    passed: usize,
    total: usize,
}

struct Report {
    scores: BTreeMap<(Group, String), Score>,
    failures: Vec<String>,
}

fn run_session(file: &str, session: &Session, report: &mut Report) {
    let mut groups = classify::groups(file, session).into_iter();
    let mut memory = Memory::default();
    for command in session {
        let eval = match command {
            Command::Load(new) => {
                load(&mut memory, new);
                continue;
            }
            Command::Eval(eval) => eval,
        };
        let group = groups.next().unwrap();
        let score = report.scores.entry((group, file.to_owned())).or_default();
        score.total += 1;
        if group == Group::NativeHistogram {
            continue;
        }
        match run(&memory, eval) {
            Ok(()) => score.passed += 1,
            Err(reason) => {
                println!("{file}:{} {}\n    {reason}", eval.line, eval.query);
                report.failures.push(format!("{file}:{} {}", eval.line, eval.query));
            }
        }
    }
}

fn run_all() -> Report {
    let mut report = Report { scores: BTreeMap::new(), failures: Vec::new() };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|path| path.extension().is_some_and(|e| e == "test")) {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        for session in script::parse(&text) {
            run_session(&file, &session, &mut report);
        }
    }
    report
}

/// What `passed.txt` holds.
fn summary(report: &Report) -> String {
    let mut out = String::new();
    for group in [Group::Float, Group::Experimental] {
        let of_group = report.scores.iter().filter(|((g, _), _)| *g == group);
        let (passed, total) = of_group.clone().fold((0, 0), |(p, t), (_, s)| (p + s.passed, t + s.total));
        let _ = writeln!(out, "{group:?}: {passed} of {total}");
        for ((_, file), score) in of_group {
            let _ = writeln!(out, "  {file}: {} of {}", score.passed, score.total);
        }
    }
    let native = report.scores.iter().filter(|((g, _), _)| *g == Group::NativeHistogram);
    let _ = writeln!(out, "NativeHistogram: {} not run", native.map(|(_, s)| s.total).sum::<usize>());
    let _ = writeln!(out, "Failing:");
    for failure in &report.failures {
        let _ = writeln!(out, "  {failure}");
    }
    out
}

#[test]
fn scripts_pass_as_recorded() {
    let found = summary(&run_all());
    let path = folder().join("passed.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, recorded, "UPDATE=1 records what passes now; review the difference");
}

/// Changes what a case expects, as little as the comparison must notice.
fn spoil(eval: &mut Eval) {
    let changed = |v: f64| match v {
        v if !v.is_finite() => 0.25,
        v if v.abs() > 1e-3 => v * 1.0001,
        v => v + 1e-3,
    };
    if eval.fail.take().is_some() {
        eval.scalar = Some(1.0);
    } else if let Some(text) = &mut eval.string {
        text.push('x');
    } else if let Some(value) = &mut eval.scalar {
        *value = changed(*value);
    } else {
        let floats = eval.series.iter_mut().flat_map(|series| series.items.iter_mut().rev());
        let mut floats = floats.filter_map(|item| match item {
            Item::Float(value) => Some(value),
            _ => None,
        });
        match floats.next() {
            Some(value) => *value = changed(*value),
            None => eval.series.push(script::ScriptSeries {
                labels: Labels::new("no_such_series", [("", ""); 0]),
                items: vec![Item::Float(1.0)],
            }),
        }
    }
}

#[test]
fn spoiled_scripts_do_not_pass() {
    let mut report = Report { scores: BTreeMap::new(), failures: Vec::new() };
    for file in ["aggregators.test", "functions.test", "operators.test", "subquery.test", "selectors.test"] {
        let text = std::fs::read_to_string(folder().join(file)).unwrap();
        for mut session in script::parse(&text) {
            for command in &mut session {
                if let Command::Eval(eval) = command {
                    spoil(eval);
                }
            }
            run_session(file, &session, &mut report);
        }
    }
    let passed: usize = report.scores.values().map(|score| score.passed).sum();
    assert_eq!(passed, 0, "of {} spoiled cases", report.failures.len());
}
