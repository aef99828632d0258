//! Rules for tags that several formats share: how `key:value` strings become tags, what happens to a key
//! given twice or reserved, one form for the bounds of buckets, and names in the alphabet of Prometheus.
//! Called by the parsers here, by sessions and by the server.

use std::borrow::Cow;

use super::number::{parse_float, push_float_dotted};

/// The value of a tag that was sent without one (`"api"` is `api="true"`).
pub const BARE_TAG_VALUE: &str = "true";
/// The tag that holds the upper bound of a bucket.
pub const BUCKET_KEY: &str = "le";
/// The tag that holds the quantile of a summary.
pub const QUANTILE_KEY: &str = "quantile";

/// The key and value of a tag written as one string, `"key:value"`; the first colon splits.
///
/// A string without a colon, or with nothing before it, is a bare tag: its value is [`BARE_TAG_VALUE`].
/// `None` when there is no tag to be had: nothing at all, or a key without a value (`"key:"`).
///
/// ```
/// use icecore::protocol::label::split_tag;
/// assert_eq!(split_tag("url:http://x"), Some(("url", "http://x")));
/// assert_eq!(split_tag("api"), Some(("api", "true")));
/// assert_eq!(split_tag(":api"), Some(("api", "true")));
/// assert_eq!(split_tag("api:"), None);
/// ```
pub fn split_tag(text: &str) -> Option<(&str, &str)> {
    match text.split_once(':') {
        Some(("", "")) => None,
        Some(("", bare)) => Some((bare, BARE_TAG_VALUE)),
        Some((_, "")) => None,
        Some(pair) => Some(pair),
        None if text.is_empty() => None,
        None => Some((text, BARE_TAG_VALUE)),
    }
}

/// The tag set of `pairs`: sorted by key, empty values left out, the values of a key given several times
/// joined by commas in the order sent.
pub fn join_tags<'a>(
    pairs: impl IntoIterator<Item = (Cow<'a, str>, Cow<'a, str>)>,
) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let mut tags: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    tags.dedup_by(|later, kept| {
        let same = later.0 == kept.0;
        if same {
            let joined = kept.1.to_mut();
            joined.push(',');
            joined.push_str(&later.1);
        }
        same
    });
    tags
}

/// Renames each of `tags` whose key is one of `reserved` to `exported_<key>`, as Prometheus does when a
/// target's own tag meets one that the server sets.
pub fn export_reserved(tags: &mut [(Cow<'_, str>, Cow<'_, str>)], reserved: &[&str]) {
    for (key, _) in tags.iter_mut() {
        if reserved.contains(&key.as_ref()) {
            *key = Cow::Owned(format!("exported_{key}"));
        }
    }
}

/// The one form of the bound of a bucket or of a quantile: shortest, with a point or an exponent, so
/// that `1`, `1.0` and `1e0` are one series. What is not a number stays as it is.
///
/// ```
/// use icecore::protocol::label::normalize_bound;
/// assert_eq!(normalize_bound("1"), "1.0");
/// assert_eq!(normalize_bound("0.005"), "0.005");
/// assert_eq!(normalize_bound("inf"), "+Inf");
/// ```
pub fn normalize_bound(text: &str) -> Cow<'_, str> {
    match parse_float(text.as_bytes()) {
        Some(value) if !value.is_nan() => {
            let mut form = String::with_capacity(8);
            push_float_dotted(&mut form, value);
            if form == text { Cow::Borrowed(text) } else { Cow::Owned(form) }
        }
        _ => Cow::Borrowed(text),
    }
}

/// The value of tag `key` of a series named `metric` in the form that it is stored in:
/// [`normalize_bound`] for the `le` of a name that ends in `_bucket` and for `quantile`, else verbatim.
pub fn normalize_tag<'a>(metric: &str, key: &str, value: &'a str) -> Cow<'a, str> {
    let is_bound = key == QUANTILE_KEY || (key == BUCKET_KEY && metric.ends_with("_bucket"));
    if is_bound { normalize_bound(value) } else { Cow::Borrowed(value) }
}

