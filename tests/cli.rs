//! The tool as people run it: arguments, files, output, exit codes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use icecore::{Batch, Db, Timestamp, ValueRef};

/// Runs the tool in `dir`.
fn icecore(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_icecore")).current_dir(dir).args(arguments).output().unwrap()
}

/// Runs the tool, which must succeed, and gives its standard output.
#[track_caller]
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = icecore(dir, arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the tool, which must end with `code`, and gives its standard error.
#[track_caller]
fn fails(dir: &Path, arguments: &[&str], code: i32) -> String {
    let output = icecore(dir, arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    error
}

const CSV: &str = "series,tags,timestamp_ms,value\n\
                   cpu,host=a,1700000000000,1.5\n\
                   cpu,host=a,1700000001000,soon\n\
                   cpu,host=a,1700000060000,2.5\n\
                   cpu,host=b,1700000000000,-0\n\
                   mem,,1700000000000,4.41e+06\n";

/// A directory with the database `db`, filled from [`CSV`].
fn imported() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("in.csv"), CSV).unwrap();
    done(dir.path(), &["import", "--data", "db", "in.csv"]);
    dir
}

/// The only file in the blocks of `db`.
fn block(dir: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir.join("db/blocks")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn import_takes_good_lines_and_names_bad_ones() {
    let dir = imported();
    let rejects = fs::read_to_string(dir.path().join("in.csv.rejects")).unwrap();
    assert_eq!(rejects, "in.csv: line 3: value is not a number: \"soon\"\n");
    let counts = done(dir.path(), &["query", "--data", "db", "{}", "--agg", "count"]);
    assert_eq!(counts, "2  cpu{host=\"a\"}\n1  cpu{host=\"b\"}\n1  mem\n");
}

#[test]
fn columns_of_other_files_are_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let text = "when;city;temp;wind\n2026-01-01T00:00:00Z;Oslo;-3.5;4\n2026-01-01T01:00:00Z;Oslo;;5\n";
    fs::write(dir.path().join("weather.csv"), text).unwrap();
    let columns =
        ["--time", "when", "--time-unit", "rfc3339", "--tag", "city", "--value", "temp", "--value", "wind"];
    let mut arguments = vec!["import", "--data", "db", "weather.csv", "--delimiter", ";", "--prefix", "w_"];
    arguments.extend(columns);
    done(dir.path(), &arguments);
    let rows = done(dir.path(), &["query", "--data", "db", "{}", "--format", "csv"]);
    assert_eq!(
        rows,
        "series,tags,timestamp_ns,value\nw_temp,city=Oslo,1767225600000000000,-3.5\n\
         w_wind,city=Oslo,1767225600000000000,4\nw_wind,city=Oslo,1767229200000000000,5\n"
    );
}

#[test]
fn text_formats_are_imported_with_their_times() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.prom"), "# TYPE up gauge\nup{job=\"a\"} 1 1000\nup{job=\"b\"} 1\n").unwrap();
    fs::write(dir.path().join("b.om"), "up{job=\"c\"} 1 2.5\n# EOF\n").unwrap();
    done(dir.path(), &["import", "--data", "db", "a.prom", "b.om"]);
    let rejects = fs::read_to_string(dir.path().join("a.prom.rejects")).unwrap();
    assert!(rejects.starts_with("a.prom: line 3: the sample has no time"), "{rejects}");
    let rows = done(dir.path(), &["query", "--data", "db", "up"]);
    assert_eq!(
        rows,
        "up{job=\"a\"}\n  1970-01-01T00:00:01Z            1\nup{job=\"c\"}\n  1970-01-01T00:00:02.5Z          1\n"
    );
}

