//! Pages of samples: the parser cases of prometheus/OpenMetrics (see `tests/openmetrics/README.md`), and
//! what is written must be read again.

use icecore::protocol::exposition::{
    Entry, Family, Format, Lines, Names, parse_openmetrics, parse_text, write_page,
};
use serde_json::Value;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("../openmetrics/cases.json")).unwrap()
}

#[test]
fn openmetrics_parser_cases_hold() {
    let cases = cases();
    assert_eq!(cases.len(), 211);
    for case in cases {
        let parsed = parse_openmetrics(case["text"].as_str().unwrap().as_bytes());
        assert_eq!(parsed.is_ok(), case["valid"] == true, "{case}: {parsed:?}");
    }
}

#[test]
fn valid_openmetrics_pages_survive_writing() {
    for case in cases().into_iter().filter(|case| case["valid"] == true) {
        let families = parse_openmetrics(case["text"].as_str().unwrap().as_bytes()).unwrap();
        let page = written(&families, Format::OpenMetrics);
        let again =
            parse_openmetrics(page.as_bytes()).unwrap_or_else(|error| panic!("{case}: {error}\n{page}"));
        assert_eq!(shape(&again), shape(&families), "{case}\n{page}");
        let text = written(&families, Format::Text);
        let again = parse_text(text.as_bytes()).unwrap_or_else(|error| panic!("{case}: {error}\n{text}"));
        let count = |families: &[Family<'_>]| families.iter().map(|f| f.samples.len()).sum::<usize>();
        assert_eq!(count(&again), count(&families), "{case}\n{text}");
    }
}

#[test]
fn lines_find_every_sample_of_a_valid_page() {
    for case in cases().into_iter().filter(|case| case["valid"] == true) {
        let page = case["text"].as_str().unwrap().as_bytes();
        let families = parse_openmetrics(page).unwrap();
        let expected: Vec<_> = families.iter().flat_map(|family| family.samples.clone()).collect();
        let entries = Lines::new(page, Format::OpenMetrics);
        let found: Vec<_> = entries
            .filter_map(|entry| match entry.unwrap() {
                Entry::Sample(sample) => Some(sample),
                _ => None,
            })
            .collect();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{case}");
    }
}

fn written(families: &[Family<'_>], format: Format) -> String {
    let mut page = String::new();
    write_page(families, format, Names::Utf8, &mut page);
    page
}

/// Families with their samples in an order of ours, empty tags left out, as text in which NaN equals NaN.
fn shape(families: &[Family<'_>]) -> Vec<(String, Vec<String>)> {
    let sample_text = |sample: &icecore::protocol::exposition::Sample<'_>| {
        let mut sample = sample.clone();
        sample.tags.retain(|(_, value)| !value.is_empty());
        format!("{sample:?}")
    };
    let family_shape = |family: &Family<'_>| {
        let mut samples: Vec<String> = family.samples.iter().map(sample_text).collect();
        samples.sort();
        (format!("{} {:?}", family.name, family.metadata()), samples)
    };
    families.iter().map(family_shape).collect()
}
