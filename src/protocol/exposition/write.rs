//! Families to a page. A family may come from either format or from instruments: the page is valid in the
//! format asked for, and a series keeps its name.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use super::{Exemplar, Family, Format, Sample, Tag, suffixes};
use crate::model::{MetricKind, Timestamp};
use crate::protocol::label::{
    BUCKET_KEY, QUANTILE_KEY, is_label_name, is_metric_name, plain_label_name, plain_metric_name,
};
use crate::protocol::number::{parse_float, push_float, push_seconds};

/// What becomes of names outside of the old alphabet of Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Names {
    /// Their characters become underscores: every reader takes it, and two names may become one.
    #[default]
    Underscores,
    /// They are quoted, as Prometheus 3 reads them.
    Utf8,
}

/// Appends the page of `families` to `out`. No two of them may have one name: see [`merge_families`].
///
/// Text: what that format has no kind for is a gauge, and `_created` samples are families of their own. OpenMetrics:
/// samples of one tag set are put together, families called `<name>_created` join `<name>`, and a counter whose
/// samples do not end in `_total` is of unknown kind, since renaming a series would be worse. Empty tags are left
/// out. Costs one pass for each family in text, and sorting it in OpenMetrics.
///
/// ```
/// use icecore::MetricKind;
/// use icecore::protocol::exposition::{Family, Format, Names, Sample, write_page};
/// let sample = Sample { name: "hits_total".into(), tags: vec![("host".into(), "a".into())], value: 3.0, ..Sample::default() };
/// let family = Family { name: "hits_total".into(), kind: MetricKind::Counter, samples: vec![sample], ..Family::default() };
/// let mut page = String::new();
/// write_page(&[family], Format::Text, Names::Underscores, &mut page);
/// assert_eq!(page, "# TYPE hits_total counter\nhits_total{host=\"a\"} 3\n");
/// ```
pub fn write_page(families: &[Family<'_>], format: Format, names: Names, out: &mut String) {
    let mut page = Page { out, format, names };
    match format {
        Format::Text => families.iter().for_each(|family| page.text_family(family)),
        Format::OpenMetrics => {
            page.openmetrics(families);
            page.out.push_str("# EOF\n");
        }
    }
}

/// Joins families of one name, in the order of the first of each. The first help and unit that are given
/// count; where kinds differ the kind is unknown, which any samples may have.
pub fn merge_families<'a>(families: impl IntoIterator<Item = Family<'a>>) -> Vec<Family<'a>> {
    let mut merged: Vec<Family<'a>> = Vec::new();
    let mut by_name: HashMap<Cow<'a, str>, usize> = HashMap::new();
    for family in families {
        let index = *by_name.entry(family.name.clone()).or_insert(merged.len());
        let Some(first) = merged.get_mut(index) else {
            merged.push(family);
            continue;
        };
        if first.kind != family.kind {
            first.kind = MetricKind::Unknown;
        }
        if first.help.is_empty() {
            first.help = family.help;
        }
        if first.unit.is_empty() {
            first.unit = family.unit;
        }
        first.samples.extend(family.samples);
    }
    merged
}

struct Page<'o> {
    out: &'o mut String,
    format: Format,
    names: Names,
}

