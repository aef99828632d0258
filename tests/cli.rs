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

/// Every file below a directory and its bytes.
fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(tree(&path));
        } else {
            files.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    files.sort();
    files
}

/// Every verb that takes a database, with arguments that are otherwise right.
fn verbs(data: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["query", "--data", data, "cpu"],
        vec!["export", "--data", data],
        vec!["stats", "--data", data],
        vec!["inspect", "--data", data],
        vec!["verify", "--data", data],
        vec!["snapshot", "--data", data, "target"],
        vec!["delete", "--data", data, "cpu"],
        vec!["compact", "--data", data],
        vec!["import", "--data", data, "in.csv"],
    ]
}

#[test]
fn what_is_no_database_is_named_and_left_alone_by_every_verb() {
    let dir = imported();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("letters")).unwrap();
    fs::write(path("letters/letter.txt"), "Dear all,").unwrap();
    fs::write(path("file"), "no directory").unwrap();
    // A snapshot that was cut off has everything but its manifest.
    done(dir.path(), &["snapshot", "--data", "db", "half"]);
    fs::remove_file(path("half/MANIFEST")).unwrap();
    fs::create_dir(path("broken")).unwrap();
    fs::create_dir(path("broken/wal")).unwrap();
    fs::create_dir(path("broken/blocks")).unwrap();
    fs::write(path("broken/MANIFEST"), "ICMF and then nothing that makes sense, for many bytes").unwrap();
    for (data, reason) in [
        ("letters", "letter.txt"),
        ("file", "file"),
        ("half", "a snapshot that was not finished"),
        ("broken", "MANIFEST"),
    ] {
        let before = tree(dir.path());
        for verb in verbs(data) {
            let output = icecore(dir.path(), &verb);
            assert_eq!(output.status.code(), Some(1), "{verb:?}");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8(said).unwrap();
            assert!(said.contains(reason) && !said.contains("panicked"), "{verb:?}: {said}");
            let lock = path("broken/LOCK");
            if lock.exists() {
                fs::remove_file(lock).unwrap();
            }
            assert!(tree(dir.path()) == before, "{verb:?} changed something");
        }
    }
    for verb in verbs("absent").into_iter().filter(|verb| verb[0] != "import") {
        assert!(fails(dir.path(), &verb, 1).contains("there is no database"), "{verb:?}");
        assert!(!path("absent").exists(), "{verb:?}");
    }
}

#[test]
fn bad_lines_are_rejected_with_their_number_and_reason_and_good_ones_kept() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(1025);
    let long_value = "v".repeat(16 * 1024 + 1);
    let many = (0..129).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(";");
    let lines: Vec<(String, &str)> = vec![
        ("cpu,host=a,1,1".into(), ""),
        ("cpu,host=a;host=b,1,1".into(), "host"),
        (",host=a,1,1".into(), "the name is empty"),
        ("cpu,=a,1,1".into(), "key"),
        ("cpu,host,1,1".into(), "a tag without '='"),
        ("cpu,__name__=a,1,1".into(), "__name__"),
        (format!("{long},host=a,1,1"), "1025"),
        (format!("cpu,{long}=a,1,1"), "1025"),
        (format!("cpu,host={long_value},1,1"), "16385"),
        (format!("cpu,{many},1,1"), "128 tags"),
        ("cpu,host=a,9223372036854775807,1".into(), "not a time"),
        ("cpu,host=a,-9223372036855,1".into(), "not a time"),
        ("cpu,host=a,1.5,1".into(), "not a time"),
        ("cpu,host=a,1,one".into(), "not a number"),
        ("cpu,host=a,1".into(), "too short"),
        ("cpu,host=a,2,1,more,and more".into(), ""),
        ("events,host=a,1,1".into(), "bytes"),
        ("cpu,host=a,3,1".into(), ""),
    ];
    let db = Db::open(dir.path().join("db")).unwrap();
    let mut batch = Batch::new();
    batch.push_named("events", &[("host", "a")], Timestamp::from_secs(1), ValueRef::Bytes(b"text")).unwrap();
    db.write(&mut batch).unwrap();
    db.close().unwrap();
    let mut text = "series,tags,timestamp_ms,value\n".to_owned();
    lines.iter().for_each(|(line, _)| text += &format!("{line}\n"));
    fs::write(dir.path().join("bad.csv"), text).unwrap();
    done(dir.path(), &["import", "--data", "db", "bad.csv"]);
    let rejects = fs::read_to_string(dir.path().join("bad.csv.rejects")).unwrap();
    let mut rejects = rejects.lines();
    for (number, (line, reason)) in (2..).zip(&lines).filter(|(_, (_, reason))| !reason.is_empty()) {
        let said = rejects.next().unwrap_or_else(|| panic!("line {number} was taken: {line}"));
        assert!(said.starts_with(&format!("bad.csv: line {number}: ")), "{said}");
        assert!(said.contains(reason), "{reason}: {said}");
    }
    assert_eq!(rejects.next(), None);
    let counts = done(dir.path(), &["query", "--data", "db", "{}", "--agg", "count"]);
    assert_eq!(counts, "3  cpu{host=\"a\"}\n1  events{host=\"a\"}\n");
}

