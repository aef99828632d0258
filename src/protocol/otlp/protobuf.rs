//! OTLP as protobuf: the messages walked in place, level by level.

use std::borrow::Cow;

use serde_json::Value;

use super::mapper::{Attributes, Body, DataKind, DataPoint, Mapper, Metric, Scope, Temporality};
use super::{
    ATTRIBUTE_COUNT_MAX, ATTRIBUTE_DEPTH_MAX, ATTRIBUTE_SIZE_MAX, BUCKET_COUNT_MAX, too_many_attributes,
};
use crate::error::{Error, Result};
use crate::protocol::number::push_float;
use crate::protocol::protobuf::{Fields, Wire, malformed};

/// Calls `visit` with each field of `message`.
fn each<'a>(message: &'a [u8], mut visit: impl FnMut(u64, Wire<'a>) -> Result<()>) -> Result<()> {
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        visit(number, value)?;
    }
    Ok(())
}

/// `ExportMetricsServiceRequest`.
pub(super) fn read_request<'a>(body: &'a [u8], mapper: &mut Mapper<'a, '_>) -> Result<()> {
    each(body, |number, value| match number {
        1 => read_resource_metrics(value.bytes("resource_metrics")?, mapper),
        _ => Ok(()),
    })
}

/// `ResourceMetrics`. Fields come in any order, so the resource is looked for first.
fn read_resource_metrics<'a>(message: &'a [u8], mapper: &mut Mapper<'a, '_>) -> Result<()> {
    let mut resource = Ok(Vec::new());
    each(message, |number, value| {
        if number == 1 {
            resource = read_attributes(value.bytes("resource")?, 1);
        }
        Ok(())
    })?;
    each(message, |number, value| match number {
        2 => read_scope_metrics(value.bytes("scope_metrics")?, &resource, mapper),
        _ => Ok(()),
    })
}

fn read_scope_metrics<'a>(
    message: &'a [u8],
    resource: &Result<Attributes<'a>>,
    mapper: &mut Mapper<'a, '_>,
) -> Result<()> {
    let mut scope = Ok(Scope::default());
    each(message, |number, value| {
        if number == 1 {
            scope = read_scope(value.bytes("scope")?);
        }
        Ok(())
    })?;
    mapper.begin(resource, scope);
    each(message, |number, value| match number {
        2 => read_metric(value.bytes("metrics")?, mapper),
        _ => Ok(()),
    })
}

fn read_scope(message: &[u8]) -> Result<Scope<'_>> {
    let mut scope = Scope { attributes: read_attributes(message, 3)?, ..Scope::default() };
    each(message, |number, value| {
        match number {
            1 => scope.name = Cow::Borrowed(value.string("scope.name")?),
            2 => scope.version = Cow::Borrowed(value.string("scope.version")?),
            _ => {}
        }
        Ok(())
    })?;
    Ok(scope)
}

fn read_metric<'a>(message: &'a [u8], mapper: &mut Mapper<'a, '_>) -> Result<()> {
    let mut metric = Metric { name: "", description: "", unit: "", data: DataKind::Unknown };
    let mut data: &[u8] = &[];
    each(message, |number, value| {
        match number {
            1 => metric.name = value.string("metric.name")?,
            2 => metric.description = value.string("metric.description")?,
            3 => metric.unit = value.string("metric.unit")?,
            5 | 7 | 9 | 10 | 11 => {
                data = value.bytes("metric.data")?;
                metric.data = read_kind(number, data)?;
            }
            _ => {}
        }
        Ok(())
    })?;
    mapper.metric(&metric);
    each(data, |number, value| {
        if number == 1 {
            let point = read_point(metric.data, value.bytes("data_points")?);
            mapper.point(&metric, point);
        }
        Ok(())
    })
}

