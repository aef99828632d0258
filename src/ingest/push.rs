//! `MetricsLogger`: named instruments that are pushed together under a job and a grouping key.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::Env;
use crate::error::{Error, Result};
#[cfg(feature = "client")]
use crate::ingest::pushgateway::Pushgateway;
use crate::ingest::sink::{Sink, describe_all, points_of};
use crate::ingest::{Counter, Gauge, Histogram, MetricKind, Registry, Summary};
use crate::model::SeriesKey;

/// The tag that holds the job.
const JOB_KEY: &str = "job";

/// Instruments by name, pushed when the host says so.
///
/// Every sample of a push has the time of the push, and the tag `job` and those of the grouping key over its own.
///
/// ```
/// use icecore::ingest::{MetricsLogger, Point, Refused, Sink};
/// # use std::sync::{Arc, Mutex};
/// # #[derive(Default)]
/// # struct Kept(Mutex<Vec<Point>>);
/// # impl Sink for Kept {
/// #     fn write(&self, points: &[Point]) -> Result<(), Refused> {
/// #         self.0.lock().unwrap().extend_from_slice(points);
/// #         Ok(())
/// #     }
/// # }
/// # let kept = Arc::new(Kept::default());
/// let mut logger = MetricsLogger::new("train", [("ProjectA", "SomeLabel")])?.to_sink(kept.clone());
///
/// logger.add_gauge("Gauge", "")?;
/// logger.add_counter("Counter", "")?;
///
/// for rand_num in [42, 17] {
///     logger.set("Gauge", 5)?;
///     logger["Gauge"].set(rand_num);
///     logger["Counter"].inc();
///     logger.push_metrics()?;
/// }
/// # let points = kept.0.lock().unwrap();
/// assert_eq!(points[2].key.to_string(), r#"Counter_total{ProjectA="SomeLabel",job="train"}"#);
/// assert_eq!(points[3].value, 17.0);
/// # Ok::<(), icecore::Error>(())
/// ```
pub struct MetricsLogger {
    /// The job and the grouping key.
    tags: Vec<(String, String)>,
    registry: Registry,
    instruments: BTreeMap<String, NamedInstrument>,
    target: Target,
    env: Env,
    ignored: Arc<AtomicU64>,
}

/// Where pushes go.
enum Target {
    Nowhere,
    Sink(Box<dyn Sink>),
    #[cfg(feature = "client")]
    Gateway(Pushgateway),
}

/// An instrument of a [`MetricsLogger`], whatever its type.
///
/// What an instrument of its type cannot do (`set` on a counter, `observe` on a gauge) is ignored and counted in
/// [`MetricsLogger::ignored_count`]; the typed instrument that `add_...` returns has no such calls.
#[derive(Clone, Debug)]
pub struct NamedInstrument {
    instrument: AnyInstrument,
    ignored: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
enum AnyInstrument {
    Counter(Counter),
    Gauge(Gauge),
    Summary(Summary),
    Histogram(Histogram),
}

impl MetricsLogger {
    /// A logger without instruments. It pushes nowhere until it is told where.
    ///
    /// # Errors
    /// `InvalidInput` for an empty job, and for a grouping key with an empty, reserved or repeated name, or with `job`.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(
        job: &str,
        grouping_key: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self> {
        if job.is_empty() {
            return Err(Error::invalid_input("a metrics logger needs a job"));
        }
        let grouping = grouping_key.into_iter().map(|(k, v)| (k.as_ref().to_owned(), v.as_ref().to_owned()));
        let job = (JOB_KEY.to_owned(), job.to_owned());
        let tags: Vec<_> = std::iter::once(job).chain(grouping).collect();
        // An empty value is a tag that is taken away; its name is checked all the same.
        SeriesKey::new("group", tags.iter().map(|(k, v)| (k, if v.is_empty() { "-" } else { v })))?;
        Ok(MetricsLogger {
            tags,
            registry: Registry::new(),
            instruments: BTreeMap::new(),
            target: Target::Nowhere,
            env: Env::system(),
            ignored: Arc::default(),
        })
    }

