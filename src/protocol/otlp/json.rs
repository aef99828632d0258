//! OTLP as JSON: the encoding of protobuf messages in JSON, with the exceptions of the OTLP specification.
//!
//! Keys in lowerCamelCase, 64-bit integers as strings or numbers, enums as numbers, doubles as numbers or as `"NaN"`,
//! `"Infinity"`, `"-Infinity"`; unknown keys are ignored and `null` is what an absent key is.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

use super::mapper::{Attributes, Body, DataKind, DataPoint, Mapper, Metric, Scope, Temporality};
use super::protobuf::{float_text, too_deep};
use super::{ATTRIBUTE_COUNT_MAX, ATTRIBUTE_DEPTH_MAX, JSON_OBJECT_COUNT_MAX, too_many_attributes};
use crate::error::{Error, Result};

pub(super) fn read_request<'a>(body: &'a [u8], mapper: &mut Mapper<'a, '_>) -> Result<()> {
    // Every object that becomes a struct has its own brace, so that this bounds what the tree takes.
    if body.iter().filter(|byte| **byte == b'{').count() > JSON_OBJECT_COUNT_MAX {
        return Err(Error::limit_exceeded(format!(
            "the request holds more than {JSON_OBJECT_COUNT_MAX} JSON objects; send it in parts, or as protobuf"
        )));
    }
    let request: Request<'a> = serde_json::from_slice(body)
        .map_err(|error| Error::invalid_input(format!("not an OTLP request in JSON: {error}")))?;
    for resource_metrics in list(request.resource_metrics) {
        let resource = attributes(resource_metrics.resource.map(|r| r.attributes));
        for scope_metrics in list(resource_metrics.scope_metrics) {
            mapper.begin(&resource, scope(scope_metrics.scope));
            for metric in list(scope_metrics.metrics) {
                read_metric(metric, mapper);
            }
        }
    }
    Ok(())
}

fn read_metric<'a>(metric: JsonMetric<'a>, mapper: &mut Mapper<'a, '_>) {
    let name = metric.name.unwrap_or_default();
    let description = metric.description.unwrap_or_default();
    let unit = metric.unit.unwrap_or_default();
    let (data, points) = if let Some(data) = metric.sum {
        let temporality = temporality(data.aggregation_temporality);
        let kind = DataKind::Sum { temporality, monotonic: data.is_monotonic.unwrap_or_default() };
        (kind, data.data_points)
    } else if let Some(data) = metric.gauge {
        (DataKind::Gauge, data.data_points)
    } else if let Some(data) = metric.histogram {
        (DataKind::Histogram { temporality: temporality(data.aggregation_temporality) }, data.data_points)
    } else if let Some(data) = metric.summary {
        (DataKind::Summary, data.data_points)
    } else if let Some(data) = metric.exponential_histogram {
        (DataKind::ExponentialHistogram, data.data_points)
    } else {
        (DataKind::Unknown, None)
    };
    let metric = Metric { name: &name, description: &description, unit: &unit, data };
    mapper.metric(&metric);
    for point in list(points) {
        mapper.point(&metric, read_point(data, point));
    }
}

