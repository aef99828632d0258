//! `MetricClient`: takes samples at once and sends them from a thread of its own.
//!
//! One lock guards the queue; it is never held while the sink works. The thread sends at the interval, or
//! earlier when the queue is half full; `stop` ends the thread first and then sends the rest itself, so
//! that nothing is sent twice at the same time and nothing that was taken is forgotten.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ingest::sink::{Point, Refused, Sink, write_caught};
use crate::model::SeriesKey;
use crate::sync::thread::JoinHandle;

/// Most points of one write to the sink: bounds the memory of an encoded request to some megabytes.
const SEND_COUNT_MAX: usize = 10_000;

/// What happens to a point when the queue of a [`MetricClient`] is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// The call waits until there is room.
    Block,
    /// The point is dropped and counted.
    Drop,
}

/// Settings of a [`MetricClient`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Clock and threads. Default: those of the system.
    pub env: Env,
    /// Time from one sending to the next. Default: 1 s.
    pub interval: Duration,
    /// Most points that wait, those being sent included. Default: 100,000, some 20 MiB.
    pub queue_count_max: usize,
    /// What happens at `queue_count_max`. Default: `Block`.
    pub when_full: WhenFull,
    /// How long `stop` goes on when the other end asks for patience. Default: 10 s.
    pub stop_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            env: Env::system(),
            interval: Duration::from_secs(1),
            queue_count_max: 100_000,
            when_full: WhenFull::Block,
            stop_timeout: Duration::from_secs(10),
        }
    }
}

/// Logs samples of named series and sends them in the background, every second unless told otherwise.
///
/// A point gets its time when it is logged; no two points of one client have the same. What a sink refuses for
/// a reason that may pass stays in the queue and is sent again. Dropping the client stops it; it never keeps a
/// process alive.
///
/// ```
/// use icecore::ingest::{MetricClient, Point, Refused, Sink};
/// use std::sync::{Arc, Mutex};
///
/// #[derive(Default)]
/// struct Kept(Mutex<Vec<Point>>);
/// impl Sink for Kept {
///     fn write(&self, points: &[Point]) -> Result<(), Refused> {
///         self.0.lock().unwrap().extend_from_slice(points);
///         Ok(())
///     }
/// }
///
/// let kept = Arc::new(Kept::default());
/// let metric_client = MetricClient::new(kept.clone());
/// metric_client.start()?;
///
/// metric_client.log_metric("custom.metric", [("test", "test")], 1.0)?;
///
/// let left = metric_client.stop();
/// assert!(left.undelivered.is_empty());
/// assert_eq!(kept.0.lock().unwrap()[0].key.to_string(), r#"custom.metric{test="test"}"#);
/// # Ok::<(), icecore::Error>(())
/// ```
pub struct MetricClient {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a stopped [`MetricClient`] could not deliver.
#[derive(Debug, Default)]
#[must_use = "it holds what was not delivered"]
pub struct Undelivered {
    /// The points, in the order they were logged; at most as many as the queue may hold.
    pub undelivered: Vec<Point>,
    /// How many points were dropped besides, because the queue was full.
    pub dropped_count: u64,
    /// Why the last refused sending was refused.
    pub error: Option<Error>,
}

struct Shared {
    sink: Box<dyn Sink>,
    options: ClientOptions,
    state: Mutex<State>,
    /// Told when the thread has something to look at.
    wake: Condvar,
    /// Told when the queue has room, or the client was stopped.
    room: Condvar,
}

#[derive(Default)]
struct State {
    started: bool,
    stopped: bool,
    queue: VecDeque<Point>,
    /// Points that the sink has in its hands.
    sending_count: usize,
    /// Points that the sink refused for good.
    refused: Vec<Point>,
    dropped_count: u64,
    error: Option<Error>,
}

impl MetricClient {
    /// A client that writes to `sink`, with default options.
    pub fn new(sink: impl Sink + 'static) -> Self {
        Self::with_options(sink, ClientOptions::default())
    }

