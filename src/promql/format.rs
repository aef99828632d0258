//! Expressions as text: in one line, and pretty over several lines as Prometheus' `format_query` does.

use std::fmt::{self, Display, Write as _};

use super::ast::{
    Aggregate, At, Binary, BinaryOp, Call, Cardinality, Duration, Expr, LabelMatcher, MatchOp, Matching,
    NumberLiteral, Shift, VectorSelector,
};
use super::lexer::is_label_name;
use crate::model::NAME_KEY;

/// Longest expression that stays on one line, in bytes.
const LINE_SIZE_MAX: usize = 100;

/// `bytes` as a Go string literal in double quotes.
pub(super) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{b}' => out.push_str("\\v"),
                '\u{c}' => out.push_str("\\f"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out
}

/// A number as Prometheus writes it in expressions and labels: shortest decimal form, without exponent.
pub(super) fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => "NaN".to_owned(),
        v if v.is_infinite() => if v > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        v => v.to_string(),
    }
}

/// A sample's value as the HTTP API of Prometheus writes it: shortest form that gives the same number
/// back, with an exponent below 1e-6 and from 1e21 on; `NaN`, `+Inf`, `-Inf`.
pub fn value_text(value: f64) -> String {
    let size = value.abs();
    if size.is_finite() && size != 0.0 && !(1e-6..1e21).contains(&size) {
        exponential(value)
    } else {
        number(value)
    }
}

/// A number as Go's `%g` writes it in messages.
pub(super) fn general(value: f64) -> String {
    let size = value.abs();
    if size.is_finite() && size != 0.0 && !(1e-4..1e21).contains(&size) {
        exponential(value)
    } else {
        number(value)
    }
}

/// With an exponent of at least two digits and its sign, as Go has it.
fn exponential(value: f64) -> String {
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, size) = match exponent.strip_prefix('-') {
                Some(size) => ('-', size),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{size:0>2}")
        }
        None => text,
    }
}

/// A length of time as Prometheus writes it: whole units from years to milliseconds.
pub(super) fn duration(seconds: f64) -> String {
    let mut millis = (seconds.abs() * 1000.0).round() as u64;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = if seconds < 0.0 { "-".to_owned() } else { String::new() };
    // Years and weeks only where nothing remains, as `1d` reads better than parts of a week.
    for (unit, size, exact) in [
        ("y", 365 * 86_400_000, true),
        ("w", 7 * 86_400_000, true),
        ("d", 86_400_000, false),
        ("h", 3_600_000, false),
        ("m", 60_000, false),
        ("s", 1_000, false),
        ("ms", 1, false),
    ] {
        if exact && !millis.is_multiple_of(size) {
            continue;
        }
        let count = millis / size;
        if count > 0 {
            out.push_str(&format!("{count}{unit}"));
            millis -= count * size;
        }
    }
    out
}

impl Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Literal { seconds, written_as_duration: true } => f.write_str(&duration(*seconds)),
            Duration::Literal { seconds, .. } => f.write_str(&number(*seconds)),
            Duration::Step => f.write_str("step()"),
            Duration::Range => f.write_str("range()"),
            Duration::Negate(inner) => write!(f, "-{inner}"),
            Duration::Paren(inner) => write!(f, "({inner})"),
            Duration::Min(a, b) => write!(f, "min({a}, {b})"),
            Duration::Max(a, b) => write!(f, "max({a}, {b})"),
            Duration::Binary(op, a, b) => write!(f, "{a} {} {b}", op.symbol()),
        }
    }
}

/// A duration where Prometheus prints plain literals as durations, whatever they were written as. What is no whole number
/// of milliseconds stays a number of seconds, since it would change.
fn length(value: &Duration) -> String {
    match value {
        Duration::Literal { seconds, .. } if (seconds * 1000.0).round() / 1000.0 != *seconds => {
            number(*seconds)
        }
        Duration::Literal { seconds, .. } => duration(*seconds),
        computed => computed.to_string(),
    }
}

impl Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(At::Millis(millis)) => write!(f, " @ {:.3}", millis as f64 / 1000.0)?,
            Some(At::Start) => f.write_str(" @ start()")?,
            Some(At::End) => f.write_str(" @ end()")?,
            None => {}
        }
        match &self.offset {
            Some(Duration::Literal { seconds: 0.0, .. }) | None => Ok(()),
            Some(offset) => write!(f, " offset {}", length(offset)),
        }
    }
}

