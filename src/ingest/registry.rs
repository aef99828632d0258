//! The instruments of a program, read together: as a snapshot, as text, or into a sink.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::ingest::background::Background;
use crate::ingest::family::Collect;
use crate::ingest::sink::{Refused, Sink, describe_all, points_of, write_caught};
use crate::ingest::{Counter, Gauge, Histogram, MetricFamily, Summary};
use crate::model::MetricKind;
use crate::protocol::exposition::{Format, Names, write_page};

/// A set of instruments and families, no two of which expose a series of the same name.
///
/// A clone is the same registry.
///
/// ```
/// use icecore::ingest::{Counter, Registry};
///
/// let registry = Registry::new();
/// let queue = registry.gauge("queue_size", "Jobs that wait")?;
/// queue.set(3);
///
/// let jobs = Counter::family("jobs_total", "Jobs done", ["outcome"])?;
/// registry.register(jobs.clone())?;
/// jobs.labels(["ok"])?.inc();
///
/// let families = registry.gather();
/// assert_eq!(families[0].name, "jobs");
/// assert_eq!(families[0].samples[0].tag("outcome"), Some("ok"));
/// assert_eq!(families[1].samples[0].value, 3.0);
///
/// let page = registry.expose();
/// assert!(page.contains("# HELP jobs_total Jobs done\n# TYPE jobs_total counter\njobs_total{outcome=\"ok\"} 1\n"));
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    /// By family name.
    collectors: BTreeMap<String, Arc<dyn Collect>>,
    /// Every name that a series of a family can have, and the family's.
    owners: BTreeMap<String, String>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instrument, a family or a host's own [`Collect`].
    ///
    /// # Errors
    /// `InvalidInput` when a registered one has its name, or exposes a series of a name that it would expose.
    pub fn register(&self, collector: impl Collect + 'static) -> Result<()> {
        let name = collector.name().to_owned();
        let mut registered = self.0.lock();
        let names = series_names(&name, collector.kind());
        if let Some((taken, owner)) = names.iter().find_map(|name| registered.owners.get_key_value(name)) {
            return Err(Error::invalid_input(format!(
                "cannot register {name}: {owner} is registered and has a series {taken}"
            )));
        }
        registered.owners.extend(names.into_iter().map(|series| (series, name.clone())));
        registered.collectors.insert(name, Arc::new(collector));
        Ok(())
    }

    /// Removes the instrument or family called `name` (a counter's without `_total`). Returns whether there was one.
    pub fn unregister(&self, name: &str) -> bool {
        let mut registered = self.0.lock();
        registered.owners.retain(|_, owner| owner != name);
        registered.collectors.remove(name).is_some()
    }

    /// Makes and registers a counter.
    ///
    /// # Errors
    /// As [`Counter::new`] and [`Registry::register`].
    pub fn counter(&self, name: &str, help: &str) -> Result<Counter> {
        self.add(Counter::new(name, help)?)
    }

    /// Makes and registers a gauge.
    ///
    /// # Errors
    /// As [`Gauge::new`] and [`Registry::register`].
    pub fn gauge(&self, name: &str, help: &str) -> Result<Gauge> {
        self.add(Gauge::new(name, help)?)
    }

    /// Makes and registers a summary.
    ///
    /// # Errors
    /// As [`Summary::new`] and [`Registry::register`].
    pub fn summary(&self, name: &str, help: &str) -> Result<Summary> {
        self.add(Summary::new(name, help)?)
    }

    /// Makes and registers a histogram with the [`DEFAULT_BUCKETS`](super::DEFAULT_BUCKETS).
    ///
    /// # Errors
    /// As [`Histogram::new`] and [`Registry::register`].
    pub fn histogram(&self, name: &str, help: &str) -> Result<Histogram> {
        self.add(Histogram::new(name, help)?)
    }

    fn add<T: Collect + Clone + 'static>(&self, instrument: T) -> Result<T> {
        self.register(instrument.clone())?;
        Ok(instrument)
    }

    /// All families with their samples now, ordered by name.
    pub fn gather(&self) -> Vec<MetricFamily> {
        // Copied out first, so that no lock is held while the host's code runs.
        let collectors: Vec<_> = self.0.lock().collectors.values().cloned().collect();
        collectors.iter().map(|collector| collector.collect()).collect()
    }

    /// All families as a page in the text format of Prometheus, version 0.0.4. What is not in its alphabet of names
    /// is written as `_`.
    pub fn expose(&self) -> String {
        self.expose_as(Format::Text, Names::Underscores)
    }

    /// All families as a page in the format and with the names that were negotiated
    /// ([`Format::from_accept`]).
    pub fn expose_as(&self, format: Format, names: Names) -> String {
        let mut page = String::new();
        write_page(&self.gather(), format, names, &mut page);
        page
    }

    /// Writes all samples into `sink` every `interval`, and once more when the writer is stopped or dropped.
    ///
    /// # Errors
    /// `LimitExceeded` when the system gives no thread.
    pub fn write_every(
        &self,
        interval: Duration,
        sink: impl Sink + 'static,
        env: &Env,
    ) -> Result<RegistryWriter> {
        let writing = Arc::new(Writing {
            registry: self.clone(),
            sink: Box::new(sink),
            env: env.clone(),
            failures: Mutex::default(),
        });
        let own = writing.clone();
        let background = Background::start(env, "registry-writer", interval, move || own.write())?;
        Ok(RegistryWriter { writing, background: Some(background) })
    }
}

/// Writes a registry into a sink at an interval; made by [`Registry::write_every`].
pub struct RegistryWriter {
    writing: Arc<Writing>,
    /// None once it was stopped.
    background: Option<Background>,
}

