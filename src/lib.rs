//! Embedded time-series storage engine: exact, compressed, crash-safe history of metrics, sessions
//! and events on local disk.
//!
//! A program opens a directory and has durable history:
//!
//! ```
//! use icecore::{Batch, Db, Timestamp};
//! # let dir = tempfile::tempdir()?;
//! let db = Db::open(dir.path().join("history"))?;
//! let load = db.series::<f64>("load", &[("host", "web-1")])?;
//! load.append(Timestamp::from_secs(1_700_000_000), 0.7)?;          // in memory; visible at once
//! let mut batch = Batch::new();
//! batch.push(&load, Timestamp::from_secs(1_700_000_001), 0.8)?;
//! db.write(&mut batch)?;                                            // in the operating system
//! db.sync()?;                                                       // on the device
//! assert_eq!(db.query("load").max().run()?.series[0].doubles(), [0.8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Ideas
//!
//! - A *series* is a metric name, a set of tags and a type ([`f64`], [`i64`] or bytes); a *sample* is a time in
//!   nanoseconds and a value. Samples are taken at any age and in any order; of two samples of one series at one
//!   time the later write wins.
//! - A write names its [`Durability`] and returns a [`Receipt`]; [`Db::wait_durable`] waits for more. A batch is
//!   kept whole or not at all.
//! - What goes in comes out bit for bit, NaN payloads and negative zeros included. Sums are exact until one rounding.
//! - [`Db::query`] reads ranges and aggregates, [`Db::open_reader`] reads beside a writer of another process,
//!   [`Db::snapshot`] makes an own database while writes go on.
//! - [`ingest`] has instruments, clients that send in the background, and sessions.
//!
//! # Modules
//!
//! | module | what |
//! |---|---|
//! | (root) | [`Db`], [`Batch`], [`Series`], [`Query`], [`Options`] and the words of the model |
//! | [`ingest`] | counters, gauges, histograms, summaries; metric clients; sessions |
//! | [`protocol`] | wire formats to samples, as pure functions |
//! | [`fs`] | the file system that the engine sees, real, simulated and failing, for tests of hosts |
//! | [`inspect`] | what lies in a database, and whether it is sound |
//! | `promql` | the query language of Prometheus (feature `promql`) |
//! | `server` | the REST frontend (feature `server`) |
//!
//! # Features
//!
//! None is on by default, and the engine needs none.
//!
//! | feature | brings |
//! |---|---|
//! | `promql` | parser and evaluator of PromQL |
//! | `client` | sending over HTTP, blocking, without TLS |
//! | `server` | the REST frontend and its protocols |
//! | `cli` | the verbs of the `icecore` binary |
//! | `full` | all of them |
//!
//! # Versions
//!
//! The interface follows semantic versioning; raising `rust-version` is a minor release. The format on disk is versioned by
//! itself (`docs/format.md`): every later release reads what an earlier one wrote, and an earlier release refuses
//! what a later one wrote with [`ErrorKind::UnsupportedVersion`], touching nothing.

#[doc(hidden)]
pub mod bench;
mod block;
mod chunk;
mod clock;
mod codec;
mod compact;
mod db;
mod env;
mod error;
pub mod fs;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod head;
mod index;
pub mod ingest;
mod ledger;
mod manifest;
mod model;
#[cfg(feature = "promql")]
pub mod promql;
pub mod protocol;
mod query;
#[cfg(feature = "server")]
pub mod server;
mod sync;
mod wal;

pub use block::ReadMode;
pub use clock::{Clock, ManualClock, SystemClock};
pub use db::inspect;
pub use db::{
    AtDiskCap, Background, Batch, BlockStats, Db, Durability, Options, Reader, Receipt, Recovery, Series,
    Stats,
};
pub use env::Env;
pub use error::{Error, ErrorKind, Result};
pub use model::*;
pub use query::{
    Aggregate, CancelToken, Cardinality, Compare, Damaged, PairCount, Query, QueryLimits, QueryReport,
    QueryResult, SELECTOR_SIZE_MAX, SampleStream, SeriesColumns,
};
pub use wal::WAL_RECORD_SIZE_MAX;

/// The example of the README, compiled and run as a doc-test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
