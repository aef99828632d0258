//! How a point becomes samples: one series for each field.

use std::borrow::Cow;

use super::{FieldValue, Point};
use crate::model::ValueRef;

/// A field of this name gives a series named after the measurement alone.
const VALUE_FIELD: &str = "value";

/// The name of the series of one field: `measurement_field`, or `measurement` for the field `value`.
///
/// ```
/// use icecore::protocol::line::series_name;
/// assert_eq!(series_name("cpu", "load"), "cpu_load");
/// assert_eq!(series_name("temperature", "value"), "temperature");
/// ```
pub fn series_name<'a>(measurement: &'a str, field: &str) -> Cow<'a, str> {
    if field == VALUE_FIELD {
        Cow::Borrowed(measurement)
    } else {
        Cow::Owned(format!("{measurement}_{field}"))
    }
}

impl FieldValue<'_> {
    /// The value as a series holds it: integers as i64 where they fit, else as f64; booleans as 0 and 1;
    /// strings as bytes, which are events.
    pub fn as_value_ref(&self) -> ValueRef<'_> {
        match self {
            FieldValue::Float(value) => ValueRef::F64(*value),
            FieldValue::Int(value) => ValueRef::I64(*value),
            FieldValue::UInt(value) => match i64::try_from(*value) {
                Ok(value) => ValueRef::I64(value),
                Err(_) => ValueRef::F64(*value as f64),
            },
            FieldValue::Bool(value) => ValueRef::I64(i64::from(*value)),
            FieldValue::String(text) => ValueRef::Bytes(text.as_bytes()),
        }
    }
}

impl Point<'_> {
    /// The samples of the point: for each field in order the name of its series and its value, all at
    /// [`Point::time`] and with the tags of the point.
    pub fn samples(&self) -> impl Iterator<Item = (Cow<'_, str>, ValueRef<'_>)> {
        self.fields.iter().map(|(field, value)| (series_name(&self.measurement, field), value.as_value_ref()))
    }

    /// Adds tag `key` with `value`, the database or bucket of a request, unless the line has a tag of that
    /// key itself or `value` is empty.
    pub fn set_default_tag(&mut self, key: &'static str, value: &str) {
        if !value.is_empty() && self.tags.iter().all(|(own, _)| own != key) {
            self.tags.push((Cow::Borrowed(key), Cow::Owned(value.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Parser, Precision};
    use super::*;
    use crate::model::Timestamp;

    fn point(text: &str) -> Point<'_> {
        Parser::new(text.as_bytes(), Precision::Nanoseconds, Timestamp::from_nanos(0))
            .next()
            .unwrap()
            .unwrap()
    }

    #[test]
    fn each_field_is_a_series() {
        let point = point("m,t=x value=1.5,n=3i,big=18446744073709551615u,small=1u,on=t,text=\"hi\" 9");
        let samples: Vec<_> = point.samples().map(|(name, value)| (name.into_owned(), value)).collect();
        let expected = [
            ("m", ValueRef::F64(1.5)),
            ("m_n", ValueRef::I64(3)),
            ("m_big", ValueRef::F64(18_446_744_073_709_551_615.0)),
            ("m_small", ValueRef::I64(1)),
            ("m_on", ValueRef::I64(1)),
            ("m_text", ValueRef::Bytes(b"hi")),
        ];
        assert_eq!(samples, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn a_default_tag_yields_to_the_line() {
        let mut point = point("m,db=own v=1");
        point.set_default_tag("db", "given");
        point.set_default_tag("bucket", "b");
        point.set_default_tag("empty", "");
        assert_eq!(point.tags, [("db".into(), "own".into()), ("bucket".into(), "b".into())]);
    }
}
