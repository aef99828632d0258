//! The state of a session: a JSON object that patches are merged into.

use serde_json::Value;

use crate::error::{Error, Result};

/// Deepest nesting of an object or list in a session's state, data and metadata.
pub const JSON_DEPTH_MAX: usize = 64;

/// Merges `patch` into `state`: objects are merged key by key, `null` deletes, everything else replaces
/// (JSON Merge Patch, RFC 7396).
pub(super) fn merge(state: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *state = patch.clone();
        return;
    };
    if !state.is_object() {
        *state = Value::Object(serde_json::Map::new());
    }
    let Value::Object(members) = state else { return };
    for (key, change) in patch {
        if change.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key.clone()).or_insert(Value::Null), change);
        }
    }
}

/// Checks that `value` nests no deeper than [`JSON_DEPTH_MAX`], so that everything that walks it comes back.
///
/// # Errors
/// `InvalidInput` naming `what`.
pub(super) fn check_depth(what: &str, value: &Value) -> Result<()> {
    if is_deeper_than(value, JSON_DEPTH_MAX) {
        return Err(Error::invalid_input(format!("{what} is nested deeper than {JSON_DEPTH_MAX}")));
    }
    Ok(())
}

fn is_deeper_than(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| is_deeper_than(item, depth - 1)),
        Value::Object(members) => depth == 0 || members.values().any(|item| is_deeper_than(item, depth - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(mut state: Value, patch: &Value, expected: &Value) {
        merge(&mut state, patch);
        assert_eq!(state, *expected);
    }

    #[test]
    fn patches_are_merged_as_the_rfc_has_it() {
        check(json!({"a": "b"}), &json!({"a": "c"}), &json!({"a": "c"}));
        check(json!({"a": "b"}), &json!({"b": "c"}), &json!({"a": "b", "b": "c"}));
        check(json!({"a": "b", "b": "c"}), &json!({"a": null}), &json!({"b": "c"}));
        check(json!({"a": ["b"]}), &json!({"a": "c"}), &json!({"a": "c"}));
        check(json!({"a": {"b": "c"}}), &json!({"a": {"b": "d", "c": null}}), &json!({"a": {"b": "d"}}));
        check(json!({"a": [{"b": "c"}]}), &json!({"a": [1]}), &json!({"a": [1]}));
        check(json!({"e": null}), &json!({"a": 1}), &json!({"e": null, "a": 1}));
        check(json!({}), &json!({"a": {"bb": {"ccc": null}}}), &json!({"a": {"bb": {}}}));
        check(json!(3), &json!({"a": 1}), &json!({"a": 1}));
    }

    #[test]
    fn depth_is_limited() {
        let nested = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_depth("state", &nested(JSON_DEPTH_MAX)).is_ok());
        let error = check_depth("state", &nested(JSON_DEPTH_MAX + 1)).unwrap_err();
        assert_eq!(error.to_string(), "state is nested deeper than 64");
    }
}
