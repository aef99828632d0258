//! From a frozen head to blocks.

use crate::block::{BlockMeta, LsnRange};
use crate::chunk::Effort;
use crate::chunk::merge::{ColumnSlice, PageMerger, PageSpan, Step, plan_steps};
use crate::compact::rewrite::{Outputs, Shape, Target, keep};
use crate::compact::stretch::{Span, stretches};
use crate::error::Result;
use crate::head::{Head, HeadSamples, Scratch};
use crate::model::{Column, Timestamp};

/// Writes all samples of `head` at or above `floor` as blocks, which are on the device when this returns.
///
/// Costs one pass over the head, decoding its runs once.
///
/// # Errors
/// `Io`; what was written is removed again.
pub(crate) fn flush(head: &Head, target: &Target, floor: Timestamp) -> Result<Vec<BlockMeta>> {
    let series = head.all_sorted();
    let mut spans = Vec::new();
    for (_, _, id) in &series {
        head.visit_spans(*id, |min_time, max_time, count| {
            spans.push(Span { min_time, max_time, count: u64::from(count) });
        });
    }
    let shape = Shape {
        effort: Effort::Flush,
        level: 0,
        lsns: LsnRange { first: head.first_lsn(), last: head.last_lsn() },
    };
    let mut outputs = Outputs::new(target, shape, &stretches(&spans));
    drop(spans);
    let mut work = Work::default();
    for (key, value_type, id) in &series {
        outputs.series(key, *value_type)?;
        let (times, values) = outputs.columns();
        if head.read_staged(*id, &mut work.scratch, times, values) {
            keep(times, values, |time| time >= floor);
            outputs.appended()?;
            continue;
        }
        let Some(samples) = head.read(*id) else { continue };
        work.write_series(&samples, floor, &mut outputs)?;
    }
    outputs.finish()
}

#[derive(Default)]
struct Work {
    scratch: Scratch,
    spans: Vec<PageSpan>,
    steps: Vec<Step>,
    merger: PageMerger,
}

impl Work {
    fn write_series(
        &mut self,
        samples: &HeadSamples,
        floor: Timestamp,
        outputs: &mut Outputs<'_>,
    ) -> Result<()> {
        self.spans.clear();
        let staged = samples
            .times
            .first()
            .zip(samples.times.last())
            .map(|(min, max)| (*min, *max, samples.times.len()));
        let runs = samples.runs.iter().map(|run| (run.min_time, run.max_time, run.count as usize));
        for (page, (min_time, max_time, count)) in (0..).zip(runs.chain(staged)) {
            let masked = min_time < floor.nanos();
            self.spans.push(PageSpan {
                min_time,
                max_time,
                rank: u64::from(page),
                count: count as u32,
                masked,
                page,
            });
        }
        plan_steps(&mut self.spans, &mut self.steps);
        for step in &self.steps {
            let (times, values) = outputs.columns();
            match step {
                Step::Page(index) => {
                    let Some(span) = self.spans.get(*index as usize) else { continue };
                    read(samples, span, times, values)?;
                }
                Step::Merge { start, end, until } => {
                    for span in self.spans.get(*start as usize..*end as usize).unwrap_or_default() {
                        self.merger.load(span.rank, values.value_type(), |times, values| {
                            read(samples, span, times, values)?;
                            keep(times, values, |time| time >= floor);
                            Ok(())
                        })?;
                    }
                    self.merger.drain(*until, times, values);
                }
            }
            outputs.appended()?;
        }
        Ok(())
    }
}

fn read(samples: &HeadSamples, span: &PageSpan, times: &mut Vec<i64>, values: &mut Column) -> Result<()> {
    match samples.runs.get(span.page as usize) {
        Some(run) => run.decode_times(times).and_then(|()| run.decode_values(values)),
        None => {
            times.extend_from_slice(&samples.times);
            ColumnSlice::new(&samples.values, 0, samples.times.len()).append_to(values);
            Ok(())
        }
    }
}