fn label_name(name: &str) -> String {
    if is_label_name(name) { name.to_owned() } else { quote(name.as_bytes()) }
}

fn label_names(names: &[String]) -> String {
    names.iter().map(|name| label_name(name)).collect::<Vec<_>>().join(", ")
}

impl Display for LabelMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", label_name(&self.name), self.op.symbol(), quote(self.value.as_bytes()))
    }
}

/// Name and matchers, without modifiers.
struct Bare<'a>(&'a VectorSelector);

impl Display for Bare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let selector = self.0;
        f.write_str(&selector.name)?;
        let is_name = |m: &&LabelMatcher| {
            !selector.name.is_empty()
                && m.name == NAME_KEY
                && m.op == MatchOp::Equal
                && m.value == selector.name
        };
        let mut shown: Vec<String> =
            selector.matchers.iter().filter(|m| !is_name(m)).map(ToString::to_string).collect();
        if shown.is_empty() {
            return Ok(());
        }
        shown.sort();
        write!(f, "{{{}}}", shown.join(","))
    }
}

impl Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", aggregate_head(self))?;
        if let Some(param) = &self.param {
            write!(f, "{param}, ")?;
        }
        write!(f, "{})", self.expr)
    }
}

fn aggregate_head(aggregate: &Aggregate) -> String {
    let (op, labels) = (aggregate.op.name(), label_names(&aggregate.grouping));
    match (aggregate.without, aggregate.grouping.is_empty()) {
        (true, _) => format!("{op} without ({labels}) "),
        (false, false) => format!("{op} by ({labels}) "),
        (false, true) => op.to_owned(),
    }
}

/// The operator of a binary expression with its modifiers.
fn binary_head(binary: &Binary) -> String {
    let mut out = binary.op.symbol().to_owned();
    if binary.return_bool {
        out.push_str(" bool");
    }
    if let Some(matching) = &binary.matching {
        out.push_str(&matching_text(matching));
    }
    out
}

fn matching_text(matching: &Matching) -> String {
    let mut out = String::new();
    let grouped = match matching.cardinality {
        Cardinality::ManyToOne => Some("left"),
        Cardinality::OneToMany => Some("right"),
        _ => None,
    };
    if matching.on || !matching.labels.is_empty() || grouped.is_some() {
        let keyword = if matching.on { "on" } else { "ignoring" };
        out.push_str(&format!(" {keyword} ({})", label_names(&matching.labels)));
    }
    if let Some(side) = grouped {
        out.push_str(&format!(" group_{side} ({})", label_names(&matching.include)));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            out.push_str(&format!(" fill ({})", number(left)));
        }
        (left, right) => {
            for (side, value) in [("left", left), ("right", right)] {
                if let Some(value) = value {
                    out.push_str(&format!(" fill_{side} ({})", number(value)));
                }
            }
        }
    }
    out
}

impl Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(ToString::to_string).collect();
        write!(f, "{}({})", self.function.name, args.join(", "))
    }
}

impl Display for NumberLiteral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&if self.duration { duration(self.value) } else { number(self.value) })
    }
}

impl Display for Expr {
    /// In one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Number(n) => n.fmt(f),
            Expr::String(s) => f.write_str(&quote(&s.value)),
            Expr::Vector(v) => write!(f, "{}{}", Bare(v), v.shift),
            Expr::Matrix(m) => write!(f, "{}[{}]{}", Bare(&m.selector), length(&m.range), m.selector.shift),
            Expr::Subquery(s) => write!(f, "{}{}", s.expr, subquery_suffix(self)),
            Expr::Call(call) => call.fmt(f),
            Expr::Aggregate(aggregate) => aggregate.fmt(f),
            Expr::Binary(b) if is_infinite_base(b) => write!(f, "Inf {} {}", binary_head(b), b.right),
            Expr::Binary(b) => write!(f, "{} {} {}", b.left, binary_head(b), b.right),
            Expr::Unary(u) => write!(f, "{}{}", if u.negate { "-" } else { "+" }, u.expr),
            Expr::Paren(p) => write!(f, "({})", p.expr),
        }
    }
}

/// Whether the left operand is an infinity that is raised to a power: the sign with which it is written elsewhere would
/// apply to the power. Prometheus writes that sign nevertheless.
fn is_infinite_base(binary: &Binary) -> bool {
    binary.op == BinaryOp::Pow && matches!(&binary.left, Expr::Number(n) if n.value == f64::INFINITY)
}

