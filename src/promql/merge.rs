//! Series that come to have the same labels become one, as long as they never meet at a step.

use std::collections::HashMap;

use super::budget::Held;
use super::steps::{Series, is_absent};
use crate::error::{Error, Result};
use crate::promql::Labels;

/// Two samples of one vector have the same labels.
#[cold]
pub(super) fn same_labels() -> Error {
    Error::invalid_input("vector cannot contain metrics with the same labelset")
}

/// Collects series by their labels. One whose name is still to be dropped is another than one that keeps it:
/// in `a or -b` each step has the name of the side it is from.
pub(super) struct Merger<'h, 'b, 'o> {
    by_labels: HashMap<(Labels, bool), usize>,
    series: Vec<Series>,
    held: &'h Held<'b, 'o>,
}

impl<'h, 'b, 'o> Merger<'h, 'b, 'o> {
    pub(super) fn new(held: &'h Held<'b, 'o>) -> Self {
        Merger { by_labels: HashMap::new(), series: Vec::new(), held }
    }

    /// Adds a series.
    ///
    /// # Errors
    /// `InvalidInput` when one with the same labels has a sample at the same step.
    pub(super) fn add(&mut self, series: Series) -> Result<()> {
        let key = (series.labels.clone(), series.drop_name);
        let Some(index) = self.by_labels.get(&key).copied() else {
            self.held.grow(series.size())?;
            self.by_labels.insert(key, self.series.len());
            self.series.push(series);
            return Ok(());
        };
        let Some(known) = self.series.get_mut(index) else { return Ok(()) };
        for (slot, value) in known.values.iter_mut().zip(&series.values) {
            match (is_absent(*slot), is_absent(*value)) {
                (_, true) => {}
                (true, false) => *slot = *value,
                (false, false) => return Err(same_labels()),
            }
        }
        Ok(())
    }

    /// All series, in the order in which their labels first came.
    pub(super) fn into_series(self) -> Vec<Series> {
        self.series
    }
}
