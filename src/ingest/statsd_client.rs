//! `StatsdClient`: tagged measurements that are sent and forgotten, over UDP or straight into a sink.
//!
//! No call returns an error, blocks or panics. What goes wrong is counted, by reason.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::env::Env;
use crate::ingest::aggregate::{Aggregator, NotTaken, Update};
use crate::ingest::background::Background;
use crate::ingest::sink::{Sink, write_caught};
use crate::ingest::statsd_socket::{Outcome, StatsdSocket};
use crate::model::SeriesKey;

/// The port on which Cortex' StatsD exporter, and ours, listens.
const DEFAULT_PORT: u16 = 9125;

/// What a [`StatsdClient`] has sent, and what it could not send, by reason. One for each call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatsdCounts {
    /// Handed to the network, or taken into the aggregates of a sink.
    pub sent: u64,
    /// Sent to a port on which nobody listened. The network says so with the next call, if at all.
    pub refused: u64,
    /// Longer than a datagram can be.
    pub too_long: u64,
    /// The host's name was not (yet) resolved, and too many calls already wait for it.
    pub unresolved: u64,
    /// The system's buffer was full.
    pub would_block: u64,
    /// Name, tags or value make no measurement.
    pub invalid: u64,
    /// A cap on series, or on members of a set, was reached.
    pub limit: u64,
    /// Any other failure of the network.
    pub network: u64,
    /// Writes of all aggregates that the sink refused; the next write makes up for them.
    pub sink_refused: u64,
}

/// Sends counters, gauges and observations with tags, and forgets them.
///
/// ```
/// use icecore::ingest::StatsdClient;
///
/// let metrics = StatsdClient::udp("127.0.0.1:9125");
///
/// // increment a counter with name "my_counter" and tags model:v1
/// metrics.increment("my_counter", 1, [("model", "v1")]);
///
/// // set the value for a gauge with name "my_gauge" and tags model:v1
/// metrics.gauge("my_gauge", 42, [("model", "v1")]);
///
/// // set the value for an histogram with name "my_histogram" and tags model:v1
/// metrics.histogram("my_histogram", 100, [("model", "v1")]);
/// ```
///
/// Nobody needs to listen: there is no error to be handled. [`StatsdClient::counts`] says what happened.
///
/// Over UDP one call is one datagram in the DogStatsD form. What its syntax has no room for (`|`, `:` and line breaks in
/// a name, `|`, `,` and line breaks in a tag) is sent as `_`. Into a sink, counters add up, gauges keep the last value,
/// observations fill the [`DEFAULT_BUCKETS`](super::DEFAULT_BUCKETS) of a histogram, and all of it is written at an
/// interval; names and tags are kept as they are.
pub struct StatsdClient {
    target: Target,
    counters: Arc<Counters>,
}

enum Target {
    Udp(StatsdSocket),
    Sink {
        aggregating: Arc<Aggregating>,
        /// None where no thread could be started: everything is then written at the end.
        background: Option<Background>,
    },
}

#[derive(Default)]
struct Counters {
    sent: AtomicU64,
    refused: AtomicU64,
    too_long: AtomicU64,
    unresolved: AtomicU64,
    would_block: AtomicU64,
    invalid: AtomicU64,
    limit: AtomicU64,
    network: AtomicU64,
    sink_refused: AtomicU64,
}

struct Aggregating {
    aggregator: Mutex<Aggregator>,
    sink: Box<dyn Sink>,
    env: Env,
    counters: Arc<Counters>,
}

/// One measurement as both targets understand it.
struct Measurement<'a> {
    update: Update<'a>,
    /// The letters of its type.
    wire_type: &'static str,
    /// The number on the wire, where it is not that of the update (milliseconds).
    wire_value: f64,
}

impl StatsdClient {
    /// A client that sends datagrams to `address`, `host:port`.
    ///
    /// A name is resolved in the background; what is sent meanwhile waits, a thousand calls of it.
    pub fn udp(address: &str) -> Self {
        Self::udp_in(address, &Env::system())
    }

    fn udp_in(address: &str, env: &Env) -> Self {
        let counters = Arc::<Counters>::default();
        let own = counters.clone();
        let socket = StatsdSocket::new(address, env, move |outcome| own.count(outcome));
        StatsdClient { target: Target::Udp(socket), counters }
    }

