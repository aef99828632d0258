//! Any bytes as an OTLP export request, the first byte choosing protobuf or JSON: tags are sorted, unique and not empty,
//! as many points are taken as the sink took, and the answer and the refusals are written.
#![no_main]

use icecore::protocol::otlp::{Form, Point, Sink, decode, encode_answer, encode_status};
use icecore::{Error, Metadata, Result, Timestamp};
use libfuzzer_sys::fuzz_target;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else { return };
    let form = if first % 2 == 0 { Form::Protobuf } else { Form::Json };
    let mut all = Checked { refused: 0, every: u64::MAX, seen: 0 };
    let outcome = decode(form, body, NOW, &mut all);
    // A sink that refuses every third point: each is counted, and the others are still taken.
    let mut some = Checked { refused: 0, every: 3, seen: 0 };
    let other = decode(form, body, NOW, &mut some);
    match (outcome, other) {
        (Ok(outcome), Ok(other)) => {
            assert_eq!(outcome.accepted + outcome.rejected, other.accepted + other.rejected);
            assert!(other.rejected >= outcome.rejected && other.rejected <= outcome.rejected + some.refused);
            assert_eq!(outcome.rejected > 0, !outcome.reason.is_empty());
            encode_answer(form, &other);
        }
        (Err(error), Err(_)) => _ = encode_status(form, 3, &error.to_string()),
        (one, other) => panic!("{one:?} and {other:?}"),
    }
});

struct Checked {
    refused: u64,
    every: u64,
    seen: u64,
}

impl Sink for Checked {
    fn point(&mut self, point: Point<'_>) -> Result<()> {
        assert!(point.tags.is_sorted_by(|a, b| a.0 < b.0), "{:?}", point.tags);
        assert!(point.tags.iter().all(|(_, value)| !value.is_empty()));
        self.seen += 1;
        if self.seen % self.every == 0 {
            self.refused += 1;
            return Err(Error::invalid_input("every third"));
        }
        Ok(())
    }

    fn metadata(&mut self, _: &str, _: Metadata) {}
}
