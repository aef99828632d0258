//! Three axes of an accelerometer at 10 kHz: appends by handle, which cost tens of nanoseconds each and reach the
//! operating system with the next commit.
//!
//! cargo run --release --example high_rate_sensors

use std::time::{Duration, Instant};

use icecore::{Db, Result, Series, Timestamp};

const RATE: i64 = 10_000;
const SECONDS: i64 = 60;

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("icecore-sensors-{}", std::process::id()));
    let db = Db::open(&path)?;
    let axes: Vec<Series<i64>> = ["x", "y", "z"]
        .iter()
        .map(|axis| db.series("acceleration", &[("axis", axis)]))
        .collect::<Result<_>>()?;

    let start = Timestamp::from_secs(1_700_000_000);
    let begun = Instant::now();
    for tick in 0..RATE * SECONDS {
        let time = start.saturating_add(tick * 1_000_000_000 / RATE);
        for (phase, axis) in axes.iter().enumerate() {
            axis.append(time, reading(tick, phase))?;
        }
        // Once a second everything so far is on the device: what the program may lose is bounded.
        if tick % RATE == RATE - 1 {
            db.sync()?;
        }
    }
    let written = (RATE * SECONDS) as u64 * axes.len() as u64;
    println!("{written} samples in {:.2} s", begun.elapsed().as_secs_f64());

    db.flush()?;
    db.compact()?;
    println!("{:.3} bytes a sample", db.stats().block_size as f64 / written as f64);
    let begun = Instant::now();
    let answer = db.query("acceleration").window(Duration::from_secs(10)).max().by(["axis"]).run()?;
    println!(
        "{} windows in {:.2} ms",
        answer.series.iter().map(|s| s.times.len()).sum::<usize>(),
        begun.elapsed().as_secs_f64() * 1e3
    );
    drop(axes);
    db.close()?;
    println!("the data lies in {}", path.display());
    Ok(())
}

/// A swing with some noise, in the sensor's own counts.
fn reading(tick: i64, phase: usize) -> i64 {
    let swing = (tick as f64 / 500.0 + phase as f64).sin() * 1000.0;
    let noise = (tick as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17 * phase as u32) >> 60;
    swing as i64 + noise as i64
}
