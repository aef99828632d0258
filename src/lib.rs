//! Embedded time-series storage engine: exact, compressed, crash-safe history of metrics, sessions
//! and events on local disk.

#[doc(hidden)]
pub mod bench;
#[allow(dead_code, unused_imports, reason = "the layers above take it into use one by one")]
mod block;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
mod chunk;
mod clock;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
mod codec;
mod compact;
mod db;
mod env;
mod error;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
pub mod fs;
mod head;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
mod index;
pub mod ingest;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
mod manifest;
mod model;
#[cfg(feature = "promql")]
pub mod promql;
pub mod protocol;
#[allow(dead_code, reason = "the layers above take it into use one by one")]
mod query;
#[cfg(feature = "server")]
pub mod server;
mod wal;

pub use block::ReadMode;
pub use clock::{Clock, ManualClock, SystemClock};
pub use db::inspect;
pub use db::{
    AtDiskCap, Background, Batch, Db, Durability, Options, Reader, Receipt, Recovery, Series, Stats,
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
