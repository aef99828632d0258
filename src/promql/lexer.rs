//! Query text to tokens. Called by the parser only.
//!
//! Keywords are identifiers here: what a word means depends on its place, which the parser knows.
//! Braces and brackets change what the lexer reads: inside braces `=` is a match and no keyword
//! exists, inside brackets a colon parts range and step and does not belong to a name.

use super::ast::{BinaryOp, Span};

/// The kind of a token; its text is the query's at its span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token {
    End,
    /// A word without a colon: metric, label, function, keyword.
    Word,
    /// A word with a colon: a metric only.
    MetricWord,
    Number,
    Duration,
    /// A quoted string, quotes included.
    Text,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    /// `=`
    Assign,
    /// `=~`
    MatchRegex,
    /// `!~`
    MatchNotRegex,
    At,
    Operator(BinaryOp),
}

/// A token and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lexeme {
    pub(super) token: Token,
    pub(super) span: Span,
}

/// What could not be read, and where.
#[derive(Debug)]
pub(super) struct LexError {
    pub(super) message: String,
    pub(super) span: Span,
}

/// Whether `name` can be written as a metric name without quotes.
pub(super) fn is_metric_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| is_word_start(b) || b == b':') && bytes.all(|b| is_word_byte(b) || b == b':')
}

/// Whether `name` can be written as a label name without quotes.
pub(super) fn is_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_word_start) && bytes.all(is_word_byte)
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Reads all of `query`. The last token is [`Token::End`].
pub(super) fn lex(query: &str) -> Result<Vec<Lexeme>, LexError> {
    let mut lexer = Lexer { text: query, at: 0, parens: 0, brace: false, bracket: false, tokens: Vec::new() };
    while lexer.next()? {}
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    parens: usize,
    brace: bool,
    bracket: bool,
    tokens: Vec<Lexeme>,
}

