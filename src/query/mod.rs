//! Reading: from a pinned set of sources to answers.
//!
//! [`Query`] is the builder that hosts see. A query selects series in every source ([`select`]), goes
//! through each of them in order of time ([`scan`]), folds samples or page aggregates into windows
//! ([`window`], [`fold`]) and those into groups ([`group`]), within its limits ([`budget`]).
//! `docs/query.md` defines what each answer is.

mod aggregate;
mod block;
mod budget;
mod builder;
mod catalog;
mod fold;
mod group;
pub(crate) mod head;
mod histogram;
mod result;
mod run;
mod scan;
mod select;
mod selector;
pub(crate) mod source;
mod stream;
#[cfg(test)]
mod tests;
mod total;
mod window;

pub use aggregate::{Aggregate, Compare};
pub use budget::{CancelToken, QueryLimits, QueryReport};
pub use builder::Query;
pub use catalog::{Cardinality, PairCount};
pub use result::{QueryResult, SeriesColumns};
pub use selector::SELECTOR_SIZE_MAX;
pub use source::Damaged;
pub use stream::SampleStream;
