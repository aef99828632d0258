//! A session read back whole: entries and samples folded into what people ask for.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::metric::SessionMetricKind;
use crate::ingest::session::payload::{Entry, MetricNote};
use crate::ingest::session::tags::{SessionTag, list_of, series_tags};
use crate::ingest::session::{SessionInfo, state};
use crate::model::{SeriesKey, Timestamp};

/// A session that sent heartbeats and has sent none for this long is suspended.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(60);
/// The event by which a client says that its program hangs, and the one that takes it back.
const HUNG_EVENT: &str = "application_appears_hung";
const RECOVERED_EVENT: &str = "application_recovered";

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionStatus {
    /// It runs.
    Active,
    /// It sent heartbeats, and the last one is older than [`HEARTBEAT_TIMEOUT`].
    Suspended,
    /// It said that it ended.
    Ended,
    /// It was said to have crashed, or it was suspended when its machine began another session.
    Crashed,
}

/// What is known of a session without its metrics and events: what a list shows.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSummary {
    /// Its id.
    pub id: SessionId,
    /// Product, version, host and machine.
    pub info: SessionInfo,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it ended or crashed, if it did.
    pub ended_at: Option<Timestamp>,
    /// Its last heartbeat, if it sent any.
    pub last_heartbeat: Option<Timestamp>,
    /// How it stands.
    pub status: SessionStatus,
}

/// A session with everything that was logged in it.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionView {
    /// What a list shows of it.
    pub summary: SessionSummary,
    /// The last time that anything was logged.
    pub updated_at: Timestamp,
    /// Whether the program last said that it hangs.
    pub hung: bool,
    /// Its state: product and version, and all patches merged into it.
    pub state: Value,
    /// The state after each patch, in order of time.
    pub state_history: Vec<(Timestamp, Value)>,
    /// Events in order of time; each has one.
    pub events: Vec<SessionEvent>,
    /// Samples of metrics in order of time.
    pub metrics: Vec<SessionSample>,
    /// Entries that this release cannot read. They are kept.
    pub unreadable_count: usize,
}

/// One sample of a session's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSample {
    /// When it was measured.
    pub time: Timestamp,
    /// The metric.
    pub name: String,
    /// The value.
    pub value: f64,
    /// What it measures.
    pub kind: SessionMetricKind,
    /// The tags, as they were first sent for this series.
    pub tags: Vec<String>,
    /// Of how many things the value is.
    pub count: Option<u64>,
    /// The unit, if it was said.
    pub unit: Option<String>,
    /// Anything else that was said.
    pub metadata: Option<Value>,
}

/// The parts that a session is read back from.
#[derive(Debug, Default)]
pub(super) struct Parts {
    /// Entries of its own series, in the order stored.
    pub(super) entries: Vec<(Timestamp, Vec<u8>)>,
    /// Every other series that carries its tag and holds numbers.
    pub(super) series: Vec<(SeriesKey, Vec<Timestamp>, Vec<f64>)>,
}

impl SessionView {
    /// The session `id` of its parts, as it stands at `now`.
    pub(super) fn of(id: SessionId, info: SessionInfo, parts: Parts, now: Timestamp) -> Self {
        let state = serde_json::json!({"product": info.product, "version": info.version});
        let summary = SessionSummary::new(id, info);
        let mut view = SessionView {
            updated_at: summary.created_at,
            summary,
            hung: false,
            state,
            state_history: Vec::new(),
            events: Vec::new(),
            metrics: Vec::new(),
            unreadable_count: 0,
        };
        let mut notes = Vec::new();
        for (stored, bytes) in parts.entries {
            view.updated_at = view.updated_at.max(stored);
            match Entry::decode(&bytes) {
                Some(Entry::Metric(note)) => notes.push((stored, note)),
                Some(entry) => view.apply(entry, stored),
                None => view.unreadable_count += 1,
            }
        }
        view.add_metrics(parts.series, notes);
        view.settle(now);
        view
    }

    fn apply(&mut self, entry: Entry, stored: Timestamp) {
        self.summary.apply_life(&entry, stored);
        match entry {
            entry @ (Entry::Event(_) | Entry::Crashed { .. }) => {
                self.events.extend(entry.into_event(stored));
            }
            Entry::State { patch, time } => {
                state::merge(&mut self.state, &patch);
                self.state_history.push((time.unwrap_or(stored), self.state.clone()));
            }
            Entry::Heartbeat | Entry::Ended | Entry::Resumed | Entry::Metric(_) => {}
        }
    }

    fn add_metrics(
        &mut self,
        series: Vec<(SeriesKey, Vec<Timestamp>, Vec<f64>)>,
        notes: Vec<(Timestamp, MetricNote)>,
    ) {
        let mut noted = notes_by_series(notes);
        for (key, times, values) in series {
            self.updated_at = self.updated_at.max(times.last().copied().unwrap_or(Timestamp::MIN));
            let mut notes = noted.remove(&identity(key.name(), key.tags())).unwrap_or_default();
            let first = notes.first().map(|(_, first)| first.tags.clone());
            let list = first.unwrap_or_else(|| list_of(key.tags()));
            notes.sort_by_key(|(time, _)| *time);
            let samples = times.into_iter().zip(values);
            self.metrics.extend(samples.map(|(time, value)| noted_sample(&key, &list, &notes, time, value)));
        }
        self.metrics.sort_by_key(|sample| sample.time);
    }

