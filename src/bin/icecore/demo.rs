//! `icecore demo`: real samples of this host, a writer killed in the middle of its work, and the proof that every
//! acknowledged sample is there.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use icecore::{Column, Db, Query, QueryResult, Selector, TimeRange};

use crate::chart;
use crate::failure::{Failure, Outcome};
use crate::interrupt;
use crate::output::{Output, count, number, size, stdout};
use crate::progress::Progress;
use crate::sample_host::Acknowledged;
use crate::time::format_duration;

/// How often the progress is told and the child looked after.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Samples this host, kills the writer with SIGKILL, and shows that nothing acknowledged is lost.
#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Where the data goes. Default: a new directory among the temporary ones.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How long this host is sampled before the kill.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// Least time between two ticks, in milliseconds.
    #[arg(long, default_value_t = 10, value_name = "MS")]
    interval_ms: u64,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(seconds) } else { Err("give 0.1 to 86400".to_owned()) }
}

/// Runs the demo.
pub(crate) fn run(arguments: &Demo, quiet: bool) -> Outcome {
    let dir = arguments
        .data
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("icecore-demo-{}", std::process::id())));
    let mut out = stdout();
    writeln!(out, "A child process samples this host into {} ...", dir.display())?;
    out.flush()?;
    let acknowledged = sample_and_kill(arguments, &dir, quiet)?;
    writeln!(
        out,
        "... and was killed (SIGKILL) while it wrote. Acknowledged until then: {} samples.",
        count(acknowledged.samples)
    )?;
    let db = reopen(&dir, &mut out)?;
    check(&db, &acknowledged, &mut out)?;
    tell_size(&db, &mut out)?;
    ask(&db, &acknowledged, &mut out)?;
    db.close()?;
    let program = std::env::args().next().unwrap_or_else(|| "icecore".to_owned());
    let dir = dir.display();
    writeln!(out, "\nThe data lies in {dir}. Ask it more:")?;
    writeln!(out, "  {program} query --data {dir} 'host_load' --window 1s --agg max --format chart")?;
    writeln!(out, "  {program} query --data {dir} '{{}}' --agg count --by __name__")?;
    Ok(out.flush()?)
}

