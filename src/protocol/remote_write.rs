//! Prometheus remote write, 1.0 and 2.0: request bytes to borrowed series, labels and samples.
//!
//! After the specifications "Prometheus Remote-Write 1.0" and "2.0" and their messages `prometheus.WriteRequest` and
//! `io.prometheus.write.v2.Request`. Pure: takes the decompressed body, copies no name and no value out of it, keeps
//! no tree; the server pulls one series at a time and puts it into its batch. One series that is wrong is refused
//! alone (its labels or samples answer with an error); bytes that are no protobuf end the request.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::model::{Metadata, MetricKind, NAME_KEY, Timestamp};
use crate::protocol::protobuf::{Fields, Wire, malformed, take_short, take_varint};

/// Which message a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `prometheus.WriteRequest`.
    V1,
    /// `io.prometheus.write.v2.Request`, with a table of symbols.
    V2,
}

impl Version {
    /// From the value of `Content-Type`; absent (the empty string) is 1.0, as old senders have it. `None` for
    /// another type or another message, which is answered with 415.
    pub fn from_content_type(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !media_type.is_empty() && !media_type.eq_ignore_ascii_case("application/x-protobuf") {
            return None;
        }
        let proto = parts.find_map(|part| part.strip_prefix("proto=")).map(|name| name.trim_matches('"'));
        match proto {
            None | Some("prometheus.WriteRequest") => Some(Version::V1),
            Some("io.prometheus.write.v2.Request") => Some(Version::V2),
            Some(_) => None,
        }
    }
}

/// How much one request may hold. A sender over them gets the request refused whole, before anything is stored.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Series; Prometheus sends at most 2,000 samples a request, agents 10,000, back-filling tools more.
    pub series_count_max: usize,
    /// Samples in all: 4 Mi samples take 64 MiB in a batch.
    pub sample_count_max: usize,
    /// Symbols of a 2.0 request, 16 bytes of memory each.
    pub symbol_count_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { series_count_max: 1 << 20, sample_count_max: 4 << 20, symbol_count_max: 1 << 20 }
    }
}

/// One request, read from front to back.
#[derive(Debug)]
pub struct WriteRequest<'a> {
    version: Version,
    fields: Fields<'a>,
    symbols: Vec<&'a str>,
    limits: Limits,
    series_count: usize,
    sample_count: usize,
}

/// What comes next in a request.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A series with its samples.
    Series(TimeSeries<'a>),
    /// What is known of a metric (1.0: it stands apart from the series).
    Metadata(MetricMetadata<'a>),
}

/// A series of a request: where its parts lie, and how many there are.
#[derive(Clone, Copy, Debug)]
pub struct TimeSeries<'a> {
    labels: &'a [u8],
    /// From the first field that is not one of the labels in front.
    rest: &'a [u8],
    /// Whether the labels come before everything else, with nothing between.
    labels_first: bool,
    /// Whether the labels are those that were expected.
    as_expected: bool,
    /// Float samples.
    pub sample_count: usize,
    /// Native histograms, which are not stored.
    pub histogram_count: usize,
    /// Exemplars, which are not stored.
    pub exemplar_count: usize,
    metadata: Option<&'a [u8]>,
}

/// Metadata of a metric as it lies in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricMetadata<'a> {
    /// The metric's name.
    pub name: &'a str,
    /// What its values mean.
    pub kind: MetricKind,
    /// Its unit, or empty.
    pub unit: &'a str,
    /// Its help, or empty.
    pub help: &'a str,
}

impl MetricMetadata<'_> {
    /// An owned copy, without the name.
    pub fn to_metadata(self) -> Metadata {
        Metadata { kind: self.kind, unit: self.unit.to_owned(), help: self.help.to_owned() }
    }
}

/// Name and tags of a series: filled again and again, so that reading them allocates nothing in the long run.
#[derive(Debug, Default)]
pub struct Labels<'a> {
    /// The metric name.
    pub name: &'a str,
    /// The other labels, sorted by key, keys unique, none empty; bounds (`le`, `quantile`) in their normal form.
    pub tags: Vec<(&'a str, Cow<'a, str>)>,
}

/// A float sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its time; remote write has milliseconds.
    pub time: Timestamp,
    /// Its value, every bit kept: a staleness marker is one of the NaNs.
    pub value: f64,
}

/// Why a series with native histograms is not stored.
pub const HISTOGRAM_REFUSED: &str = "native histograms are not stored yet; send classic histograms (scrape with always_scrape_classic_histograms)";