#[test]
fn files_that_end_too_early_or_are_something_else_fail_and_keep_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    let mut text = "series,tags,timestamp_ms,value\n".to_owned();
    (0..100_000).for_each(|n| text += &format!("m,,{n},{}\n", n * 7919 % 1000));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, text.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    write("cut.csv.gz", &packed[..packed.len() * 3 / 4]);
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 0x55;
    write("flipped.csv.gz", &flipped);
    write("junk.csv.gz", &[&[0x1f, 0x8b][..], &[7; 1000]].concat());
    write("empty.csv", b"");
    write("other.csv", b"a,b,c\n1,2,3\n");
    write("binary.csv", &[0xff; 5000]);
    for name in [
        "cut.csv.gz",
        "flipped.csv.gz",
        "junk.csv.gz",
        "empty.csv",
        "other.csv",
        "binary.csv",
        ".",
        "none.csv",
    ] {
        let error = fails(dir.path(), &["import", "--data", "db", "--format", "csv", name], 1);
        assert!(error.contains(name) && !error.contains("panicked"), "{name}: {error}");
    }
    // What came before the end is there, and the database is sound.
    let count = done(dir.path(), &["query", "--data", "db", "m", "--agg", "count"]);
    assert!(
        count.split_whitespace().next().unwrap().replace(',', "").parse::<u64>().unwrap() > 10_000,
        "{count}"
    );
    done(dir.path(), &["verify", "--data", "db"]);
    assert!(
        fails(dir.path(), &["import", "--data", "db", "other.csv"], 1).contains("it has \"a\", \"b\", \"c\"")
    );
    let text = [
        &b"up 1 1000\n"[..],
        &[0xff; 50],
        b"\nup 2 2000\nup{a=\"1\",a=\"2\"} 1 1\nup 3 99999999999999999999\n",
    ]
    .concat();
    write("odd.prom", &text);
    done(dir.path(), &["import", "--data", "db", "odd.prom"]);
    let rejects = fs::read_to_string(dir.path().join("odd.prom.rejects")).unwrap();
    let numbers: Vec<&str> = rejects.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(numbers, ["line 2", "line 4", "line 5"], "{rejects}");
    let rows = done(dir.path(), &["query", "--data", "db", "up", "--format", "csv"]);
    assert!(rows.ends_with("up,,1000000000,1\nup,,2000000000,2\n"), "{rows}");
}