struct Writing {
    registry: Registry,
    sink: Box<dyn Sink>,
    env: Env,
    failures: Mutex<(u64, Option<Error>)>,
}

impl Writing {
    fn write(&self) {
        let families = self.registry.gather();
        let written = points_of(&families, &[], self.env.stamp()).map_err(Refused::from);
        let written = written.and_then(|points| {
            describe_all(&*self.sink, &families);
            write_caught(&*self.sink, &points)
        });
        if let Err(refused) = written {
            let mut failures = self.failures.lock();
            *failures = (failures.0 + 1, Some(refused.error));
        }
    }
}

impl RegistryWriter {
    /// How many writes failed so far. A failed write is not repeated; the next carries the values as they are then.
    pub fn failure_count(&self) -> u64 {
        self.writing.failures.lock().0
    }

    /// Stops writing, after a last write.
    ///
    /// # Errors
    /// The last failure since the start, if there was one.
    pub fn stop(mut self) -> Result<()> {
        self.finish();
        self.writing.failures.lock().1.take().map_or(Ok(()), Err)
    }

    fn finish(&mut self) {
        if self.background.take().is_some() {
            self.writing.write();
        }
    }
}

impl Drop for RegistryWriter {
    fn drop(&mut self) {
        self.finish();
    }
}

impl fmt::Debug for RegistryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failure_count = self.failure_count();
        f.debug_struct("RegistryWriter").field("failure_count", &failure_count).finish_non_exhaustive()
    }
}

/// The names that series of a family can have, and the family's own.
fn series_names(name: &str, kind: MetricKind) -> Vec<String> {
    let suffixes: &[&str] = match kind {
        MetricKind::Counter => &["", "_total"],
        MetricKind::Summary => &["", "_count", "_sum"],
        MetricKind::Histogram => &["", "_bucket", "_count", "_sum"],
        _ => &[""],
    };
    suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect()
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.lock().collectors.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::ingest::sink::tests::MemorySink;
    use crate::model::Timestamp;

    #[track_caller]
    fn refused<T: fmt::Debug>(result: Result<T>, part: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn two_families_never_share_a_series() {
        let registry = Registry::new();
        registry.counter("a_total", "").unwrap();
        registry.summary("s", "").unwrap();
        refused(registry.counter("a", ""), "cannot register a: a is registered");
        refused(registry.gauge("a_total", ""), "has a series a_total");
        refused(registry.histogram("s", ""), "cannot register s");
        refused(registry.gauge("s_sum", ""), "has a series s_sum");
        registry.gauge("s_bucket", "").unwrap();
        refused(Counter::new("s_bucket", "").and_then(|c| registry.register(c)), "has a series s_bucket");
    }

    #[test]
    fn a_page_is_as_the_python_client_writes_it() {
        let registry = Registry::new();
        registry.counter("Counter", "Counts").unwrap().inc();
        registry.gauge("Gauge", "").unwrap().set(42);
        registry.summary("dotted.name", "a\nb").unwrap().observe(4.7);
        let histogram = Histogram::with_buckets("h", "", [0.005, 1.0]).unwrap();
        histogram.observe(1);
        registry.register(histogram).unwrap();
        let expected = "# HELP Counter_total Counts\n# TYPE Counter_total counter\nCounter_total 1\n\
            # TYPE Gauge gauge\nGauge 42\n\
            # HELP dotted_name a\\nb\n# TYPE dotted_name summary\ndotted_name_count 1\ndotted_name_sum 4.7\n\
            # TYPE h histogram\nh_bucket{le=\"0.005\"} 0\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 1\n\
            h_count 1\nh_sum 1\n";
        assert_eq!(registry.expose(), expected);
        let page = registry.expose_as(Format::OpenMetrics, Names::Utf8);
        assert!(page.starts_with("# HELP Counter Counts\n# TYPE Counter counter\nCounter_total 1"), "{page}");
        assert!(page.contains("{\"dotted.name_count\"} 1") && page.ends_with("# EOF\n"), "{page}");
    }

    #[test]
    fn a_removed_name_is_free_again() {
        let registry = Registry::new();
        registry.histogram("h", "").unwrap();
        assert!(registry.unregister("h"));
        assert!(!registry.unregister("h"));
        registry.gauge("h_count", "").unwrap();
        assert_eq!(registry.gather().len(), 1);
    }

    #[test]
    fn a_writer_writes_at_its_interval_and_at_its_end() {
        let clock = ManualClock::new(Timestamp::from_secs(1));
        let env = Env::new(Env::simulated(1).fs, Arc::new(clock.clone()), 1);
        let (registry, sink) = (Registry::new(), MemorySink::new());
        let gauge = registry.gauge("g", "").unwrap();
        let writer = registry.write_every(Duration::from_secs(10), sink.clone(), &env).unwrap();
        assert!(sink.points.lock().is_empty());
        while sink.points.lock().is_empty() {
            clock.advance(Duration::from_secs(1));
            // The thread looks at a clock that is moved by hand every millisecond.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        gauge.set(5);
        sink.refuse(Error::busy("first"), None);
        assert_eq!(writer.stop().unwrap_err().to_string(), "first");
        let writer = registry.write_every(Duration::from_secs(10), sink.clone(), &env).unwrap();
        writer.stop().unwrap();
        assert_eq!(sink.shown().last().unwrap(), "g 5");
    }

    #[test]
    fn a_function_may_use_the_registry_it_is_in() {
        let registry = Registry::new();
        let gauge = registry.gauge("families", "").unwrap();
        let same = registry.clone();
        gauge.set_function(move || f64::from(u8::from(same.unregister("families"))));
        assert_eq!(registry.gather()[0].samples[0].value, 1.0);
        assert!(registry.gather().is_empty());
    }
}
