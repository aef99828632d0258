//! What is known of a metric beside its samples: its kind, unit and help.

/// What the values of a metric mean. Written on disk; numbers are never used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum MetricKind {
    /// Not said.
    #[default]
    Unknown = 0,
    /// Goes up only; starts again at 0 when its process does.
    Counter = 1,
    /// Goes up and down.
    Gauge = 2,
    /// Count and sum of observations, often with quantiles.
    Summary = 3,
    /// Observations counted in buckets, with count and sum.
    Histogram = 4,
    /// A histogram whose counts go up and down.
    GaugeHistogram = 5,
    /// Always 1; its tags are what it says.
    Info = 6,
    /// One series of 0 or 1 for each state.
    StateSet = 7,
}

impl MetricKind {
    /// The kind with this number on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => MetricKind::Unknown,
            1 => MetricKind::Counter,
            2 => MetricKind::Gauge,
            3 => MetricKind::Summary,
            4 => MetricKind::Histogram,
            5 => MetricKind::GaugeHistogram,
            6 => MetricKind::Info,
            7 => MetricKind::StateSet,
            _ => return None,
        })
    }

    /// The word of OpenMetrics and of the Prometheus API.
    pub fn name(self) -> &'static str {
        match self {
            MetricKind::Unknown => "unknown",
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Summary => "summary",
            MetricKind::Histogram => "histogram",
            MetricKind::GaugeHistogram => "gaugehistogram",
            MetricKind::Info => "info",
            MetricKind::StateSet => "stateset",
        }
    }

    /// The kind that `name` is the word of; `untyped` is the older word for unknown.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "untyped" {
            return Some(MetricKind::Unknown);
        }
        (0..=7).filter_map(MetricKind::from_number).find(|kind| kind.name() == name)
    }
}

/// Kind, unit and help of one metric name. Empty strings: not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// What the values mean.
    pub kind: MetricKind,
    /// The base unit: `seconds`, `By`, `1`.
    pub unit: String,
    /// One sentence for people.
    pub help: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_round_trip_by_number_and_by_name() {
        for number in 0..8 {
            let kind = MetricKind::from_number(number).unwrap();
            assert_eq!(kind as u8, number);
            assert_eq!(MetricKind::from_name(kind.name()), Some(kind));
        }
        assert_eq!(MetricKind::from_number(8), None);
        assert_eq!(MetricKind::from_name("untyped"), Some(MetricKind::Unknown));
        assert_eq!(MetricKind::from_name("timer"), None);
    }
}
