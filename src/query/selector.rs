//! The one selector syntax, `name{tag="v",tag=~"re"}`: parsed and printed here.
//!
//! Serves the tool, the JSON interface and whoever takes a selector as text. It is the syntax of
//! Prometheus' instant vector selectors (Prometheus documentation, "Querying basics") with names and
//! keys of any UTF-8 in quotes, as Prometheus 3 has them, and one word more, `tag in ("a", "b")`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::{Match, Matcher, NAME_KEY, Selector};

/// Longest selector text, in bytes.
pub const SELECTOR_SIZE_MAX: usize = 64 * 1024;

impl FromStr for Selector {
    type Err = Error;

    /// Parses `name`, `name{...}` or `{...}`. Inside braces, separated by commas: `key="v"`, `key!="v"`,
    /// `key=~"regex"`, `key!~"regex"`, `key in ("a", "b")`, or a metric name in quotes. Names and keys that
    /// are not of letters, digits, `_` and `:` are quoted. Strings are quoted by `"` or `'` with Go's escapes,
    /// or by backticks without any. `key!=""` means present, `key=""` absent, `{}` every series.
    ///
    /// # Errors
    /// `InvalidInput` that says what was expected and at which byte; also for text longer than
    /// [`SELECTOR_SIZE_MAX`] and for a regular expression that does not compile.
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > SELECTOR_SIZE_MAX {
            return Err(Error::invalid_input(format!(
                "a selector takes {} bytes, more than {SELECTOR_SIZE_MAX}",
                text.len()
            )));
        }
        Parser { text, position: 0 }.selector()
    }
}

impl From<&str> for Selector {
    /// The metric of this very name; text in selector syntax is parsed by [`Selector::from_str`].
    fn from(name: &str) -> Self {
        Selector::name(name)
    }
}

struct Parser<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Parser<'a> {
    fn selector(&mut self) -> Result<Selector> {
        let mut selector = Selector::all();
        self.skip_space();
        if let Some(name) = self.word() {
            selector = Selector::name(name);
        } else if !self.rest().starts_with('{') {
            return Err(self.expected("a metric name or '{'"));
        }
        if self.take("{") {
            self.braces(&mut selector)?;
        }
        if !self.rest().is_empty() {
            return Err(self.expected("the end of the selector"));
        }
        Ok(selector)
    }

    /// What follows an opening brace, the closing one included.
    fn braces(&mut self, selector: &mut Selector) -> Result<()> {
        while !self.take("}") {
            let matcher = self.item()?;
            let is_name = |m: &Matcher| m.key == NAME_KEY && matches!(m.condition, Match::Equal(_));
            if is_name(&matcher) && selector.matchers.iter().any(is_name) {
                return Err(self.invalid("a metric name is given twice"));
            }
            selector.matchers.push(matcher);
            if !self.take(",") && !self.rest().starts_with('}') {
                return Err(self.expected("',' or '}'"));
            }
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Matcher> {
        if !self.is_string_next() {
            let key = self.word().ok_or_else(|| self.expected("a tag key"))?;
            return self.condition(key.to_owned());
        }
        let text = self.string()?;
        if self.rest().starts_with([',', '}']) {
            return Ok(Matcher { key: NAME_KEY.to_owned(), condition: Match::Equal(text) });
        }
        self.condition(text)
    }

    fn condition(&mut self, key: String) -> Result<Matcher> {
        let condition = if self.take("=~") {
            Match::regex(&self.string()?)?
        } else if self.take("!~") {
            Match::not_regex(&self.string()?)?
        } else if self.take("!=") {
            let value = self.string()?;
            if value.is_empty() { Match::Present } else { Match::NotEqual(value) }
        } else if self.take("=") {
            let value = self.string()?;
            if value.is_empty() { Match::Absent } else { Match::Equal(value) }
        } else if self.word() == Some("in") {
            Match::In(self.list()?)
        } else {
            return Err(self.expected("one of = != =~ !~ in"));
        };
        Ok(Matcher { key, condition })
    }

    fn list(&mut self) -> Result<Vec<String>> {
        if !self.take("(") {
            return Err(self.expected("'('"));
        }
        let mut values = Vec::new();
        while !self.take(")") {
            values.push(self.string()?);
            if !self.take(",") && !self.rest().starts_with(')') {
                return Err(self.expected("',' or ')'"));
            }
        }
        Ok(values)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.position..).unwrap_or_default()
    }

    fn advance(&mut self, size: usize) {
        self.position += size;
        self.skip_space();
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.advance(token.len());
        }
        found
    }

    fn word(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let size = rest.find(|c| !is_word_char(c)).unwrap_or(rest.len());
        let word = rest.get(..size).filter(|word| is_word(word))?;
        self.advance(size);
        Some(word)
    }

    fn is_string_next(&self) -> bool {
        self.rest().starts_with(['"', '\'', '`'])
    }

    fn string(&mut self) -> Result<String> {
        if !self.is_string_next() {
            return Err(self.expected("a string in quotes"));
        }
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map_or('"', |(_, quote)| quote);
        let mut value = Vec::new();
        while let Some((at, c)) = chars.next() {
            if c == quote {
                let value = String::from_utf8(value).map_err(|_| self.invalid("a string is not UTF-8"))?;
                self.advance(at + quote.len_utf8());
                return Ok(value);
            }
            if c == '\\' && quote != '`' {
                let escaped =
                    unescape(&mut chars).ok_or_else(|| self.invalid("an escape that does not exist"))?;
                value.extend_from_slice(&escaped);
            } else {
                value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        Err(self.invalid("a string that does not end"))
    }

    #[cold]
    fn expected(&self, what: &str) -> Error {
        let found: String = self.rest().chars().take(20).collect();
        let found = if found.is_empty() { "nothing".to_owned() } else { format!("{found:?}") };
        Error::invalid_input(format!("selector: expected {what} at byte {}, found {found}", self.position))
    }

    #[cold]
    fn invalid(&self, what: &str) -> Error {
        Error::invalid_input(format!("selector: {what} (near byte {})", self.position))
    }
}

fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Whether `text` needs no quotes as a name or key.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(is_word_char)
}

