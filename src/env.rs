//! The one world under the engine: files, time, randomness and threads.
//!
//! Open to every layer. Production runs on [`Env::system`]; tests, ours and those of hosts, run on a
//! simulated disk and a clock moved by hand, so that a whole engine is a function of its seed.
//! `docs/decisions/0001-dynamic-environment.md` says why this is dynamic dispatch.

mod heap;

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::clock::{Clock, ManualClock, SystemClock};
use crate::error::{Error, Result};
use crate::fs::{DiskFs, Fs, MemoryFs};
use crate::model::Timestamp;
use crate::sync::thread::{self, JoinHandle};

/// Files, time, randomness and threads. Clones are cheap and share all of it.
#[derive(Clone, Debug)]
pub struct Env {
    /// Where files live.
    pub fs: Arc<dyn Fs>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    random: Arc<AtomicU64>,
    last_stamp: Arc<AtomicI64>,
}

impl Env {
    /// A world of these parts; `seed` determines every random number drawn from it.
    pub fn new(fs: Arc<dyn Fs>, clock: Arc<dyn Clock>, seed: u64) -> Self {
        let last_stamp = Arc::new(AtomicI64::new(i64::MIN));
        Env { fs, clock, random: Arc::new(AtomicU64::new(seed)), last_stamp }
    }

    /// The real world: the disk, the system's clocks, an unpredictable seed.
    pub fn system() -> Self {
        let clock = SystemClock::new();
        // `RandomState` is seeded by the operating system once a thread and then counts; time and process
        // keep two programs apart even where it could not.
        let seed = std::hash::RandomState::new().hash_one((clock.now().nanos(), std::process::id()));
        Self::new(Arc::new(DiskFs::new()), Arc::new(clock), seed)
    }

    /// A world in memory: an empty [`MemoryFs`] and a [`ManualClock`] at 2024-01-01T00:00:00Z. To crash the
    /// disk or move the clock, keep clones of them and use [`Env::new`].
    pub fn simulated(seed: u64) -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_704_067_200));
        Self::new(Arc::new(MemoryFs::new(seed)), Arc::new(clock), seed)
    }

    /// The next random number; not for secrets.
    pub fn random_u64(&self) -> u64 {
        mix(self.random.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }

    /// The present time for a sample: later than every stamp before it, so that no two samples stamped in one
    /// world meet. When the wall clock stands still or is set back, stamps go on by a nanosecond each.
    pub fn stamp(&self) -> Timestamp {
        let now = self.clock.now().nanos();
        let next = |last: i64| now.max(last.saturating_add(1));
        let order = Ordering::Relaxed;
        let last = self.last_stamp.fetch_update(order, order, |last| Some(next(last)));
        Timestamp::from_nanos(next(last.unwrap_or_else(|last| last)))
    }

    /// Asks the program's allocator to give the memory that is free back to the system, where it can be asked.
    pub(crate) fn release_free_memory(&self) {
        heap::release_free_memory();
    }

    /// Runs `work` on a thread of its own, named `name` for debuggers.
    ///
    /// # Errors
    /// `LimitExceeded` when the system gives no thread.
    pub fn spawn<T, F>(&self, name: &str, work: F) -> Result<JoinHandle<T>>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)
            .map_err(|error| Error::limit_exceeded(format!("cannot start thread {name:?}: {error}")))
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA
/// 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A seeded sequence of random numbers (splitmix64), owned by one user.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mix(self.0)
    }

    /// A number in `0..bound`, or 0 when `bound` is 0. Bounds are small here, so the bias of the remainder is
    /// nothing.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_follow_from_the_seed() {
        // The first outputs of splitmix64 for seed 1234567, as its reference implementation gives them.
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        let env = Env::simulated(1_234_567);
        let mut random = Random::new(1_234_567);
        for value in expected {
            assert_eq!(env.random_u64(), value);
            assert_eq!(random.next_u64(), value);
        }
        assert_ne!(Env::system().random_u64(), Env::system().random_u64());
    }

    #[test]
    fn stamps_rise_when_the_clock_does_not() {
        let clock = ManualClock::new(Timestamp::from_nanos(100));
        let env = Env::new(Env::simulated(0).fs, Arc::new(clock.clone()), 0);
        let stamp = || env.stamp().nanos();
        assert_eq!([stamp(), stamp(), env.clone().stamp().nanos()], [100, 101, 102]);
        clock.set_now(Timestamp::from_nanos(50));
        assert_eq!(stamp(), 103);
        clock.set_now(Timestamp::from_nanos(1_000));
        assert_eq!([stamp(), stamp()], [1_000, 1_001]);
    }

    #[test]
    fn threads_carry_their_name_and_result() {
        let handle =
            Env::simulated(0).spawn("worker", || std::thread::current().name().map(str::to_owned)).unwrap();
        assert_eq!(handle.join().unwrap().as_deref(), Some("worker"));
    }
}
