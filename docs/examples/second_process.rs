//! Reading a database beside its writer: no lock, not a byte written.
//!
//! `cargo run --example second_process DIR` shows the latest value of every series, once a second for ten
//! seconds, while another program writes.

use std::time::Duration;

use icecore::{Db, Result, Selector};

fn main() -> Result<()> {
    let Some(dir) = std::env::args().nth(1) else {
        eprintln!("usage: second_process DIR");
        std::process::exit(2);
    };
    let reader = Db::open_reader(dir)?;
    for _ in 0..10 {
        for series in reader.query(Selector::all()).latest().run()?.series {
            let latest = series.times.last().zip(series.values.get(series.times.len().saturating_sub(1)));
            println!("{} {latest:?}", series.key);
        }
        std::thread::sleep(Duration::from_secs(1));
        reader.refresh()?;
    }
    Ok(())
}
