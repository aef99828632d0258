//! Any selector over any series finds what a filter finds; any bytes beside sound symbols are read or refused.
#![no_main]

use icecore::fuzz::index::{decode, select};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0..128, bytes)) => decode(bytes),
        Some((_, bytes)) => select(bytes),
        None => {}
    }
});
