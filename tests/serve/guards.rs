//! Limits and guards of `icecore serve` as people set them, by flag and by environment; and what strangers send.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::served::Served;

/// Sends `request`, which may be half of one, and reads until the server closes.
fn ask(served: &Served, request: &str) -> String {
    let mut stream = TcpStream::connect(served.address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// A line-protocol request, closed after its answer.
fn lines(headers: &str, body: &str) -> String {
    let size = body.len();
    format!(
        "POST /write HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {size}\r\n\r\n{body}"
    )
}

#[test]
fn each_limit_is_set_by_flag_and_by_environment_and_named_in_its_answer() {
    let slow_header = "GET /-/ready HTTP/1.1\r\nHost: loc".to_owned();
    let slow_body = "POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\na v".to_owned();
    let ahead = format!("a v=1 {}\n", jiff::Timestamp::now().as_nanosecond() + 2 * 3_600_000_000_000);
    let cases = [
        ("--body-size-max", "9", lines("", "a value=12\n"), "413", "--body-size-max"),
        ("--bodies-size-max", "9", lines("", "a value=12\n"), "503", "--bodies-size-max"),
        ("--body-idle-timeout", "200ms", slow_body.clone(), "408", "too slowly"),
        ("--body-timeout", "200ms", slow_body, "408", "--body-timeout"),
        ("--header-timeout", "200ms", slow_header, "", ""),
        ("--header-size-max", "8192", lines(&format!("X: {}\r\n", "x".repeat(8192)), ""), "431", ""),
        ("--request-sample-count-max", "1", lines("", "a v=1\na v=2\n"), "400", "--request-sample-count-max"),
        ("--time-ahead-max", "1h", lines("", &ahead), "400", "--time-ahead-max"),
        ("--series-count-max", "1", lines("", "a v=1\nb v=1\n"), "429", "series_count_max"),
        ("--write-token", "secret", lines("", "a v=1\n"), "401", "a token is needed"),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (index, (flag, value, request, status, reason)) in cases.iter().enumerate() {
        let variable = format!("ICECORE_{}", flag[2..].replace('-', "_").to_uppercase());
        for by_flag in [true, false] {
            let data = directory.path().join(format!("{index}-{by_flag}"));
            let served = match by_flag {
                true => Served::start(&data, &[flag, value]),
                false => Served::start_in(&data, &[], &[(&variable, value)]),
            };
            let answer = ask(&served, request);
            let expected = if status.is_empty() { String::new() } else { format!("HTTP/1.1 {status} ") };
            assert!(answer.starts_with(&expected) && answer.contains(reason), "{flag} {by_flag}: {answer}");
            assert!(!answer.contains(" 200 ") && !answer.contains(" 204 "), "{flag} {by_flag}: {answer}");
        }
    }
}

#[test]
fn names_of_strangers_are_refused_unless_allowed() {
    let directory = tempfile::tempdir().unwrap();
    let served = Served::start(&directory.path().join("data"), &["--allow-host", "good.example.com"]);
    let get = |host: &str| {
        ask(&served, &format!("GET /-/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"))
    };
    assert!(get("evil.example.com").starts_with("HTTP/1.1 403 "));
    assert!(get("good.example.com").starts_with("HTTP/1.1 200 "));
}

#[test]
fn ids_and_label_values_never_become_paths() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let mut served = Served::start(&data, &[]);
    let up = "..%2F..%2F..%2Fescaped";
    for (method, path, body) in [
        ("PUT", format!("/metrics/job/{up}/k@base64/Li4vZXNjYXBlZA"), "a 1\n"),
        ("PUT", "/metrics/job/../../escaped".into(), "a 1\n"),
        (
            "POST",
            "/api/sessions".into(),
            r#"{"product":"../escaped","version":"../../escaped","hostname":"/tmp/escaped"}"#,
        ),
        ("POST", format!("/api/sessions/{up}/events"), r#"{"name":"../escaped"}"#),
        ("DELETE", format!("/api/sessions/{up}"), ""),
        ("POST", format!("/v2.1/projects/{up}/metrics"), r#"{"name":"../escaped","metric_type":"gauge"}"#),
        ("POST", format!("/write?db={up}"), "../escaped,k=../escaped v=1\n"),
        ("GET", format!("/{up}"), ""),
        ("GET", "/../../../../etc/passwd".into(), ""),
    ] {
        let answer = served.ask(method, &path, "", body.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains("root:"), "{method} {path}: {answer}");
    }
    assert_eq!(served.metric("icecore_bodies_bytes"), 0.0);
    served.terminate();
    let (status, log) = served.wait();
    assert!(status.success(), "{log}");
    assert_eq!(names(directory.path()), ["data"]);
    let known = |name: &String| !name.contains("escaped") && !name.contains("..");
    assert!(all_names(&data).iter().all(known), "{:?}", all_names(&data));
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

fn all_names(path: &Path) -> Vec<String> {
    let mut all = names(path);
    for entry in fs::read_dir(path).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            all.extend(all_names(&entry.path()));
        }
    }
    all
}
