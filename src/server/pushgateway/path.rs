//! Paths of groups: `/metrics/job[@base64]/<job>{/<label>[@base64]/<value>}`.
//!
//! The grammar is that of the Pushgateway's documentation, "URL". It is read from the path as sent, since an escaped
//! slash is part of a value. Differences: `.`, `..` and an empty part are not cleaned away by a redirect; the former are
//! values, the latter is refused with what to write instead.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::protocol::label::is_label_name;
use crate::server::base64;

/// What comes after the name of a label whose value is in base64.
const BASE64_SUFFIX: &str = "@base64";
/// The key of the first label, which every group has.
const JOB: &str = "job";

/// The labels of a group: `job` and more. Labels with an empty value tell groups apart, but are no tags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::server) struct GroupKey {
    labels: BTreeMap<String, String>,
}

impl GroupKey {
    /// The key of these labels, of a group that was read before.
    pub(super) fn new(labels: BTreeMap<String, String>) -> Self {
        GroupKey { labels }
    }

    /// The labels by key, empty values included.
    pub(in crate::server) fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The value of a label of the group.
    pub(in crate::server) fn get(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }
}

/// Reads the part of a path behind `/metrics/`, still percent-encoded.
///
/// # Errors
/// `InvalidInput` in the words of a Pushgateway where it has any.
pub(in crate::server) fn parse_path(path: &str) -> Result<GroupKey> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<&str> = path.split('/').collect();
    let (pairs, rest) = parts.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::invalid_input(format!("odd number of components in label string {path:?}")));
    }
    let mut labels = BTreeMap::new();
    let mut pairs = pairs.iter();
    let job =
        pairs.next().and_then(|[key, value]| matches!(*key, "job" | "job@base64").then_some((*key, *value)));
    let Some((key, value)) = job else {
        return Err(Error::invalid_input("the path of a group starts with job"));
    };
    let (_, job) = label(key, value)?;
    if job.is_empty() {
        return Err(Error::invalid_input("job name is required"));
    }
    for [key, value] in pairs {
        if value.is_empty() {
            return Err(Error::invalid_input(format!("an empty value is written as {key}@base64/=")));
        }
        let (key, value) = label(key, value)?;
        labels.insert(key, value);
    }
    labels.insert(JOB.to_owned(), job);
    Ok(GroupKey { labels })
}

/// One label from the two parts of the path that hold it.
fn label(key: &str, value: &str) -> Result<(String, String)> {
    let key = percent_decode(key)?;
    let value = percent_decode(value)?;
    let (key, value) = match key.strip_suffix(BASE64_SUFFIX) {
        Some(key) => (key.to_owned(), base64_text(&value)?),
        None => (key, value),
    };
    if !is_label_name(&key) || key.starts_with("__") {
        return Err(Error::invalid_input(format!("improper label name {key:?}")));
    }
    Ok((key, value))
}

fn base64_text(value: &str) -> Result<String> {
    let bytes = base64::decode(value)
        .ok_or_else(|| Error::invalid_input(format!("invalid base64 encoding in label value {value:?}")))?;
    String::from_utf8(bytes)
        .map_err(|_| Error::invalid_input(format!("label value {value:?} is not UTF-8 inside its base64")))
}

/// Resolves `%XX`. A plus sign stays one: this is a path.
pub(in crate::server) fn percent_decode(text: &str) -> Result<String> {
    let wrong = || Error::invalid_input(format!("invalid escape in {text:?}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
        let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
        if digits.starts_with('+') {
            return Err(wrong());
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| wrong())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| Error::invalid_input(format!("{text:?} is not UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        let key = parse_path(path).unwrap();
        let shown: Vec<String> = key.labels().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(shown.join(" "), expected);
    }

    #[track_caller]
    fn refused(path: &str, reason: &str) {
        let error = parse_path(path).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn paths_of_real_clients_are_read() {
        check("job/acceptance/ProjectA/SomeLabel", "ProjectA=SomeLabel job=acceptance");
        check(
            "job/expid1/label_metrics_experiment_handle/expid1/step/None",
            "job=expid1 label_metrics_experiment_handle=expid1 step=None",
        );
        check("job/wl42/name/loss/step/7", "job=wl42 name=loss step=7");
        check("job@base64/cGcvazg=", "job=pg/k8");
        check("job/x/path@base64/L3Zhci90bXA=", "job=x path=/var/tmp");
        check("job/x/path@base64/L3Zhci90bXA", "job=x path=/var/tmp");
        check("job/x/empty@base64/=", "empty= job=x");
        check("job/x/pct/50%25%2B1", "job=x pct=50%+1");
        check("job/x/x/y+z", "job=x x=y+z");
        check("job/x/city/M%C3%BCnchen", "city=München job=x");
        check("job/x/dd/../dot/.", "dd=.. dot=. job=x");
        check("job/x/slash/a%2Fb", "job=x slash=a/b");
        check("job/x/", "job=x");
        check("job/x/job/other", "job=x");
    }

    #[test]
    fn wrong_paths_say_why() {
        refused("job@base64/=/ProjectA/SomeLabel", "job name is required");
        refused("job//a/b", "job name is required");
        refused("job/x/a", "odd number of components");
        refused("job", "odd number of components");
        refused("instance/a", "starts with job");
        refused("job/x/a//", "written as a@base64/=");
        refused("job/x/1a/b", "improper label name \"1a\"");
        refused("job/x/__a/b", "improper label name");
        refused("job/x/a-b/c", "improper label name");
        refused("job/x/a@base64/%3F", "invalid base64");
        refused("job/x/a@base64/_w", "not UTF-8");
        refused("job/x/a/%", "invalid escape");
        refused("job/x/a/%zz", "invalid escape");
        refused("job/x/a/%+1", "invalid escape");
        refused("job/x/a/%ff", "not UTF-8");
    }
}
