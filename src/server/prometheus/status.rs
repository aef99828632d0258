//! What the server is and how it fares, in the places where Prometheus' clients look for it.
//!
//! Figures are the engine's own. Where Prometheus has something that is not here (scraping, rules, a configuration file)
//! the answer is the empty one that Prometheus gives when it has none of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response};
use serde_json::{Map, Value as Json, json};

use super::{Refusal, ask, at_once};
use crate::db::Durability;
use crate::model::{NAME_KEY, Selector, SeriesKey, Timestamp, ValueType};
use crate::promql::{AggregateOp, FUNCTIONS};
use crate::server::Frame;

/// The version of Prometheus whose API this is. Grafana and others tell by it what they may ask.
const API_VERSION: &str = "3.5.0";
/// Entries of each list of `status/tsdb`, unless told otherwise.
const TOP_COUNT: usize = 10;

/// `GET /api/v1/status/buildinfo`.
pub(in crate::server) async fn build_info(headers: HeaderMap) -> Response<Body> {
    let revision = concat!("icecore-", env!("CARGO_PKG_VERSION"));
    let data = json!({
        "version": API_VERSION, "revision": revision, "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
    });
    at_once(data, &headers)
}

/// `GET /api/v1/status/runtimeinfo`.
pub(in crate::server) async fn runtime_info(
    State(frame): State<Arc<Frame>>,
    headers: HeaderMap,
) -> Response<Body> {
    let runtime = tokio::runtime::Handle::current();
    let directory = std::env::current_dir().map(|path| path.display().to_string()).unwrap_or_default();
    let started = rfc3339(frame.started);
    let data = json!({
        "startTime": started,
        "CWD": directory,
        "serverTime": rfc3339(frame.env.clock.now()),
        // Options are read once, at the start.
        "reloadConfigSuccess": true,
        "lastConfigTime": started,
        "corruptionCount": frame.db.stats().quarantined,
        "goroutineCount": runtime.metrics().num_alive_tasks(),
        "GOMAXPROCS": runtime.metrics().num_workers(),
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention(&frame),
    });
    at_once(data, &headers)
}

/// `GET /api/v1/status/flags`: our options, and by Prometheus' names those that it has too.
pub(in crate::server) async fn flags(State(frame): State<Arc<Frame>>, headers: HeaderMap) -> Response<Body> {
    let options = &frame.options;
    let limits = options.limits;
    let span = |duration: std::time::Duration| format!("{duration:?}");
    let durability = match frame.durability {
        Durability::Sync => "sync",
        Durability::Os => "os",
        Durability::Buffered => "buffered",
    };
    let statsd = options.statsd.map_or_else(|| "off".to_owned(), |address| address.to_string());
    let pairs = [
        ("allow-host", options.allowed_hosts.join(",")),
        ("bodies-size-max", limits.bodies_size_max.to_string()),
        ("body-size-max", limits.body.size_max.to_string()),
        ("body-timeout", span(limits.body.timeout)),
        ("cors-origin", options.cors_origins.to_string()),
        ("data", frame.db.path().display().to_string()),
        ("durability", durability.to_owned()),
        ("enable-admin-api", options.admin_api.to_string()),
        ("listen", options.listen.to_string()),
        ("query-count-max", limits.query_count_max.to_string()),
        ("query-lookback", span(options.query_lookback)),
        ("query-memory-max", limits.query_memory_max.to_string()),
        ("query-samples-max", limits.query_sample_count_max.to_string()),
        ("query-timeout", span(limits.query_timeout)),
        ("query.lookback-delta", span(options.query_lookback)),
        ("query.max-concurrency", limits.query_count_max.to_string()),
        ("query.max-samples", limits.query_sample_count_max.to_string()),
        ("query.timeout", span(limits.query_timeout)),
        ("request-count-max", limits.request_count_max.to_string()),
        ("retention", retention(&frame)),
        ("statsd", statsd),
        ("statsd-interval", span(options.statsd_interval)),
        ("statsd-relative-gauges", options.statsd_relative_gauges.to_string()),
        ("storage.tsdb.path", frame.db.path().display().to_string()),
        ("storage.tsdb.retention.time", retention(&frame)),
        ("web.cors.origin", options.cors_origins.to_string()),
        ("web.enable-admin-api", options.admin_api.to_string()),
        ("web.enable-lifecycle", false.to_string()),
        ("web.enable-remote-write-receiver", true.to_string()),
        ("web.listen-address", options.listen.to_string()),
    ];
    let object: Map<String, Json> =
        pairs.into_iter().map(|(key, value)| (key.to_owned(), Json::from(value))).collect();
    at_once(Json::Object(object), &headers)
}

