//! A session in a database: what its handle writes. The layout is in `docs/ingest.md`, "Sessions on disk".

use std::hash::BuildHasher;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::{DefaultHashBuilder, HashTable};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};
use serde_json::Value;

use crate::db::{Batch, Buffer, Db, Durability, HashedKey, Holder};
use crate::error::Result;
use crate::ingest::session::event::SessionEvent;
use crate::ingest::session::handle::SessionPlace;
use crate::ingest::session::id::SessionId;
use crate::ingest::session::metric::{SessionMetric, SessionMetricKind};
use crate::ingest::session::payload::{Entry, MetricNote, encode_created, encode_event};
use crate::ingest::session::tags::{SESSION_KEY, SessionTag, list_of, series_tags};
use crate::ingest::session::view::SessionView;
use crate::ingest::session::{EVENTS_NAME, INFO_NAME, LOG_NAME, SessionInfo, SessionOptions};
use crate::model::{SeriesKey, Timestamp, ValueRef};

/// What an entry takes in the log beside its text, about, with the values that wait for it.
const ENTRY_OVERHEAD_SIZE: usize = 1024;

/// What a handle of a session knows.
pub(super) struct LocalSession {
    db: Db,
    id: SessionId,
    id_text: String,
    metric_durability: Durability,
    ended: AtomicBool,
    /// Whether an earlier handle may have logged to it, so that nothing is known of what was said of its metrics.
    attached: bool,
    /// The series of its entries.
    events: HashedKey,
    /// The series of its attributes.
    info: HashedKey,
    log: Arc<SessionLog>,
}

/// What is logged and not yet written, shared with those who ask for it.
struct SessionLog(Mutex<LogState>);

#[derive(Default)]
struct LogState {
    metrics: Metrics,
    buffer: Buffer,
}

impl Holder for SessionLog {
    fn buffer(&self) -> MappedMutexGuard<'_, Buffer> {
        MutexGuard::map(self.0.lock(), |state| &mut state.buffer)
    }
}

/// The metrics of a session by name and tags.
#[derive(Default)]
struct Metrics {
    hasher: DefaultHashBuilder,
    /// Positions in `metrics`, which are also the numbers of their series in the buffer.
    table: HashTable<u32>,
    metrics: Vec<Metric>,
}

