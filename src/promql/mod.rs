//! The query language of Prometheus: parsed, planned and evaluated over any [`Source`] of series.
//!
//! ```text
//! text -> lexer -> parser -> check -> plan -> eval -> Output
//! ```
//!
//! The parser gives every node its place, for messages. The plan has times resolved and functions
//! bound; [`explain`] prints it. The evaluator takes each series through all steps of a query before
//! it looks at the next one, so memory follows what a query answers and not what it reads.
//!
//! Knows nothing of HTTP; the server maps [`ErrorKind`](crate::ErrorKind) to its answers: what
//! [`parse`] refuses is "bad data", what [`instant`] and [`range`] refuse failed in execution.
//!
//! ```
//! use icecore::promql::{self, Labels};
//! let expr = promql::parse("sum by (job) (rate(http_requests_total[5m]))")?;
//! assert_eq!(promql::pretty(&expr), "sum by (job) (rate(http_requests_total[5m]))");
//! # Ok::<(), icecore::Error>(())
//! ```

mod aggregate;
mod annotations;
mod answer;
mod ast;
mod binary;
mod budget;
mod call;
mod check;
mod datetime;
mod duration;
mod engine;
mod eval;
mod format;
mod function;
mod histogram;
mod info;
mod json;
mod kahan;
mod labelcalls;
mod labels;
mod lexer;
mod math;
mod merge;
mod order;
mod parser;
mod plan;
mod query;
mod ranking;
mod regression;
mod selector;
mod slide;
mod source;
mod statistics;
mod steps;
mod window;

pub use answer::{push_labels, push_point, push_value};
pub use ast::*;
pub use budget::{Deadline, Options, Stats};
pub use engine::EngineSource;
pub use format::{pretty, value_text};
pub use function::{FUNCTIONS, Function, Variadic};
pub use json::tree_json;
pub use labels::Labels;
pub use parser::{NESTING_MAX, QUERY_SIZE_MAX, parse, parse_selector};
pub use query::{
    Output, Point, RangeSeries, RangeTimes, Sample, Value, check_range, explain, instant, range,
};
pub use source::{Hints, SeriesStream, Source, WindowFunction, WindowStream, Windows};
pub use steps::{ABSENT, is_absent};