/// The bytes that an escape stands for (Go specification, "Rune literals"); the backslash was read.
fn unescape(chars: &mut std::str::CharIndices<'_>) -> Option<Vec<u8>> {
    let byte = |value: u8| Some(vec![value]);
    match chars.next()?.1 {
        'a' => byte(7),
        'b' => byte(8),
        'f' => byte(12),
        'n' => byte(b'\n'),
        'r' => byte(b'\r'),
        't' => byte(b'\t'),
        'v' => byte(11),
        c @ ('\\' | '"' | '\'') => byte(u8::try_from(c).ok()?),
        'x' => byte(u8::try_from(digits(chars, 0, 2, 16)?).ok()?),
        c @ '0'..='7' => byte(u8::try_from(digits(chars, c.to_digit(8)?, 2, 8)?).ok()?),
        'u' => Some(char::from_u32(digits(chars, 0, 4, 16)?)?.to_string().into_bytes()),
        'U' => Some(char::from_u32(digits(chars, 0, 8, 16)?)?.to_string().into_bytes()),
        _ => None,
    }
}

fn digits(chars: &mut std::str::CharIndices<'_>, start: u32, count: usize, radix: u32) -> Option<u32> {
    (0..count)
        .try_fold(start, |value, _| value.checked_mul(radix)?.checked_add(chars.next()?.1.to_digit(radix)?))
}

impl fmt::Display for Selector {
    /// The syntax that [`Selector::from_str`] reads; parsing it gives a selector that selects the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_name = |m: &&Matcher| m.key == NAME_KEY && matches!(m.condition, Match::Equal(_));
        let mut rest: Vec<&Matcher> = self.matchers.iter().collect();
        let mut separator = "";
        if let Some(index) = rest.iter().position(is_name)
            && let Match::Equal(name) = &rest[index].condition
        {
            if is_word(name) {
                f.write_str(name)?;
                if rest.len() == 1 {
                    return Ok(());
                }
                f.write_str("{")?;
            } else {
                f.write_str("{")?;
                quote(name, f)?;
                separator = ",";
            }
            rest.remove(index);
        } else {
            f.write_str("{")?;
        }
        for matcher in rest {
            write!(f, "{separator}{matcher}")?;
            separator = ",";
        }
        f.write_str("}")
    }
}

