//! Feature tests through the public API, a module per feature.

mod engine;
#[cfg(any(feature = "server", feature = "cli"))]
mod exposition;
#[cfg(any(feature = "server", feature = "cli"))]
mod line;
mod fault;
mod model;
#[cfg(any(feature = "server", feature = "cli"))]
mod statsd;
