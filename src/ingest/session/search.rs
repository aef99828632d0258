//! Events of many sessions, found by session, attributes, name, level and time, newest first.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::fmt;
use std::str::FromStr;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::filter::SessionFilter;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::payload::Entry;
use crate::ingest::session::tags::SESSION_KEY;
use crate::ingest::session::{EVENTS_NAME, SessionInfo};
use crate::model::{Column, Selector, TimeRange, Timestamp};
use crate::query::{CancelToken, QueryLimits};

/// Most events of one page unless told otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Most bytes of the entries of one page; it ends before.
const PAGE_SIZE_MAX: usize = 16 << 20;
/// How much earlier than it says to have happened an event may have been logged. One that is further ahead of its
/// logging may be missing from a page.
const AHEAD_MAX: i64 = 24 * 3_600 * 1_000_000_000;
/// The first stretch of time of logging that is looked at, backwards from now; each further one is so much longer.
const WINDOW: i64 = 3_600 * 1_000_000_000;
const WINDOW_GROWTH: i64 = 8;
/// How many events wait until the attributes of their sessions are asked for together.
const WAITING_COUNT_MAX: usize = 1_000;

/// Which events are found: those that satisfy all that is given, newest first.
///
/// ```
/// use icecore::ingest::EventFilter;
///
/// let errors = EventFilter { level: Some("error".to_owned()), ..EventFilter::default() };
/// assert_eq!(errors.limit, 100);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct EventFilter {
    /// Of this session.
    pub session: Option<SessionId>,
    /// Of sessions with this product, version, host and machine; nothing else of the filter counts.
    pub sessions: SessionFilter,
    /// With this name.
    pub name: Option<String>,
    /// Of this level.
    pub level: Option<String>,
    /// Of this category.
    pub category: Option<String>,
    /// Of this group.
    pub group: Option<String>,
    /// With this label.
    pub label: Option<String>,
    /// That happened in this stretch of time.
    pub range: TimeRange,
    /// Behind this one: the last of the page before.
    pub before: Option<EventPlace>,
    /// At most so many. Default: 100.
    pub limit: usize,
}

impl Default for EventFilter {
    fn default() -> Self {
        EventFilter {
            session: None,
            sessions: SessionFilter::default(),
            name: None,
            level: None,
            category: None,
            group: None,
            label: None,
            range: TimeRange::ALL,
            before: None,
            limit: LIMIT_DEFAULT,
        }
    }
}

/// Where an event stands among all others: by the time at which it happened, then that at which it was logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventPlace {
    /// When it happened.
    pub time: Timestamp,
    /// When it was logged.
    pub logged_at: Timestamp,
    /// In which session.
    pub session: SessionId,
}

impl fmt::Display for EventPlace {
    /// `time_logged_session`, times in nanoseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}_{}", self.time.nanos(), self.logged_at.nanos(), self.session)
    }
}

impl FromStr for EventPlace {
    type Err = Error;

    /// Reads what is shown.
    ///
    /// # Errors
    /// `InvalidInput` for anything else.
    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (time, rest) = text.split_once('_')?;
            let (logged_at, session) = rest.split_once('_')?;
            Some(EventPlace {
                time: Timestamp::from_nanos(time.parse().ok()?),
                logged_at: Timestamp::from_nanos(logged_at.parse().ok()?),
                session: session.parse().ok()?,
            })
        };
        read().ok_or_else(|| Error::invalid_input(format!("{text:?} is no place of an event")))
    }
}

/// An event, and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEvent {
    /// Where it stands.
    pub place: EventPlace,
    /// Product, version, host and machine of its session.
    pub info: SessionInfo,
    /// The event; its time is given.
    pub event: SessionEvent,
}

/// A page of events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventPage {
    /// Newest first.
    pub events: Vec<FoundEvent>,
    /// Where the next page begins; `None` when there is none.
    pub next: Option<EventPlace>,
}

impl Db {
    /// The newest events that `filter` lets through.
    ///
    /// Reads the events of the session, or those logged since the range began, backwards until the page is full.
    ///
    /// # Errors
    /// As a query.
    pub fn session_events(&self, filter: &EventFilter) -> Result<EventPage> {
        self.session_events_within(filter, QueryLimits::default(), CancelToken::new())
    }

