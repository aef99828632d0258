//! The arguments that verbs share: the database, and which samples of it.

use std::path::{Path, PathBuf};

use icecore::{Db, Options, Reader, Selector, TimeRange, Timestamp};

use crate::failure::{Failure, Outcome, usage};
use crate::time::parse_time;

/// Which database.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Database {
    /// The directory of the database.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: PathBuf,
}

/// Which times.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Times {
    /// From this time on: RFC 3339, a date, Unix seconds or milliseconds, `now`, or `-1h`.
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    from: Option<Timestamp>,
    /// Before this time.
    #[arg(long, value_name = "TIME", value_parser = parse_time, allow_hyphen_values = true)]
    to: Option<Timestamp>,
}

impl Times {
    /// Both ends as they were given.
    #[cfg(feature = "promql")]
    pub(crate) fn ends(self) -> (Option<Timestamp>, Option<Timestamp>) {
        (self.from, self.to)
    }

    /// The half-open range; what was not given is open.
    pub(crate) fn range(self) -> Outcome<TimeRange> {
        let range =
            TimeRange { start: self.from.unwrap_or(Timestamp::MIN), end: self.to.unwrap_or(Timestamp::MAX) };
        if range.is_empty() {
            return Err(Failure::Usage("--from is not before --to".to_owned()));
        }
        Ok(range)
    }
}

/// Reads a selector, such as `cpu{host=~"web.*"}`; `{}` is every series.
pub(crate) fn parse_selector(text: &str) -> Outcome<Selector> {
    text.parse().map_err(usage)
}

/// Opens a database that must be there, beside its writer or without one.
pub(crate) fn open_to_read(path: &Path) -> Outcome<Reader> {
    Ok(Db::open_reader(path)?)
}

/// Opens a database that must be there as its one writer, which does nothing by itself.
pub(crate) fn open_to_write(path: &Path) -> Outcome<Db> {
    let options = Options { create: false, compaction: false, ..Options::default() };
    Ok(Db::open_with(path, options)?)
}
