//! Bodies of `time-series/aggregate` and `time-series/data`: points of series, read element by element.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{PROJECT_KEY, time};
use crate::error::{Error, Result};
use crate::model::Timestamp;
use crate::protocol::label::export_reserved;

/// Nanoseconds below the microseconds in which the client stamps.
const BELOW_MICRO: i64 = 1000;

/// The points of one series.
#[derive(Debug, PartialEq)]
pub(in crate::server) struct Element {
    /// The metric, any string.
    pub(in crate::server) metric: String,
    /// The labels of the series, without the project; a label `project` is renamed.
    pub(in crate::server) labels: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// Times and values, sorted by time. Points of one microsecond differ in the nanoseconds, in the order sent.
    pub(in crate::server) points: Vec<(Timestamp, f64)>,
}

/// Reads a body, which is an array of elements or one element, and hands each to `take`. No more than one element is
/// held at a time, and its points take 16 bytes each.
///
/// # Errors
/// `InvalidInput` when it is no such body, naming the element and field; what `take` has got is to be dropped then.
/// Also what `take` refuses.
pub(in crate::server) fn read_data(body: &[u8], take: &mut dyn FnMut(Element) -> Result<()>) -> Result<()> {
    let mut refused = None;
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let reader = BodyReader { take, refused: &mut refused };
    let read = reader.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (refused, read) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(Error::invalid_input(format!("Invalid request body: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}

struct BodyReader<'t> {
    take: &'t mut dyn FnMut(Element) -> Result<()>,
    refused: &'t mut Option<Error>,
}

impl BodyReader<'_> {
    fn take<E: de::Error>(&mut self, index: usize, element: RawElement<'_>) -> std::result::Result<(), E> {
        let taken = element.into_element().and_then(|element| (self.take)(element));
        taken.map_err(|error| {
            *self.refused = Some(error.context(format!("element {index}")));
            E::custom("refused")
        })
    }
}

impl<'de> DeserializeSeed<'de> for BodyReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for BodyReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with metric, labels and data, or an array of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> std::result::Result<(), A::Error> {
        let mut index = 0;
        while let Some(element) = elements.next_element::<RawElement<'de>>()? {
            self.take(index, element)?;
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> std::result::Result<(), A::Error> {
        let element = RawElement::deserialize(de::value::MapAccessDeserializer::new(map))?;
        self.take(0, element)
    }
}

#[derive(Deserialize)]
struct RawElement<'a> {
    #[serde(borrow)]
    metric: Option<Cow<'a, str>>,
    labels: Option<BTreeMap<String, Label>>,
    data: Option<Points>,
}

impl RawElement<'_> {
    fn into_element(self) -> Result<Element> {
        let metric = self.metric.filter(|name| !name.is_empty()).ok_or_else(|| missing("metric"))?;
        let Points(mut points) = self.data.ok_or_else(|| missing("data"))?;
        spread(&mut points);
        let labels = self.labels.unwrap_or_default().into_iter();
        let mut labels: Vec<_> =
            labels.map(|(key, Label(value))| (Cow::Owned(key), Cow::Owned(value))).collect();
        export_reserved(&mut labels, &[PROJECT_KEY]);
        Ok(Element { metric: metric.into_owned(), labels, points })
    }
}

/// Sorts by time, and gives points of equal time the nanoseconds behind it, so that none replaces another.
fn spread(points: &mut [(Timestamp, f64)]) {
    points.sort_by_key(|(time, _)| *time);
    let mut same = (Timestamp::MIN, 0);
    for (time, _) in points {
        same = if *time == same.0 { (same.0, (same.1 + 1) % BELOW_MICRO) } else { (*time, 0) };
        *time = time.saturating_add(same.1);
    }
}

#[cold]
fn missing(field: &str) -> Error {
    Error::invalid_input(format!("{field} is missing"))
}

/// The value of a label: text, or a number or truth value as text.
struct Label(String);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Label(text)),
            serde_json::Value::Null => Ok(Label(String::new())),
            value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => {
                Ok(Label(value.to_string()))
            }
            _ => Err(de::Error::custom("the value of a label is a string")),
        }
    }
}

/// The array `data`, each object of it turned into a point as it is read.
struct Points(Vec<(Timestamp, f64)>);

impl<'de> Deserialize<'de> for Points {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct PointsVisitor;
        impl<'de> Visitor<'de> for PointsVisitor {
            type Value = Points;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects with date and value")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut objects: A) -> std::result::Result<Points, A::Error> {
                let mut points = Vec::new();
                while let Some(Point(time, value)) = objects.next_element()? {
                    points.push((time, value));
                }
                Ok(Points(points))
            }
        }
        deserializer.deserialize_seq(PointsVisitor)
    }
}

