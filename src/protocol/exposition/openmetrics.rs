//! Pages in OpenMetrics 1.0, all or nothing, with the rules of the specification about what may stand in
//! which order: one family after the other, metadata before samples, the samples of one tag set together,
//! `# EOF` at the end.

use std::borrow::Cow;
use std::collections::HashSet;

use super::check::{Groups, check_sample};
use super::lex::{Line, Parsed, Rules, excerpt, normalize_bounds, read_line};
use super::lines::split_line;
use super::{Family, Format, ParseError, Sample, suffixes};
use crate::model::MetricKind;

/// The families of a page, in its order.
///
/// # Errors
/// The first line that breaks a rule; for rules about a whole family or group, the line behind it.
pub fn parse_openmetrics(page: &[u8]) -> Result<Vec<Family<'_>>, ParseError> {
    let mut builder = Builder::default();
    let mut rest = page;
    let mut line = 0;
    while !rest.is_empty() && !builder.ended {
        line += 1;
        let (text, behind) = split_line(rest);
        rest = behind;
        builder.add(text).map_err(|reason| ParseError { line, reason })?;
    }
    if !rest.is_empty() {
        return Err(ParseError { line: line + 1, reason: "text after # EOF".to_owned() });
    }
    if !builder.ended {
        return Err(ParseError { line: line.max(1), reason: "the page does not end with # EOF".to_owned() });
    }
    Ok(builder.families)
}

/// What a page has said so far.
#[derive(Default)]
struct Builder<'a> {
    families: Vec<Family<'a>>,
    /// The names that closed families and their samples may have.
    taken: HashSet<String>,
    open: Option<Open<'a>>,
    ended: bool,
}

/// The family whose lines are being read.
#[derive(Default)]
struct Open<'a> {
    family: Family<'a>,
    kind: Option<MetricKind>,
    unit: bool,
    help: bool,
    groups: Groups<'a>,
}

impl<'a> Builder<'a> {
    fn add(&mut self, line: &'a [u8]) -> Parsed<()> {
        match read_line(line, Rules { format: Format::OpenMetrics, lenient: false })? {
            Line::Help(name, help) => {
                let open = self.describe(name)?;
                if std::mem::replace(&mut open.help, true) {
                    return Err(format!("second HELP line for {:?}", open.family.name));
                }
                open.family.help = help;
            }
            Line::Type(name, kind) => self.describe(name)?.set_kind(kind)?,
            Line::Unit(name, unit) => self.describe(name)?.set_unit(unit)?,
            Line::Sample(sample) => self.add_sample(sample)?,
            Line::Blank => return Err("a blank line".to_owned()),
            Line::Eof => {
                self.close()?;
                self.ended = true;
            }
        }
        Ok(())
    }

    /// The family `name`, to which metadata is to be added: the open one or a new one.
    fn describe(&mut self, name: Cow<'a, str>) -> Parsed<&mut Open<'a>> {
        if self.open.as_ref().is_some_and(|open| open.family.name != name) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| Open::new(name));
        if open.family.samples.is_empty() {
            return Ok(open);
        }
        Err(format!("metadata of {:?} behind its samples", open.family.name))
    }

    fn add_sample(&mut self, mut sample: Sample<'a>) -> Parsed<()> {
        if self.open.as_ref().is_some_and(|open| !open.takes(&sample.name)) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| Open::new(sample.name.clone()));
        check_sample(&open.family.name, open.family.kind, &sample)?;
        open.groups.add(&open.family.name, open.family.kind, &sample)?;
        normalize_bounds(&mut sample);
        open.family.samples.push(sample);
        Ok(())
    }

    /// Ends the open family: its last group must be whole, and its names must be its own.
    fn close(&mut self) -> Parsed<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        open.groups.finish()?;
        let family = open.family;
        if !family.unit.is_empty() && matches!(family.kind, MetricKind::Info | MetricKind::StateSet) {
            return Err(format!("{:?} is of a kind that has no unit", family.name));
        }
        let names = suffixes(family.kind).iter().filter(|suffix| !suffix.is_empty());
        let names = names.map(|suffix| format!("{}{suffix}", family.name)).chain([family.name.to_string()]);
        for name in names {
            if self.taken.contains(&name) {
                return Err(format!("{name:?} clashes with an earlier family"));
            }
            self.taken.insert(name);
        }
        self.families.push(family);
        Ok(())
    }
}

