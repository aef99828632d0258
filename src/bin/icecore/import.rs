//! `icecore import`: files of samples into a database; what cannot be taken is written to a file with line and reason.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::fs::File;
use std::io::{BufRead, BufWriter, Write};
use std::path::{Path, PathBuf};

use icecore::protocol::csv::{Mapping, Row, Rows, TimeUnit};
use icecore::protocol::exposition::{Entry, Format, Lines, Sample};
use icecore::{Batch, Db, ErrorKind, Metadata, Series, SeriesKey, Timestamp, ValueRef, ValueType};

use crate::failure::{Failure, Outcome, in_file};
use crate::input::{self, Input, Position};
use crate::interrupt;
use crate::output::count;
use crate::progress::Progress;
use crate::select::Database;
use crate::time::parse_time;

/// Samples of one batch.
const BATCH_SAMPLE_COUNT: usize = 20_000;
/// Text formats are read in parts of this size, cut behind a line.
const PART_SIZE: usize = 1 << 20;
/// A longer line is no text format.
const LINE_SIZE_MAX: usize = 16 << 20;

/// Reads CSV, Prometheus and OpenMetrics files into a database, which is made if it is not there.
#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    #[command(flatten)]
    database: Database,
    /// Files to read, gzip or not; `-` is standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What the files are. Default: by their names; `.csv`, `.om` or `.openmetrics`, else Prometheus text.
    #[arg(long)]
    format: Option<FileFormat>,
    /// Where rejected lines go. Default: `<file>.rejects` here, made with the first one.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// The time of text samples that have none.
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    at: Option<Timestamp>,
    #[command(flatten)]
    columns: ColumnArguments,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FileFormat {
    Csv,
    Prometheus,
    Openmetrics,
}

/// Which columns of a CSV file hold what. Without any of these: `series,tags,timestamp_ms,value`.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns of CSV files")]
struct ColumnArguments {
    /// The column with the time.
    #[arg(long, value_name = "COLUMN")]
    time: Option<String>,
    /// How the time is written: s, ms, us, ns or rfc3339.
    #[arg(long, value_name = "UNIT", value_parser = time_unit)]
    time_unit: Option<TimeUnit>,
    /// The column with the name of the metric. Without it the value columns are the names.
    #[arg(long, value_name = "COLUMN")]
    name: Option<String>,
    /// A column with tags as `key=value`, joined by `;`; a `;` inside a value is written `\;`.
    #[arg(long, value_name = "COLUMN")]
    packed_tags: Option<String>,
    /// A column that is a tag; its name is the key. Can be given again.
    #[arg(long, value_name = "COLUMN")]
    tag: Vec<String>,
    /// A column with values. Can be given again.
    #[arg(long, value_name = "COLUMN")]
    value: Vec<String>,
    /// A column with values that are whole numbers, kept as 64-bit integers. Can be given again.
    #[arg(long, value_name = "COLUMN")]
    integer: Vec<String>,
    /// Put before every name.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// The byte between fields; `tab` for a tab.
    #[arg(long, value_name = "BYTE", default_value = ",", value_parser = delimiter)]
    delimiter: u8,
}

fn time_unit(text: &str) -> Result<TimeUnit, String> {
    TimeUnit::from_name(text).ok_or_else(|| "give s, ms, us, ns or rfc3339".to_owned())
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("give one byte, or tab".to_owned()),
    }
}

