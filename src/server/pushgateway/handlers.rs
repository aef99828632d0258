//! The Pushgateway's routes: pushes, deletions, and what is shown of the groups.
//!
//! Groups outlive a restart: the shape of a group (its families and series, no values) is an event, written when it
//! changes, and the values are those of its series. So the disk grows with samples, not with copies of groups.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::group::{Change, Group, Method};
use super::path::{GroupKey, parse_path};
use super::view::{families_of, groups_json};
use crate::error::{Error, Result};
use crate::ingest::{FamilySample, MetricFamily};
use crate::model::{Column, MetricKind, Selector, SeriesKey, Timestamp, ValueRef};
use crate::protocol::body::Encoding;
use crate::protocol::exposition::{Family, Format, parse_openmetrics, parse_text, write_page};
use crate::protocol::metric_family::{decode_families, is_metric_family};
use crate::server::answer::{World, json_answer, refuse, status, text_answer, with_type};
use crate::server::import::empty;
use crate::server::intake::Intake;
use crate::server::{Frame, page, take_encoded};

/// The events that say what groups are made of.
const SHAPE_NAME: &str = "icecore_pushgateway_group";
/// Their tag: the labels of the group as a JSON object.
const SHAPE_KEY: &str = "group";
/// What `PUT` and `POST` find behind this is the path of the group.
const PATH_START: &str = "/metrics/";

/// `PUT /metrics/job/...`
pub(in crate::server) async fn put(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    push(&frame, request, Method::Replace).await
}

/// `POST /metrics/job/...`
pub(in crate::server) async fn post(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    push(&frame, request, Method::Add).await
}

/// `DELETE /metrics/job/...`: 202, also for a group that is not there.
pub(in crate::server) async fn delete(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    let headers = request.headers().clone();
    let deleted = group_of(request.uri().path()).and_then(|key| {
        frame.run(false, || {
            let mut groups = frame.groups.lock();
            let Some(change) = groups.delete(&key, frame.env.stamp())? else { return Ok(()) };
            store(&frame, &change, Some(&key))?;
            groups.commit(change);
            Ok(())
        })
    });
    match deleted {
        Ok(()) => empty(StatusCode::ACCEPTED),
        Err(error) => refuse(World::Pushgateway, status(&error), &error.to_string(), &headers),
    }
}

/// `GET /metrics`: the server's own metrics, then the live groups.
pub(in crate::server) async fn metrics(
    State(frame): State<Arc<Frame>>,
    headers: HeaderMap,
) -> Response<Body> {
    let (format, names) = Format::from_accept(header(&headers, ACCEPT));
    let mut families = page::own_families(&frame);
    families.extend(families_of(frame.groups.lock().iter()));
    let mut text = String::new();
    write_page(&families, format, names, &mut text);
    with_type(StatusCode::OK, format.content_type(), text)
}

/// `GET /api/v1/metrics`: the groups as JSON.
pub(in crate::server) async fn groups(State(frame): State<Arc<Frame>>) -> Response<Body> {
    json_answer(StatusCode::OK, &groups_json(frame.groups.lock().iter()))
}

/// `GET /api/v1/status` of a Pushgateway: what it was built from and when it started.
pub(in crate::server) async fn gateway_status() -> Response<Body> {
    let body = json!({ "status": "success", "data": {
        "build_information": { "version": env!("CARGO_PKG_VERSION") }, "flags": {}
    } });
    json_answer(StatusCode::OK, &body)
}

async fn push(frame: &Frame, request: Request, method: Method) -> Response<Body> {
    // An encoding that is not known is taken for none, as the original does.
    let encoding =
        Encoding::from_header(header(request.headers(), CONTENT_ENCODING)).unwrap_or(Encoding::Identity);
    take_encoded(frame, request, encoding, |parts, body| {
        let pushed = group_of(parts.uri.path())
            .and_then(|key| push_group(frame, &key, method, header(&parts.headers, CONTENT_TYPE), body));
        match pushed {
            Ok(()) => empty(StatusCode::OK),
            Err(error) => refuse(World::Pushgateway, status(&error), &error.to_string(), &parts.headers),
        }
    })
    .await
}

fn push_group(frame: &Frame, key: &GroupKey, method: Method, content_type: &str, body: &[u8]) -> Result<()> {
    let families = parse(content_type, body);
    let now = frame.env.stamp();
    let mut groups = frame.groups.lock();
    let change = families.and_then(|families| groups.push(key, method, &families, now));
    let change = change.inspect_err(|_| groups.fail(key, now))?;
    let known = match (groups.get(key), change.group()) {
        (Some(old), Some(new)) => Shape::of(key, old) == Shape::of(key, new),
        _ => false,
    };
    store(frame, &change, (!known).then_some(key))?;
    let described: Vec<(String, _)> = change.group().map_or(Vec::new(), |group| {
        group.families.iter().map(|f| (f.name.to_string(), f.metadata())).collect()
    });
    groups.commit(change);
    drop(groups);
    for (name, metadata) in described {
        frame.describe(&name, metadata)?;
    }
    Ok(())
}

fn parse<'b>(content_type: &str, body: &'b [u8]) -> Result<Vec<Family<'b>>> {
    if is_metric_family(content_type)? {
        return decode_families(body);
    }
    let page = match Format::from_content_type(content_type) {
        Format::OpenMetrics => parse_openmetrics(body),
        Format::Text => parse_text(body),
    };
    page.map_err(|error| Error::invalid_input(error.to_string()))
}

