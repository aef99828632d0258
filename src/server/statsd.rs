//! StatsD and DogStatsD over UDP: datagrams become aggregates, which are written at an interval.
//!
//! One thread receives, parses, aggregates and writes; it owns all of that state. Nothing is dropped without being
//! counted, by reason, and no datagram is fatal. Lines with a time of their own, events and service checks are stored
//! at once.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::log::{self, Level};
use super::{Frame, bind_error, intake::Intake};
use crate::error::{Error, Result};
use crate::ingest::{Aggregator, NotTaken, Update};
use crate::model::{SeriesKey, Timestamp, ValueRef};
use crate::protocol::label::join_tags;
use crate::protocol::statsd::{
    Event, Message, Metric, MetricType, Options, Refusal, ServiceCheck, Tags, parse_datagram,
};

/// The receive buffer that the system is asked for, in bytes: some tens of thousands of datagrams. It may give less.
const RECEIVE_BUFFER_SIZE: usize = 16 << 20;
/// Largest datagram there can be.
const DATAGRAM_SIZE_MAX: usize = 65_535;
/// How long the thread waits for a datagram before it looks whether there is something else to do.
const WAIT: Duration = Duration::from_millis(50);
/// Datagrams received between two looks at the clock.
const BURST: usize = 64;
/// A burst that came in less than this is a stream: then the thread rests instead of waiting for the next datagram, since
/// to be woken for each would cost it and the sender more than all the rest.
const STREAM_TIME: Duration = Duration::from_millis(2);
/// How long it rests. The buffer of the system holds many times what comes meanwhile.
const REST: Duration = Duration::from_micros(500);
/// Fewer datagrams than this after a rest are no stream any more.
const STREAM_COUNT_MIN: usize = 16;
/// The series of events and of service checks.
const EVENT_NAME: &str = "dogstatsd_event";
const SERVICE_CHECK_NAME: &str = "dogstatsd_service_check";
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// What the listener counts. Read by `GET /metrics`.
#[derive(Debug, Default)]
pub(super) struct StatsdCounts {
    datagrams: AtomicU64,
    lines: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    not_taken: [AtomicU64; NOT_TAKEN.len()],
    /// Its port, by which the system's own count is found; 0 while there is none.
    port: AtomicU64,
}

/// Why a line that could be read was not taken.
const NOT_TAKEN: [&str; 5] =
    ["type_conflict", "limit_exceeded", "not_a_number", "invalid_series", "not_stored"];
const INVALID_SERIES: usize = 3;
const NOT_STORED: usize = 4;

impl StatsdCounts {
    /// Datagrams received.
    pub(super) fn datagrams(&self) -> u64 {
        self.datagrams.load(Ordering::Relaxed)
    }

    /// The port that is listened on.
    #[cfg(test)]
    pub(super) fn port(&self) -> u16 {
        u16::try_from(self.port.load(Ordering::Relaxed)).unwrap()
    }

    /// Lines taken.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// Lines refused, by reason.
    pub(super) fn refusals(&self) -> Vec<(&'static str, u64)> {
        let parsed = Refusal::ALL.iter().map(|reason| reason.name()).zip(&self.refused);
        let taken = NOT_TAKEN.into_iter().zip(&self.not_taken);
        parsed.chain(taken).map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }

    /// Datagrams that the system dropped because they came faster than they were read. Linux says so; 0 elsewhere.
    pub(super) fn kernel_drops(&self) -> u64 {
        let port = self.port.load(Ordering::Relaxed);
        ["/proc/net/udp", "/proc/net/udp6"]
            .iter()
            .filter_map(|path| std::fs::read_to_string(path).ok())
            .map(|table| drops_of(&table, port))
            .sum()
    }

    fn count(counter: Option<&AtomicU64>) {
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn refuse(&self, refusal: Refusal) {
        Self::count(self.refused.get(refusal as usize));
    }

    fn skip(&self, reason: usize) {
        Self::count(self.not_taken.get(reason));
    }
}

/// The last column of the lines of `/proc/net/udp` whose local port is `port`.
fn drops_of(table: &str, port: u64) -> u64 {
    let of_line = |line: &str| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        let own = u64::from_str_radix(local.rsplit(':').next()?, 16).ok()? == port;
        own.then(|| columns.last()?.parse::<u64>().ok()).flatten()
    };
    table.lines().skip(1).filter_map(of_line).sum()
}

