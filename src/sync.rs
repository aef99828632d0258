//! Locks, atomics and threads of the engine, in one place, so that a model checker can take them over.
//!
//! Open to every layer; used by `db`, `head` and `env`, whose interleavings are what the models in `db/interleavings.rs`
//! explore. Normally these are parking_lot's locks and the standard library's atomics and threads, and nothing is
//! between. Built with `--cfg icecore_shuttle` they are shuttle's, with the same interface
//! (`docs/decisions/0063-models-by-shuttle.md`).

#[cfg(not(icecore_shuttle))]
pub(crate) use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
#[cfg(not(icecore_shuttle))]
pub(crate) use std::{sync::atomic, thread};

#[cfg(icecore_shuttle)]
pub(crate) use self::model::{Condvar, Mutex, RwLock, RwLockWriteGuard};
#[cfg(icecore_shuttle)]
pub(crate) use shuttle::{sync::atomic, thread};

/// Mistakes that a model makes on purpose, to see that its checks find them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A commit is visible before it is in the head.
    PublishEarly,
    /// A write is said to be durable before its file is synced.
    AnswerUnsynced,
    /// Writers that wait for room are told of it without the lock that they check under.
    TellUnlocked,
    /// The tombstone of a delete is all that tells of it.
    ForgetDelete,
}

/// Whether the model that runs makes this mistake. Never, outside of models.
#[cfg(not(icecore_shuttle))]
#[inline(always)]
pub(crate) const fn makes(_: Mistake) -> bool {
    false
}

#[cfg(icecore_shuttle)]
pub(crate) use self::model::{makes, with_mistake};

#[cfg(icecore_shuttle)]
mod model {
    //! Shuttle's primitives behind the interface of parking_lot.

    use std::cell::Cell;
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    use super::Mistake;

    thread_local! {
        // All tasks of a model run on one thread of the system.
        static MISTAKE: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    pub(crate) fn makes(mistake: Mistake) -> bool {
        MISTAKE.get() == Some(mistake)
    }

    /// Runs `work` with the engine making a mistake.
    pub(crate) fn with_mistake<T>(mistake: Mistake, work: impl FnOnce() -> T) -> T {
        MISTAKE.set(Some(mistake));
        let result = work();
        MISTAKE.set(None);
        result
    }

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T: ?Sized>(shuttle::sync::Mutex<T>);

    /// Empty only while a condition is waited for.
    pub(crate) struct MutexGuard<'a, T: ?Sized>(Option<shuttle::sync::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }
    }

    impl<T: ?Sized> Mutex<T> {
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap()))
        }
    }

    impl<T: ?Sized> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("the guard is held")
        }
    }

    impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the guard is held")
        }
    }

    #[derive(Default)]
    pub(crate) struct Condvar(shuttle::sync::Condvar);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Condvar::default()
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let held = guard.0.take().expect("the guard is held");
            guard.0 = Some(self.0.wait(held).unwrap());
        }

        /// Waits for ever: a wakeup that only the timeout makes up for is lost, and the model stands still.
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
            self.wait(guard);
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    impl fmt::Debug for Condvar {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Condvar")
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct RwLock<T: ?Sized>(shuttle::sync::RwLock<T>);

    use shuttle::sync::RwLockReadGuard;
    pub(crate) use shuttle::sync::RwLockWriteGuard;

    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            RwLock(shuttle::sync::RwLock::new(value))
        }

        pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
            self.0.read().unwrap()
        }

        /// Does not wait behind a writer that waits.
        pub(crate) fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
            loop {
                if let Ok(guard) = self.0.try_read() {
                    return guard;
                }
                shuttle::thread::yield_now();
            }
        }

        pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
            self.0.write().unwrap()
        }
    }
}