impl<'a> WriteRequest<'a> {
    /// A reader of `body`, which is decompressed.
    ///
    /// # Errors
    /// `InvalidInput` when `body` is no such message as far as it is read (2.0: all symbols are, so they may take
    /// 16 bytes each); `LimitExceeded` for more symbols than `limits` allows.
    pub fn new(version: Version, body: &'a [u8], limits: Limits) -> Result<Self> {
        let symbols = match version {
            Version::V1 => Vec::new(),
            Version::V2 => read_symbols(body, limits.symbol_count_max)?,
        };
        Ok(WriteRequest {
            version,
            fields: Fields::new(body),
            symbols,
            limits,
            series_count: 0,
            sample_count: 0,
        })
    }

    /// The next series or metadata; `None` after the last.
    ///
    /// # Errors
    /// `InvalidInput` when the bytes are no such message, `LimitExceeded` past a limit: the whole request is refused.
    #[allow(clippy::should_implement_trait, reason = "an iterator cannot lend the symbols afterwards")]
    pub fn next(&mut self) -> Result<Option<Entry<'a>>> {
        self.next_expecting(&[])
    }

    /// As [`WriteRequest::next`], for a caller who expects the next series to have the label bytes `expected`, which an
    /// earlier series had for which [`TimeSeries::labels_first`] is true. Right or wrong, the answer is the same; when it is right, the labels
    /// need not be walked.
    ///
    /// # Errors
    /// As [`WriteRequest::next`].
    #[inline]
    pub fn next_expecting(&mut self, expected: &[u8]) -> Result<Option<Entry<'a>>> {
        while let Some((number, value)) = self.fields.next()? {
            match (self.version, number) {
                (Version::V1, 1) | (Version::V2, 5) => {
                    let series = TimeSeries::read(self.version, value.bytes("timeseries")?, expected)?;
                    self.count(&series)?;
                    return Ok(Some(Entry::Series(series)));
                }
                (Version::V1, 3) => {
                    return read_metadata_v1(value.bytes("metadata")?).map(|m| Some(Entry::Metadata(m)));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn count(&mut self, series: &TimeSeries<'a>) -> Result<()> {
        self.series_count += 1;
        self.sample_count += series.sample_count;
        if self.series_count > self.limits.series_count_max {
            return Err(over("series", self.limits.series_count_max));
        }
        if self.sample_count > self.limits.sample_count_max {
            return Err(over("samples", self.limits.sample_count_max));
        }
        Ok(())
    }

    /// Reads name and tags of `series` into `labels`.
    ///
    /// # Errors
    /// `InvalidInput` without a name, for a key twice, for text that is not UTF-8 or a reference beyond the symbols:
    /// this series is refused. Limits of size are the engine's and are checked there.
    pub fn labels(&self, series: &TimeSeries<'a>, labels: &mut Labels<'a>) -> Result<()> {
        labels.name = "";
        labels.tags.clear();
        match self.version {
            Version::V1 => labels.read_v1(series.labels)?,
            Version::V2 => labels.read_v2(series.labels, &self.symbols)?,
        }
        labels.finish()
    }

    /// What a 2.0 request says of the metric of `series`, whose name is `name`. `None` in 1.0, or when it says nothing.
    ///
    /// # Errors
    /// `InvalidInput` when it cannot be read.
    pub fn metadata(&self, series: &TimeSeries<'a>, name: &'a str) -> Result<Option<MetricMetadata<'a>>> {
        let Some(message) = series.metadata else { return Ok(None) };
        let mut found = MetricMetadata { name, kind: MetricKind::Unknown, unit: "", help: "" };
        let mut fields = Fields::new(message);
        while let Some((number, value)) = fields.next()? {
            match number {
                1 => found.kind = kind_from_number(value.uint("Metadata.type")?),
                3 => found.help = symbol(&self.symbols, value.uint("Metadata.help_ref")?)?,
                4 => found.unit = symbol(&self.symbols, value.uint("Metadata.unit_ref")?)?,
                _ => {}
            }
        }
        let says_nothing =
            found.kind == MetricKind::Unknown && found.unit.is_empty() && found.help.is_empty();
        found.name = family_name(name, found.kind);
        Ok((!says_nothing).then_some(found))
    }
}

impl<'a> TimeSeries<'a> {
    /// Finds the parts of a series. The label fields come first and together in what every known sender writes; if
    /// not, the stretch from the first to the last of them is taken, and what lies between is skipped later.
    #[inline]
    fn read(version: Version, message: &'a [u8], expected: &[u8]) -> Result<Self> {
        let mut series = TimeSeries {
            labels: &[],
            rest: message,
            labels_first: true,
            as_expected: false,
            sample_count: 0,
            histogram_count: 0,
            exemplar_count: 0,
            metadata: None,
        };
        let (exemplars, histograms) = if version == Version::V1 { (3, 4) } else { (4, 3) };
        let mut labels: Option<(usize, usize)> = None;
        let known = if message.starts_with(expected) { expected.len() } else { 0 };
        let mut fields = Fields::new(message.get(known..).unwrap_or_default());
        let mut start = 0;
        if version == Version::V1 {
            fields.skip_short(1);
            start = message.len() - fields.rest().len();
            labels = (start > 0).then_some((0, start));
            series.rest = fields.rest();
        }
        while let Some((number, value)) = fields.next()? {
            let end = message.len() - fields.rest().len();
            match number {
                1 => {
                    series.labels_first &= labels.map_or(0, |(_, last)| last) == start;
                    labels = Some((labels.map_or(start, |(first, _)| first), end));
                }
                2 => series.sample_count += 1,
                5 if version == Version::V2 => series.metadata = Some(value.bytes("TimeSeries.metadata")?),
                n if n == histograms => series.histogram_count += 1,
                n if n == exemplars => series.exemplar_count += 1,
                _ => {}
            }
            start = end;
        }
        if let Some((first, last)) = labels {
            series.labels = message.get(first..last).unwrap_or_default();
            series.as_expected = known > 0 && last == known;
        }
        Ok(series)
    }

    /// The bytes from which the labels are read. In a 1.0 request equal bytes mean equal labels, so that a caller can
    /// keep what it looked up for them; in 2.0 they are references into the symbols of their own request.
    pub fn label_bytes(&self) -> &'a [u8] {
        self.labels
    }

    /// Whether the label bytes are those that [`WriteRequest::next_expecting`] was told to expect.
    #[inline]
    pub fn as_expected(&self) -> bool {
        self.as_expected
    }

    /// Whether the labels come before everything else, with nothing between, as every known sender writes them.
    pub fn labels_first(&self) -> bool {
        self.labels_first
    }

    /// Reads the float samples into `samples`, in the order sent, after dropping what it held.
    ///
    /// # Errors
    /// `InvalidInput` when one cannot be read; this series is refused.
    pub fn samples(&self, samples: &mut Vec<Sample>) -> Result<()> {
        samples.clear();
        self.append_samples(samples)
    }

    /// As [`TimeSeries::samples`], behind what `samples` holds; what was read before an error stays there.
    ///
    /// # Errors
    /// As [`TimeSeries::samples`].
    #[inline]
    pub fn append_samples(&self, samples: &mut Vec<Sample>) -> Result<()> {
        let mut fields = Fields::new(self.rest);
        while let Some((number, value)) = fields.next()? {
            if number == 2 {
                samples.push(read_sample(value.bytes("TimeSeries.samples")?)?);
            }
        }
        Ok(())
    }
}