    /// What depends on all entries at once.
    fn settle(&mut self, now: Timestamp) {
        self.events.sort_by_key(|event| event.time);
        let last_said = self
            .events
            .iter()
            .rev()
            .find(|event| [HUNG_EVENT, RECOVERED_EVENT].contains(&event.name.as_str()));
        self.hung = last_said.is_some_and(|event| event.name == HUNG_EVENT);
        self.summary.settle(now);
    }
}

impl SessionStatus {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            SessionStatus::Active => "active",
            SessionStatus::Suspended => "suspended",
            SessionStatus::Ended => "ended",
            SessionStatus::Crashed => "crashed",
        }
    }

    /// The status that `name` is the word for.
    ///
    /// # Errors
    /// `InvalidInput` naming the words there are.
    pub fn from_name(name: &str) -> Result<Self> {
        use SessionStatus::{Active, Crashed, Ended, Suspended};
        let found = [Active, Suspended, Ended, Crashed].into_iter().find(|status| status.name() == name);
        found.ok_or_else(|| Error::invalid_input("status: not one of active, suspended, ended, crashed"))
    }
}

impl SessionSummary {
    /// A session of which nothing is known but its creation.
    pub(super) fn new(id: SessionId, info: SessionInfo) -> Self {
        let (created_at, status) = (id.created_at(), SessionStatus::Active);
        SessionSummary { id, info, created_at, ended_at: None, last_heartbeat: None, status }
    }

    /// What an entry says of the life of the session.
    pub(super) fn apply_life(&mut self, entry: &Entry, stored: Timestamp) {
        match entry {
            Entry::Heartbeat => self.last_heartbeat = Some(stored),
            Entry::Ended => (self.ended_at, self.status) = (Some(stored), SessionStatus::Ended),
            Entry::Crashed { .. } => (self.ended_at, self.status) = (Some(stored), SessionStatus::Crashed),
            Entry::Resumed => {
                (self.ended_at, self.status) = (None, SessionStatus::Active);
                // It was silent because it had ended.
                self.last_heartbeat = None;
            }
            Entry::Event(_) | Entry::State { .. } | Entry::Metric(_) => {}
        }
    }

    /// A suspended session has crashed when its machine has begun another one since.
    pub(super) fn give_up(&mut self, machine_moved_on: bool) {
        if self.status == SessionStatus::Suspended && machine_moved_on {
            self.status = SessionStatus::Crashed;
        }
    }

    /// Whether a running session has fallen silent at `now`.
    pub(super) fn settle(&mut self, now: Timestamp) {
        let timeout = i64::try_from(HEARTBEAT_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
        let silent = self.last_heartbeat.is_some_and(|last| last.saturating_add(timeout) < now);
        if self.status == SessionStatus::Active && silent {
            self.status = SessionStatus::Suspended;
        }
    }
}

/// Name and tags of a series within its session.
type Identity = (String, Vec<(String, String)>);

fn identity<'a>(name: &str, tags: impl Iterator<Item = (&'a str, &'a str)>) -> Identity {
    let tags = tags.filter(|(key, _)| *key != super::tags::SESSION_KEY);
    (name.to_owned(), tags.map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
}

/// Notes with the times of their samples, by series, in the order stored.
fn notes_by_series(notes: Vec<(Timestamp, MetricNote)>) -> HashMap<Identity, Vec<(Timestamp, MetricNote)>> {
    let mut by_series: HashMap<Identity, Vec<_>> = HashMap::new();
    for (stored, note) in notes {
        let list: Vec<SessionTag<'_>> = note.tags.iter().map(SessionTag::from).collect();
        let tags = series_tags(&list);
        let identity = identity(&note.name, tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref())));
        by_series.entry(identity).or_default().push((note.time.unwrap_or(stored), note));
    }
    by_series
}

