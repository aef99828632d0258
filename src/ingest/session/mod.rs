//! Sessions: runs of a program with their metrics, events, state and end.
//!
//! A session is a tag on its series and a few byte series beside them; `docs/ingest.md`, "Sessions on disk", has the
//! layout. Nothing of a session stays in memory but what its handle holds.

mod event;
mod filter;
mod handle;
mod id;
#[cfg(any(feature = "client", feature = "server"))]
mod json;
mod local;
mod metric;
mod payload;
#[cfg(feature = "client")]
mod remote;
mod search;
mod state;
mod store;
mod tags;
#[cfg(test)]
mod tests;
mod view;

pub use event::SessionEvent;
pub use filter::{SESSION_LIST_LIMIT_MAX, SessionFilter};
pub use handle::Session;
pub use id::SessionId;
#[cfg(any(feature = "client", feature = "server"))]
pub use json::{format_time, state_from_json};
pub use metric::{SessionMetric, SessionMetricKind};
#[cfg(feature = "client")]
pub use remote::RemoteSessions;
pub use search::{EventFilter, EventPage, EventPlace, FoundEvent};
pub use state::JSON_DEPTH_MAX;
pub use store::{SessionOptions, SessionSeries};
pub use tags::{NO_TAGS, SessionTag};
pub use view::{HEARTBEAT_TIMEOUT, SessionSample, SessionStatus, SessionSummary, SessionView};

use state::check_depth;

/// Most bytes of one event, patch of a state or note of a metric.
pub const SESSION_PAYLOAD_SIZE_MAX: usize = 1 << 20;

/// The series of a product that holds the creations of its sessions.
const LOG_NAME: &str = "session_log";
/// The series of a session that holds its entries.
const EVENTS_NAME: &str = "session_events";
/// The series of a session that carries its attributes.
const INFO_NAME: &str = "session_info";
/// Names of ours, which metrics of sessions cannot have.
const RESERVED_NAMES: [&str; 3] = [LOG_NAME, EVENTS_NAME, INFO_NAME];

/// What a session is a run of, and where.
///
/// ```
/// use icecore::ingest::SessionInfo;
///
/// let info = SessionInfo::new("MyApp", "1.0.0").hostname("web-1").machine_id("c0ffee");
/// assert_eq!(info.product, "MyApp");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionInfo {
    /// The program.
    pub product: String,
    /// The program's version.
    pub version: String,
    /// The host's name, or empty.
    pub hostname: String,
    /// What tells the machine from all others, or empty.
    pub machine_id: String,
}

impl SessionInfo {
    /// A run of `product` in `version`.
    pub fn new(product: &str, version: &str) -> Self {
        SessionInfo { product: product.to_owned(), version: version.to_owned(), ..SessionInfo::default() }
    }

    /// The same on this host.
    #[must_use]
    pub fn hostname(mut self, hostname: &str) -> Self {
        hostname.clone_into(&mut self.hostname);
        self
    }

    /// The same on this machine.
    #[must_use]
    pub fn machine_id(mut self, machine_id: &str) -> Self {
        machine_id.clone_into(&mut self.machine_id);
        self
    }
}
