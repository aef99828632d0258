//! Any edits are kept or refused whole, also through a power cut; any bytes are read or refused, and what is read can
//! be written anew.
#![no_main]

use icecore::fuzz::manifest::{decode, edits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0..128, bytes)) => decode(bytes),
        Some((_, bytes)) => edits(bytes),
        None => {}
    }
});
