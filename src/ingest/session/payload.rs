//! What the byte series of sessions hold: JSON objects, defined in `docs/ingest.md`, "Sessions on disk".

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::metric::SessionMetricKind;
use crate::ingest::session::{SESSION_PAYLOAD_SIZE_MAX, SessionInfo};
use crate::model::Timestamp;

/// The event that a crash is shown as.
const CRASHED_EVENT: &str = "session_crashed_detected";

/// One entry of a session's own series.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Event(Box<SessionEvent>),
    /// A patch of the state.
    State {
        patch: Value,
        time: Option<Timestamp>,
    },
    Heartbeat,
    Ended,
    Crashed {
        reason: String,
    },
    Resumed,
    Metric(MetricNote),
}

/// What is said of a metric beside its sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MetricNote {
    pub(super) name: String,
    /// The list as it was sent.
    pub(super) tags: Vec<String>,
    pub(super) kind: SessionMetricKind,
    pub(super) unit: Option<String>,
    pub(super) count: Option<u64>,
    pub(super) metadata: Option<Value>,
    /// The time of the sample, where it is not that of the entry.
    pub(super) time: Option<Timestamp>,
}

impl Entry {
    /// The bytes of the sample at `stored`.
    ///
    /// # Errors
    /// `InvalidInput` when they are more than [`SESSION_PAYLOAD_SIZE_MAX`].
    pub(super) fn encode(&self, stored: Timestamp) -> Result<Vec<u8>> {
        let mut members = Map::new();
        let kind = match self {
            Entry::Event(event) => {
                put_event(&mut members, event, stored);
                None
            }
            Entry::State { patch, time } => {
                members.insert("state".to_owned(), patch.clone());
                put_time(&mut members, *time, stored);
                Some("state")
            }
            Entry::Heartbeat => Some("heartbeat"),
            Entry::Ended => Some("ended"),
            Entry::Crashed { reason } => {
                put_text(&mut members, "reason", reason);
                Some("crashed")
            }
            Entry::Resumed => Some("resumed"),
            Entry::Metric(note) => {
                put_note(&mut members, note, stored);
                Some("metric")
            }
        };
        if let Some(kind) = kind {
            members.insert("kind".to_owned(), kind.into());
        }
        to_bytes(members)
    }

    /// Reads what [`Entry::encode`] wrote, and what a later release may have added.
    ///
    /// `None` for bytes that are no such object, and for kinds that are not known.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Value::Object(members) = serde_json::from_slice(bytes).ok()? else { return None };
        Some(match members.get("kind").map(Value::as_str) {
            None => Entry::Event(Box::new(read_event(members)?)),
            Some(Some("state")) => {
                Entry::State { time: read_time(&members), patch: members.get("state")?.clone() }
            }
            Some(Some("heartbeat")) => Entry::Heartbeat,
            Some(Some("ended")) => Entry::Ended,
            Some(Some("crashed")) => {
                Entry::Crashed { reason: read_text(&members, "reason").unwrap_or_default() }
            }
            Some(Some("resumed")) => Entry::Resumed,
            Some(Some("metric")) => Entry::Metric(read_note(&members)?),
            Some(_) => return None,
        })
    }
}

impl Entry {
    /// What it is shown as among events, with its time; `None` for what is none.
    pub(super) fn into_event(self, stored: Timestamp) -> Option<SessionEvent> {
        match self {
            Entry::Event(mut event) => {
                event.time = Some(event.time.unwrap_or(stored));
                Some(*event)
            }
            Entry::Crashed { reason } => {
                let event = SessionEvent::new(CRASHED_EVENT).with_level("error").at(stored);
                Some(event.data(serde_json::json!({ "reason": reason })))
            }
            _ => None,
        }
    }
}

fn put_event(members: &mut Map<String, Value>, event: &SessionEvent, stored: Timestamp) {
    members.insert("name".to_owned(), event.name.as_str().into());
    put_text(members, "level", event.level.as_deref().unwrap_or_default());
    put_text(members, "category", event.category.as_deref().unwrap_or_default());
    put_text(members, "group", &event.group);
    if !event.labels.is_empty() {
        members.insert("labels".to_owned(), event.labels.clone().into());
    }
    put_text(members, "message", &event.message);
    put_value(members, "data", Some(&event.data).filter(|data| !data.is_null()));
    put_text(members, "exception_type", event.exception_type.as_deref().unwrap_or_default());
    put_text(members, "exception_msg", event.exception_msg.as_deref().unwrap_or_default());
    put_value(members, "stacktrace", event.stacktrace.as_ref());
    put_text(members, "source_file", event.source_file.as_deref().unwrap_or_default());
    put_value(members, "source_line", event.source_line.map(Value::from).as_ref());
    put_text(members, "source_function", event.source_function.as_deref().unwrap_or_default());
    put_time(members, event.time, stored);
}