#[test]
fn arguments_that_make_no_sense_are_refused_before_anything_is_done() {
    let dir = imported();
    let before = tree(dir.path());
    let query = |more: &[&'static str]| [&["query", "--data", "db", "cpu"], more].concat();
    for arguments in [
        query(&["--agg", "mode"]),
        query(&["--agg", "quantile(2)"]),
        query(&["--agg", "max", "--window", "0s"]),
        query(&["--agg", "max", "--window", "-1m"]),
        query(&["--agg", "max", "--window", "5 lightyears"]),
        query(&["--window", "1m"]),
        query(&["--agg", "max", "--top", "-1"]),
        query(&["--agg", "max", "--top", "1", "--bottom", "1"]),
        query(&["--agg", "max", "--by", "a", "--without", "b"]),
        query(&["--where", "about 3"]),
        query(&["--format", "xml"]),
        query(&["--from", "2026-13-01"]),
        query(&["--from", "99999999999999999999"]),
        query(&["--to", "2020-01-01", "--from", "2021-01-01"]),
        vec!["query", "cpu"],
        vec!["query", "--data", "db", "cpu{host=~\"(\"}"],
        vec!["query", "--data", "db", "cpu{host=\"a\""],
        vec!["query", "--data", "db", "cpu{host}"],
        vec!["delete", "--data", "db"],
        vec!["delete", "--data", "db", "cpu{"],
        vec!["delete", "--data", "db", "cpu", "--from", "2", "--to", "1"],
        vec!["snapshot", "--data", "db"],
        vec!["import", "--data", "db"],
        vec!["import", "--data", "db", "in.csv", "--delimiter", "ab"],
        vec!["import", "--data", "db", "in.csv", "--time-unit", "weeks"],
        vec!["import", "--data", "db", "in.csv", "--format", "parquet"],
        vec!["import", "--data", "db", "in.csv", "--at", "noon"],
        vec!["export", "--data", "db", "--format", "xml"],
        vec!["stats", "--data", "db", "--top", "many"],
        vec!["verify"],
        vec!["inspect", "--data", "db", "--series", "{{"],
        vec![],
    ] {
        let error = fails(dir.path(), &arguments, 2);
        assert!(!error.is_empty() && !error.contains("panicked"), "{arguments:?}: {error}");
    }
    for arguments in [
        vec!["snapshot", "--data", "db", "in.csv"],
        vec!["snapshot", "--data", "db", "db"],
        vec!["snapshot", "--data", "db", "in.csv/below"],
        vec!["export", "--data", "db", "--output", "in.csv"],
        vec!["export", "--data", "db", "--output", "no/such/place"],
        vec!["import", "--data", "db", "in.csv", "--value", "none"],
        vec!["import", "--data", "db", "in.csv", "--integer", "none"],
        vec!["import", "--data", "db", "in.csv", "--rejects", "no/such/place"],
    ] {
        let error = fails(dir.path(), &arguments, 1);
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
    }
    let rows = done(dir.path(), &["export", "--data", "db"]);
    assert_eq!(rows.lines().count(), 5, "{rows}");
    assert_eq!(fs::read_to_string(dir.path().join("in.csv")).unwrap(), CSV);
    assert_eq!(before.iter().filter(|(path, _)| path.ends_with("in.csv")).count(), 1);
}

#[test]
fn tags_of_any_text_and_integers_survive_export_and_import() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = Db::open(&path).unwrap();
    let mut batch = Batch::new();
    let tags = [("path", "/a;b=c"), ("dir", "C:\\x\\"), ("k;=\\", "\\;"), ("lines", "a\nb,\"c\"")];
    let number = 9_007_199_254_740_993;
    batch.push_named("m", &tags, Timestamp::from_secs(1), ValueRef::I64(number)).unwrap();
    db.write(&mut batch).unwrap();
    db.close().unwrap();
    done(dir.path(), &["export", "--data", "db", "--output", "out.csv"]);
    done(dir.path(), &["import", "--data", "copy", "out.csv", "--integer", "value"]);
    for format in ["csv", "jsonl"] {
        let export = |data: &str| done(dir.path(), &["export", "--data", data, "--format", format]);
        assert_eq!(export("db"), export("copy"), "{format}");
    }
    let copy = Db::open(dir.path().join("copy")).unwrap();
    let series = copy.query("m").run().unwrap().series.remove(0);
    assert_eq!(series.values, icecore::Column::I64(vec![number]));
    assert!(tags.iter().all(|(key, value)| series.key.tag(key) == *value), "{}", series.key);
    drop(copy);
    // Without the option a number is a double, and another series of that name is one of integers.
    done(dir.path(), &["import", "--data", "copy", "out.csv"]);
    let columns = "when,requests,load\n1,17,0.5\n2,1.5,0.25\n";
    fs::write(dir.path().join("wide.csv"), columns).unwrap();
    let arguments = ["--time", "when", "--time-unit", "s", "--integer", "requests", "--value", "load"];
    done(dir.path(), &[&["import", "--data", "wide", "wide.csv"], &arguments[..]].concat());
    let rejects = fs::read_to_string(dir.path().join("wide.csv.rejects")).unwrap();
    assert_eq!(rejects, "wide.csv: line 3: requests is not an integer of 64 bits: \"1.5\"\n");
    let json = done(dir.path(), &["export", "--data", "wide", "--format", "jsonl"]);
    assert!(json.contains("\"type\":\"f64\"") && json.contains("\"type\":\"i64\""), "{json}");
}
