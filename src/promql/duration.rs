//! Duration expressions: how they are parsed and what they amount to.

use super::ast::{BinaryOp, Duration, DurationOp, NumberLiteral};
use super::lexer::Token;
use super::parser::{Parsed, Parser, fault};

/// What a duration can refer to: the steps of the query it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationContext {
    /// Distance of the query's steps, in seconds.
    pub(super) step: f64,
    /// From the query's first step to its last, in seconds.
    pub(super) range: f64,
}

impl Duration {
    /// Its length in seconds.
    ///
    /// # Errors
    /// A message, for a division by zero.
    pub(super) fn seconds(&self, context: DurationContext) -> Result<f64, &'static str> {
        Ok(match self {
            Duration::Literal { seconds, .. } => *seconds,
            Duration::Step => context.step,
            Duration::Range => context.range,
            Duration::Negate(inner) => -inner.seconds(context)?,
            Duration::Paren(inner) => inner.seconds(context)?,
            Duration::Min(a, b) => a.seconds(context)?.min(b.seconds(context)?),
            Duration::Max(a, b) => a.seconds(context)?.max(b.seconds(context)?),
            Duration::Binary(op, a, b) => {
                let (a, b) = (a.seconds(context)?, b.seconds(context)?);
                match op {
                    DurationOp::Add => a + b,
                    DurationOp::Sub => a - b,
                    DurationOp::Mul => a * b,
                    DurationOp::Div if b == 0.0 => return Err("division by zero"),
                    DurationOp::Div => a / b,
                    DurationOp::Mod if b == 0.0 => return Err("modulo by zero"),
                    DurationOp::Mod => a % b,
                    DurationOp::Pow => a.powf(b),
                }
            }
        })
    }

    /// Its length in nanoseconds; what is computed is cut to whole milliseconds, as in Prometheus.
    ///
    /// # Errors
    /// A message, when it is not a length of time that fits.
    pub(super) fn nanos(&self, context: DurationContext) -> Result<i64, &'static str> {
        let millis = match self {
            Duration::Literal { seconds, .. } => (seconds * 1000.0).round(),
            computed => (computed.seconds(context)? * 1000.0).trunc(),
        };
        if millis.is_nan() || millis.abs() > 9.2e12 {
            return Err("duration out of range");
        }
        Ok(millis as i64 * 1_000_000)
    }

    /// Whether it depends on the query's steps.
    fn depends_on_query(&self) -> bool {
        match self {
            Duration::Literal { .. } => false,
            Duration::Step | Duration::Range => true,
            Duration::Negate(a) | Duration::Paren(a) => a.depends_on_query(),
            Duration::Binary(_, a, b) | Duration::Min(a, b) | Duration::Max(a, b) => {
                a.depends_on_query() || b.depends_on_query()
            }
        }
    }
}

impl Parser<'_> {
    /// The length of a window or the step of a subquery, which is above zero.
    pub(super) fn range_duration(&mut self, context: &str) -> Parsed<Duration> {
        let start = self.span();
        let duration = self.duration(0, context)?;
        if !duration.depends_on_query() {
            let nothing = DurationContext { step: 0.0, range: 0.0 };
            match duration.nanos(nothing) {
                Ok(nanos) if nanos <= 0 => return fault(start, "duration must be greater than 0"),
                Ok(_) => {}
                Err(message) => return fault(start, message),
            }
        }
        Ok(duration)
    }

    /// The length behind `offset`: one literal with a sign, or anything in parentheses.
    pub(super) fn offset_duration(&mut self) -> Parsed<Duration> {
        let start = self.span();
        let duration = self.duration_operand("offset", true)?;
        if !duration.depends_on_query()
            && let Err(message) = duration.nanos(DurationContext { step: 0.0, range: 0.0 })
        {
            return fault(start, message);
        }
        Ok(duration)
    }

    fn duration(&mut self, precedence_min: u8, context: &str) -> Parsed<Duration> {
        self.enter()?;
        let mut left = self.duration_operand(context, false)?;
        let mut operators = 0;
        while let Some((op, precedence)) = self.duration_op().filter(|(_, p)| *p >= precedence_min) {
            self.advance();
            operators += 1;
            if operators > super::parser::NESTING_MAX {
                return fault(self.span(), "too many operators in a duration");
            }
            let right = self.duration(precedence + u8::from(op != DurationOp::Pow), context)?;
            left = Duration::Binary(op, Box::new(left), Box::new(right));
        }
        self.leave();
        Ok(left)
    }

    fn duration_op(&self) -> Option<(DurationOp, u8)> {
        let Token::Operator(op) = self.peek() else { return None };
        let found = match op {
            BinaryOp::Add => DurationOp::Add,
            BinaryOp::Sub => DurationOp::Sub,
            BinaryOp::Mul => DurationOp::Mul,
            BinaryOp::Div => DurationOp::Div,
            BinaryOp::Mod => DurationOp::Mod,
            BinaryOp::Pow => DurationOp::Pow,
            _ => return None,
        };
        Some((found, op.precedence()))
    }

    /// A literal, a call, parentheses, or one of these with a sign before it.
    fn duration_operand(&mut self, context: &str, sign_binds_first: bool) -> Parsed<Duration> {
        self.enter()?;
        let operand = match self.peek() {
            Token::Operator(BinaryOp::Sub | BinaryOp::Add) => {
                let negate = self.peek() == Token::Operator(BinaryOp::Sub);
                self.advance();
                let inner = if sign_binds_first {
                    self.duration_operand(context, true)?
                } else {
                    self.duration(BinaryOp::Pow.precedence(), context)?
                };
                signed(negate, inner)
            }
            Token::LeftParen => {
                self.advance();
                let inner = self.duration(0, context)?;
                self.expect(Token::RightParen, context, "\")\"")?;
                Duration::Paren(Box::new(inner))
            }
            Token::Word => self.duration_call(context)?,
            _ => match self.number()? {
                Some(NumberLiteral { value, duration, .. }) => {
                    Duration::Literal { seconds: value, written_as_duration: duration }
                }
                None => return self.unexpected(context, "duration"),
            },
        };
        self.leave();
        Ok(operand)
    }

    fn duration_call(&mut self, context: &str) -> Parsed<Duration> {
        let name = self.text().to_ascii_lowercase();
        if !["step", "range", "min", "max"].contains(&name.as_str()) {
            return self.unexpected(context, "duration");
        }
        self.advance();
        self.expect(Token::LeftParen, context, "\"(\"")?;
        let call = match name.as_str() {
            "step" => Duration::Step,
            "range" => Duration::Range,
            _ => {
                let a = Box::new(self.duration(0, context)?);
                self.expect(Token::Comma, context, "\",\"")?;
                let b = Box::new(self.duration(0, context)?);
                if name == "min" { Duration::Min(a, b) } else { Duration::Max(a, b) }
            }
        };
        self.expect(Token::RightParen, context, "\")\"")?;
        Ok(call)
    }
}

fn signed(negate: bool, inner: Duration) -> Duration {
    match inner {
        Duration::Literal { seconds, written_as_duration } if negate => {
            Duration::Literal { seconds: -seconds, written_as_duration }
        }
        inner if negate => Duration::Negate(Box::new(inner)),
        inner => inner,
    }
}
