//! `icecore inspect`: what lies in the directory: blocks, log, encodings, bytes a sample. Shows what it can of a damaged
//! database.

use std::io::Write;

use icecore::Env;
use icecore::inspect::{self, BlockInfo, EncodingUse, Inspection, SeriesUse};

use crate::failure::Outcome;
use crate::output::{Output, count, size, stdout};
use crate::select::{Database, parse_selector};
use crate::time::format_time;

/// Shows blocks, log, series, encodings and bytes a sample.
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    database: Database,
    /// Show what these series take in blocks, those with the most bytes of values first.
    #[arg(long, value_name = "SELECTOR", num_args = 0..=1, default_missing_value = "{}")]
    series: Option<String>,
    /// So many series.
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    top: usize,
}

/// Reads and prints.
pub(crate) fn run(arguments: &Inspect) -> Outcome {
    let root = &arguments.database.data;
    let selector = arguments.series.as_deref().map(parse_selector).transpose()?;
    let mut out = stdout();
    let found = inspect::read(&Env::system(), root)?;
    write_head(&mut out, &found)?;
    write_blocks(&mut out, &found.blocks)?;
    write_encodings(&mut out, &found.blocks)?;
    write_log(&mut out, &found)?;
    write_rest(&mut out, &found)?;
    if let Some(selector) = selector {
        let series = inspect::series(&Env::system(), root, &selector)?;
        write_series(&mut out, series, arguments.top)?;
    }
    Ok(out.flush()?)
}

fn write_head(out: &mut Output, found: &Inspection) -> Outcome {
    let id: String = found.database_id.iter().map(|byte| format!("{byte:02x}")).collect();
    let samples: u64 =
        found.blocks.iter().map(|block| block.sample_count).sum::<u64>() + found.log.sample_count;
    let state = if found.is_closed { "closed in order" } else { "open, or not closed in order" };
    writeln!(out, "database {id}, {state}; opened {} times for writing", count(found.incarnation))?;
    let disk = found.disk_size;
    let each = disk as f64 / samples.max(1) as f64;
    writeln!(out, "{} samples in {}: {each:.3} bytes a sample, all files", count(samples), size(disk))?;
    Ok(())
}

fn write_blocks(out: &mut Output, blocks: &[BlockInfo]) -> Outcome {
    writeln!(out, "\n{} blocks", blocks.len())?;
    for block in blocks {
        let each = block.size as f64 / block.sample_count.max(1) as f64;
        writeln!(
            out,
            "  {}  level {}  {} .. {}  {} series  {} samples  {}  {each:.3} bytes a sample",
            block.path.file_name().unwrap_or_default().to_string_lossy(),
            block.level,
            format_time(block.min_time),
            format_time(block.max_time),
            count(block.series_count),
            count(block.sample_count),
            size(block.size),
        )?;
        let named: u64 = block.parts.iter().map(|(_, size)| size).sum();
        let parts: Vec<String> = block
            .parts
            .iter()
            .map(|(name, bytes)| format!("{name} {}", size(*bytes)))
            .chain([format!("pages {}", size(block.size.saturating_sub(named)))])
            .collect();
        if !block.parts.is_empty() {
            writeln!(out, "    {}; LSN {} to {}", parts.join(", "), block.first_lsn, block.last_lsn)?;
        }
        if let Some(damage) = &block.damage {
            writeln!(out, "    DAMAGED: {damage}")?;
        }
    }
    Ok(())
}

fn write_encodings(out: &mut Output, blocks: &[BlockInfo]) -> Outcome {
    let mut sum: Vec<EncodingUse> = Vec::new();
    for used in blocks.iter().flat_map(|block| &block.encodings) {
        match sum.iter_mut().find(|own| own.name == used.name) {
            Some(own) => {
                own.page_count += used.page_count;
                own.sample_count += used.sample_count;
                own.size += used.size;
            }
            None => sum.push(*used),
        }
    }
    if sum.is_empty() {
        return Ok(());
    }
    sum.sort_by_key(|own| std::cmp::Reverse(own.size));
    writeln!(out, "\nencodings of values")?;
    for used in sum {
        let each = used.size as f64 / used.sample_count.max(1) as f64;
        let (pages, samples) = (count(used.page_count), count(used.sample_count));
        let bytes = size(used.size);
        writeln!(
            out,
            "  {:<20} {pages:>10} pages {samples:>14} samples {bytes:>12}  {each:.3} bytes a value",
            used.name
        )?;
    }
    let affine: u64 = blocks.iter().map(|block| block.affine_page_count).sum();
    let shared: u64 = blocks.iter().map(|block| block.shared_page_count).sum();
    writeln!(out, "times: {} pages are a start and a step, {} share a column", count(affine), count(shared))?;
    Ok(())
}

fn write_log(out: &mut Output, found: &Inspection) -> Outcome {
    let log = &found.log;
    writeln!(
        out,
        "\nlog: {} segments; {} frames with {} samples that are not in blocks; cut at LSN {}, last {}",
        log.segments.len(),
        count(log.frame_count),
        count(log.sample_count),
        found.cut,
        log.last_lsn,
    )?;
    for (path, bytes, last_lsn) in &log.segments {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        writeln!(out, "  {file}  {}  up to LSN {last_lsn}", size(*bytes))?;
    }
    if let Some((path, offset, reason)) = &log.torn {
        writeln!(out, "  ends at byte {offset} of {}: {reason}", path.display())?;
    }
    if let Some(damage) = &log.damage {
        writeln!(out, "  DAMAGED: {damage}")?;
    }
    Ok(())
}

fn write_rest(out: &mut Output, found: &Inspection) -> Outcome {
    for (lsn, selector, range) in &found.tombstones {
        let (start, end) = (format_time(range.start), format_time(range.end));
        writeln!(out, "deleted before LSN {lsn}: {selector} from {start} to {end}")?;
    }
    for (path, reason) in &found.quarantined {
        writeln!(out, "QUARANTINE: {}: {reason}", path.display())?;
    }
    if found.metadata_count > 0 {
        writeln!(out, "{} metrics have metadata", count(found.metadata_count))?;
    }
    Ok(())
}

fn write_series(out: &mut Output, mut series: Vec<SeriesUse>, top: usize) -> Outcome {
    series.sort_by_key(|own| std::cmp::Reverse(own.value_size));
    writeln!(out, "\n{} series in blocks", count(series.len() as u64))?;
    for own in series.iter().take(top) {
        let each = own.value_size as f64 / own.sample_count.max(1) as f64;
        let (samples, bytes) = (count(own.sample_count), size(own.value_size));
        let name = own.value_type.name();
        writeln!(
            out,
            "  {bytes:>12}  {samples:>12} samples  {each:.3} bytes a value  {name:<5}  {}",
            own.key
        )?;
    }
    Ok(())
}
