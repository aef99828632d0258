//! The server's own metrics, for `GET /metrics`: what the engine and the listeners count.

use super::Frame;
use crate::ingest::{FamilySample, MetricFamily};
use crate::model::MetricKind;
use crate::protocol::statsd::Refusal;

/// `icecore_*`, in a fixed order.
#[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
pub(super) fn own_families(frame: &Frame) -> Vec<MetricFamily> {
    let stats = frame.db.stats();
    let gauge = |name, help, value: u64| single(name, MetricKind::Gauge, help, value as f64);
    let counter = |name, help, value: u64| single(name, MetricKind::Counter, help, value as f64);
    let mut families = vec![
        single("icecore_up", MetricKind::Gauge, "The server is running.", 1.0),
        gauge("icecore_series_alive", "Series with samples in memory or held.", stats.series_alive),
        gauge("icecore_head_samples", "Samples in memory.", stats.head_samples),
        gauge("icecore_head_bytes", "Memory of the samples in memory.", stats.head_size),
        gauge("icecore_registry_bytes", "Memory of the registry of series.", stats.registry_size),
        gauge("icecore_cache_bytes", "Memory of indexes and directories of blocks.", stats.cache_size),
        gauge("icecore_blocks", "Number of blocks.", stats.blocks),
        gauge("icecore_block_bytes", "Size of all blocks.", stats.block_size),
        gauge("icecore_block_samples", "Samples in blocks.", stats.block_samples),
        gauge("icecore_wal_bytes", "Size of the log.", stats.wal_size),
        gauge("icecore_disk_bytes", "Size of all files of the database.", stats.disk_size),
        counter(
            "icecore_dropped_below_floor_total",
            "Samples older than the retention floor.",
            stats.dropped_below_floor,
        ),
        gauge("icecore_quarantined_blocks", "Blocks in quarantine.", stats.quarantined),
        counter(
            "icecore_background_failures_total",
            "Background steps that failed.",
            stats.background_failures,
        ),
        gauge(
            "icecore_remote_write_known_series",
            "Series that are found by the bytes of their labels.",
            frame.handles.len() as u64,
        ),
        gauge("icecore_bodies_bytes", "Memory of request bodies in flight.", frame.budget.used() as u64),
    ];
    families.extend(queries(frame));
    if frame.options.statsd.is_some() {
        let statsd = &frame.statsd;
        families.push(counter("icecore_statsd_datagrams_total", "Datagrams received.", statsd.datagrams()));
        families.push(counter("icecore_statsd_lines_total", "StatsD lines taken.", statsd.lines()));
        families.push(counter(
            "icecore_statsd_kernel_drops_total",
            "Datagrams the system dropped.",
            statsd.kernel_drops(),
        ));
        families.push(refusals(statsd.refusals()));
    }
    families
}

/// What was read over HTTP.
fn queries(frame: &Frame) -> [MetricFamily; 4] {
    let readings = &frame.readings;
    #[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
    let sample = |(outcome, count): (&'static str, u64)| FamilySample {
        name: "icecore_queries_total".into(),
        tags: vec![("outcome".into(), outcome.into())],
        value: count as f64,
        ..FamilySample::default()
    };
    let build = FamilySample {
        name: "icecore_build_info".into(),
        tags: vec![("version".into(), env!("CARGO_PKG_VERSION").into())],
        value: 1.0,
        ..FamilySample::default()
    };
    [
        MetricFamily {
            name: "icecore_build_info".into(),
            kind: MetricKind::Gauge,
            help: "Always 1; the version is a tag.".into(),
            samples: vec![build],
            ..MetricFamily::default()
        },
        MetricFamily {
            name: "icecore_queries_total".into(),
            kind: MetricKind::Counter,
            help: "Requests of the Prometheus API that read, by outcome.".into(),
            samples: readings.outcomes().map(sample).collect(),
            ..MetricFamily::default()
        },
        single(
            "icecore_query_seconds_total",
            MetricKind::Counter,
            "Time that requests which read have worked.",
            readings.time().as_secs_f64(),
        ),
        #[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
        single(
            "icecore_queries_under_way",
            MetricKind::Gauge,
            "Requests that read now.",
            readings.under_way() as f64,
        ),
    ]
}

fn refusals(counts: Vec<(&'static str, u64)>) -> MetricFamily {
    debug_assert!(counts.len() >= Refusal::ALL.len());
    #[allow(clippy::cast_precision_loss, reason = "metrics are doubles")]
    let sample = |(reason, count): (&'static str, u64)| FamilySample {
        name: "icecore_statsd_refused_total".into(),
        tags: vec![("reason".into(), reason.into())],
        value: count as f64,
        ..FamilySample::default()
    };
    MetricFamily {
        name: "icecore_statsd_refused_total".into(),
        kind: MetricKind::Counter,
        help: "StatsD lines refused, by reason.".into(),
        samples: counts.into_iter().map(sample).collect(),
        ..MetricFamily::default()
    }
}

fn single(name: &'static str, kind: MetricKind, help: &'static str, value: f64) -> MetricFamily {
    let sample = FamilySample { name: name.into(), value, ..FamilySample::default() };
    MetricFamily {
        name: name.into(),
        kind,
        help: help.into(),
        samples: vec![sample],
        ..MetricFamily::default()
    }
}
