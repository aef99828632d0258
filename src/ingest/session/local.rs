//! A session in a database: what its handle writes. The layout is in `docs/ingest.md`, "Sessions on disk".

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde_json::Value;

use crate::db::{Batch, Db, Durability, Series};
use crate::error::Result;
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::handle::SessionPlace;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::metric::{SessionMetric, SessionMetricKind};
use crate::ingest::session::payload::{Entry, MetricNote, encode_created};
use crate::ingest::session::tags::{SESSION_KEY, SessionTag, list_of, series_tags};
use crate::ingest::session::view::SessionView;
use crate::ingest::session::{EVENTS_NAME, INFO_NAME, LOG_NAME, SessionInfo, SessionOptions};
use crate::model::{SeriesKey, Timestamp, ValueRef};

/// What a handle of a session knows.
pub(super) struct LocalSession {
    db: Db,
    id: SessionId,
    id_text: String,
    info: SessionInfo,
    metric_durability: Durability,
    ended: AtomicBool,
    /// Whether an earlier handle may have logged to it, so that nothing is known of what was said of its metrics.
    attached: bool,
    metrics: Mutex<HashMap<u64, Vec<Metric>>>,
    hasher: RandomState,
}

/// A series of the session, and what was last said of it.
struct Metric {
    name: String,
    tags: Vec<SessionTag<'static>>,
    series: Series<f64>,
    /// Kind and unit as a reader would take them to be; `None` when he might be wrong about them or the tags.
    told: Option<(SessionMetricKind, Option<String>)>,
    /// The last time that a client gave, and the time under which that sample is stored.
    last_given: Option<(Timestamp, Timestamp)>,
}

/// What is said of a metric beside name, tags and value.
#[derive(Default)]
struct Details<'a> {
    kind: SessionMetricKind,
    unit: Option<&'a str>,
    count: Option<u64>,
    metadata: Option<&'a Value>,
    time: Option<Timestamp>,
}

impl LocalSession {
    /// Creates a session: its entry in the log of its product, and its attributes.
    pub(super) fn create(db: &Db, info: SessionInfo, options: &SessionOptions) -> Result<(SessionId, Self)> {
        let created_at = db.env().stamp();
        let [a, b, c, d, e, f, g, h, ..] = db.database_id();
        let id = SessionId::new(created_at, u64::from_le_bytes([a, b, c, d, e, f, g, h]));
        let mut session = Self::attach(db, id, info, options, false);
        session.attached = false;
        let entry = encode_created(id, &session.info)?;
        let mut batch = Batch::new();
        let product = [("product", session.info.product.as_str())];
        batch.push_named(LOG_NAME, &product, created_at, ValueRef::Bytes(&entry))?;
        session.push_info(&mut batch, created_at)?;
        db.write(&mut batch)?;
        Ok((id, session))
    }

