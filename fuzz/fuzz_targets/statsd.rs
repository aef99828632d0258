//! Any datagram: each line that is not empty gives one message or one refusal, in both grammars, and what a
//! message promises holds: values that read, tags with keys and values, a rate that weighs something finite.
#![no_main]

use icecore::protocol::statsd::{Message, Metric, MetricType, Options, TagStyles, parse_datagram};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|datagram: &[u8]| {
    let all_styles = Options { styles: TagStyles::ALL, ..Options::default() };
    for options in [Options::default(), all_styles, Options::statsd_exporter()] {
        let lines = datagram.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let messages: Vec<_> = parse_datagram(datagram, &options).collect();
        assert_eq!(messages.len(), lines.filter(|line| !line.is_empty()).count());
        for message in messages.iter().flatten() {
            match message {
                Message::Metric(metric) => check_metric(metric),
                Message::Event(event) => assert!(!event.title.is_empty()),
                Message::ServiceCheck(check) => assert!(!check.name.is_empty()),
            }
        }
    }
});

fn check_metric(metric: &Metric<'_>) {
    assert!(!metric.name.is_empty());
    assert!(metric.sample_rate > 0.0 && metric.sample_rate <= 1.0 && metric.sample_rate.recip().is_finite());
    let is_set = metric.metric_type == MetricType::Set;
    assert_eq!(is_set, metric.set_member().is_some());
    assert_eq!(is_set, metric.readings().next().is_none());
    assert_eq!(metric.readings().count(), metric.base_values().count());
    assert!(metric.tags.pairs().all(|(key, value)| !key.is_empty() && !value.is_empty()));
}
