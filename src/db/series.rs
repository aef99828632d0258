//! Handles: a series that was looked up once, to append to at the cost of some nanoseconds.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::db::Inner;
use crate::db::batch::check_time;
use crate::error::Result;
use crate::model::{SampleValue, SeriesKey, Timestamp};

/// A series of a [`Db`](crate::Db), held alive for writing.
///
/// Made by [`Db::series`](crate::Db::series). Cheap to send to other threads; any number of handles and
/// threads may write the same series.
pub struct Series<T: SampleValue> {
    inner: Arc<Inner>,
    id: u32,
    key: SeriesKey,
    value: PhantomData<fn(T)>,
}

impl<T: SampleValue> Series<T> {
    pub(super) fn new(inner: Arc<Inner>, id: u32, key: SeriesKey) -> Self {
        Series { inner, id, key, value: PhantomData }
    }

    /// Name and tags.
    pub fn key(&self) -> &SeriesKey {
        &self.key
    }

    /// Adds one sample with durability [`Buffered`](crate::Durability::Buffered): queries see it at once, and the log gets it with the
    /// next write of another durability, the next sync, or after some thousand samples.
    ///
    /// # Errors
    /// `InvalidInput` when the time is one of the two extremes; `Closed`; what the log said when it refuses to take the
    /// samples that wait (`Io`).
    #[inline]
    pub fn append(&self, time: Timestamp, value: T) -> Result<()> {
        check_time(time)?;
        self.inner.append(self.id, time, value.as_value_ref())
    }

    #[inline]
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Tells the databases of one process apart, for as long as a handle lives.
    #[inline]
    pub(super) fn database(&self) -> usize {
        Arc::as_ptr(&self.inner) as usize
    }
}

impl<T: SampleValue> Clone for Series<T> {
    fn clone(&self) -> Self {
        self.inner.hold(self.id);
        Series { inner: self.inner.clone(), id: self.id, key: self.key.clone(), value: PhantomData }
    }
}

impl<T: SampleValue> Drop for Series<T> {
    fn drop(&mut self) {
        self.inner.release(self.id);
    }
}

impl<T: SampleValue> fmt::Debug for Series<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Series<{}>({})", T::TYPE.name(), self.key)
    }
}
