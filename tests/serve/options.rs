//! Limits of `icecore serve` as people set them: by flag and by environment.
