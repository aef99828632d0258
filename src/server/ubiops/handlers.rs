//! The routes of the UbiOps API.
//!
//! A metric that was created, and not only logged to, is an event of its project, so that it can be listed before it
//! has a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use serde_json::{Value, json};

use super::PROJECT_KEY;
use super::data::{Element, read_data};
use super::metric::{MetricDetail, NewMetric};
use super::query::{Aggregate, DataQuery, SearchQuery, series_id, series_json};
use crate::db::Batch;
use crate::error::{Error, Result};
use crate::model::{Column, Match, Selector, SeriesKey, TimeRange, Timestamp, ValueRef, ValueType};
use crate::server::answer::{World, is_version, json_answer, refuse, status};
use crate::server::import::{empty, pairs_of};
use crate::server::intake::{Intake, Room, Times};
use crate::server::{Frame, take};

/// The events that say which metrics were created: tags `project` and `metric`, the metric as JSON; `null` is deleted.
const CREATED_NAME: &str = "icecore_ubiops_metric";
const CREATED_KEY: &str = "metric";
/// Points of one write.
const PART_POINT_COUNT: usize = 200_000;

type Place = Path<(String, String)>;
type PlaceOf = Path<(String, String, String)>;

/// `POST time-series/aggregate` and `time-series/data`.
pub(in crate::server) async fn write(
    State(frame): State<Arc<Frame>>,
    Path((version, project)): Place,
    request: Request,
) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let written = check_version(&version).and_then(|()| store(&frame, &project, body));
        answer(written.map(|()| json_answer(StatusCode::OK, &json!({}))), &parts.headers)
    })
    .await
}

/// `GET time-series/data`.
pub(in crate::server) async fn read(
    State(frame): State<Arc<Frame>>,
    Path((version, project)): Place,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let read = check_version(&version).and_then(|()| frame.run(true, || data(&frame, &project, &uri)));
    answer(read.map(|body| json_answer(StatusCode::OK, &body)), &headers)
}

/// `GET time-series/search`.
pub(in crate::server) async fn search(
    State(frame): State<Arc<Frame>>,
    Path((version, project)): Place,
    uri: Uri,
    headers: HeaderMap,
) -> Response<Body> {
    let found = check_version(&version).and_then(|()| {
        let query = SearchQuery::parse(&pairs_of(&uri))?;
        let keys = frame.run(true, || series_of(&frame, &project, query.metric.as_deref()))?;
        let matching = keys.iter().filter(|key| query.matches(key)).skip(query.offset).take(query.limit);
        Ok(Value::from(matching.map(series_json).collect::<Vec<_>>()))
    });
    answer(found.map(|body| json_answer(StatusCode::OK, &body)), &headers)
}

/// `DELETE time-series/{id}`.
pub(in crate::server) async fn delete_series(
    State(frame): State<Arc<Frame>>,
    Path((version, project, id)): PlaceOf,
    headers: HeaderMap,
) -> Response<Body> {
    let deleted = check_version(&version).and_then(|()| {
        frame.run(true, || {
            let keys = series_of(&frame, &project, None)?;
            let key = keys.iter().find(|key| series_id(key).to_string() == id);
            let key = key.ok_or_else(|| Error::not_found(format!("there is no time series {id}")))?;
            frame.db.delete(&exactly(&frame, key)?, TimeRange::ALL)
        })
    });
    answer(deleted.map(|_| empty(StatusCode::NO_CONTENT)), &headers)
}

/// `POST metrics`.
pub(in crate::server) async fn create_metric(
    State(frame): State<Arc<Frame>>,
    Path((version, project)): Place,
    request: Request,
) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let created = check_version(&version).and_then(|()| {
            let mut metric = NewMetric::for_creation(body)?;
            let now = frame.env.stamp();
            metric.times = (now, now);
            save(&frame, &project, &metric.name, Some(&metric))?;
            Ok(detail_json(&project, &metric))
        });
        answer(created.map(|body| json_answer(StatusCode::CREATED, &body)), &parts.headers)
    })
    .await
}

/// `GET metrics`.
pub(in crate::server) async fn list_metrics(
    State(frame): State<Arc<Frame>>,
    Path((version, project)): Place,
    headers: HeaderMap,
) -> Response<Body> {
    let list = check_version(&version).and_then(|()| {
        frame.run(true, || {
            let metrics = metrics(&frame, &project)?;
            Ok(Value::from(metrics.values().map(|metric| detail_json(&project, metric)).collect::<Vec<_>>()))
        })
    });
    answer(list.map(|body| json_answer(StatusCode::OK, &body)), &headers)
}