    /// As [`Db::session_events`], within `limits` for each stretch of time looked at.
    pub(crate) fn session_events_within(
        &self,
        filter: &EventFilter,
        limits: QueryLimits,
        cancel: CancelToken,
    ) -> Result<EventPage> {
        let clock = &self.env().clock;
        let deadline = limits.duration_max.map(|duration| clock.monotonic().saturating_add(duration));
        let mut search = Search::new(self, filter);
        let oldest = filter.range.start.saturating_sub(AHEAD_MAX);
        let mut range = TimeRange::ALL;
        // One session is read at once. Beyond what time has, everything older is one stretch, too.
        let mut window = Some(WINDOW).filter(|_| filter.session.is_none());
        loop {
            range.start = window.map_or(oldest, |window| clock.now().saturating_sub(window).max(oldest));
            let mut limits = limits.clone();
            limits.duration_max = deadline.map(|deadline| deadline.saturating_sub(clock.monotonic()));
            search.read(range, limits, cancel.clone())?;
            if range.start <= oldest {
                break;
            }
            if search.has_all_since(range.start.saturating_add(AHEAD_MAX)) {
                search.stopped_early = true;
                break;
            }
            range.end = range.start;
            window = window.and_then(|window| window.checked_mul(WINDOW_GROWTH));
        }
        search.finish()
    }
}

/// An event that was let through so far.
#[derive(Debug)]
struct Candidate {
    place: EventPlace,
    event: SessionEvent,
    size: usize,
}

/// The newest events found so far.
struct Search<'a> {
    db: &'a Db,
    filter: &'a EventFilter,
    wants_infos: bool,
    /// The oldest on top.
    page: BinaryHeap<Reverse<Ranked>>,
    size: usize,
    /// The newest event that did not fit; nothing older is taken.
    cut: Option<EventPlace>,
    stopped_early: bool,
    waiting: Vec<Candidate>,
}

/// A candidate in order of place.
#[derive(Debug)]
struct Ranked(Candidate);

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.0.place == other.0.place
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.place.cmp(&other.0.place)
    }
}

impl<'a> Search<'a> {
    fn new(db: &'a Db, filter: &'a EventFilter) -> Self {
        let sessions = &filter.sessions;
        let attributes = [&sessions.product, &sessions.version, &sessions.hostname, &sessions.machine_id];
        Search {
            db,
            filter,
            wants_infos: attributes.iter().any(|attribute| attribute.is_some()),
            page: BinaryHeap::new(),
            size: 0,
            cut: None,
            stopped_early: false,
            waiting: Vec::new(),
        }
    }

    /// Looks at the events logged in `range`.
    fn read(&mut self, range: TimeRange, limits: QueryLimits, cancel: CancelToken) -> Result<()> {
        let mut selector = Selector::name(EVENTS_NAME);
        if let Some(session) = self.filter.session {
            selector = selector.with(SESSION_KEY, session.to_string());
        }
        for piece in self.db.query(selector).range(range).limits(limits).cancel(cancel).stream()? {
            let piece = piece?;
            let (Ok(session), Column::Bytes(entries)) = (piece.key.tag(SESSION_KEY).parse(), &piece.values)
            else {
                continue;
            };
            for (logged_at, bytes) in piece.times.iter().zip(entries.iter()) {
                let Some(event) = Entry::decode(bytes).and_then(|entry| entry.into_event(*logged_at)) else {
                    continue;
                };
                let time = event.time.unwrap_or(*logged_at);
                let place = EventPlace { time, logged_at: *logged_at, session };
                if self.takes(place, &event) {
                    self.waiting.push(Candidate { place, event, size: bytes.len() });
                    self.admit_when(WAITING_COUNT_MAX)?;
                }
            }
        }
        self.admit_when(1)
    }

