//! Any page of OpenMetrics: what the strict parser takes, the lenient one takes with the same samples, and a
//! page that we write of it has the same samples again.
#![no_main]

use icecore::protocol::exposition::{Entry, Format, Lines, Names, Sample, parse_openmetrics, write_page};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    let lenient = samples_of(page);
    let Ok(families) = parse_openmetrics(page) else { return };
    let mut strict: Vec<String> = families.iter().flat_map(|f| &f.samples).map(text_of).collect();
    assert_eq!(lenient, strict);
    let mut written = String::new();
    write_page(&families, Format::OpenMetrics, Names::Utf8, &mut written);
    let again = parse_openmetrics(written.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{written}"));
    let mut again: Vec<String> = again.iter().flat_map(|f| &f.samples).map(text_of).collect();
    again.sort();
    strict.sort();
    assert_eq!(again, strict, "{written}");
});

fn samples_of(page: &[u8]) -> Vec<String> {
    Lines::new(page, Format::OpenMetrics)
        .filter_map(|entry| match entry {
            Ok(Entry::Sample(sample)) => Some(text_of(&sample)),
            _ => None,
        })
        .collect()
}

/// A sample as text, in which NaN equals NaN; tags that are empty are none.
fn text_of(sample: &Sample<'_>) -> String {
    let mut sample = sample.clone();
    sample.tags.retain(|(_, value)| !value.is_empty());
    if let Some(exemplar) = &mut sample.exemplar {
        exemplar.tags.retain(|(_, value)| !value.is_empty());
    }
    format!("{sample:?}")
}
