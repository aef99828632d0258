//! Any values come back from a page bit for bit; any bytes are decoded as a column, or refused.
#![no_main]

use icecore::fuzz::codec::{decode, round_trip};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0..128, bytes)) => decode(bytes),
        Some((_, bytes)) => round_trip(bytes),
        None => {}
    }
});
