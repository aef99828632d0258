//! Any text of the line protocol, in any precision: points and errors come in the order of their lines, and
//! what a point promises holds.
#![no_main]

use std::collections::HashSet;

use icecore::Timestamp;
use icecore::protocol::line::{FieldValue, Parser, Point, Precision};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let line_count = text.split(|b| *b == b'\n').count();
    for precision in [Precision::Nanoseconds, Precision::Seconds, Precision::Hours, Precision::Auto] {
        let mut last_line = 0;
        let mut item_count = 0;
        for point in Parser::new(text, precision, Timestamp::from_nanos(-1)) {
            item_count += 1;
            match point {
                Ok(point) => check_point(point),
                Err(error) => {
                    assert!(error.line > last_line && error.line <= line_count, "{error}");
                    assert!(error.column >= 1 && error.column <= text.len() + 1, "{error}");
                    last_line = error.line;
                }
            }
        }
        assert!(item_count <= line_count);
    }
});

fn check_point(mut point: Point<'_>) {
    assert!(!point.measurement.is_empty() && !point.fields.is_empty());
    let keys: HashSet<_> = point.tags.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys.len(), point.tags.len());
    assert!(point.tags.iter().all(|(key, value)| !key.is_empty() && !value.is_empty()));
    assert!(point.fields.iter().all(|(key, _)| !key.is_empty()));
    assert!(point.fields.iter().all(|(_, v)| !matches!(v, FieldValue::Float(v) if !v.is_finite())));
    assert_eq!(point.samples().count(), point.fields.len());
    assert!(point.samples().all(|(name, _)| name.starts_with(point.measurement.as_ref())));
    point.set_default_tag("db", "x");
    assert!(point.tags.iter().any(|(key, _)| key == "db"));
}
