//! Sessions of a database: created, found, listed, compared, deleted.

use std::collections::HashMap;
use std::time::Duration;

use crate::db::{Batch, Db, Durability};
use crate::error::{Error, Result};
use crate::ingest::session::filter::SessionFilter;
use crate::ingest::session::handle::Session;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::local::LocalSession;
use crate::ingest::session::metric::check_metric;
use crate::ingest::session::payload::{Entry, decode_created};
use crate::ingest::session::tags::{SESSION_KEY, SessionTag, series_tags};
use crate::ingest::session::view::{HEARTBEAT_TIMEOUT, Parts, SessionStatus, SessionSummary, SessionView};
use crate::ingest::session::{EVENTS_NAME, INFO_NAME, LOG_NAME, SessionInfo};
use crate::model::{Column, Match, Selector, SeriesKey, TimeRange, Timestamp, ValueRef};
use crate::query::SeriesColumns;

/// The first stretch of time that a list looks at, backwards from the newest session.
const LIST_WINDOW: Duration = Duration::from_millis(4);
/// A stretch is halved, and halved again, until it holds at most this many creations for each one wanted, ...
const LIST_SURPLUS: f64 = 4.0;
/// ... and this many besides.
const LIST_READ_COUNT: f64 = 1_000.0;

/// How a session is logged.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Durability of the values of metrics; events, states, heartbeats and ends have that of the database.
    /// Default: `Buffered`, some ten nanoseconds a value. With `Os` each value is a system call.
    pub metric_durability: Durability,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { metric_durability: Durability::Buffered }
    }
}

/// The samples of one series of one session, as [`Db::compare_sessions`] gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSeries {
    /// The session.
    pub session: SessionId,
    /// Name and tags.
    pub key: SeriesKey,
    /// Times of the samples.
    pub times: Vec<Timestamp>,
    /// As many values.
    pub values: Vec<f64>,
}

impl SessionSeries {
    /// Times of the samples since the session was created, in nanoseconds: the axis on which sessions are laid
    /// over each other.
    pub fn elapsed(&self) -> impl Iterator<Item = i64> {
        let start = self.session.created_at().nanos();
        self.times.iter().map(move |time| time.nanos().saturating_sub(start))
    }
}

impl Db {
    /// Creates a session of `product` in `version`.
    ///
    /// # Errors
    /// As [`Db::create_session_with`].
    pub fn create_session(&self, product: &str, version: &str) -> Result<Session> {
        self.create_session_with(SessionInfo::new(product, version), &SessionOptions::default())
    }

    /// Creates a session, with the durability of the database.
    ///
    /// # Errors
    /// `InvalidInput` for an empty product or text that is too long; otherwise as [`Db::write`].
    pub fn create_session_with(&self, info: SessionInfo, options: &SessionOptions) -> Result<Session> {
        if info.product.is_empty() {
            return Err(Error::invalid_input("product: a session has a product"));
        }
        let (id, session) = LocalSession::create(self, info, options)?;
        Ok(Session::new(id, session))
    }

    /// A handle on a session that exists, to go on logging; one that has ended is taken up again.
    ///
    /// # Errors
    /// `NotFound`; otherwise as [`Db::write`].
    pub fn resume_session(&self, id: SessionId) -> Result<Session> {
        let session = self.attach_session(id, &SessionOptions::default())?;
        session.resume()?;
        Ok(session)
    }

    /// A handle on a session that exists, which stays ended if it is: for those who log for others.
    ///
    /// # Errors
    /// `NotFound`; otherwise as a query.
    pub fn attach_session(&self, id: SessionId, options: &SessionOptions) -> Result<Session> {
        Ok(Session::new(id, self.local_session(id, options)?))
    }

