//! Where stamped samples go: into a database, over HTTP, or into a host's own hands.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::db::{Batch, Db};
use crate::error::{Error, ErrorKind};
use crate::ingest::MetricFamily;
use crate::model::{Metadata, MetricKind, SeriesKey, Timestamp, ValueRef};

/// One sample and its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Name and tags.
    pub key: SeriesKey,
    /// When it was measured.
    pub time: Timestamp,
    /// What was measured.
    pub value: f64,
}

/// Takes samples. What the clients, loggers and writers of this module send to.
pub trait Sink: Send + Sync {
    /// Keeps all of `points`, or refuses them together. Writing the same points again changes nothing.
    ///
    /// # Errors
    /// Why they were refused, and whether to try again.
    fn write(&self, points: &[Point]) -> Result<(), Refused>;

    /// Takes kind, unit and help of the metric `name`. Best effort: a sink may have no place for them.
    fn describe(&self, name: &str, metadata: &Metadata) {
        let _ = (name, metadata);
    }

    /// Whether `value` can be written at all; formats without NaN and infinity say no to them.
    fn takes(&self, value: f64) -> bool {
        let _ = value;
        true
    }
}

impl<S: Sink + ?Sized> Sink for std::sync::Arc<S> {
    fn write(&self, points: &[Point]) -> Result<(), Refused> {
        (**self).write(points)
    }

    fn describe(&self, name: &str, metadata: &Metadata) {
        (**self).describe(name, metadata);
    }

    fn takes(&self, value: f64) -> bool {
        (**self).takes(value)
    }
}

impl Sink for Db {
    /// Writes with the durability of the database.
    fn write(&self, points: &[Point]) -> Result<(), Refused> {
        let mut batch = Batch::new();
        for point in points {
            batch.push_key(&point.key, point.time, ValueRef::F64(point.value))?;
        }
        Db::write(self, &mut batch)?;
        Ok(())
    }

    fn describe(&self, name: &str, metadata: &Metadata) {
        // Best effort; what is wrong with the database is said by the write that follows.
        let _ = self.set_metadata(name, metadata.clone());
    }
}

/// Points that a [`Sink`] did not take, and why.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub error: Error,
    /// How long the other end asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl Refused {
    /// Whether the same points may be taken later: the environment failed, not the points.
    pub fn is_temporary(&self) -> bool {
        let busy = matches!(self.error.kind(), ErrorKind::Io | ErrorKind::Busy | ErrorKind::LimitExceeded);
        busy || self.retry_after.is_some()
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused { error, retry_after: None }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// Writes to a sink whose code may be the host's: a panic in it is a refusal, so that our threads live on.
pub(super) fn write_caught(sink: &dyn Sink, points: &[Point]) -> Result<(), Refused> {
    catch_unwind(AssertUnwindSafe(|| sink.write(points)))
        .unwrap_or_else(|_| Err(Error::invalid_input("the sink panicked").into()))
}

/// The samples of `families` as points at `time`, with the tags `over` laid over their own.
///
/// # Errors
/// `InvalidInput` when a sample with these tags is no series; it says which.
pub(super) fn points_of(
    families: &[MetricFamily],
    over: &[(String, String)],
    time: Timestamp,
) -> crate::error::Result<Vec<Point>> {
    let mut points = Vec::new();
    for sample in families.iter().flat_map(|family| &family.samples) {
        let own = sample.tags.iter().filter(|(key, _)| over.iter().all(|(covered, _)| covered != key));
        let own = own.map(|(key, value)| (key.as_ref(), value.as_ref()));
        let tags = own.chain(over.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        points.push(Point { key: SeriesKey::new(&sample.name, tags)?, time, value: sample.value });
    }
    Ok(points)
}

/// Tells `sink` what `families` mean. A counter is described under the name of its series.
pub(super) fn describe_all(sink: &dyn Sink, families: &[MetricFamily]) {
    for family in families {
        let suffix = if family.kind == MetricKind::Counter { "_total" } else { "" };
        sink.describe(&format!("{}{suffix}", family.name), &family.metadata());
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ingest::FamilySample;
    use parking_lot::Mutex;
    use std::collections::VecDeque;
    use std::sync::Arc;

    /// A sink that keeps what it gets, after refusing as often as it was told to.
    #[derive(Default)]
    pub(in crate::ingest) struct MemorySink {
        pub(in crate::ingest) points: Mutex<Vec<Point>>,
        pub(in crate::ingest) batches: Mutex<Vec<usize>>,
        pub(in crate::ingest) metadata: Mutex<Vec<(String, Metadata)>>,
        refusals: Mutex<VecDeque<Refused>>,
    }

    impl MemorySink {
        pub(in crate::ingest) fn new() -> Arc<Self> {
            Arc::default()
        }

        pub(in crate::ingest) fn refuse(&self, error: Error, retry_after: Option<Duration>) {
            self.refusals.lock().push_back(Refused { error, retry_after });
        }

        /// Every point as `name{tags} value`, in order.
        pub(in crate::ingest) fn shown(&self) -> Vec<String> {
            self.points.lock().iter().map(|point| format!("{} {}", point.key, point.value)).collect()
        }
    }

    impl Sink for MemorySink {
        fn write(&self, points: &[Point]) -> Result<(), Refused> {
            if let Some(refused) = self.refusals.lock().pop_front() {
                return Err(refused);
            }
            self.batches.lock().push(points.len());
            self.points.lock().extend_from_slice(points);
            Ok(())
        }

        fn describe(&self, name: &str, metadata: &Metadata) {
            self.metadata.lock().push((name.to_owned(), metadata.clone()));
        }
    }

    #[test]
    fn tags_laid_over_win_and_empty_ones_remove() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let tags = vec![("step".into(), "0".into()), ("pod".into(), "h".into()), ("gone".into(), "x".into())];
        let sample = FamilySample { name: "loss".into(), tags, value: 0.2, ..FamilySample::default() };
        let family = MetricFamily { name: "loss".into(), samples: vec![sample], ..MetricFamily::default() };
        let over = [pair("job", "train"), pair("step", "1"), pair("gone", "")];
        let points = points_of(&[family], &over, Timestamp::from_nanos(7)).unwrap();
        assert_eq!(points[0].key.to_string(), r#"loss{job="train",pod="h",step="1"}"#);
        assert_eq!(points[0].time, Timestamp::from_nanos(7));
    }

    #[test]
    fn a_sink_that_panics_refuses() {
        struct Panics;
        impl Sink for Panics {
            fn write(&self, _: &[Point]) -> Result<(), Refused> {
                panic!("on purpose");
            }
        }
        let refused = write_caught(&Panics, &[]).unwrap_err();
        assert_eq!(refused.error.to_string(), "the sink panicked");
        assert!(!refused.is_temporary());
    }
}
