//! Any bytes as payloads of the log: what is accepted, written again, is read as the same. Any sequence of sound frames
//! and damage as segments: what counts is a chain, lies there byte for byte, and still counts when it was copied.
#![no_main]

use icecore::fuzz::log::{payload, segments};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    match input.split_first() {
        Some((0..64, bytes)) => payload(bytes),
        Some((_, bytes)) => segments(bytes),
        None => {}
    }
});
