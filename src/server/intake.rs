//! The way of a request's samples into the database: collected, counted, written in parts that fit the log.
//!
//! Every handler that takes samples fills an [`Intake`] and commits it once the whole request is read, so that a request
//! that turns out to be malformed has stored nothing. What is refused alone is counted here with the first reasons.

use std::fmt::Write as _;
use std::time::Duration;

use crate::db::{Batch, Db};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SeriesKey, Timestamp, ValueRef};

/// Size at which a part of a request is closed, in bytes: with the definitions of its series it stays well below the
/// largest record of the log.
const PART_SIZE_MAX: usize = 4 << 20;
/// How many reasons of refusals are kept word by word.
const REASON_COUNT_MAX: usize = 10;
/// What a sample takes in a record besides the key of its series.
const SAMPLE_SIZE: usize = 24;

/// How far ahead of the server's clock a sample may be, unless told otherwise.
pub(super) const TIME_AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);

/// What was refused, and why.
#[derive(Debug, Default)]
pub(super) struct Refused {
    /// How many samples, series or lines, as the protocol counts.
    pub(super) count: u64,
    /// Whether a limit was among the reasons: the same data may be taken later.
    pub(super) by_limit: bool,
    reasons: Vec<String>,
}

impl Refused {
    /// Counts one.
    pub(super) fn add(&mut self, error: &Error) {
        self.count += 1;
        self.by_limit |= error.kind() == ErrorKind::LimitExceeded;
        if self.reasons.len() < REASON_COUNT_MAX {
            self.reasons.push(error.to_string());
        }
    }

    /// How many and why, in one line; `what` says what is counted.
    pub(super) fn summary(&self, what: &str) -> String {
        let mut text = format!("{} {what} refused: {}", self.count, self.reasons.join("; "));
        let more = self.count.saturating_sub(self.reasons.len() as u64);
        if more > 0 {
            let _ = write!(text, "; and {more} more");
        }
        text
    }
}

/// The samples of one request.
#[derive(Debug)]
pub(super) struct Intake {
    parts: Vec<Batch<'static>>,
    size: usize,
    now: Timestamp,
    time_max: Timestamp,
    /// Samples taken in.
    pub(super) taken: u64,
    /// What was refused alone.
    pub(super) refused: Refused,
}

impl Intake {
    /// Nothing yet; `now` is the time of receipt.
    pub(super) fn new(now: Timestamp) -> Self {
        Intake {
            parts: vec![Batch::new()],
            size: 0,
            now,
            time_max: time_max(now),
            taken: 0,
            refused: Refused::default(),
        }
    }

    /// The time of receipt.
    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    /// Takes a sample of the series with this name and these tags, in any order.
    ///
    /// # Errors
    /// `InvalidInput` for what is no series, and for times that no sample has or that are too far ahead. It is not
    /// counted as refused.
    pub(super) fn put(
        &mut self,
        name: &str,
        tags: &[(&str, &str)],
        time: Timestamp,
        value: ValueRef<'_>,
    ) -> Result<()> {
        check_time(time, self.time_max)?;
        let tags_size: usize = tags.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        self.part(name.len() + tags_size + value_size(value)).push_named(name, tags, time, value)?;
        self.taken += 1;
        Ok(())
    }

    /// As [`Intake::put`], by key.
    ///
    /// # Errors
    /// As [`Intake::put`].
    pub(super) fn put_key(&mut self, key: &SeriesKey, time: Timestamp, value: ValueRef<'_>) -> Result<()> {
        check_time(time, self.time_max)?;
        self.part(key.as_bytes().len() + value_size(value)).push_key(key, time, value)?;
        self.taken += 1;
        Ok(())
    }

    /// The part that has room for a sample of `size` bytes.
    fn part(&mut self, size: usize) -> &mut Batch<'static> {
        if self.size + size + SAMPLE_SIZE > PART_SIZE_MAX && self.size > 0 {
            self.parts.push(Batch::new());
            self.size = 0;
        }
        self.size += size + SAMPLE_SIZE;
        let last = self.parts.len() - 1;
        &mut self.parts[last]
    }

    /// Writes everything with the durability of the database. When it returns, all of it is in the log.
    ///
    /// # Errors
    /// As [`Db::write`]. Of a request of several parts those before the failing one are stored; sending it again is
    /// safe.
    pub(super) fn commit(&mut self, db: &Db) -> Result<()> {
        for part in &mut self.parts {
            if !part.is_empty() {
                db.write(part)?;
            }
        }
        Ok(())
    }
}

/// The latest time that a sample may have at `now`.
pub(super) fn time_max(now: Timestamp) -> Timestamp {
    now.saturating_add(i64::try_from(TIME_AHEAD_MAX.as_nanos()).unwrap_or(i64::MAX))
}

/// Whether a sample may lie at `time`.
///
/// # Errors
/// `InvalidInput` when it may not.
pub(super) fn check_time(time: Timestamp, time_max: Timestamp) -> Result<()> {
    if time <= time_max && time.is_sample_time() {
        return Ok(());
    }
    Err(Error::invalid_input(format!(
        "time {time} ns is more than {} hours ahead of the server's clock, or out of range",
        TIME_AHEAD_MAX.as_secs() / 3600
    )))
}

fn value_size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::memory_db;
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_704_067_200);

    #[test]
    fn large_requests_are_written_in_parts() {
        let db = memory_db();
        let mut intake = Intake::new(NOW);
        let value = "v".repeat(1000);
        for index in 0..10_000 {
            let host = index.to_string();
            intake.put("up", &[("host", &host), ("pad", &value)], NOW, ValueRef::F64(1.0)).unwrap();
        }
        assert!(intake.parts.len() > 2);
        intake.commit(&db).unwrap();
        assert_eq!(db.query("up").series().unwrap().len(), 10_000);
        assert_eq!(intake.taken, 10_000);
    }

    #[test]
    fn samples_far_ahead_are_refused() {
        let mut intake = Intake::new(NOW);
        let edge = time_max(NOW);
        intake.put("up", &[], edge, ValueRef::F64(1.0)).unwrap();
        let late = intake.put("up", &[], edge.saturating_add(1), ValueRef::F64(1.0)).unwrap_err();
        assert!(late.to_string().contains("24 hours ahead"), "{late}");
        assert!(intake.put("up", &[], Timestamp::MIN, ValueRef::F64(1.0)).is_err());
        assert!(intake.put("", &[], NOW, ValueRef::F64(1.0)).is_err());
        assert_eq!(intake.taken, 1);
    }

    #[test]
    fn the_first_reasons_are_kept() {
        let mut refused = Refused::default();
        for index in 0..12 {
            refused.add(&Error::invalid_input(format!("line {index}")));
        }
        let summary = refused.summary("lines");
        assert!(summary.starts_with("12 lines refused: line 0; line 1;"), "{summary}");
        assert!(summary.ends_with("line 9; and 2 more"), "{summary}");
        assert!(!refused.by_limit);
        refused.add(&Error::limit_exceeded("full"));
        assert!(refused.by_limit);
    }
}
