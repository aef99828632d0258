//! Sessions in a database on a simulated disk, with a clock moved by hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::clock::ManualClock;
use crate::db::{Background, Batch, Db, Durability, Options};
use crate::env::Env;
use crate::model::{Selector, Timestamp, ValueRef};
use crate::{Error, ErrorKind};

struct World {
    env: Env,
    clock: ManualClock,
    db: Db,
}

impl World {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_secs(1_700_000_000));
        let env = Env::new(Env::simulated(7).fs, Arc::new(clock.clone()), 7);
        let db = Self::open(&env);
        World { env, clock, db }
    }

    fn open(env: &Env) -> Db {
        let options = Options { env: env.clone(), background: Background::Host, ..Options::default() };
        Db::open_with("data", options).unwrap()
    }

    /// The same data after closing and opening.
    fn reopen(self) -> Self {
        let World { env, clock, db } = self;
        db.close().unwrap();
        let db = Self::open(&env);
        World { env, clock, db }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn listed(&self, filter: &SessionFilter) -> Vec<SessionId> {
        self.db.sessions(filter).unwrap().into_iter().map(|summary| summary.id).collect()
    }
}

#[test]
fn a_session_is_read_back_whole_from_memory_and_from_disk() {
    let world = World::new();
    let info = SessionInfo::new("MyApp", "1.0.0").hostname("h").machine_id("m");
    let session = world.db.create_session_with(info.clone(), &SessionOptions::default()).unwrap();
    session.log_metric("response_time_ms", 123.45, ["api", "v2", "user"]).unwrap();
    session.log_metric("response_time_ms", 45.2, ["api", "v2", "user"]).unwrap();
    session.log_metric("http_requests", 100, [("endpoint", "users")]).unwrap();
    session.log_metric("memory_usage_mb", -0.0, NO_TAGS).unwrap();
    session.record(&SessionMetric::timer("t", 5.2).count(3).unit("seconds").tags(["a:b"])).unwrap();
    let event = SessionEvent::new("failed").exception("KeyError", "id").source("main.rs", 7, "main");
    session.record_event(&event.clone().at(Timestamp::from_secs(5))).unwrap();
    session.log_event("startup", json!({"config": "prod"})).unwrap();
    session.update_state(json!({"status": "running", "nested": {"field1": "value1"}})).unwrap();
    session.update_state(json!({"status": null})).unwrap();
    world.pass(3);
    session.end().unwrap();

    let check = |view: &SessionView| {
        assert_eq!(view.summary.info, info);
        assert_eq!(view.summary.status, SessionStatus::Ended);
        assert_eq!(view.summary.created_at, Timestamp::from_secs(1_700_000_000));
        assert_eq!(view.summary.ended_at, Some(Timestamp::from_secs(1_700_000_003)));
        let shown: Vec<_> =
            view.metrics.iter().map(|m| (m.name.as_str(), m.value, m.tags.join(" "))).collect();
        let expected = [
            ("response_time_ms", 123.45, "api v2 user"),
            ("response_time_ms", 45.2, "api v2 user"),
            ("http_requests", 100.0, "endpoint:users"),
            ("memory_usage_mb", 0.0, ""),
            ("t", 5.2, "a:b"),
        ];
        assert_eq!(shown, expected.map(|(name, value, tags)| (name, value, tags.to_owned())));
        assert!(view.metrics[3].value.is_sign_negative());
        assert_eq!((view.metrics[4].count, view.metrics[4].unit.as_deref()), (Some(3), Some("seconds")));
        assert_eq!(view.events[0], event.clone().at(Timestamp::from_secs(5)));
        assert_eq!(view.events[1].data, json!({"config": "prod"}));
        let state = json!({"product": "MyApp", "version": "1.0.0", "nested": {"field1": "value1"}});
        assert_eq!(view.state, state);
        assert_eq!((view.state_history.len(), view.unreadable_count), (2, 0));
    };
    check(&session.read().unwrap());
    let id = session.id();
    drop(session);
    world.db.flush().unwrap();
    check(&world.db.session(id).unwrap());
    let world = world.reopen();
    check(&world.db.session(id).unwrap());
}

