//! Answers InfluxData's line-protocol corpus over standard input: one JSON object a line in,
//! `{"text_base64", "default_time", "precision"}`, and one out, `{"result": [...]}` or `{"error": "..."}`.
//!
//! cargo run --features cli --example conformance_line

use std::io::{BufRead, Write};

use icecore::Timestamp;
use icecore::protocol::line::{FieldValue, Parser, Point, Precision};
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let answer = answer(&line?).unwrap_or_else(|error| json!({ "error": error }));
        writeln!(output, "{answer}")?;
        output.flush()?;
    }
    Ok(())
}

/// The answer to one request; all points, or the first error.
fn answer(request: &str) -> Result<Value, String> {
    let request: Value = serde_json::from_str(request).map_err(|error| error.to_string())?;
    let text = request["text_base64"].as_str().and_then(decode_base64).ok_or("text_base64 is not base64")?;
    let precision =
        request["precision"].as_str().and_then(Precision::from_name).ok_or("unknown precision")?;
    let default_time = Timestamp::from_nanos(request["default_time"].as_i64().ok_or("no default_time")?);
    let points: Result<Vec<_>, _> = Parser::new(&text, precision, default_time).collect();
    let points = points.map_err(|error| error.to_string())?;
    Ok(json!({ "result": points.iter().map(describe).collect::<Vec<_>>() }))
}

fn describe(point: &Point<'_>) -> Value {
    let fields: Vec<Value> =
        point.fields.iter().map(|(key, value)| json!([key, describe_value(value)])).collect();
    json!({ "name": point.measurement, "tags": point.tags, "fields": fields, "time": point.time.nanos() })
}

fn describe_value(value: &FieldValue<'_>) -> Value {
    match value {
        FieldValue::Float(value) => json!({ "float": value }),
        FieldValue::Int(value) => json!({ "int": value }),
        FieldValue::UInt(value) => json!({ "uint": value }),
        FieldValue::Bool(value) => json!({ "bool": value }),
        FieldValue::String(value) => json!({ "string": value }),
    }
}

/// Standard base64 with padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut buffer, mut bit_count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = ALPHABET.iter().position(|b| *b == byte)?;
        buffer = (buffer << 6) | digit as u32;
        bit_count += 6;
        if bit_count >= 8 {
            bit_count -= 8;
            bytes.push((buffer >> bit_count) as u8);
            buffer &= (1 << bit_count) - 1;
        }
    }
    Some(bytes)
}
