//! The query language of Prometheus.
mod ast;
mod check;
mod duration;
mod format;
mod function;
mod labels;
mod lexer;
mod parser;

pub use ast::*;
pub use format::pretty;
pub use function::{FUNCTIONS, Function, Variadic};
pub use labels::Labels;
pub use parser::{NESTING_MAX, QUERY_SIZE_MAX, parse};