    /// A handle on a session that exists.
    pub(super) fn attach(
        db: &Db,
        id: SessionId,
        info: SessionInfo,
        options: &SessionOptions,
        ended: bool,
    ) -> Self {
        LocalSession {
            db: db.clone(),
            id,
            id_text: id.to_string(),
            info,
            metric_durability: options.metric_durability,
            ended: AtomicBool::new(ended),
            attached: true,
            metrics: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Writes an entry of the session's life, and with it, at the same time, a sample of its attributes: by that the
    /// last entry is found without a search.
    fn log_life(&self, entry: &Entry) -> Result<()> {
        let time = self.db.env().stamp();
        let mut batch = Batch::new();
        self.push_entry(&mut batch, entry, time)?;
        self.push_info(&mut batch, time)?;
        self.db.write(&mut batch).map(drop)
    }

    fn log_entry(&self, entry: &Entry) -> Result<()> {
        let mut batch = Batch::new();
        self.push_entry(&mut batch, entry, self.db.env().stamp())?;
        self.db.write(&mut batch).map(drop)
    }

    fn push_entry(&self, batch: &mut Batch<'_>, entry: &Entry, time: Timestamp) -> Result<()> {
        let bytes = entry.encode(time)?;
        batch.push_named(EVENTS_NAME, &[(SESSION_KEY, &self.id_text)], time, ValueRef::Bytes(&bytes))
    }

    fn push_info(&self, batch: &mut Batch<'_>, time: Timestamp) -> Result<()> {
        let info = &self.info;
        let tags = [
            ("hostname", info.hostname.as_str()),
            ("machine_id", &info.machine_id),
            ("product", &info.product),
            (SESSION_KEY, &self.id_text),
            ("version", &info.version),
        ];
        batch.push_named(INFO_NAME, &tags, time, ValueRef::F64(1.0))
    }

    fn log_sample(
        &self,
        name: &str,
        value: f64,
        tags: &[SessionTag<'_>],
        details: &Details<'_>,
    ) -> Result<()> {
        let hash = self.hasher.hash_one((name, tags));
        let mut metrics = self.metrics.lock();
        let same = metrics.entry(hash).or_default();
        let known = same.iter().position(|metric| metric.name == name && metric.tags == *tags);
        if known.is_none() {
            same.push(self.new_metric(name, tags)?);
        }
        let index = known.unwrap_or(same.len().saturating_sub(1));
        let Some(metric) = same.get_mut(index) else { return Ok(()) };
        let time = metric.next_time(details.time, || self.db.env().stamp());
        if !metric.is_told(details) {
            self.log_entry(&Entry::Metric(metric.note(details, time)))?;
            metric.told = Some((details.kind, details.unit.map(str::to_owned)));
        }
        if self.metric_durability == Durability::Buffered {
            return metric.series.append(time, value);
        }
        let series = metric.series.clone();
        drop(metrics);
        let mut batch = Batch::new();
        batch.push(&series, time, value)?;
        self.db.write_with(&mut batch, self.metric_durability).map(drop)
    }

    #[cold]
    fn new_metric(&self, name: &str, tags: &[SessionTag<'_>]) -> Result<Metric> {
        let own = series_tags(tags);
        let own = own.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let key = SeriesKey::new(name, own.chain([(SESSION_KEY, self.id_text.as_str())]))?;
        let comes_back = tags.iter().map(SessionTag::text).eq(list_of(key.tags()));
        Ok(Metric {
            name: name.to_owned(),
            tags: tags.iter().map(SessionTag::to_static).collect(),
            series: self.db.series_of_key(&key)?,
            told: (comes_back && !self.attached).then(Default::default),
            last_given: None,
        })
    }
}

impl Metric {
    /// The time of the next sample: the one given, unless it was given last too, or the present.
    fn next_time(&mut self, given: Option<Timestamp>, now: impl FnOnce() -> Timestamp) -> Timestamp {
        let Some(given) = given else { return now() };
        let time = match self.last_given {
            Some((last, stored)) if last == given => stored.saturating_add(1),
            _ => given,
        };
        self.last_given = Some((given, time));
        time
    }

    /// Whether a reader knows all this without a note.
    fn is_told(&self, details: &Details<'_>) -> bool {
        let told = self.told.as_ref();
        let stands =
            told.is_some_and(|(kind, unit)| *kind == details.kind && unit.as_deref() == details.unit);
        stands && details.count.is_none() && details.metadata.is_none()
    }

    fn note(&self, details: &Details<'_>, sample_time: Timestamp) -> MetricNote {
        MetricNote {
            name: self.name.clone(),
            tags: self.tags.iter().map(SessionTag::text).collect(),
            kind: details.kind,
            unit: details.unit.map(str::to_owned),
            count: details.count,
            metadata: details.metadata.cloned(),
            time: Some(sample_time),
        }
    }
}

impl SessionPlace for LocalSession {
    fn log_metric(&self, name: &str, value: f64, tags: Vec<SessionTag<'_>>) -> Result<()> {
        self.log_sample(name, value, &tags, &Details::default())
    }

    fn record(&self, metric: &SessionMetric) -> Result<()> {
        let details = Details {
            kind: metric.kind,
            unit: metric.unit.as_deref(),
            count: metric.count,
            metadata: metric.metadata.as_ref(),
            time: metric.time,
        };
        self.log_sample(&metric.name, metric.value, &metric.tags, &details)
    }

    fn record_event(&self, event: &SessionEvent) -> Result<()> {
        self.log_entry(&Entry::Event(Box::new(event.clone())))
    }

    fn update_state(&self, patch: &Value, time: Option<Timestamp>) -> Result<()> {
        self.log_entry(&Entry::State { patch: patch.clone(), time })
    }

    fn heartbeat(&self) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.log_life(&Entry::Heartbeat)
    }

    fn end(&self) -> Result<()> {
        self.log_life(&Entry::Ended)?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn crash(&self, reason: &str) -> Result<()> {
        self.log_life(&Entry::Crashed { reason: reason.to_owned() })?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn resume(&self) -> Result<()> {
        if self.ended.load(Ordering::Relaxed) {
            self.log_life(&Entry::Resumed)?;
            self.ended.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn read(&self) -> Result<SessionView> {
        self.db.session(self.id)
    }
}