#[test]
fn queries_answer_in_every_format() {
    let dir = imported();
    let ask =
        |format: &str| done(dir.path(), &["query", "--data", "db", "cpu{host=\"a\"}", "--format", format]);
    assert_eq!(
        ask("table"),
        "cpu{host=\"a\"}\n  2023-11-14T22:13:20Z            1.5\n  2023-11-14T22:14:20Z            2.5\n"
    );
    assert_eq!(
        ask("csv"),
        "series,tags,timestamp_ns,value\ncpu,host=a,1700000000000000000,1.5\ncpu,host=a,1700000060000000000,2.5\n"
    );
    let json: serde_json::Value = serde_json::from_str(&ask("json")).unwrap();
    let series = &json["series"][0];
    assert_eq!((&series["name"], &series["tags"]["host"]), (&"cpu".into(), &"a".into()));
    assert_eq!(
        series["samples"],
        serde_json::json!([[1_700_000_000_000_000_000i64, 1.5], [1_700_000_060_000_000_000i64, 2.5]])
    );
    assert!(ask("chart").contains('█'));
    let nothing: serde_json::Value =
        serde_json::from_str(&done(dir.path(), &["query", "--data", "db", "none", "--format", "json"]))
            .unwrap();
    assert_eq!(nothing["series"], serde_json::json!([]));
}

#[test]
fn queries_aggregate_group_and_filter() {
    let dir = imported();
    let ask = |arguments: &[&str]| {
        let mut all = vec!["query", "--data", "db"];
        all.extend(arguments);
        done(dir.path(), &all)
    };
    assert_eq!(ask(&["cpu", "--agg", "max", "--by", "host"]), "2.5  {host=\"a\"}\n -0  {host=\"b\"}\n");
    assert_eq!(ask(&["cpu", "--agg", "sum", "--by", ""]), "4  {}\n");
    assert_eq!(ask(&["cpu", "--agg", "count", "--where", ">=2"]), "1  cpu{host=\"a\"}\n");
    assert_eq!(
        ask(&["cpu", "--agg", "count", "--to", "1700000001"]),
        "1  cpu{host=\"a\"}\n1  cpu{host=\"b\"}\n"
    );
    assert_eq!(
        ask(&["cpu{host=\"a\"}", "--agg", "max", "--window", "1m", "--format", "csv"]),
        "series,tags,timestamp_ns,value\ncpu,host=a,1699999980000000000,1.5\ncpu,host=a,1700000040000000000,2.5\n"
    );
}

#[test]
fn what_is_exported_can_be_imported() {
    let dir = imported();
    done(dir.path(), &["export", "--data", "db", "--output", "out.csv"]);
    done(dir.path(), &["import", "--data", "copy", "out.csv"]);
    for format in ["csv", "jsonl"] {
        let export = |data: &str| done(dir.path(), &["export", "--data", data, "--format", format]);
        assert_eq!(export("db"), export("copy"), "{format}");
        assert!(!export("db").is_empty());
    }
    fails(dir.path(), &["export", "--data", "db", "--output", "out.csv"], 1);
}

#[test]
fn wrong_use_ends_with_two_and_failure_with_one() {
    let dir = imported();
    fails(dir.path(), &["fly"], 2);
    fails(dir.path(), &["query", "--data", "db"], 2);
    let error = fails(dir.path(), &["query", "--data", "db", "cpu{"], 2);
    assert!(error.contains(if cfg!(feature = "promql") { "1:5: parse error" } else { "byte" }), "{error}");
    fails(dir.path(), &["query", "--data", "db", "cpu", "--from", "soon"], 2);
    fails(dir.path(), &["query", "--data", "db", "cpu", "--agg", "rate"], 2);
    fails(dir.path(), &["query", "--data", "db", "cpu", "--from", "now", "--to", "-1h"], 2);
    assert!(fails(dir.path(), &["query", "--data", "none", "cpu"], 1).contains("there is no database"));
    assert!(!dir.path().join("none").exists());
    assert!(fails(dir.path(), &["import", "--data", "db", "none.csv"], 1).contains("none.csv"));
}