/// The thread that listens.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Takes `address` and starts to receive.
    ///
    /// # Errors
    /// `Busy` when another process has the address; `Io`; `LimitExceeded` when there is no thread.
    pub(super) fn bind(frame: &Arc<Frame>, address: SocketAddr) -> Result<Self> {
        let socket = open_socket(address).map_err(|error| bind_error("--statsd", address, error))?;
        let address = socket.local_addr().map_err(|error| bind_error("--statsd", address, error))?;
        frame.statsd.port.store(u64::from(address.port()), Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let receiver = Receiver {
            frame: Arc::clone(frame),
            aggregator: Aggregator::default(),
            next_write: frame.env.clock.monotonic() + frame.options.statsd_interval,
            options: Options::default(),
        };
        let told = Arc::clone(&stop);
        let thread = frame.env.spawn("icecore-statsd", move || receiver.run(&socket, &told))?;
        Ok(Listener { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes in what has arrived, writes it, and ends.
    pub(super) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::write(Level::Error, format_args!("the StatsD listener had panicked"));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
    }
}

fn open_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Less than was asked for, or nothing more than before, is no reason not to listen.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_SIZE);
    socket.set_read_timeout(Some(WAIT))?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// What the thread owns.
struct Receiver {
    frame: Arc<Frame>,
    aggregator: Aggregator,
    /// When the aggregates are written next, on the monotonic clock.
    next_write: Duration,
    options: Options,
}

impl Receiver {
    fn run(mut self, socket: &UdpSocket, stop: &AtomicBool) {
        let mut buffer = vec![0; DATAGRAM_SIZE_MAX];
        let (mut streaming, mut since_rest) = (false, 0);
        while !stop.load(Ordering::Relaxed) {
            let began = self.frame.env.clock.monotonic();
            let received = self.receive(socket, &mut buffer, BURST);
            since_rest += received;
            if !streaming {
                let quick = self.frame.env.clock.monotonic() - began < STREAM_TIME;
                streaming = received == BURST && quick && socket.set_nonblocking(true).is_ok();
            } else if received < BURST {
                // Nothing is left, so that there is time to rest, or nothing comes any more.
                streaming = since_rest >= STREAM_COUNT_MIN || socket.set_nonblocking(false).is_err();
                since_rest = 0;
                std::thread::park_timeout(REST);
            }
            if self.frame.env.clock.monotonic() >= self.next_write {
                self.write();
            }
        }
        // What has arrived before the end is taken in.
        if socket.set_nonblocking(true).is_ok() {
            self.receive(socket, &mut buffer, usize::MAX);
        }
        self.write();
    }

    /// Takes in datagrams until none comes, at most `count`; how many came.
    fn receive(&mut self, socket: &UdpSocket, buffer: &mut [u8], count: usize) -> usize {
        let now = self.frame.env.clock.monotonic();
        for received in 0..count {
            match socket.recv(buffer) {
                Ok(size) => self.datagram(buffer.get(..size).unwrap_or_default(), now),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nothing came; or an earlier datagram of ours was refused, and there is none.
                Err(_) => return received,
            }
        }
        count
    }

    fn datagram(&mut self, datagram: &[u8], now: Duration) {
        let frame = Arc::clone(&self.frame);
        frame.statsd.datagrams.fetch_add(1, Ordering::Relaxed);
        let options = self.options;
        for message in parse_datagram(datagram, &options) {
            let taken = match message {
                Ok(Message::Metric(metric)) => self.metric(&metric, now),
                Ok(Message::Event(event)) => self.event(&event),
                Ok(Message::ServiceCheck(check)) => self.service_check(&check),
                Err(refusal) => {
                    frame.statsd.refuse(refusal);
                    continue;
                }
            };
            match taken {
                Ok(()) => _ = frame.statsd.lines.fetch_add(1, Ordering::Relaxed),
                Err(reason) => frame.statsd.skip(reason),
            }
        }
    }

    /// Takes in the values of a line. The error is an index into [`NOT_TAKEN`].
    fn metric(&mut self, metric: &Metric<'_>, now: Duration) -> std::result::Result<(), usize> {
        let key = series_key(&metric.name, metric.tags).map_err(|_| INVALID_SERIES)?;
        if let Some(time) = metric.timestamp {
            return self.timed(metric, &key, time);
        }
        if let Some(member) = metric.set_member() {
            return self.record(&key, Update::Member(member), now);
        }
        for reading in metric.readings() {
            let update = match metric.metric_type {
                MetricType::Counter => Update::Count(reading.value / metric.sample_rate),
                MetricType::Gauge if reading.signed && self.frame.options.statsd_relative_gauges => {
                    Update::Add(reading.value)
                }
                MetricType::Gauge => Update::Set(reading.value),
                _ => break,
            };
            self.record(&key, update, now)?;
        }
        if metric.metric_type.is_observed() {
            let weight = 1.0 / metric.sample_rate;
            for value in metric.readings().map(|reading| reading.value) {
                self.record(&key, Update::Observe { value, weight }, now)?;
            }
        }
        Ok(())
    }

    fn record(
        &mut self,
        key: &SeriesKey,
        update: Update<'_>,
        now: Duration,
    ) -> std::result::Result<(), usize> {
        self.aggregator.record(key, update, now).map_err(|reason| match reason {
            NotTaken::TypeConflict => 0,
            NotTaken::LimitExceeded => 1,
            NotTaken::NotANumber => 2,
            NotTaken::InvalidSeries => INVALID_SERIES,
        })
    }

    /// A line with a time is a value that the sender has aggregated: it is stored as it is.
    fn timed(
        &mut self,
        metric: &Metric<'_>,
        key: &SeriesKey,
        time: Timestamp,
    ) -> std::result::Result<(), usize> {
        let mut intake = Intake::new(&self.frame, self.frame.env.clock.now());
        for reading in metric.readings() {
            intake.put_key(key, time, ValueRef::F64(reading.value)).map_err(|_| INVALID_SERIES)?;
        }
        intake.commit(&self.frame).map_err(|_| NOT_STORED)
    }

    fn event(&mut self, event: &Event<'_>) -> std::result::Result<(), usize> {
        let payload = json!({
            "title": event.title, "text": event.text, "hostname": event.hostname,
            "aggregation_key": event.aggregation_key, "priority": event.priority, "source": event.source,
            "alert_type": event.alert_type,
        });
        self.store_event(EVENT_NAME, event.tags, event.timestamp, &payload)
    }

    fn service_check(&mut self, check: &ServiceCheck<'_>) -> std::result::Result<(), usize> {
        let payload = json!({
            "name": check.name, "status": check.status.name(), "hostname": check.hostname, "message": check.message,
        });
        self.store_event(SERVICE_CHECK_NAME, check.tags, check.timestamp, &payload)
    }

    fn store_event(
        &mut self,
        name: &str,
        tags: Tags<'_>,
        time: Option<Timestamp>,
        payload: &serde_json::Value,
    ) -> std::result::Result<(), usize> {
        let key = series_key(name, tags).map_err(|_| INVALID_SERIES)?;
        let stamp = self.frame.env.stamp();
        // Senders give seconds; what lies below tells events of one second apart.
        let time = time.map_or(stamp, |time| time.saturating_add(stamp.nanos().rem_euclid(NANOS_PER_SECOND)));
        let text = payload.to_string();
        let mut intake = Intake::new(&self.frame, stamp);
        intake.put_key(&key, time, ValueRef::Bytes(text.as_bytes())).map_err(|_| INVALID_SERIES)?;
        intake.commit(&self.frame).map_err(|_| NOT_STORED)
    }

    /// Writes the aggregates. What cannot be written is still in them and comes with the next write.
    fn write(&mut self) {
        let frame = &self.frame;
        let now = frame.env.clock.monotonic();
        self.next_write = now + frame.options.statsd_interval;
        let mut intake = Intake::new(&self.frame, frame.env.stamp());
        for point in self.aggregator.write(intake.now(), now) {
            if let Err(error) = intake.put_key(&point.key, point.time, ValueRef::F64(point.value)) {
                intake.refused.add(&error);
            }
        }
        let described = self.aggregator.take_new_metrics();
        let written = intake.commit(&self.frame).and_then(|()| {
            described.into_iter().try_for_each(|(name, metadata)| frame.describe(&name, metadata))
        });
        if let Err(error) = written {
            log::write(Level::Error, format_args!("StatsD aggregates were not written: {error}"));
        }
    }
}

/// The series of a line. Values of one key are joined.
fn series_key(name: &str, tags: Tags<'_>) -> std::result::Result<SeriesKey, Error> {
    let tags = join_tags(tags.pairs().map(|(key, value)| (key.into(), value.into())));
    SeriesKey::new(name, tags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_table_of_the_system() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     1: 0100007F:23A5 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 17\n\
                     2: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 5\n";
        assert_eq!(drops_of(table, 9125), 17);
        assert_eq!(drops_of(table, 1), 0);
        assert_eq!(drops_of("", 9125), 0);
    }
}
