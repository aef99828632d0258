//! What the byte series of sessions hold: JSON objects, defined in `docs/ingest.md`, "Sessions on disk".

use serde::Serialize;
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
        let mut members = Members::default();
        match self {
            Entry::Event(event) => return encode_event(event, stored),
            Entry::State { patch, time } => {
                members.text("kind", "state").value("state", Some(patch)).time(*time, stored);
            }
            Entry::Heartbeat => {
                members.text("kind", "heartbeat");
            }
            Entry::Ended => {
                members.text("kind", "ended");
            }
            Entry::Crashed { reason } => {
                members.text("kind", "crashed").text("reason", reason);
            }
            Entry::Resumed => {
                members.text("kind", "resumed");
            }
            Entry::Metric(note) => put_note(&mut members, note, stored),
        }
        members.finish()
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

/// The bytes of an event that is stored at `stored`; as [`Entry::encode`], without an entry to be made.
///
/// # Errors
/// As [`Entry::encode`].
pub(super) fn encode_event(event: &SessionEvent, stored: Timestamp) -> Result<Vec<u8>> {
    let mut members = Members::default();
    members
        .text("category", event.category.as_deref().unwrap_or_default())
        .value("data", Some(&event.data).filter(|data| !data.is_null()))
        .text("exception_msg", event.exception_msg.as_deref().unwrap_or_default())
        .text("exception_type", event.exception_type.as_deref().unwrap_or_default())
        .text("group", &event.group)
        .value("labels", Some(&event.labels).filter(|labels| !labels.is_empty()))
        .text("level", event.level.as_deref().unwrap_or_default())
        .text("message", &event.message)
        .value("name", Some(&event.name))
        .text("source_file", event.source_file.as_deref().unwrap_or_default())
        .text("source_function", event.source_function.as_deref().unwrap_or_default())
        .value("source_line", event.source_line.as_ref())
        .value("stacktrace", event.stacktrace.as_ref())
        .time(event.time, stored);
    members.finish()
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

fn put_note(members: &mut Members, note: &MetricNote, stored: Timestamp) {
    members
        .value("count", note.count.as_ref())
        .text("kind", "metric")
        .value("metadata", note.metadata.as_ref())
        .value("name", Some(&note.name))
        .value("tags", Some(&note.tags).filter(|tags| !tags.is_empty()))
        .time(note.time, stored)
        .text("type", note.kind.name())
        .text("unit", note.unit.as_deref().unwrap_or_default());
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
    let mut members = Members::default();
    members
        .text("hostname", &info.hostname)
        .text("id", &id.to_string())
        .text("machine_id", &info.machine_id)
        .text("version", &info.version);
    members.finish()
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

fn read_text(members: &Map<String, Value>, key: &str) -> Option<String> {
    members.get(key)?.as_str().map(str::to_owned)
}

fn read_time(members: &Map<String, Value>) -> Option<Timestamp> {
    members.get("time")?.as_i64().map(Timestamp::from_nanos)
}

/// A JSON object being written, member by member.
#[derive(Default)]
struct Members(Vec<u8>);

impl Members {
    /// A member that holds a text; nothing for an empty one.
    fn text(&mut self, key: &str, text: &str) -> &mut Self {
        self.value(key, Some(text).filter(|text| !text.is_empty()))
    }

    /// A member that holds a value, if there is one.
    fn value(&mut self, key: &str, value: Option<&(impl Serialize + ?Sized)>) -> &mut Self {
        if let Some(value) = value {
            self.0.push(if self.0.is_empty() { b'{' } else { b',' });
            self.0.push(b'"');
            self.0.extend_from_slice(key.as_bytes());
            self.0.extend_from_slice(b"\":");
            serde_json::to_writer(&mut self.0, value)
                .expect("text, numbers and JSON values are written to memory");
        }
        self
    }

    /// The time that was said, where it is not the time under which the entry is stored.
    fn time(&mut self, time: Option<Timestamp>, stored: Timestamp) -> &mut Self {
        let nanos = time.filter(|time| *time != stored).map(Timestamp::nanos);
        self.value("time", nanos.as_ref())
    }

    /// The bytes of the object.
    fn finish(self) -> Result<Vec<u8>> {
        let mut bytes = self.0;
        bytes.extend_from_slice(if bytes.is_empty() { b"{}" } else { b"}" });
        if bytes.len() > SESSION_PAYLOAD_SIZE_MAX {
            let size = bytes.len();
            return Err(Error::invalid_input(format!(
                "an entry of a session takes {size} bytes, more than {SESSION_PAYLOAD_SIZE_MAX}"
            )));
        }
        Ok(bytes)
    }
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
