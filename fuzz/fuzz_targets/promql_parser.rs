//! Any text as a query: no panic and no runaway, and what parses is printed, in one line and laid out, as something that
//! parses to the same.
#![no_main]

use icecore::Timestamp;
use icecore::promql::{self, Options, RangeTimes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let selector = promql::parse_selector(&text);
    let Ok(expr) = promql::parse(&text) else { return };
    let is_selector =
        matches!(&expr, promql::Expr::Vector(v) if v.shift.offset.is_none() && v.shift.at.is_none());
    assert_eq!(selector.is_ok(), is_selector, "{text:?}");
    let line = expr.to_string();
    for printed in [&line, &promql::pretty(&expr)] {
        let again =
            promql::parse(printed).unwrap_or_else(|error| panic!("{text:?} became {printed:?}: {error}"));
        assert_eq!(again.to_string(), line, "{text:?} became {printed:?}");
    }
    let _ = promql::tree_json(&expr);
    let (start, end) = (Timestamp::from_secs(1_000), Timestamp::from_secs(2_000));
    let _ = promql::explain(&expr, RangeTimes { start, end, step: 60_000_000_000 }, &Options::default());
});
