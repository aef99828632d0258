//! Limits of a query, how it is cancelled, and what it reports of its work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ledger::{Ledger, Reservation};
use crate::query::Damaged;

/// What a query may cost. A query that would cost more fails with `LimitExceeded`, and with `Cancelled`
/// when its time is over.
#[derive(Clone, Debug)]
pub struct QueryLimits {
    /// Most series that it may select.
    pub series_count_max: u64,
    /// Most samples that it may decode.
    pub sample_count_max: u64,
    /// Most memory that its answer may take while it is made, in bytes.
    pub memory_size_max: u64,
    /// Longest that it may run; `None` is for ever.
    pub duration_max: Option<Duration>,
}

impl Default for QueryLimits {
    /// 2 M series, 10 G samples, 1 GiB of answer, no end in time.
    fn default() -> Self {
        QueryLimits {
            series_count_max: 2_000_000,
            sample_count_max: 10_000_000_000,
            memory_size_max: 1 << 30,
            duration_max: None,
        }
    }
}

/// Cancels the queries that hold a clone of it, from any thread.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        CancelToken::default()
    }

    /// Makes the queries fail with `Cancelled` as soon as they look, a page later at most.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a query did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueryReport {
    /// Blocks and heads that were there.
    pub sources: u64,
    /// Of these, passed over by their time or their tags.
    pub sources_skipped: u64,
    /// Series that the selector chose.
    pub series: u64,
    /// Of these, left out because their type has no such answer (bytes have no sum).
    pub series_without_answer: u64,
    /// Pages of these series in the range of time.
    pub pages: u64,
    /// Pages passed over: wholly deleted, or none of their values can pass the filter.
    pub pages_skipped: u64,
    /// Pages answered by their stored aggregates.
    pub pages_aggregated: u64,
    /// Pages decoded.
    pub pages_decoded: u64,
    /// Samples decoded.
    pub samples_decoded: u64,
    /// Bytes of pages that were read to decode them.
    pub bytes_read: u64,
    /// Staleness markers met; they are left out of every aggregate.
    pub stale_markers: u64,
    /// Threads that worked.
    pub threads: u64,
    /// What the answer lacks because it is damaged; only when a partial answer was allowed.
    pub damaged: Vec<Damaged>,
}

impl QueryReport {
    /// Whether the answer may lack samples that are damaged.
    pub fn is_partial(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// Adds the work of another thread to this.
    pub(crate) fn add(&mut self, other: &QueryReport) {
        self.series_without_answer += other.series_without_answer;
        self.pages += other.pages;
        self.pages_skipped += other.pages_skipped;
        self.pages_aggregated += other.pages_aggregated;
        self.pages_decoded += other.pages_decoded;
        self.samples_decoded += other.samples_decoded;
        self.bytes_read += other.bytes_read;
        self.stale_markers += other.stale_markers;
        self.damaged.extend_from_slice(&other.damaged);
    }
}

/// The limits of one running query, shared by its threads.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: QueryLimits,
    cancel: CancelToken,
    env: Env,
    deadline: Option<Duration>,
    samples: AtomicU64,
    memory: AtomicU64,
    /// The same memory, as the database counts it.
    reservation: Reservation,
}

impl Budget {
    pub(crate) fn new(limits: QueryLimits, cancel: CancelToken, env: Env, ledger: Arc<Ledger>) -> Self {
        let deadline = limits.duration_max.map(|most| env.clock.monotonic().saturating_add(most));
        let reservation = Reservation::new(ledger);
        let (samples, memory) = (AtomicU64::new(0), AtomicU64::new(0));
        Budget { limits, cancel, env, deadline, samples, memory, reservation }
    }

    /// Looks at the token and, where there is a deadline, at the clock.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(Error::cancelled("the query was cancelled"));
        }
        match self.deadline {
            Some(deadline) if self.env.clock.monotonic() >= deadline => Err(Error::cancelled(format!(
                "the query took longer than duration_max ({:?})",
                self.limits.duration_max.unwrap_or_default()
            ))),
            _ => Ok(()),
        }
    }

    pub(crate) fn take_series(&self, count: u64) -> Result<()> {
        if count <= self.limits.series_count_max {
            return Ok(());
        }
        Err(Error::limit_exceeded(format!(
            "the query selects {count} series, more than series_count_max ({})",
            self.limits.series_count_max
        )))
    }

    pub(crate) fn take_samples(&self, count: u64) -> Result<()> {
        let total = self.samples.fetch_add(count, Ordering::Relaxed).saturating_add(count);
        if total <= self.limits.sample_count_max {
            return Ok(());
        }
        Err(Error::limit_exceeded(format!(
            "the query decodes more samples than sample_count_max ({})",
            self.limits.sample_count_max
        )))
    }

    pub(crate) fn take_memory(&self, size: u64) -> Result<()> {
        let total = self.memory.fetch_add(size, Ordering::Relaxed).saturating_add(size);
        if total <= self.limits.memory_size_max {
            return self.reservation.grow(usize::try_from(size).unwrap_or(usize::MAX));
        }
        Err(Error::limit_exceeded(format!(
            "the answer of the query takes more memory than memory_size_max ({} bytes)",
            self.limits.memory_size_max
        )))
    }
}