/// `GET /api/v1/status/config`: there is no file.
pub(in crate::server) async fn config(headers: HeaderMap) -> Response<Body> {
    at_once(
        json!({ "yaml": "# All options are given on the command line: see status/flags.\n{}\n" }),
        &headers,
    )
}

/// `GET /api/v1/status/walreplay`: done before the server is reached; counted in frames of the log.
pub(in crate::server) async fn wal_replay(
    State(frame): State<Arc<Frame>>,
    headers: HeaderMap,
) -> Response<Body> {
    let frames = frame.db.recovery().frames_replayed;
    at_once(json!({ "min": 0, "max": frames, "current": frames }), &headers)
}

/// `GET /api/v1/status/tsdb`: how many series, and what brings them. Unlike Prometheus, which counts those in memory,
/// of everything that is stored.
pub(in crate::server) async fn tsdb(State(frame): State<Arc<Frame>>, request: Request) -> Response<Body> {
    ask(frame, request, |frame, question| {
        let most = match question.parameters.get("limit") {
            "" => TOP_COUNT,
            text => match text.parse() {
                Ok(most) if most > 0 => most,
                _ => return Err(Refusal::bad_data("limit must be a positive number")),
            },
        };
        let query = question.ticket.stop(frame.db.query(Selector::all()), frame);
        let found = query.series().map_err(|error| Refusal::of(&error, &question.ticket))?;
        let keys = found.iter().filter(|(_, kind)| *kind != ValueType::Bytes).map(|(key, _)| key);
        let counts = Counts::of(keys);
        let stats = frame.db.stats();
        let (start, end) = stats.head_times.unzip();
        Ok(json!({
            "headStats": {
                "numSeries": stats.series_alive,
                "numLabelPairs": counts.pairs.len(),
                "chunkCount": frame.db.head_run_count(),
                // As Prometheus has it for a head without samples.
                "minTime": start.map_or(i64::MAX, Timestamp::millis),
                "maxTime": end.map_or(i64::MIN, Timestamp::millis),
            },
            "seriesCountByMetricName": largest(counts.names, most),
            "labelValueCountByLabelName": largest(counts.values, most),
            "memoryInBytesByLabelName": largest(counts.sizes, most),
            "seriesCountByLabelValuePair": largest(counts.pairs, most),
        })
        .into())
    })
    .await
}

/// Series by name and by pair, different values and their bytes by label; the name is a label too, as in Prometheus.
#[derive(Default)]
struct Counts<'k> {
    names: BTreeMap<&'k str, u64>,
    values: BTreeMap<&'k str, u64>,
    sizes: BTreeMap<&'k str, u64>,
    pairs: BTreeMap<String, u64>,
}

impl<'k> Counts<'k> {
    fn of(keys: impl Iterator<Item = &'k SeriesKey>) -> Self {
        let mut by_pair: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for key in keys {
            for pair in key.tags().chain([(NAME_KEY, key.name())]) {
                *by_pair.entry(pair).or_default() += 1;
            }
        }
        let mut counts = Counts::default();
        for ((key, value), series) in by_pair {
            if key == NAME_KEY {
                counts.names.insert(value, series);
            }
            *counts.values.entry(key).or_default() += 1;
            *counts.sizes.entry(key).or_default() += value.len() as u64 * series;
            counts.pairs.insert(format!("{key}={value}"), series);
        }
        counts
    }
}