impl fmt::Display for Matcher {
    /// One matcher as it stands inside the braces of a selector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_word(&self.key) {
            f.write_str(&self.key)?
        } else {
            quote(&self.key, f)?
        }
        let (operator, value) = match &self.condition {
            Match::Equal(value) => ("=", value.as_str()),
            Match::NotEqual(value) => ("!=", value.as_str()),
            Match::Regex(regex) => ("=~", regex.pattern()),
            Match::NotRegex(regex) => ("!~", regex.pattern()),
            Match::Present => ("!=", ""),
            Match::Absent => ("=", ""),
            Match::In(values) => return list(values, f),
        };
        f.write_str(operator)?;
        quote(value, f)
    }
}

fn list(values: &[String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(" in (")?;
    for (index, value) in values.iter().enumerate() {
        f.write_str(if index == 0 { "" } else { "," })?;
        quote(value, f)?;
    }
    f.write_str(")")
}

fn quote(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(f, "\\{c}")?,
            '\n' => f.write_str("\\n")?,
            c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[track_caller]
    fn check(text: &str, printed: &str) {
        let selector: Selector = text.parse().unwrap();
        assert_eq!(selector.to_string(), printed);
        assert_eq!(printed.parse::<Selector>().unwrap(), selector, "printed text parses to the same");
    }

    #[test]
    fn selectors_print_as_they_parse() {
        check("up", "up");
        check(" up { } ", "up");
        check("{}", "{}");
        check(r#"cpu_usage{host="a",core!="0"}"#, r#"cpu_usage{host="a",core!="0"}"#);
        check(r#"{host=~"web.*" , core!~'1|2',}"#, r#"{host=~"web.*",core!~"1|2"}"#);
        check(r#"a{host in ("x", 'y')}"#, r#"a{host in ("x","y")}"#);
        check(r#"a{host in ()}"#, r#"a{host in ()}"#);
        check(r#"a{host!="",rack=""}"#, r#"a{host!="",rack=""}"#);
        check(r#"{"größe in m", "weird key"=`a\d`}"#, r#"{"größe in m","weird key"="a\\d"}"#);
        check(r#"{__name__=~"cpu.*"}"#, r#"{__name__=~"cpu.*"}"#);
        check(r#"{__name__="cpu"}"#, "cpu");
        check(r#"x{a="\x41\101\u00e4\n\"\a"}"#, "x{a=\"AAä\\n\\\"\\U00000007\"}");
        check("in{in=\"in\"}", "in{in=\"in\"}");
    }

    #[test]
    fn presence_is_told_from_equality() {
        let selector: Selector = r#"a{x!="",y=""}"#.parse().unwrap();
        assert_eq!(selector.matchers[1].condition, Match::Present);
        assert_eq!(selector.matchers[2].condition, Match::Absent);
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = text.parse::<Selector>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(part), "{error}");
    }

    #[test]
    fn wrong_selectors_say_where() {
        refused("", "expected a metric name or '{' at byte 0, found nothing");
        refused("1a", "expected a metric name");
        refused("a.b", "expected the end of the selector at byte 1, found \".b\"");
        refused("a{b}", "expected one of = != =~ !~ in at byte 3");
        refused("a{b=c}", "expected a string in quotes at byte 4");
        refused("a{b=\"c\" d=\"e\"}", "expected ',' or '}' at byte 8");
        refused("a{b=\"c", "does not end");
        refused("a{b=\"\\q\"}", "escape");
        refused("a{b=\"\\xff\"}", "not UTF-8");
        refused("a{b=~\"(\"}", "regular expression");
        refused("a{\"b\"}", "twice");
        refused("a{", "expected a tag key");
        refused(&"a".repeat(SELECTOR_SIZE_MAX + 1), "more than 65536");
    }

    #[test]
    fn no_text_panics() {
        let base = r#"a{b="c\x41",d=~"e",f in ("g"),"h i"!~`j`}"#;
        for (at, _) in base.char_indices() {
            for insert in ["", "\"", "\\", "{", "é", "("] {
                let _ = format!("{}{insert}{}", &base[..at], &base[at + 1..]).parse::<Selector>();
            }
        }
    }
}
