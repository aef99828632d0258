//! What one query may use: samples, series, memory, time. And how it is stopped.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::query::CancelToken;

/// How a query is evaluated and what it may use.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far back a selector looks for a sample, in nanoseconds. Default: 5 minutes.
    pub lookback: i64,
    /// Distance of the steps of a subquery that names none, in nanoseconds. Default: 1 minute.
    pub subquery_step: i64,
    /// Most samples that are read from the source. Default: 50 million, as Prometheus has it.
    pub samples_max: u64,
    /// Most series that are read from the source. Default: 1 million.
    pub series_max: u64,
    /// Most steps of a query or subquery. Default: 1 million.
    pub steps_max: usize,
    /// Most memory for series that are held at a time, in bytes, estimated. Default: 512 MiB.
    pub memory_max: u64,
    /// When the query fails. Default: never.
    pub deadline: Option<Deadline>,
    /// Fails the query soon after somebody cancels it. A source that reads the engine is given a clone of it too.
    pub cancel: CancelToken,
}

/// A time by which a query must be done.
#[derive(Clone, Debug)]
pub struct Deadline {
    /// The clock that is asked.
    pub clock: Arc<dyn Clock>,
    /// The monotonic time of `clock` from which on the query fails.
    pub at: Duration,
}

impl Deadline {
    fn has_passed(&self) -> bool {
        self.clock.monotonic() >= self.at
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            lookback: 300_000_000_000,
            subquery_step: 60_000_000_000,
            samples_max: 50_000_000,
            series_max: 1_000_000,
            steps_max: 1_000_000,
            memory_max: 512 << 20,
            deadline: None,
            cancel: CancelToken::new(),
        }
    }
}

/// What a query used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Samples read from the source.
    pub samples: u64,
    /// Series read from the source.
    pub series: u64,
    /// Most memory held for series at a time, in bytes, estimated.
    pub memory_peak: u64,
}

/// Counts what the query uses and fails it at a cap.
#[derive(Debug)]
pub(super) struct Budget<'o> {
    options: &'o Options,
    samples: Cell<u64>,
    series: Cell<u64>,
    /// Most series of one pass before.
    series_of_passes: Cell<u64>,
    memory: Cell<u64>,
    memory_peak: Cell<u64>,
    work: Cell<u64>,
}

/// Work between two looks at the clock, in values touched: some hundred microseconds.
const WORK_PER_CHECK: u64 = 1 << 17;

impl<'o> Budget<'o> {
    pub(super) fn new(options: &'o Options) -> Self {
        let zero = || Cell::new(0);
        Budget {
            options,
            samples: zero(),
            series: zero(),
            series_of_passes: zero(),
            memory: zero(),
            memory_peak: zero(),
            work: zero(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            samples: self.samples.get(),
            series: self.series.get().max(self.series_of_passes.get()),
            memory_peak: self.memory_peak.get(),
        }
    }

    /// The series that are read from here on may be the same again.
    pub(super) fn begin_pass(&self) {
        self.series_of_passes.set(self.series_of_passes.get().max(self.series.get()));
        self.series.set(0);
    }

    /// A series with this many samples was read.
    pub(super) fn read(&self, samples: usize) -> Result<()> {
        self.series.set(self.series.get() + 1);
        self.samples.set(self.samples.get() + samples as u64);
        if self.samples.get() > self.options.samples_max {
            return Err(over("samples_max", "samples", self.options.samples_max));
        }
        if self.series.get() > self.options.series_max {
            return Err(over("series_max", "series", self.options.series_max));
        }
        self.work(samples + 64)
    }

    /// This many values are about to be touched: looks at the clock now and then.
    pub(super) fn work(&self, values: usize) -> Result<()> {
        let work = self.work.get() + values as u64;
        if work < WORK_PER_CHECK {
            self.work.set(work);
            return Ok(());
        }
        self.work.set(0);
        self.check()
    }

    /// Fails when the query was cancelled or is late.
    pub(super) fn check(&self) -> Result<()> {
        if self.options.cancel.is_cancelled() {
            return Err(Error::cancelled("query was canceled in expression evaluation"));
        }
        if self.options.deadline.as_ref().is_some_and(Deadline::has_passed) {
            return Err(Error::cancelled("query timed out in expression evaluation"));
        }
        Ok(())
    }

    /// A number of steps that is in its cap.
    pub(super) fn steps(&self, count: i64) -> Result<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= self.options.steps_max => Ok(count),
            _ => Err(over("steps_max", "steps", self.options.steps_max as u64)),
        }
    }

    /// Holds memory until the guard is dropped.
    pub(super) fn hold(&self) -> Held<'_, 'o> {
        Held { budget: self, bytes: Cell::new(0) }
    }
}

#[cold]
fn over(option: &str, what: &str, cap: u64) -> Error {
    Error::limit_exceeded(format!(
        "query processing would load too many {what} into memory: more than {cap} ({option})"
    ))
}

/// Memory that is held; dropping it gives all of it back.
#[derive(Debug)]
pub(super) struct Held<'b, 'o> {
    budget: &'b Budget<'o>,
    bytes: Cell<u64>,
}

impl Held<'_, '_> {
    /// Adds `bytes` to it.
    pub(super) fn grow(&self, bytes: usize) -> Result<()> {
        let budget = self.budget;
        self.bytes.set(self.bytes.get() + bytes as u64);
        budget.memory.set(budget.memory.get() + bytes as u64);
        budget.memory_peak.set(budget.memory_peak.get().max(budget.memory.get()));
        if budget.memory.get() > budget.options.memory_max {
            return Err(over("memory_max", "bytes", budget.options.memory_max));
        }
        Ok(())
    }
}

impl Drop for Held<'_, '_> {
    fn drop(&mut self) {
        self.budget.memory.set(self.budget.memory.get() - self.bytes.get());
    }
}
