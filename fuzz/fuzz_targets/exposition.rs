//! Any page of text: what the strict parser takes, the lenient one takes with the same samples, and it comes
//! back the same from a page that we write of it, in either format.
#![no_main]

use icecore::protocol::exposition::{
    Entry, Family, Format, Lines, Names, Sample, merge_families, parse_text, write_page,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    let lenient: Vec<String> = samples_of(page, Format::Text);
    let Ok(families) = parse_text(page) else { return };
    let mut strict: Vec<String> = families.iter().flat_map(|f| &f.samples).map(text_of).collect();
    assert_eq!(sorted(lenient), sorted(strict.clone()));
    strict.sort();
    for format in [Format::Text, Format::OpenMetrics] {
        let written = write(&families, format);
        let mut again = samples_of(written.as_bytes(), format);
        if format == Format::OpenMetrics {
            // Its times are exact to the nanosecond, so nothing changes there either.
            assert!(written.ends_with("# EOF\n"));
        }
        again.sort();
        assert_eq!(again, strict, "{written}");
    }
    let written = write(&families, Format::Text);
    let again = parse_text(written.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{written}"));
    let count = |families: &[Family<'_>]| families.iter().map(|f| f.samples.len()).sum::<usize>();
    assert_eq!(count(&merge_families(again)), count(&families));
});

fn write(families: &[Family<'_>], format: Format) -> String {
    let mut page = String::new();
    write_page(families, format, Names::Utf8, &mut page);
    page
}

fn samples_of(page: &[u8], format: Format) -> Vec<String> {
    Lines::new(page, format)
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

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