/// A sample with what was said of it in `notes`, which are in order of time: kind and unit hold until others are said,
/// count and metadata for their sample alone.
fn noted_sample(
    key: &SeriesKey,
    list: &[String],
    notes: &[(Timestamp, MetricNote)],
    time: Timestamp,
    value: f64,
) -> SessionSample {
    let after = notes.partition_point(|(noted, _)| *noted <= time);
    let latest = after.checked_sub(1).and_then(|index| notes.get(index));
    let own = latest.filter(|(noted, _)| *noted == time).map(|(_, note)| note);
    let standing = latest.map(|(_, note)| note);
    SessionSample {
        time,
        name: key.name().to_owned(),
        value,
        kind: standing.map(|note| note.kind).unwrap_or_default(),
        tags: list.to_vec(),
        count: own.and_then(|note| note.count),
        unit: standing.and_then(|note| note.unit.clone()),
        metadata: own.and_then(|note| note.metadata.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    fn view(entries: &[(i64, Entry)], now: i64) -> SessionView {
        let encode = |(time, entry): &(i64, Entry)| (at(*time), entry.encode(at(*time)).unwrap());
        let parts = Parts { entries: entries.iter().map(encode).collect(), ..Parts::default() };
        SessionView::of(SessionId::new(at(1), 0), SessionInfo::new("p", "1"), parts, at(now))
    }

    fn event(name: &str) -> Entry {
        Entry::Event(Box::new(SessionEvent::new(name)))
    }

    #[test]
    fn states_are_merged_in_order() {
        let state = |patch| Entry::State { patch, time: None };
        let v = view(
            &[(2, state(json!({"a": {"x": 1}, "b": 2}))), (3, state(json!({"a": {"y": 2}, "b": null})))],
            5,
        );
        assert_eq!(v.state, json!({"product": "p", "version": "1", "a": {"x": 1, "y": 2}}));
        assert_eq!((v.state_history[0].0, &v.state_history[0].1["b"]), (at(2), &json!(2)));
        assert_eq!(v.state_history[1].1, v.state);
        assert_eq!(v.updated_at, at(3));
    }

    #[track_caller]
    fn check_status(entries: &[(i64, Entry)], now: i64, status: SessionStatus, ended_at: Option<i64>) {
        let v = view(entries, now);
        assert_eq!((v.summary.status, v.summary.ended_at), (status, ended_at.map(at)));
    }

    #[test]
    fn the_status_follows_from_the_entries() {
        let minute = 60_000_000_000;
        let crashed = || Entry::Crashed { reason: String::new() };
        check_status(&[], i64::MAX, SessionStatus::Active, None);
        check_status(&[(2, Entry::Heartbeat)], 2 + minute, SessionStatus::Active, None);
        check_status(&[(2, Entry::Heartbeat)], 3 + minute, SessionStatus::Suspended, None);
        check_status(&[(2, Entry::Heartbeat), (3, Entry::Ended)], i64::MAX, SessionStatus::Ended, Some(3));
        check_status(&[(2, crashed())], 9, SessionStatus::Crashed, Some(2));
        check_status(&[(2, Entry::Ended), (4, Entry::Resumed)], 9, SessionStatus::Active, None);
        check_status(
            &[(2, Entry::Ended), (4, Entry::Resumed), (5, crashed())],
            9,
            SessionStatus::Crashed,
            Some(5),
        );
    }

    #[test]
    fn a_silent_session_whose_machine_moved_on_has_crashed() {
        let mut summary = view(&[(2, Entry::Heartbeat)], 3).summary;
        summary.give_up(true);
        assert_eq!(summary.status, SessionStatus::Active);
        summary.settle(at(i64::MAX));
        summary.give_up(true);
        assert_eq!(summary.status, SessionStatus::Crashed);
    }

    #[test]
    fn events_have_their_own_order_and_say_whether_the_program_hangs() {
        let hung = |at_time: i64| Entry::Event(Box::new(SessionEvent::new(HUNG_EVENT).at(at(at_time))));
        let v = view(&[(10, event("second")), (11, hung(5))], 20);
        let names: Vec<&str> = v.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, [HUNG_EVENT, "second"]);
        assert!(v.hung);
        assert!(!view(&[(10, hung(10)), (11, event(RECOVERED_EVENT))], 20).hung);
    }

    #[test]
    fn samples_carry_what_was_said_of_them() {
        let key = SeriesKey::new("m", [("session", "x"), ("a", "1"), ("b", "true")]).unwrap();
        let note = MetricNote {
            name: "m".to_owned(),
            tags: vec!["b".to_owned(), "a:1".to_owned()],
            kind: SessionMetricKind::Timer,
            unit: Some("seconds".to_owned()),
            count: Some(3),
            metadata: None,
            time: Some(at(10)),
        };
        let plain = SeriesKey::new("other", [("session", "x"), ("api", "true")]).unwrap();
        let parts = Parts {
            entries: vec![(at(10), Entry::Metric(note).encode(at(10)).unwrap()), (at(11), b"junk".to_vec())],
            series: vec![
                (key, vec![at(9), at(10), at(12)], vec![1.0, 2.0, 3.0]),
                (plain, vec![at(11)], vec![4.0]),
            ],
        };
        let v = SessionView::of(SessionId::new(at(1), 0), SessionInfo::new("p", "1"), parts, at(20));
        let shown: Vec<_> =
            v.metrics.iter().map(|s| (s.value, s.kind.name(), s.count, s.unit.is_some())).collect();
        let expected = [
            (1.0, "gauge", None, false),
            (2.0, "timer", Some(3), true),
            (4.0, "gauge", None, false),
            (3.0, "timer", None, true),
        ];
        assert_eq!(shown, expected);
        assert_eq!(v.metrics[0].tags, ["b", "a:1"]);
        assert_eq!(v.metrics[2].tags, ["api"]);
        assert_eq!((v.unreadable_count, v.updated_at), (1, at(12)));
    }
}
