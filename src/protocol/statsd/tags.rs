//! Tags of StatsD lines: behind the value (DogStatsD) or inside the name (Librato, InfluxDB, SignalFx).

use std::borrow::Cow;

use super::super::label::split_tag;

/// In which places tags are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagStyles {
    /// `name:1|c|#key:value,bare`
    pub dogstatsd: bool,
    /// `name,key=value:1|c`
    pub influxdb: bool,
    /// `name#key=value:1|c`
    pub librato: bool,
    /// `na[key=value]me:1|c`
    pub signalfx: bool,
}

impl TagStyles {
    /// Every style.
    pub const ALL: TagStyles = TagStyles { dogstatsd: true, influxdb: true, librato: true, signalfx: true };
    /// No style: tags are skipped, names kept whole.
    pub const NONE: TagStyles =
        TagStyles { dogstatsd: false, influxdb: false, librato: false, signalfx: false };

    /// Splits a name from the tags inside it.
    pub(super) fn split_name<'a>(self, name: &'a str) -> (Cow<'a, str>, Tags<'a>) {
        if self.signalfx {
            match (name.find('['), name.find(']')) {
                (Some(open), Some(close)) if open < close => return split_brackets(name, open, close),
                (None, None) => {}
                _ => return (Cow::Borrowed(name), Tags::default()),
            }
        }
        let mark = name.find(|c| (c == '#' && self.librato) || (c == ',' && self.influxdb));
        match mark.and_then(|at| Some((name.get(..at)?, name.get(at + 1..)?))) {
            Some((name, tags)) => (Cow::Borrowed(name), Tags { text: tags, separator: Separator::Equals }),
            None => (Cow::Borrowed(name), Tags::default()),
        }
    }
}

impl Default for TagStyles {
    /// DogStatsD only.
    fn default() -> Self {
        TagStyles { dogstatsd: true, ..TagStyles::NONE }
    }
}

/// The name without `[tags]`; it is copied only when the brackets stand inside it.
fn split_brackets(name: &str, open: usize, close: usize) -> (Cow<'_, str>, Tags<'_>) {
    let before = name.get(..open).unwrap_or_default();
    let tags = Tags { text: name.get(open + 1..close).unwrap_or_default(), separator: Separator::Equals };
    let after = name.get(close + 1..).unwrap_or_default();
    let rest = match (before, after) {
        ("", rest) | (rest, "") => Cow::Borrowed(rest),
        _ => Cow::Owned(format!("{before}{after}")),
    };
    (rest, tags)
}

/// Whether `name` holds the mark of any style, on or off.
pub(super) fn has_style_mark(name: &str) -> bool {
    name.contains(['#', ',']) || name.find('[').is_some_and(|open| name.find(']').is_some_and(|c| open < c))
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Separator {
    #[default]
    Colon,
    /// A colon, and a `#` in front of a key is dropped (a habit of one PHP client).
    ColonAfterHash,
    Equals,
}

/// The tags of one line as they were sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags<'a> {
    text: &'a str,
    separator: Separator,
}

impl<'a> Tags<'a> {
    pub(super) fn dogstatsd(text: &'a str, drop_hash: bool) -> Self {
        Tags { text, separator: if drop_hash { Separator::ColonAfterHash } else { Separator::Colon } }
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.text.is_empty()
    }

    /// The tags as strings, in the order sent, bare ones included.
    pub fn strings(self) -> impl Iterator<Item = &'a str> {
        let drop_hash = self.separator == Separator::ColonAfterHash;
        let clean = move |tag: &'a str| if drop_hash { tag.strip_prefix('#').unwrap_or(tag) } else { tag };
        self.text.split(',').map(clean).filter(|tag| !tag.is_empty())
    }

    /// The tags as pairs, in the order sent, by the rules of [`split_tag`]; for tags inside a name the
    /// first `=` splits, and one without it or with an empty side is left out.
    pub fn pairs(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.strings().filter_map(move |tag| match self.separator {
            Separator::Equals => {
                tag.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())
            }
            Separator::Colon | Separator::ColonAfterHash => split_tag(tag),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(styles: TagStyles, name: &str, rest: &str, pairs: &[(&str, &str)]) {
        let (found, tags) = styles.split_name(name);
        assert_eq!(found, rest);
        assert_eq!(tags.pairs().collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn names_are_split_by_the_styles_that_are_on() {
        check(TagStyles::ALL, "foo#a=1,b=2", "foo", &[("a", "1"), ("b", "2")]);
        check(TagStyles::ALL, "foo,a=1,bare,b=,=2", "foo", &[("a", "1")]);
        check(TagStyles::ALL, "foo.[a=1]bar", "foo.bar", &[("a", "1")]);
        check(TagStyles::ALL, "foo]a=1[", "foo]a=1[", &[]);
        check(TagStyles::ALL, "[]", "", &[]);
        check(TagStyles::default(), "foo,a=1", "foo,a=1", &[]);
    }

    #[test]
    fn dogstatsd_tags_follow_the_rules_for_strings() {
        let tags = Tags::dogstatsd("a:b:c,api,,empty:,#x:1", false);
        assert_eq!(tags.pairs().collect::<Vec<_>>(), [("a", "b:c"), ("api", "true"), ("#x", "1")]);
        assert_eq!(tags.strings().count(), 4);
        assert_eq!(Tags::dogstatsd("#x:1", true).pairs().next(), Some(("x", "1")));
    }
}