    fn local_session(&self, id: SessionId, options: &SessionOptions) -> Result<LocalSession> {
        let infos = self.session_infos(&[id])?;
        let (info, _) = infos.get(&id).ok_or_else(|| not_found(id))?;
        let mut summaries = [SessionSummary::new(id, info.clone())];
        self.settle_sessions(&mut summaries)?;
        let ended = summaries.iter().any(|summary| summary.ended_at.is_some());
        LocalSession::attach(self, id, info, options, ended)
    }

    /// Reads a session back whole.
    ///
    /// # Errors
    /// `NotFound` when there is none, or it is older than what is kept; otherwise as a query.
    pub fn session(&self, id: SessionId) -> Result<SessionView> {
        let selector = Selector::all().with(SESSION_KEY, id.to_string());
        let mut info = None;
        let mut parts = Parts::default();
        for series in self.query(selector).run()?.series {
            match (series.key.name(), series.values) {
                (EVENTS_NAME, Column::Bytes(entries)) => {
                    let bytes = entries.iter().map(<[u8]>::to_vec);
                    parts.entries.extend(series.times.into_iter().zip(bytes));
                }
                (INFO_NAME, _) => info = Some(info_of(&series.key)),
                (_, Column::F64(values)) => parts.series.push((series.key, series.times, values)),
                // Other ways of logging have integers and text; a session's samples are doubles.
                _ => {}
            }
        }
        let info = info.ok_or_else(|| not_found(id))?;
        let mut view = SessionView::of(id, info, parts, self.env().clock.now());
        self.give_up(&mut view.summary)?;
        Ok(view)
    }

    /// The newest sessions that `filter` lets through, newest first.
    ///
    /// Costs what it reads: the creations of the sessions looked at, and how each of them stands.
    ///
    /// # Errors
    /// As a query.
    pub fn sessions(&self, filter: &SessionFilter) -> Result<Vec<SessionSummary>> {
        let mut found = Vec::new();
        let mut end = filter.end();
        let mut window = i64::try_from(LIST_WINDOW.as_nanos()).unwrap_or(i64::MAX);
        while found.len() < filter.limit
            && let Some(newest) = self.newest_creation(filter, end)?
        {
            let wanted = filter.limit - found.len();
            let range = self.list_range(filter, newest, window, wanted)?;
            let mut passed = self.creations(filter, range)?;
            // Next time as much wider as it takes for the rest, if they lie as far apart, but not many times at once.
            let wider = i64::try_from(wanted / passed.len().max(1)).unwrap_or(i64::MAX).clamp(1, 8);
            window = newest.nanos().saturating_sub(range.start.nanos()).max(1).saturating_mul(wider);
            end = range.start;
            while !passed.is_empty() && found.len() < filter.limit {
                // Only as many as are wanted are looked at closer.
                let rest = passed.len().saturating_sub(filter.limit);
                let mut newest_first: Vec<SessionSummary> = passed.drain(rest..).rev().collect();
                self.settle_sessions(&mut newest_first)?;
                newest_first.retain(|summary| filter.status.is_none_or(|status| summary.status == status));
                found.append(&mut newest_first);
            }
        }
        found.truncate(filter.limit);
        Ok(found)
    }

    /// The series of `metric` in each of `sessions`, in the order of these, then of tags.
    ///
    /// # Errors
    /// As a query.
    pub fn compare_sessions(&self, metric: &str, sessions: &[SessionId]) -> Result<Vec<SessionSeries>> {
        let selector = Selector::name(metric).with(SESSION_KEY, any_of(sessions));
        let mut compared = Vec::new();
        for series in self.query(selector).run()?.series {
            let Column::F64(values) = series.values else { continue };
            if let Ok(session) = series.key.tag(SESSION_KEY).parse() {
                compared.push(SessionSeries { session, key: series.key, times: series.times, values });
            }
        }
        let places: HashMap<SessionId, usize> = sessions.iter().copied().zip(0..).collect();
        compared.sort_by_key(|series| places.get(&series.session).copied());
        Ok(compared)
    }

