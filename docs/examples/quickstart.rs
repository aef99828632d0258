//! Opens a database, writes a day of temperatures and asks for each hour's mean.
//!
//! cargo run --example quickstart

use std::time::Duration;

use icecore::{Batch, Db, Result, Timestamp};

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("icecore-quickstart-{}", std::process::id()));
    let db = Db::open(&path)?;
    let kitchen = db.series::<f64>("temperature", &[("room", "kitchen")])?;

    // A batch is kept as a whole, or not at all.
    let midnight = 1_700_006_400;
    let mut batch = Batch::new();
    for minute in 0..24 * 60 {
        let warmth = 20.0 + 2.0 * (f64::from(minute) / 1440.0 * std::f64::consts::TAU).sin();
        let rounded = (warmth * 10.0).round() / 10.0;
        batch.push(&kitchen, Timestamp::from_secs(midnight + i64::from(minute) * 60), rounded)?;
    }
    db.write(&mut batch)?;
    drop(batch);

    let answer = db.query("temperature").window(Duration::from_secs(3600)).mean().run()?;
    for series in &answer.series {
        println!("{}", series.key);
        for (time, mean) in series.times.iter().zip(series.doubles()) {
            println!("  {:02}:00  {mean:.2}", (time.nanos() / 1_000_000_000 - midnight) / 3600);
        }
    }
    drop(kitchen);
    db.close()?;
    println!("the data lies in {}", path.display());
    Ok(())
}
