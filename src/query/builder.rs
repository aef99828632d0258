//! The query builder: what hosts say, checked and handed to the operators.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::model::{Match, NAME_KEY, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::aggregate::{Aggregate, Compare, Filter};
use crate::query::budget::{Budget, CancelToken, QueryLimits, QueryReport};
use crate::query::catalog::{self, Cardinality};
use crate::query::fold::{
    ChangeFold, CountFold, EndFold, ExtremeFold, Fold, QuantileFold, StddevFold, SumFold,
};
use crate::query::group::{Grouping, RankEnd, keep_ranked};
use crate::query::histogram;
use crate::query::result::{QueryResult, SeriesColumns};
use crate::query::run::{FoldPlan, FoldWork, LatestWork, ListWork, RawWork, run};
use crate::query::scan::Context;
use crate::query::select::{Selection, select};
use crate::query::source::{Pin, Snapshot, Tombstone};
use crate::query::stream::SampleStream;
use crate::query::window::Windows;

/// A question to the database: which series, which times, and what to make of their samples.
///
/// Built step by step and run by [`Query::run`] (all at once), [`Query::stream`] (raw samples, piece by
/// piece) or one of the listings ([`Query::series`], [`Query::names`], ...). Nothing is read before that.
/// Running it twice asks twice; each run sees one state of the database.
///
/// Answers depend on the stored samples alone: not on where they lie, how they are cut into pages, or how
/// many threads work; aggregates are the same bit for bit.
#[derive(Clone, Debug)]
pub struct Query {
    pin: Arc<dyn Pin>,
    selector: Selector,
    range: TimeRange,
    window: Option<Duration>,
    origin: Timestamp,
    output: Output,
    grouping: Option<Grouping>,
    ranking: Option<(RankEnd, usize)>,
    filter: Option<Filter>,
    limits: QueryLimits,
    cancel: CancelToken,
    partial_allowed: bool,
    whole_commit: bool,
    threads: usize,
}

/// What the samples of the selected series become.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Output {
    Raw,
    Latest,
    Aggregate(Aggregate),
    /// The quantile of this rank of classic histograms.
    Histogram(f64),
}

/// Threads of one query, unless it says otherwise.
const THREAD_COUNT_DEFAULT: usize = 2;
/// Most threads of one query.
const THREAD_COUNT_MAX: usize = 64;

impl Query {
    pub(crate) fn new(pin: Arc<dyn Pin>, selector: Selector) -> Self {
        Query {
            pin,
            selector,
            range: TimeRange::ALL,
            window: None,
            origin: Timestamp::default(),
            output: Output::Raw,
            grouping: None,
            ranking: None,
            filter: None,
            limits: QueryLimits::default(),
            cancel: CancelToken::new(),
            partial_allowed: false,
            whole_commit: false,
            threads: THREAD_COUNT_DEFAULT,
        }
    }

