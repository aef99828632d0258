//! `icecore snapshot`: an own, consistent copy of a database, by hard links where the file system allows it.

use std::path::PathBuf;

use crate::failure::Outcome;
use crate::select::{Database, open_to_write};

/// Makes a copy of the database in another directory, which must be absent or empty.
#[derive(Debug, clap::Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    database: Database,
    /// The directory of the copy.
    target: PathBuf,
}

/// Makes it.
pub(crate) fn run(arguments: &Snapshot, quiet: bool) -> Outcome {
    let db = open_to_write(&arguments.database.data)?;
    db.snapshot(&arguments.target)?;
    db.close()?;
    if !quiet {
        eprintln!("{} is a database of its own", arguments.target.display());
    }
    Ok(())
}
