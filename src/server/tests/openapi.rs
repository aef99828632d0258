//! The OpenAPI document against the server: every route is in it and no other, and every example in it is sent and
//! answered as it says.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::schema::{mismatch, resolve};
use super::*;
use crate::server::{base64, openapi};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
/// The session of the examples.
const EXAMPLE_SESSION: &str = "018cc251-f400-7000-8000-000000000001";
/// The series of the examples.
const EXAMPLE_SERIES: &str = "/time-series/1";

/// A request that the document shows, and what it is answered with.
#[derive(Debug)]
struct Example {
    method: String,
    target: String,
    headers: String,
    body: Vec<u8>,
    status: u16,
    /// Media types of the answer and their schemas.
    content: Json,
}

/// The operations of the document: method, path, operation.
fn operations(document: &Json) -> Vec<(&str, &str, &Json)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let known = METHODS.into_iter().filter_map(|method| Some((method, path.as_str(), item.get(method)?)));
        found.extend(known);
    }
    found
}

fn escaped(text: &str, keep_slashes: bool) -> String {
    let keep =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (keep_slashes && byte == b'/');
    text.bytes()
        .map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn text_of(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// All requests that an operation shows.
fn examples(document: &Json, method: &str, path: &str, operation: &Json) -> Vec<Example> {
    let (mut target, mut query, mut headers) = (path.to_owned(), Vec::new(), String::new());
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolve(document, parameter);
        let (name, place) = (parameter["name"].as_str().unwrap(), parameter["in"].as_str().unwrap());
        let Some(example) = parameter.get("example").map(text_of) else {
            assert!(parameter["required"] != true, "{method} {path}: {name} has no example");
            continue;
        };
        match place {
            "path" => target = target.replace(&format!("{{{name}}}"), &escaped(&example, name == "group")),
            "query" => query.push(format!("{}={}", escaped(name, false), escaped(&example, false))),
            "header" => headers.push_str(&format!("{name}: {example}\r\n")),
            other => panic!("a parameter in {other}"),
        }
    }
    if !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    let answers = operation["responses"].as_object().unwrap();
    let success = answers.keys().find_map(|status| status.parse::<u16>().ok().filter(|code| *code < 300));
    let example = |headers: String, body: Vec<u8>, refused: Option<u16>| {
        let status = refused.or(success).unwrap();
        let answer = answers.get(&status.to_string()).unwrap_or_else(|| &answers["default"]);
        let content = resolve(document, answer).get("content").cloned().unwrap_or_default();
        Example { method: method.to_uppercase(), target: target.clone(), headers, body, status, content }
    };
    let mut found = Vec::new();
    for (media_type, media) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        for shown in media["examples"].as_object().into_iter().flat_map(|all| all.values()) {
            let value = &shown["value"];
            let refused =
                shown.get("x-status").map(|status| u16::try_from(status.as_u64().unwrap()).unwrap());
            if refused.is_none() && shown["x-base64"] != true {
                let wrong = mismatch(document, &media["schema"], value);
                assert_eq!(wrong, None, "{method} {path}: the example does not fit its own schema");
            }
            let body = match (shown["x-base64"] == true, media_type.as_str()) {
                (true, _) => base64::decode(value.as_str().unwrap()).unwrap(),
                (false, "application/x-www-form-urlencoded") => {
                    let pair =
                        |(key, value): (&String, &Json)| format!("{key}={}", escaped(&text_of(value), false));
                    value.as_object().unwrap().iter().map(pair).collect::<Vec<_>>().join("&").into_bytes()
                }
                (false, media_type) if media_type.contains("json") => value.to_string().into_bytes(),
                (false, _) => value.as_str().unwrap().as_bytes().to_vec(),
            };
            found.push(example(format!("{headers}Content-Type: {media_type}\r\n"), body, refused));
        }
    }
    if found.is_empty() {
        assert!(operation["requestBody"]["required"] != true, "{method} {path}: the body has no example");
        found.push(example(headers, Vec::new(), None));
    }
    found
}

