//! Tokens to a syntax tree: recursive descent, with precedence climbing for binary operators.
//!
//! Follows the grammar of Prometheus 3 ("Querying basics" and "Operators" in its documentation).
//! Nesting is bounded by [`NESTING_MAX`], so no text can exhaust the stack of whoever parses,
//! evaluates or drops the tree. Types are checked afterwards, by [`super::check`].

use super::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Expr, Matching, MatrixSelector,
    NumberLiteral, Paren, Span, StringLiteral, Subquery, Unary,
};
use super::format::quote;
use super::function::Function;
use super::lexer::{self, Lexeme, Token};
use crate::error::{Error, Result};
use crate::model::Selector;

/// Deepest nesting of expressions, operands of a chain of operators included.
pub const NESTING_MAX: usize = 128;

/// Most memory for the compiled regular expressions of a query, in bytes.
pub(super) const REGEX_SIZE_MAX: usize = 64 << 20;

/// Longest query, in bytes.
pub const QUERY_SIZE_MAX: usize = 1 << 20;

/// What is wrong with a query, and where.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Span,
    pub(super) message: String,
}

impl Fault {
    #[cold]
    fn error(self, query: &str) -> Error {
        Error::invalid_input(format!("{}: parse error: {}", self.span.position(query), self.message))
    }
}

pub(super) type Parsed<T> = std::result::Result<T, Fault>;

#[cold]
pub(super) fn fault<T>(span: Span, message: impl Into<String>) -> Parsed<T> {
    Err(Fault { span, message: message.into() })
}

/// Parses and type-checks a query.
///
/// # Errors
/// `InvalidInput` with `line:column: parse error: reason`, as Prometheus words it.
pub fn parse(query: &str) -> Result<Expr> {
    if query.len() > QUERY_SIZE_MAX {
        return Err(too_long(query));
    }
    let tree = tree(query).and_then(|expr| super::check::check(&expr, query).map(|()| expr));
    tree.map_err(|fault| fault.error(query))
}

/// Parses a selector that stands alone, without `offset` and `@`, as the HTTP API takes it in `match[]`.
///
/// # Errors
/// `InvalidInput`, worded as by [`parse`], for what is no selector. One that selects everything is one.
pub fn parse_selector(text: &str) -> Result<Selector> {
    if text.len() > QUERY_SIZE_MAX {
        return Err(too_long(text));
    }
    let selector = tree(text).and_then(|expr| match expr {
        Expr::Vector(selector) if selector.shift.offset.is_none() && selector.shift.at.is_none() => {
            Ok(selector)
        }
        other => fault(other.span(), "only a selector of series may stand here"),
    });
    selector.map(|selector| super::plan::to_selector(&selector.matchers)).map_err(|fault| fault.error(text))
}

#[cold]
fn too_long(query: &str) -> Error {
    Error::limit_exceeded(format!("a query of {} bytes is longer than {QUERY_SIZE_MAX}", query.len()))
}

fn tree(query: &str) -> Parsed<Expr> {
    let tokens = lexer::lex(query).map_err(|e| Fault { span: e.span, message: e.message })?;
    let mut parser = Parser { query, tokens, at: 0, nesting: 0, regex_size: 0 };
    if parser.peek() == Token::End {
        return fault(Span::default(), "no expression found in input");
    }
    let expr = parser.expression(0)?.expr;
    if parser.peek() != Token::End {
        return parser.unexpected("", "");
    }
    Ok(expr)
}

pub(super) struct Parser<'a> {
    pub(super) query: &'a str,
    tokens: Vec<Lexeme>,
    at: usize,
    nesting: usize,
    /// Size of the compiled expressions so far.
    pub(super) regex_size: usize,
}

/// A subtree and how high it is.
struct Tree {
    expr: Expr,
    height: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Token {
        self.lexeme(0).token
    }

    pub(super) fn lexeme(&self, ahead: usize) -> Lexeme {
        let last = self.tokens.len() - 1;
        self.tokens[(self.at + ahead).min(last)]
    }

