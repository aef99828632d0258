//! Sessions as JSON over HTTP: what clients send, and what `GET /api/sessions/{id}` gives back. Used by the server and by
//! the client for it.

use jiff::fmt::temporal::DateTimePrinter;
use serde_json::{Map, Value, json};

use crate::error::{Error, Result};
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::metric::{SessionMetric, SessionMetricKind, check_metric};
use crate::ingest::session::tags::SessionTag;
use crate::ingest::session::view::{SessionSample, SessionStatus, SessionSummary, SessionView};
use crate::ingest::session::{SessionInfo, check_depth};
use crate::model::Timestamp;

/// Times before this are "not given": a client of Go sends its zero time, of the year 1.
const YEAR_TWO_SECONDS: i64 = -62_104_060_800;

/// `time` as RFC 3339 has it, in UTC, with as many digits as it needs.
pub fn format_time(time: Timestamp) -> String {
    let mut text = String::with_capacity(30);
    match jiff::Timestamp::from_nanosecond(i128::from(time.nanos())) {
        Ok(time) => {
            // Writing to a String cannot fail.
            let _ = DateTimePrinter::new().print_timestamp(&time, &mut text);
        }
        // Every 64-bit number of nanoseconds lies in the years 1677 to 2262.
        Err(_) => text.push_str("1970-01-01T00:00:00Z"),
    }
    text
}

/// The member `timestamp` of a body: RFC 3339, up to nine digits, any offset. Absent, `null` and the year 1 are no time.
///
/// # Errors
/// `InvalidInput` for anything else.
fn read_time(members: &Map<String, Value>, key: &str) -> Result<Option<Timestamp>> {
    let Some(text) = read_text(members, key)? else { return Ok(None) };
    let refused = || Error::invalid_input(format!("{key}: not a time as RFC 3339 has it, or out of range"));
    let time: jiff::Timestamp = text.parse().map_err(|_| refused())?;
    if time.as_second() < YEAR_TWO_SECONDS {
        return Ok(None);
    }
    i64::try_from(time.as_nanosecond()).map(|nanos| Some(Timestamp::from_nanos(nanos))).map_err(|_| refused())
}

impl SessionInfo {
    /// The body of `POST /api/sessions`.
    ///
    /// # Errors
    /// `InvalidInput` naming the member that is missing or wrong.
    pub fn from_json(body: &Value) -> Result<Self> {
        let members = object(body)?;
        let text = |key| Ok::<_, Error>(read_text(members, key)?.unwrap_or_default());
        let info = SessionInfo {
            product: text("product")?,
            version: text("version")?,
            hostname: text("hostname")?,
            machine_id: text("machine_id")?,
        };
        if info.product.is_empty() {
            return Err(Error::invalid_input("product: required"));
        }
        Ok(info)
    }

    /// The body of `POST /api/sessions`.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        self.put(&mut members);
        Value::Object(members)
    }

    fn put(&self, members: &mut Map<String, Value>) {
        members.insert("product".to_owned(), self.product.as_str().into());
        members.insert("version".to_owned(), self.version.as_str().into());
        put_text(members, "hostname", Some(&self.hostname));
        put_text(members, "machine_id", Some(&self.machine_id));
    }
}

impl SessionMetric {
    /// The body of `POST /api/sessions/{id}/metrics`.
    ///
    /// # Errors
    /// `InvalidInput` naming the member that is missing or wrong.
    pub fn from_json(body: &Value) -> Result<Self> {
        let members = object(body)?;
        let name = read_text(members, "name")?.ok_or_else(|| Error::invalid_input("name: required"))?;
        let value = match members.get("value") {
            None | Some(Value::Null) => return Err(Error::invalid_input("value: required")),
            Some(value) => value.as_f64().ok_or_else(|| Error::invalid_input("value: not a number"))?,
        };
        check_metric(&name, value)?;
        let kind = match read_text(members, "type")? {
            None => SessionMetricKind::default(),
            Some(word) => SessionMetricKind::from_name(&word)
                .ok_or_else(|| Error::invalid_input("type: not one of gauge, counter, histogram, timer"))?,
        };
        let metadata = members.get("metadata").filter(|metadata| !metadata.is_null()).cloned();
        metadata.as_ref().map_or(Ok(()), |metadata| check_depth("metadata", metadata))?;
        Ok(SessionMetric {
            name,
            value,
            kind,
            tags: read_texts(members, "tags")?.into_iter().map(SessionTag::from).collect(),
            count: read_count(members, "count")?,
            unit: read_text(members, "unit")?.filter(|unit| !unit.is_empty()),
            metadata,
            time: read_time(members, "timestamp")?,
        })
    }

