//! Work that reads the database for a client: on a thread of its own, a bounded number at a time, with a deadline, and
//! cancelled as soon as the client goes.
//!
//! Threads of the runtime serve sockets and must never wait for an evaluation. When a client closes its connection hyper
//! drops the handler, which cancels the ticket of its work; the work itself notices within a page or some thousand values.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Frame;
use crate::clock::Clock;
use crate::model::Selector;
use crate::promql::Deadline;
use crate::query::{CancelToken, Query, QueryLimits};

/// How work is stopped: by a client that goes, or by time.
#[derive(Clone, Debug)]
pub(super) struct Ticket {
    /// Cancelled when the client has gone.
    pub(super) cancel: CancelToken,
    /// When it has to be done.
    pub(super) deadline: Deadline,
    /// How long it waited for its turn.
    pub(super) queued: Duration,
}

impl Ticket {
    /// Time since some fixed point.
    pub(super) fn now(&self) -> Duration {
        self.deadline.clock.monotonic()
    }

    /// What a query may cost in the time that is left.
    pub(super) fn limits(&self, frame: &Frame) -> QueryLimits {
        QueryLimits {
            duration_max: Some(self.deadline.at.saturating_sub(self.now())),
            sample_count_max: frame.options.limits.query_sample_count_max,
            memory_size_max: frame.options.limits.query_memory_max,
            ..QueryLimits::default()
        }
    }

    /// `query`, stopped as this ticket says.
    pub(super) fn stop(&self, query: Query, frame: &Frame) -> Query {
        query.limits(self.limits(frame)).cancel(self.cancel.clone())
    }
}

/// Why work did not run, or not to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotRun {
    /// Its time was over before its turn came.
    Queue,
    /// It panicked.
    Panic,
}

impl NotRun {
    /// Its word among the types of errors.
    pub(super) fn kind(self) -> &'static str {
        match self {
            NotRun::Queue => "timeout",
            NotRun::Panic => "internal",
        }
    }
}

/// The kinds of failures that are counted.
const KINDS: [&str; 7] =
    ["bad_data", "canceled", "execution", "internal", "not_found", "timeout", "unavailable"];

/// How many are at work, and what became of those before.
#[derive(Debug)]
pub(super) struct Readings {
    turns: Arc<Semaphore>,
    count_max: usize,
    done: AtomicU64,
    failed: [AtomicU64; KINDS.len()],
    nanos: AtomicU64,
}

impl Readings {
    /// At most `count_max` at a time.
    pub(super) fn new(count_max: usize) -> Self {
        let count_max = count_max.clamp(1, Semaphore::MAX_PERMITS);
        Readings {
            turns: Arc::new(Semaphore::new(count_max)),
            count_max,
            done: AtomicU64::new(0),
            failed: Default::default(),
            nanos: AtomicU64::new(0),
        }
    }

    /// Counts one that is done, or failed as the word says.
    pub(super) fn count(&self, kind: Option<&str>) {
        match kind.and_then(|kind| KINDS.iter().position(|own| *own == kind)) {
            Some(index) => {
                if let Some(count) = self.failed.get(index) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => {
                self.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.count_max - self.turns.available_permits()
    }

    /// Counts by outcome: `success`, and the types of errors.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let failed =
            KINDS.iter().zip(&self.failed).map(|(kind, count)| (*kind, count.load(Ordering::Relaxed)));
        std::iter::once(("success", self.done.load(Ordering::Relaxed))).chain(failed)
    }

    /// Time that all of them worked, together.
    pub(super) fn time(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// Cancels work that nobody waits for any more.
#[derive(Debug)]
pub(super) struct CancelOnDrop(pub(super) CancelToken);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Frame {
    /// Runs `work`, which reads, on a thread of its own, when its turn has come.
    ///
    /// # Errors
    /// When `timeout` is over before that, and when it panics.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        timeout: Duration,
        work: impl FnOnce(&Ticket) -> T + Send + 'static,
    ) -> Result<T, NotRun> {
        let (ticket, turn) = self.turn(timeout).await?;
        let _guard = CancelOnDrop(ticket.cancel.clone());
        let readings = Arc::clone(&self.readings);
        let task = tokio::task::spawn_blocking(move || {
            // Held until the work has ended, not until its client has gone, so that the cap holds.
            let _turn = turn;
            let begun = Instant::now();
            let result = work(&ticket);
            let nanos = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            readings.nanos.fetch_add(nanos, Ordering::Relaxed);
            result
        });
        task.await.map_err(|_| NotRun::Panic)
    }

    /// Waits until work that reads may begin; it holds the permit while it works.
    ///
    /// # Errors
    /// When `timeout` is over before that.
    pub(super) async fn turn(&self, timeout: Duration) -> Result<(Ticket, OwnedSemaphorePermit), NotRun> {
        let clock: Arc<dyn Clock> = Arc::clone(&self.env.clock);
        let begun = Instant::now();
        let at = clock.monotonic().saturating_add(timeout);
        let turn = Arc::clone(&self.readings.turns).acquire_owned();
        let Ok(Ok(turn)) = tokio::time::timeout(timeout, turn).await else { return Err(NotRun::Queue) };
        let queued = begun.elapsed();
        Ok((Ticket { cancel: CancelToken::new(), deadline: Deadline { clock, at }, queued }, turn))
    }

    /// A query that ends with the time that any request may read for.
    pub(super) fn query(&self, selector: impl Into<Selector>) -> Query {
        self.db.query(selector).deadline(self.options.limits.query_timeout)
    }
}
