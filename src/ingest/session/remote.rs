//! Sessions on a server, over HTTP.

use std::sync::Arc;

use serde_json::{Value, json};
use ureq::http::Method;

use crate::error::{Error, Result};
use crate::ingest::http::{Answer, HttpClient, percent_encode};
use crate::ingest::session::SessionInfo;
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::filter::SessionFilter;
use crate::ingest::session::handle::{Session, SessionPlace};
use crate::ingest::session::id::SessionId;
use crate::ingest::session::json::format_time;
use crate::ingest::session::metric::{SessionMetric, SessionMetricKind};
use crate::ingest::session::tags::SessionTag;
use crate::ingest::session::view::{SessionSummary, SessionView};
use crate::model::Timestamp;

/// A server that keeps sessions: `icecore serve`, or one that speaks the same.
///
/// ```no_run
/// use icecore::ingest::RemoteSessions;
///
/// let server = RemoteSessions::connect("http://127.0.0.1:9090", None)?;
/// let session = server.create_session("MyApp", "1.0.0")?;
/// session.log_metric("memory_mb", 512.5, ["backend"])?;
/// session.end()?;
/// # Ok::<(), icecore::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RemoteSessions {
    client: Arc<HttpClient>,
}

impl RemoteSessions {
    /// A client of the server at `address` (`host:port` or a URL), with its token where it wants one. Nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidInput` for a wrong address.
    pub fn connect(address: &str, token: Option<&str>) -> Result<Self> {
        let authorization = token.map(|token| format!("Bearer {token}"));
        Ok(RemoteSessions { client: Arc::new(HttpClient::new("http", address, authorization)?) })
    }

    /// Creates a session of `product` in `version`.
    ///
    /// # Errors
    /// As [`RemoteSessions::create_session_with`].
    pub fn create_session(&self, product: &str, version: &str) -> Result<Session> {
        self.create_session_with(&SessionInfo::new(product, version))
    }

    /// Creates a session.
    ///
    /// # Errors
    /// `Io` when the server cannot be reached; otherwise what it answers.
    pub fn create_session_with(&self, info: &SessionInfo) -> Result<Session> {
        let answer = self.post("/api/sessions", &info.to_json())?;
        let answer: Value = answer.json()?;
        // Ours sends both; others one of them.
        let id = answer.get("session_id").or_else(|| answer.get("id")).and_then(Value::as_str);
        let id = id.ok_or_else(|| Error::invalid_input("the server did not say the id of the session"))?;
        Ok(self.handle(id.parse()?))
    }

    /// A handle on a session that exists; one that has ended is taken up again.
    ///
    /// # Errors
    /// `NotFound`; `Io` when the server cannot be reached; otherwise what it answers.
    pub fn resume_session(&self, id: SessionId) -> Result<Session> {
        let session = self.handle(id);
        session.resume()?;
        Ok(session)
    }

    /// Reads a session back whole.
    ///
    /// # Errors
    /// `NotFound`; `Io` when the server cannot be reached; otherwise what it answers.
    pub fn session(&self, id: SessionId) -> Result<SessionView> {
        SessionView::from_json(&self.send(Method::GET, &format!("/api/sessions/{id}"), "")?.json()?)
    }

    /// The newest sessions that `filter` lets through, newest first.
    ///
    /// # Errors
    /// `Io` when the server cannot be reached; otherwise what it answers.
    pub fn sessions(&self, filter: &SessionFilter) -> Result<Vec<SessionSummary>> {
        let mut pairs = filter.parameters();
        let bounds = [("from", filter.range.start), ("to", filter.range.end)];
        let given = bounds.into_iter().filter(|(_, time)| time.is_sample_time());
        pairs.extend(given.map(|(name, time)| (name, format_time(time))));
        let parameters: Vec<String> =
            pairs.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
        let path = format!("/api/sessions?{}", parameters.join("&"));
        let answer: Value = self.send(Method::GET, &path, "")?.json()?;
        let listed =
            answer.as_array().ok_or_else(|| Error::invalid_input("the server did not send a list"))?;
        listed.iter().map(SessionSummary::from_json).collect()
    }

    /// Deletes a session with all that was logged in it.
    ///
    /// # Errors
    /// `NotFound`; `Io` when the server cannot be reached; otherwise what it answers.
    pub fn delete_session(&self, id: SessionId) -> Result<()> {
        self.send(Method::DELETE, &format!("/api/sessions/{id}"), "").map(drop)
    }

    fn handle(&self, id: SessionId) -> Session {
        Session::new(id, RemoteSession { server: self.clone(), id })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(Method::POST, path, &body)
    }

    fn send(&self, method: Method, path: &str, body: &str) -> Result<Answer> {
        let what = format!("{method} {path}");
        let answer = self.client.send(method, path, "application/json", body.as_bytes())?;
        answer.accepted(&what).map_err(|refused| refused.error)
    }
}

/// What a handle of a session on a server knows.
struct RemoteSession {
    server: RemoteSessions,
    id: SessionId,
}

impl RemoteSession {
    fn post(&self, part: &str, body: &Value) -> Result<()> {
        self.server.post(&format!("/api/sessions/{}/{part}", self.id), body).map(drop)
    }
}