fn read_event(mut members: Map<String, Value>) -> Option<SessionEvent> {
    let labels = members.get("labels").and_then(Value::as_array);
    let labels = labels.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    Some(SessionEvent {
        name: read_text(&members, "name")?,
        level: read_text(&members, "level"),
        category: read_text(&members, "category"),
        group: read_text(&members, "group").unwrap_or_default(),
        labels: labels.unwrap_or_default(),
        message: read_text(&members, "message").unwrap_or_default(),
        exception_type: read_text(&members, "exception_type"),
        exception_msg: read_text(&members, "exception_msg"),
        source_file: read_text(&members, "source_file"),
        source_line: members.get("source_line").and_then(Value::as_u64),
        source_function: read_text(&members, "source_function"),
        time: read_time(&members),
        stacktrace: members.remove("stacktrace"),
        data: members.remove("data").unwrap_or_default(),
    })
}

fn put_note(members: &mut Map<String, Value>, note: &MetricNote, stored: Timestamp) {
    members.insert("name".to_owned(), note.name.as_str().into());
    if !note.tags.is_empty() {
        members.insert("tags".to_owned(), note.tags.clone().into());
    }
    members.insert("type".to_owned(), note.kind.name().into());
    put_text(members, "unit", note.unit.as_deref().unwrap_or_default());
    put_value(members, "count", note.count.map(Value::from).as_ref());
    put_value(members, "metadata", note.metadata.as_ref());
    put_time(members, note.time, stored);
}

fn read_note(members: &Map<String, Value>) -> Option<MetricNote> {
    let tags = members.get("tags").and_then(Value::as_array);
    let tags = tags.map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    Some(MetricNote {
        name: read_text(members, "name")?,
        tags: tags.unwrap_or_default(),
        kind: members.get("type").and_then(Value::as_str).and_then(SessionMetricKind::from_name)?,
        unit: read_text(members, "unit"),
        count: members.get("count").and_then(Value::as_u64),
        metadata: members.get("metadata").cloned(),
        time: read_time(members),
    })
}

/// What the series of a product holds of a session's creation.
pub(super) fn encode_created(id: SessionId, info: &SessionInfo) -> Result<Vec<u8>> {
    let mut members = Map::new();
    members.insert("id".to_owned(), id.to_string().into());
    put_text(&mut members, "version", &info.version);
    put_text(&mut members, "hostname", &info.hostname);
    put_text(&mut members, "machine_id", &info.machine_id);
    to_bytes(members)
}

/// Reads what [`encode_created`] wrote, of the series of `product`.
pub(super) fn decode_created(product: &str, bytes: &[u8]) -> Option<(SessionId, SessionInfo)> {
    let Value::Object(members) = serde_json::from_slice(bytes).ok()? else { return None };
    let text = |key| read_text(&members, key).unwrap_or_default();
    let info = SessionInfo {
        product: product.to_owned(),
        version: text("version"),
        hostname: text("hostname"),
        machine_id: text("machine_id"),
    };
    Some((members.get("id")?.as_str()?.parse().ok()?, info))
}

fn put_text(members: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        members.insert(key.to_owned(), text.into());
    }
}

fn put_value(members: &mut Map<String, Value>, key: &str, value: Option<&Value>) {
    if let Some(value) = value {
        members.insert(key.to_owned(), value.clone());
    }
}

/// The time that was said, where it is not the time under which the entry is stored.
fn put_time(members: &mut Map<String, Value>, time: Option<Timestamp>, stored: Timestamp) {
    if let Some(time) = time.filter(|time| *time != stored) {
        members.insert("time".to_owned(), time.nanos().into());
    }
}

fn read_text(members: &Map<String, Value>, key: &str) -> Option<String> {
    members.get(key)?.as_str().map(str::to_owned)
}