/// `GET metrics/{name}`.
pub(in crate::server) async fn get_metric(
    State(frame): State<Arc<Frame>>,
    Path((version, project, name)): PlaceOf,
    headers: HeaderMap,
) -> Response<Body> {
    let metric = check_version(&version).and_then(|()| frame.run(true, || metric(&frame, &project, &name)));
    answer(metric.map(|metric| json_answer(StatusCode::OK, &detail_json(&project, &metric))), &headers)
}

/// `PATCH metrics/{name}`.
pub(in crate::server) async fn change_metric(
    State(frame): State<Arc<Frame>>,
    Path((version, project, name)): PlaceOf,
    request: Request,
) -> Response<Body> {
    take(&frame, request, |parts, body| {
        let changed = check_version(&version).and_then(|()| {
            let mut metric = NewMetric::for_change(body, &metric(&frame, &project, &name)?)?;
            metric.times.1 = frame.env.stamp();
            save(&frame, &project, &name, Some(&metric))?;
            Ok(detail_json(&project, &metric))
        });
        answer(changed.map(|body| json_answer(StatusCode::OK, &body)), &parts.headers)
    })
    .await
}

/// `DELETE metrics/{name}`: with all its series in the project.
pub(in crate::server) async fn delete_metric(
    State(frame): State<Arc<Frame>>,
    Path((version, project, name)): PlaceOf,
    headers: HeaderMap,
) -> Response<Body> {
    let deleted = check_version(&version).and_then(|()| {
        frame.run(true, || {
            metric(&frame, &project, &name)?;
            save(&frame, &project, &name, None)?;
            frame
                .db
                .delete(&Selector::name(name.as_str()).with(PROJECT_KEY, project.as_str()), TimeRange::ALL)
        })
    });
    answer(deleted.map(|_| empty(StatusCode::NO_CONTENT)), &headers)
}

fn answer(result: Result<Response<Body>>, headers: &HeaderMap) -> Response<Body> {
    result.unwrap_or_else(|error| refuse(World::Ubiops, status(&error), &error.to_string(), headers))
}

/// The client puts any version before the path, and always one.
fn check_version(version: &str) -> Result<()> {
    match version.strip_prefix('v') {
        Some(number) if is_version(number) => Ok(()),
        _ => Err(Error::not_found(format!("there is no API version {version:?}"))),
    }
}

/// Stores a body whole: it is read and checked to its end before anything is written.
fn store(frame: &Frame, project: &str, body: &[u8]) -> Result<()> {
    let times = Times::new(frame, frame.env.clock.now());
    let mut room = Room::new(frame);
    let mut elements: Vec<(SeriesKey, Vec<(Timestamp, f64)>)> = Vec::new();
    read_data(body, &mut |Element { metric, labels, points }| {
        let tags =
            labels.iter().map(|(key, value)| (key.as_ref(), value.as_ref())).chain([(PROJECT_KEY, project)]);
        let key = SeriesKey::new(&metric, tags)?;
        room.take(points.len(), size_of_val(&*points) + key.as_bytes().len())?;
        points.iter().try_for_each(|(time, _)| times.check(*time))?;
        elements.push((key, points));
        Ok(())
    })?;
    let mut series = Vec::with_capacity(elements.len());
    for (key, _) in &elements {
        series.push(frame.db.series_of_key::<f64>(key)?);
    }
    let mut batch = Batch::new();
    for (series, (_, points)) in series.iter().zip(&elements) {
        for (time, value) in points {
            batch.push(series, *time, *value)?;
            if batch.len() >= PART_POINT_COUNT {
                frame.db.write(&mut batch)?;
            }
        }
    }
    if !batch.is_empty() {
        frame.db.write(&mut batch)?;
    }
    Ok(())
}

fn data(frame: &Frame, project: &str, uri: &Uri) -> Result<Value> {
    let query = DataQuery::parse(&pairs_of(uri))?;
    let metric = metric(frame, project, &query.metric)?;
    let mut selector = Selector::name(query.metric.as_str()).with(PROJECT_KEY, project);
    for (key, value) in &query.labels {
        selector = selector.with(key.as_str(), value.as_str());
    }
    let ask = || {
        let window = Duration::from_secs(query.period);
        frame.query(selector.clone()).range(query.start..query.end).window(window).by(Vec::<String>::new())
    };
    let sums = ask().sum().run()?;
    let counts: BTreeMap<Timestamp, f64> = windows(&ask().count().run()?).collect();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    let periods: Vec<Aggregate> = windows(&sums)
        .map(|(start, sum)| Aggregate {
            start,
            sum,
            count: counts.get(&start).copied().unwrap_or(0.0) as u64,
        })
        .collect();
    Ok(query.to_json(&metric, &periods))
}

