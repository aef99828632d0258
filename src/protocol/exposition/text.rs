//! Pages in the text format 0.0.4, all or nothing, as strictly as a Pushgateway takes them.

use std::borrow::Cow;
use std::collections::HashMap;

use super::lex::{Line, Parsed, Rules, excerpt, normalize_bounds, read_line};
use super::lines::split_line;
use super::{Family, Format, ParseError, Sample};
use crate::model::MetricKind;
use crate::protocol::label::{BUCKET_KEY, QUANTILE_KEY};
use crate::protocol::number::parse_float;

/// The families of a page in the order of their first line; samples of one family need not stand together.
///
/// # Errors
/// The first line that a Pushgateway refuses: bad syntax, a kind that is not known or comes after samples,
/// HELP or TYPE twice, a bound of a bucket that is no number, and a last line without a line feed.
pub fn parse_text(page: &[u8]) -> Result<Vec<Family<'_>>, ParseError> {
    let mut builder = Builder::default();
    let mut rest = page;
    let mut line = 0;
    while !rest.is_empty() {
        line += 1;
        let complete = rest.contains(&b'\n');
        let (text, behind) = split_line(rest);
        rest = behind;
        let result =
            if complete { builder.add(text) } else { Err("unexpected end of input stream".to_owned()) };
        result.map_err(|reason| ParseError { line, reason })?;
    }
    Ok(builder.families)
}

/// What a page has said so far.
#[derive(Default)]
struct Builder<'a> {
    families: Vec<Family<'a>>,
    by_name: HashMap<Cow<'a, str>, usize>,
    /// For each family whether HELP and TYPE were given; either may be empty or unknown.
    described: Vec<Described>,
    /// The name of the last sample and the index of its family.
    last: Option<(Cow<'a, str>, usize)>,
}

#[derive(Clone, Copy, Default)]
struct Described {
    help: bool,
    kind: bool,
}

impl<'a> Builder<'a> {
    fn add(&mut self, line: &'a [u8]) -> Parsed<()> {
        match read_line(line, Rules { format: Format::Text, lenient: false })? {
            Line::Help(name, help) => self.add_help(name, help),
            Line::Type(name, kind) => self.add_kind(name, kind),
            Line::Sample(sample) => self.add_sample(sample),
            Line::Blank | Line::Eof | Line::Unit(..) => Ok(()),
        }
    }

    fn add_help(&mut self, name: Cow<'a, str>, help: Cow<'a, str>) -> Parsed<()> {
        let index = self.family_of(name);
        let Some((family, described)) = self.get(index) else { return Ok(()) };
        if described.help {
            return Err(format!("second HELP line for metric name {:?}", family.name));
        }
        described.help = true;
        family.help = help;
        Ok(())
    }

    fn add_kind(&mut self, name: Cow<'a, str>, kind: &str) -> Parsed<()> {
        let index = self.family_of(name);
        // A kind decides which samples belong to a family.
        self.last = None;
        let Some((family, described)) = self.get(index) else { return Ok(()) };
        if described.kind || !family.samples.is_empty() {
            return Err(format!(
                "second TYPE line for metric name {:?}, or TYPE reported after samples",
                family.name
            ));
        }
        let known = match kind.to_ascii_lowercase().as_str() {
            "counter" => Some(MetricKind::Counter),
            "gauge" => Some(MetricKind::Gauge),
            "summary" => Some(MetricKind::Summary),
            "histogram" => Some(MetricKind::Histogram),
            "untyped" => Some(MetricKind::Unknown),
            _ => None,
        };
        described.kind = true;
        family.kind = known.ok_or_else(|| format!("unknown metric type {:?}", excerpt(kind)))?;
        Ok(())
    }

    fn add_sample(&mut self, mut sample: Sample<'a>) -> Parsed<()> {
        let index = match &self.last {
            Some((name, index)) if *name == sample.name => *index,
            _ => {
                let index = self.family_of(sample.name.clone());
                self.last = Some((sample.name.clone(), index));
                index
            }
        };
        if let Some((family, _)) = self.get(index) {
            check_bounds(family.kind, &sample)?;
            normalize_bounds(&mut sample);
            family.samples.push(sample);
        }
        Ok(())
    }

    fn get(&mut self, index: usize) -> Option<(&mut Family<'a>, &mut Described)> {
        self.families.get_mut(index).zip(self.described.get_mut(index))
    }