/// A series of the session, and what was last said of it.
struct Metric {
    name: String,
    tags: Vec<SessionTag<'static>>,
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
        let mut session = Self::attach(db, id, &info, options, false)?;
        session.attached = false;
        let entry = encode_created(id, &info)?;
        let product = SeriesKey::new(LOG_NAME, [("product", info.product.as_str())])?;
        session.commit(&entry, &HashedKey::new(product), created_at, true)?;
        Ok((id, session))
    }

    /// A handle on a session that exists.
    pub(super) fn attach(
        db: &Db,
        id: SessionId,
        info: &SessionInfo,
        options: &SessionOptions,
        ended: bool,
    ) -> Result<Self> {
        let id_text = id.to_string();
        let events = SeriesKey::new(EVENTS_NAME, [(SESSION_KEY, id_text.as_str())])?;
        let attributes = [
            ("hostname", info.hostname.as_str()),
            ("machine_id", &info.machine_id),
            ("product", &info.product),
            (SESSION_KEY, &id_text),
            ("version", &info.version),
        ];
        let attributes = SeriesKey::new(INFO_NAME, attributes)?;
        Ok(LocalSession {
            db: db.clone(),
            id,
            id_text,
            metric_durability: options.metric_durability,
            ended: AtomicBool::new(ended),
            attached: true,
            events: HashedKey::new(events),
            info: HashedKey::new(attributes),
            log: Arc::new(SessionLog(Mutex::default())),
        })
    }

    /// Writes an entry of the session's life, and with it, at the same time, a sample of its attributes: by that the
    /// last entry is found without a search.
    fn log_life(&self, entry: &Entry) -> Result<()> {
        let time = self.db.env().stamp();
        self.commit(&entry.encode(time)?, &self.events, time, true)
    }

    fn log_entry(&self, entry: &Entry) -> Result<()> {
        let time = self.db.env().stamp();
        self.commit(&entry.encode(time)?, &self.events, time, false)
    }

    /// Writes an entry of the series `key`, and what is held back before it; with a sample of the attributes, or not.
    fn commit(&self, entry: &[u8], key: &HashedKey, time: Timestamp, with_info: bool) -> Result<()> {
        self.db.make_room(entry.len() + ENTRY_OVERHEAD_SIZE)?;
        let entries = [(key, time, ValueRef::Bytes(entry)), (&self.info, time, ValueRef::F64(1.0))];
        let entries = if with_info { &entries[..] } else { &entries[..1] };
        let receipt = self.db.commit_after(&mut self.log.buffer(), entries)?;
        self.db.settle(receipt)
    }

    fn log_sample(
        &self,
        name: &str,
        value: f64,
        tags: &[SessionTag<'_>],
        details: &Details<'_>,
    ) -> Result<()> {
        let mut guard = self.log.0.lock();
        let LogState { metrics, buffer } = &mut *guard;
        let index = match metrics.find(name, tags) {
            Some(index) => index,
            None => self.add_metric(metrics, buffer, name, tags)?,
        };
        let Some(metric) = metrics.metrics.get_mut(index as usize) else { return Ok(()) };
        let time = metric.next_time(details.time, || self.db.env().stamp());
        if !metric.is_told(details) {
            let note = Entry::Metric(metric.note(details, time));
            let stored = self.db.env().stamp();
            self.db
                .commit_after(buffer, &[(&self.events, stored, ValueRef::Bytes(&note.encode(stored)?))])?;
            metric.told = Some((details.kind, details.unit.map(str::to_owned)));
        }
        if self.metric_durability == Durability::Buffered {
            let crowded = self.db.hold_back(&self.log, buffer, index, time, value)?;
            drop(guard);
            if crowded {
                self.db.drain_buffers();
            }
            return Ok(());
        }
        let Some(key) = buffer.key(index).cloned() else { return Ok(()) };
        drop(guard);
        let mut batch = Batch::new();
        batch.push_key(&key.key, time, ValueRef::F64(value))?;
        self.db.write_with(&mut batch, self.metric_durability).map(drop)
    }

    #[cold]
    fn add_metric(
        &self,
        metrics: &mut Metrics,
        buffer: &mut Buffer,
        name: &str,
        tags: &[SessionTag<'_>],
    ) -> Result<u32> {
        let own = series_tags(tags);
        let own = own.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        let key = SeriesKey::new(name, own.chain(iter::once((SESSION_KEY, self.id_text.as_str()))))?;
        let key = HashedKey::new(key);
        self.db.check_doubles(&key)?;
        let comes_back = tags.iter().map(SessionTag::text).eq(list_of(key.key.tags()));
        metrics.add(Metric {
            name: name.to_owned(),
            tags: tags.iter().map(SessionTag::to_static).collect(),
            told: (comes_back && !self.attached).then(Default::default),
            last_given: None,
        });
        Ok(buffer.add_series(key))
    }
}

impl Metrics {
    /// The number of a metric, if it was logged before.
    #[inline]
    fn find(&self, name: &str, tags: &[SessionTag<'_>]) -> Option<u32> {
        let is_it = |index: &u32| {
            self.metrics
                .get(*index as usize)
                .is_some_and(|metric| metric.name == name && metric.tags.as_slice() == tags)
        };
        self.table.find(self.hash(name, tags), is_it).copied()
    }

    /// Adds a metric that was not found; its number is that of those before it.
    fn add(&mut self, metric: Metric) {
        let hash = self.hash(&metric.name, &metric.tags);
        let index = self.metrics.len() as u32;
        self.metrics.push(metric);
        let Metrics { hasher, table, metrics } = self;
        let hash_of = |index: &u32| {
            metrics
                .get(*index as usize)
                .map_or(0, |metric| hasher.hash_one((metric.name.as_str(), &metric.tags[..])))
        };
        table.insert_unique(hash, index, hash_of);
    }

    #[inline]
    fn hash(&self, name: &str, tags: &[SessionTag<'_>]) -> u64 {
        self.hasher.hash_one((name, tags))
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
        // It may come with a note, which is an entry.
        self.db.make_room(ENTRY_OVERHEAD_SIZE)?;
        self.log_sample(&metric.name, metric.value, &metric.tags, &details)
    }

    fn record_event(&self, event: &SessionEvent) -> Result<()> {
        let time = self.db.env().stamp();
        self.commit(&encode_event(event, time)?, &self.events, time, false)
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