fn windows(result: &crate::query::QueryResult) -> impl Iterator<Item = (Timestamp, f64)> {
    result.series.iter().flat_map(|series| series.times.iter().copied().zip(series.doubles().iter().copied()))
}

/// The series of numbers of a project, sorted.
fn series_of(frame: &Frame, project: &str, metric: Option<&str>) -> Result<Vec<SeriesKey>> {
    let selector = match metric {
        Some(metric) => Selector::name(metric),
        None => Selector::all(),
    };
    let series = frame.query(selector.with(PROJECT_KEY, project)).series()?;
    let numbers = series.into_iter().filter(|(_, value_type)| *value_type != ValueType::Bytes);
    Ok(numbers.map(|(key, _)| key).collect())
}

/// A selector of the series `key` and no other: every tag that its metric has elsewhere must be absent.
fn exactly(frame: &Frame, key: &SeriesKey) -> Result<Selector> {
    let mut selector = Selector::name(key.name());
    for tag in frame.query(key.name()).tag_keys()? {
        let value = key.tag(&tag);
        selector = selector.with(&tag, if value.is_empty() { Match::Absent } else { Match::equal(value) });
    }
    Ok(selector)
}

/// The metrics of a project, created or logged to, by name.
fn metrics(frame: &Frame, project: &str) -> Result<BTreeMap<String, MetricDetail>> {
    let mut metrics = created(frame, project, None)?;
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in series_of(frame, project, None)? {
        let own = key.tags().map(|(tag, _)| tag).filter(|tag| *tag != PROJECT_KEY).map(str::to_owned);
        labels.entry(key.name().to_owned()).or_default().extend(own);
    }
    for (name, labels) in labels {
        metrics.entry(name).or_insert_with_key(|name| logged(frame, name, labels));
    }
    Ok(metrics)
}

fn metric(frame: &Frame, project: &str, name: &str) -> Result<MetricDetail> {
    if let Some(metric) = created(frame, project, Some(name))?.remove(name) {
        return Ok(metric);
    }
    let series = series_of(frame, project, Some(name))?;
    if series.is_empty() {
        return Err(Error::not_found(format!("there is no metric {name:?} in project {project:?}")));
    }
    let tags = series.iter().flat_map(SeriesKey::tags).map(|(tag, _)| tag).filter(|tag| *tag != PROJECT_KEY);
    Ok(logged(frame, name, tags.map(str::to_owned).collect()))
}

/// A metric that nobody created: what its series and their metadata say.
fn logged(frame: &Frame, name: &str, labels: BTreeSet<String>) -> MetricDetail {
    let mut metric = MetricDetail::new(name, &frame.db.metadata(name).unwrap_or_default());
    metric.labels = labels.into_iter().collect();
    metric
}

/// The metrics that were created and not deleted, by name.
fn created(frame: &Frame, project: &str, name: Option<&str>) -> Result<BTreeMap<String, MetricDetail>> {
    let mut selector = Selector::name(CREATED_NAME).with(PROJECT_KEY, project);
    if let Some(name) = name {
        selector = selector.with(CREATED_KEY, name);
    }
    let found = frame.query(selector).latest().run()?;
    let read = |column: &Column| match column {
        Column::Bytes(bytes) => MetricDetail::from_event(bytes.iter().last()?),
        _ => None,
    };
    Ok(found.series.iter().filter_map(|series| read(&series.values)).map(|m| (m.name.clone(), m)).collect())
}

/// Stores that a metric was created, changed or (`None`) deleted.
fn save(frame: &Frame, project: &str, name: &str, metric: Option<&MetricDetail>) -> Result<()> {
    let event = metric.map_or(Value::Null, MetricDetail::to_event).to_string();
    let mut intake = Intake::of_request(frame, frame.env.stamp());
    let now = intake.now();
    intake.put(
        CREATED_NAME,
        &[(CREATED_KEY, name), (PROJECT_KEY, project)],
        now,
        ValueRef::Bytes(event.as_bytes()),
    )?;
    intake.commit(frame)?;
    match metric {
        Some(metric) => frame.describe(name, metric.metadata()),
        None => Ok(()),
    }
}

fn detail_json(project: &str, metric: &MetricDetail) -> Value {
    // A metric is the series that has no label: its number is that of this key. A name that is no series has none.
    let id = SeriesKey::new(&metric.name, [(PROJECT_KEY, project)]).map_or(0, |key| series_id(&key));
    metric.to_json(id)
}