    /// The body of `POST /api/sessions/{id}/metrics`.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        members.insert("name".to_owned(), self.name.as_str().into());
        members.insert("value".to_owned(), self.value.into());
        let tags: Vec<String> = self.tags.iter().map(SessionTag::text).collect();
        put_metric(&mut members, self.kind, tags, self.count, self.unit.as_ref(), self.metadata.as_ref());
        put_time(&mut members, "timestamp", self.time);
        Value::Object(members)
    }
}

impl SessionEvent {
    /// The body of `POST /api/sessions/{id}/events`.
    ///
    /// # Errors
    /// `InvalidInput` naming the member that is missing or wrong.
    pub fn from_json(body: &Value) -> Result<Self> {
        let members = object(body)?;
        let given = |key| Ok::<_, Error>(read_text(members, key)?.filter(|text| !text.is_empty()));
        let stacktrace = members.get("stacktrace").filter(|trace| !trace.is_null()).cloned();
        let event = SessionEvent {
            name: read_text(members, "name")?.ok_or_else(|| Error::invalid_input("name: required"))?,
            level: given("level")?,
            category: given("category")?,
            group: read_text(members, "group")?.unwrap_or_default(),
            labels: read_texts(members, "labels")?,
            message: read_text(members, "message")?.unwrap_or_default(),
            data: members.get("data").cloned().unwrap_or_default(),
            exception_type: given("exception_type")?,
            exception_msg: given("exception_msg")?,
            stacktrace,
            source_file: given("source_file")?,
            source_line: read_count(members, "source_line")?,
            source_function: given("source_function")?,
            time: read_time(members, "timestamp")?,
        };
        event.check()?;
        Ok(event)
    }

    /// The body of `POST /api/sessions/{id}/events`, and an event of `GET /api/sessions/{id}`.
    pub fn to_json(&self) -> Value {
        let category = self.category.as_deref().unwrap_or(self.level());
        let event = json!({
            "name": self.name, "level": self.level(), "category": category, "group": self.group,
            "labels": self.labels, "message": self.message, "data": self.data,
        });
        let Value::Object(mut members) = event else { return event };
        put_text(&mut members, "exception_type", self.exception_type.as_ref());
        put_text(&mut members, "exception_msg", self.exception_msg.as_ref());
        if let Some(trace) = &self.stacktrace {
            members.insert("stacktrace".to_owned(), trace.clone());
        }
        put_text(&mut members, "source_file", self.source_file.as_ref());
        if let Some(line) = self.source_line {
            members.insert("source_line".to_owned(), line.into());
        }
        put_text(&mut members, "source_function", self.source_function.as_ref());
        put_time(&mut members, "timestamp", self.time);
        Value::Object(members)
    }
}

/// The body of `POST /api/sessions/{id}/state`: the patch alone, or `{"timestamp", "state"}`.
///
/// # Errors
/// `InvalidInput` when it is no object, or the time is wrong.
pub fn state_from_json(body: &Value) -> Result<(Value, Option<Timestamp>)> {
    let members = object(body)?;
    let wrapped = members.keys().all(|key| key == "state" || key == "timestamp");
    match members.get("state") {
        Some(state) if wrapped && state.is_object() => Ok((state.clone(), read_time(members, "timestamp")?)),
        _ => Ok((body.clone(), None)),
    }
}

