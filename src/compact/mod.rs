//! Rewriting: heads into blocks, blocks into fewer and denser blocks.
//!
//! What to rewrite is decided by pure functions (`stretch`, `plan`); `flush` and `merge` carry it out
//! and leave blocks that are on the device and not yet live. `db::maintenance` makes them live.

pub(crate) mod flush;
pub(crate) mod merge;
pub(crate) mod plan;
mod rewrite;
pub(crate) mod stretch;

pub(crate) use rewrite::Target;