/// The kind that the field number says, with what `Sum` and `Histogram` say about their points.
fn read_kind(number: u64, data: &[u8]) -> Result<DataKind> {
    let mut temporality = Temporality::Unspecified;
    let mut monotonic = false;
    if number == 7 || number == 9 {
        each(data, |number, value| {
            match number {
                2 => temporality = Temporality::from_number(value.uint("aggregation_temporality")?),
                3 => monotonic = value.uint("is_monotonic")? != 0,
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(match number {
        5 => DataKind::Gauge,
        7 => DataKind::Sum { temporality, monotonic },
        9 => DataKind::Histogram { temporality },
        10 => DataKind::ExponentialHistogram,
        _ => DataKind::Summary,
    })
}

fn read_point(kind: DataKind, message: &[u8]) -> Result<DataPoint<'_>> {
    match kind {
        DataKind::Gauge | DataKind::Sum { .. } => read_number_point(message),
        DataKind::Histogram { .. } => read_histogram_point(message),
        DataKind::Summary => read_summary_point(message),
        // Rejected by the mapper, whatever it holds.
        DataKind::ExponentialHistogram | DataKind::Unknown => Ok(DataPoint::default()),
    }
}

fn read_number_point(message: &[u8]) -> Result<DataPoint<'_>> {
    let mut point = DataPoint { attributes: read_attributes(message, 7)?, ..DataPoint::default() };
    each(message, |number, value| {
        match number {
            2 => point.start = value.fixed64("start_time_unix_nano")?,
            3 => point.time = value.fixed64("time_unix_nano")?,
            4 => point.body = Body::Double(value.double("as_double")?),
            6 => point.body = Body::Int(value.fixed64("as_int")?.cast_signed()),
            8 => point.flags = value.uint("flags")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(point)
}

fn read_histogram_point(message: &[u8]) -> Result<DataPoint<'_>> {
    let mut point = DataPoint { attributes: read_attributes(message, 9)?, ..DataPoint::default() };
    let (mut count, mut sum) = (0, None);
    let (mut bucket_counts, mut bounds) = (Vec::new(), Vec::new());
    each(message, |number, value| {
        match number {
            2 => point.start = value.fixed64("start_time_unix_nano")?,
            3 => point.time = value.fixed64("time_unix_nano")?,
            4 => count = value.fixed64("count")?,
            5 => sum = Some(value.double("sum")?),
            6 => read_fixed(value, |bits| bucket_counts.push(bits))?,
            7 => read_fixed(value, |bits| bounds.push(f64::from_bits(bits)))?,
            10 => point.flags = value.uint("flags")?,
            _ => {}
        }
        Ok(())
    })?;
    point.body = Body::Histogram { count, sum, bucket_counts, bounds };
    Ok(point)
}

fn read_summary_point(message: &[u8]) -> Result<DataPoint<'_>> {
    let mut point = DataPoint { attributes: read_attributes(message, 7)?, ..DataPoint::default() };
    let (mut count, mut sum, mut quantiles) = (0, 0.0, Vec::new());
    each(message, |number, value| {
        match number {
            2 => point.start = value.fixed64("start_time_unix_nano")?,
            3 => point.time = value.fixed64("time_unix_nano")?,
            4 => count = value.fixed64("count")?,
            5 => sum = value.double("sum")?,
            // One more than allowed is kept, so that the mapper refuses the point.
            6 if quantiles.len() <= BUCKET_COUNT_MAX => {
                quantiles.push(read_quantile(value.bytes("quantile_values")?)?);
            }
            8 => point.flags = value.uint("flags")?,
            _ => {}
        }
        Ok(())
    })?;
    point.body = Body::Summary { count, sum, quantiles };
    Ok(point)
}

fn read_quantile(message: &[u8]) -> Result<(f64, f64)> {
    let (mut quantile, mut at) = (0.0, 0.0);
    each(message, |number, value| {
        match number {
            1 => quantile = value.double("quantile")?,
            2 => at = value.double("value")?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((quantile, at))
}

/// A list of 64-bit numbers, packed or one by one.
fn read_fixed(value: Wire<'_>, mut push: impl FnMut(u64)) -> Result<()> {
    match value {
        Wire::Fixed64(bits) => push(bits),
        Wire::Bytes(packed) => {
            let (numbers, rest) = packed.as_chunks::<8>();
            if !rest.is_empty() {
                return Err(malformed("a packed list of 64-bit numbers ends inside one"));
            }
            numbers.iter().for_each(|bytes| push(u64::from_le_bytes(*bytes)));
        }
        _ => return Err(malformed("a list of 64-bit numbers has the wrong wire type")),
    }
    Ok(())
}

/// All `KeyValue` fields with the number `field`.
fn read_attributes(message: &[u8], field: u64) -> Result<Attributes<'_>> {
    let mut attributes = Vec::new();
    each(message, |number, value| {
        if number == field {
            if attributes.len() == ATTRIBUTE_COUNT_MAX {
                return Err(too_many_attributes());
            }
            attributes.push(read_key_value(value.bytes("attributes")?)?);
        }
        Ok(())
    })?;
    Ok(attributes)
}

fn read_key_value(message: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>)> {
    let (mut key, mut text) = ("", Cow::Borrowed(""));
    each(message, |number, value| {
        match number {
            1 => key = value.string("attribute key")?,
            2 => text = read_text(value.bytes("attribute value")?)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok((Cow::Borrowed(key), text))
}

/// `AnyValue` as the value of a tag.
fn read_text(message: &[u8]) -> Result<Cow<'_, str>> {
    let mut text = Cow::Borrowed("");
    each(message, |number, value| {
        text = match number {
            1 => Cow::Borrowed(value.string("string_value")?),
            2 => Cow::Borrowed(if value.uint("bool_value")? == 0 { "false" } else { "true" }),
            3 => Cow::Owned(value.int("int_value")?.to_string()),
            4 => Cow::Owned(float_text(value.double("double_value")?)),
            5 | 6 if message.len() > ATTRIBUTE_SIZE_MAX => return Err(too_big()),
            5 => Cow::Owned(read_list(value, ATTRIBUTE_DEPTH_MAX)?.to_string()),
            6 => Cow::Owned(read_map(value, ATTRIBUTE_DEPTH_MAX)?.to_string()),
            7 => Cow::Owned(base64(value.bytes("bytes_value")?)),
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(text)
}

/// `AnyValue` as JSON.
fn read_json(message: &[u8], depth: usize) -> Result<Value> {
    let mut found = Value::Null;
    each(message, |number, value| {
        found = match number {
            1 => Value::from(value.string("string_value")?),
            2 => Value::from(value.uint("bool_value")? != 0),
            3 => Value::from(value.int("int_value")?),
            4 => Value::from(value.double("double_value")?),
            5 => read_list(value, depth)?,
            6 => read_map(value, depth)?,
            7 => Value::from(base64(value.bytes("bytes_value")?)),
            _ => return Ok(()),
        };
        Ok(())
    })?;
    Ok(found)
}

fn read_list(value: Wire<'_>, depth: usize) -> Result<Value> {
    let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
    let mut list = Vec::new();
    each(value.bytes("array_value")?, |number, value| {
        if number == 1 {
            list.push(read_json(value.bytes("values")?, depth)?);
        }
        Ok(())
    })?;
    Ok(Value::Array(list))
}

fn read_map(value: Wire<'_>, depth: usize) -> Result<Value> {
    let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
    let mut map = serde_json::Map::new();
    each(value.bytes("kvlist_value")?, |number, value| {
        if number == 1 {
            let (mut key, mut found) = ("", Value::Null);
            each(value.bytes("values")?, |number, value| {
                match number {
                    1 => key = value.string("key")?,
                    2 => found = read_json(value.bytes("value")?, depth)?,
                    _ => {}
                }
                Ok(())
            })?;
            map.insert(key.to_owned(), found);
        }
        Ok(())
    })?;
    Ok(Value::Object(map))
}

pub(super) fn float_text(value: f64) -> String {
    let mut text = String::new();
    push_float(&mut text, value);
    text
}

/// RFC 4648, standard alphabet with padding, as the JSON of protobuf writes bytes.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for index in 0..4 {
            let digit = (bits >> (18 - 6 * index) & 63) as usize;
            text.push(if index > group.len() { '=' } else { char::from(ALPHABET[digit]) });
        }
    }
    text
}

#[cold]
pub(super) fn too_deep() -> Error {
    Error::invalid_input(format!("an attribute nests deeper than {ATTRIBUTE_DEPTH_MAX}"))
}

#[cold]
fn too_big() -> Error {
    Error::invalid_input(format!("an attribute takes more than {ATTRIBUTE_SIZE_MAX} bytes"))
}