impl SessionSummary {
    /// An element of `GET /api/sessions`.
    pub fn to_json(&self) -> Value {
        let mut members = Map::new();
        members.insert("id".to_owned(), self.id.to_string().into());
        self.info.put(&mut members);
        members.insert("status".to_owned(), self.status.name().into());
        members.insert("active".to_owned(), (self.status == SessionStatus::Active).into());
        members.insert("suspended".to_owned(), (self.status == SessionStatus::Suspended).into());
        members.insert("crashed".to_owned(), (self.status == SessionStatus::Crashed).into());
        members.insert("created_at".to_owned(), format_time(self.created_at).into());
        members.insert("ended_at".to_owned(), self.ended_at.map(format_time).into());
        members.insert("last_heartbeat".to_owned(), self.last_heartbeat.map(format_time).into());
        Value::Object(members)
    }

    /// Reads what [`SessionSummary::to_json`] wrote.
    ///
    /// # Errors
    /// `InvalidInput` naming the member that is missing or wrong.
    pub fn from_json(body: &Value) -> Result<Self> {
        let members = object(body)?;
        let id = read_text(members, "id")?.unwrap_or_default().parse()?;
        let mut summary = SessionSummary::new(id, SessionInfo::from_json(body)?);
        summary.created_at = read_time(members, "created_at")?.unwrap_or(summary.created_at);
        summary.ended_at = read_time(members, "ended_at")?;
        summary.last_heartbeat = read_time(members, "last_heartbeat")?;
        summary.status = SessionStatus::from_name(&read_text(members, "status")?.unwrap_or_default())?;
        Ok(summary)
    }
}

impl SessionView {
    /// The answer of `GET /api/sessions/{id}`.
    pub fn to_json(&self) -> Value {
        let mut body = self.summary.to_json();
        let history =
            |(time, state): &(Timestamp, Value)| json!({"timestamp": format_time(*time), "state": state});
        if let Value::Object(members) = &mut body {
            members.insert("updated_at".to_owned(), format_time(self.updated_at).into());
            members.insert("hung".to_owned(), self.hung.into());
            members.insert("state".to_owned(), self.state.clone());
            members.insert("state_history".to_owned(), self.state_history.iter().map(history).collect());
            members.insert("events".to_owned(), self.events.iter().map(SessionEvent::to_json).collect());
            members.insert("metrics".to_owned(), self.metrics.iter().map(SessionSample::to_json).collect());
            members.insert("unreadable_count".to_owned(), self.unreadable_count.into());
        }
        body
    }

    /// Reads what [`SessionView::to_json`] wrote.
    ///
    /// # Errors
    /// `InvalidInput` naming the member that is missing or wrong.
    pub fn from_json(body: &Value) -> Result<Self> {
        let members = object(body)?;
        let summary = SessionSummary::from_json(body)?;
        let list = |key: &str| members.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let history = |entry: &Value| {
            let members = object(entry)?;
            let time = read_time(members, "timestamp")?.unwrap_or(summary.created_at);
            Ok((time, members.get("state").cloned().unwrap_or_default()))
        };
        Ok(SessionView {
            updated_at: read_time(members, "updated_at")?.unwrap_or(summary.created_at),
            hung: members.get("hung").and_then(Value::as_bool).unwrap_or(false),
            state: members.get("state").cloned().unwrap_or_default(),
            state_history: list("state_history").iter().map(history).collect::<Result<_>>()?,
            events: list("events").iter().map(SessionEvent::from_json).collect::<Result<_>>()?,
            metrics: list("metrics").iter().map(SessionSample::from_json).collect::<Result<_>>()?,
            unreadable_count: read_count(members, "unreadable_count")?.unwrap_or(0) as usize,
            summary,
        })
    }
}

impl SessionSample {
    fn to_json(&self) -> Value {
        let mut members = Map::new();
        members.insert("name".to_owned(), self.name.as_str().into());
        members.insert("value".to_owned(), self.value.into());
        let (unit, metadata) = (self.unit.as_ref(), self.metadata.as_ref());
        put_metric(&mut members, self.kind, self.tags.clone(), self.count, unit, metadata);
        put_time(&mut members, "timestamp", Some(self.time));
        Value::Object(members)
    }