fn largest<K: Into<Json>>(counts: BTreeMap<K, u64>, most: usize) -> Vec<Json> {
    let mut counts: Vec<(K, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.truncate(most);
    counts.into_iter().map(|(name, value)| json!({ "name": name.into(), "value": value })).collect()
}

/// `GET /api/v1/status/tsdb/blocks`.
pub(in crate::server) async fn blocks(State(frame): State<Arc<Frame>>, headers: HeaderMap) -> Response<Body> {
    let block = |block: crate::db::BlockStats| {
        json!({
            "ulid": block.number.to_string(),
            "minTime": block.min_time.millis(),
            // The end is exclusive there.
            "maxTime": block.max_time.millis().saturating_add(1),
            "stats": {
                "numSamples": block.samples, "numSeries": block.series, "numChunks": block.pages, "numBytes": block.size,
            },
            "compaction": { "level": block.level, "sources": [block.number.to_string()] },
            "version": 1,
        })
    };
    let blocks: Vec<Json> = frame.db.block_stats().into_iter().map(block).collect();
    at_once(json!({ "blocks": blocks }), &headers)
}

/// `GET /api/v1/rules`: there are none.
pub(in crate::server) async fn no_rules(headers: HeaderMap) -> Response<Body> {
    at_once(json!({ "groups": [] }), &headers)
}

/// `GET /api/v1/alerts`: there are none.
pub(in crate::server) async fn no_alerts(headers: HeaderMap) -> Response<Body> {
    at_once(json!({ "alerts": [] }), &headers)
}

/// `GET /api/v1/alertmanagers`: there are none.
pub(in crate::server) async fn no_alertmanagers(headers: HeaderMap) -> Response<Body> {
    at_once(json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }), &headers)
}

/// `GET /api/v1/targets`: nothing is scraped from here.
pub(in crate::server) async fn no_targets(headers: HeaderMap) -> Response<Body> {
    at_once(json!({ "activeTargets": [], "droppedTargets": [], "droppedTargetCounts": {} }), &headers)
}

/// `GET /api/v1/scrape_pools`: there are none.
pub(in crate::server) async fn no_scrape_pools(headers: HeaderMap) -> Response<Body> {
    at_once(json!({ "scrapePools": [] }), &headers)
}

/// `GET /api/v1/features`: what is there, by area.
pub(in crate::server) async fn features(
    State(frame): State<Arc<Frame>>,
    headers: HeaderMap,
) -> Response<Body> {
    let functions: Map<String, Json> =
        FUNCTIONS.iter().map(|function| (function.name.to_owned(), Json::from(true))).collect();
    let aggregations: Map<String, Json> =
        AggregateOp::ALL.iter().map(|(_, name)| ((*name).to_owned(), Json::from(true))).collect();
    let data = json!({
        "api": {
            "admin": frame.options.admin_api,
            "exemplars": false,
            "label_values_match": true,
            "lifecycle": false,
            "openapi_3.1": true,
            "query_stats": true,
            "remote_read": true,
            "remote_read_streamed_chunks": true,
            "remote_write_receiver": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "otlp_receiver": { "http": true },
        "promql": {
            "anchored": false,
            "at_modifier": true,
            "by": true,
            "bool": true,
            "delayed_name_removal": true,
            "duration_expr": true,
            "fill": true,
            "group_left": true,
            "group_right": true,
            "ignoring": true,
            "native_histograms": false,
            "negative_offset": true,
            "offset": true,
            "on": true,
            "per_query_lookback_delta": true,
            "per_step_stats": false,
            "smoothed": false,
            "subqueries": true,
            "utf8_names": true,
            "without": true,
        },
        "promql_aggregations": aggregations,
        "promql_functions": functions,
        "tsdb": { "delayed_compaction": false, "exemplar_storage": false, "native_histograms": false, "out_of_order": true },
    });
    at_once(data, &headers)
}

fn retention(frame: &Frame) -> String {
    match frame.db.options().retention {
        Some(age) if age.as_secs() % 86_400 == 0 => format!("{}d", age.as_secs() / 86_400),
        Some(age) => format!("{}s", age.as_secs()),
        None => String::new(),
    }
}

fn rfc3339(time: Timestamp) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time.nanos())).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_counted_as_prometheus_counts_them() {
        let key = |name: &str, host: &str| SeriesKey::new(name, [("host", host)]).unwrap();
        let keys = [key("up", "a"), key("up", "bb"), key("load", "a")];
        let counts = Counts::of(keys.iter());
        assert_eq!(counts.names, BTreeMap::from([("up", 2), ("load", 1)]));
        assert_eq!(counts.values, BTreeMap::from([("host", 2), (NAME_KEY, 2)]));
        assert_eq!(counts.sizes, BTreeMap::from([("host", 4), (NAME_KEY, 8)]));
        assert_eq!(counts.pairs["host=a"], 2);
        assert_eq!(largest(counts.names, 1), [json!({ "name": "up", "value": 2 })]);
    }
}
