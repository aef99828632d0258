//! A subject for crash tests from outside: writes numbered batches and says which are durable, or dumps all.
//!
//! `crash_subject write DIR START COUNT` writes batches START, START+1, ... and prints `ACK n` once batch n is
//! durable. `crash_subject dump DIR` prints every sample as `<series> <timestamp ms> <bits in hex>`, then
//! `END <lines>`. By environment: `CRASH_OPTIONS=tiny|default`, `CRASH_DURABILITY=sync|os|interval`,
//! `CRASH_THREADS=N`, `CRASH_READ=pread|map`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use icecore::{
    Batch, Column, Db, Durability, ErrorKind, Options, ReadMode, Result, Selector, Series, Timestamp,
};

const SERIES: u64 = 4;
const POINTS: u64 = 5;
const START_MS: i64 = 1_700_000_000_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["write", dir, start, count] => match (start.parse(), count.parse()) {
            (Ok(start), Ok(count)) => write(Path::new(dir), start, count),
            _ => return usage(),
        },
        ["dump", dir] => dump(Path::new(dir)),
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::from(if error.kind() == ErrorKind::Corruption { 3 } else { 1 })
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: crash_subject write DIR START COUNT | dump DIR");
    ExitCode::from(2)
}

fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn options() -> Options {
    let mut options = Options::default();
    if setting("CRASH_OPTIONS") == "tiny" {
        options.flush_size = 16 << 10;
        options.wal_size_max = 32 << 10;
        options.segment_size_max = 8 << 10;
    }
    if setting("CRASH_READ") == "map" {
        options.read_mode = ReadMode::Map;
    }
    options
}

/// The finalizer of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn value(batch: u64, series: u64, point: u64) -> f64 {
    (mix(batch.wrapping_mul(1_000_003) ^ series.wrapping_mul(10_007) ^ point) >> 12) as f64
}

fn write(dir: &Path, start: u64, count: u64) -> Result<()> {
    let db = Db::open_with(dir, options())?;
    let handles = (0..SERIES)
        .map(|series| db.series::<f64>("crash", &[("series", &series.to_string())]))
        .collect::<Result<Vec<_>>>()?;
    let next = AtomicU64::new(start);
    let failed = Mutex::new(None);
    let threads = setting("CRASH_THREADS").parse().unwrap_or(1).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= start + count {
                        return;
                    }
                    if let Err(error) = write_batch(&db, &handles, number) {
                        next.store(start + count, Ordering::Relaxed);
                        failed.lock().unwrap().get_or_insert(error);
                        return;
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap() {
        Some(error) => Err(error),
        None => {
            drop(handles);
            db.close()
        }
    }
}

fn write_batch(db: &Db, handles: &[Series<f64>], number: u64) -> Result<()> {
    let mut batch = Batch::new();
    for (series, handle) in (0..).zip(handles) {
        for point in 0..POINTS {
            let time = Timestamp::from_millis(START_MS + (number * POINTS + point) as i64 * 1000);
            batch.push(handle, time, value(number, series, point))?;
        }
    }
    match setting("CRASH_DURABILITY").as_str() {
        "os" => drop(db.write_with(&mut batch, Durability::Os)?),
        "interval" => {
            db.write_with(&mut batch, Durability::Os)?;
            std::thread::sleep(Duration::from_millis(1500));
        }
        _ => drop(db.write_with(&mut batch, Durability::Sync)?),
    }
    let mut out = std::io::stdout().lock();
    // Whoever listens may be gone; the data is what counts.
    let _ = writeln!(out, "ACK {number}").and_then(|()| out.flush());
    Ok(())
}

fn dump(dir: &Path) -> Result<()> {
    let db = Db::open_with(dir, Options { create: false, ..options() })?;
    if let Some((path, reason)) = db.recovery().quarantined.first() {
        return Err(icecore::Error::corruption(path, 0, reason.clone()));
    }
    let mut lines = 0;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for series in db.query(Selector::all()).run()?.series {
        let Column::F64(values) = &series.values else { continue };
        let number = series.key.tag("series");
        for (time, value) in series.times.iter().zip(values) {
            let _ = writeln!(out, "{number} {} {:016x}", time.millis(), value.to_bits());
            lines += 1;
        }
    }
    let _ = writeln!(out, "END {lines}").and_then(|()| out.flush());
    drop(out);
    db.close()
}