    /// The same logger, pushing into `sink`.
    #[must_use]
    pub fn to_sink(mut self, sink: impl Sink + 'static) -> Self {
        self.target = Target::Sink(Box::new(sink));
        self
    }

    /// The same logger, pushing to a Pushgateway, ours among them, at `address` (`host:port` or a URL).
    ///
    /// Each push replaces what the gateway holds of this job and grouping key. It stamps the samples itself, and lays
    /// job and grouping key over their tags. Names outside of `[a-zA-Z0-9_:]` are sent with `_`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong address, or a grouping key outside of `[a-zA-Z_][a-zA-Z0-9_]*`.
    #[cfg(feature = "client")]
    pub fn to_gateway(mut self, address: &str) -> Result<Self> {
        self.target = Target::Gateway(Pushgateway::new(address, &self.tags)?);
        Ok(self)
    }

    /// The same logger, taking the time of pushes from `env`.
    #[must_use]
    pub fn with_env(mut self, env: &Env) -> Self {
        self.env = env.clone();
        self
    }

    /// Adds a counter. It is reached under `name` as given here, and pushed with `_total`.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name or one that is taken.
    pub fn add_counter(&mut self, name: &str, help: &str) -> Result<Counter> {
        let counter = self.registry.counter(name, help)?;
        self.keep(name, AnyInstrument::Counter(counter.clone()));
        Ok(counter)
    }

    /// Adds a gauge.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name or one that is taken.
    pub fn add_gauge(&mut self, name: &str, help: &str) -> Result<Gauge> {
        let gauge = self.registry.gauge(name, help)?;
        self.keep(name, AnyInstrument::Gauge(gauge.clone()));
        Ok(gauge)
    }

    /// Adds a summary.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name or one that is taken.
    pub fn add_summary(&mut self, name: &str, help: &str) -> Result<Summary> {
        let summary = self.registry.summary(name, help)?;
        self.keep(name, AnyInstrument::Summary(summary.clone()));
        Ok(summary)
    }

    /// Adds a histogram with the [`DEFAULT_BUCKETS`](super::DEFAULT_BUCKETS).
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name or one that is taken.
    pub fn add_histogram(&mut self, name: &str, help: &str) -> Result<Histogram> {
        self.add_histogram_with_buckets(name, help, super::DEFAULT_BUCKETS)
    }

    /// Adds a histogram with these upper bounds.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong name or one that is taken, or wrong bounds.
    pub fn add_histogram_with_buckets(
        &mut self,
        name: &str,
        help: &str,
        bounds: impl IntoIterator<Item = f64>,
    ) -> Result<Histogram> {
        let histogram = Histogram::with_buckets(name, help, bounds)?;
        self.registry.register(histogram.clone())?;
        self.keep(name, AnyInstrument::Histogram(histogram.clone()));
        Ok(histogram)
    }

    fn keep(&mut self, name: &str, instrument: AnyInstrument) {
        let named = NamedInstrument { instrument, ignored: self.ignored.clone() };
        self.instruments.insert(name.to_owned(), named);
    }

    /// The instrument that was added as `name`.
    pub fn get(&self, name: &str) -> Option<&NamedInstrument> {
        self.instruments.get(name)
    }

    /// Sets the gauge `name`: the item assignment `logger["Gauge"] = 5` of the original.
    ///
    /// # Errors
    /// `InvalidInput` when there is no gauge of this name.
    pub fn set(&self, name: &str, value: impl Into<f64>) -> Result<()> {
        match self.get(name).map(|named| &named.instrument) {
            Some(AnyInstrument::Gauge(gauge)) => {
                gauge.set(value);
                Ok(())
            }
            Some(other) => {
                let kind = other.kind().name();
                Err(Error::invalid_input(format!("cannot set {name:?}: it is a {kind}, not a gauge")))
            }
            None => Err(Error::invalid_input(self.unknown(name))),
        }
    }

