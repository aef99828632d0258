//! The way of a request's samples into the database: collected, counted, written in parts that fit the log.
//!
//! Every handler that takes samples fills an [`Intake`] and commits it once the whole request is read, so that a request
//! that turns out to be malformed has stored nothing. What is refused alone is counted here with the first reasons.

use std::fmt::Write as _;
use std::time::Duration;

use super::Frame;
use super::budget::Reservation;
use crate::db::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SeriesKey, Timestamp, ValueRef};

/// Size at which a part of a request is closed, in bytes: with the definitions of its series it stays well below the
/// largest record of the log.
const PART_SIZE_MAX: usize = 4 << 20;
/// How many reasons of refusals are kept word by word.
const REASON_COUNT_MAX: usize = 10;
/// What a sample takes in a record besides the key of its series.
const SAMPLE_SIZE: usize = 24;
/// What a sample takes in memory besides its key: in the columns, and where the key lies.
const HELD_SIZE: usize = 64;
/// Memory is reserved in steps of this size, in bytes.
const RESERVED_STEP: usize = 1 << 20;

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
    times: Times,
    /// `None` for what the server writes itself.
    room: Option<Room>,
    /// Samples taken in.
    pub(super) taken: u64,
    /// What was refused alone.
    pub(super) refused: Refused,
}

impl Intake {
    /// Nothing yet, for what the server writes itself; `now` is the time of receipt.
    pub(super) fn new(frame: &Frame, now: Timestamp) -> Self {
        Intake {
            parts: vec![Batch::new()],
            size: 0,
            now,
            times: Times::new(frame, now),
            room: None,
            taken: 0,
            refused: Refused::default(),
        }
    }

    /// Nothing yet, for a request: within the limits of one and the memory of all.
    pub(super) fn of_request(frame: &Frame, now: Timestamp) -> Self {
        Intake { room: Some(Room::new(frame)), ..Intake::new(frame, now) }
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
        self.times.check(time)?;
        let tags_size: usize = tags.iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        let size = name.len() + tags_size + value_size(value);
        self.room.as_mut().map_or(Ok(()), |room| room.take(1, size + HELD_SIZE))?;
        self.part(size).push_named(name, tags, time, value)?;
        self.taken += 1;
        Ok(())
    }

    /// As [`Intake::put`], by key.
    ///
    /// # Errors
    /// As [`Intake::put`].
    pub(super) fn put_key(&mut self, key: &SeriesKey, time: Timestamp, value: ValueRef<'_>) -> Result<()> {
        self.times.check(time)?;
        let size = key.as_bytes().len() + value_size(value);
        self.room.as_mut().map_or(Ok(()), |room| room.take(1, size + HELD_SIZE))?;
        self.part(size).push_key(key, time, value)?;
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
    /// As [`Db::write`](crate::Db::write); of a request of several parts those before the failing one are stored, and
    /// sending it again is safe. What [`Room::take`] refused, before anything is stored.
    pub(super) fn commit(&mut self, frame: &Frame) -> Result<()> {
        self.room.as_ref().map_or(Ok(()), Room::check)?;
        let db = &frame.db;
        for part in &mut self.parts {
            if !part.is_empty() {
                db.write(part)?;
            }
        }
        Ok(())
    }
}

/// Room for the samples of one request: how many, and in the memory of all requests.
#[derive(Debug)]
pub(super) struct Room {
    reservation: Reservation,
    reserved: usize,
    used: usize,
    count: usize,
    count_max: usize,
    /// What was refused first; then the whole request is.
    refusal: Option<Error>,
}

impl Room {
    pub(super) fn new(frame: &Frame) -> Self {
        Room {
            reservation: frame.budget.reservation(),
            reserved: 0,
            used: 0,
            count: 0,
            count_max: frame.options.limits.sample_count_max,
            refusal: None,
        }
    }

    /// Takes room for `count` samples of `size` bytes together.
    ///
    /// # Errors
    /// `InvalidInput` for more samples than a request may have, which no sender is to try again; `Busy` for more memory
    /// than is left. From then on all is refused.
    #[inline]
    pub(super) fn take(&mut self, count: usize, size: usize) -> Result<()> {
        self.count = self.count.saturating_add(count);
        self.used = self.used.saturating_add(size);
        if self.count <= self.count_max && self.used <= self.reserved {
            return Ok(());
        }
        self.grow()
    }