impl Page<'_> {
    /// A family of the text format, or several where its samples need it.
    fn text_family(&mut self, family: &Family<'_>) {
        let family_kind = kind_that_fits(family);
        let home_of = |sample| text_home(&family.name, family_kind, sample);
        let mut written: Vec<&str> = Vec::new();
        for sample in &family.samples {
            let (name, kind) = home_of(sample);
            if written.contains(&name) {
                continue;
            }
            written.push(name);
            self.header(name, text_kind(kind), "", &family.help);
            let members = family.samples.iter().filter(|member| home_of(member).0 == name);
            members.for_each(|member| self.sample(member));
        }
        if family.samples.is_empty() {
            self.header(&family.name, text_kind(family.kind), "", &family.help);
        }
    }

    fn openmetrics(&mut self, families: &[Family<'_>]) {
        let by_name: HashMap<&str, &Family<'_>> = families.iter().map(|f| (f.name.as_ref(), f)).collect();
        let created_of = |home: &Home<'_>| {
            let created = by_name.get(format!("{}_created", home.name).as_str()).copied();
            created.filter(|created| takes_created(home.kind) && is_created(created))
        };
        let is_taken = |name: &str| by_name.contains_key(name);
        let homes: Vec<Vec<Home<'_>>> = families.iter().map(|f| openmetrics_homes(f, is_taken)).collect();
        let joined: HashSet<&str> =
            homes.iter().flatten().filter_map(created_of).map(|f| f.name.as_ref()).collect();
        for (family, homes) in families.iter().zip(&homes) {
            if joined.contains(family.name.as_ref()) {
                continue;
            }
            for home in homes {
                let created = created_of(home).map(|created| created.samples.as_slice()).unwrap_or_default();
                self.header(home.name, home.kind.name(), home.unit, &family.help);
                let mut samples: Vec<&Sample<'_>> = home.samples.iter().copied().chain(created).collect();
                samples.sort_by_cached_key(|sample| order_key(home, sample));
                samples.into_iter().for_each(|sample| self.sample(sample));
            }
        }
    }

    fn header(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let name = self.metric_name(name);
        if !help.is_empty() {
            let _ = write!(self.out, "# HELP {name} ");
            escape(self.out, help, self.format == Format::OpenMetrics);
            self.out.push('\n');
        }
        let _ = writeln!(self.out, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
    }

    /// The name as metadata shows it.
    fn metric_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self.names {
            Names::Underscores => plain_metric_name(name),
            Names::Utf8 if is_metric_name(name) => Cow::Borrowed(name),
            Names::Utf8 => {
                let mut quoted = String::from("\"");
                escape(&mut quoted, name, true);
                quoted.push('"');
                Cow::Owned(quoted)
            }
        }
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let name = self.metric_name(&sample.name);
        if name.starts_with('"') {
            self.tags(Some(&name), &sample.tags);
        } else {
            self.out.push_str(&name);
            if sample.tags.iter().any(|(_, value)| !value.is_empty()) {
                self.tags(None, &sample.tags);
            }
        }
        self.out.push(' ');
        push_float(self.out, sample.value);
        if let Some(timestamp) = sample.timestamp {
            self.out.push(' ');
            self.timestamp(timestamp);
        }
        if let Some(exemplar) = sample.exemplar.as_ref().filter(|_| self.format == Format::OpenMetrics) {
            self.exemplar(exemplar);
        }
        self.out.push('\n');
    }

    fn tags(&mut self, quoted_name: Option<&str>, tags: &[Tag<'_>]) {
        self.out.push('{');
        self.out.push_str(quoted_name.unwrap_or_default());
        let mut comma = quoted_name.is_some();
        for (key, value) in tags.iter().filter(|(_, value)| !value.is_empty()) {
            if std::mem::replace(&mut comma, true) {
                self.out.push(',');
            }
            self.tag_key(key);
            self.out.push_str("=\"");
            escape(self.out, value, true);
            self.out.push('"');
        }
        self.out.push('}');
    }

    fn tag_key(&mut self, key: &str) {
        if self.names == Names::Underscores || is_label_name(key) {
            self.out.push_str(&plain_label_name(key));
        } else {
            self.out.push('"');
            escape(self.out, key, true);
            self.out.push('"');
        }
    }

    fn timestamp(&mut self, timestamp: Timestamp) {
        match self.format {
            Format::Text => {
                let _ = write!(self.out, "{}", timestamp.millis());
            }
            Format::OpenMetrics => push_seconds(self.out, timestamp),
        }
    }

    fn exemplar(&mut self, exemplar: &Exemplar<'_>) {
        self.out.push_str(" # ");
        self.tags(None, &exemplar.tags);
        self.out.push(' ');
        push_float(self.out, exemplar.value);
        if let Some(timestamp) = exemplar.timestamp {
            self.out.push(' ');
            push_seconds(self.out, timestamp);
        }
    }
}

/// The word of the text format for a kind.
fn text_kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::Counter | MetricKind::Gauge | MetricKind::Summary | MetricKind::Histogram => kind.name(),
        MetricKind::GaugeHistogram | MetricKind::Info | MetricKind::StateSet => MetricKind::Gauge.name(),
        _ => "untyped",
    }
}

/// The kind of a family; unknown for a histogram that has a sample of the family's very name, which no
/// reader would put there.
fn kind_that_fits(family: &Family<'_>) -> MetricKind {
    let is_stray = |sample: &Sample<'_>| family.kind == MetricKind::Histogram && sample.name == family.name;
    if family.samples.iter().any(is_stray) { MetricKind::Unknown } else { family.kind }
}

