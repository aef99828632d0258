//! Cases of InfluxData's line-protocol corpus: see `tests/line/README.md`.

use icecore::Timestamp;
use icecore::protocol::line::{FieldValue, Parser, Point, Precision};
use serde_json::{Value, json};

#[test]
fn line_protocol_corpus_holds() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../line/corpus.json")).unwrap();
    assert!(cases.len() > 250, "{} cases", cases.len());
    for case in cases {
        let text = case["text"].as_str().unwrap().as_bytes();
        let precision = Precision::from_name(case["precision"].as_str().unwrap()).unwrap();
        let default_time = Timestamp::from_nanos(case["default_time"].as_i64().unwrap());
        let points: Result<Vec<_>, _> = Parser::new(text, precision, default_time).collect();
        match points {
            Ok(points) => {
                let points: Value = points.iter().map(describe).collect();
                assert_eq!(points, sorted(&case["points"]), "{case}");
            }
            Err(error) => assert_eq!(case["error"], true, "{case}: {error}"),
        }
    }
}

/// The points of a case with the tags of each sorted.
fn sorted(points: &Value) -> Value {
    let mut points = points.clone();
    for point in points.as_array_mut().unwrap() {
        point["tags"].as_array_mut().unwrap().sort_by_key(Value::to_string);
    }
    points
}

/// A point in the words of the corpus, tags sorted, floats that are whole as integers.
fn describe(point: &Point<'_>) -> Value {
    let fields: Vec<Value> =
        point.fields.iter().map(|(key, value)| json!([key, describe_value(value)])).collect();
    let mut tags: Vec<Value> = point.tags.iter().map(|tag| json!(tag)).collect();
    tags.sort_by_key(Value::to_string);
    json!({ "name": point.measurement, "tags": tags, "fields": fields, "time": point.time.nanos() })
}

fn describe_value(value: &FieldValue<'_>) -> Value {
    match value {
        FieldValue::Float(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
            json!({ "float": *value as i64 })
        }
        FieldValue::Float(value) => json!({ "float": value }),
        FieldValue::Int(value) => json!({ "int": value }),
        FieldValue::UInt(value) => json!({ "uint": value }),
        FieldValue::Bool(value) => json!({ "bool": value }),
        FieldValue::String(value) => json!({ "string": value }),
    }
}
