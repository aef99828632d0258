//! Queries over sources in memory: against a plain map, and each promise alone.

mod memory;
mod model;
mod promises;