#[cfg(feature = "promql")]
#[test]
fn queries_take_promql_at_a_time_and_over_a_range() {
    let dir = imported();
    let ask = |arguments: &[&str]| done(dir.path(), &[&["query", "--data", "db"], arguments].concat());
    let time = ["--time", "1700000090"];
    assert_eq!(ask(&[&["sort(cpu)"], &time[..]].concat()), " -0  cpu{host=\"b\"}\n2.5  cpu{host=\"a\"}\n");
    assert_eq!(ask(&[&["sum(cpu) * 2"], &time[..]].concat()), "5  {}\n");
    assert_eq!(ask(&[&["1 + 1"], &time[..]].concat()), "2\n");
    assert_eq!(ask(&["\"text\""]), "text\n");
    // A selector with a time is an instant query, and without one it gives samples.
    assert_eq!(ask(&[&["mem"], &time[..]].concat()), "4410000  mem\n");
    let range = ["--from", "1700000000", "--to", "1700000060", "--step", "30s"];
    assert_eq!(
        ask(&[&["cpu{host='a'}"], &range[..]].concat()),
        "cpu{host=\"a\"}\n  2023-11-14T22:13:20Z            1.5\n  2023-11-14T22:13:50Z            1.5\n  \
         2023-11-14T22:14:20Z            2.5\n"
    );
    assert_eq!(
        ask(&[&["max by (host) (cpu)", "--format", "csv"], &range[..4], &["--step", "1m"]].concat()),
        "series,tags,timestamp_ns,value\n,host=a,1700000000000000000,1.5\n,host=a,1700000060000000000,2.5\n\
         ,host=b,1700000000000000000,-0\n,host=b,1700000060000000000,-0\n"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ask(&[&["cpu > 1", "--format", "json"], &time[..]].concat())).unwrap();
    assert_eq!(json["resultType"], "vector");
    assert_eq!(json["result"][0]["value"], serde_json::json!([1_700_000_090, "2.5"]));
    assert!(ask(&[&["cpu", "--format", "chart"], &range[..]].concat()).contains('█'));
    assert!(ask(&[&["cpu > 0", "--format", "chart"], &time[..]].concat()).contains('█'));
    let plan = done(dir.path(), &["query", "sum by (host) (max_over_time(cpu[1h]))", "--explain"]);
    assert!(plan.contains("max_over_time") && plan.contains("select cpu[1h]"), "{plan}");
    let fails = |arguments: &[&str], code| fails(dir.path(), &[&["query"], arguments].concat(), code);
    assert!(fails(&["--data", "db", "sum(cpu"], 2).contains("parse error"));
    assert!(fails(&["--data", "db", "cpu", "--agg", "max", "--step", "1m"], 2).contains("--agg"));
    assert!(fails(&["--data", "db", "cpu[5m]", "--step", "1m"], 2).contains("range vector"));
    assert!(
        fails(&["--data", "db", "cpu", "--step", "1m", "--to", "-2h", "--from", "-1h"], 2).contains("--from")
    );
    assert!(fails(&["cpu"], 2).contains("--data"));
    assert!(fails(&["--data", "none", "sum(cpu)"], 1).contains("there is no database"));
    let death = "quantile_over_time(0.5, vector(1)[100y:1ms])";
    assert!(fails(&["--data", "db", death], 1).contains("steps_max"));
}

#[cfg(feature = "promql")]
#[test]
fn promql_is_asked_beside_a_live_writer() {
    let dir = imported();
    let db = Db::open(dir.path().join("db")).unwrap();
    let mut batch = Batch::new();
    batch.push_named("live", &[], Timestamp::from_secs(100), ValueRef::I64(7)).unwrap();
    db.write(&mut batch).unwrap();
    assert_eq!(done(dir.path(), &["query", "--data", "db", "live * 6", "--time", "101"]), "42  {}\n");
}