    /// Only series whose tag `key` (or name, as [`NAME_KEY`](crate::NAME_KEY)) satisfies `condition`.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, condition: impl Into<Match>) -> Self {
        self.selector = self.selector.with(key, condition);
        self
    }

    /// Only samples in the half-open `range`. Default: all of time.
    #[must_use]
    pub fn range(mut self, range: impl Into<TimeRange>) -> Self {
        self.range = range.into();
        self
    }

    /// Cuts time into half-open windows `[t, t + length)`, labelled `t`, where `t` is a whole number of
    /// lengths from [`Query::origin`]. Windows at the ends of the range hold only what lies in it; windows
    /// without samples are left out. Without this the whole range is one window, labelled by its start.
    #[must_use]
    pub fn window(mut self, length: Duration) -> Self {
        self.window = Some(length);
        self
    }

    /// Where windows are counted from. Default: 1970-01-01T00:00:00Z, so that hours are whole hours.
    #[must_use]
    pub fn origin(mut self, origin: Timestamp) -> Self {
        self.origin = origin;
        self
    }

    /// Answers with `aggregate` of each window.
    #[must_use]
    pub fn aggregate(mut self, aggregate: Aggregate) -> Self {
        self.output = Output::Aggregate(aggregate);
        self
    }

    /// How many samples: [`Aggregate::Count`].
    #[must_use]
    pub fn count(self) -> Self {
        self.aggregate(Aggregate::Count)
    }

    /// Their exact sum: [`Aggregate::Sum`].
    #[must_use]
    pub fn sum(self) -> Self {
        self.aggregate(Aggregate::Sum)
    }

    /// Their mean: [`Aggregate::Avg`].
    #[must_use]
    pub fn mean(self) -> Self {
        self.aggregate(Aggregate::Avg)
    }

    /// The smallest: [`Aggregate::Min`].
    #[must_use]
    pub fn min(self) -> Self {
        self.aggregate(Aggregate::Min)
    }

    /// The largest: [`Aggregate::Max`].
    #[must_use]
    pub fn max(self) -> Self {
        self.aggregate(Aggregate::Max)
    }

    /// The value of the earliest sample: [`Aggregate::First`].
    #[must_use]
    pub fn first(self) -> Self {
        self.aggregate(Aggregate::First)
    }

    /// The value of the latest sample in each window: [`Aggregate::Last`]. See also [`Query::latest`].
    #[must_use]
    pub fn last(self) -> Self {
        self.aggregate(Aggregate::Last)
    }

    /// Standard deviation of the population: [`Aggregate::Stddev`].
    #[must_use]
    pub fn stddev(self) -> Self {
        self.aggregate(Aggregate::Stddev)
    }

    /// The quantile at `rank`, 0 to 1: [`Aggregate::Quantile`].
    #[must_use]
    pub fn quantile(self, rank: f64) -> Self {
        self.aggregate(Aggregate::Quantile(rank))
    }

    /// Increase by second: [`Aggregate::Rate`]. Needs a window, or a range with both ends.
    #[must_use]
    pub fn rate(self) -> Self {
        self.aggregate(Aggregate::Rate)
    }

    /// Increase of a counter: [`Aggregate::Increase`].
    #[must_use]
    pub fn increase(self) -> Self {
        self.aggregate(Aggregate::Increase)
    }

    /// Last less first: [`Aggregate::Delta`].
    #[must_use]
    pub fn delta(self) -> Self {
        self.aggregate(Aggregate::Delta)
    }

    /// The quantile at `rank` of classic histograms: of series of cumulative counters with the upper bound
    /// of their bucket in the tag `le`. Taken from how much each bucket rose in the window, added up over the
    /// series of a group. Without grouping, series that agree in all other tags are one histogram.
    #[must_use]
    pub fn histogram_quantile(mut self, rank: f64) -> Self {
        self.output = Output::Histogram(rank);
        self
    }

    /// The last sample of each series in the range that is no staleness marker, in the series' own type.
    #[must_use]
    pub fn latest(mut self) -> Self {
        self.output = Output::Latest;
        self
    }

    /// Answers together the series that agree in `tags`. An absent tag is an empty one; `__name__` is the
    /// metric name, which otherwise does not count. No tags: one answer for everything.
    #[must_use]
    pub fn by<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.grouping = Some(Grouping::By(tags.into_iter().map(Into::into).collect()));
        self
    }

    /// Answers together the series that agree in all tags but `tags`; the metric name does not count.
    #[must_use]
    pub fn without<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.grouping = Some(Grouping::Without(tags.into_iter().map(Into::into).collect()));
        self
    }

    /// Of the answer, keeps in each window the `count` greatest values (after grouping). NaN comes last;
    /// of equals the first in order of keys stays.
    #[must_use]
    pub fn top(mut self, count: usize) -> Self {
        self.ranking = Some((RankEnd::Top, count));
        self
    }

    /// Of the answer, keeps in each window the `count` smallest values; see [`Query::top`].
    #[must_use]
    pub fn bottom(mut self, count: usize) -> Self {
        self.ranking = Some((RankEnd::Bottom, count));
        self
    }

    /// Only samples whose value compares so with `constant`, before anything else is made of them.
    /// Staleness markers and series of bytes never pass.
    #[must_use]
    pub fn where_value(mut self, compare: Compare, constant: f64) -> Self {
        self.filter = Some(Filter { compare, constant });
        self
    }

    /// What the query may cost. Default: [`QueryLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: QueryLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Fails with `Cancelled` when it runs longer than this.
    #[must_use]
    pub fn deadline(mut self, duration: Duration) -> Self {
        self.limits.duration_max = Some(duration);
        self
    }

    /// The same question to the database as it is now, however often and in whatever form it is then asked.
    ///
    /// # Errors
    /// `Closed`, or what keeps the state from being read.
    #[cfg(feature = "server")]
    pub(crate) fn pinned(self) -> Result<Self> {
        Ok(Query { pin: Arc::new(self.pin.pin()?), ..self })
    }

    /// Lets another thread cancel it.
    #[must_use]
    pub fn cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Answers from what is readable where something in the range is damaged, and says so in the report.
    /// Without this such a query fails with `Corruption`.
    #[must_use]
    pub fn allow_partial(mut self) -> Self {
        self.partial_allowed = true;
        self
    }

    /// Sees one state of the whole database, the one between two commits: of every batch all or nothing, across all
    /// series. Without this each series is at a commit of its own, no earlier than the last before the query began.
    ///
    /// Commits wait while what is staged in memory of the series that match is copied: about a microsecond a series.
    #[must_use]
    pub fn at_one_commit(mut self) -> Self {
        self.whole_commit = true;
        self
    }

    /// Most threads that work on it, this one included. Default: 2. The answer is the same for any number.
    #[must_use]
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count.clamp(1, THREAD_COUNT_MAX);
        self
    }

    /// Runs it and gives the whole answer.
    ///
    /// # Errors
    /// `InvalidInput` when its parts do not fit each other, `LimitExceeded` or `Cancelled` by its limits,
    /// `Corruption` when something in its range is damaged, `Io` when it cannot be read.
    pub fn run(&self) -> Result<QueryResult> {
        self.check()?;
        let mut run = self.start(self.drops_stale(), self.needs_keys())?;
        let series = match self.output {
            Output::Raw => run.work(RawWork::default())?.0,
            Output::Latest => run.work(LatestWork::default())?.series,
            Output::Aggregate(aggregate) => self.run_aggregate(&mut run, aggregate)?,
            Output::Histogram(rank) => {
                let grouping = histogram::bucket_grouping(self.grouping());
                let fold = self.fold::<ChangeFold<true, false>>(&mut run, 0.0, grouping)?;
                histogram::quantiles(fold, rank)
            }
        };
        Ok(self.finish(run, series))
    }

    /// Raw samples, a series after the other and a page or a few at a time, so that memory stays bounded
    /// whatever the range. What it reads from stays pinned until it is dropped.
    ///
    /// # Errors
    /// As [`Query::run`]; errors on the way come as items, and end it.
    pub fn stream(&self) -> Result<SampleStream> {
        self.check()?;
        if self.output != Output::Raw {
            return Err(Error::invalid_input("only raw samples are streamed; an aggregate is run"));
        }
        let run = self.start(self.drops_stale(), true)?;
        Ok(SampleStream::new(run.context, run.selection, run.report))
    }

    /// The series that hold a sample in the range, of whatever value, with their types, in order of keys.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn series(&self) -> Result<Vec<(SeriesKey, ValueType)>> {
        let query = Query { filter: None, ..self.clone() };
        Ok(query.start(false, true)?.work(ListWork::default())?.0)
    }

    /// The names of the metrics that hold a sample in the range, sorted.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn names(&self) -> Result<Vec<String>> {
        self.texts(Some(NAME_KEY))
    }

    /// The tag keys of the series that hold a sample in the range, sorted.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn tag_keys(&self) -> Result<Vec<String>> {
        self.texts(None)
    }

    /// The values of the tag `key` among the series that hold a sample in the range, sorted.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn tag_values(&self, key: &str) -> Result<Vec<String>> {
        self.texts(Some(key))
    }

    /// How many series there are by name, tag key, and pair of tag and value; the `most` largest of each.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub fn cardinality(&self, most: usize) -> Result<Cardinality> {
        Ok(catalog::cardinality(&self.series()?, most))
    }

    /// The values of the tag `key`, or with `None` the tag keys, of the series that hold a sample in the range, sorted.
    ///
    /// Of all series, a source that lies in the range whole and that no delete touches says so from its index; only the
    /// others are looked at series by series.
    fn texts(&self, key: Option<&str>) -> Result<Vec<String>> {
        let of_series = |series: &[(SeriesKey, ValueType)]| match key {
            None => catalog::tag_keys(series),
            Some(NAME_KEY) => catalog::names(series),
            Some(key) => catalog::tag_values(series, key),
        };
        if !self.selector.matchers.is_empty() {
            return Ok(of_series(&self.series()?));
        }
        let mut snapshot = self.pin_sources()?;
        let start = self.range.start.max(snapshot.floor);
        let mut texts = BTreeSet::new();
        let mut rest = Vec::new();
        for source in std::mem::take(&mut snapshot.sources) {
            let whole = source.time_bounds().is_some_and(|(min, max)| {
                let deletes = |tombstone: &Tombstone| {
                    tombstone.lsn > source.lsn_last() && tombstone.range.meets(min, max)
                };
                start <= min && max < self.range.end && !snapshot.tombstones.iter().any(deletes)
            });
            match whole.then(|| source.texts(key)).flatten() {
                Some(found) => texts.extend(found?),
                None => rest.push(source),
            }
        }
        snapshot.sources = rest;
        let rest = Query { pin: Arc::new(snapshot), ..self.clone() };
        texts.extend(of_series(&rest.series()?));
        texts.retain(|text| key.is_some() || text != NAME_KEY);
        Ok(texts.into_iter().collect())
    }

    fn pin_sources(&self) -> Result<Snapshot> {
        if self.whole_commit { self.pin.pin_whole(&self.selector) } else { self.pin.pin() }
    }

    fn grouping(&self) -> Grouping {
        self.grouping.clone().unwrap_or_default()
    }

    fn drops_stale(&self) -> bool {
        self.output != Output::Raw || self.filter.is_some()
    }

    fn needs_keys(&self) -> bool {
        !matches!(self.output, Output::Aggregate(_)) || self.grouping().needs_keys()
    }

    /// Refuses parts that do not fit each other.
    fn check(&self) -> Result<()> {
        let aggregates = matches!(self.output, Output::Aggregate(_) | Output::Histogram(_));
        if !aggregates && (self.window.is_some() || self.grouping.is_some() || self.ranking.is_some()) {
            return Err(Error::invalid_input("windows, groups and rankings need an aggregate"));
        }
        let bounded = self.range.start != Timestamp::MIN && self.range.end != Timestamp::MAX;
        match self.output {
            Output::Aggregate(Aggregate::Rate) if self.window.is_none() && !bounded => {
                Err(Error::invalid_input("a rate needs a window, or a range with both ends"))
            }
            Output::Aggregate(aggregate) => aggregate.check(),
            Output::Histogram(rank) => Aggregate::Quantile(rank).check(),
            _ => Ok(()),
        }
    }

    fn windows(&self) -> Result<Windows> {
        match self.window {
            Some(step) => Windows::new(self.range, self.origin, step),
            None => Ok(Windows::whole(self.range)),
        }
    }

    /// Pins the database, looks at what is damaged, and selects.
    fn start(&self, drop_stale: bool, needs_keys: bool) -> Result<Run> {
        let snapshot = self.pin_sources()?;
        let mut report = QueryReport::default();
        let (env, ledger) = (snapshot.env.clone(), snapshot.ledger.clone());
        let budget = Budget::new(self.limits.clone(), self.cancel.clone(), env, ledger);
        let mut context = Context::new(snapshot, self.range, budget);
        context.filter = self.filter;
        context.drop_stale = drop_stale;
        context.partial_allowed = self.partial_allowed;
        let range = context.range;
        let met =
            context.snapshot.damaged.iter().filter(|damaged| !damaged.range.intersect(range).is_empty());
        report.damaged = met.cloned().collect();
        if let Some(first) = report.damaged.first().filter(|_| !self.partial_allowed) {
            return Err(Error::corrupt(format!("the query meets damaged data: {}", first.what)));
        }
        let selection = if range.is_empty() {
            Selection::default()
        } else {
            select(&context, &self.selector, needs_keys, &mut report)?
        };
        Ok(Run { context: Arc::new(context), selection: Arc::new(selection), threads: self.threads, report })
    }

    fn run_aggregate(&self, run: &mut Run, aggregate: Aggregate) -> Result<Vec<SeriesColumns>> {
        let grouping = self.grouping();
        match aggregate {
            Aggregate::Count => self.fold::<CountFold>(run, 0.0, grouping),
            Aggregate::Sum => self.fold::<SumFold<false>>(run, 0.0, grouping),
            Aggregate::Avg => self.fold::<SumFold<true>>(run, 0.0, grouping),
            Aggregate::Min => self.fold::<ExtremeFold<false>>(run, 0.0, grouping),
            Aggregate::Max => self.fold::<ExtremeFold<true>>(run, 0.0, grouping),
            Aggregate::First => self.fold::<EndFold<false>>(run, 0.0, grouping),
            Aggregate::Last => self.fold::<EndFold<true>>(run, 0.0, grouping),
            Aggregate::Stddev => self.fold::<StddevFold>(run, 0.0, grouping),
            Aggregate::Quantile(rank) => self.fold::<QuantileFold>(run, rank, grouping),
            Aggregate::Rate => self.fold::<ChangeFold<true, true>>(run, 0.0, grouping),
            Aggregate::Increase => self.fold::<ChangeFold<true, false>>(run, 0.0, grouping),
            Aggregate::Delta => self.fold::<ChangeFold<false, false>>(run, 0.0, grouping),
        }
    }

    fn fold<F: Fold>(&self, run: &mut Run, rank: f64, grouping: Grouping) -> Result<Vec<SeriesColumns>> {
        let plan = FoldPlan { windows: self.windows()?, rank };
        Ok(run.work(FoldWork::<F>::new(plan, grouping))?.finish())
    }

    fn finish(&self, run: Run, mut series: Vec<SeriesColumns>) -> QueryResult {
        if let Some((end, count)) = self.ranking {
            keep_ranked(&mut series, end, count);
        }
        QueryResult { series, report: run.report }
    }
}

/// A query on its way.
struct Run {
    context: Arc<Context>,
    selection: Arc<Selection>,
    threads: usize,
    report: QueryReport,
}

impl Run {
    fn work<W: crate::query::run::Work>(&mut self, work: W) -> Result<W> {
        run(&self.context, &self.selection, work, self.threads, &mut self.report)
    }
}