impl ColumnArguments {
    /// The mapping for a file that starts with `header`: our own form unless columns are named, and its time in
    /// nanoseconds where the header says so, as `icecore export` writes it.
    fn mapping(&self, header: &str) -> Mapping {
        let own = Mapping::default();
        let in_nanos = self.time.is_none() && header.split(',').any(|name| name.trim() == "timestamp_ns");
        let own_time = if in_nanos {
            ("timestamp_ns".to_owned(), TimeUnit::Nanoseconds)
        } else {
            (own.time, own.time_unit)
        };
        let own_value = self.value.is_empty() && self.integer.iter().all(|name| own.values.contains(name));
        let named = self.name.is_some() || !own_value || !self.tag.is_empty() || self.packed_tags.is_some();
        let mut values = self.value.clone();
        values.extend(self.integer.iter().filter(|name| !self.value.contains(name)).cloned());
        Mapping {
            time: self.time.clone().unwrap_or(own_time.0),
            time_unit: self.time_unit.unwrap_or(own_time.1),
            name: if named { self.name.clone() } else { own.name },
            packed_tags: if named { self.packed_tags.clone() } else { own.packed_tags },
            tags: self.tag.clone(),
            values: if own_value { own.values } else { values },
            integers: self.integer.clone(),
            prefix: self.prefix.clone(),
            delimiter: self.delimiter,
        }
    }
}

/// Imports every file, one after the other.
pub(crate) fn run(arguments: &Import, quiet: bool) -> Outcome {
    let db = Db::open(&arguments.database.data)?;
    let mut rejected = 0;
    for path in &arguments.files {
        let mut import = Importer::new(&db, arguments, path, quiet)?;
        let outcome = import.file();
        // What was read before a failure stays, and is said.
        let written = import.write();
        import.tell(quiet);
        outcome.and(written)?;
        rejected += import.rejects.count;
    }
    db.close()?;
    if rejected > 0 && !quiet {
        eprintln!("{} lines were rejected", count(rejected));
    }
    Ok(())
}

fn format_of(path: &Path) -> FileFormat {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit('.').next() {
        Some("csv" | "tsv") => FileFormat::Csv,
        Some("om" | "openmetrics") => FileFormat::Openmetrics,
        _ if name == "-" => FileFormat::Csv,
        _ => FileFormat::Prometheus,
    }
}

/// One file on its way into a database.
struct Importer<'a> {
    arguments: &'a Import,
    path: &'a Path,
    reader: Option<Box<dyn BufRead>>,
    position: Position,
    progress: Option<Progress>,
    target: Target<'a>,
    rejects: Rejects,
}

impl<'a> Importer<'a> {
    fn new(db: &'a Db, arguments: &'a Import, path: &'a Path, quiet: bool) -> Outcome<Self> {
        let Input { reader, size, position } = input::open(path)?;
        Ok(Importer {
            arguments,
            path,
            reader: Some(reader),
            position,
            progress: Some(Progress::new(path.display().to_string(), size, "samples", quiet)),
            target: Target {
                db,
                handles: Vec::new(),
                numbers: HashMap::new(),
                pending: Vec::new(),
                samples: 0,
                repeats: 0,
                last: None,
            },
            rejects: Rejects::new(arguments.rejects.clone(), path),
        })
    }

    fn file(&mut self) -> Outcome {
        let Some(reader) = self.reader.take() else { return Ok(()) };
        match self.arguments.format.unwrap_or_else(|| format_of(self.path)) {
            FileFormat::Csv => self.csv(reader),
            FileFormat::Prometheus => self.text(reader, Format::Text),
            FileFormat::Openmetrics => self.text(reader, Format::OpenMetrics),
        }
    }

    fn csv(&mut self, mut reader: Box<dyn BufRead>) -> Outcome {
        let start = reader.fill_buf().map_err(|error| in_file("read", self.path, &error))?;
        let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mapping = self.arguments.columns.mapping(&String::from_utf8_lossy(line));
        let mut rows = Rows::new(reader, mapping).map_err(|error| self.named(&error))?;
        let mut numbers = Vec::new();
        loop {
            match rows.next_row() {
                Err(error) => return Err(self.named(&error)),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => self.rejects.add(error.line, &error.reason)?,
                Ok(Some(Ok(row))) => {
                    let (target, rejects) = (&mut self.target, &mut self.rejects);
                    csv_row(&row, target, &mut numbers, rejects)?;
                    self.write_if_full()?;
                }
            }
        }
    }