    #[cold]
    fn grow(&mut self) -> Result<()> {
        self.check()?;
        let wanted = (self.used - self.reserved.min(self.used)).next_multiple_of(RESERVED_STEP);
        let grown = if self.count > self.count_max {
            Err(Error::invalid_input(format!(
                "one request holds more than {} samples (--request-sample-count-max); send it in parts",
                self.count_max
            )))
        } else {
            self.reservation.grow(wanted)
        };
        match grown {
            Ok(()) => self.reserved += wanted,
            Err(error) => self.refusal = Some(error),
        }
        self.check()
    }

    /// Whether everything was taken.
    ///
    /// # Errors
    /// As [`Room::take`].
    pub(super) fn check(&self) -> Result<()> {
        self.refusal.as_ref().map_or(Ok(()), |error| Err(error.repeat()))
    }
}

/// Which times samples may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    latest: Timestamp,
    ahead_max: Duration,
}

impl Times {
    /// Those of what is received at `now`.
    pub(super) fn new(frame: &Frame, now: Timestamp) -> Self {
        let ahead_max = frame.options.limits.time_ahead_max;
        let latest = now.saturating_add(i64::try_from(ahead_max.as_nanos()).unwrap_or(i64::MAX));
        Times { latest, ahead_max }
    }

    /// Whether a sample may lie at `time`.
    ///
    /// # Errors
    /// `InvalidInput` when it may not.
    #[inline]
    pub(super) fn check(&self, time: Timestamp) -> Result<()> {
        if time <= self.latest && time.is_sample_time() {
            return Ok(());
        }
        Err(self.refused(time))
    }

    #[cold]
    fn refused(&self, time: Timestamp) -> Error {
        Error::invalid_input(format!(
            "time {time} ns is more than {} hours ahead of the server's clock (--time-ahead-max), or out of range",
            self.ahead_max.as_secs_f64() / 3600.0
        ))
    }
}

fn value_size(value: ValueRef<'_>) -> usize {
    match value {
        ValueRef::Bytes(bytes) => bytes.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::memory_db;
    use super::super::{Limits, Options};
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_704_067_200);

    fn frame(limits: Limits) -> Arc<Frame> {
        Frame::new(Options { statsd: None, limits, ..Options::default() }, memory_db())
    }

    #[test]
    fn a_request_over_its_room_stores_nothing() {
        let limits = Limits { sample_count_max: 3, ..Limits::default() };
        let tight = Limits { bodies_size_max: RESERVED_STEP, ..Limits::default() };
        for (limits, count, reason) in [
            (limits, 4, "more than 3 samples (--request-sample-count-max)"),
            (tight, RESERVED_STEP / (HELD_SIZE + "up".len()) + 1, "--bodies-size-max"),
        ] {
            let frame = frame(limits);
            let mut intake = Intake::of_request(&frame, NOW);
            let put = |intake: &mut Intake, n: usize| {
                let time = NOW.saturating_add(i64::try_from(n).unwrap());
                intake.put("up", &[], time, ValueRef::F64(1.0))
            };
            (1..count).for_each(|n| put(&mut intake, n).unwrap());
            assert!(put(&mut intake, count).unwrap_err().to_string().contains(reason));
            assert!(put(&mut intake, count).is_err(), "it stays so");
            assert!(intake.commit(&frame).unwrap_err().to_string().contains(reason));
            assert!(frame.db.query("up").series().unwrap().is_empty());
            drop(intake);
            assert_eq!(frame.budget.used(), 0);
        }
    }

    #[test]
    fn large_requests_are_written_in_parts() {
        let frame = frame(Limits::default());
        let mut intake = Intake::of_request(&frame, NOW);
        let value = "v".repeat(1000);
        for index in 0..10_000 {
            let host = index.to_string();
            intake.put("up", &[("host", &host), ("pad", &value)], NOW, ValueRef::F64(1.0)).unwrap();
        }
        assert!(intake.parts.len() > 2);
        intake.commit(&frame).unwrap();
        assert_eq!(frame.db.query("up").series().unwrap().len(), 10_000);
        assert_eq!(intake.taken, 10_000);
    }

    #[test]
    fn samples_far_ahead_are_refused() {
        let frame = frame(Limits::default());
        let mut intake = Intake::new(&frame, NOW);
        let edge = NOW.saturating_add(24 * 3_600_000_000_000);
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