    /// Text of the next token.
    pub(super) fn text(&self) -> &'a str {
        self.text_of(self.lexeme(0))
    }

    pub(super) fn text_of(&self, lexeme: Lexeme) -> &'a str {
        self.query.get(lexeme.span.start..lexeme.span.end).unwrap_or_default()
    }

    pub(super) fn span(&self) -> Span {
        self.lexeme(0).span
    }

    /// The end of the last token taken.
    pub(super) fn last_end(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |at| self.tokens[at].span.end)
    }

    pub(super) fn advance(&mut self) -> Lexeme {
        let lexeme = self.lexeme(0);
        self.at += 1;
        lexeme
    }

    pub(super) fn take(&mut self, token: Token) -> bool {
        let found = self.peek() == token;
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, token: Token, context: &str, expected: &str) -> Parsed<Lexeme> {
        if self.peek() == token { Ok(self.advance()) } else { self.unexpected(context, expected) }
    }

    /// Whether the token `ahead` is this keyword, in any case.
    fn is_keyword(&self, ahead: usize, keyword: &str) -> bool {
        let lexeme = self.lexeme(ahead);
        lexeme.token == Token::Word && self.text_of(lexeme).eq_ignore_ascii_case(keyword)
    }

    fn take_keyword(&mut self, keyword: &str) -> bool {
        let found = self.is_keyword(0, keyword);
        self.at += usize::from(found);
        found
    }

    #[cold]
    pub(super) fn unexpected<T>(&self, context: &str, expected: &str) -> Parsed<T> {
        let found = match self.peek() {
            Token::End => "end of input".to_owned(),
            Token::Word | Token::MetricWord => format!("identifier {}", quote(self.text().as_bytes())),
            Token::Number => format!("number {}", quote(self.text().as_bytes())),
            Token::Duration => format!("duration {}", quote(self.text().as_bytes())),
            Token::Text => format!("string {}", self.text()),
            Token::Operator(op) => format!("<op:{}>", op.symbol()),
            _ => quote(self.text().as_bytes()),
        };
        let place = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let wanted = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        fault(self.span(), format!("unexpected {found}{place}{wanted}"))
    }

    pub(super) fn enter(&mut self) -> Parsed<()> {
        self.nesting += 1;
        self.check_height(self.nesting)
    }

    pub(super) fn leave(&mut self) {
        self.nesting -= 1;
    }

    fn check_height(&self, height: usize) -> Parsed<()> {
        if height > NESTING_MAX {
            return fault(self.span(), format!("expression is nested more than {NESTING_MAX} levels deep"));
        }
        Ok(())
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        match self.peek() {
            Token::Operator(op) => Some(op),
            Token::Word => [BinaryOp::And, BinaryOp::Or, BinaryOp::Unless, BinaryOp::Atan2]
                .into_iter()
                .find(|op| self.is_keyword(0, op.symbol())),
            _ => None,
        }
    }

    /// An expression whose operators bind at least as tightly as `precedence_min`.
    fn expression(&mut self, precedence_min: u8) -> Parsed<Tree> {
        self.enter()?;
        let mut left = self.signed()?;
        while let Some(op) = self.binary_op().filter(|op| op.precedence() >= precedence_min) {
            self.advance();
            let (return_bool, matching) = self.binary_modifiers()?;
            let right = self.expression(op.precedence() + u8::from(op != BinaryOp::Pow))?;
            let height = left.height.max(right.height) + 1;
            self.check_height(height)?;
            let binary =
                Binary { op, left: left.expr, right: right.expr, matching: Some(matching), return_bool };
            left = Tree { expr: Expr::Binary(Box::new(binary)), height };
        }
        self.leave();
        Ok(left)
    }

    fn signed(&mut self) -> Parsed<Tree> {
        let negate = match self.peek() {
            Token::Operator(BinaryOp::Sub) => true,
            Token::Operator(BinaryOp::Add) => false,
            _ => return self.postfixed(),
        };
        let start = self.advance().span;
        let Tree { expr, height } = self.expression(BinaryOp::Pow.precedence())?;
        let span = start.to(expr.span());
        let expr = match expr {
            Expr::Number(number) => {
                let value = if negate { -number.value } else { number.value };
                Expr::Number(NumberLiteral { value, span, ..number })
            }
            expr => Expr::Unary(Box::new(Unary { negate, expr, span })),
        };
        self.check_height(height + 1)?;
        Ok(Tree { expr, height: height + 1 })
    }

    fn postfixed(&mut self) -> Parsed<Tree> {
        let Tree { mut expr, mut height } = self.primary()?;
        loop {
            if self.peek() == Token::LeftBracket {
                expr = self.bracketed(expr)?;
                height += 1;
                self.check_height(height)?;
            } else if self.take(Token::At) {
                let at = self.at_time()?;
                self.set_at(&mut expr, at)?;
            } else if self.take_keyword("offset") {
                let offset = self.offset_duration()?;
                let end = self.last_end();
                let (shift, span) = shift_of(&mut expr, "offset modifier")?;
                if shift.offset.is_some() {
                    return fault(*span, "offset may not be set multiple times");
                }
                shift.offset = Some(offset);
                span.end = end;
            } else {
                return Ok(Tree { expr, height });
            }
        }
    }

    fn set_at(&self, expr: &mut Expr, at: At) -> Parsed<()> {
        let (shift, span) = shift_of(expr, "@ modifier")?;
        if shift.at.is_some() {
            return fault(*span, "@ <timestamp> may not be set multiple times");
        }
        shift.at = Some(at);
        span.end = self.last_end();
        Ok(())
    }

    fn at_time(&mut self) -> Parsed<At> {
        for (keyword, at) in [("start", At::Start), ("end", At::End)] {
            if self.take_keyword(keyword) {
                self.expect(Token::LeftParen, "@", "\"(\"")?;
                self.expect(Token::RightParen, "@", "\")\"")?;
                return Ok(at);
            }
        }
        let negate = self.take(Token::Operator(BinaryOp::Sub));
        if !negate {
            self.take(Token::Operator(BinaryOp::Add));
        }
        let span = self.span();
        let Some(value) = self.number()? else { return self.unexpected("@", "timestamp") };
        let seconds = if negate { -value.value } else { value.value };
        let millis = (seconds * 1000.0).round();
        if millis.is_nan() || millis.abs() > 9.2e18 {
            return fault(span, format!("timestamp out of bounds for @ modifier: {seconds:.6}"));
        }
        Ok(At::Millis(millis as i64))
    }

    /// `[range]` or `[range:step]` behind `expr`.
    fn bracketed(&mut self, expr: Expr) -> Parsed<Expr> {
        let open = self.advance().span;
        let range = self.range_duration("subquery or range selector")?;
        if self.take(Token::Colon) {
            let step = match self.peek() {
                Token::RightBracket => None,
                _ => Some(self.range_duration("subquery selector")?),
            };
            let close = self.expect(Token::RightBracket, "subquery selector", "\"]\"")?.span;
            let span = expr.span().to(close);
            let subquery = Subquery { expr, range, step, shift: Default::default(), span };
            return Ok(Expr::Subquery(Box::new(subquery)));
        }
        let close = self.expect(Token::RightBracket, "subquery or range", "\":\" or \"]\"")?.span;
        let brackets = open.to(close);
        match expr {
            Expr::Vector(selector) if selector.shift.offset.is_some() => {
                fault(brackets, "no offset modifiers allowed before range")
            }
            Expr::Vector(selector) if selector.shift.at.is_some() => {
                fault(brackets, "no @ modifiers allowed before range")
            }
            Expr::Vector(selector) => {
                let span = selector.span.to(close);
                Ok(Expr::Matrix(Box::new(MatrixSelector { selector: *selector, range, span })))
            }
            _ => fault(brackets, "ranges only allowed for vector selectors"),
        }
    }

    fn primary(&mut self) -> Parsed<Tree> {
        match self.peek() {
            Token::LeftParen => self.parenthesized(),
            Token::Word => self.word(),
            _ => Ok(Tree { expr: self.leaf()?, height: 1 }),
        }
    }

    fn parenthesized(&mut self) -> Parsed<Tree> {
        let open = self.advance().span;
        let Tree { expr, height } = self.expression(0)?;
        let close = self.expect(Token::RightParen, "", "")?.span;
        self.check_height(height + 1)?;
        let paren = Paren { expr, span: open.to(close) };
        Ok(Tree { expr: Expr::Paren(Box::new(paren)), height: height + 1 })
    }

    fn leaf(&mut self) -> Parsed<Expr> {
        match self.peek() {
            Token::Number | Token::Duration => match self.number()? {
                Some(number) => Ok(Expr::Number(number)),
                None => self.unexpected("", ""),
            },
            Token::Text => {
                let lexeme = self.advance();
                let value = self.unquoted(lexeme)?;
                Ok(Expr::String(StringLiteral { value, span: lexeme.span }))
            }
            Token::LeftBrace | Token::MetricWord => self.selector(),
            _ => self.unexpected("", ""),
        }
    }

    /// A number or duration literal, if one is next.
    pub(super) fn number(&mut self) -> Parsed<Option<NumberLiteral>> {
        let (text, span) = (self.text(), self.span());
        let (value, duration) = match self.peek() {
            Token::Number => (parse_number(text), false),
            Token::Duration => (lexer::parse_duration_ms(text).map(|ms| ms as f64 / 1000.0), true),
            _ => return Ok(None),
        };
        self.advance();
        match value {
            Some(value) => Ok(Some(NumberLiteral { value, duration, span })),
            None if duration => {
                fault(span, format!("not a valid duration string: {}", quote(text.as_bytes())))
            }
            None => fault(span, format!("error parsing number: {}", quote(text.as_bytes()))),
        }
    }

    fn unquoted(&self, lexeme: Lexeme) -> Parsed<Vec<u8>> {
        lexer::unquote(self.text_of(lexeme)).map_err(|message| Fault { span: lexeme.span, message })
    }

    pub(super) fn unquoted_text(&self, lexeme: Lexeme) -> Parsed<String> {
        String::from_utf8(self.unquoted(lexeme)?).or_else(|_| fault(lexeme.span, "invalid UTF-8 in string"))
    }

    fn word(&mut self) -> Parsed<Tree> {
        let word = self.text();
        let lower = word.to_ascii_lowercase();
        let called = self.lexeme(1).token == Token::LeftParen;
        if let Some(op) = AggregateOp::from_name(&lower) {
            if called || self.is_keyword(1, "by") || self.is_keyword(1, "without") {
                return self.aggregate(op);
            }
        } else if called {
            return self.call();
        }
        let reserved = ["bool", "on", "ignoring", "group_left", "group_right", "atan2"];
        if reserved.contains(&lower.as_str()) {
            return self.unexpected("", "");
        }
        Ok(Tree { expr: self.selector()?, height: 1 })
    }

    fn call(&mut self) -> Parsed<Tree> {
        let name = self.advance();
        let text = self.text_of(name);
        let Some(function) = Function::find(text) else {
            return fault(name.span, format!("unknown function with name {}", quote(text.as_bytes())));
        };
        let (args, height) = self.arguments()?;
        let span = Span { start: name.span.start, end: self.last_end() };
        Ok(Tree { expr: Expr::Call(Call { function, args, span }), height: height + 1 })
    }

    /// `(a, b)`, and the height of the highest of them.
    fn arguments(&mut self) -> Parsed<(Vec<Expr>, usize)> {
        self.expect(Token::LeftParen, "", "\"(\"")?;
        let (mut args, mut height) = (Vec::new(), 0);
        if self.take(Token::RightParen) {
            return Ok((args, height));
        }
        loop {
            let tree = self.expression(0)?;
            height = height.max(tree.height);
            args.push(tree.expr);
            if self.take(Token::RightParen) {
                self.check_height(height + 1)?;
                return Ok((args, height));
            }
            let comma = self.expect(Token::Comma, "", "")?.span;
            if self.peek() == Token::RightParen {
                return fault(comma, "trailing commas not allowed in function call args");
            }
        }
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Tree> {
        let start = self.advance().span.start;
        let mut modifier = self.aggregate_modifier()?;
        let (mut args, height) = self.arguments()?;
        if modifier.is_none() {
            modifier = self.aggregate_modifier()?;
        }
        let span = Span { start, end: self.last_end() };
        let wanted = 1 + usize::from(op.parameter().is_some());
        if args.is_empty() {
            return fault(span, "no arguments for aggregate expression provided");
        }
        if args.len() != wanted {
            let found = args.len();
            return fault(
                span,
                format!(
                    "wrong number of arguments for aggregate expression provided, expected {wanted}, got {found}"
                ),
            );
        }
        let (without, grouping) = modifier.unwrap_or_default();
        let Some(expr) = args.pop() else { return self.unexpected("aggregation", "") };
        let aggregate = Aggregate { op, param: args.pop(), expr, grouping, without, span };
        Ok(Tree { expr: Expr::Aggregate(Box::new(aggregate)), height: height + 1 })
    }

    fn aggregate_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = self.take_keyword("without");
        if !without && !self.take_keyword("by") {
            return Ok(None);
        }
        Ok(Some((without, self.label_names()?)))
    }

    /// `(a, "b c")`.
    fn label_names(&mut self) -> Parsed<Vec<String>> {
        self.expect(Token::LeftParen, "grouping opts", "\"(\"")?;
        let mut names = Vec::new();
        while !self.take(Token::RightParen) {
            let lexeme = self.advance();
            match lexeme.token {
                Token::Word => names.push(self.text_of(lexeme).to_owned()),
                Token::Text => {
                    let name = self.unquoted_text(lexeme)?;
                    if name.is_empty() {
                        return fault(lexeme.span, "invalid label name for grouping: \"\"");
                    }
                    names.push(name);
                }
                _ => {
                    self.at -= 1;
                    return self.unexpected("grouping opts", "label");
                }
            }
            if !self.take(Token::Comma) && self.peek() != Token::RightParen {
                return self.unexpected("grouping opts", "\",\" or \")\"");
            }
        }
        Ok(names)
    }

    /// `bool`, `on (...)`, `group_left (...)`, `fill (...)` behind an operator.
    fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let mut matching = Matching::default();
        let return_bool = self.take_keyword("bool");
        matching.on = self.is_keyword(0, "on") && self.lexeme(1).token == Token::LeftParen;
        if matching.on || (self.is_keyword(0, "ignoring") && self.lexeme(1).token == Token::LeftParen) {
            self.advance();
            matching.labels = self.label_names()?;
            for (keyword, cardinality) in
                [("group_left", Cardinality::ManyToOne), ("group_right", Cardinality::OneToMany)]
            {
                if self.take_keyword(keyword) {
                    matching.cardinality = cardinality;
                    if self.peek() == Token::LeftParen {
                        matching.include = self.label_names()?;
                    }
                    break;
                }
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn fill_modifiers(&mut self, matching: &mut Matching) -> Parsed<()> {
        for (keyword, left, right) in [
            ("fill", true, true),
            ("fill_left", true, false),
            ("fill_right", false, true),
            ("fill_left", true, false),
        ] {
            // As a metric name these words are not followed by a number in parentheses.
            if !self.is_keyword(0, keyword) || self.lexeme(1).token != Token::LeftParen {
                continue;
            }
            self.at += 2;
            let negate = self.take(Token::Operator(BinaryOp::Sub));
            let Some(number) = self.number()? else { return self.unexpected("fill", "number") };
            let value = if negate { -number.value } else { number.value };
            self.expect(Token::RightParen, "fill", "\")\"")?;
            if left {
                matching.fill_left = Some(value);
            }
            if right {
                matching.fill_right = Some(value);
            }
        }
        Ok(())
    }
}

/// What `offset` and `@` move: a selector or a subquery, and its span, which grows by them.
fn shift_of<'e>(expr: &'e mut Expr, what: &str) -> Parsed<(&'e mut super::ast::Shift, &'e mut Span)> {
    match expr {
        Expr::Vector(selector) => Ok((&mut selector.shift, &mut selector.span)),
        Expr::Matrix(matrix) => Ok((&mut matrix.selector.shift, &mut matrix.span)),
        Expr::Subquery(subquery) => Ok((&mut subquery.shift, &mut subquery.span)),
        other => fault(
            other.span(),
            format!(
                "{what} must be preceded by an instant vector selector or range vector selector or a subquery"
            ),
        ),
    }
}

