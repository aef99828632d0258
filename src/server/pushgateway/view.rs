//! Live groups as others see them: on `GET /metrics`, and as JSON on `GET /api/v1/metrics`.

use std::collections::BTreeMap;

use jiff::Timestamp as Civil;
use serde_json::{Map, Value, json};

use super::group::{Group, own_families};
use super::path::GroupKey;
use crate::ingest::{FamilySample, MetricFamily};
use crate::model::{MetricKind, Timestamp};
use crate::protocol::exposition::{Family, merge_families};
use crate::protocol::label::{BUCKET_KEY, QUANTILE_KEY};
use crate::protocol::number::push_float;

/// The label that the original shows for every series, empty when it has none.
const INSTANCE: &str = "instance";

/// The families of all groups, joined by name, for the page that is scraped. A series without `instance` is shown
/// without; the original writes `instance=""`, which is the same series, but keeps a scrape from adding its own.
pub(in crate::server) fn families_of<'g>(
    groups: impl Iterator<Item = (&'g GroupKey, &'g Group)>,
) -> Vec<Family<'static>> {
    let mut families = Vec::new();
    for (key, group) in groups {
        families.extend(group.families.iter().cloned());
        families.extend(own_families(key, group));
    }
    merge_families(families)
}

/// The answer of `/api/v1/metrics`.
pub(in crate::server) fn groups_json<'g>(groups: impl Iterator<Item = (&'g GroupKey, &'g Group)>) -> Value {
    let groups: Vec<Value> = groups.map(|(key, group)| group_json(key, group)).collect();
    json!({ "status": "success", "data": groups })
}

fn group_json(key: &GroupKey, group: &Group) -> Value {
    let mut object = Map::new();
    let own = own_families(key, group);
    for family in group.families.iter().chain(&own) {
        object.insert(family.name.to_string(), family_json(family, group.pushed));
    }
    // After the families, so that one called like this cannot hide it.
    object.insert("labels".into(), key.labels().collect::<BTreeMap<_, _>>().into_iter().map(pair).collect());
    object
        .insert("last_push_successful".into(), json!(group.pushed >= group.failed && group.pushed.is_some()));
    Value::Object(object)
}

fn family_json(family: &MetricFamily, pushed: Option<Timestamp>) -> Value {
    let kind = match family.kind {
        MetricKind::Counter => "COUNTER",
        MetricKind::Gauge => "GAUGE",
        MetricKind::Summary => "SUMMARY",
        MetricKind::Histogram => "HISTOGRAM",
        _ => "UNTYPED",
    };
    let metrics = match family.kind {
        MetricKind::Summary | MetricKind::Histogram => compound_metrics(family),
        _ => family.samples.iter().map(single_metric).collect(),
    };
    json!({ "time_stamp": rfc3339(pushed), "type": kind, "help": family.help, "metrics": metrics })
}

fn single_metric(sample: &FamilySample) -> Value {
    json!({ "labels": labels(sample, None), "value": number(sample.value) })
}

/// Samples of a summary or histogram, one object for each set of labels.
fn compound_metrics(family: &MetricFamily) -> Vec<Value> {
    let (bound_key, parts_name) = match family.kind {
        MetricKind::Summary => (QUANTILE_KEY, "quantiles"),
        _ => (BUCKET_KEY, "buckets"),
    };
    type Object = Map<String, Value>;
    let mut metrics: BTreeMap<BTreeMap<String, String>, (Object, Object)> = BTreeMap::new();
    for sample in &family.samples {
        let suffix = sample.name.strip_prefix(family.name.as_ref()).unwrap_or_default();
        let (parts, object) = metrics.entry(labels(sample, Some(bound_key))).or_default();
        match (suffix, sample.tag(bound_key)) {
            ("_sum", _) => object.insert("sum".into(), json!(number(sample.value))),
            ("_count", _) => object.insert("count".into(), json!(number(sample.value))),
            (_, bound) => parts.insert(bound.unwrap_or_default().to_owned(), json!(number(sample.value))),
        };
    }
    let finish = |(labels, (parts, mut object)): (_, (Map<_, _>, Map<_, _>))| {
        object.insert("labels".into(), json!(labels));
        object.insert(parts_name.into(), Value::Object(parts));
        Value::Object(object)
    };
    metrics.into_iter().map(finish).collect()
}

