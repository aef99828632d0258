//! A good block with some of its bytes changed: it is refused, or read with the damage found, and one changed
//! byte is always found. The same input, taken as the bytes behind a checksum, is decoded or refused.
#![no_main]

use std::sync::LazyLock;

use icecore::bench::block::{damage_of, decode_anything, write_block};
use icecore::{BytesColumn, Column, ErrorKind, SeriesKey};
use libfuzzer_sys::fuzz_target;

static GOOD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("icecore-fuzz-block-{}", std::process::id()));
    let key = |host: usize| SeriesKey::new("m", [("host", format!("h{host}")), ("rack", "r".into())]).unwrap();
    let series = (0..6).map(|host| {
        let times: Vec<i64> = (0..40).map(|n| n * 1000 + (n * n) % 7).collect();
        let number = |n: i64| (n * n) % (10 + host as i64);
        let values = match host % 3 {
            0 => Column::F64(times.iter().map(|n| number(*n) as f64 / 10.0).collect()),
            1 => Column::I64(times.iter().map(|n| number(*n)).collect()),
            _ => Column::Bytes(times.iter().fold(BytesColumn::default(), |mut column, n| {
                column.push(number(*n).to_string().as_bytes());
                column
            })),
        };
        (key(host), times, values)
    });
    write_block(&path, series, false).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
});

fuzz_target!(|input: &[u8]| {
    decode_anything(input);
    let mut bytes = GOOD.clone();
    for edit in input.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] ^= edit[2];
    }
    let changed = bytes.iter().zip(GOOD.iter()).filter(|(a, b)| a != b).count();
    match damage_of(&bytes) {
        Ok(damage) if changed < 2 => assert_eq!(damage > 0, changed == 1),
        Ok(_) => {}
        Err(error) => assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::UnsupportedVersion)),
    }
});