/// Lets the child write for a while and kills it; gives what it acknowledged last.
fn sample_and_kill(arguments: &Demo, dir: &Path, quiet: bool) -> Outcome<Acknowledged> {
    let started = |error| Failure::Failed(format!("cannot start the child: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(started)?)
        .arg("sample-host")
        .arg("--data")
        .arg(dir)
        .args(["--interval-ms", &arguments.interval_ms.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(started)?;
    let (sender, receiver) = channel();
    let reader = child.stdout.take().map(|pipe| std::thread::spawn(move || read_lines(pipe, &sender)));
    let watched = watch(&mut child, &receiver, Duration::from_secs_f64(arguments.seconds), quiet);
    // Whatever happened, the child does not outlive this; it may be gone already.
    let killed = child.kill();
    let waited = child.wait();
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    let mut last = watched?;
    killed
        .and(waited.map(drop))
        .map_err(|error| Failure::Failed(format!("cannot kill the child: {error}")))?;
    // What it had said before it died counts, even if it was read after.
    last = receiver.try_iter().last().or(last);
    last.ok_or_else(|| Failure::Failed("the child acknowledged nothing in that time".to_owned()))
}

fn read_lines(pipe: ChildStdout, sender: &Sender<Acknowledged>) {
    let mut lines = BufReader::new(pipe);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|size| size > 0) {
        // A last line without its end was cut off by the kill.
        if let Some(Ok(acknowledged)) = line.strip_suffix('\n').map(str::parse) {
            let _ = sender.send(acknowledged);
        }
        line.clear();
    }
}

fn watch(
    child: &mut Child,
    acknowledgements: &Receiver<Acknowledged>,
    duration: Duration,
    quiet: bool,
) -> Outcome<Option<Acknowledged>> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut progress = Progress::new("acknowledged", millis(duration), "samples", quiet);
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < duration {
        interrupt::check()?;
        if let Ok(Some(status)) = child.try_wait() {
            return Err(Failure::Failed(format!("the child ended by itself ({status})")));
        }
        last = acknowledgements.try_iter().last().or(last);
        progress.set(millis(begun.elapsed()), last.map_or(0, |last| last.samples));
        std::thread::sleep(LOOK_INTERVAL.min(duration.saturating_sub(begun.elapsed())));
    }
    last = acknowledgements.try_iter().last().or(last);
    progress.finish(last.map_or(0, |last| last.samples));
    Ok(last)
}

fn reopen(dir: &Path, out: &mut Output) -> Outcome<Db> {
    let begun = Instant::now();
    let db = Db::open(dir)?;
    let took = format_duration(begun.elapsed());
    let recovery = db.recovery();
    let frames = count(recovery.frames_replayed);
    writeln!(out, "Reopened in {took}: {frames} frames of the log replayed.")?;
    if let Some((path, offset, reason)) = &recovery.torn {
        writeln!(out, "The log was torn by the kill at byte {offset} of {} ({reason}).", path.display())?;
    }
    Ok(db)
}

/// Reads everything back and compares number and bits with what was acknowledged.
fn check(db: &Db, acknowledged: &Acknowledged, out: &mut Output) -> Outcome {
    let range = TimeRange { start: acknowledged.first, end: acknowledged.last.saturating_add(1) };
    let mut found =
        Acknowledged { first: acknowledged.first, last: acknowledged.last, ..Acknowledged::default() };
    for piece in db.query(Selector::all()).range(range).cancel(interrupt::token()).stream()? {
        let piece = piece?;
        for (index, time) in piece.times.iter().enumerate() {
            if let Some(value) = piece.values.get(index) {
                found.add(&piece.key, *time, value);
            }
        }
    }
    let what = format!("{} of {}", count(found.samples), count(acknowledged.samples));
    if found != *acknowledged {
        return Err(Failure::Failed(format!("{what} acknowledged samples are there as they were written")));
    }
    writeln!(out, "All there: {what} acknowledged samples, bit for bit.")?;
    let later = TimeRange { start: range.end, end: TimeRange::ALL.end };
    let later = total(&db.query(Selector::all()).range(later).count().by::<&str>([]).run()?);
    if later > 0 {
        let later = count(later);
        writeln!(out, "And {later} more, of a batch that was whole in the log but not acknowledged yet.")?;
    }
    Ok(())
}

fn total(result: &QueryResult) -> u64 {
    result.series.first().and_then(|series| series.doubles().first()).map_or(0, |count| *count as u64)
}

fn tell_size(db: &Db, out: &mut Output) -> Outcome {
    db.flush()?;
    db.compact()?;
    let stats = db.stats();
    let samples = total(&db.query(Selector::all()).count().by::<&str>([]).run()?);
    let series = db.query(Selector::all()).series()?.len() as u64;
    writeln!(
        out,
        "\nCompacted: {} samples of {} series in {} of blocks, {:.2} bytes a sample.",
        count(samples),
        count(series),
        size(stats.block_size),
        stats.block_size as f64 / samples.max(1) as f64
    )?;
    Ok(())
}

/// A few questions with their answers and how long each took.
fn ask(db: &Db, acknowledged: &Acknowledged, out: &mut Output) -> Outcome {
    let second = Duration::from_secs(1);
    let query = |name: &str| db.query(Selector::name(name)).cancel(interrupt::token());
    let whole = TimeRange { start: acknowledged.first, end: acknowledged.last.saturating_add(1) };
    writeln!(out)?;
    let everything = db.query(Selector::all()).cancel(interrupt::token());
    answer(out, "samples in all", &everything.count().by::<&str>([]))?;
    answer(out, "mean use of a core, percent", &query("host_cpu_usage_percent").mean().by::<&str>([]))?;
    let memory = query("host_process_memory_bytes").max().by(["process"]).top(3);
    answer(out, "most memory of a process, bytes", &memory)?;
    let rate = query("host_process_cpu_milliseconds").range(whole).rate().by(["process"]).top(3);
    answer(out, "busiest processes, ms of a core a second", &rate)?;
    let received = query("host_network_received_bytes").increase().by(["interface"]).top(3);
    answer(out, "received by interface, bytes", &received)?;
    let windows = query("host_cpu_usage_percent").window(second / 10).mean().by::<&str>([]);
    let begun = Instant::now();
    let result = windows.run()?;
    let took = format_duration(begun.elapsed());
    writeln!(out, "\nmean use of all cores by 100 ms, percent  ({took})")?;
    write!(out, "{}", chart::draw(&result.series))?;
    Ok(())
}

/// Runs a query of one window and prints a line, or a line for each group.
fn answer(out: &mut Output, what: &str, query: &Query) -> Outcome {
    let begun = Instant::now();
    let result = query.run()?;
    let took = format_duration(begun.elapsed());
    let report = &result.report;
    let from_pages =
        format!("{} pages by their aggregates, {} decoded", report.pages_aggregated, report.pages_decoded);
    let mut rows: Vec<_> = result
        .series
        .iter()
        .filter_map(|series| match &series.values {
            Column::F64(values) => Some((*values.first()?, series.key.to_string())),
            _ => None,
        })
        .collect();
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    writeln!(out, "{what}  ({took}; {from_pages})")?;
    for (value, key) in rows {
        let rounded = format!("{value:.2}").parse().unwrap_or(value);
        writeln!(out, "{:>20}  {key}", number(rounded))?;
    }
    Ok(())
}