#[test]
fn the_attributes_are_a_series_for_joins() {
    let world = World::new();
    let session = world.db.create_session("MyApp", "1.0.0").unwrap();
    world.pass(1);
    session.heartbeat().unwrap();
    session.end().unwrap();
    session.heartbeat().unwrap();
    let found = world.db.query(Selector::name("session_info")).run().unwrap();
    let id = session.id();
    let expected = format!(r#"session_info{{product="MyApp",session="{id}",version="1.0.0"}}"#);
    assert_eq!(found.series[0].key.to_string(), expected);
    assert_eq!(found.series[0].doubles(), [1.0, 1.0, 1.0]);
}

#[test]
fn the_newest_sessions_are_listed_first_page_by_page() {
    let world = World::new();
    let mut ids = Vec::new();
    for n in 0..50_u64 {
        // Some at one instant, some hours apart.
        if n % 5 == 0 {
            world.pass(n * 3_600);
        }
        let product = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(world.db.create_session(product, "1").unwrap().id());
        if n == 25 {
            world.db.flush().unwrap();
        }
    }
    ids.reverse();
    assert_eq!(world.listed(&SessionFilter::default()), ids);
    let mut paged = Vec::new();
    let mut filter = SessionFilter::default().limit(7);
    loop {
        let page = world.listed(&filter);
        filter.before = page.last().copied();
        if page.is_empty() {
            break;
        }
        assert!(page.len() == 7 || paged.len() + page.len() == 50);
        paged.extend(page);
    }
    assert_eq!(paged, ids);
    let odd: Vec<SessionId> = ids.iter().copied().step_by(2).collect();
    assert_eq!(world.listed(&SessionFilter::default().product("odd")), odd);
    assert_eq!(world.listed(&SessionFilter::default().product("odd").limit(3)), odd[..3]);
    assert!(world.listed(&SessionFilter::default().product("none")).is_empty());
    let version = SessionFilter { version: Some("2".to_owned()), ..SessionFilter::default() };
    assert!(world.listed(&version).is_empty());
    let range = ids[30].created_at()..ids[20].created_at();
    let between = SessionFilter { range: range.into(), ..SessionFilter::default() };
    assert_eq!(world.listed(&between), ids[21..=30]);
}

#[test]
fn lists_say_how_sessions_stand() {
    let world = World::new();
    let create = |machine: &str| {
        let info = SessionInfo::new("p", "1").machine_id(machine);
        world.db.create_session_with(info, &SessionOptions::default()).unwrap()
    };
    let (active, silent, moved, ended, crashed) =
        (create("a"), create("b"), create("c"), create("d"), create("e"));
    silent.heartbeat().unwrap();
    moved.heartbeat().unwrap();
    ended.heartbeat().unwrap();
    ended.end().unwrap();
    ended.log_event("afterwards", json!(null)).unwrap();
    crashed.crash("segfault").unwrap();
    world.pass(61);
    let next = create("c");
    let expected = [
        (&next, SessionStatus::Active),
        (&crashed, SessionStatus::Crashed),
        (&ended, SessionStatus::Ended),
        (&moved, SessionStatus::Crashed),
        (&silent, SessionStatus::Suspended),
        (&active, SessionStatus::Active),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(session, status)| (session.id(), status)).collect();
    for flushed in [false, true] {
        if flushed {
            world.db.flush().unwrap();
        }
        let listed = world.db.sessions(&SessionFilter::default()).unwrap();
        let listed: Vec<_> = listed.into_iter().map(|summary| (summary.id, summary.status)).collect();
        assert_eq!(listed, expected);
        for (id, status) in &expected {
            assert_eq!(world.db.session(*id).unwrap().summary.status, *status, "{id}");
        }
        let only = SessionFilter::default().status(SessionStatus::Crashed);
        assert_eq!(world.listed(&only), [crashed.id(), moved.id()]);
        assert_eq!(world.listed(&only.limit(1)), [crashed.id()]);
    }
    let events = crashed.read().unwrap().events;
    assert_eq!(
        (events[0].name.as_str(), &events[0].data["reason"]),
        ("session_crashed_detected", &json!("segfault"))
    );
}

#[test]
fn a_session_is_resumed_after_reopening() {
    let world = World::new();
    let session = world.db.create_session("p", "1").unwrap();
    let id = session.id();
    session.record(&SessionMetric::timer("t", 1).unit("s")).unwrap();
    session.end().unwrap();
    drop(session);
    let world = world.reopen();
    let attached = world.db.attach_session(id, &SessionOptions::default()).unwrap();
    attached.log_metric("t", 2, NO_TAGS).unwrap();
    attached.heartbeat().unwrap();
    assert_eq!(attached.read().unwrap().summary.status, SessionStatus::Ended);
    let resumed = world.db.resume_session(id).unwrap();
    let view = resumed.read().unwrap();
    assert_eq!((view.summary.status, view.summary.ended_at), (SessionStatus::Active, None));
    let said: Vec<_> = view.metrics.iter().map(|m| (m.value, m.kind, m.unit.is_some())).collect();
    assert_eq!(said, [(1.0, SessionMetricKind::Timer, true), (2.0, SessionMetricKind::Gauge, false)]);
    resumed.end().unwrap();
    assert_eq!(world.db.sessions(&SessionFilter::default()).unwrap()[0].status, SessionStatus::Ended);
}

#[test]
fn one_metric_is_compared_over_sessions() {
    let world = World::new();
    let sessions: Vec<Session> = (0..3).map(|_| world.db.create_session("p", "1").unwrap()).collect();
    for step in 0..3 {
        world.pass(1);
        for (n, session) in (0..).zip(&sessions) {
            session.log_metric("loss", f64::from(10 * n + step), NO_TAGS).unwrap();
        }
    }
    let ids = [sessions[2].id(), sessions[0].id()];
    let compared = world.db.compare_sessions("loss", &ids).unwrap();
    let values: Vec<_> = compared.iter().map(|series| (series.session, series.values.clone())).collect();
    assert_eq!(values, [(ids[0], vec![20.0, 21.0, 22.0]), (ids[1], vec![0.0, 1.0, 2.0])]);
    let elapsed: Vec<i64> = compared[1].elapsed().map(|nanos| nanos / 1_000_000_000).collect();
    assert_eq!(elapsed, [1, 2, 3]);
    assert!(world.db.compare_sessions("loss", &[]).unwrap().is_empty());
}

#[test]
fn a_deleted_session_is_gone_and_the_others_stay() {
    let world = World::new();
    let (gone, stays) =
        (world.db.create_session("p", "1").unwrap(), world.db.create_session("p", "1").unwrap());
    gone.log_metric("m", 1, NO_TAGS).unwrap();
    stays.log_metric("m", 2, NO_TAGS).unwrap();
    world.db.delete_session(gone.id()).unwrap();
    assert_eq!(world.db.session(gone.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.db.delete_session(gone.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.db.resume_session(gone.id()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(world.listed(&SessionFilter::default()), [stays.id()]);
    assert_eq!(world.db.session(stays.id()).unwrap().metrics.len(), 1);
    assert_eq!(world.db.compare_sessions("m", &[gone.id(), stays.id()]).unwrap().len(), 1);
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: crate::Result<T>, part: &str) {
    let error: Error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let world = World::new();
    refused(world.db.create_session("", "1"), "product:");
    let session = world.db.create_session("p", "1").unwrap();
    refused(session.log_metric("", 1, NO_TAGS), "name:");
    refused(session.log_metric("session_events", 1, NO_TAGS), "name:");
    refused(session.log_metric("m", f64::NAN, NO_TAGS), "value:");
    refused(session.log_metric("m", 1, ["__name__:1"]), "name itself");
    refused(session.log_event("", json!(1)), "name:");
    refused(session.update_state(json!([1])), "state:");
    refused(session.log_event("big", json!("x".repeat(SESSION_PAYLOAD_SIZE_MAX))), "more than 1048576");
    refused(world.db.log_metric("", 1, NO_TAGS), "name:");
    let view = session.read().unwrap();
    assert!(view.metrics.is_empty() && view.events.is_empty() && view.state_history.is_empty());
}

#[test]
fn times_given_are_kept_and_equal_ones_told_apart() {
    let world = World::new();
    let session = world.db.create_session("p", "1").unwrap();
    let at = Timestamp::from_millis(1_699_999_000_123);
    for value in [1, 2, 3] {
        session.record(&SessionMetric::gauge("m", value).at(at)).unwrap();
    }
    session.record_event(&SessionEvent::new("e").at(at)).unwrap();
    session.record_event(&SessionEvent::new("f").at(at)).unwrap();
    session.update_state_at(json!({"a": 1}), Some(at)).unwrap();
    let view = session.read().unwrap();
    let samples: Vec<_> = view.metrics.iter().map(|m| (m.time.nanos() - at.nanos(), m.value)).collect();
    assert_eq!(samples, [(0, 1.0), (1, 2.0), (2, 3.0)]);
    assert!(view.events.iter().all(|event| event.time == Some(at)));
    assert_eq!((view.events.len(), view.state_history[0].0), (2, at));
}

#[test]
fn metrics_are_as_durable_as_asked_for() {
    let world = World::new();
    let options = SessionOptions { metric_durability: Durability::Sync };
    let session = world.db.create_session_with(SessionInfo::new("p", "1"), &options).unwrap();
    session.log_metric("m", 1, NO_TAGS).unwrap();
    session.log_metric("m", 2, NO_TAGS).unwrap();
    assert_eq!(session.read().unwrap().metrics.len(), 2);
    world.db.log_metric("free", 3, ["api", "k:v"]).unwrap();
    let free = world.db.query(Selector::name("free")).run().unwrap();
    assert_eq!(free.series[0].key.to_string(), r#"free{api="true",k="v"}"#);
}

#[test]
fn entries_that_others_wrote_do_no_harm() {
    let world = World::new();
    let session = world.db.create_session("p", "1").unwrap();
    let id = session.id().to_string();
    let mut batch = Batch::new();
    let time = world.env.stamp();
    batch.push_named("session_events", &[("session", &id)], time, ValueRef::Bytes(b"\xff\x00")).unwrap();
    batch.push_named("session_log", &[("product", "p")], time, ValueRef::Bytes(b"{}")).unwrap();
    batch.push_named("text", &[("session", &id)], time, ValueRef::Bytes(b"x")).unwrap();
    batch.push_named("count", &[("session", &id)], time, ValueRef::I64(5)).unwrap();
    world.db.write(&mut batch).unwrap();
    assert_eq!(session.read().unwrap().unreadable_count, 1);
    assert_eq!(world.listed(&SessionFilter::default()), [session.id()]);
}

fn count_of(db: &Db, selector: &Selector) -> usize {
    db.query(selector.clone()).run().unwrap().series.iter().map(|series| series.times.len()).sum()
}

#[test]
fn values_held_back_are_seen_by_whoever_asks() {
    let world = World::new();
    let selector = Selector::name("m");
    let sessions: Vec<Session> = (0..1_500).map(|_| world.db.create_session("p", "1").unwrap()).collect();
    for (number, session) in sessions.iter().enumerate() {
        session.log_metric("m", number as f64, NO_TAGS).unwrap();
        if number % 500 == 0 {
            assert_eq!(count_of(&world.db, &selector), number + 1);
        }
    }
    assert_eq!(count_of(&world.db, &selector), 1_500);
    // More than one buffer holds, without an entry between.
    (0..1_000).for_each(|n| sessions[0].log_metric("m", n, NO_TAGS).unwrap());
    sessions[1].log_metric("m", 5, NO_TAGS).unwrap();
    assert_eq!(count_of(&world.db, &selector), 2_501);
    sessions[2].log_metric("m", 6, NO_TAGS).unwrap();
    world.db.delete(&selector, crate::TimeRange::ALL).unwrap();
    assert_eq!(count_of(&world.db, &selector), 0, "what was held back was logged before the delete");
    sessions[3].log_metric("m", 7, NO_TAGS).unwrap();
    drop(sessions);
    let world = world.reopen();
    assert_eq!(count_of(&world.db, &selector), 1);
}

#[test]
fn values_held_back_are_in_the_log_after_the_next_entry_or_sync() {
    let world = World::new();
    let session = world.db.create_session("p", "1").unwrap();
    let logged = || {
        let options = Options { env: world.env.clone(), ..Options::default() };
        let reader = Db::open_reader_with("data", options).unwrap();
        let found = reader.query(Selector::name("m")).run().unwrap();
        found.series.iter().map(|series| series.times.len()).sum::<usize>()
    };
    session.log_metric("m", 1, NO_TAGS).unwrap();
    assert_eq!(logged(), 0);
    session.log_event("e", serde_json::Value::Null).unwrap();
    assert_eq!(logged(), 1);
    session.log_metric("m", 2, NO_TAGS).unwrap();
    world.db.sync().unwrap();
    assert_eq!(logged(), 2);
    session.log_metric("m", 3, NO_TAGS).unwrap();
    world.db.flush().unwrap();
    assert_eq!(logged(), 3);
}

#[test]
fn a_value_that_is_refused_keeps_no_event_from_being_written() {
    let world = World::new();
    let session = world.db.create_session("p", "1").unwrap();
    session.log_metric("odd", 1, NO_TAGS).unwrap();
    session.log_metric("good", 1, NO_TAGS).unwrap();
    // Somebody writes integers under the name before the doubles get there.
    let id = session.id().to_string();
    let mut batch = Batch::new();
    batch.push_named("odd", &[("session", &id)], world.env.stamp(), ValueRef::I64(5)).unwrap();
    world.db.write(&mut batch).unwrap();
    let error = session.log_event("e", serde_json::Value::Null).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("odd"), "{error}");
    let view = session.read().unwrap();
    assert_eq!((view.events.len(), view.metrics.len()), (1, 1));
    assert_eq!(view.metrics[0].name, "good");
    session.log_event("f", serde_json::Value::Null).unwrap();
    session.log_metric("good", 2, NO_TAGS).unwrap();
    world.db.close().unwrap();
    assert_eq!(session.log_metric("good", 3, NO_TAGS).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn queries_beside_writers_see_every_value_that_was_logged_before_them() {
    let options = Options { env: Env::simulated(3), background: Background::Host, ..Options::default() };
    let db = Db::open_with("data", options).unwrap();
    let selector = Selector::name("m");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let session = db.create_session("p", "1").unwrap();
                let own = selector.clone().with("session", session.id().to_string());
                for n in 1..=300 {
                    session.log_metric("m", n as f64, NO_TAGS).unwrap();
                    if n % 7 == 0 {
                        session.log_event("e", serde_json::Value::Null).unwrap();
                    }
                    if n % 3 == 0 {
                        assert_eq!(count_of(&db, &own), n);
                    }
                }
            });
        }
    });
}

#[test]
fn many_short_sessions_are_listed_from_any_density() {
    let world = World::new();
    let mut ids = Vec::new();
    for _ in 0..5_000 {
        ids.push(world.db.create_session("p", "1").unwrap().id());
    }
    world.pass(86_400);
    ids.push(world.db.create_session("p", "1").unwrap().id());
    ids.reverse();
    assert_eq!(world.listed(&SessionFilter::default()), ids[..100]);
    let last = SessionFilter { before: Some(ids[4_990]), ..SessionFilter::default() };
    assert_eq!(world.listed(&last), ids[4_991..]);
}