    /// The registry of the instruments, to which families and instruments of the host's own can be added.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many calls were ignored because an instrument's type does not have them.
    pub fn ignored_count(&self) -> u64 {
        self.ignored.load(Ordering::Relaxed)
    }

    /// Writes every sample with the present time.
    ///
    /// # Errors
    /// `InvalidInput` when no target was given, or name and tags of a sample make no series; otherwise the
    /// target's. Nothing is kept for later: the next push carries the values as they are then.
    pub fn push_metrics(&self) -> Result<()> {
        let families = self.registry.gather();
        match &self.target {
            Target::Nowhere => Err(Error::invalid_input("the metrics logger was not told where to push")),
            Target::Sink(sink) => {
                let points = points_of(&families, &self.tags, self.env.stamp())?;
                describe_all(&**sink, &families);
                sink.write(&points).map_err(|refused| refused.error)
            }
            #[cfg(feature = "client")]
            Target::Gateway(gateway) => gateway.put(&families),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.instruments.keys().map(String::as_str).collect();
        format!("the metrics logger has no {name:?}; it has [{}]", known.join(", "))
    }
}

impl Index<&str> for MetricsLogger {
    type Output = NamedInstrument;

    /// The instrument that was added as `name`.
    ///
    /// # Panics
    /// When there is none; [`MetricsLogger::get`] does not.
    fn index(&self, name: &str) -> &NamedInstrument {
        self.get(name).unwrap_or_else(|| panic!("{}", self.unknown(name)))
    }
}

impl AnyInstrument {
    fn kind(&self) -> MetricKind {
        match self {
            AnyInstrument::Counter(_) => MetricKind::Counter,
            AnyInstrument::Gauge(_) => MetricKind::Gauge,
            AnyInstrument::Summary(_) => MetricKind::Summary,
            AnyInstrument::Histogram(_) => MetricKind::Histogram,
        }
    }
}

impl NamedInstrument {
    /// Its type.
    pub fn kind(&self) -> MetricKind {
        self.instrument.kind()
    }

    /// Adds 1 to a counter or gauge.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds to a counter or gauge.
    pub fn inc_by(&self, amount: impl Into<f64>) {
        match &self.instrument {
            AnyInstrument::Counter(counter) => counter.inc_by(amount),
            AnyInstrument::Gauge(gauge) => gauge.inc_by(amount),
            _ => self.ignore(),
        }
    }

    /// Takes 1 from a gauge.
    pub fn dec(&self) {
        self.dec_by(1);
    }

    /// Takes from a gauge.
    pub fn dec_by(&self, amount: impl Into<f64>) {
        match &self.instrument {
            AnyInstrument::Gauge(gauge) => gauge.dec_by(amount),
            _ => self.ignore(),
        }
    }

    /// Sets a gauge.
    pub fn set(&self, value: impl Into<f64>) {
        match &self.instrument {
            AnyInstrument::Gauge(gauge) => gauge.set(value),
            _ => self.ignore(),
        }
    }

    /// Adds an observation to a summary or histogram.
    pub fn observe(&self, value: impl Into<f64>) {
        match &self.instrument {
            AnyInstrument::Summary(summary) => summary.observe(value),
            AnyInstrument::Histogram(histogram) => histogram.observe(value),
            _ => self.ignore(),
        }
    }

    /// Runs `work` and observes the seconds it took in a summary or histogram.
    pub fn time<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.instrument {
            AnyInstrument::Summary(summary) => summary.time(work),
            AnyInstrument::Histogram(histogram) => histogram.time(work),
            _ => {
                self.ignore();
                work()
            }
        }
    }