    fn from_json(body: &Value) -> Result<Self> {
        let metric = SessionMetric::from_json(body)?;
        Ok(SessionSample {
            time: metric.time.ok_or_else(|| Error::invalid_input("timestamp: required"))?,
            name: metric.name,
            value: metric.value,
            kind: metric.kind,
            tags: metric.tags.iter().map(SessionTag::text).collect(),
            count: metric.count,
            unit: metric.unit,
            metadata: metric.metadata,
        })
    }
}

fn put_metric(
    members: &mut Map<String, Value>,
    kind: SessionMetricKind,
    tags: Vec<String>,
    count: Option<u64>,
    unit: Option<&String>,
    metadata: Option<&Value>,
) {
    members.insert("type".to_owned(), kind.name().into());
    members.insert("tags".to_owned(), tags.into());
    if let Some(count) = count {
        members.insert("count".to_owned(), count.into());
    }
    put_text(members, "unit", unit);
    if let Some(metadata) = metadata {
        members.insert("metadata".to_owned(), metadata.clone());
    }
}

fn object(body: &Value) -> Result<&Map<String, Value>> {
    body.as_object().ok_or_else(|| Error::invalid_input("body: not a JSON object"))
}

fn read_text(members: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Error::invalid_input(format!("{key}: not a string"))),
    }
}

fn read_texts(members: &Map<String, Value>, key: &str) -> Result<Vec<String>> {
    let refused = || Error::invalid_input(format!("{key}: not a list of strings"));
    match members.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => {
            items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(refused)).collect()
        }
        Some(_) => Err(refused()),
    }
}

fn read_count(members: &Map<String, Value>, key: &str) -> Result<Option<u64>> {
    match members.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let refused = || Error::invalid_input(format!("{key}: not a whole number of 0 or more"));
            value.as_u64().map(Some).ok_or_else(refused)
        }
    }
}

fn put_text(members: &mut Map<String, Value>, key: &str, text: Option<&String>) {
    if let Some(text) = text.filter(|text| !text.is_empty()) {
        members.insert(key.to_owned(), text.as_str().into());
    }
}