    /// A client that finds its server as Cortex' does: on the node that `HOST_IP` names (else on this machine), at the
    /// port `CORTEX_STATSD_PORT` (else 9125).
    pub fn from_env() -> Self {
        let host = std::env::var("HOST_IP").unwrap_or_else(|_| "127.0.0.1".to_owned());
        let port = std::env::var("CORTEX_STATSD_PORT").ok().and_then(|port| port.parse().ok());
        let port: u16 = port.unwrap_or(DEFAULT_PORT);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Self::udp(&format!("{host}:{port}"))
    }

    /// A client that writes into `sink` every `interval` and when it is dropped.
    pub fn to_sink(sink: impl Sink + 'static, interval: Duration, env: &Env) -> Self {
        let counters = Arc::<Counters>::default();
        let aggregating = Arc::new(Aggregating {
            aggregator: Mutex::default(),
            sink: Box::new(sink),
            env: env.clone(),
            counters: counters.clone(),
        });
        let own = aggregating.clone();
        let background = Background::start(env, "statsd-writer", interval, move || own.write()).ok();
        StatsdClient { target: Target::Sink { aggregating, background }, counters }
    }

    /// Adds to a counter.
    pub fn increment<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        let value = value.into();
        self.send(metric, tags, &Measurement::new(Update::Count(value), "c", value));
    }

    /// Subtracts from a counter.
    pub fn decrement<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        self.increment(metric, -value.into(), tags);
    }

    /// Sets a gauge.
    pub fn gauge<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        let value = value.into();
        self.send(metric, tags, &Measurement::new(Update::Set(value), "g", value));
    }

    /// Observes a value in a histogram.
    pub fn histogram<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        self.send(metric, tags, &Measurement::observe("h", value.into()));
    }

    /// Observes a value of which the distribution over all hosts is wanted.
    pub fn distribution<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        self.send(metric, tags, &Measurement::observe("d", value.into()));
    }

    /// Observes how long something took. Sent in milliseconds; a sink gets seconds.
    pub fn timing<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        took: Duration,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        let seconds = took.as_secs_f64();
        let update = Update::Observe { value: seconds, weight: 1.0 };
        self.send(metric, tags, &Measurement::new(update, "ms", seconds * 1e3));
    }

    /// Puts a member into a set, of which the number of distinct members is kept.
    pub fn set<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        member: &str,
        tags: impl IntoIterator<Item = (K, V)>,
    ) {
        self.send(metric, tags, &Measurement::new(Update::Member(member), "s", 0.0));
    }

    /// What was sent and what was not, so far.
    pub fn counts(&self) -> StatsdCounts {
        self.counters.read()
    }

    fn send<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        tags: impl IntoIterator<Item = (K, V)>,
        measurement: &Measurement<'_>,
    ) {
        match &self.target {
            Target::Udp(socket) => match line(metric, tags, measurement) {
                Some(line) => socket.send(line),
                None => self.counters.add(|counters| &counters.invalid),
            },
            Target::Sink { aggregating, .. } => aggregating.take(metric, tags, measurement.update),
        }
    }
}

impl Drop for StatsdClient {
    fn drop(&mut self) {
        if let Target::Sink { aggregating, background } = &mut self.target {
            drop(background.take());
            aggregating.write();
        }
    }
}

impl Aggregating {
    fn take<K: AsRef<str>, V: AsRef<str>>(
        &self,
        metric: &str,
        tags: impl IntoIterator<Item = (K, V)>,
        update: Update<'_>,
    ) {
        let now = self.env.clock.monotonic();
        let taken = SeriesKey::new(metric, tags)
            .map_err(|_| NotTaken::InvalidSeries)
            .and_then(|key| self.aggregator.lock().record(&key, update, now));
        self.counters.add(|counters| match taken {
            Ok(()) => &counters.sent,
            Err(NotTaken::LimitExceeded) => &counters.limit,
            Err(_) => &counters.invalid,
        });
    }

    fn write(&self) {
        let (points, metrics) = {
            let mut aggregator = self.aggregator.lock();
            // Stamped under the lock, so that two writers' values are in order of their times.
            let points = aggregator.write(self.env.stamp(), self.env.clock.monotonic());
            (points, aggregator.take_new_metrics())
        };
        metrics.iter().for_each(|(name, metadata)| self.sink.describe(name, metadata));
        if !points.is_empty() && write_caught(&*self.sink, &points).is_err() {
            self.counters.add(|counters| &counters.sink_refused);
        }
    }
}