    /// A client with options.
    pub fn with_options(sink: impl Sink + 'static, options: ClientOptions) -> Self {
        let shared = Shared {
            sink: Box::new(sink),
            options,
            state: Mutex::default(),
            wake: Condvar::new(),
            room: Condvar::new(),
        };
        MetricClient { shared: Arc::new(shared), thread: Mutex::new(None) }
    }

    /// Starts sending. When it was started before, this does nothing.
    ///
    /// # Errors
    /// `Closed` after [`MetricClient::stop`]; `LimitExceeded` when the system gives no thread.
    pub fn start(&self) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.stopped {
            return Err(stopped());
        }
        if state.started {
            return Ok(());
        }
        let shared = self.shared.clone();
        let thread = shared.options.env.clone().spawn("metric-client", move || shared.run())?;
        state.started = true;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Takes one sample of the series of this name and these labels, stamped with the present time.
    ///
    /// Before [`MetricClient::start`] it is kept until then.
    ///
    /// # Errors
    /// `InvalidInput` for a name or labels that make no series, and for NaN and infinity where the sink has no
    /// form for them; `LimitExceeded` when the queue is full, the option is to block and nothing was started
    /// that could empty it; `Closed` after [`MetricClient::stop`].
    pub fn log_metric<K: AsRef<str>, V: AsRef<str>>(
        &self,
        name: &str,
        labels: impl IntoIterator<Item = (K, V)>,
        value: impl Into<f64>,
    ) -> Result<()> {
        let (key, value) = (SeriesKey::new(name, labels)?, value.into());
        if !self.shared.sink.takes(value) {
            return Err(Error::invalid_input(format!("metric {name:?} is {value}, which cannot be sent")));
        }
        self.shared.take(key, value)
    }

    /// How many points were dropped because the queue was full, or were refused beyond what is kept for
    /// [`Undelivered`].
    pub fn dropped_count(&self) -> u64 {
        self.shared.state.lock().dropped_count
    }

    /// Sends all that is left and ends the thread. A second call has nothing left to return.
    ///
    /// It waits for the sending under way, sends what was logged meanwhile, and follows a plea for patience of
    /// the other end for [`ClientOptions::stop_timeout`].
    pub fn stop(&self) -> Undelivered {
        self.shared.state.lock().stopped = true;
        self.shared.wake.notify_all();
        self.shared.room.notify_all();
        let thread = self.thread.lock().take();
        // A sink that holds the last handle drops the client on the client's own thread, which cannot wait for itself.
        if let Some(thread) =
            thread.filter(|thread| thread.thread().id() != crate::sync::thread::current().id())
        {
            // The thread cannot panic: the sink is called caught.
            let _ = thread.join();
        }
        self.shared.send_rest();
        let mut state = self.shared.state.lock();
        let mut undelivered = std::mem::take(&mut state.refused);
        undelivered.extend(state.queue.drain(..));
        let dropped_count = std::mem::take(&mut state.dropped_count);
        Undelivered { undelivered, dropped_count, error: state.error.take() }
    }
}

impl Drop for MetricClient {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Shared {
    fn take(&self, key: SeriesKey, value: f64) -> Result<()> {
        let mut state = self.state.lock();
        while !state.stopped && state.is_full(&self.options) {
            if self.options.when_full == WhenFull::Drop {
                state.dropped_count += 1;
                return Ok(());
            }
            if !state.started {
                let limit = self.options.queue_count_max;
                return Err(Error::limit_exceeded(format!("{limit} points wait for MetricClient::start")));
            }
            self.wake.notify_all();
            self.room.wait(&mut state);
        }
        if state.stopped {
            return Err(stopped());
        }
        // Stamped under the lock, so that the queue is in order of time.
        let time = self.options.env.stamp();
        state.queue.push_back(Point { key, time, value });
        if state.queue.len() == self.early_count() {
            self.wake.notify_all();
        }
        Ok(())
    }