fn read_time(members: &Map<String, Value>) -> Option<Timestamp> {
    members.get("time")?.as_i64().map(Timestamp::from_nanos)
}

fn to_bytes(members: Map<String, Value>) -> Result<Vec<u8>> {
    let bytes = Value::Object(members).to_string().into_bytes();
    if bytes.len() > SESSION_PAYLOAD_SIZE_MAX {
        let size = bytes.len();
        return Err(Error::invalid_input(format!(
            "an entry of a session takes {size} bytes, more than {SESSION_PAYLOAD_SIZE_MAX}"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STORED: Timestamp = Timestamp::from_nanos(1_000);

    #[track_caller]
    fn round_trip(entry: &Entry) {
        let bytes = entry.encode(STORED).unwrap();
        assert_eq!(Entry::decode(&bytes).as_ref(), Some(entry), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn entries_round_trip() {
        round_trip(&Entry::Heartbeat);
        round_trip(&Entry::Ended);
        round_trip(&Entry::Resumed);
        round_trip(&Entry::Crashed { reason: String::new() });
        round_trip(&Entry::Crashed { reason: "segfault".to_owned() });
        round_trip(&Entry::State { patch: json!({"a": null, "b": [1, {"c": -0.5}]}), time: None });
        round_trip(&Entry::State { patch: json!({}), time: Some(Timestamp::from_nanos(-5)) });
        round_trip(&Entry::Event(Box::new(SessionEvent::new("startup"))));
        let full = SessionEvent::new("größe")
            .with_level("warning")
            .group("g")
            .labels(["a", "b"])
            .message("line\nbreak")
            .data(json!({"big": u64::MAX, "float": 1.0}))
            .exception("T", "m")
            .stacktrace(["f", "g"])
            .source("main.rs", 7, "main")
            .at(Timestamp::from_nanos(999));
        round_trip(&Entry::Event(Box::new(full)));
        let note = MetricNote { name: "m".to_owned(), ..MetricNote::default() };
        round_trip(&Entry::Metric(note.clone()));
        let tags = vec!["b".to_owned(), "a:1".to_owned()];
        let (kind, unit) = (SessionMetricKind::Timer, Some("seconds".to_owned()));
        let (count, metadata) = (Some(u64::MAX), Some(json!({"k": "v"})));
        let time = Some(Timestamp::from_nanos(7));
        round_trip(&Entry::Metric(MetricNote { tags, kind, unit, count, metadata, time, ..note }));
    }

    #[test]
    fn what_is_not_said_takes_no_bytes() {
        let event = SessionEvent::new("startup").at(STORED);
        let bytes = Entry::Event(Box::new(event)).encode(STORED).unwrap();
        assert_eq!(bytes, br#"{"name":"startup"}"#);
        assert_eq!(Entry::Heartbeat.encode(STORED).unwrap(), br#"{"kind":"heartbeat"}"#);
    }

    #[test]
    fn a_creation_round_trips() {
        let id = SessionId::new(STORED, 5);
        let info = SessionInfo::new("MyApp", "1.0.0").hostname("h").machine_id("m");
        let bytes = encode_created(id, &info).unwrap();
        assert_eq!(decode_created("MyApp", &bytes), Some((id, info)));
    }

    #[test]
    fn other_bytes_are_no_entries() {
        for bytes in [
            &b""[..],
            b"null",
            b"[]",
            b"{}",
            br#"{"kind":"later"}"#,
            br#"{"kind":5}"#,
            br#"{"kind":"state"}"#,
            br#"{"kind":"metric","name":"m","type":"odd"}"#,
            b"\xff{}",
        ] {
            assert_eq!(Entry::decode(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(decode_created("p", b"{}"), None);
        let deep = "[".repeat(100_000);
        assert_eq!(Entry::decode(deep.as_bytes()), None);
    }

    #[test]
    fn the_size_of_an_entry_is_limited() {
        let entry = |size: usize| Entry::Crashed { reason: "x".repeat(size) };
        let overhead = entry(1).encode(STORED).unwrap().len() - 1;
        assert!(entry(SESSION_PAYLOAD_SIZE_MAX - overhead).encode(STORED).is_ok());
        let error = entry(SESSION_PAYLOAD_SIZE_MAX - overhead + 1).encode(STORED).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
    }
}
