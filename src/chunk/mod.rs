//! A run of samples of one series: pages, their aggregates, and the rule by which they merge.

pub(crate) mod merge;
