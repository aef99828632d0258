//! Feature tests through the public API, a module per feature.