impl SessionPlace for RemoteSession {
    fn log_metric(&self, name: &str, value: f64, tags: Vec<SessionTag<'_>>) -> Result<()> {
        let kind = SessionMetricKind::default().name();
        let tags: Vec<String> = tags.iter().map(SessionTag::text).collect();
        self.post("metrics", &json!({"name": name, "value": value, "type": kind, "tags": tags}))
    }

    fn record(&self, metric: &SessionMetric) -> Result<()> {
        self.post("metrics", &metric.to_json())
    }

    fn record_event(&self, event: &SessionEvent) -> Result<()> {
        self.post("events", &event.to_json())
    }

    fn update_state(&self, patch: &Value, time: Option<Timestamp>) -> Result<()> {
        match time {
            Some(time) => self.post("state", &json!({"timestamp": format_time(time), "state": patch})),
            // Wrapped as well, so that a state with a key `state` alone is not taken for a wrapped one.
            None => self.post("state", &json!({"timestamp": null, "state": patch})),
        }
    }

    fn heartbeat(&self) -> Result<()> {
        self.post("heartbeat", &json!({}))
    }

    fn end(&self) -> Result<()> {
        self.post("end", &Value::Null)
    }

    fn crash(&self, reason: &str) -> Result<()> {
        self.post("crash", &json!({"reason": reason}))
    }

    fn resume(&self) -> Result<()> {
        self.post("resume", &Value::Null)
    }

    fn read(&self) -> Result<SessionView> {
        self.server.session(self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::ingest::NO_TAGS;
    use crate::ingest::http::tests::FakeServer;

    const ID: &str = "0193a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b";

    fn session(server: &FakeServer) -> Session {
        server.say("200 OK", "", &format!(r#"{{"session_id":"{ID}","id":"{ID}"}}"#));
        let sessions = RemoteSessions::connect(&server.address(), Some("secret")).unwrap();
        sessions.create_session("MyApp", "1.0.0").unwrap()
    }

    #[test]
    fn every_call_is_a_request() {
        let server = FakeServer::start();
        let session = session(&server);
        session.log_metric("memory_mb", 512.5, ["backend"]).unwrap();
        session.record(&SessionMetric::timer("t", 5).count(3).unit("seconds")).unwrap();
        session.log_event("startup", json!({"config": "prod"})).unwrap();
        session.update_state(json!({"status": null})).unwrap();
        session.heartbeat().unwrap();
        session.crash("why").unwrap();
        session.end().unwrap();
        let received = server.received();
        let lines: Vec<&str> = received.iter().map(|request| request.line.as_str()).collect();
        let line = |part: &str| format!("POST /api/sessions/{ID}/{part} HTTP/1.1");
        let parts = ["metrics", "metrics", "events", "state", "heartbeat", "crash", "end"].map(line);
        assert_eq!(lines[0], "POST /api/sessions HTTP/1.1");
        assert_eq!(lines[1..], parts);
        assert_eq!(received[0].header("authorization"), Some("Bearer secret"));
        let bodies: Vec<Value> =
            received.iter().map(|request| serde_json::from_str(&request.body).unwrap_or_default()).collect();
        assert_eq!(bodies[0], json!({"product": "MyApp", "version": "1.0.0"}));
        assert_eq!(
            bodies[1],
            json!({"name": "memory_mb", "value": 512.5, "type": "gauge", "tags": ["backend"]})
        );
        assert_eq!(bodies[2]["count"], 3);
        assert_eq!((&bodies[3]["name"], &bodies[3]["data"]["config"]), (&json!("startup"), &json!("prod")));
        assert_eq!(bodies[4]["state"], json!({"status": null}));
        assert_eq!(bodies[6], json!({"reason": "why"}));
        assert_eq!(received[7].body, "");
    }

    #[test]
    fn what_is_wrong_is_not_sent() {
        let server = FakeServer::start();
        let session = session(&server);
        assert_eq!(session.log_metric("m", f64::NAN, NO_TAGS).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(server.received().len(), 1);
    }

    #[test]
    fn what_the_server_says_is_the_error() {
        let server = FakeServer::start();
        let session = session(&server);
        server.say("404 Not Found", "", r#"{"error":"no such session","details":""}"#);
        let error = session.end().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("404: no such session"), "{error}");
        server.say("200 OK", "", "not json");
        assert_eq!(session.read().unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn lists_and_deletes_go_by_url() {
        let server = FakeServer::start();
        let sessions = RemoteSessions::connect(&server.address(), None).unwrap();
        let listed = format!(
            r#"[{{"id":"{ID}","product":"p","version":"1","status":"crashed","created_at":"2026-11-20T00:00:00Z"}}]"#
        );
        server.say("200 OK", "", &listed);
        let start = Timestamp::from_secs(5);
        let range = (start..Timestamp::MAX).into();
        let filter = SessionFilter { range, ..SessionFilter::default().product("a b").limit(7) };
        let found = sessions.sessions(&filter).unwrap();
        assert_eq!(found[0].id.to_string(), ID);
        sessions.delete_session(found[0].id).unwrap();
        sessions.resume_session(found[0].id).unwrap();
        let lines: Vec<String> = server.received().into_iter().map(|request| request.line).collect();
        let expected = [
            "GET /api/sessions?limit=7&product=a%20b&from=1970-01-01T00%3A00%3A05Z HTTP/1.1".to_owned(),
            format!("DELETE /api/sessions/{ID} HTTP/1.1"),
            format!("POST /api/sessions/{ID}/resume HTTP/1.1"),
        ];
        assert_eq!(lines, expected);
    }
}