#[cfg(all(feature = "server", feature = "client"))]
#[test]
fn servers_are_asked_as_directories_are() {
    use icecore::server::{Options, Server};
    let dir = imported();
    let db = Db::open(dir.path().join("db")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options { listen: ([127, 0, 0, 1], 0).into(), statsd: None, ..Options::default() };
    let server = runtime.block_on(Server::bind(options, db)).unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let _task = runtime.spawn(server.run(std::future::pending()));
    for arguments in [
        &["sort(cpu)", "--time", "1700000090"][..],
        &["cpu", "--time", "1700000090", "--format", "json"],
        &["rate(cpu[5m])", "--from", "1700000000", "--to", "1700000060", "--step", "20s"],
        &["sum by (host) (cpu)", "--from", "1700000000", "--to", "1700000060", "--format", "csv"],
        &["1 / 0", "--time", "5"],
        &["\"text\"", "--time", "5"],
    ] {
        let here = done(dir.path(), &[&["query", "--data", "db"], arguments].concat());
        let there = done(dir.path(), &[&["query", "--url", &url], arguments].concat());
        assert_eq!(here, there, "{arguments:?}");
        assert!(!here.is_empty());
    }
    assert!(fails(dir.path(), &["query", "--url", &url, "sum(("], 2).contains("parse error"));
    assert!(
        fails(dir.path(), &["query", "--url", &url, "cpu * on () cpu", "--time", "1700000090"], 1)
            .contains("execution")
    );
    assert!(fails(dir.path(), &["query", "--url", "https://localhost", "up"], 2).contains("TLS"));
}

#[cfg(not(feature = "promql"))]
#[test]
fn promql_that_is_not_built_in_says_how_to_get_it() {
    let dir = imported();
    for arguments in
        [&["query", "--data", "db", "sum(cpu)"][..], &["query", "--data", "db", "cpu", "--time", "now"]]
    {
        let error = fails(dir.path(), arguments, 2);
        assert!(error.contains("run: cargo run --features full -- query --data db"), "{error}");
    }
}

#[cfg(not(feature = "server"))]
#[test]
fn a_verb_that_is_not_built_in_says_how_to_get_it() {
    let error = fails(Path::new("."), &["serve", "--port", "1"], 2);
    assert!(error.contains("cargo run --features full -- serve --port 1"), "{error}");
}

#[test]
fn a_flipped_bit_is_found_named_and_left_alone() {
    let dir = imported();
    done(dir.path(), &["compact", "--data", "db"]);
    done(dir.path(), &["verify", "--data", "db"]);
    let path = block(dir.path());
    let sound = fs::read(&path).unwrap();
    for offset in [40, sound.len() / 2, sound.len() - 3] {
        let mut bytes = sound.clone();
        bytes[offset] ^= 4;
        fs::write(&path, &bytes).unwrap();
        let output = icecore(dir.path(), &["verify", "--data", "db"]);
        assert_eq!(output.status.code(), Some(1), "byte {offset}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("DAMAGED") && text.contains(".blk"), "byte {offset}: {text}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "verify wrote");
        assert!(done(dir.path(), &["inspect", "--data", "db"]).contains("1 blocks"));
    }
}

#[test]
fn readers_work_beside_a_writer_and_writers_say_who_it_is() {
    let dir = imported();
    let db = Db::open(dir.path().join("db")).unwrap();
    let mut batch = Batch::new();
    batch.push_named("live", &[], Timestamp::from_secs(1), ValueRef::I64(7)).unwrap();
    db.write(&mut batch).unwrap();
    assert!(done(dir.path(), &["query", "--data", "db", "live"]).contains("  7\n"));
    assert!(done(dir.path(), &["stats", "--data", "db"]).contains("4 series, 5 samples"));
    assert!(done(dir.path(), &["inspect", "--data", "db"]).contains("with 5 samples that are not in blocks"));
    done(dir.path(), &["verify", "--data", "db"]);
    assert!(done(dir.path(), &["export", "--data", "db", "live"]).ends_with("live,,1000000000,7\n"));
    let process = std::process::id().to_string();
    for verb in [
        &["snapshot", "--data", "db", "copy"][..],
        &["delete", "--data", "db", "live"],
        &["compact", "--data", "db"],
    ] {
        assert!(fails(dir.path(), verb, 1).contains(&process), "{verb:?}");
    }
}

#[test]
fn snapshot_delete_and_compact_change_what_they_say() {
    let dir = imported();
    done(dir.path(), &["snapshot", "--data", "db", "copy"]);
    done(dir.path(), &["delete", "--data", "db", "cpu", "--from", "1700000030"]);
    done(dir.path(), &["compact", "--data", "db"]);
    let count =
        |data: &str| done(dir.path(), &["query", "--data", data, "cpu", "--agg", "count", "--by", ""]);
    assert_eq!((count("db"), count("copy")), ("2  {}\n".to_owned(), "3  {}\n".to_owned()));
    assert!(fails(dir.path(), &["snapshot", "--data", "db", "copy"], 1).contains("not empty"));
}

#[test]
fn the_demo_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let text = done(dir.path(), &["demo", "--quiet", "--seconds", "1.5", "--data", "demo"]);
    assert!(text.contains("SIGKILL") && text.contains("acknowledged samples, bit for bit"), "{text}");
    assert!(text.contains("bytes a sample") && text.contains("The data lies in demo"), "{text}");
    done(dir.path(), &["verify", "--data", "demo"]);
}
