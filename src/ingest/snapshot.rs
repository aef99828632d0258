//! What a registry looks like at one moment: families with their samples, as they are exposed and stored.

use crate::model::Metadata;

/// One value of a family at the moment of the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct FamilySample {
    /// The series' name: the family's with `_total`, `_count`, `_sum` or `_bucket` where it belongs.
    pub name: String,
    /// The tags, in the order of the family's label names, then `le`.
    pub tags: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// A metric with all its samples at the moment of the snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricFamily {
    /// Its name, without suffixes.
    pub name: String,
    /// Its type, unit and help.
    pub metadata: Metadata,
    /// The samples, ordered by label values, then as the exposition formats order them.
    pub samples: Vec<FamilySample>,
}
