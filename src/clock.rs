//! Time: the one place that asks the system for it, and a clock that tests move by hand.
//!
//! Open to every layer, reached through [`crate::Env`]. Nothing else in the engine calls `SystemTime::now`,
//! `Instant::now` or `thread::sleep`; `tests/tidy.rs` holds that.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use crate::model::Timestamp;

/// What time it is, and how waiting is done.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock. It can jump, in both directions; never compute an interval from it.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point of this process; never goes back. For deadlines and intervals.
    fn monotonic(&self) -> Duration;

    /// How long a condition variable may wait, in real time, before `monotonic` has to be looked at again for
    /// `deadline`; zero when the deadline has passed.
    fn timeout(&self, deadline: Duration) -> Duration;

    /// Lets `duration` pass. Only for retries against another process; inside one process wait on a condition
    /// variable.
    fn sleep(&self, duration: Duration);
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[expect(clippy::new_without_default, reason = "a clock with a start is not a default value")]
    pub fn new() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn timeout(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.monotonic())
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock that stands still until it is moved. Clones share the time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    times: Arc<Mutex<Times>>,
}

#[derive(Debug)]
struct Times {
    now: Timestamp,
    monotonic: Duration,
}

/// A waiter cannot know when the clock will be moved next, so it looks this often.
const MANUAL_POLL: Duration = Duration::from_millis(1);

impl ManualClock {
    /// A clock whose wall time is `now` and whose monotonic time is zero.
    pub fn new(now: Timestamp) -> Self {
        ManualClock { times: Arc::new(Mutex::new(Times { now, monotonic: Duration::ZERO })) }
    }

    /// Moves both times forward.
    pub fn advance(&self, duration: Duration) {
        let mut times = self.times.lock();
        times.now = times.now.saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
        times.monotonic = times.monotonic.saturating_add(duration);
    }

    /// Sets the wall clock alone, as an administrator or a time server does.
    pub fn set_now(&self, now: Timestamp) {
        self.times.lock().now = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.times.lock().now
    }

    fn monotonic(&self) -> Duration {
        self.times.lock().monotonic
    }

    fn timeout(&self, deadline: Duration) -> Duration {
        deadline.saturating_sub(self.monotonic()).min(MANUAL_POLL)
    }

    /// Returns at once, having moved the clock.
    fn sleep(&self, duration: Duration) {
        self.advance(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(Timestamp::from_secs(100));
        let other = clock.clone();
        assert_eq!(clock.monotonic(), Duration::ZERO);
        other.advance(Duration::from_secs(2));
        assert_eq!(clock.now(), Timestamp::from_secs(102));
        assert_eq!(clock.monotonic(), Duration::from_secs(2));
        clock.set_now(Timestamp::from_secs(50));
        assert_eq!(clock.monotonic(), Duration::from_secs(2), "the monotonic time never goes back");
        assert_eq!(clock.timeout(Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(clock.timeout(Duration::from_secs(9)), MANUAL_POLL);
    }

    #[test]
    fn system_clock_runs() {
        let clock = SystemClock::new();
        let before = clock.monotonic();
        assert!(clock.now() > Timestamp::from_secs(1_700_000_000));
        assert!(clock.monotonic() >= before);
        assert_eq!(clock.timeout(Duration::ZERO), Duration::ZERO);
    }
}
