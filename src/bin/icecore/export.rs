//! `icecore export`: samples as CSV, in the form that `icecore import` reads, or as JSON lines.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use icecore::SeriesColumns;
use serde_json::{Value, json};

use crate::failure::{Outcome, in_file};
use crate::interrupt;
use crate::output::{count, json_tags, json_value, stdout, write_csv};
use crate::select::{Database, Times, open_to_read, parse_selector};

/// Writes samples as CSV or JSON lines.
#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    database: Database,
    /// Which series.
    #[arg(default_value = "{}")]
    selector: String,
    #[command(flatten)]
    times: Times,
    /// CSV as `import` reads it: `series,tags,timestamp_ns,value`. Or JSON lines: a piece of a series in each, with
    /// `name`, `tags`, `type`, `times_ns` and `values`.
    #[arg(long, default_value = "csv")]
    format: Format,
    /// Where to, instead of standard output. The file must not exist.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

/// Exports, a page of samples at a time.
pub(crate) fn run(arguments: &Export, quiet: bool) -> Outcome {
    let selector = parse_selector(&arguments.selector)?;
    let range = arguments.times.range()?;
    let reader = open_to_read(&arguments.database.data)?;
    let stream = reader.query(selector).range(range).cancel(interrupt::token()).stream()?;
    let mut out: Box<dyn Write> = match &arguments.output {
        Some(path) => {
            let file = File::create_new(path).map_err(|error| in_file("create", path, &error))?;
            Box::new(BufWriter::new(file))
        }
        None => Box::new(stdout()),
    };
    if arguments.format == Format::Csv {
        writeln!(out, "series,tags,timestamp_ns,value")?;
    }
    let mut samples = 0;
    for piece in stream {
        let piece = piece?;
        samples += piece.times.len() as u64;
        match arguments.format {
            Format::Csv => write_csv(&mut out, &piece)?,
            Format::Jsonl => writeln!(out, "{}", json_piece(&piece))?,
        }
    }
    out.flush()?;
    if !quiet && arguments.output.is_some() {
        eprintln!("{} samples", count(samples));
    }
    Ok(())
}

fn json_piece(piece: &SeriesColumns) -> Value {
    let times: Vec<i64> = piece.times.iter().map(|time| time.nanos()).collect();
    let values: Vec<Value> =
        (0..times.len()).filter_map(|index| piece.values.get(index)).map(json_value).collect();
    json!({
        "name": piece.key.name(),
        "tags": json_tags(&piece.key),
        "type": piece.values.value_type().name(),
        "times_ns": times,
        "values": values,
    })
}
