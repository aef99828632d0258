//! Checks a JSON value against a schema: as much of JSON Schema 2020-12 as our document uses. A word that is not known is
//! a failure, so that no rule is passed over.

use serde_json::{Map, Value as Json};

/// Says where and why `value` does not fit `schema`; references are looked up in `document`.
pub(super) fn mismatch(document: &Json, schema: &Json, value: &Json) -> Option<String> {
    check(document, schema, value, "$").err()
}

fn check(document: &Json, schema: &Json, value: &Json, at: &str) -> Result<(), String> {
    let Some(rules) = schema.as_object() else {
        return if schema == &Json::Bool(true) { Ok(()) } else { Err(format!("{at}: odd schema {schema}")) };
    };
    for (word, rule) in rules {
        match word.as_str() {
            "description" | "format" | "default" | "example" | "examples" | "title" => {}
            "properties" | "additionalProperties" => {}
            "$ref" => check(document, resolve(document, schema), value, at)?,
            "type" => check_type(rule, value, at)?,
            "const" => fits(rule == value, at, format_args!("{value} is not {rule}"))?,
            "enum" => {
                let listed = rule.as_array().is_some_and(|list| list.contains(value));
                fits(listed, at, format_args!("{value} is none of {rule}"))?;
            }
            "anyOf" => {
                let any = list(rule).iter().any(|option| check(document, option, value, at).is_ok());
                fits(any, at, format_args!("{value} is none of anyOf"))?;
            }
            "required" => {
                for key in list(rule) {
                    let there = value.get(key.as_str().unwrap()).is_some() || !value.is_object();
                    fits(there, at, format_args!("{key} is missing"))?;
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, rule, item, &format!("{at}[{index}]"))?;
                }
            }
            "minimum" | "maximum" => {
                let (Some(found), Some(bound)) = (value.as_f64(), rule.as_f64()) else { continue };
                let within = if word == "minimum" { found >= bound } else { found <= bound };
                fits(within, at, format_args!("{value} is beyond {word} {bound}"))?;
            }
            "minLength" | "maxLength" => {
                let Some(text) = value.as_str() else { continue };
                let (length, bound) = (text.chars().count() as u64, rule.as_u64().unwrap());
                let within = if word == "minLength" { length >= bound } else { length <= bound };
                fits(within, at, format_args!("{value} is beyond {word} {bound}"))?;
            }
            other => return Err(format!("{at}: the schema says {other:?}, which this check does not know")),
        }
    }
    if let Some(members) = value.as_object() {
        check_members(document, rules, members, at)?;
    }
    Ok(())
}

fn check_members(
    document: &Json,
    rules: &Map<String, Json>,
    members: &Map<String, Json>,
    at: &str,
) -> Result<(), String> {
    let known = rules.get("properties").and_then(Json::as_object);
    for (key, member) in members {
        let at = format!("{at}.{key}");
        match (known.and_then(|known| known.get(key)), rules.get("additionalProperties")) {
            (Some(rule), _) => check(document, rule, member, &at)?,
            (None, Some(Json::Bool(false))) => return Err(format!("{at}: the schema has no such member")),
            (None, Some(rule)) => check(document, rule, member, &at)?,
            (None, None) => {}
        }
    }
    Ok(())
}

fn check_type(rule: &Json, value: &Json, at: &str) -> Result<(), String> {
    let is = |name: &Json| match name.as_str().unwrap() {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    };
    let any = if rule.is_array() { list(rule).iter().any(is) } else { is(rule) };
    fits(any, at, format_args!("{value} is no {rule}"))
}

fn fits(holds: bool, at: &str, why: std::fmt::Arguments<'_>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{at}: {why}")) }
}

fn list(value: &Json) -> &[Json] {
    value.as_array().unwrap()
}

/// What `object` stands for: itself, or what its `$ref` points to.
pub(super) fn resolve<'a>(document: &'a Json, object: &'a Json) -> &'a Json {
    match object.get("$ref").and_then(Json::as_str) {
        Some(path) => document
            .pointer(path.strip_prefix('#').unwrap())
            .unwrap_or_else(|| panic!("there is no {path} in the document")),
        None => object,
    }
}

#[test]
fn what_does_not_fit_is_found() {
    let document =
        serde_json::json!({"components": {"schemas": {"Name": {"type": "string", "minLength": 1}}}});
    let schema = serde_json::json!({
        "type": "object", "required": ["name"], "additionalProperties": false,
        "properties": {"name": {"$ref": "#/components/schemas/Name"}, "n": {"type": ["integer", "null"], "minimum": 1},
            "list": {"type": "array", "items": {"enum": ["a", "b"]}}},
    });
    let check = |text: &str, fits: bool| {
        let value = serde_json::from_str(text).unwrap();
        assert_eq!(mismatch(&document, &schema, &value).is_none(), fits, "{text}");
    };
    check(r#"{"name":"x","n":null,"list":["a","b"]}"#, true);
    for wrong in [
        "[]",
        "{}",
        r#"{"name":""}"#,
        r#"{"name":1}"#,
        r#"{"name":"x","n":0}"#,
        r#"{"name":"x","n":1.5}"#,
        r#"{"name":"x","list":["c"]}"#,
        r#"{"name":"x","more":1}"#,
    ] {
        check(wrong, false);
    }
}
