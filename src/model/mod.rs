//! Words of the domain: time, values, tags, series keys, matchers. Nothing here can fail late.

mod matcher;
mod metadata;
mod series;
mod time;
mod value;

pub use matcher::{Match, Matcher, NAME_KEY, Regex, Selector};
pub use metadata::{Metadata, MetricKind};
pub(crate) use series::encode_key;
pub use series::{
    NAME_SIZE_MAX, SERIES_KEY_SIZE_MAX, SeriesKey, TAG_COUNT_MAX, TAG_KEY_SIZE_MAX, TAG_VALUE_SIZE_MAX,
};
pub use time::{TimeRange, Timestamp};
pub(crate) use value::sealed;
pub use value::{BytesColumn, Column, STALE_NAN_BITS, SampleValue, Value, ValueRef, ValueType, is_stale};
