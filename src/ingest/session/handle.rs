//! The handle by which a session is logged to, the same for a database and for a server.

use std::fmt;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::ingest::session::check_depth;
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::metric::{SessionMetric, check_metric};
use crate::ingest::session::tags::SessionTag;
use crate::ingest::session::view::SessionView;
use crate::model::Timestamp;

/// Where a session lives.
pub(super) trait SessionPlace: Send + Sync {
    /// Takes a gauge without unit, count or metadata.
    fn log_metric(&self, name: &str, value: f64, tags: Vec<SessionTag<'_>>) -> Result<()>;
    /// Takes a metric with everything that is said of it.
    fn record(&self, metric: &SessionMetric) -> Result<()>;
    fn record_event(&self, event: &SessionEvent) -> Result<()>;
    fn update_state(&self, patch: &Value, time: Option<Timestamp>) -> Result<()>;
    fn heartbeat(&self) -> Result<()>;
    fn end(&self) -> Result<()>;
    fn crash(&self, reason: &str) -> Result<()>;
    fn resume(&self) -> Result<()>;
    fn read(&self) -> Result<SessionView>;
}

/// A session to log to.
///
/// Dropping the handle does not end the session: another one can go on with it, in this process or in a later one.
///
/// ```
/// use icecore::Db;
/// use icecore::ingest::{NO_TAGS, SessionMetric};
/// use serde_json::json;
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("data");
///
/// let db = Db::open(path)?;
/// let session = db.create_session("MyApp", "1.0.0")?;
///
/// session.log_metric("api_response_time_ms", 123.4, ["endpoint:users", "status:200"])?;
/// session.log_metric("memory_usage_mb", 512.0, NO_TAGS)?;
/// session.log_metric("http_requests", 100, [("endpoint", "users"), ("method", "GET")])?;
/// session.record(&SessionMetric::timer("process_items", 5.2).count(3).unit("seconds"))?;
/// session.log_event("api_call_completed", json!({"endpoint": "/users", "status": 200}))?;
/// session.update_state(json!({"phase": "import", "draft": null}))?;
/// session.end()?;
///
/// let view = session.read()?;
/// assert_eq!(view.metrics.len(), 4);
/// assert_eq!(view.metrics[0].tags, ["endpoint:users", "status:200"]);
/// assert_eq!(view.state["phase"], "import");
/// # Ok::<(), icecore::Error>(())
/// ```
pub struct Session {
    id: SessionId,
    place: Box<dyn SessionPlace>,
}

impl Session {
    pub(super) fn new(id: SessionId, place: impl SessionPlace + 'static) -> Self {
        Session { id, place: Box::new(place) }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Logs one value of a metric. Tags are strings (`"api"`, `"endpoint:users"`) or pairs; values may come in
    /// any steps.
    ///
    /// In a database the value is seen by queries at once; it is in the log of the operating system with the
    /// next event, state, heartbeat or end of this session, or with the next sync (1 s), whichever is first: see
    /// [`SessionOptions::metric_durability`](super::SessionOptions::metric_durability).
    ///
    /// # Errors
    /// `InvalidInput` naming the field for an empty or reserved name, a value that is not finite, or tags that
    /// make no series; otherwise what the database or the server says.
    pub fn log_metric<'a, T: Into<SessionTag<'a>>>(
        &self,
        name: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        let value = value.into();
        check_metric(name, value)?;
        self.place.log_metric(name, value, tags.into_iter().map(Into::into).collect())
    }

    /// Logs one value of a metric with everything that is said of it.
    ///
    /// # Errors
    /// As [`Session::log_metric`].
    pub fn record(&self, metric: &SessionMetric) -> Result<()> {
        check_metric(&metric.name, metric.value)?;
        if let Some(metadata) = &metric.metadata {
            check_depth("metadata", metadata)?;
        }
        self.place.record(metric)
    }

    /// Logs an event of this name; `data` is anything that belongs to it, `null` for nothing.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name, or data that is too large or too deep; otherwise what the database or
    /// the server says.
    pub fn log_event(&self, name: &str, data: Value) -> Result<()> {
        self.record_event(&SessionEvent::new(name).data(data))
    }

    /// Logs an event.
    ///
    /// # Errors
    /// As [`Session::log_event`].
    pub fn record_event(&self, event: &SessionEvent) -> Result<()> {
        event.check()?;
        self.place.record_event(event)
    }

    /// Merges `patch`, a JSON object, into the state: objects are merged key by key, `null` deletes, everything
    /// else replaces.
    ///
    /// # Errors
    /// `InvalidInput` for a patch that is no object, too large or too deep; otherwise what the database or the
    /// server says.
    pub fn update_state(&self, patch: Value) -> Result<()> {
        self.update_state_at(patch, None)
    }

    /// [`Session::update_state`] to a state that began at `time`.
    ///
    /// # Errors
    /// As [`Session::update_state`].
    pub fn update_state_at(&self, patch: Value, time: Option<Timestamp>) -> Result<()> {
        if !patch.is_object() {
            return Err(Error::invalid_input("state: not a JSON object"));
        }
        check_depth("state", &patch)?;
        self.place.update_state(&patch, time)
    }

    /// Says that the program still runs. A session that has said so once is taken for suspended when it has not
    /// for a minute. When it has ended, this does nothing.
    ///
    /// # Errors
    /// What the database or the server says.
    pub fn heartbeat(&self) -> Result<()> {
        self.place.heartbeat()
    }

    /// Says that it has ended. What is logged afterwards is still taken.
    ///
    /// # Errors
    /// What the database or the server says.
    pub fn end(&self) -> Result<()> {
        self.place.end()
    }

    /// Says that the program has crashed.
    ///
    /// # Errors
    /// What the database or the server says.
    pub fn crash(&self, reason: &str) -> Result<()> {
        self.place.crash(reason)
    }

    /// Takes it up again after its end. When it has not ended, this does nothing.
    ///
    /// # Errors
    /// What the database or the server says.
    pub fn resume(&self) -> Result<()> {
        self.place.resume()
    }

    /// Reads it back whole.
    ///
    /// # Errors
    /// `NotFound` when it was deleted, or is older than what is kept; otherwise what the database or the server
    /// says.
    pub fn read(&self) -> Result<SessionView> {
        self.place.read()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id).finish_non_exhaustive()
    }
}
