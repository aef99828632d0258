//! Any bytes as a remote write request of 1.0 and of 2.0: tags are sorted, unique and not empty, samples are as many
//! as counted, equal label bytes are equal labels, and expecting the labels of another series changes no answer.
#![no_main]

use std::collections::HashMap;

use icecore::protocol::remote_write::{Entry, Labels, Limits, TimeSeries, Version, WriteRequest};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    for version in [Version::V1, Version::V2] {
        let regions = check(version, body);
        if version == Version::V1 {
            for region in regions {
                assert_eq!(shown(body, &region), shown(body, &[]));
            }
        }
    }
});

/// Checks what is read; the label bytes that may be expected.
fn check(version: Version, body: &[u8]) -> Vec<Vec<u8>> {
    let mut regions = Vec::new();
    let Ok(mut request) = WriteRequest::new(version, body, Limits::default()) else { return regions };
    let mut by_bytes: HashMap<Vec<u8>, String> = HashMap::new();
    let mut labels = Labels::default();
    while let Ok(Some(entry)) = request.next() {
        let Entry::Series(series) = entry else { continue };
        if series.labels_first() && !series.label_bytes().is_empty() && regions.len() < 8 {
            regions.push(series.label_bytes().to_vec());
        }
        let mut samples = Vec::new();
        if series.samples(&mut samples).is_ok() {
            assert_eq!(samples.len(), series.sample_count);
        }
        let read = request.labels(&series, &mut labels);
        if read.is_ok() {
            assert!(!labels.name.is_empty());
            assert!(labels.tags.is_sorted_by(|a, b| a.0 < b.0));
            assert!(labels.tags.iter().all(|(_, value)| !value.is_empty()));
            let _ = request.metadata(&series, labels.name);
        }
        let text = format!("{:?} {labels:?}", read.is_ok());
        if read.is_ok() {
            let known = by_bytes.entry(series.label_bytes().to_vec()).or_insert_with(|| text.clone());
            assert_eq!(*known, text);
        }
    }
    regions
}

/// What a reader tells who expects `expected`.
fn shown(body: &[u8], expected: &[u8]) -> Vec<String> {
    let mut request = WriteRequest::new(Version::V1, body, Limits::default()).unwrap();
    let mut shown = Vec::new();
    loop {
        match request.next_expecting(expected) {
            Ok(Some(Entry::Series(series))) => shown.push(text_of(&series)),
            Ok(Some(entry)) => shown.push(format!("{entry:?}")),
            Ok(None) => return shown,
            Err(error) => {
                shown.push(error.to_string());
                return shown;
            }
        }
    }
}

fn text_of(series: &TimeSeries<'_>) -> String {
    let mut samples = Vec::new();
    let read = series.samples(&mut samples).map_err(|error| error.to_string());
    let counts = (series.sample_count, series.histogram_count, series.exemplar_count);
    format!("{:?} {} {counts:?} {read:?} {samples:?}", series.label_bytes(), series.labels_first())
}
