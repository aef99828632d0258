//! Raw samples piece by piece, in bounded memory.

use std::sync::Arc;

use crate::error::Result;
use crate::model::Column;
use crate::query::budget::QueryReport;
use crate::query::result::{SeriesColumns, timestamps};
use crate::query::scan::{Context, Scan};
use crate::query::select::Selection;

/// A piece is handed out once it holds so many samples; one page more may be in it.
const PIECE_SAMPLE_COUNT: usize = 8 * 1024;

/// An iterator over the raw samples of a query: pieces of one series after the other in order of keys,
/// each in order of time, of some thousand samples. Made by [`Query::stream`](crate::Query::stream).
///
/// Holds one piece, and the pages that lie over one another where it stands.
#[derive(Debug)]
pub struct SampleStream {
    scan: Scan,
    selection: Arc<Selection>,
    report: QueryReport,
    /// The next series to open.
    next_series: usize,
    /// The next step of the open one.
    step: usize,
    done: bool,
}

impl SampleStream {
    pub(crate) fn new(context: Arc<Context>, selection: Arc<Selection>, report: QueryReport) -> Self {
        SampleStream { scan: Scan::new(context), selection, report, next_series: 0, step: 0, done: false }
    }

    /// What was done so far.
    pub fn report(&self) -> QueryReport {
        let mut report = self.report.clone();
        report.threads = 1;
        report.add(&self.scan.report);
        report
    }

    fn next_piece(&mut self) -> Result<Option<SeriesColumns>> {
        loop {
            let open = self.next_series.checked_sub(1).and_then(|at| self.selection.series.get(at));
            if let Some(chosen) = open
                && self.step < self.scan.step_count()
            {
                let (mut times, mut values) = (Vec::new(), Column::new(chosen.value_type));
                self.scan.reserve(PIECE_SAMPLE_COUNT, &mut times, &mut values);
                while self.step < self.scan.step_count() && times.len() < PIECE_SAMPLE_COUNT {
                    if !self.scan.skip(self.step) {
                        self.scan.read(self.step, &mut times, &mut values)?;
                    }
                    self.step += 1;
                }
                if let Some(key) = chosen.key.clone().filter(|_| !times.is_empty()) {
                    return Ok(Some(SeriesColumns { key, times: timestamps(times), values }));
                }
                continue;
            }
            let selection = Arc::clone(&self.selection);
            let Some(chosen) = selection.series.get(self.next_series) else { return Ok(None) };
            self.next_series += 1;
            let range = self.scan.context().range;
            self.scan.open(&selection, chosen, range)?;
            // A series that cannot be filtered has no step to take.
            self.step = if self.scan.takes_filter(chosen.value_type) { 0 } else { usize::MAX };
        }
    }
}

impl Iterator for SampleStream {
    type Item = Result<SeriesColumns>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let piece = self.next_piece().transpose();
        self.done = !matches!(piece, Some(Ok(_)));
        piece
    }
}
