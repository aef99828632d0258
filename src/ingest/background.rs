//! A thread that does something at an interval until it is stopped.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::env::Env;
use crate::error::Result;
use crate::sync::thread::JoinHandle;

/// Work at an interval on a thread of its own. Dropping it ends the thread, waiting for work under way.
pub(super) struct Background {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stopped: Mutex<bool>,
    wake: Condvar,
}

impl Background {
    /// Runs `work` every `interval`, the first time one interval from now.
    ///
    /// # Errors
    /// `LimitExceeded` when the system gives no thread.
    pub(super) fn start(
        env: &Env,
        name: &str,
        interval: Duration,
        work: impl Fn() + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (clock, seen) = (env.clock.clone(), shared.clone());
        let thread = env.spawn(name, move || {
            let mut deadline = clock.monotonic() + interval;
            while !seen.wait(|| clock.timeout(deadline)) {
                work();
                // What was missed while the work took longer than the interval is not made up for.
                deadline = clock.monotonic().max(deadline) + interval;
            }
        })?;
        Ok(Background { shared, thread: Some(thread) })
    }
}

impl Shared {
    /// Waits until the timeout is zero. Returns whether it was stopped.
    fn wait(&self, timeout: impl Fn() -> Duration) -> bool {
        let mut stopped = self.stopped.lock();
        loop {
            let timeout = timeout();
            if *stopped || timeout.is_zero() {
                return *stopped;
            }
            self.wake.wait_for(&mut stopped, timeout);
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        *self.shared.stopped.lock() = true;
        self.shared.wake.notify_all();
        let own = |thread: &JoinHandle<()>| thread.thread().id() == crate::sync::thread::current().id();
        if let Some(thread) = self.thread.take().filter(|thread| !own(thread)) {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("thread", &self.thread).finish_non_exhaustive()
    }
}