/// The name and kind of the family that a sample belongs to in the text format, where the family it is in
/// has this `name` and `kind`.
fn text_home<'f>(name: &'f str, kind: MetricKind, sample: &'f Sample<'_>) -> (&'f str, MetricKind) {
    let suffix = sample.name.strip_prefix(name);
    match kind {
        MetricKind::Counter | MetricKind::Summary | MetricKind::Histogram if suffix == Some("_created") => {
            (&sample.name, MetricKind::Gauge)
        }
        MetricKind::Summary if matches!(suffix, Some("" | "_sum" | "_count")) => (name, kind),
        MetricKind::Histogram if matches!(suffix, Some("_bucket" | "_sum" | "_count")) => (name, kind),
        MetricKind::Summary | MetricKind::Histogram => (&sample.name, MetricKind::Unknown),
        kind => (&sample.name, kind),
    }
}

/// A family of a page of OpenMetrics.
struct Home<'f> {
    name: &'f str,
    kind: MetricKind,
    unit: &'f str,
    samples: Vec<&'f Sample<'f>>,
}

fn takes_created(kind: MetricKind) -> bool {
    matches!(kind, MetricKind::Counter | MetricKind::Summary | MetricKind::Histogram)
}

/// Whether a family is nothing but the times at which others were created.
fn is_created(family: &Family<'_>) -> bool {
    matches!(family.kind, MetricKind::Gauge | MetricKind::Unknown)
        && family.samples.iter().all(|sample| sample.name == family.name)
}

/// The families of OpenMetrics that the samples of one family make: itself, and one of unknown kind for
/// each other name among its samples. A name that is shortened must not be taken by another family.
fn openmetrics_homes<'f>(family: &'f Family<'f>, is_taken: impl Fn(&str) -> bool) -> Vec<Home<'f>> {
    let kind = kind_that_fits(family);
    let own: &str = &family.name;
    let fits = |base: &str, sample: &Sample<'_>| {
        sample.name.strip_prefix(base).is_some_and(|suffix| suffixes(kind).contains(&suffix))
    };
    let shortened = match kind {
        MetricKind::Counter => own.strip_suffix("_total"),
        MetricKind::Info => own.strip_suffix("_info"),
        _ => None,
    };
    let shortened = shortened.filter(|base| !base.is_empty() && !is_taken(base));
    let is_short = !family.samples.iter().any(|sample| fits(own, sample));
    let base = shortened.filter(|_| is_short).unwrap_or(own);
    let unit_fits = base.strip_suffix(family.unit.as_ref()).is_some_and(|rest| rest.ends_with('_'));
    let has_unit = unit_fits && !matches!(kind, MetricKind::Info | MetricKind::StateSet);
    let unit = if has_unit { family.unit.as_ref() } else { "" };
    let mut homes = vec![Home { name: base, kind, unit, samples: Vec::new() }];
    for sample in &family.samples {
        let fits = fits(base, sample);
        let name = if fits { base } else { sample.name.as_ref() };
        match homes.iter_mut().find(|home| home.name == name && (fits || home.kind == MetricKind::Unknown)) {
            Some(home) => home.samples.push(sample),
            None => homes.push(Home { name, kind: MetricKind::Unknown, unit: "", samples: vec![sample] }),
        }
    }
    // The family itself goes when all its samples have names of their own.
    homes.retain(|home| !home.samples.is_empty() || family.samples.is_empty());
    homes
}

/// Samples of one tag set together, by time, buckets and quantiles ascending before sum and count, `_created` last.
fn order_key(home: &Home<'_>, sample: &Sample<'_>) -> (Vec<(String, String)>, Option<Timestamp>, u8, u64) {
    let suffix = sample.name.strip_prefix(home.name).unwrap_or_default();
    let own = match (home.kind, suffix) {
        (MetricKind::Histogram | MetricKind::GaugeHistogram, "_bucket") => BUCKET_KEY,
        (MetricKind::Summary, "") => QUANTILE_KEY,
        (MetricKind::StateSet, _) => home.name,
        _ => "",
    };
    let tags = sample.tags.iter().filter(|(key, value)| key != own && !value.is_empty());
    let mut tags: Vec<(String, String)> =
        tags.map(|(key, value)| (key.to_string(), value.to_string())).collect();
    tags.sort_unstable();
    let rank = match suffix {
        "_created" => 2,
        "_bucket" | "" | "_total" => 0,
        _ => 1,
    };
    let bound = sample.tag(own).and_then(|bound| parse_float(bound.as_bytes())).unwrap_or(0.0);
    (tags, sample.timestamp, rank, ascending_bits(bound))
}

