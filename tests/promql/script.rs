//! The language of the acceptance scripts: `load`, `clear`, `eval`, and what an `eval` expects.

use icecore::promql::Labels;

/// A value of a series in a script.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Float(f64),
    /// A native histogram; its contents are not read, as no such case is run.
    Histogram,
    Omitted,
}

#[derive(Debug)]
pub(crate) struct ScriptSeries {
    pub(crate) labels: Labels,
    pub(crate) items: Vec<Item>,
}

#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) step_ms: i64,
    /// Whether histograms with custom buckets are made of the classic ones.
    pub(crate) nhcb: bool,
    pub(crate) series: Vec<ScriptSeries>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoteKind {
    Warn,
    Info,
    NoWarn,
    NoInfo,
}

#[derive(Clone, Debug)]
pub(crate) enum TextMatch {
    Any,
    Message(String),
    Regex(String),
}

#[derive(Debug, Default)]
pub(crate) struct Eval {
    pub(crate) line: usize,
    pub(crate) query: String,
    pub(crate) is_range: bool,
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) step_ms: i64,
    pub(crate) fail: Option<Option<TextMatch>>,
    pub(crate) ordered: bool,
    pub(crate) notes: Vec<(NoteKind, TextMatch)>,
    pub(crate) string: Option<String>,
    pub(crate) expects_range_vector: bool,
    pub(crate) scalar: Option<f64>,
    pub(crate) series: Vec<ScriptSeries>,
}

#[derive(Debug)]
pub(crate) enum Command {
    Load(Load),
    Eval(Eval),
}

/// Commands between two `clear`s.
pub(crate) type Session = Vec<Command>;

pub(crate) fn parse(text: &str) -> Vec<Session> {
    let lines: Vec<&str> =
        text.split('\n').map(str::trim).map(|line| if line.starts_with('#') { "" } else { line }).collect();
    let mut sessions = vec![Vec::new()];
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at];
        let word = line.split([' ', '\t']).next().unwrap_or_default();
        let body_end = at + 1 + lines[at + 1..].iter().take_while(|line| !line.is_empty()).count();
        let body = &lines[at + 1..body_end];
        match word {
            "" => at += 1,
            "clear" => {
                sessions.push(Vec::new());
                at += 1;
            }
            _ if word.starts_with("load") => {
                sessions.last_mut().unwrap().push(Command::Load(load(line, body)));
                at = body_end;
            }
            _ if word.starts_with("eval") => {
                sessions.last_mut().unwrap().push(Command::Eval(eval(at + 1, line, body)));
                at = body_end;
            }
            _ => panic!("line {}: {line}", at + 1),
        }
    }
    sessions.retain(|session| !session.is_empty());
    sessions
}

fn load(line: &str, body: &[&str]) -> Load {
    let (word, step) = line.split_once([' ', '\t']).unwrap();
    let mut series: Vec<ScriptSeries> = Vec::new();
    for line in body {
        let new = script_series(line);
        series.retain(|known| known.labels != new.labels);
        series.push(new);
    }
    Load { step_ms: duration_ms(step).unwrap(), nhcb: word == "load_with_nhcb", series }
}

fn eval(number: usize, line: &str, body: &[&str]) -> Eval {
    let (word, rest) = line.split_once([' ', '\t']).unwrap();
    let mut eval = Eval { line: number, ..Eval::default() };
    match word {
        "eval_fail" => eval.fail = Some(None),
        "eval_ordered" => eval.ordered = true,
        "eval_warn" => eval.notes.push((NoteKind::Warn, TextMatch::Any)),
        "eval_info" => eval.notes.push((NoteKind::Info, TextMatch::Any)),
        _ => assert_eq!(word, "eval", "line {number}"),
    }
    let rest = rest.trim();
    if let Some(rest) = rest.strip_prefix("instant") {
        let rest = rest.trim_start();
        let (at, query) = match rest.strip_prefix("at ") {
            Some(rest) => rest.trim_start().split_once([' ', '\t']).unwrap(),
            None => ("0", rest),
        };
        eval.start_ms = duration_ms(at).unwrap();
        eval.end_ms = eval.start_ms;
        eval.query = query.trim().to_owned();
    } else {
        let mut words = rest.split_whitespace();
        let expect: [&str; 7] = std::array::from_fn(|_| words.next().unwrap());
        let [range, from, start, to, end, step, width] = expect;
        assert_eq!([range, from, to, step], ["range", "from", "to", "step"], "line {number}");
        eval.is_range = true;
        (eval.start_ms, eval.end_ms) = (duration_ms(start).unwrap(), duration_ms(end).unwrap());
        eval.step_ms = duration_ms(width).unwrap();
        let after = rest.split_once(&format!(" {step} {width}")).unwrap().1;
        eval.query = after.trim().to_owned();
    }
    for line in body {
        if expectation(&mut eval, line) {
            break;
        }
    }
    eval
}

/// Reads a line below an `eval`; true when it is the last.
fn expectation(eval: &mut Eval, line: &str) -> bool {
    for (prefix, regex) in [("expected_fail_message", false), ("expected_fail_regexp", true)] {
        if let Some(text) = line.strip_prefix(prefix) {
            let text = text.trim().to_owned();
            let wanted = if regex { TextMatch::Regex(text) } else { TextMatch::Message(text) };
            eval.fail = Some(Some(wanted));
            return true;
        }
    }
    if let Some(rest) = line.strip_prefix("expect ") {
        expect(eval, rest.trim());
        return false;
    }
    if let Some(number) = number(line) {
        eval.scalar = Some(number);
        return true;
    }
    eval.series.push(script_series(line));
    false
}