fn read_point(kind: DataKind, point: JsonPoint<'_>) -> Result<DataPoint<'_>> {
    let int = |value: Option<Int>| value.map_or(0, |Int(value)| value);
    let body = match kind {
        DataKind::Gauge | DataKind::Sum { .. } => match (point.as_double, point.as_int) {
            (Some(Double(value)), _) => Body::Double(value),
            (None, Some(Int(value))) => Body::Int(signed(value)?),
            (None, None) => Body::Missing,
        },
        DataKind::Histogram { .. } => Body::Histogram {
            count: unsigned(int(point.count))?,
            sum: point.sum.map(|Double(sum)| sum),
            bucket_counts: list(point.bucket_counts)
                .into_iter()
                .map(|Int(v)| unsigned(v))
                .collect::<Result<_>>()?,
            bounds: list(point.explicit_bounds).into_iter().map(|Double(v)| v).collect(),
        },
        DataKind::Summary => Body::Summary {
            count: unsigned(int(point.count))?,
            sum: point.sum.map_or(0.0, |Double(sum)| sum),
            quantiles: list(point.quantile_values)
                .into_iter()
                .map(|q| (q.quantile.map_or(0.0, |Double(v)| v), q.value.map_or(0.0, |Double(v)| v)))
                .collect(),
        },
        DataKind::ExponentialHistogram | DataKind::Unknown => Body::Missing,
    };
    Ok(DataPoint {
        attributes: attributes(Some(point.attributes))?,
        start: unsigned(int(point.start_time_unix_nano))?,
        time: unsigned(int(point.time_unix_nano))?,
        flags: unsigned(int(point.flags))?,
        body,
    })
}

fn scope(scope: Option<JsonScope<'_>>) -> Result<Scope<'_>> {
    let scope = scope.unwrap_or_default();
    Ok(Scope {
        name: scope.name.unwrap_or_default(),
        version: scope.version.unwrap_or_default(),
        attributes: attributes(Some(scope.attributes))?,
    })
}

fn attributes(pairs: Option<Option<Vec<KeyValue<'_>>>>) -> Result<Attributes<'_>> {
    let pairs = list(pairs.flatten());
    if pairs.len() > ATTRIBUTE_COUNT_MAX {
        return Err(too_many_attributes());
    }
    pairs
        .into_iter()
        .map(|pair| Ok((pair.key.unwrap_or_default(), any_text(pair.value.unwrap_or_default())?)))
        .collect()
}

/// `AnyValue` as the value of a tag.
fn any_text(value: AnyValue<'_>) -> Result<Cow<'_, str>> {
    Ok(match value {
        AnyValue { string_value: Some(text), .. } | AnyValue { bytes_value: Some(text), .. } => text,
        AnyValue { bool_value: Some(flag), .. } => Cow::Borrowed(if flag { "true" } else { "false" }),
        AnyValue { int_value: Some(Int(value)), .. } => Cow::Owned(value.to_string()),
        AnyValue { double_value: Some(Double(value)), .. } => Cow::Owned(float_text(value)),
        AnyValue { array_value: None, kvlist_value: None, .. } => Cow::Borrowed(""),
        nested => Cow::Owned(any_json(nested, ATTRIBUTE_DEPTH_MAX)?.to_string()),
    })
}

/// `AnyValue` as JSON.
fn any_json(value: AnyValue<'_>, depth: usize) -> Result<Value> {
    if let Some(array) = value.array_value {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        return list(array.values).into_iter().map(|value| any_json(value, depth)).collect();
    }
    if let Some(map) = value.kvlist_value {
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        let pairs = list(map.values).into_iter().map(|pair| {
            Ok((pair.key.unwrap_or_default().into_owned(), any_json(pair.value.unwrap_or_default(), depth)?))
        });
        return Ok(Value::Object(pairs.collect::<Result<_>>()?));
    }
    Ok(match value {
        AnyValue { string_value: Some(text), .. } | AnyValue { bytes_value: Some(text), .. } => {
            Value::from(&*text)
        }
        AnyValue { bool_value: Some(flag), .. } => Value::from(flag),
        AnyValue { int_value: Some(Int(value)), .. } => Value::from(signed(value)?),
        AnyValue { double_value: Some(Double(value)), .. } => Value::from(value),
        _ => Value::Null,
    })
}

fn list<T>(list: Option<Vec<T>>) -> Vec<T> {
    list.unwrap_or_default()
}

fn temporality(number: Option<Int>) -> Temporality {
    Temporality::from_number(number.and_then(|Int(number)| u64::try_from(number).ok()).unwrap_or(0))
}

fn signed(value: i128) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::invalid_input(format!("{value} does not fit 64 bits")))
}

fn unsigned(value: i128) -> Result<u64> {
    u64::try_from(value)
        .map_err(|_| Error::invalid_input(format!("{value} does not fit 64 bits without a sign")))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    resource_metrics: Option<Vec<ResourceMetrics<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceMetrics<'a> {
    #[serde(borrow)]
    resource: Option<Resource<'a>>,
    #[serde(borrow)]
    scope_metrics: Option<Vec<ScopeMetrics<'a>>>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
}

#[derive(Deserialize)]
struct ScopeMetrics<'a> {
    #[serde(borrow)]
    scope: Option<JsonScope<'a>>,
    #[serde(borrow)]
    metrics: Option<Vec<JsonMetric<'a>>>,
}

#[derive(Default, Deserialize)]
struct JsonScope<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonMetric<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    description: Option<Cow<'a, str>>,
    #[serde(borrow)]
    unit: Option<Cow<'a, str>>,
    #[serde(borrow)]
    gauge: Option<Data<'a>>,
    #[serde(borrow)]
    sum: Option<Data<'a>>,
    #[serde(borrow)]
    histogram: Option<Data<'a>>,
    #[serde(borrow)]
    exponential_histogram: Option<Data<'a>>,
    #[serde(borrow)]
    summary: Option<Data<'a>>,
}

