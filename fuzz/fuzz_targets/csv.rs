//! Any CSV file under several mappings: rows and errors come in the order of their lines, and what a row promises
//! holds; its tags, packed and read again, are the same.
#![no_main]

use icecore::protocol::csv::{Mapping, Row, Rows, TimeUnit};
use libfuzzer_sys::fuzz_target;

fn mappings() -> [Mapping; 3] {
    let own = Mapping::default();
    let wide = Mapping {
        time: "t".to_owned(),
        time_unit: TimeUnit::Rfc3339,
        name: None,
        packed_tags: None,
        tags: vec!["k".to_owned()],
        values: vec!["a".to_owned(), "b".to_owned()],
        prefix: "p_".to_owned(),
        delimiter: b';',
        ..Mapping::default()
    };
    [Mapping { time_unit: TimeUnit::Seconds, ..own.clone() }, own, wide]
}

const HEADERS: [&str; 3] = ["series,tags,timestamp_ms,value", "series,tags,timestamp_ms,value", "t;k;a;b"];

fuzz_target!(|input: &[u8]| {
    for (mapping, header) in mappings().into_iter().zip(HEADERS) {
        let value_count = mapping.values.len();
        if let Ok(mut rows) = Rows::new(input, mapping.clone()) {
            read(&mut rows, value_count);
        }
        let file = [header.as_bytes(), b"\n", input].concat();
        read(&mut Rows::new(&file[..], mapping).unwrap(), value_count);
    }
});

fn read(rows: &mut Rows<&[u8]>, value_count: usize) {
    let mut last_line = 0;
    while let Some(row) = rows.next_row().unwrap() {
        let line = match row {
            Ok(row) => {
                check(row, value_count);
                row.line
            }
            Err(error) => {
                assert!(!error.reason.is_empty());
                error.line
            }
        };
        // A lone carriage return ends a row, not a line.
        assert!(line >= last_line, "line {line} after {last_line}");
        last_line = line;
    }
}

fn check(row: Row<'_>, value_count: usize) {
    assert!(row.tags().all(|(_, value)| !value.is_empty()));
    for (column, _) in row.samples() {
        assert!(column < value_count);
        assert!(!row.metric_name(column).is_empty());
    }
}