fn expect(eval: &mut Eval, rest: &str) {
    if let Some(text) = rest.strip_prefix("string") {
        eval.string = Some(unquote(text.trim()));
        return;
    }
    if let Some(range) = rest.strip_prefix("range vector") {
        let words: Vec<&str> = range.split_whitespace().collect();
        eval.expects_range_vector = true;
        eval.start_ms = duration_ms(words[1]).unwrap();
        eval.end_ms = duration_ms(words[3]).unwrap();
        eval.step_ms = duration_ms(words[5]).unwrap();
        return;
    }
    let (kind, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let wanted = match rest.split_once(':') {
        Some(("msg", text)) => TextMatch::Message(text.trim().to_owned()),
        Some(("regex", text)) => TextMatch::Regex(text.trim().to_owned()),
        _ => TextMatch::Any,
    };
    match kind {
        "ordered" => eval.ordered = true,
        "fail" => eval.fail = Some(Some(wanted)),
        "warn" => eval.notes.push((NoteKind::Warn, wanted)),
        "info" => eval.notes.push((NoteKind::Info, wanted)),
        "no_warn" => eval.notes.push((NoteKind::NoWarn, wanted)),
        "no_info" => eval.notes.push((NoteKind::NoInfo, wanted)),
        _ => panic!("line {}: expect {kind}", eval.line),
    }
}

pub(crate) fn duration_ms(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("ms", 1),
        ("y", 31_536_000_000),
        ("w", 604_800_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
    ];
    let mut rest = text.trim();
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value: i64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, size) = UNITS.iter().find(|(unit, _)| rest.starts_with(unit))?;
        total += value * size;
        rest = &rest[unit.len()..];
    }
    Some(total)
}

/// A number as Go reads it.
fn number(text: &str) -> Option<f64> {
    let lower = text.trim().to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|n| n as f64);
    }
    lower.parse().ok()
}

/// `name{a="b"} values`.
fn script_series(line: &str) -> ScriptSeries {
    let mut name = String::new();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(line.len());
    name.push_str(&line[..end]);
    let mut rest = &line[end..];
    let mut labels: Vec<(String, String)> = Vec::new();
    let braces = rest.trim_start();
    if braces.starts_with('{') && !braces.starts_with("{{") {
        rest = &braces[1..];
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = word_or_quoted(rest);
            rest = after.trim_start();
            match rest.strip_prefix('=') {
                Some(after) => {
                    let (value, after) = word_or_quoted(after.trim_start());
                    if key == "__name__" {
                        name = value
                    } else {
                        labels.push((key, value))
                    }
                    rest = after;
                }
                None => name = key,
            }
        }
    }
    ScriptSeries { labels: Labels::new(&name, labels), items: items(rest) }
}

fn word_or_quoted(text: &str) -> (String, &str) {
    let quote = text.chars().next().unwrap();
    if !matches!(quote, '"' | '\'' | '`') {
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap();
        return (text[..end].to_owned(), &text[end..]);
    }
    let bytes = text.as_bytes();
    let mut end = 1;
    while bytes[end] != quote as u8 {
        end += if bytes[end] == b'\\' && quote != '`' { 2 } else { 1 };
    }
    (unquote(&text[..=end]), &text[end + 1..])
}

/// The text of a quoted string; the scripts use few escapes.
pub(crate) fn unquote(quoted: &str) -> String {
    let inner = &quoted[1..quoted.len() - 1];
    if quoted.starts_with('`') {
        return inner.to_owned();
    }
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next().unwrap() {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'x' => {
                    let digits: String = chars.by_ref().take(2).collect();
                    out.push(u8::from_str_radix(&digits, 16).unwrap() as char);
                }
                other => out.push(other),
            },
            other => out.push(other),
        }
    }
    out
}

fn items(text: &str) -> Vec<Item> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = if rest.starts_with("{{") {
            histogram_end(rest)
        } else {
            rest.find([' ', '\t']).unwrap_or(rest.len())
        };
        push_items(&rest[..end], &mut out);
        rest = rest[end..].trim_start();
    }
    out
}

/// The end of `{{...}}`, `{{...}}xN`, `{{...}}+{{...}}xN`.
fn histogram_end(text: &str) -> usize {
    let mut end = text.find("}}").unwrap() + 2;
    if text[end..].starts_with(['+', '-']) {
        end += text[end..].find("}}").unwrap() + 2;
    }
    end + text[end..].find([' ', '\t']).unwrap_or(text.len() - end)
}

fn push_items(token: &str, out: &mut Vec<Item>) {
    let (body, times) = match token.rsplit_once('x') {
        Some((body, times)) if times.parse::<usize>().is_ok() => (body, Some(times.parse().unwrap())),
        _ => (token, None),
    };
    let repeats: usize = times.unwrap_or(0);
    match body {
        "_" => out.extend(vec![Item::Omitted; times.unwrap_or(1)]),
        "stale" => out.extend(vec![Item::Float(icecore::promql::ABSENT); repeats + 1]),
        _ if body.starts_with("{{") => out.extend(vec![Item::Histogram; repeats + 1]),
        _ => {
            let (first, step) = split_step(body);
            let mut value = number(first).unwrap_or_else(|| panic!("value {token:?}"));
            out.push(Item::Float(value));
            for _ in 0..repeats {
                value += step;
                out.push(Item::Float(value));
            }
        }
    }
}

/// `a`, `a+b`, `a-b`: the first value and what is added to each next one.
fn split_step(body: &str) -> (&str, f64) {
    for (at, c) in body.char_indices().skip(1) {
        let before = body.as_bytes()[at - 1];
        if matches!(c, '+' | '-') && !matches!(before, b'e' | b'E') {
            let step = number(&body[at + 1..]).unwrap();
            return (&body[..at], if c == '+' { step } else { -step });
        }
    }
    (body, 0.0)
}