    fn takes(&self, place: EventPlace, event: &SessionEvent) -> bool {
        let filter = self.filter;
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        filter.range.contains(place.time)
            && filter.before.is_none_or(|before| place < before)
            && self.cut.is_none_or(|cut| place > cut)
            && is(&filter.name, &event.name)
            && is(&filter.level, event.level())
            && is(&filter.category, event.category.as_deref().unwrap_or(event.level()))
            && is(&filter.group, &event.group)
            && filter.label.as_ref().is_none_or(|label| event.labels.contains(label))
    }

    /// Once `count` events wait, lets those through whose sessions are wanted.
    fn admit_when(&mut self, count: usize) -> Result<()> {
        if self.waiting.len() < count {
            return Ok(());
        }
        let waiting = std::mem::take(&mut self.waiting);
        let infos = if self.wants_infos {
            let ids: BTreeSet<SessionId> = waiting.iter().map(|candidate| candidate.place.session).collect();
            Some(self.db.session_infos(&ids.into_iter().collect::<Vec<_>>())?)
        } else {
            None
        };
        for candidate in waiting {
            let info = infos.as_ref().map(|infos| infos.get(&candidate.place.session));
            let passes =
                info.is_none_or(|info| info.is_some_and(|(info, _)| self.filter.sessions.takes(info)));
            if passes && self.cut.is_none_or(|cut| candidate.place > cut) {
                self.size += candidate.size;
                self.page.push(Reverse(Ranked(candidate)));
                self.shrink();
            }
        }
        Ok(())
    }

    /// Drops the oldest until the page is no larger than it may be.
    fn shrink(&mut self) {
        while self.page.len() > self.filter.limit || (self.size > PAGE_SIZE_MAX && self.page.len() > 1) {
            let Some(Reverse(Ranked(oldest))) = self.page.pop() else { return };
            self.size -= oldest.size;
            self.cut = self.cut.max(Some(oldest.place));
        }
    }

    /// Whether the page is full of events that happened at `time` or later, so that older ones do not matter.
    fn has_all_since(&self, time: Timestamp) -> bool {
        let is_full = self.page.len() >= self.filter.limit || self.cut.is_some();
        is_full && self.page.peek().is_some_and(|Reverse(Ranked(oldest))| oldest.place.time >= time)
    }