    fn text(&mut self, mut reader: Box<dyn BufRead>, format: Format) -> Outcome {
        let mut part = Vec::new();
        let mut line = 1;
        let mut descriptions = HashMap::new();
        loop {
            let ended =
                read_part(&mut reader, &mut part).map_err(|error| in_file("read", self.path, &error))?;
            let whole = if ended {
                part.len()
            } else {
                part.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
            };
            if whole == 0 && !ended {
                if part.len() > LINE_SIZE_MAX {
                    return Err(Failure::Failed(format!("{}: line {line} has no end", self.path.display())));
                }
                continue;
            }
            let mut lines = Lines::from_line(part.get(..whole).unwrap_or_default(), format, line);
            while let Some(entry) = lines.next() {
                match entry {
                    Ok(entry) => self.entry(entry, lines.line() as u64, &mut descriptions)?,
                    Err(error) => self.rejects.add(error.line as u64, &error.reason)?,
                }
            }
            line = lines.line() + 1;
            part.drain(..whole);
            if ended {
                break;
            }
        }
        for (name, metadata) in descriptions {
            self.target.db.set_metadata(&name, metadata)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        entry: Entry<'_>,
        line: u64,
        descriptions: &mut HashMap<String, Metadata>,
    ) -> Outcome {
        match entry {
            Entry::Sample(sample) => {
                self.sample(&sample, line)?;
                self.write_if_full()?;
            }
            Entry::Kind(name, kind) => describe(descriptions, &name).kind = kind,
            Entry::Help(name, help) => describe(descriptions, &name).help = help.into_owned(),
            Entry::Unit(name, unit) => describe(descriptions, &name).unit = unit.into_owned(),
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>, line: u64) -> Outcome {
        let Some(time) = sample.timestamp.or(self.arguments.at) else {
            return self.rejects.add(line, "the sample has no time; give one with --at");
        };
        let tags = sample.tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        match self.target.number(SeriesKey::new(&sample.name, tags), ValueType::F64)? {
            Ok(number) => self.target.push(number, time, ValueRef::F64(sample.value)),
            Err(reason) => self.rejects.add(line, &reason)?,
        }
        Ok(())
    }

    fn write_if_full(&mut self) -> Outcome {
        if self.target.pending.len() < BATCH_SAMPLE_COUNT { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Outcome {
        self.target.write()?;
        if let Some(progress) = &mut self.progress {
            progress.set(self.position.get(), self.target.samples);
        }
        interrupt::check()
    }

    fn named(&self, error: &icecore::Error) -> Failure {
        Failure::Failed(format!("{}: {error}", self.path.display()))
    }

    fn tell(&mut self, quiet: bool) {
        if let Some(progress) = self.progress.take() {
            progress.finish(self.target.samples);
        }
        if quiet {
            return;
        }
        eprintln!("  {} series", count(self.target.handles.len() as u64));
        if self.target.repeats > 0 {
            let repeats = count(self.target.repeats);
            eprintln!(
                "  {repeats} samples have the time of the one before them in their series; the later one counts"
            );
        }
        if self.rejects.count > 0 {
            eprintln!("  {} lines rejected, see {}", count(self.rejects.count), self.rejects.path.display());
        }
    }
}

/// The description of `name`, an empty one at first.
fn describe<'m>(descriptions: &'m mut HashMap<String, Metadata>, name: &str) -> &'m mut Metadata {
    descriptions.entry(name.to_owned()).or_default()
}

/// Adds some bytes to `part`; whether the file has ended.
fn read_part(reader: &mut Box<dyn BufRead>, part: &mut Vec<u8>) -> std::io::Result<bool> {
    let wanted = part.len() + PART_SIZE;
    while part.len() < wanted {
        let found = reader.fill_buf()?;
        if found.is_empty() {
            return Ok(true);
        }
        part.extend_from_slice(found);
        let size = found.len();
        reader.consume(size);
    }
    Ok(false)
}

/// Takes a row. `numbers` holds, for the series of the last row that was taken, those of its value columns.
fn csv_row(
    row: &Row<'_>,
    target: &mut Target<'_>,
    numbers: &mut Vec<Option<usize>>,
    rejects: &mut Rejects,
) -> Outcome {
    if row.series_changed {
        numbers.clear();
    }
    for (column, value) in row.samples() {
        if numbers.len() <= column {
            numbers.resize(column + 1, None);
        }
        let number = match numbers.get(column).copied().flatten() {
            Some(number) => number,
            None => match target
                .number(SeriesKey::new(&row.metric_name(column), row.tags()), value.value_type())?
            {
                Ok(number) => number,
                Err(reason) => {
                    rejects.add(row.line, &reason)?;
                    continue;
                }
            },
        };
        if let Some(slot) = numbers.get_mut(column) {
            *slot = Some(number);
        }
        target.push(number, row.time, value);
    }
    Ok(())
}

/// A series of one of the types that files have.
enum Handle {
    Double(Series<f64>),
    Integer(Series<i64>),
}

/// Where samples go: series by number, and a batch that fills.
struct Target<'a> {
    db: &'a Db,
    handles: Vec<Handle>,
    numbers: HashMap<(SeriesKey, ValueType), usize>,
    pending: Vec<(usize, Timestamp, ValueRef<'static>)>,
    samples: u64,
    repeats: u64,
    last: Option<(usize, Timestamp)>,
}

impl Target<'_> {
    /// The number of a series; or why it cannot be one, which concerns its lines only.
    fn number(
        &mut self,
        key: icecore::Result<SeriesKey>,
        value_type: ValueType,
    ) -> Outcome<Result<usize, String>> {
        let key = match key {
            Ok(key) => key,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let slot = match self.numbers.entry((key, value_type)) {
            Slot::Occupied(known) => return Ok(Ok(*known.get())),
            Slot::Vacant(slot) => slot,
        };
        let key = &slot.key().0;
        let handle = match value_type {
            ValueType::I64 => self.db.series_of_key(key).map(Handle::Integer),
            _ => self.db.series_of_key(key).map(Handle::Double),
        };
        match handle {
            Ok(handle) => {
                self.handles.push(handle);
                Ok(Ok(*slot.insert(self.handles.len() - 1)))
            }
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    fn push(&mut self, number: usize, time: Timestamp, value: ValueRef<'static>) {
        self.repeats += u64::from(self.last == Some((number, time)));
        self.last = Some((number, time));
        self.pending.push((number, time, value));
    }

    fn write(&mut self) -> Outcome {
        let mut batch = Batch::new();
        for (number, time, value) in &self.pending {
            match (self.handles.get(*number), *value) {
                (Some(Handle::Double(series)), ValueRef::F64(value)) => batch.push(series, *time, value)?,
                (Some(Handle::Integer(series)), ValueRef::I64(value)) => batch.push(series, *time, value)?,
                _ => {}
            }
        }
        self.db.write(&mut batch)?;
        self.samples += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// The file of rejected lines, made with the first.
struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
    source: String,
    is_named: bool,
}

impl Rejects {
    fn new(path: Option<PathBuf>, source: &Path) -> Self {
        let is_named = path.is_some();
        let name = source.file_name().map_or_else(|| "stdin".into(), |name| name.to_string_lossy());
        let path = path.unwrap_or_else(|| {
            PathBuf::from(format!("{}.rejects", if name == "-" { "stdin" } else { &name }))
        });
        Rejects { path, file: None, count: 0, source: source.display().to_string(), is_named }
    }

    fn add(&mut self, line: u64, reason: &str) -> Outcome {
        let failed = |error: std::io::Error| in_file("write", &self.path, &error);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = File::options();
                // A file that was asked for by name may hold the rejects of another input.
                match self.is_named {
                    true => options.create(true).append(true),
                    false => options.create(true).write(true).truncate(true),
                };
                let file = options.open(&self.path).map_err(failed)?;
                self.file.insert(BufWriter::new(file))
            }
        };
        writeln!(file, "{}: line {line}: {reason}", self.source).map_err(failed)?;
        self.count += 1;
        Ok(())
    }
}