/// The labels of a sample as the original shows them, `instance` always among them, without the one called `without`.
fn labels(sample: &FamilySample, without: Option<&str>) -> BTreeMap<String, String> {
    let own = sample.tags.iter().filter(|(key, _)| Some(key.as_ref()) != without);
    let mut labels: BTreeMap<String, String> = own.map(|(k, v)| (k.to_string(), v.to_string())).collect();
    labels.entry(INSTANCE.to_owned()).or_default();
    labels
}

fn pair((key, value): (&str, &str)) -> (String, Value) {
    (key.to_owned(), Value::from(value))
}

fn number(value: f64) -> String {
    let mut text = String::new();
    push_float(&mut text, value);
    text
}

fn rfc3339(time: Option<Timestamp>) -> String {
    let nanos = i128::from(time.unwrap_or_default().nanos());
    Civil::from_nanosecond(nanos).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::super::group::{Groups, Method};
    use super::super::path::parse_path;
    use super::*;
    use crate::protocol::exposition::{Format, Names, parse_text, write_page};

    fn groups() -> Groups {
        let page = "# HELP x Help.\n# TYPE x gauge\nx{a=\"1\"} 2.5\n\
                    # TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3\nh_count 2\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} 7\ns_sum 8\ns_count 9\n";
        let mut groups = Groups::default();
        for path in ["job/a", "job/b/instance/i"] {
            let families = parse_text(page.as_bytes()).unwrap();
            let now = Timestamp::from_secs(1_600_000_000);
            let change = groups.push(&parse_path(path).unwrap(), Method::Replace, &families, now).unwrap();
            groups.commit(change);
        }
        groups
    }

    #[test]
    fn the_page_has_each_family_once() {
        let groups = groups();
        let mut page = String::new();
        write_page(&families_of(groups.iter()), Format::Text, Names::Utf8, &mut page);
        assert_eq!(page.matches("# TYPE x gauge").count(), 1);
        assert!(page.contains(r#"x{a="1",job="a"} 2.5"#), "{page}");
        assert!(page.contains(r#"x{a="1",instance="i",job="b"} 2.5"#), "{page}");
        assert!(page.contains(r#"push_time_seconds{job="a"} 1.6e+09"#), "{page}");
    }

    #[test]
    fn json_is_laid_out_as_the_original_does() {
        let json = groups_json(groups().iter());
        assert_eq!(json["status"], "success");
        // Groups are ordered by their labels, `instance` before `job`.
        let first = &json["data"][1];
        assert_eq!(first["labels"], json!({ "job": "a" }));
        assert_eq!(first["last_push_successful"], true);
        let expected = json!({
            "time_stamp": "2020-09-13T12:26:40Z", "type": "GAUGE", "help": "Help.",
            "metrics": [{ "labels": { "a": "1", "instance": "", "job": "a" }, "value": "2.5" }]
        });
        assert_eq!(first["x"], expected);
        let labels = json!({ "instance": "", "job": "a" });
        let histogram =
            json!([{ "labels": labels, "buckets": { "1.0": "1", "+Inf": "2" }, "count": "2", "sum": "3" }]);
        assert_eq!(first["h"]["metrics"], histogram);
        let summary = json!([{ "labels": labels, "quantiles": { "0.5": "7" }, "count": "9", "sum": "8" }]);
        assert_eq!(first["s"]["metrics"], summary);
        assert_eq!(first["push_time_seconds"]["metrics"][0]["value"], "1.6e+09");
        assert_eq!(json["data"][0]["x"]["metrics"][0]["labels"]["instance"], "i");
    }
}