impl<'a> Open<'a> {
    fn new(name: Cow<'a, str>) -> Self {
        Open { family: Family { name, ..Family::default() }, ..Open::default() }
    }

    fn set_kind(&mut self, kind: &str) -> Parsed<()> {
        let name = &self.family.name;
        let known = MetricKind::from_name(kind).filter(|_| kind != "untyped");
        let known = known.ok_or_else(|| format!("unknown type {:?} of {name:?}", excerpt(kind)))?;
        if self.kind.replace(known).is_some() {
            return Err(format!("second TYPE line for {name:?}"));
        }
        self.family.kind = known;
        Ok(())
    }

    fn set_unit(&mut self, unit: &'a str) -> Parsed<()> {
        let name = &self.family.name;
        if std::mem::replace(&mut self.unit, true) {
            return Err(format!("second UNIT line for {name:?}"));
        }
        if !unit.is_empty() && !name.strip_suffix(unit).is_some_and(|base| base.ends_with('_')) {
            return Err(format!("the name {name:?} does not end in its unit {:?}", excerpt(unit)));
        }
        self.family.unit = Cow::Borrowed(unit);
        Ok(())
    }

    /// Whether a sample called `name` belongs to this family.
    fn takes(&self, name: &str) -> bool {
        name.strip_prefix(self.family.name.as_ref())
            .is_some_and(|suffix| suffixes(self.family.kind).contains(&suffix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    #[track_caller]
    fn check_refused(page: &str, line: usize, reason: &str) {
        let error = parse_openmetrics(page.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{error}");
        assert!(error.reason.contains(reason), "{error}");
    }

    #[test]
    fn families_samples_and_exemplars_are_read() {
        let page = "# TYPE a_seconds counter\n# UNIT a_seconds seconds\n# HELP a_seconds x\\ny\n\
                    a_seconds_total{b=\"c\"} 3 1.5 # {id=\"7\"} 0.5 1\na_seconds_created{b=\"c\"} 1 2\nplain 1\n# EOF\n";
        let families = parse_openmetrics(page.as_bytes()).unwrap();
        assert_eq!(families.len(), 2);
        let family = &families[0];
        assert_eq!(
            (family.kind, family.unit.as_ref(), family.help.as_ref()),
            (MetricKind::Counter, "seconds", "x\ny")
        );
        assert_eq!(family.samples[0].timestamp, Some(Timestamp::from_millis(1500)));
        assert_eq!(family.samples[0].exemplar.as_ref().unwrap().tags, [("id".into(), "7".into())]);
        assert_eq!(families[1].name, "plain");
        assert_eq!(family.metadata().unit, "seconds");
    }

    #[test]
    fn errors_name_line_and_rule() {
        check_refused("", 1, "does not end with # EOF");
        check_refused("a 1\n", 1, "does not end with # EOF");
        check_refused("a 1\n\n# EOF\n", 2, "blank line");
        check_refused("# EOF\nx", 2, "text after # EOF");
        check_refused("# TYPE a untyped\n# EOF\n", 1, "unknown type");
        check_refused("a 1\n# HELP a x\n# EOF\n", 2, "behind its samples");
        check_refused("# TYPE a_created gauge\n# TYPE a counter\n# EOF\n", 3, "clashes");
        check_refused("# UNIT a_x seconds\n# EOF\n", 1, "does not end in its unit");
        check_refused("# UNIT seconds seconds\n# EOF\n", 1, "does not end in its unit");
        check_refused("# UNIT x_u u\n# TYPE x_u info\n# EOF\n", 3, "no unit");
        check_refused("a 1\nb 1\na 2\n# EOF\n", 4, "clashes");
    }
}
