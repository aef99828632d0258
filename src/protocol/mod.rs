//! Text and wire formats, read from bytes and written to bytes: pure functions without sockets, clock
//! or database, called by `ingest`, by the server and by the command-line tool, and open to hosts that
//! speak these formats themselves.
//!
//! No input makes a function here panic, and none allocates more than in proportion to its length.
//! What a format calls a *label* is a tag here; names, keys and values are kept verbatim.
//!
//! | module | format | features |
//! |---|---|---|
//! | `body` | request bodies decompressed within a bound | `server` |
//! | `csv` | rows of CSV files | `cli`, `server` |
//! | [`exposition`] | text format 0.0.4 and OpenMetrics: writing; reading with `server` or `cli` | |
//! | [`label`] | rules for tags and bucket bounds that several formats share | |
//! | [`number`] | floats and decimal times as text | |
//! | `line` | InfluxDB line protocol | `server` or `cli` |
//! | `statsd` | StatsD and DogStatsD lines | `server` or `cli` |
//! | `metric_family` | pushed metrics as delimited protobuf | `server` |
//! | `otlp` | OTLP metrics, protobuf and JSON | `server` |
//! | `remote_read` | Prometheus remote read: samples and streamed chunks | `server` |
//! | `remote_write` | Prometheus remote write 1.0 and 2.0 | `server` |

#[cfg(feature = "server")]
pub mod body;
#[cfg(any(feature = "cli", feature = "server"))]
pub mod csv;
pub mod exposition;
pub mod label;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod line;
#[cfg(feature = "server")]
pub mod metric_family;
pub mod number;
#[cfg(feature = "server")]
pub mod otlp;
#[cfg(feature = "server")]
pub(crate) mod protobuf;
#[cfg(feature = "server")]
pub mod remote_read;
#[cfg(feature = "server")]
pub mod remote_write;
#[cfg(any(feature = "server", feature = "cli"))]
pub mod statsd;