impl<'a> Labels<'a> {
    fn read_v1(&mut self, region: &'a [u8]) -> Result<()> {
        let mut region = region;
        if let Ok(mut text) = std::str::from_utf8(region) {
            while let Some((key, value)) = take_short_label(&mut text) {
                self.push(key, value);
            }
            region = text.as_bytes();
        }
        let mut fields = Fields::new(region);
        while let Some((number, value)) = fields.next()? {
            if number == 1 {
                let (key, value) = read_label(value.bytes("TimeSeries.labels")?)?;
                self.push(key, value);
            }
        }
        Ok(())
    }

    fn read_v2(&mut self, region: &'a [u8], symbols: &[&'a str]) -> Result<()> {
        let mut key = None;
        let mut fields = Fields::new(region);
        while let Some((number, value)) = fields.next()? {
            match value {
                Wire::Varint(reference) if number == 1 => self.push_ref(&mut key, reference, symbols)?,
                Wire::Bytes(mut packed) if number == 1 => {
                    while !packed.is_empty() {
                        self.push_ref(&mut key, take_varint(&mut packed)?, symbols)?;
                    }
                }
                _ => {}
            }
        }
        if key.is_some() {
            return Err(Error::invalid_input("a series has an odd number of label references"));
        }
        Ok(())
    }

    fn push_ref(&mut self, key: &mut Option<&'a str>, reference: u64, symbols: &[&'a str]) -> Result<()> {
        let text = symbol(symbols, reference)?;
        match key.take() {
            None => *key = Some(text),
            Some(key) => self.push(key, text),
        }
        Ok(())
    }

    #[inline]
    fn push(&mut self, key: &'a str, value: &'a str) {
        if key == NAME_KEY && self.name.is_empty() {
            self.name = value;
        } else if !value.is_empty() {
            self.tags.push((key, Cow::Borrowed(value)));
        }
    }

    fn finish(&mut self) -> Result<()> {
        if self.name.is_empty() {
            return Err(Error::invalid_input(format!("a series has no {NAME_KEY} label")));
        }
        if !self.tags.is_sorted_by(|a, b| a.0 < b.0) {
            self.tags.sort_by_key(|(key, _)| *key);
            if let Some(twice) = self.tags.windows(2).find(|pair| pair[0].0 == pair[1].0) {
                return Err(Error::invalid_input(format!(
                    "metric {:?} has label {:?} twice",
                    self.name, twice[0].0
                )));
            }
        }
        Ok(())
    }
}

