//! The index of a block: tags to series and back. Pure: it takes and gives bytes and knows no file.
//!
//! A *symbol* is a tag (key and value; the metric name has the key `__name__`), or a key alone. All symbols
//! of a block, sorted, lie in one `fst`, which gives each its *rank*. Each rank has *postings*: the sorted
//! ordinals of the series that carry it. A series is kept as the ranks of its name and tags, packed in
//! columns with those beside it. Byte layouts are in `docs/format.md`, "Blocks"; `block` writes and reads
//! the sections, and checks their CRC before this module sees a byte.

mod postings;
mod reader;
mod series;
mod symbol;
mod writer;

#[cfg(test)]
pub(crate) use postings::LIST_COUNT_MAX;
pub(crate) use postings::read_postings;
pub(crate) use reader::{Index, IndexSections};
pub(crate) use writer::{IndexWriter, KeyStatistics, SortedIndex};