/// An integer that orders as the float does.
fn ascending_bits(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// Appends `text` with backslashes and line feeds escaped, and quotes where they count.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(all(test, any(feature = "server", feature = "cli")))]
mod tests {
    use super::super::{parse_openmetrics, parse_text};
    use super::*;

    fn page(families: &[Family<'_>], format: Format, names: Names) -> String {
        let mut out = String::new();
        write_page(families, format, names, &mut out);
        out
    }

    #[track_caller]
    fn check_text_to_openmetrics(text: &str, openmetrics: &str) {
        let families = parse_text(text.as_bytes()).unwrap();
        let written = page(&families, Format::OpenMetrics, Names::Underscores);
        assert_eq!(written, openmetrics);
        parse_openmetrics(written.as_bytes()).unwrap();
    }

    #[track_caller]
    fn check_openmetrics_to_text(openmetrics: &str, text: &str) {
        let families = parse_openmetrics(openmetrics.as_bytes()).unwrap();
        let written = page(&families, Format::Text, Names::Underscores);
        assert_eq!(written, text);
        parse_text(written.as_bytes()).unwrap();
    }

    #[test]
    fn a_page_of_text_comes_back() {
        let text = "# HELP a_total x\\\\y\\nz \"q\"\n# TYPE a_total counter\na_total{b=\"\\\\\\\"\\n\"} 1e+06 7\na_total -0\n\
                    # TYPE h histogram\nh_bucket{le=\"1.0\"} 0\nh_bucket{le=\"+Inf\"} 2\nh_sum NaN\nh_count 2\n\
                    # TYPE u untyped\nu +Inf\n";
        let families = parse_text(text.as_bytes()).unwrap();
        assert_eq!(page(&families, Format::Text, Names::Underscores), text);
    }

    #[test]
    fn created_gauges_join_their_counter_in_openmetrics() {
        check_text_to_openmetrics(
            "# TYPE c_total counter\nc_total{a=\"2\"} 1\nc_total{a=\"1\"} 2 1500\n\
             # TYPE c_created gauge\nc_created{a=\"1\"} 5 1500\nc_created{a=\"2\"} 6\nc_created{a=\"3\"} 7\n",
            "# TYPE c counter\nc_total{a=\"1\"} 2 1.5\nc_created{a=\"1\"} 5 1.5\nc_total{a=\"2\"} 1\n\
             c_created{a=\"2\"} 6\nc_created{a=\"3\"} 7\n# EOF\n",
        );
    }

    #[test]
    fn histograms_are_put_in_order_for_openmetrics() {
        check_text_to_openmetrics(
            "# TYPE h histogram\nh_count 3\nh_bucket{le=\"+Inf\"} 3\nh_bucket{le=\"10\"} 2\nh_bucket{le=\"2\"} 1\nh_sum 9\n",
            "# TYPE h histogram\nh_bucket{le=\"2.0\"} 1\nh_bucket{le=\"10.0\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_count 3\n\
             h_sum 9\n# EOF\n",
        );
    }

    #[test]
    fn a_counter_without_total_keeps_its_name() {
        check_text_to_openmetrics("# TYPE hits counter\nhits 1\n", "# TYPE hits unknown\nhits 1\n# EOF\n");
        check_text_to_openmetrics("# TYPE hits counter\n", "# TYPE hits counter\n# EOF\n");
    }

    #[test]
    fn a_sample_named_as_its_histogram_makes_the_kind_unknown() {
        let text = "# TYPE h histogram\nh_sum 1\nh 2\n";
        let families = parse_text(text.as_bytes()).unwrap();
        let expected = "# TYPE h_sum untyped\nh_sum 1\n# TYPE h untyped\nh 2\n";
        assert_eq!(page(&families, Format::Text, Names::Utf8), expected);
        check_text_to_openmetrics(text, "# TYPE h unknown\nh 2\n# TYPE h_sum unknown\nh_sum 1\n# EOF\n");
    }

    #[test]
    fn groups_with_several_times_stay_in_order() {
        let text = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1 1\nh_count 1 1\nh_sum 1 1\n\
                    h_bucket{le=\"+Inf\"} 2 2\nh_count 2 2\nh_sum 1 2\n# EOF\n";
        let families = parse_openmetrics(text.as_bytes()).unwrap();
        assert_eq!(page(&families, Format::OpenMetrics, Names::Utf8), text);
    }

    #[test]
    fn kinds_that_text_lacks_become_gauges() {
        check_openmetrics_to_text(
            "# TYPE c counter\n# HELP c help\nc_total 1\nc_created 5\n# TYPE i info\ni_info{v=\"1\"} 1\n\
             # TYPE s stateset\ns{s=\"on\"} 1\n# TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 1\ng_gcount 1\ng_gsum 2\n\
             x 1 1.5\n# EOF\n",
            "# HELP c_total help\n# TYPE c_total counter\nc_total 1\n# HELP c_created help\n# TYPE c_created gauge\n\
             c_created 5\n# TYPE i_info gauge\ni_info{v=\"1\"} 1\n# TYPE s gauge\ns{s=\"on\"} 1\n\
             # TYPE g_bucket gauge\ng_bucket{le=\"+Inf\"} 1\n# TYPE g_gcount gauge\ng_gcount 1\n\
             # TYPE g_gsum gauge\ng_gsum 2\n# TYPE x untyped\nx 1 1500\n",
        );
    }

    #[test]
    fn a_page_of_openmetrics_comes_back() {
        let text = "# HELP a_seconds h\\\"\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                    a_seconds_bucket{le=\"1.0\"} 1 1.5 # {id=\"7\"} 0.25 2.000000001\na_seconds_bucket{le=\"+Inf\"} 1 1.5\n\
                    a_seconds_count 1 1.5\na_seconds_sum 0.25 1.5\n# TYPE q summary\nq{quantile=\"0.5\"} 1\nq_count 1\nq_sum 1\n# EOF\n";
        let families = parse_openmetrics(text.as_bytes()).unwrap();
        assert_eq!(page(&families, Format::OpenMetrics, Names::Underscores), text);
    }

    #[test]
    fn a_counter_beside_a_gauge_of_its_short_name_keeps_its_name() {
        check_text_to_openmetrics(
            "# TYPE x gauge\nx 1\n# TYPE x_total counter\nx_total 2\n",
            "# TYPE x gauge\nx 1\n# TYPE x_total unknown\nx_total 2\n# EOF\n",
        );
    }

    #[test]
    fn names_are_quoted_or_rewritten() {
        let text = "# TYPE \"my.metric\" gauge\n{\"my.metric\",\"a.b\"=\"x\"} 1\nplain{c=\"\"} 2\n";
        let families = parse_text(text.as_bytes()).unwrap();
        let quoted = page(&families, Format::Text, Names::Utf8);
        assert_eq!(
            quoted,
            "# TYPE \"my.metric\" gauge\n{\"my.metric\",\"a.b\"=\"x\"} 1\n# TYPE plain untyped\nplain 2\n"
        );
        let plain = page(&families, Format::Text, Names::Underscores);
        assert!(plain.starts_with("# TYPE my_metric gauge\nmy_metric{a_b=\"x\"} 1\n"));
    }

    #[test]
    fn families_of_one_name_are_merged() {
        let first = parse_text(b"# TYPE r summary\nr_count 1\nr_sum 2\nx 1\n").unwrap();
        let second =
            parse_text(b"# HELP r help\n# TYPE r histogram\nr_bucket{le=\"+Inf\"} 1\nr_sum{a=\"b\"} 1\n")
                .unwrap();
        let merged = merge_families(first.into_iter().chain(second));
        let written = page(&merged, Format::Text, Names::Underscores);
        assert_eq!(
            written,
            "# HELP r help\n# TYPE r_count untyped\nr_count 1\n"
                .replace("# HELP r help", "# HELP r_count help")
                + "# HELP r_sum help\n# TYPE r_sum untyped\nr_sum 2\nr_sum{a=\"b\"} 1\n"
                + "# HELP r_bucket help\n# TYPE r_bucket untyped\nr_bucket{le=\"+Inf\"} 1\n# TYPE x untyped\nx 1\n"
        );
        let openmetrics = page(&merged, Format::OpenMetrics, Names::Underscores);
        assert!(openmetrics.contains("# TYPE r_sum unknown\nr_sum 2\nr_sum{a=\"b\"} 1\n"), "{openmetrics}");
        parse_openmetrics(openmetrics.as_bytes()).unwrap();
    }
}
