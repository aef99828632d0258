//! Sixteen threads, each of whose writes is on the device before it goes on: they share the syncs.
//!
//! cargo run --release --example many_threads

use std::time::Instant;

use icecore::{Batch, Db, Durability, Result, Selector, Timestamp};

const THREADS: i64 = 16;
const WRITES: i64 = 200;
const SAMPLES: i64 = 10;

fn main() -> Result<()> {
    let path = std::env::temp_dir().join(format!("icecore-threads-{}", std::process::id()));
    let db = Db::open(&path)?;

    let begun = Instant::now();
    let done: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                scope.spawn({
                    let db = db.clone();
                    move || write(&db, thread)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer panicked")).collect()
    });
    done.into_iter().collect::<Result<Vec<()>>>()?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} durable writes a second", ((THREADS * WRITES) as f64 / seconds) as u64);

    let counted = db.query(Selector::name("requests")).count().by::<&str>([]).run()?;
    let count = counted.series.first().and_then(|all| all.doubles().first()).copied().unwrap_or(0.0);
    assert_eq!(count as i64, THREADS * WRITES * SAMPLES);
    db.close()?;
    println!("{count} samples lie in {}", path.display());
    Ok(())
}

fn write(db: &Db, thread: i64) -> Result<()> {
    let requests = db.series::<i64>("requests", &[("thread", &thread.to_string())])?;
    let mut batch = Batch::new();
    for write in 0..WRITES {
        for sample in 0..SAMPLES {
            let number = write * SAMPLES + sample;
            batch.push(&requests, Timestamp::from_millis(1_700_000_000_000 + number), number)?;
        }
        db.write_with(&mut batch, Durability::Sync)?;
    }
    Ok(())
}
