//! `icecore delete`: removes the samples of a selector in a range of time.

use crate::failure::Outcome;
use crate::interrupt;
use crate::output::count;
use crate::select::{Database, Times, open_to_write, parse_selector};

/// Removes the samples of these series, in these times. What is written later lives.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    database: Database,
    /// Which series; `{}` is every one.
    selector: String,
    #[command(flatten)]
    times: Times,
}

/// Counts, deletes, and has it on the device.
pub(crate) fn run(arguments: &Delete, quiet: bool) -> Outcome {
    let selector = parse_selector(&arguments.selector)?;
    let range = arguments.times.range()?;
    let db = open_to_write(&arguments.database.data)?;
    let counted =
        db.query(selector.clone()).range(range).cancel(interrupt::token()).count().by::<&str>([]).run()?;
    let samples = counted.series.first().and_then(|series| series.doubles().first()).copied().unwrap_or(0.0);
    let receipt = db.delete(&selector, range)?;
    db.wait_durable(receipt)?;
    db.close()?;
    if !quiet {
        eprintln!("{} samples deleted", count(samples as u64));
    }
    Ok(())
}