impl<'a> Measurement<'a> {
    fn new(update: Update<'a>, wire_type: &'static str, wire_value: f64) -> Self {
        Measurement { update, wire_type, wire_value }
    }

    fn observe(wire_type: &'static str, value: f64) -> Self {
        Self::new(Update::Observe { value, weight: 1.0 }, wire_type, value)
    }
}

/// `name:value|type|#key:value,...`, or nothing when there is no name.
fn line<K: AsRef<str>, V: AsRef<str>>(
    metric: &str,
    tags: impl IntoIterator<Item = (K, V)>,
    measurement: &Measurement<'_>,
) -> Option<String> {
    if metric.is_empty() {
        return None;
    }
    let mut line = String::with_capacity(64);
    push_clean(&mut line, metric, &['|', ':']);
    line.push(':');
    match measurement.update {
        Update::Member(member) => push_clean(&mut line, member, &['|']),
        _ => push_value(&mut line, measurement.wire_value),
    }
    line.push('|');
    line.push_str(measurement.wire_type);
    let mut mark = "|#";
    for (key, value) in tags {
        line.push_str(mark);
        push_clean(&mut line, key.as_ref(), &['|', ',', ':']);
        line.push(':');
        push_clean(&mut line, value.as_ref(), &['|', ',']);
        mark = ",";
    }
    Some(line)
}

/// Appends `text` with `_` for line breaks and for what `syntax` names.
fn push_clean(line: &mut String, text: &str, syntax: &[char]) {
    line.extend(text.chars().map(|c| if c == '\n' || c == '\r' || syntax.contains(&c) { '_' } else { c }));
}

/// Appends the shortest form that reads back as `value`, as short as an integer's where it is one.
fn push_value(line: &mut String, value: f64) {
    let size = value.abs();
    // Writing to a String cannot fail.
    let _ = if size.is_finite() && size != 0.0 && !(1e-5..1e17).contains(&size) {
        write!(line, "{value:e}")
    } else if value.is_infinite() {
        write!(line, "{}inf", if value < 0.0 { "-" } else { "" })
    } else if value.is_nan() {
        write!(line, "nan")
    } else {
        write!(line, "{value}")
    };
}

impl Counters {
    fn add(&self, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self, outcome: Outcome) {
        self.add(|counters| match outcome {
            Outcome::Sent => &counters.sent,
            Outcome::Refused => &counters.refused,
            Outcome::TooLong => &counters.too_long,
            Outcome::Unresolved => &counters.unresolved,
            Outcome::WouldBlock => &counters.would_block,
            Outcome::Network => &counters.network,
        });
    }

    fn read(&self) -> StatsdCounts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StatsdCounts {
            sent: load(&self.sent),
            refused: load(&self.refused),
            too_long: load(&self.too_long),
            unresolved: load(&self.unresolved),
            would_block: load(&self.would_block),
            invalid: load(&self.invalid),
            limit: load(&self.limit),
            network: load(&self.network),
            sink_refused: load(&self.sink_refused),
        }
    }
}