async fn send(server: &Running, example: &Example) -> String {
    let Example { method, target, headers, body, .. } = example;
    let size = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {size}\r\n{headers}\r\n"
    );
    server.ask([head.as_bytes(), body].concat()).await
}

/// A server that lets everything be asked.
async fn open() -> Running {
    start(|options| options.admin_api = true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_answered_as_it_says() {
    let server = open().await;
    let session = server.frame.db.create_session("MyApp", "1.0.0").unwrap().id().to_string();
    let document: Json =
        serde_json::from_str(&openapi::document().to_string().replace(EXAMPLE_SESSION, &session)).unwrap();
    let mut operations = operations(&document);
    // What is deleted is deleted last.
    operations.sort_by_key(|(method, path, _)| {
        (*method == "delete" || path.ends_with("delete_series"), *method == "get", !path.contains("/metrics"))
    });
    let mut count = 0;
    for (method, path, operation) in operations {
        for mut example in examples(&document, method, path, operation) {
            if example.target.ends_with(EXAMPLE_SERIES) {
                let found =
                    server.get("/v2.1/projects/demo/time-series/search?metric=custom.metric", "").await;
                let found: Json = serde_json::from_str(found.split_once("\r\n\r\n").unwrap().1).unwrap();
                let id = format!("/time-series/{}", found[0]["id"]);
                example.target = example.target.replace(EXAMPLE_SERIES, &id);
            }
            let answer = send(&server, &example).await;
            let asked = format!("{} {}", example.method, example.target);
            check_answer(&document, &asked, &example, &answer);
            count += 1;
        }
    }
    assert!(count > 90, "only {count} examples were sent");
}

#[track_caller]
fn check_answer(document: &Json, asked: &str, example: &Example, answer: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{asked}: {answer}"));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {} ", example.status)),
        "{asked} {:?}: {answer}",
        example.body
    );
    let Some(content) = example.content.as_object() else {
        assert_eq!(body, "", "{asked} is answered with a body that the document does not have");
        return;
    };
    let head = head.to_ascii_lowercase();
    let media_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap();
    let media =
        content.get(media_type).unwrap_or_else(|| panic!("{asked}: {media_type:?} is not in the document"));
    if media_type == "application/json" {
        let value: Json =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{asked}: {error}: {answer}"));
        if let Some(wrong) = mismatch(document, &media["schema"], &value) {
            panic!("{asked}: {wrong}\n{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_has_every_route_and_no_other() {
    let server = open().await;
    let document = openapi::document();
    let documented: BTreeSet<(String, String)> = operations(&document)
        .iter()
        .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    let plain = |path: &str| path.replace("{*", "{");
    let routes: BTreeSet<String> = routes::table().iter().map(|route| plain(route.path)).collect();
    for (_, path) in &documented {
        assert!(routes.contains(path), "{path} is in the document and has no route");
    }
    for path in &routes {
        // Nothing is called so, and only whether the method is taken counts here.
        let target = path.replace("{version}", "v2").replace('{', "no-").replace('}', "");
        for method in METHODS {
            let upper = method.to_uppercase();
            let request = format!(
                "{upper} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 1\r\n\r\n?"
            );
            let answer = server.ask(request).await;
            let taken = !answer.starts_with("HTTP/1.1 405 ");
            let known = documented.contains(&(method.to_owned(), path.clone()));
            assert_eq!(
                taken, known,
                "{upper} {path}: taken by the server: {taken}; in src/server/openapi/*.json: {known}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_have_names_of_their_own() {
    let document = openapi::document();
    let ids: Vec<&str> =
        operations(&document).iter().map(|(.., o)| o["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let served = open().await.get("/api/openapi.json", "").await;
    check(&served, 200, "\"openapi\":\"3.1.0\"");
}