/// A number as Go reads it: hexadecimal, octal with a leading zero, or decimal; `_` between digits.
fn parse_number(text: &str) -> Option<f64> {
    let plain = text.replace('_', "").to_ascii_lowercase();
    match plain.as_str() {
        "inf" => return Some(f64::INFINITY),
        "nan" => return Some(f64::NAN),
        _ => {}
    }
    if let Some(hex) = plain.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|n| n as f64);
    }
    if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
        return u64::from_str_radix(&plain, 8).ok().map(|n| n as f64);
    }
    plain.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: &str) {
        assert_eq!(parse(query).unwrap().to_string(), expected);
    }

    #[track_caller]
    fn refused(query: &str, message: &str) {
        let error = parse(query).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }

    #[test]
    fn precedence_is_that_of_prometheus() {
        check("1 + 2 * 3 ^ 4 ^ 5", "1 + 2 * 3 ^ 4 ^ 5");
        let Expr::Unary(unary) = parse("-a ^ 2").unwrap() else { panic!("no unary") };
        assert!(matches!(unary.expr, Expr::Binary(_)));
        let Expr::Binary(binary) = parse("-a * 2").unwrap() else { panic!("no binary") };
        assert!(matches!(binary.left, Expr::Unary(_)));
        let Expr::Binary(binary) = parse("a or b and c").unwrap() else { panic!("no binary") };
        assert_eq!(binary.op, BinaryOp::Or);
    }

    #[test]
    fn selectors_take_quoted_names_and_modifiers() {
        check(r#"{"my.metric", "a b"='c'}"#, r#"{"a b"="c",__name__="my.metric"}"#);
        check("a offset 5m @ 10", "a @ 10.000 offset 5m");
        check("a[5m] offset -1h", "a[5m] offset -1h");
        check("a[5m:1m] @ end()", "a[5m:1m] @ end()");
        check("sum", "sum");
        check("sum by (on) (by)", "sum by (on) (by)");
        check("a[2m * (10 + 5)]", "a[2m * (10 + 5)]");
    }

    #[test]
    fn errors_say_where() {
        refused("", "no expression found in input");
        refused("a +", "1:4: parse error: unexpected end of input");
        refused("a\n  + * b", "2:5: parse error: unexpected <op:*>");
        refused("(a", "unclosed left parenthesis");
        refused(
            "rate(a)",
            "1:6: parse error: expected type range vector in call to function \"rate\", got instant vector",
        );
        refused("a[0]", "duration must be greater than 0");
        refused("1 == 2", "comparisons between scalars must use BOOL modifier");
        refused("nope(a)", "unknown function with name \"nope\"");
        refused("{}", "vector selector must contain at least one non-empty matcher");
        refused("a{__name__=\"b\"}", "metric name must not be set twice");
        refused("(a)[5m]", "ranges only allowed for vector selectors");
        refused("a offset 1m offset 2m", "offset may not be set multiple times");
        refused("sum(a,)", "trailing commas");
        refused("topk(a)", "wrong number of arguments");
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |n: usize| format!("{}1{}", "(".repeat(n), ")".repeat(n));
        assert!(parse(&deep(NESTING_MAX - 2)).is_ok());
        refused(&deep(NESTING_MAX + 1), "nested more than");
        refused(&deep(100_000), "nested more than");
        refused(&"-".repeat(50_000), "nested more than");
        refused(&format!("a{}", " or a".repeat(1_000)), "nested more than");
    }

    #[test]
    fn numbers_are_read_as_go_does() {
        for (text, value) in [("0x1F", 31.0), ("017", 15.0), ("1_000", 1000.0), (".5", 0.5), ("1e3", 1000.0)]
        {
            assert_eq!(parse_number(text), Some(value), "{text}");
        }
    }
}