/// The data of a metric, of any kind: the union of their fields.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    #[serde(borrow)]
    data_points: Option<Vec<JsonPoint<'a>>>,
    aggregation_temporality: Option<Int>,
    is_monotonic: Option<bool>,
}

/// A data point of any kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct JsonPoint<'a> {
    #[serde(borrow)]
    attributes: Option<Vec<KeyValue<'a>>>,
    start_time_unix_nano: Option<Int>,
    time_unix_nano: Option<Int>,
    flags: Option<Int>,
    as_double: Option<Double>,
    as_int: Option<Int>,
    count: Option<Int>,
    sum: Option<Double>,
    bucket_counts: Option<Vec<Int>>,
    explicit_bounds: Option<Vec<Double>>,
    quantile_values: Option<Vec<Quantile>>,
}

#[derive(Deserialize)]
struct Quantile {
    quantile: Option<Double>,
    value: Option<Double>,
}

#[derive(Deserialize)]
struct KeyValue<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<AnyValue<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyValue<'a> {
    #[serde(borrow)]
    string_value: Option<Cow<'a, str>>,
    bool_value: Option<bool>,
    int_value: Option<Int>,
    double_value: Option<Double>,
    #[serde(borrow)]
    array_value: Option<Box<ArrayValue<'a>>>,
    #[serde(borrow)]
    kvlist_value: Option<Box<KeyValueList<'a>>>,
    #[serde(borrow)]
    bytes_value: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct ArrayValue<'a> {
    #[serde(borrow)]
    values: Option<Vec<AnyValue<'a>>>,
}

#[derive(Deserialize)]
struct KeyValueList<'a> {
    #[serde(borrow)]
    values: Option<Vec<KeyValue<'a>>>,
}

/// An integer of up to 64 bits with or without a sign, as a number or as a string.
struct Int(i128);

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct IntVisitor;
        impl Visitor<'_> for IntVisitor {
            type Value = Int;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer, as a number or a string")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Int, E> {
                Ok(Int(value.into()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Int, E> {
                Ok(Int(value.into()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Int, E> {
                // 1e3 and 5.0 are integers in JSON; the cast is exact within the bounds checked.
                if value.fract() == 0.0 && value.abs() < 2f64.powi(64) {
                    return Ok(Int(value as i128));
                }
                Err(E::invalid_value(de::Unexpected::Float(value), &self))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Int, E> {
                value.parse().map(Int).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(IntVisitor)
    }
}

/// A double, as a number or as the string of one that JSON does not have.
struct Double(f64);

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct DoubleVisitor;
        impl Visitor<'_> for DoubleVisitor {
            type Value = Double;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, \"NaN\", \"Infinity\" or \"-Infinity\"")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> std::result::Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> std::result::Result<Double, E> {
                Ok(Double(value as f64))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> std::result::Result<Double, E> {
                Ok(Double(value))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> std::result::Result<Double, E> {
                value.parse().map(Double).map_err(|_| E::invalid_value(de::Unexpected::Str(value), &self))
            }
        }
        deserializer.deserialize_any(DoubleVisitor)
    }
}