struct Point(Timestamp, f64);

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct PointVisitor;
        impl<'de> Visitor<'de> for PointVisitor {
            type Value = Point;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with date and value")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Point, A::Error> {
                let (mut date, mut value) = (None, None);
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match key.as_ref() {
                        "date" => {
                            let text = map.next_value::<Cow<'de, str>>()?;
                            date = Some(time(&text).map_err(de::Error::custom)?);
                        }
                        "value" => value = Some(map.next_value::<f64>()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                let date = date.ok_or_else(|| de::Error::missing_field("date"))?;
                Ok(Point(date, value.ok_or_else(|| de::Error::missing_field("value"))?))
            }
        }
        deserializer.deserialize_map(PointVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Vec<Element>> {
        let mut elements = Vec::new();
        read_data(body.as_bytes(), &mut |element| {
            elements.push(element);
            Ok(())
        })?;
        Ok(elements)
    }

    #[track_caller]
    fn refused(body: &str, reason: &str) {
        let error = read(body).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn what_the_client_sends_is_read() {
        let body = r#"[{"metric": "custom.metric", "labels": {"test": "\u00e9"}, "data": [
            {"date": "2026-11-20T23:52:16.476709+00:00", "value": 1.0},
            {"date": "2026-11-20T23:52:16+00:00", "value": -0.0},
            {"date": "2026-11-21T00:52:17.5+01:00", "value": 5e-324}]},
            {"metric": "b", "labels": {}, "data": []}]"#;
        let elements = read(body).unwrap();
        assert_eq!(elements[0].metric, "custom.metric");
        assert_eq!(elements[0].labels, [("test".into(), "é".into())]);
        let second = 1_795_218_736_000_000_000;
        let points: Vec<_> =
            elements[0].points.iter().map(|(time, value)| (time.nanos() - second, *value)).collect();
        assert_eq!(points, [(0, 0.0), (476_709_000, 1.0), (1_500_000_000, 5e-324)]);
        assert!(points[0].1.is_sign_negative());
        assert_eq!((elements.len(), elements[1].points.len()), (2, 0));
    }

    #[test]
    fn one_object_is_a_body_too() {
        let body =
            r#"{"data":[{"value":5,"date":"2026-11-20T23:52:16Z","more":[1]}],"metric":"m","other":{}}"#;
        assert_eq!(read(body).unwrap()[0].points[0].1, 5.0);
    }

    #[test]
    fn points_of_one_microsecond_are_all_kept_in_order() {
        let point = |value: u32| format!(r#"{{"date":"2026-11-20T23:52:16.000001Z","value":{value}}}"#);
        let points: Vec<String> = (0..100).map(point).collect();
        let elements = read(&format!(r#"[{{"metric":"m","data":[{}]}}]"#, points.join(","))).unwrap();
        let nanos = |index: usize| elements[0].points[index].0.nanos() % 1_000_000;
        assert_eq!((nanos(0), nanos(1), nanos(99)), (1_000, 1_001, 1_099));
        assert!(elements[0].points.iter().enumerate().all(|(index, (_, value))| *value == index as f64));
    }

    #[test]
    fn a_label_called_project_is_exported_and_odd_ones_are_text() {
        let body = r#"[{"metric":"m","labels":{"project":"p","n":5,"b":true,"e":null},"data":[]}]"#;
        let labels = read(body).unwrap().remove(0).labels;
        let shown: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown, ["b=true", "e=", "n=5", "exported_project=p"]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        refused(r#"[{"labels":{},"data":[]}]"#, "element 0: metric is missing");
        refused(r#"[{"metric":"m","data":[]},{"metric":"","data":[]}]"#, "element 1: metric is missing");
        refused(r#"[{"metric":"m"}]"#, "data is missing");
        refused(r#"[{"metric":"m","data":[{"value":1}]}]"#, "missing field `date`");
        refused(r#"[{"metric":"m","data":[{"date":"2026-11-20T23:52:16Z"}]}]"#, "missing field `value`");
        refused(
            r#"[{"metric":"m","data":[{"date":"yesterday","value":1}]}]"#,
            "date \"yesterday\" is no time",
        );
        refused(
            r#"[{"metric":"m","data":[{"date":"2026-11-20T23:52:16Z","value":null}]}]"#,
            "Invalid request body",
        );
        refused(
            r#"[{"metric":"m","data":[{"date":"2026-11-20T23:52:16Z","value":"1"}]}]"#,
            "Invalid request body",
        );
        refused(r#"[{"metric":"m","labels":{"a":[1]},"data":[]}]"#, "value of a label");
        refused("5", "an object with metric, labels and data");
        refused("[] x", "trailing characters");
        refused("", "Invalid request body");
        let error = read_data(br#"[{"metric":"m","data":[]}]"#, &mut |_| Err(Error::limit_exceeded("full")));
        assert_eq!(error.unwrap_err().to_string(), "element 0: full");
    }

    #[test]
    fn truncated_and_mutated_bodies_never_panic() {
        let body = br#"[{"metric":"m","labels":{"a":"b"},"data":[{"date":"2026-11-20T23:52:16.5+00:00","value":1.5}]}]"#;
        for end in 0..body.len() {
            assert!(read_data(&body[..end], &mut |_| Ok(())).is_err());
        }
        for bit in 0..body.len() * 8 {
            let mut mutated = body.to_vec();
            mutated[bit / 8] ^= 1 << (bit % 8);
            let _ = read_data(&mutated, &mut |_| Ok(()));
        }
    }
}
