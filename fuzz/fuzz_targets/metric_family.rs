//! Any bytes as delimited metric families: what is read can be written as a page of either format, which has as many
//! samples when it is read again.
#![no_main]

use icecore::protocol::exposition::{Entry, Format, Lines, Names, merge_families, write_page};
use icecore::protocol::metric_family::decode_families;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(families) = decode_families(body) else { return };
    assert!(families.iter().all(|family| !family.name.is_empty() && !family.samples.is_empty()));
    let count: usize = families.iter().map(|family| family.samples.len()).sum();
    for format in [Format::Text, Format::OpenMetrics] {
        let mut page = String::new();
        write_page(&families, format, Names::Utf8, &mut page);
        let entries: Vec<_> = Lines::new(page.as_bytes(), format).collect();
        let samples = entries.iter().filter(|entry| matches!(entry, Ok(Entry::Sample(_)))).count();
        assert_eq!(samples, count, "{page}\n{entries:?}");
    }
    let merged = merge_families(families);
    assert_eq!(merged.iter().map(|family| family.samples.len()).sum::<usize>(), count);
});