/// Whether `name` is a metric name in the old alphabet of Prometheus, `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_metric_name(name: &str) -> bool {
    is_plain(name, true)
}

/// Whether `key` is a label name in the old alphabet of Prometheus, `[a-zA-Z_][a-zA-Z0-9_]*`.
pub fn is_label_name(key: &str) -> bool {
    is_plain(key, false)
}

/// `name` with `_` for every character outside of the alphabet of metric names, as clients write it for
/// readers who do not take any UTF-8: `dotted.name` becomes `dotted_name`, `123` becomes `_23`.
pub fn plain_metric_name(name: &str) -> Cow<'_, str> {
    plain(name, true)
}

/// The same for label names, to which a colon does not belong.
pub fn plain_label_name(key: &str) -> Cow<'_, str> {
    plain(key, false)
}

fn is_plain(name: &str, colon: bool) -> bool {
    !name.is_empty() && name.chars().enumerate().all(|(index, c)| is_plain_char(c, index, colon))
}

fn is_plain_char(c: char, index: usize, colon: bool) -> bool {
    c.is_ascii_alphabetic() || c == '_' || (colon && c == ':') || (index > 0 && c.is_ascii_digit())
}

fn plain(name: &str, colon: bool) -> Cow<'_, str> {
    if is_plain(name, colon) {
        return Cow::Borrowed(name);
    }
    if name.is_empty() {
        return Cow::Borrowed("_");
    }
    Cow::Owned(
        name.chars().enumerate().map(|(i, c)| if is_plain_char(c, i, colon) { c } else { '_' }).collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(tags: &[&'static str]) -> Vec<(String, String)> {
        let pairs = tags.iter().filter_map(|tag| split_tag(tag)).map(|(k, v)| (k.into(), v.into()));
        join_tags(pairs).into_iter().map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn first_colon_splits_and_bare_tags_are_true() {
        let tags = joined(&["colon:a:b:c", "api", ":v2", "empty:", "", ":", "::x"]);
        assert_eq!(
            tags,
            [pair(":x", "true"), pair("api", "true"), pair("colon", "a:b:c"), pair("v2", "true")]
        );
    }

    #[test]
    fn values_of_one_key_are_joined_in_the_order_sent() {
        assert_eq!(joined(&["k:z", "a:1", "k:b", "k:m"]), [pair("a", "1"), pair("k", "z,b,m")]);
    }

    #[test]
    fn reserved_keys_are_exported() {
        let mut tags = vec![(Cow::from("session"), Cow::from("mine")), (Cow::from("host"), Cow::from("a"))];
        export_reserved(&mut tags, &["session", "project"]);
        assert_eq!(tags[0].0, "exported_session");
        assert_eq!(tags[1].0, "host");
    }

    #[test]
    fn bounds_have_one_form() {
        for text in ["1", "1.0", "1e0", "+1", "01.00"] {
            assert_eq!(normalize_bound(text), "1.0");
        }
        for text in ["+Inf", "inf", "Infinity"] {
            assert_eq!(normalize_bound(text), "+Inf");
        }
        assert_eq!(normalize_bound("1000000"), "1e+06");
        assert_eq!(normalize_bound("abc"), "abc");
        assert_eq!(normalize_bound("NaN"), "NaN");
        assert!(matches!(normalize_bound("0.25"), Cow::Borrowed(_)));
    }

    #[test]
    fn names_are_rewritten_as_the_python_client_does() {
        assert_eq!(plain_metric_name("dotted.name"), "dotted_name");
        assert_eq!(plain_metric_name("123"), "_23");
        assert_eq!(plain_metric_name("ünï"), "_n_");
        assert_eq!(plain_metric_name("job:rate"), "job:rate");
        assert_eq!(plain_label_name("job:rate"), "job_rate");
        assert!(
            is_metric_name("a:b") && !is_label_name("a:b") && !is_metric_name("") && !is_metric_name("9a")
        );
    }
}