impl fmt::Debug for StatsdClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatsdClient").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::error::Error;
    use crate::ingest::sink::tests::MemorySink;
    use crate::model::Timestamp;
    use std::net::UdpSocket;

    const NONE: [(&str, &str); 0] = [];

    fn server() -> (UdpSocket, StatsdClient) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let client = StatsdClient::udp(&server.local_addr().unwrap().to_string());
        (server, client)
    }

    fn receive(server: &UdpSocket) -> String {
        let mut buffer = [0; 65_536];
        let size = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..size].to_vec()).unwrap()
    }

    #[test]
    fn the_datagrams_are_those_of_the_recorded_client() {
        let (server, client) = server();
        client.increment("my_counter", 1, [("model", "v1")]);
        assert_eq!(receive(&server), "my_counter:1|c|#model:v1");
        client.gauge("my_gauge", 42, [("model", "v1")]);
        assert_eq!(receive(&server), "my_gauge:42|g|#model:v1");
        client.histogram("my_histogram", 100, [("model", "v1")]);
        assert_eq!(receive(&server), "my_histogram:100|h|#model:v1");
        client.decrement("neg", 2, NONE);
        assert_eq!(receive(&server), "neg:-2|c");
        client.gauge("gfloat", 0.300_000_000_000_000_04, [("x", "1"), ("colon", "a:b:c")]);
        assert_eq!(receive(&server), "gfloat:0.30000000000000004|g|#x:1,colon:a:b:c");
        client.timing("t", Duration::from_micros(12_500), [("a", "b")]);
        assert_eq!(receive(&server), "t:12.5|ms|#a:b");
        client.distribution("d", 1, NONE);
        assert_eq!(receive(&server), "d:1|d");
        client.set("s", "user one", NONE);
        assert_eq!(receive(&server), "s:user one|s");
        assert_eq!(client.counts(), StatsdCounts { sent: 8, ..StatsdCounts::default() });
    }

    #[cfg(any(feature = "server", feature = "cli"))] // which have the parser
    #[test]
    fn every_line_parses_back() {
        use crate::protocol::statsd;
        let values = [0.0, -0.0, 5e-324, 1e308, -1e-5, 9_007_199_254_740_993.0, 1e17, f64::INFINITY];
        for value in values.into_iter().chain([f64::NEG_INFINITY]) {
            let tags = [("k|ey:,", "v|al\n,:ue"), ("uni", "Προμ")];
            let line = line("na|me:\n", tags, &Measurement::observe("h", value)).unwrap();
            let options = statsd::Options::default();
            let statsd::Message::Metric(metric) = statsd::parse_line(line.as_bytes(), &options).unwrap()
            else {
                panic!("{line} is no metric");
            };
            assert_eq!(metric.name, "na_me__");
            let read: Vec<u64> = metric.readings().map(|reading| reading.value.to_bits()).collect();
            assert_eq!(read, [value.to_bits()], "{line}");
        }
    }

    #[test]
    fn nothing_that_goes_wrong_reaches_the_caller() {
        let (server, client) = server();
        let long = "x".repeat(70_000);
        client.increment(&long, 1, NONE);
        client.increment("", 1, NONE);
        assert_eq!(client.counts(), StatsdCounts { too_long: 1, invalid: 1, ..StatsdCounts::default() });
        drop(server);
        // The refusal of a datagram comes back with a later one, which is sent nevertheless.
        for _ in 0..1_000 {
            client.increment("m", 1, NONE);
            if client.counts().refused > 0 {
                return;
            }
            std::thread::yield_now();
        }
        panic!("no refusal was noticed: {:?}", client.counts());
    }

    #[test]
    fn a_server_that_comes_back_gets_the_first_datagram() {
        let (server, client) = server();
        let address = server.local_addr().unwrap();
        drop(server);
        client.increment("lost", 1, NONE);
        let server = UdpSocket::bind(address).unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.increment("first", 1, NONE);
        assert_eq!(receive(&server), "first:1|c");
    }

    #[test]
    fn a_sink_gets_running_values() {
        let clock = ManualClock::new(Timestamp::from_secs(1));
        let env = Env::new(Env::simulated(1).fs, Arc::new(clock.clone()), 1);
        let sink = MemorySink::new();
        let client = StatsdClient::to_sink(sink.clone(), Duration::from_secs(10), &env);
        client.increment("c", 1, [("model", "v1")]);
        client.increment("c", 2, [("model", "v1")]);
        client.increment("c", f64::NAN, [("model", "v1")]);
        client.gauge("", 1, NONE);
        sink.refuse(Error::busy("first"), None);
        while client.counts().sink_refused == 0 {
            clock.advance(Duration::from_secs(1));
            // The thread looks at a clock that is moved by hand every millisecond.
            std::thread::park_timeout(Duration::from_millis(1));
        }
        client.increment("c", 4, [("model", "v1")]);
        client.timing("t", Duration::from_millis(20), NONE);
        let counts = client.counts();
        assert_eq!((counts.sent, counts.invalid, counts.sink_refused), (4, 2, 1));
        drop(client);
        let shown = sink.shown();
        assert!(shown.contains(&r#"c{model="v1"} 7"#.to_owned()), "{shown:?}");
        assert!(shown.contains(&r#"t_bucket{le="0.025"} 1"#.to_owned()), "{shown:?}");
        assert!(shown.contains(&r#"t_bucket{le="0.01"} 0"#.to_owned()), "{shown:?}");
    }
}
