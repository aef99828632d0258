//! Selectors of series: `name{label="value"}`. The part of the parser that reads braces.

use super::ast::{BinaryOp, Expr, LabelMatcher, MatchOp, Span, VectorSelector};
use super::format::quote;
use super::lexer::Token;
use super::parser::{Parsed, Parser, REGEX_SIZE_MAX, fault};
use crate::error::Result;
use crate::model::{Match, NAME_KEY};

impl Parser<'_> {
    /// `name`, `name{...}`, `{...}`.
    pub(super) fn selector(&mut self) -> Parsed<Expr> {
        let start = self.span().start;
        let mut name = String::new();
        let mut matchers = Vec::new();
        if matches!(self.peek(), Token::Word | Token::MetricWord) {
            let lexeme = self.advance();
            self.text_of(lexeme).clone_into(&mut name);
        }
        if self.take(Token::LeftBrace) {
            self.label_matchers(&mut matchers)?;
        }
        let span = Span { start, end: self.last_end() };
        if !name.is_empty() {
            if let Some(other) = matchers.iter().find(|m| m.name == NAME_KEY) {
                let (name, other) = (quote(name.as_bytes()), quote(other.value.as_bytes()));
                return fault(span, format!("metric name must not be set twice: {name} or {other}"));
            }
            matchers.push(name_matcher(&name));
        }
        Ok(Expr::Vector(Box::new(VectorSelector { name, matchers, shift: Default::default(), span })))
    }

    fn label_matchers(&mut self, matchers: &mut Vec<LabelMatcher>) -> Parsed<()> {
        while !self.take(Token::RightBrace) {
            let lexeme = self.lexeme(0);
            let name = match lexeme.token {
                Token::Word => self.text_of(lexeme).to_owned(),
                Token::Text => self.unquoted_text(lexeme)?,
                _ => return self.unexpected("label matching", "identifier or \"}\""),
            };
            self.advance();
            let op = match self.peek() {
                Token::Assign => MatchOp::Equal,
                Token::Operator(BinaryOp::NotEqual) => MatchOp::NotEqual,
                Token::MatchRegex => MatchOp::Regex,
                Token::MatchNotRegex => MatchOp::NotRegex,
                Token::Comma | Token::RightBrace if lexeme.token == Token::Text => {
                    self.quoted_name(&name, lexeme.span, matchers)?;
                    self.take(Token::Comma);
                    continue;
                }
                _ => return self.unexpected("label matching", "label matching operator"),
            };
            self.advance();
            let value = self.expect(Token::Text, "label matching", "string")?;
            let text = self.unquoted_text(value)?;
            let span = lexeme.span.to(value.span);
            let matcher = matcher(name, op, text).or_else(|error| fault(span, error.to_string()))?;
            if let Match::Regex(regex) | Match::NotRegex(regex) = &matcher.condition {
                self.regex_size += regex.memory_size();
            }
            if self.regex_size > REGEX_SIZE_MAX {
                return fault(span, format!("regular expressions take more than {REGEX_SIZE_MAX} bytes"));
            }
            matchers.push(matcher);
            if !self.take(Token::Comma) && self.peek() != Token::RightBrace {
                return self.unexpected("label matching", "\",\" or \"}\"");
            }
        }
        Ok(())
    }

    /// `{"metric name"}`.
    fn quoted_name(&self, name: &str, span: Span, matchers: &mut Vec<LabelMatcher>) -> Parsed<()> {
        if let Some(other) = matchers.iter().find(|m| m.name == NAME_KEY) {
            let (name, other) = (quote(name.as_bytes()), quote(other.value.as_bytes()));
            return fault(span, format!("metric name must not be set twice: {other} or {name}"));
        }
        matchers.push(name_matcher(name));
        Ok(())
    }
}

fn name_matcher(name: &str) -> LabelMatcher {
    LabelMatcher {
        name: NAME_KEY.to_owned(),
        op: MatchOp::Equal,
        value: name.to_owned(),
        condition: Match::equal(name),
    }
}

fn matcher(name: String, op: MatchOp, value: String) -> Result<LabelMatcher> {
    let condition = match op {
        MatchOp::Equal => Match::equal(value.clone()),
        MatchOp::NotEqual => Match::not_equal(value.clone()),
        MatchOp::Regex => Match::regex(&value)?,
        MatchOp::NotRegex => Match::not_regex(&value)?,
    };
    Ok(LabelMatcher { name, op, value, condition })
}