fn put_time(members: &mut Map<String, Value>, key: &str, time: Option<Timestamp>) {
    if let Some(time) = time {
        members.insert(key.to_owned(), format_time(time).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::session::id::SessionId;

    #[track_caller]
    fn refused<T: std::fmt::Debug>(result: Result<T>, part: &str) {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().starts_with(part), "{error}");
    }

    #[test]
    fn recorded_metrics_are_read() {
        let body = json!({"count": 3, "metadata": {"k": "v"}, "name": "process_items", "tags": ["a:b"],
            "type": "timer", "unit": "seconds", "value": 5.2});
        let metric = SessionMetric::from_json(&body).unwrap();
        let expected =
            SessionMetric::timer("process_items", 5.2).count(3).unit("seconds").tags(["a:b".to_owned()]);
        assert_eq!(metric, expected.metadata(json!({"k": "v"})));
        assert_eq!(metric.to_json(), body);
        let null_tags = json!({"name": "memory_mb", "tags": null, "type": "gauge", "value": 513});
        assert_eq!(SessionMetric::from_json(&null_tags).unwrap(), SessionMetric::gauge("memory_mb", 513));
    }

    #[test]
    fn wrong_metrics_are_refused_by_member() {
        let check = |body: Value, part| refused(SessionMetric::from_json(&body), part);
        check(json!([]), "body:");
        check(json!({"value": 1}), "name: required");
        check(json!({"name": "", "value": 1}), "name:");
        check(json!({"name": 5, "value": 1}), "name: not a string");
        check(json!({"name": "m"}), "value: required");
        check(json!({"name": "m", "value": "1"}), "value: not a number");
        check(json!({"name": "m", "value": true}), "value: not a number");
        check(json!({"name": "m", "value": 1, "tags": "a"}), "tags:");
        check(json!({"name": "m", "value": 1, "tags": [1]}), "tags:");
        check(json!({"name": "m", "value": 1, "type": "odd"}), "type:");
        check(json!({"name": "m", "value": 1, "count": -1}), "count:");
        check(json!({"name": "m", "value": 1, "timestamp": 5}), "timestamp:");
        check(json!({"name": "m", "value": 1, "timestamp": "yesterday"}), "timestamp:");
        check(json!({"name": "m", "value": 1, "timestamp": "9999-01-01T00:00:00Z"}), "timestamp:");
    }

    #[track_caller]
    fn check_time(text: &str, nanos: Option<i64>) {
        let metric = SessionMetric::from_json(&json!({"name": "m", "value": 1, "timestamp": text})).unwrap();
        assert_eq!(metric.time.map(Timestamp::nanos), nanos, "{text}");
    }

    #[test]
    fn times_are_read_exactly_and_the_year_one_is_none() {
        check_time("2026-11-20T23:59:20.043653833Z", Some(1_795_219_160_043_653_833));
        check_time("2026-11-21T01:59:20+02:00", Some(1_795_219_160_000_000_000));
        check_time("1969-12-31T23:59:59.5Z", Some(-500_000_000));
        check_time("0001-01-01T00:00:00Z", None);
        assert_eq!(
            format_time(Timestamp::from_nanos(1_795_219_160_043_653_833)),
            "2026-11-20T23:59:20.043653833Z"
        );
        assert_eq!(format_time(Timestamp::from_secs(0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn recorded_events_are_read() {
        let body = json!({"timestamp": "0001-01-01T00:00:00Z", "name": "application_appears_hung", "category": "error",
            "group": "datacat.daemon", "labels": [], "message": "", "data": {"seconds": 5}});
        let event = SessionEvent::from_json(&body).unwrap();
        assert_eq!((event.level(), event.category.as_deref(), event.time), ("info", Some("error"), None));
        let written = event.to_json();
        for key in ["name", "category", "group", "labels", "message", "data"] {
            assert_eq!(written[key], body[key], "{key}");
        }
        refused(SessionEvent::from_json(&json!({"data": 1})), "name: required");
        refused(SessionEvent::from_json(&json!({"name": "e", "labels": {}})), "labels:");
    }

    #[test]
    fn states_are_read_alone_and_wrapped() {
        let time = Timestamp::from_secs(5);
        let patch = json!({"status": "running"});
        assert_eq!(state_from_json(&patch).unwrap(), (patch.clone(), None));
        let wrapped = json!({"timestamp": "1970-01-01T00:00:05Z", "state": patch});
        assert_eq!(state_from_json(&wrapped).unwrap(), (patch, Some(time)));
        let own = json!({"state": {"a": 1}, "other": 2});
        assert_eq!(state_from_json(&own).unwrap(), (own.clone(), None));
        let word = json!({"state": "running"});
        assert_eq!(state_from_json(&word).unwrap(), (word.clone(), None));
        refused(state_from_json(&json!(1)), "body:");
    }

    #[test]
    fn a_view_round_trips() {
        let at = |nanos| Timestamp::from_nanos(nanos);
        let info = SessionInfo::new("p", "1").hostname("h");
        let mut view = SessionView::of(SessionId::new(at(1_000), 2), info, Default::default(), at(5_000));
        view.summary.status = SessionStatus::Ended;
        view.summary.ended_at = Some(at(3_000));
        view.state_history.push((at(2_000), json!({"a": [1.5, null]})));
        let event =
            SessionEvent::new("e").exception("T", "m").stacktrace(["f"]).source("a.rs", 1, "f").at(at(1_500));
        view.events.push(SessionEvent {
            level: Some("x".to_owned()),
            category: Some("y".to_owned()),
            ..event
        });
        let sample =
            SessionMetric::counter("m", 0.1 + 0.2).count(2).unit("s").tags(["b", "a:1"]).at(at(1_600));
        view.metrics.push(SessionSample::from_json(&sample.to_json()).unwrap());
        let text = view.to_json().to_string();
        assert_eq!(SessionView::from_json(&serde_json::from_str(&text).unwrap()).unwrap(), view);
        assert_eq!(view.to_json()["active"], false);
        assert_eq!(view.summary.to_json()["last_heartbeat"], Value::Null);
    }
}