fn subquery_suffix(expr: &Expr) -> String {
    let Expr::Subquery(subquery) = expr else { return String::new() };
    let step = subquery.step.as_ref().map(length).unwrap_or_default();
    format!("[{}:{step}]{}", length(&subquery.range), subquery.shift)
}

/// `expr` over as many lines as it needs to keep them short, each level indented by two blanks.
pub fn pretty(expr: &Expr) -> String {
    let mut out = String::new();
    write_pretty(expr, 0, &mut out);
    out
}

fn write_pretty(expr: &Expr, level: usize, out: &mut String) {
    let indent = "  ".repeat(level);
    let line = expr.to_string();
    let splits = line.len() > LINE_SIZE_MAX;
    match expr {
        Expr::Unary(unary) => {
            let start = out.len();
            write_pretty(&unary.expr, level, out);
            let child = out.split_off(start);
            let sign = if unary.negate { "-" } else { "+" };
            out.push_str(&format!("{indent}{sign}{}", child.trim()));
        }
        Expr::Subquery(subquery) if splits => {
            write_pretty(&subquery.expr, level, out);
            out.push_str(&subquery_suffix(expr));
        }
        Expr::Aggregate(aggregate) if splits => {
            let args = aggregate.param.iter().chain([&aggregate.expr]);
            write_arguments(&aggregate_head(aggregate), args, level, out);
        }
        Expr::Call(call) if splits => write_arguments(call.function.name, call.args.iter(), level, out),
        Expr::Paren(paren) if splits => write_arguments("", [&paren.expr].into_iter(), level, out),
        Expr::Binary(binary) if splits => {
            if is_infinite_base(binary) {
                let _ = write!(out, "{indent}  Inf");
            } else {
                write_pretty(&binary.left, level + 1, out);
            }
            let _ = write!(out, "\n{indent}{}\n", binary_head(binary));
            write_pretty(&binary.right, level + 1, out);
        }
        _ => {
            out.push_str(&indent);
            out.push_str(&line);
        }
    }
}

fn write_arguments<'e>(head: &str, args: impl Iterator<Item = &'e Expr>, level: usize, out: &mut String) {
    let indent = "  ".repeat(level);
    let _ = write!(out, "{indent}{head}(");
    for (index, arg) in args.enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        write_pretty(arg, level + 1, out);
    }
    let _ = write!(out, "\n{indent})");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(pretty(&parse(query).unwrap()), expected);
    }

    #[test]
    fn short_expressions_stay_on_one_line() {
        check("sum(  rate(a[5m]) )by(job)", "sum by (job) (rate(a[5m]))");
        check("a+on(b)group_left c", "a + on (b) group_left () c");
        check("a{b='c',a=\"d\"} offset 90s", r#"a{a="d",b="c"} offset 1m30s"#);
        check("1e3 + 0x10 + 5m", "1000 + 16 + 5m");
        check("a == bool 1", "a == bool 1");
        check("a[0.5] offset 100.2e-6", "a[500ms] offset 0.0001002");
        check("Inf ^ 2 ^ Inf + Inf", "Inf ^ 2 ^ +Inf + +Inf");
    }

    #[test]
    fn long_expressions_are_split() {
        let long = "x".repeat(60);
        check(
            &format!("sum by (job) (rate({long}[5m])) / {long}"),
            &format!("  sum by (job) (rate({long}[5m]))\n/\n  {long}"),
        );
        check(&format!("topk(5, {long} + {long})"), &format!("topk(\n  5,\n    {long}\n  +\n    {long}\n)"));
    }

    #[test]
    fn numbers_are_written_as_go_does() {
        for (value, text) in [(1e21, "1e+21"), (1e-7, "1e-07"), (0.5, "0.5"), (100.0, "100"), (-1.1, "-1.1")]
        {
            assert_eq!((general(value), value_text(value)), (text.to_owned(), text.to_owned()));
        }
        assert_eq!(
            (general(1e-5), value_text(1e-5), number(1e-7)),
            ("1e-05".into(), "0.00001".into(), "0.0000001".into())
        );
        assert_eq!([f64::NAN, f64::INFINITY, -0.0].map(value_text), ["NaN", "+Inf", "-0"]);
    }

    #[test]
    fn strings_are_quoted_as_go_does() {
        assert_eq!(quote(b"a\"\\\n\xff\x01"), r#""a\"\\\n\xff\x01""#);
    }
}