    /// The number of points that wait at which they are sent before the interval is over.
    fn early_count(&self) -> usize {
        (self.options.queue_count_max / 2).clamp(1, SEND_COUNT_MAX)
    }

    /// The thread: waits, sends, until the client is stopped.
    fn run(&self) {
        let clock = &self.options.env.clock;
        let mut wait = self.options.interval;
        let mut early = true;
        loop {
            let deadline = clock.monotonic() + wait;
            let mut state = self.state.lock();
            loop {
                let timeout = clock.timeout(deadline);
                if state.stopped {
                    return;
                }
                if timeout.is_zero() || (early && state.queue.len() >= self.early_count()) {
                    break;
                }
                self.wake.wait_for(&mut state, timeout);
            }
            let outcome = self.send(state);
            // While the other end refuses, only the clock decides when it is asked again.
            early = outcome.is_ok();
            wait = outcome.err().flatten().unwrap_or(self.options.interval);
        }
    }

    /// Sends what is in the queue, until it is empty, refused for the time being, or the client is stopped. The
    /// error is how long the other end asks to wait.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>) -> std::result::Result<(), Option<Duration>> {
        while !state.queue.is_empty() && !state.stopped {
            state = self.send_some(state)?;
        }
        Ok(())
    }

    /// What `stop` does when the thread is gone.
    fn send_rest(&self) {
        let clock = &self.options.env.clock;
        let deadline = clock.monotonic() + self.options.stop_timeout;
        let mut state = self.state.lock();
        while !state.queue.is_empty() {
            state = match self.send_some(state) {
                Ok(state) => state,
                Err(Some(wait)) if clock.monotonic() + wait <= deadline => {
                    clock.sleep(wait);
                    self.state.lock()
                }
                Err(_) => return,
            };
        }
    }

    /// Sends the oldest points of the queue with the lock released, and takes the lock again.
    fn send_some<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
    ) -> std::result::Result<MutexGuard<'a, State>, Option<Duration>> {
        let count = state.queue.len().min(SEND_COUNT_MAX);
        let points: Vec<Point> = state.queue.drain(..count).collect();
        state.sending_count = points.len();
        let result = MutexGuard::unlocked(&mut state, || write_caught(&*self.sink, &points));
        state.sending_count = 0;
        let outcome = state.settle(points, result, self.options.queue_count_max);
        self.room.notify_all();
        outcome.map(|()| state)
    }
}

impl State {
    fn is_full(&self, options: &ClientOptions) -> bool {
        self.queue.len() + self.sending_count >= options.queue_count_max
    }

    /// Puts back what may be taken later and keeps, up to `refused_count_max`, what never will be.
    fn settle(
        &mut self,
        points: Vec<Point>,
        result: std::result::Result<(), Refused>,
        refused_count_max: usize,
    ) -> std::result::Result<(), Option<Duration>> {
        let Err(refused) = result else { return Ok(()) };
        let outcome = if refused.is_temporary() {
            points.into_iter().rev().for_each(|point| self.queue.push_front(point));
            Err(refused.retry_after)
        } else {
            let room = refused_count_max.saturating_sub(self.refused.len()).min(points.len());
            self.dropped_count += (points.len() - room) as u64;
            self.refused.extend(points.into_iter().take(room));
            Ok(())
        };
        self.error = Some(refused.error);
        outcome
    }
}

#[cold]
fn stopped() -> Error {
    Error::closed("the metric client was stopped")
}