/// Takes a label off the front of `rest` if it is written as all known senders write short ones.
#[inline]
fn take_short_label<'a>(rest: &mut &'a str) -> Option<(&'a str, &'a str)> {
    let mut after = *rest;
    let mut message = take_short(&mut after, 1)?;
    let key = take_short(&mut message, 1)?;
    let value = take_short(&mut message, 2)?;
    if !message.is_empty() {
        return None;
    }
    *rest = after;
    Some((key, value))
}

fn read_label(message: &[u8]) -> Result<(&str, &str)> {
    let (mut key, mut text) = ("", "");
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => key = value.string("Label.name")?,
            2 => text = value.string("Label.value")?,
            _ => {}
        }
    }
    Ok((key, text))
}

#[inline]
fn read_sample(message: &[u8]) -> Result<Sample> {
    // What senders write for every sample but one of value or time zero.
    if let Some((head, mut rest)) = message.split_first_chunk::<10>()
        && let [0x09, bits @ .., 0x10] = head
        && let Ok(millis) = take_varint(&mut rest)
        && rest.is_empty()
    {
        let value = f64::from_le_bytes(*bits);
        return Ok(Sample { time: Timestamp::from_millis(millis.cast_signed()), value });
    }
    let (mut value, mut millis) = (0.0, 0);
    let mut fields = Fields::new(message);
    while let Some((number, field)) = fields.next()? {
        match number {
            1 => value = field.double("Sample.value")?,
            2 => millis = field.int("Sample.timestamp")?,
            _ => {}
        }
    }
    Ok(Sample { time: Timestamp::from_millis(millis), value })
}

fn read_metadata_v1(message: &[u8]) -> Result<MetricMetadata<'_>> {
    let mut found = MetricMetadata { name: "", kind: MetricKind::Unknown, unit: "", help: "" };
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => found.kind = kind_from_number(value.uint("MetricMetadata.type")?),
            2 => found.name = value.string("MetricMetadata.metric_family_name")?,
            4 => found.help = value.string("MetricMetadata.help")?,
            5 => found.unit = value.string("MetricMetadata.unit")?,
            _ => {}
        }
    }
    Ok(found)
}

fn read_symbols(body: &[u8], count_max: usize) -> Result<Vec<&str>> {
    let mut symbols = Vec::new();
    let mut fields = Fields::new(body);
    while let Some((number, value)) = fields.next()? {
        if number == 4 {
            if symbols.len() == count_max {
                return Err(over("symbols", count_max));
            }
            symbols.push(value.string("Request.symbols")?);
        }
    }
    match symbols.first() {
        Some(first) if !first.is_empty() => Err(malformed("the first symbol is not empty")),
        _ => Ok(symbols),
    }
}

fn symbol<'a>(symbols: &[&'a str], reference: u64) -> Result<&'a str> {
    let found = usize::try_from(reference).ok().and_then(|index| symbols.get(index));
    found.copied().ok_or_else(|| {
        Error::invalid_input(format!("reference to symbol {reference}, the request has {}", symbols.len()))
    })
}

/// The numbers are those of both messages; what they do not name is unknown.
fn kind_from_number(number: u64) -> MetricKind {
    match number {
        1 => MetricKind::Counter,
        2 => MetricKind::Gauge,
        3 => MetricKind::Histogram,
        4 => MetricKind::GaugeHistogram,
        5 => MetricKind::Summary,
        6 => MetricKind::Info,
        7 => MetricKind::StateSet,
        _ => MetricKind::Unknown,
    }
}

/// The metric that the series `name` belongs to: metadata is said of the metric, 2.0 sends it with each series.
fn family_name(name: &str, kind: MetricKind) -> &str {
    let suffixes: &[&str] = match kind {
        MetricKind::Histogram | MetricKind::GaugeHistogram => &["_bucket", "_sum", "_count"],
        MetricKind::Summary => &["_sum", "_count"],
        _ => &[],
    };
    suffixes
        .iter()
        .find_map(|suffix| name.strip_suffix(suffix))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name)
}

#[cold]
fn over(what: &str, limit: usize) -> Error {
    Error::limit_exceeded(format!("one request holds more than {limit} {what}; send it in parts"))
}

#[cfg(test)]
#[path = "remote_write_tests.rs"]
mod tests;