impl Lexer<'_> {
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, token: Token, size: usize) {
        let span = Span { start: self.at, end: self.at + size };
        self.tokens.push(Lexeme { token, span });
        self.at += size;
    }

    #[cold]
    fn error<T>(&self, message: impl Into<String>) -> Result<T, LexError> {
        let span = Span { start: self.at, end: self.text.len() };
        Err(LexError { message: message.into(), span })
    }

    fn next(&mut self) -> Result<bool, LexError> {
        self.skip_blanks();
        if self.at >= self.text.len() {
            return self.end();
        }
        let byte = self.byte(0);
        match byte {
            b'"' | b'\'' | b'`' => self.quoted(byte)?,
            b',' => self.push(Token::Comma, 1),
            b'{' if self.brace => return self.error("unexpected left brace '{'"),
            b'{' => {
                self.brace = true;
                self.push(Token::LeftBrace, 1);
            }
            b'}' if !self.brace => return self.error("unexpected right brace '}'"),
            b'}' => {
                self.brace = false;
                self.push(Token::RightBrace, 1);
            }
            _ if self.brace => self.inside_braces(byte)?,
            _ => self.outside_braces(byte)?,
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<bool, LexError> {
        if self.brace {
            return self.error("unexpected end of input inside braces");
        }
        if self.bracket {
            return self.error("unclosed left bracket");
        }
        if self.parens > 0 {
            return self.error("unclosed left parenthesis");
        }
        self.push(Token::End, 0);
        Ok(false)
    }

    fn skip_blanks(&mut self) {
        loop {
            match self.byte(0) {
                b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                b'#' => {
                    let rest = &self.text.as_bytes()[self.at..];
                    self.at += rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                }
                _ => return,
            }
        }
    }

    fn inside_braces(&mut self, byte: u8) -> Result<(), LexError> {
        match (byte, self.byte(1)) {
            (b'=', b'~') => self.push(Token::MatchRegex, 2),
            (b'=', _) => self.push(Token::Assign, 1),
            (b'!', b'~') => self.push(Token::MatchNotRegex, 2),
            (b'!', b'=') => self.push(Token::Operator(BinaryOp::NotEqual), 2),
            (b'!', _) => return self.error(format!("unexpected character after '!': {}", self.character(1))),
            _ if is_word_start(byte) => self.word(false),
            _ => return self.error(format!("unexpected character inside braces: {}", self.character(0))),
        }
        Ok(())
    }

    fn outside_braces(&mut self, byte: u8) -> Result<(), LexError> {
        use BinaryOp::{
            Add, Div, Equal, Greater, GreaterEqual, Less, LessEqual, Mod, Mul, NotEqual, Pow, Sub,
        };
        match (byte, self.byte(1)) {
            (b'(', _) => {
                self.parens += 1;
                self.push(Token::LeftParen, 1);
            }
            (b')', _) if self.parens == 0 => return self.error("unexpected right parenthesis ')'"),
            (b')', _) => {
                self.parens -= 1;
                self.push(Token::RightParen, 1);
            }
            (b'[', _) if self.bracket => return self.error("unexpected left bracket '['"),
            (b'[', _) => {
                self.bracket = true;
                self.push(Token::LeftBracket, 1);
            }
            (b']', _) if !self.bracket => return self.error("unexpected right bracket ']'"),
            (b']', _) => {
                self.bracket = false;
                self.push(Token::RightBracket, 1);
            }
            (b':', _) if self.bracket => self.push(Token::Colon, 1),
            (b'+', _) => self.push(Token::Operator(Add), 1),
            (b'-', _) => self.push(Token::Operator(Sub), 1),
            (b'*', _) => self.push(Token::Operator(Mul), 1),
            (b'/', _) => self.push(Token::Operator(Div), 1),
            (b'%', _) => self.push(Token::Operator(Mod), 1),
            (b'^', _) => self.push(Token::Operator(Pow), 1),
            (b'@', _) => self.push(Token::At, 1),
            (b'=', b'=') => self.push(Token::Operator(Equal), 2),
            (b'=', b'~') => return self.error("unexpected character after '=': '~'"),
            (b'=', _) => self.push(Token::Assign, 1),
            (b'!', b'=') => self.push(Token::Operator(NotEqual), 2),
            (b'!', _) => return self.error(format!("unexpected character after '!': {}", self.character(1))),
            (b'<', b'=') => self.push(Token::Operator(LessEqual), 2),
            (b'<', _) => self.push(Token::Operator(Less), 1),
            (b'>', b'=') => self.push(Token::Operator(GreaterEqual), 2),
            (b'>', _) => self.push(Token::Operator(Greater), 1),
            (b'.', next) if next.is_ascii_digit() => return self.number(),
            _ if byte.is_ascii_digit() => return self.number(),
            _ if is_word_start(byte) || byte == b':' => self.word(!self.bracket),
            _ => return self.error(format!("unexpected character: {}", self.character(0))),
        }
        Ok(())
    }

    fn character(&self, ahead: usize) -> String {
        let rest = self.text.get(self.at + ahead..).and_then(|rest| rest.chars().next());
        rest.map_or_else(|| "end of input".to_owned(), |c| format!("{c:?}"))
    }

    fn word(&mut self, colons: bool) {
        let rest = &self.text.as_bytes()[self.at..];
        let belongs = |b: &u8| is_word_byte(*b) || (colons && *b == b':');
        let size = rest.iter().position(|b| !belongs(b)).unwrap_or(rest.len());
        let word = &self.text[self.at..self.at + size];
        let token = match word {
            _ if word.contains(':') => Token::MetricWord,
            _ if colons && (word.eq_ignore_ascii_case("inf") || word.eq_ignore_ascii_case("nan")) => {
                Token::Number
            }
            _ => Token::Word,
        };
        self.push(token, size);
    }

    fn quoted(&mut self, quote: u8) -> Result<(), LexError> {
        let rest = &self.text.as_bytes()[self.at..];
        let mut size = 1;
        loop {
            match rest.get(size) {
                None => return self.error("unterminated quoted string"),
                Some(b'\n') if quote != b'`' => return self.error("unterminated quoted string"),
                Some(b'\\') if quote != b'`' => size += 2,
                Some(b) if *b == quote => break,
                Some(_) => size += 1,
            }
        }
        self.push(Token::Text, size + 1);
        Ok(())
    }

    /// A number (`1`, `1_000`, `.5e-3`, `0x1f`) or a duration (`1h30m`).
    fn number(&mut self) -> Result<(), LexError> {
        let rest = &self.text.as_bytes()[self.at..];
        let number = number_size(rest);
        let ends = |size: usize| !rest.get(size).is_some_and(|b| is_word_byte(*b) || *b == b'.');
        if ends(number) {
            self.push(Token::Number, number);
            return Ok(());
        }
        let duration = duration_size(rest);
        if duration > 0 && ends(duration) {
            self.push(Token::Duration, duration);
            return Ok(());
        }
        let bad = rest.iter().position(|b| !is_word_byte(*b) && *b != b'.').unwrap_or(rest.len());
        let text = &self.text[self.at..self.at + bad];
        self.error(format!("bad number or duration syntax: {}", super::format::quote(text.as_bytes())))
    }
}

fn digits(bytes: &[u8], mut at: usize, is_digit: fn(&u8) -> bool) -> usize {
    while bytes
        .get(at)
        .is_some_and(|b| is_digit(b) || (*b == b'_' && bytes.get(at + 1).is_some_and(is_digit)))
    {
        at += 1;
    }
    at
}

fn number_size(bytes: &[u8]) -> usize {
    if bytes.first() == Some(&b'0') && matches!(bytes.get(1), Some(b'x' | b'X')) {
        return digits(bytes, 2, u8::is_ascii_hexdigit);
    }
    let mut size = digits(bytes, 0, u8::is_ascii_digit);
    if bytes.get(size) == Some(&b'.') {
        size = digits(bytes, size + 1, u8::is_ascii_digit);
    }
    if matches!(bytes.get(size), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(size + 1), Some(b'+' | b'-')));
        let end = digits(bytes, size + 1 + sign, u8::is_ascii_digit);
        if end > size + 1 + sign {
            size = end;
        }
    }
    size
}