impl fmt::Debug for MetricClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.lock();
        f.debug_struct("MetricClient")
            .field("started", &state.started)
            .field("stopped", &state.stopped)
            .field("waiting_count", &(state.queue.len() + state.sending_count))
            .field("dropped_count", &state.dropped_count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::clock::ManualClock;
    use crate::ingest::sink::tests::MemorySink;
    use crate::model::Timestamp;

    /// Labels of a series without any.
    const NONE: [(&str, &str); 0] = [];

    fn options(clock: &ManualClock) -> ClientOptions {
        let simulated = Env::simulated(1);
        let env = Env::new(simulated.fs.clone(), Arc::new(clock.clone()), 1);
        ClientOptions { env, ..ClientOptions::default() }
    }

    fn clock() -> ManualClock {
        ManualClock::new(Timestamp::from_nanos(1_000))
    }

    /// Waits, in real time, until `done`; the thread looks at a manual clock every millisecond.
    fn eventually(done: impl Fn() -> bool) {
        for _ in 0..20_000 {
            if done() {
                return;
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        panic!("it did not come about");
    }

    #[test]
    fn points_are_sent_at_the_interval_and_no_two_have_one_time() {
        let (clock, sink) = (clock(), MemorySink::new());
        let client = MetricClient::with_options(sink.clone(), options(&clock));
        client.log_metric("early", NONE, 1).unwrap();
        client.start().unwrap();
        client.start().unwrap();
        for value in 0..3 {
            client.log_metric("m", [("k", "v")], value).unwrap();
        }
        assert!(sink.points.lock().is_empty());
        eventually(|| {
            clock.advance(Duration::from_secs(1));
            !sink.points.lock().is_empty()
        });
        assert_eq!(sink.shown(), ["early 1", r#"m{k="v"} 0"#, r#"m{k="v"} 1"#, r#"m{k="v"} 2"#]);
        let times: Vec<i64> = sink.points.lock().iter().map(|point| point.time.nanos()).collect();
        assert_eq!(times, [1_000, 1_001, 1_002, 1_003]);
        assert!(client.stop().undelivered.is_empty());
    }

    #[test]
    fn stop_sends_the_rest_and_closes() {
        let sink = MemorySink::new();
        let client = MetricClient::with_options(sink.clone(), options(&clock()));
        client.log_metric("never_started", NONE, 1.5).unwrap();
        assert!(client.stop().error.is_none());
        assert_eq!(sink.shown(), ["never_started 1.5"]);
        assert_eq!(client.log_metric("late", NONE, 1).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(client.start().unwrap_err().kind(), ErrorKind::Closed);
        assert!(client.stop().undelivered.is_empty());
    }

    #[test]
    fn dropping_sends_the_rest() {
        let sink = MemorySink::new();
        let client = MetricClient::new(sink.clone());
        client.start().unwrap();
        client.log_metric("m", NONE, 1).unwrap();
        drop(client);
        assert_eq!(sink.shown(), ["m 1"]);
    }

    #[test]
    fn what_is_refused_for_now_is_sent_again_and_what_is_refused_for_good_is_returned() {
        let (clock, sink) = (clock(), MemorySink::new());
        sink.refuse(Error::busy("not now"), None);
        let client = MetricClient::with_options(sink.clone(), options(&clock));
        client.log_metric("m", NONE, 1).unwrap();
        client.start().unwrap();
        eventually(|| {
            clock.advance(Duration::from_secs(1));
            !sink.points.lock().is_empty()
        });
        assert_eq!(sink.shown(), ["m 1"]);
        client.log_metric("bad", NONE, 2).unwrap();
        sink.refuse(Error::invalid_input("never"), None);
        let left = client.stop();
        assert_eq!(left.undelivered.len(), 1);
        assert_eq!(left.undelivered[0].key.name(), "bad");
        assert_eq!(left.error.unwrap().to_string(), "never");
    }

    #[test]
    fn stop_returns_what_the_other_end_did_not_take() {
        let sink = MemorySink::new();
        sink.refuse(Error::busy("down"), None);
        let client = MetricClient::with_options(sink.clone(), options(&clock()));
        client.log_metric("m", NONE, 1).unwrap();
        let left = client.stop();
        assert_eq!((left.undelivered.len(), left.error.unwrap().to_string()), (1, "down".to_owned()));
    }

    #[test]
    fn stop_is_patient_up_to_its_timeout() {
        let sink = MemorySink::new();
        sink.refuse(Error::limit_exceeded("429"), Some(Duration::from_secs(3)));
        sink.refuse(Error::limit_exceeded("429"), Some(Duration::from_secs(7)));
        let client = MetricClient::with_options(sink.clone(), options(&clock()));
        client.log_metric("m", NONE, 1).unwrap();
        assert!(client.stop().undelivered.is_empty());
        sink.refuse(Error::limit_exceeded("429"), Some(Duration::from_secs(11)));
        let client = MetricClient::with_options(sink.clone(), options(&clock()));
        client.log_metric("m", NONE, 1).unwrap();
        assert_eq!(client.stop().undelivered.len(), 1);
    }

    #[test]
    fn a_full_queue_drops_with_a_count() {
        let sink = MemorySink::new();
        let options = ClientOptions { queue_count_max: 2, when_full: WhenFull::Drop, ..options(&clock()) };
        let client = MetricClient::with_options(sink.clone(), options);
        for value in 0..5 {
            client.log_metric("m", NONE, value).unwrap();
        }
        assert_eq!(client.dropped_count(), 3);
        assert_eq!(client.stop().dropped_count, 3);
        assert_eq!(sink.shown(), ["m 0", "m 1"]);
    }

    #[test]
    fn a_full_queue_blocks_until_it_is_sent() {
        let sink = MemorySink::new();
        let options = ClientOptions { queue_count_max: 2, ..options(&clock()) };
        let client = MetricClient::with_options(sink.clone(), options);
        client.log_metric("m", NONE, 0).unwrap();
        client.log_metric("m", NONE, 1).unwrap();
        let error = client.log_metric("m", NONE, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        client.start().unwrap();
        // The clock stands still: only the full queue makes the thread send.
        for value in 2..100 {
            client.log_metric("m", NONE, value).unwrap();
        }
        assert!(client.stop().undelivered.is_empty());
        assert_eq!(sink.points.lock().len(), 100);
    }

    #[test]
    fn points_logged_during_a_send_are_sent() {
        struct Logs(Mutex<Option<Arc<MetricClient>>>, Arc<MemorySink>);
        impl Sink for Logs {
            fn write(&self, points: &[Point]) -> std::result::Result<(), Refused> {
                if let Some(client) = self.0.lock().take() {
                    client.log_metric("during", NONE, 2).map_err(Refused::from)?;
                }
                self.1.write(points)
            }
        }
        let sink = MemorySink::new();
        let logs = Arc::new(Logs(Mutex::new(None), sink.clone()));
        let options = ClientOptions { queue_count_max: 2, ..options(&clock()) };
        let client = Arc::new(MetricClient::with_options(logs.clone(), options));
        *logs.0.lock() = Some(client.clone());
        client.start().unwrap();
        client.log_metric("before", NONE, 1).unwrap();
        eventually(|| sink.points.lock().len() == 2);
        assert!(client.stop().undelivered.is_empty());
        assert_eq!(sink.shown(), ["before 1", "during 2"]);
    }

    #[test]
    fn many_points_are_sent_in_pieces() {
        let sink = MemorySink::new();
        let client = MetricClient::with_options(sink.clone(), options(&clock()));
        for value in 0..25_000 {
            client.log_metric("m", NONE, value).unwrap();
        }
        assert!(client.stop().undelivered.is_empty());
        assert_eq!(*sink.batches.lock(), [10_000, 10_000, 5_000]);
    }

    #[test]
    fn wrong_names_are_refused_at_once() {
        let client = MetricClient::new(MemorySink::new());
        assert_eq!(client.log_metric("", NONE, 1).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert!(client.log_metric("m", [("__name__", "1")], 1).is_err());
        assert!(client.log_metric("größe in °C", [("leer", ""), ("a b", "ü")], f64::NAN).is_ok());
    }
}
