//! The patterns of the sessions' metrics page, in Rust: `cargo run --example session_patterns`.
//!
//! Every call returns an error that a program may ignore: nothing here is worth failing for.

use std::time::Instant;

use icecore::ingest::{NO_TAGS, SessionEvent, SessionFilter, SessionInfo, SessionMetric, SessionOptions};
use icecore::{Db, Result};
use serde_json::json;

fn main() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("icecore-session-patterns-{}", std::process::id()));
    let db = Db::open(&directory)?;
    let info = SessionInfo::new("MyApp", "1.0.0").hostname("web-1").machine_id("c0ffee");
    let session = db.create_session_with(info, &SessionOptions::default())?;

    // Metric types: performance, resources, business, counters.
    session.log_metric("response_time_ms", 45.2, ["api", "endpoint:users"])?;
    session.log_metric("memory_usage_mb", 1024.5, ["heap", "java"])?;
    session.log_metric("transactions_processed", 1523, ["payment", "success"])?;
    session.record(&SessionMetric::counter("error_count", 3).tags(["validation", "user_input"]))?;

    session.log_metric("database_query_time_ms", 45.6, NO_TAGS)?;

    // Units belong into names.
    session.log_metric("duration_seconds", 5.2, NO_TAGS)?;
    session.log_metric("file_size_bytes", 1_048_576, NO_TAGS)?;
    session.log_metric("temperature_celsius", 22.5, NO_TAGS)?;

    // Tags for dimensions: one metric, as strings or as pairs.
    session.log_metric("http_requests", 100, ["endpoint:users", "method:GET"])?;
    session.log_metric("http_requests", 50, [("endpoint", "posts"), ("method", "POST")])?;

    // Response times.
    let start = Instant::now();
    let answer = api_call();
    let duration_ms = start.elapsed().as_secs_f64() * 1000.0;
    session.log_metric("api_response_time_ms", duration_ms, ["endpoint:users", "status:200"])?;

    // Resource usage, throughput, error rates.
    session.log_metric("cpu_usage_percent", 12.5, NO_TAGS)?;
    session.log_metric("items_processed", answer.len() as u32, ["batch_id:123", "type:user_data"])?;
    let (total, errors) = (100.0, 5.0);
    session.log_metric("error_rate_percent", errors / total * 100.0, ["operation:import"])?;

    // At the frequency at which it changes.
    let mut queue: Vec<u32> = (0..10).collect();
    while queue.pop().is_some() {
        session.log_metric("queue_size", queue.len() as u32, ["priority:high"])?;
    }

    session.log_metric("disk_usage_gb", 118.4, NO_TAGS)?;

    // Metric or event: a number, or something that happened.
    session.log_metric("api_latency_ms", 123.4, NO_TAGS)?;
    session.log_event("api_call_completed", json!({"endpoint": "/users", "status": 200}))?;
    let error = "seven".parse::<u32>().unwrap_err();
    session.record_event(
        &SessionEvent::new("import_failed").exception("ParseIntError", &error.to_string()).source(
            file!(),
            55,
            "main",
        ),
    )?;
    session.update_state(json!({"status": "running", "import": {"row": 7}}))?;
    session.update_state(json!({"status": null}))?;
    session.heartbeat()?;
    session.end()?;

    let view = session.read()?;
    println!("{} of {} {}", view.summary.id, view.summary.info.product, view.summary.info.version);
    for sample in &view.metrics {
        println!("  {} {} {:?}", sample.name, sample.value, sample.tags);
    }
    for event in &view.events {
        println!("  {} {} {}", event.level(), event.name, event.data);
    }
    println!("  state {}", view.state);
    let series = db.query(r#"http_requests"#).with("endpoint", "users").run()?;
    println!("  {} = {:?}", series.series[0].key, series.series[0].doubles());
    println!("  {} session listed", db.sessions(&SessionFilter::default().product("MyApp"))?.len());

    db.close()?;
    // Only an example throws its data away.
    std::fs::remove_dir_all(&directory).ok();
    Ok(())
}

fn api_call() -> Vec<&'static str> {
    vec!["ada", "grace"]
}
