//! Any bytes as a compressed body, the first byte choosing how: never more than the limit comes out, and never more is
//! allocated than was asked for before.
#![no_main]

use icecore::protocol::body::{Encoding, decode_reserving};
use libfuzzer_sys::fuzz_target;

const SIZE_MAX: usize = 1 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let encodings = [Encoding::Gzip, Encoding::Deflate, Encoding::Snappy, Encoding::Identity];
    let encoding = encodings[usize::from(first % 4)];
    let mut reserved = 0;
    let plain = decode_reserving(encoding, body, SIZE_MAX, &mut |size| {
        reserved += size;
        Ok(())
    });
    assert!(reserved <= 2 * SIZE_MAX + 64, "{reserved}");
    if let Ok(plain) = plain {
        assert!(plain.len() <= SIZE_MAX);
        assert!(encoding == Encoding::Identity || plain.len() <= reserved);
    }
});
