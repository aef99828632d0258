//! `icecore stats`: how many series there are, and what brings them.

use std::io::Write;

use crate::failure::Outcome;
use crate::interrupt;
use crate::output::{Output, count, stdout};
use crate::select::{Database, Times, open_to_read, parse_selector};

/// Says how many series there are, by name, tag key and pair of tag and value.
#[derive(Debug, clap::Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    database: Database,
    /// Which series.
    #[arg(default_value = "{}")]
    selector: String,
    #[command(flatten)]
    times: Times,
    /// So many of each list, the largest first.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,
}

/// Counts and prints.
pub(crate) fn run(arguments: &Stats) -> Outcome {
    let selector = parse_selector(&arguments.selector)?;
    let range = arguments.times.range()?;
    let reader = open_to_read(&arguments.database.data)?;
    let query = reader.query(selector).range(range).cancel(interrupt::token());
    let cardinality = query.cardinality(arguments.top)?;
    let counted = query.count().by::<&str>([]).run()?;
    let samples = counted.series.first().and_then(|series| series.doubles().first()).copied().unwrap_or(0.0);
    let mut out = stdout();
    writeln!(out, "{} series, {} samples", count(cardinality.series), count(samples as u64))?;
    table(
        &mut out,
        "series by name",
        cardinality.names.iter().map(|(name, number)| (name.clone(), *number)),
    )?;
    table(
        &mut out,
        "values by tag key",
        cardinality.keys.iter().map(|(key, number)| (key.clone(), *number)),
    )?;
    let pairs = cardinality.pairs.iter().map(|pair| (format!("{}={:?}", pair.key, pair.value), pair.series));
    table(&mut out, "series by tag and value", pairs)?;
    Ok(out.flush()?)
}

fn table(out: &mut Output, title: &str, rows: impl Iterator<Item = (String, u64)>) -> Outcome {
    writeln!(out, "\n{title}")?;
    for (text, number) in rows {
        writeln!(out, "{:>12}  {text}", count(number))?;
    }
    Ok(())
}