    fn finish(self) -> Result<EventPage> {
        let sorted = self.page.into_sorted_vec();
        let ids: BTreeSet<SessionId> = sorted.iter().map(|Reverse(ranked)| ranked.0.place.session).collect();
        let infos = self.db.session_infos(&ids.into_iter().collect::<Vec<_>>())?;
        let events: Vec<FoundEvent> = sorted
            .into_iter()
            .map(|Reverse(Ranked(Candidate { place, mut event, .. }))| {
                event.time = Some(place.time);
                let info = infos.get(&place.session).map(|(info, _)| info.clone()).unwrap_or_default();
                FoundEvent { place, info, event }
            })
            .collect();
        let has_more = self.cut.is_some() || self.stopped_early;
        let next = events.last().map(|found| found.place).filter(|_| has_more);
        Ok(EventPage { events, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::{Background, Options};
    use crate::env::Env;
    use crate::ingest::session::SessionOptions;
    use serde_json::json;

    fn db() -> Db {
        let options = Options { env: Env::simulated(1), background: Background::Host, ..Options::default() };
        Db::open_with("db", options).unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    /// Three sessions of two products, ten events each, a second apart and alternating.
    fn filled() -> (Db, Vec<SessionId>) {
        let db = db();
        let mut ids = Vec::new();
        let mut sessions = Vec::new();
        for (product, version) in [("a", "1"), ("a", "2"), ("b", "1")] {
            let info = SessionInfo::new(product, version).hostname("h");
            let session = db.create_session_with(info, &SessionOptions::default()).unwrap();
            ids.push(session.id());
            sessions.push(session);
        }
        for n in 0..30 {
            let level = if n % 5 == 0 { "error" } else { "info" };
            let name = format!("e{}", n % 2);
            let event = SessionEvent::new(&name).with_level(level).data(json!({ "n": n })).at(at(1_000 + n));
            let event = if n % 3 == 0 { event.labels(["third"]).group("g") } else { event };
            sessions[n as usize % 3].record_event(&event).unwrap();
        }
        (db, ids)
    }

    fn numbers(page: &EventPage) -> Vec<i64> {
        page.events.iter().map(|found| found.event.data["n"].as_i64().unwrap()).collect()
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut EventFilter, &[SessionId]), expected: &[i64]) {
        let (db, ids) = filled();
        let mut filter = EventFilter::default();
        change(&mut filter, &ids);
        assert_eq!(numbers(&db.session_events(&filter).unwrap()), expected);
    }

    #[test]
    fn each_condition_narrows() {
        let text = |text: &str| Some(text.to_owned());
        check(|f, ids| f.session = Some(ids[1]), &[28, 25, 22, 19, 16, 13, 10, 7, 4, 1]);
        check(|f, _| f.level = text("error"), &[25, 20, 15, 10, 5, 0]);
        check(
            |f, _| (f.name, f.sessions.product) = (text("e1"), text("a")),
            &[27, 25, 21, 19, 15, 13, 9, 7, 3, 1],
        );
        check(
            |f, _| (f.sessions.version, f.sessions.product) = (text("2"), text("a")),
            &[28, 25, 22, 19, 16, 13, 10, 7, 4, 1],
        );
        check(|f, _| (f.label, f.level) = (text("third"), text("error")), &[15, 0]);
        check(|f, _| (f.group, f.level) = (text("g"), text("error")), &[15, 0]);
        check(|f, _| f.range = TimeRange { start: at(1_003), end: at(1_006) }, &[5, 4, 3]);
        check(|f, _| f.sessions.hostname = text("other"), &[]);
        check(|f, _| f.limit = 2, &[29, 28]);
    }

    #[test]
    fn pages_follow_each_other_without_gaps() {
        let (db, _) = filled();
        let mut filter = EventFilter { limit: 7, ..EventFilter::default() };
        let mut found = Vec::new();
        loop {
            let page = db.session_events(&filter).unwrap();
            found.extend(numbers(&page));
            let Some(next) = page.next else { break };
            assert_eq!(next.to_string().parse::<EventPlace>().unwrap(), next);
            filter.before = Some(next);
        }
        assert_eq!(found, (0..30).rev().collect::<Vec<_>>());
    }

    #[test]
    fn events_come_back_whole_with_their_sessions() {
        let db = db();
        let session = db.create_session("p", "1").unwrap();
        let event = SessionEvent::new("größe")
            .with_level("warning")
            .message("m")
            .data(json!({"big": u64::MAX, "x": [null, 0.1, "\u{0}"]}))
            .exception("T", "why")
            .source("a.rs", 7, "f")
            .at(Timestamp::from_nanos(1_234_567_890_123_456_789));
        session.record_event(&event).unwrap();
        session.crash("out of memory").unwrap();
        let page = db.session_events(&EventFilter::default()).unwrap();
        assert_eq!(page.next, None);
        let [crashed, found] = page.events.as_slice() else { panic!("{page:?}") };
        assert_eq!((&found.event, found.info.product.as_str()), (&event, "p"));
        assert_eq!(crashed.event.data, json!({"reason": "out of memory"}));
        assert_eq!(crashed.event.level(), "error");
    }

    #[test]
    fn a_page_of_large_events_ends_early() {
        let db = db();
        let session = db.create_session("p", "1").unwrap();
        let large = "x".repeat(1 << 19);
        for n in 0..40 {
            session.record_event(&SessionEvent::new("e").message(&large).data(json!({ "n": n }))).unwrap();
        }
        let first = db.session_events(&EventFilter::default()).unwrap();
        assert!((20..40).contains(&first.events.len()), "{}", first.events.len());
        let rest = EventFilter { before: first.next, ..EventFilter::default() };
        let second = db.session_events(&rest).unwrap();
        let all = [numbers(&first), numbers(&second)].concat();
        assert_eq!(all, (0..40).rev().collect::<Vec<_>>());
    }

    #[test]
    fn other_texts_are_no_places() {
        for text in ["", "1", "1_2", "1_2_x", "x_2_00000000-0000-7000-8000-000000000000"] {
            assert!(text.parse::<EventPlace>().is_err(), "{text}");
        }
    }
}