    /// The family that `name` belongs to: its own, or that of a summary or histogram whose suffix it has.
    fn family_of(&mut self, name: Cow<'a, str>) -> usize {
        if let Some(index) = self.by_name.get(&name) {
            return *index;
        }
        let is = |index: usize, kind| self.families.get(index).is_some_and(|family| family.kind == kind);
        for (suffix, kind) in [
            ("_sum", MetricKind::Summary),
            ("_count", MetricKind::Summary),
            ("_bucket", MetricKind::Histogram),
            ("_sum", MetricKind::Histogram),
            ("_count", MetricKind::Histogram),
        ] {
            let base = name.strip_suffix(suffix).and_then(|base| self.by_name.get(base));
            if let Some(index) = base.copied().filter(|index| is(*index, kind)) {
                return index;
            }
        }
        let index = self.families.len();
        self.families.push(Family { name: name.clone(), ..Family::default() });
        self.described.push(Described::default());
        self.by_name.insert(name, index);
        index
    }
}

/// The bounds of buckets and quantiles must be numbers.
fn check_bounds(kind: MetricKind, sample: &Sample<'_>) -> Parsed<()> {
    let key = match kind {
        MetricKind::Histogram => BUCKET_KEY,
        MetricKind::Summary => QUANTILE_KEY,
        _ => return Ok(()),
    };
    match sample.tag(key) {
        Some(bound) if parse_float(bound.as_bytes()).is_none() => {
            Err(format!("expected float as value for '{key}' label, got {:?}", excerpt(bound)))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refused(page: &str, line: usize, reason: &str) {
        let error = parse_text(page.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.reason.contains(reason), "{error}");
        assert!(error.to_string().starts_with("text format parsing error in line "));
    }

    #[test]
    fn samples_find_their_families() {
        let page = "# HELP h help\n# TYPE h histogram\nh_bucket{le=\"1\"} 0\nh_sum 2\ng 1\nh_count 3\n\
                    # TYPE s summary\ns{quantile=\"0.5\"} 1\ns_count 1\nh_created 5\ns_bucket 1\n";
        let families = parse_text(page.as_bytes()).unwrap();
        let found: Vec<_> =
            families.iter().map(|f| (f.name.as_ref(), f.kind, f.samples.len(), f.help.as_ref())).collect();
        let expected = [
            ("h", MetricKind::Histogram, 3, "help"),
            ("g", MetricKind::Unknown, 1, ""),
            ("s", MetricKind::Summary, 2, ""),
            ("h_created", MetricKind::Unknown, 1, ""),
            ("s_bucket", MetricKind::Unknown, 1, ""),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_page_of_a_python_client_is_taken() {
        let page = "# HELP Gauge \n# TYPE Gauge gauge\nGauge 42.0\n# HELP Counter_total \n# TYPE Counter_total counter\n\
                    Counter_total 1.0\n# HELP Counter_created \n# TYPE Counter_created gauge\n\
                    Counter_created 1.7952188282870748e+09\n";
        let families = parse_text(page.as_bytes()).unwrap();
        assert_eq!(families.len(), 3);
        assert_eq!(families[2].samples[0].value, 1_795_218_828.287_074_8);
    }

    #[test]
    fn what_a_pushgateway_takes_is_taken() {
        for page in [
            "",
            "\n",
            "a inf\n",
            "a NAN\n",
            "# EOF\n",
            "# TYPE a COUNTER\na -1\n",
            "# TYPE a histogram\na_sum 1\n",
            "a 9.007199254740992e+015\n",
            "# TYPE x_total gauge\nx_total 1\n",
        ] {
            assert!(parse_text(page.as_bytes()).is_ok(), "{page:?}");
        }
    }

    #[test]
    fn what_a_pushgateway_refuses_is_refused() {
        check_refused("a 1", 1, "unexpected end of input stream");
        check_refused("a 1\nb 2\r\n", 2, "expected float");
        check_refused("a 1  \n", 1, "expected integer as timestamp");
        check_refused("a 0x1F\n", 1, "expected float");
        check_refused("a 1_000\n", 1, "expected float");
        check_refused("# TYPE a meh\n", 1, "unknown metric type");
        check_refused("a 1\n# TYPE a gauge\n", 2, "TYPE reported after samples");
        check_refused("# TYPE a gauge\n# TYPE a gauge\n", 2, "second TYPE line");
        check_refused("# TYPE a untyped\n# TYPE a gauge\n", 2, "second TYPE line");
        check_refused("# HELP a x\n# HELP a x\n", 2, "second HELP line");
        check_refused("a 1 # {b=\"c\"} 1\n", 1, "expected integer as timestamp");
        check_refused("a-b 1\n", 1, "expected float");
        check_refused("a{b=\"c\",b=\"d\"} 1\n", 1, "duplicate label");
        check_refused("a{__name__=\"b\"} 1\n", 1, "reserved");
        check_refused("# TYPE a histogram\na_bucket{le=\"abc\"} 1\n", 2, "'le'");
        check_refused("# TYPE a summary\na{quantile=\"\"} 1\n", 2, "'quantile'");
    }
}