    fn ignore(&self) {
        self.ignored.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for MetricsLogger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsLogger")
            .field("tags", &self.tags)
            .field("instruments", &self.instruments.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::ingest::sink::tests::MemorySink;

    const NO_GROUP: [(&str, &str); 0] = [];

    fn logger(sink: &Arc<MemorySink>) -> MetricsLogger {
        MetricsLogger::new("j", [("name", "loss")])
            .unwrap()
            .to_sink(sink.clone())
            .with_env(&Env::simulated(1))
    }

    #[test]
    fn a_push_writes_every_sample_at_one_time() {
        let sink = MemorySink::new();
        let mut logger = logger(&sink);
        logger.add_gauge("loss", "How bad it is").unwrap();
        logger.add_counter("steps_total", "").unwrap();
        logger.add_summary("s", "").unwrap();
        logger.add_histogram_with_buckets("h", "", [1.0]).unwrap();
        logger["loss"].set(0.2);
        logger["steps_total"].inc_by(3);
        logger["s"].observe(4.7);
        logger["h"].observe(0.5);
        logger.push_metrics().unwrap();
        let expected = [
            r#"h_bucket{job="j",le="1.0",name="loss"} 1"#,
            r#"h_bucket{job="j",le="+Inf",name="loss"} 1"#,
            r#"h_count{job="j",name="loss"} 1"#,
            r#"h_sum{job="j",name="loss"} 0.5"#,
            r#"loss{job="j",name="loss"} 0.2"#,
            r#"s_count{job="j",name="loss"} 1"#,
            r#"s_sum{job="j",name="loss"} 4.7"#,
            r#"steps_total{job="j",name="loss"} 3"#,
        ];
        assert_eq!(sink.shown(), expected);
        logger.push_metrics().unwrap();
        let times: Vec<_> = sink.points.lock().iter().map(|point| point.time).collect();
        assert!(times[..8].iter().all(|time| *time == times[0]));
        assert!(times[8..].iter().all(|time| *time == times[8]) && times[8] > times[0]);
        let described = sink.metadata.lock();
        assert_eq!((described[1].0.as_str(), described[1].1.help.as_str()), ("loss", "How bad it is"));
        assert_eq!((described[3].0.as_str(), described[3].1.kind), ("steps_total", MetricKind::Counter));
    }

    #[test]
    fn job_and_grouping_key_lie_over_the_tags_of_families() {
        let sink = MemorySink::new();
        let logger = logger(&sink);
        let family = Gauge::family("g", "", ["job", "name", "pod"]).unwrap();
        family.labels(["mine", "x", "p"]).unwrap().set(1);
        logger.registry().register(family).unwrap();
        logger.push_metrics().unwrap();
        assert_eq!(sink.shown(), [r#"g{job="j",name="loss",pod="p"} 1"#]);
    }

    #[test]
    fn what_a_type_cannot_do_is_ignored_and_counted() {
        let mut logger = logger(&MemorySink::new());
        let counter = logger.add_counter("c", "").unwrap();
        let gauge = logger.add_gauge("g", "").unwrap();
        logger["c"].set(5);
        logger["c"].dec();
        logger["g"].observe(5);
        assert_eq!(logger["g"].time(|| 7), 7);
        logger["c"].inc();
        logger["g"].dec_by(2);
        assert_eq!((counter.value(), gauge.value(), logger.ignored_count()), (1.0, -2.0, 4));
    }

    #[track_caller]
    fn refused<T: fmt::Debug>(result: Result<T>, expected: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn wrong_names_and_groups_are_refused() {
        let mut logger = logger(&MemorySink::new());
        logger.add_counter("c", "").unwrap();
        refused(logger.set("c", 1), "it is a counter, not a gauge");
        refused(logger.set("x", 1), "has no \"x\"; it has [c]");
        refused(logger.add_gauge("c", ""), "c is registered");
        refused(MetricsLogger::new("", NO_GROUP), "needs a job");
        refused(MetricsLogger::new("j", [("job", "k")]), "twice");
        refused(MetricsLogger::new("j", [("__name__", "")]), "name itself");
        refused(MetricsLogger::new("j", NO_GROUP).unwrap().push_metrics(), "not told where");
    }

    #[test]
    #[should_panic(expected = "has no \"loss\"")]
    fn an_unknown_name_panics_when_indexed() {
        logger(&MemorySink::new())["loss"].inc();
    }
}
