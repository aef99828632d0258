//! A run of samples of one series: pages, their aggregates, and the rule by which they merge.
//!
//! Called by head (a sealed run is a page), block, compaction and query. Pure: bytes in, bytes out. The
//! layouts are in `docs/format.md`, "Pages and codecs".

#![allow(unused_imports, reason = "the layers above take these names into use one by one")]

pub(crate) mod aggregate;
pub(crate) mod cut;
pub(crate) mod merge;
mod page;
pub(crate) mod record;
pub(crate) mod times;

pub(crate) use crate::codec::choose::{Effort, Encoding};
pub(crate) use aggregate::{Detail, Ends, PageAggregate, Summary, aggregate_of};
pub(crate) use cut::cut_pages;
pub(crate) use page::{EncodedPage, PAGE_SAMPLE_COUNT_MAX, decode_values, encode_page};
pub(crate) use record::{Context, PageMeta, SharedColumn, TimesMeta, put_page_meta, read_page_meta};
pub(crate) use times::{TimeColumn, TimeColumnRef, decode_times};
