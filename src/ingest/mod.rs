//! The host's own measurements become samples: instruments, clients, loggers and sessions.

mod aggregate;
mod atomic;
mod background;
mod client;
mod counter;
mod description;
mod family;
mod gauge;
mod histogram;
#[cfg(feature = "client")]
mod http;
mod now;
mod push;
#[cfg(feature = "client")]
mod pushgateway;
mod registry;
mod session;
mod sink;
mod statsd_client;
mod statsd_socket;
mod stripe;
mod summary;
mod timer;
#[cfg(feature = "client")]
mod ubiops_sink;

pub use crate::model::MetricKind;
pub use aggregate::{Aggregator, NotTaken, Update};
pub use client::{ClientOptions, MetricClient, Undelivered, WhenFull};
pub use counter::{Counter, PanicGuard};
pub use description::Description;
pub use family::{Collect, FAMILY_CHILD_COUNT_MAX, Family, Instrument, Labels};
pub use gauge::{Gauge, InProgress};
pub use histogram::{BUCKET_COUNT_MAX, DEFAULT_BUCKETS, Histogram, HistogramValue};
pub use push::{MetricsLogger, NamedInstrument};
pub use registry::{Registry, RegistryWriter};
#[cfg(feature = "client")]
pub use session::RemoteSessions;
pub use session::{
    EventFilter, EventPage, EventPlace, FoundEvent, HEARTBEAT_TIMEOUT, JSON_DEPTH_MAX, NO_TAGS,
    SESSION_LIST_LIMIT_MAX, SESSION_PAYLOAD_SIZE_MAX, Session, SessionEvent, SessionFilter, SessionId,
    SessionInfo, SessionMetric, SessionMetricKind, SessionOptions, SessionSample, SessionSeries,
    SessionStatus, SessionSummary, SessionTag, SessionView,
};
#[cfg(any(feature = "client", feature = "server"))]
pub use session::{format_time, state_from_json};
pub use sink::{Point, Refused, Sink};
pub use statsd_client::{StatsdClient, StatsdCounts};
pub use summary::{Summary, SummaryValue};
pub use timer::{Observe, Timer};

/// A metric with all its samples at the moment of a snapshot, as it is exposed.
///
/// Its name has no suffix; its samples' names have `_total`, `_count`, `_sum` or `_bucket` where it belongs.
pub type MetricFamily = crate::protocol::exposition::Family<'static>;
/// One value of a [`MetricFamily`].
pub type FamilySample = crate::protocol::exposition::Sample<'static>;

/// Compiles and runs the examples of the page on measuring.
#[cfg(doctest)]
#[doc = include_str!("../../docs/ingest.md")]
#[derive(Debug)]
pub struct IngestPage;
