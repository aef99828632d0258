//! Feature tests through the public API, a module per feature.

mod engine;
#[cfg(any(feature = "server", feature = "cli"))]
mod exposition;
mod fault;
mod golden;
mod invariants;
#[cfg(any(feature = "server", feature = "cli"))]
mod line;
mod model;
mod scripts;
#[cfg(any(feature = "server", feature = "cli"))]
mod statsd;