/// Size of a run of `digits unit` pairs; whether units are in order is checked when it is parsed.
fn duration_size(bytes: &[u8]) -> usize {
    let mut size = 0;
    loop {
        let unit = size + bytes[size..].iter().take_while(|b| b.is_ascii_digit()).count();
        if unit == size {
            return size;
        }
        match (bytes.get(unit), bytes.get(unit + 1)) {
            (Some(b'm'), Some(b's')) => size = unit + 2,
            (Some(b's' | b'm' | b'h' | b'd' | b'w' | b'y'), _) => size = unit + 1,
            _ => return size,
        }
    }
}

/// Milliseconds of a duration such as `1h30m`: units from large to small, each at most once.
pub(super) fn parse_duration_ms(text: &str) -> Option<i64> {
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let mut rest = text;
    let mut next = 0;
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let count = rest.bytes().take_while(u8::is_ascii_digit).count();
        let value: i64 = rest.get(..count)?.parse().ok()?;
        rest = &rest[count..];
        let size = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = UNITS.iter().position(|(name, _)| *name == &rest[..size])?;
        if unit < next {
            return None;
        }
        next = unit + 1;
        total = total.checked_add(value.checked_mul(UNITS[unit].1)?)?;
        rest = &rest[size..];
    }
    (next > 0).then_some(total)
}

/// The bytes that a quoted string stands for; escapes are those of Go.
pub(super) fn unquote(quoted: &str) -> Result<Vec<u8>, String> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let quote = quoted.as_bytes().first().copied().unwrap_or(b'"');
    if quote == b'`' {
        return Ok(inner.bytes().filter(|b| *b != b'\r').collect());
    }
    let bad =
        || format!("error unquoting string {}: invalid syntax", super::format::quote(quoted.as_bytes()));
    let mut out = Vec::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let escape = chars.next().ok_or_else(bad)?;
        let simple = match escape {
            'a' => Some(7),
            'b' => Some(8),
            'f' => Some(12),
            'n' => Some(b'\n'),
            'r' => Some(b'\r'),
            't' => Some(b'\t'),
            'v' => Some(11),
            '\\' => Some(b'\\'),
            '"' | '\'' if escape as u32 == u32::from(quote) => Some(quote),
            _ => None,
        };
        if let Some(byte) = simple {
            out.push(byte);
            continue;
        }
        let (digits, radix, first) = match escape {
            'x' => (2, 16, None),
            'u' => (4, 16, None),
            'U' => (8, 16, None),
            '0'..='7' => (2, 8, escape.to_digit(8)),
            _ => return Err(bad()),
        };
        let mut value = first.unwrap_or(0);
        for _ in 0..digits {
            let digit = chars.next().and_then(|c| c.to_digit(radix)).ok_or_else(bad)?;
            value = value.checked_mul(radix).and_then(|v| v.checked_add(digit)).ok_or_else(bad)?;
        }
        if matches!(escape, 'u' | 'U') {
            let c = char::from_u32(value).ok_or_else(bad)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(u8::try_from(value).map_err(|_| bad())?);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(query: &str) -> Vec<Token> {
        lex(query).unwrap().into_iter().map(|l| l.token).collect()
    }

    #[test]
    fn numbers_and_durations() {
        use Token::{Duration, End, Number, Word};
        assert_eq!(tokens("1 .5 1e-3 0x1F 1_000 inf NaN"), [vec![Number; 7], vec![End]].concat());
        assert_eq!(tokens("5m 1h30m 100ms"), [Duration, Duration, Duration, End]);
        assert_eq!(tokens("infra"), [Word, End]);
        for bad in ["5mm", "1.5h", "0x", "1a", "5m3", "1__0"] {
            assert!(lex(bad).is_err() || bad == "0x", "{bad}");
        }
    }

    #[test]
    fn a_colon_parts_range_and_step_inside_brackets() {
        assert_eq!(tokens("a:b[5m:1m]").first(), Some(&Token::MetricWord));
        assert_eq!(tokens("a[5m:]")[3], Token::Colon);
    }

    #[test]
    fn durations_have_units_in_order() {
        assert_eq!(parse_duration_ms("1h30m"), Some(5_400_000));
        assert_eq!(parse_duration_ms("1y2w3d4h5m6s7ms"), Some(33_019_506_007));
        assert_eq!(parse_duration_ms("30m1h"), None);
        assert_eq!(parse_duration_ms("1m1m"), None);
        assert_eq!(parse_duration_ms("99999999999999y"), None);
        assert_eq!(parse_duration_ms(""), None);
    }

    #[test]
    fn strings_have_the_escapes_of_go() {
        assert_eq!(unquote(r#""a\n\x41\u00e9\101\"""#).unwrap(), "a\nAéA\"".as_bytes());
        assert_eq!(unquote(r#""\xc5z""#).unwrap(), b"\xc5z");
        assert_eq!(unquote(r"`a\n`").unwrap(), br"a\n");
        assert!(unquote(r#""\q""#).is_err());
        assert!(unquote(r#""\'""#).is_err());
    }
}