/// Writes the points of a change, and the new shape of the group `shape` if it is given.
fn store(frame: &Frame, change: &Change, shape: Option<&GroupKey>) -> Result<()> {
    let mut intake = Intake::of_request(frame, frame.env.stamp());
    for point in &change.points {
        intake.put_key(&point.key, point.time, ValueRef::F64(point.value))?;
    }
    if let Some(key) = shape {
        let event = change.group().map_or_else(|| "null".to_owned(), |group| Shape::of(key, group).to_json());
        let labels = json!(key.labels().collect::<BTreeMap<_, _>>()).to_string();
        let now = intake.now();
        intake.put(SHAPE_NAME, &[(SHAPE_KEY, &labels)], now, ValueRef::Bytes(event.as_bytes()))?;
    }
    intake.commit(frame)
}

/// Writes the values of all live groups once more.
///
/// # Errors
/// As [`Db::write`](crate::Db::write).
pub(in crate::server) fn repeat(frame: &Frame) -> Result<()> {
    let groups = frame.groups.lock();
    let mut intake = Intake::new(frame, frame.env.stamp());
    let now = intake.now();
    for point in groups.points(now)? {
        intake.put_key(&point.key, now, ValueRef::F64(point.value))?;
    }
    intake.commit(frame)
}

/// Reads the groups that were live when the database was closed.
///
/// # Errors
/// As a query.
pub(in crate::server) fn restore(frame: &Frame) -> Result<()> {
    let events = frame.db.query(SHAPE_NAME).latest().run()?;
    let mut groups = frame.groups.lock();
    for event in &events.series {
        let Column::Bytes(bytes) = &event.values else { continue };
        let shape =
            bytes.iter().last().and_then(|bytes| serde_json::from_slice::<Option<Shape<'_>>>(bytes).ok());
        let Some(shape) = shape.flatten() else { continue };
        let group = shape.restore(frame)?;
        groups.commit(Change::restored(GroupKey::new(shape.labels), group));
    }
    Ok(())
}

/// What a group is made of: all but the values.
#[derive(Deserialize, PartialEq, Serialize)]
struct Shape<'g> {
    labels: BTreeMap<String, String>,
    families: Vec<FamilyShape<'g>>,
}

/// Labels of one sample: keys and values.
type Labels<'g> = Vec<(Cow<'g, str>, Cow<'g, str>)>;

#[derive(Deserialize, PartialEq, Serialize)]
struct FamilyShape<'g> {
    name: Cow<'g, str>,
    kind: u8,
    unit: Cow<'g, str>,
    help: Cow<'g, str>,
    /// Names and tags of the samples.
    samples: Vec<(Cow<'g, str>, Labels<'g>)>,
}

impl<'g> Shape<'g> {
    fn of(key: &GroupKey, group: &'g Group) -> Self {
        let borrow = |text: &'g Cow<'static, str>| Cow::Borrowed(text.as_ref());
        let families = group.families.iter().map(|family| FamilyShape {
            name: borrow(&family.name),
            kind: family.kind as u8,
            unit: borrow(&family.unit),
            help: borrow(&family.help),
            samples: family
                .samples
                .iter()
                .map(|s| (borrow(&s.name), s.tags.iter().map(|(k, v)| (borrow(k), borrow(v))).collect()))
                .collect(),
        });
        let labels = key.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Shape { labels, families: families.collect() }
    }

    fn to_json(&self) -> String {
        json!(self).to_string()
    }

    /// The group with the values that its series had last.
    fn restore(&self, frame: &Frame) -> Result<Group> {
        let mut families = Vec::new();
        for shape in &self.families {
            let mut samples = Vec::new();
            for (name, tags) in &shape.samples {
                let key = SeriesKey::new(name, tags.iter().map(|(k, v)| (k.as_ref(), v.as_ref())))?;
                if let Some((_, value)) = latest(frame, &key)? {
                    let tags = tags.iter().map(|(k, v)| (owned(k), owned(v))).collect();
                    samples.push(FamilySample { name: owned(name), tags, value, ..FamilySample::default() });
                }
            }
            families.push(MetricFamily {
                name: owned(&shape.name),
                kind: MetricKind::from_number(shape.kind).unwrap_or_default(),
                unit: owned(&shape.unit),
                help: owned(&shape.help),
                samples,
            });
        }
        let pushed = self.own_time(frame, super::group::PUSH_TIME)?;
        let failed = self.own_time(frame, super::group::PUSH_FAILURE_TIME)?;
        Ok(Group { families, pushed, failed })
    }

    /// When the gateway's own metric `name` of this group says that something was last.
    fn own_time(&self, frame: &Frame, name: &str) -> Result<Option<Timestamp>> {
        let key = SeriesKey::new(name, &self.labels)?;
        let found = latest(frame, &key)?.filter(|(_, seconds)| *seconds > 0.0);
        #[allow(clippy::cast_possible_truncation, reason = "a time of ours, which was an i64 before")]
        Ok(found.map(|(_, seconds)| Timestamp::from_nanos((seconds * 1e9) as i64)))
    }
}

fn owned(text: &str) -> Cow<'static, str> {
    Cow::Owned(text.to_owned())
}

/// The last sample of exactly the series `key`.
fn latest(frame: &Frame, key: &SeriesKey) -> Result<Option<(Timestamp, f64)>> {
    let selector =
        key.tags().fold(Selector::name(key.name()), |selector, (tag, value)| selector.with(tag, value));
    let found = frame.db.query(selector).latest().run()?;
    let exact = found.series.iter().find(|series| series.key == *key);
    Ok(exact.and_then(|series| Some((*series.times.last()?, *series.doubles().last()?))))
}

fn group_of(path: &str) -> Result<GroupKey> {
    parse_path(path.strip_prefix(PATH_START).unwrap_or_default())
}

fn header(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// `GET /`: that there is somebody.
pub(in crate::server) async fn hello() -> Response<Body> {
    text_answer(StatusCode::OK, concat!("icecore ", env!("CARGO_PKG_VERSION")))
}
