//! `icecore verify`: every checksum, every index against its data; says exactly what is damaged. Never writes.

use std::io::Write;

use icecore::Env;
use icecore::inspect::{self, Damage, Event};

use crate::failure::{Failure, Outcome};
use crate::output::{count, stdout};
use crate::progress::Progress;
use crate::select::Database;
use crate::time::format_time;

/// Checks everything and says what is damaged; exit code 1 when something is.
#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    database: Database,
}

/// Checks and prints.
pub(crate) fn run(arguments: &Verify, quiet: bool) -> Outcome {
    let mut progress: Option<Progress> = None;
    let mut damages = Vec::new();
    let verified = inspect::verify(&Env::system(), &arguments.database.data, &mut |event| match event {
        Event::Progress { done, total } => {
            progress.get_or_insert_with(|| Progress::new("checked", total, "bytes", quiet)).set(done, done)
        }
        Event::Damage(damage) => damages.push(damage),
        _ => {}
    })?;
    if let Some(progress) = progress {
        progress.clear();
    }
    let mut out = stdout();
    for damage in &damages {
        writeln!(out, "DAMAGED {}", describe(damage))?;
    }
    if let Some((path, offset, reason)) = &verified.torn {
        let path = path.display();
        writeln!(
            out,
            "the log ends at byte {offset} of {path}: {reason}. A crash leaves that; it is no damage."
        )?;
    }
    if !quiet {
        writeln!(
            out,
            "{} blocks with {} samples in {} pages, and {} frames of the log with {} samples, are whole",
            count(verified.block_count),
            count(verified.sample_count),
            count(verified.page_count),
            count(verified.frame_count),
            count(verified.frame_sample_count),
        )?;
    }
    out.flush()?;
    match verified.damage_count {
        0 => Ok(()),
        damages => Err(Failure::Failed(format!("{} things are damaged", count(damages)))),
    }
}

fn describe(damage: &Damage) -> String {
    let mut text = damage.path.display().to_string();
    if let Some(offset) = damage.offset {
        text += &format!(" at byte {offset}");
    }
    text += &format!(": {}", damage.what);
    match (&damage.series, damage.series_count) {
        (Some(series), _) => text += &format!("; series {series}"),
        (None, Some(number)) => text += &format!("; {} series", count(number)),
        (None, None) => {}
    }
    if let Some(range) = damage.range {
        text += &format!("; {} to {}", format_time(range.start), format_time(range.end));
    }
    text
}