    /// Deletes a session with all that was logged in it.
    ///
    /// # Errors
    /// `NotFound` when there is none; otherwise as [`Db::delete`].
    pub fn delete_session(&self, id: SessionId) -> Result<()> {
        if self.session_infos(&[id])?.is_empty() {
            return Err(not_found(id));
        }
        self.delete(&Selector::all().with(SESSION_KEY, id.to_string()), TimeRange::ALL)?;
        let created_at = id.created_at();
        let range = TimeRange { start: created_at, end: created_at.saturating_add(1) };
        self.delete(&Selector::name(LOG_NAME), range).map(drop)
    }

    /// Logs one value of a metric of no session, with the present time and the durability of the database. Tags
    /// are strings (`"api"`, `"endpoint:users"`) or pairs.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let db = icecore::Db::open(dir.path().join("data"))?;
    /// db.log_metric("queue_size", 17, ["priority:high"])?;
    /// # Ok::<(), icecore::Error>(())
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` naming the field for a wrong name, a value that is not finite or tags that make no series;
    /// otherwise as [`Db::write`].
    pub fn log_metric<'a, T: Into<SessionTag<'a>>>(
        &self,
        name: &str,
        value: impl Into<f64>,
        tags: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        let value = value.into();
        check_metric(name, value)?;
        let list: Vec<SessionTag<'_>> = tags.into_iter().map(Into::into).collect();
        let tags = series_tags(&list);
        let tags: Vec<(&str, &str)> =
            tags.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).collect();
        let mut batch = Batch::new();
        batch.push_named(name, &tags, self.env().stamp(), ValueRef::F64(value))?;
        self.write(&mut batch).map(drop)
    }

    /// The time of the newest creation before `end`.
    fn newest_creation(&self, filter: &SessionFilter, end: Timestamp) -> Result<Option<Timestamp>> {
        let range = TimeRange { start: filter.range.start, end };
        if range.is_empty() {
            return Ok(None);
        }
        let latest = self.query(filter.log_selector()).range(range).latest().run()?;
        Ok(latest.series.iter().filter_map(|series| series.times.last().copied()).max())
    }

    /// A stretch of time up to `newest`, `window` long, or as much shorter as it takes not to read many more
    /// creations than are wanted.
    #[allow(clippy::cast_precision_loss)] // Counts that are compared roughly.
    fn list_range(
        &self,
        filter: &SessionFilter,
        newest: Timestamp,
        mut window: i64,
        wanted: usize,
    ) -> Result<TimeRange> {
        loop {
            let start = newest.saturating_sub(window).max(filter.range.start);
            let range = TimeRange { start, end: newest.saturating_add(1) };
            let counted = self.query(filter.log_selector()).range(range).count().run()?;
            let count: f64 = counted.series.iter().flat_map(|series| series.doubles()).sum();
            if count <= wanted as f64 * LIST_SURPLUS + LIST_READ_COUNT || window <= 1 {
                return Ok(range);
            }
            window /= 2;
        }
    }

    /// The sessions created in `range` whose attributes `filter` lets through, oldest first.
    fn creations(&self, filter: &SessionFilter, range: TimeRange) -> Result<Vec<SessionSummary>> {
        let mut found = Vec::new();
        for series in self.query(filter.log_selector()).range(range).run()?.series {
            let product = series.key.tag("product");
            let Column::Bytes(entries) = &series.values else { continue };
            let created = entries.iter().filter_map(|bytes| decode_created(product, bytes));
            let passed = created.filter(|(_, info)| filter.takes(info));
            found.extend(passed.map(|(id, info)| SessionSummary::new(id, info)));
        }
        found.sort_by_key(|summary| summary.id);
        Ok(found)
    }

    /// The attributes of the sessions among `ids` that exist, and the time of the last entry of the life of each.
    pub(super) fn session_infos(
        &self,
        ids: &[SessionId],
    ) -> Result<HashMap<SessionId, (SessionInfo, Timestamp)>> {
        let selector = Selector::name(INFO_NAME).with(SESSION_KEY, any_of(ids));
        let latest = self.query(selector).latest().run()?;
        let info = |series: &SeriesColumns| {
            let id = series.key.tag(SESSION_KEY).parse().ok()?;
            Some((id, (info_of(&series.key), *series.times.last()?)))
        };
        Ok(latest.series.iter().filter_map(info).collect())
    }

    /// Fills in how sessions stand: by the entry of each that lies at the last time of its attributes.
    fn settle_sessions(&self, summaries: &mut [SessionSummary]) -> Result<()> {
        let ids: Vec<SessionId> = summaries.iter().map(|summary| summary.id).collect();
        let mut lives = self.session_infos(&ids)?;
        // A session of which nothing was said since its creation has no entry.
        lives.retain(|id, (_, time)| *time != id.created_at());
        let times = || lives.values().map(|(_, time)| *time);
        if let (Some(first), Some(last)) = (times().min(), times().max()) {
            let range = TimeRange { start: first, end: last.saturating_add(1) };
            let selector = Selector::name(EVENTS_NAME).with(SESSION_KEY, any_of(&ids));
            let entries = self.query(selector).range(range).run()?.series;
            let by_id: HashMap<String, &SeriesColumns> =
                entries.iter().map(|series| (series.key.tag(SESSION_KEY).to_owned(), series)).collect();
            for summary in summaries.iter_mut() {
                let series = by_id.get(&summary.id.to_string());
                if let Some(((_, time), series)) = lives.get(&summary.id).zip(series) {
                    summary.apply_life_at(*time, series);
                }
            }
        }
        for summary in summaries {
            summary.settle(self.env().clock.now());
            self.give_up(summary)?;
        }
        Ok(())
    }

    /// A suspended session has crashed when its machine has begun another one since it fell silent.
    fn give_up(&self, summary: &mut SessionSummary) -> Result<()> {
        let machine_id = summary.info.machine_id.as_str();
        let Some(last) = summary.last_heartbeat else { return Ok(()) };
        if summary.status != SessionStatus::Suspended || machine_id.is_empty() {
            return Ok(());
        }
        let timeout = i64::try_from(HEARTBEAT_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
        let silent = last.saturating_add(timeout);
        let range = TimeRange { start: silent, end: Timestamp::MAX };
        let selector = Selector::name(INFO_NAME).with("machine_id", machine_id);
        let later = self.query(selector).range(range).latest().run()?;
        let mut ids = later.series.iter().filter_map(|s| s.key.tag(SESSION_KEY).parse::<SessionId>().ok());
        summary.give_up(ids.any(|id| id != summary.id && id.created_at() >= silent));
        Ok(())
    }
}

impl SessionSummary {
    /// Takes what the entry at `time` of the session's entries says of its life.
    fn apply_life_at(&mut self, time: Timestamp, entries: &SeriesColumns) {
        let place = entries.times.binary_search(&time).ok();
        let Some(ValueRef::Bytes(bytes)) = place.and_then(|index| entries.values.get(index)) else { return };
        if let Some(entry) = Entry::decode(bytes) {
            self.apply_life(&entry, time);
        }
    }
}

fn any_of(ids: &[SessionId]) -> Match {
    Match::any_of(ids.iter().map(ToString::to_string))
}

fn info_of(key: &SeriesKey) -> SessionInfo {
    SessionInfo {
        product: key.tag("product").to_owned(),
        version: key.tag("version").to_owned(),
        hostname: key.tag("hostname").to_owned(),
        machine_id: key.tag("machine_id").to_owned(),
    }
}

#[cold]
fn not_found(id: SessionId) -> Error {
    let how = "one is created by Db::create_session or POST /api/sessions";
    Error::not_found(format!("there is no session {id}; {how}"))
}
