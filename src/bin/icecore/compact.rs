//! `icecore compact`: flushes what is in the log and merges blocks until nothing is left to merge.

use crate::failure::Outcome;
use crate::output::{count, size};
use crate::select::{Database, open_to_write};

/// Merges blocks until nothing is left to merge, and says what that saved.
#[derive(Debug, clap::Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    database: Database,
}

/// Flushes and merges.
pub(crate) fn run(arguments: &Compact, quiet: bool) -> Outcome {
    let db = open_to_write(&arguments.database.data)?;
    db.flush()?;
    let before = db.stats();
    db.compact()?;
    let after = db.stats();
    db.close()?;
    if !quiet {
        eprintln!(
            "{} blocks of {} became {} of {}: {} samples, {:.3} bytes each",
            count(before.blocks),
            size(before.block_size),
            count(after.blocks),
            size(after.block_size),
            count(after.block_samples),
            after.block_size as f64 / after.block_samples.max(1) as f64,
        );
    }
    Ok(())
}
