//! The syntax tree of a query, with the place of every node in its text.

use super::function::Function;
use crate::model::Match;

/// A stretch of the query's text, in bytes, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte inside.
    pub start: usize,
    /// The first byte after.
    pub end: usize,
}

impl Span {
    /// From the start of `self` to the end of `other`.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }

    /// `line:column` of its start in `query`, both counted from 1, the column in bytes.
    pub fn position(self, query: &str) -> String {
        let before = &query.as_bytes()[..self.start.min(query.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() + 1;
        let line_start = before.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        format!("{line}:{}", before.len() - line_start + 1)
    }
}

/// What an expression evaluates to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    /// One number at each step.
    Scalar,
    /// A string, the same at each step.
    String,
    /// At most one sample of each series at each step.
    Vector,
    /// All samples of each series in a window, at each step.
    Matrix,
}

impl ValueType {
    /// The name in messages.
    pub fn documented(self) -> &'static str {
        match self {
            ValueType::Scalar => "scalar",
            ValueType::String => "string",
            ValueType::Vector => "instant vector",
            ValueType::Matrix => "range vector",
        }
    }

    /// The name in the HTTP API.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::Vector => "vector",
            ValueType::Matrix => "matrix",
            other => other.documented(),
        }
    }
}

/// An expression.
#[derive(Clone, Debug)]
pub enum Expr {
    /// `12.5`, `0x1f`, `Inf`; `5m` is 300.
    Number(NumberLiteral),
    /// `"text"`.
    String(StringLiteral),
    /// `name{label="value"} @ 10 offset 5m`.
    Vector(Box<VectorSelector>),
    /// `name{label="value"}[5m]`.
    Matrix(Box<MatrixSelector>),
    /// `expr[1h:5m]`.
    Subquery(Box<Subquery>),
    /// `function(a, b)`.
    Call(Call),
    /// `sum by (a) (expr)`.
    Aggregate(Box<Aggregate>),
    /// `a + on (b) c`.
    Binary(Box<Binary>),
    /// `-a`.
    Unary(Box<Unary>),
    /// `(a)`.
    Paren(Box<Paren>),
}

impl Expr {
    /// Its place in the text.
    pub fn span(&self) -> Span {
        match self {
            Expr::Number(n) => n.span,
            Expr::String(n) => n.span,
            Expr::Vector(n) => n.span,
            Expr::Matrix(n) => n.span,
            Expr::Subquery(n) => n.span,
            Expr::Call(n) => n.span,
            Expr::Aggregate(n) => n.span,
            Expr::Binary(n) => n.left.span().to(n.right.span()),
            Expr::Unary(n) => n.span,
            Expr::Paren(n) => n.span,
        }
    }

    /// What it evaluates to.
    pub fn value_type(&self) -> ValueType {
        match self {
            Expr::Number(_) => ValueType::Scalar,
            Expr::String(_) => ValueType::String,
            Expr::Vector(_) | Expr::Aggregate(_) => ValueType::Vector,
            Expr::Matrix(_) | Expr::Subquery(_) => ValueType::Matrix,
            Expr::Call(call) => call.function.returns,
            Expr::Binary(n) => match (n.left.value_type(), n.right.value_type()) {
                (ValueType::Scalar, ValueType::Scalar) => ValueType::Scalar,
                _ => ValueType::Vector,
            },
            Expr::Unary(n) => n.expr.value_type(),
            Expr::Paren(n) => n.expr.value_type(),
        }
    }

    /// The expression inside any parentheses.
    pub fn unwrap_parens(&self) -> &Expr {
        let mut expr = self;
        while let Expr::Paren(paren) = expr {
            expr = &paren.expr;
        }
        expr
    }
}

/// A number.
#[derive(Clone, Debug)]
pub struct NumberLiteral {
    /// Its value; seconds when it was written as a duration.
    pub value: f64,
    /// Whether it was written as a duration.
    pub duration: bool,
    /// Its place.
    pub span: Span,
}

/// A string. Escapes can make bytes that are not UTF-8.
#[derive(Clone, Debug)]
pub struct StringLiteral {
    /// The bytes it stands for.
    pub value: Vec<u8>,
    /// Its place.
    pub span: Span,
}

impl StringLiteral {
    /// Its text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.value).into_owned()
    }
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            MatchOp::Equal => "=",
            MatchOp::NotEqual => "!=",
            MatchOp::Regex => "=~",
            MatchOp::NotRegex => "!~",
        }
    }
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct LabelMatcher {
    /// The label, or `__name__`.
    pub name: String,
    /// How it is compared.
    pub op: MatchOp,
    /// With what.
    pub value: String,
    /// The same, compiled.
    pub condition: Match,
}

/// The time of an `@` modifier.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// `@ 12.5`, in milliseconds since the epoch.
    Millis(i64),
    /// `@ start()`
    Start,
    /// `@ end()`
    End,
}

/// Moves the time of a selector or subquery.
#[derive(Clone, Debug, Default)]
pub struct Shift {
    /// `offset`.
    pub offset: Option<Duration>,
    /// `@`.
    pub at: Option<At>,
}

/// A selector of series, at one time.
#[derive(Clone, Debug)]
pub struct VectorSelector {
    /// The name written before the braces, or alone inside them; empty when there is none.
    pub name: String,
    /// All conditions, that of the name included.
    pub matchers: Vec<LabelMatcher>,
    /// Its `offset` and `@`.
    pub shift: Shift,
    /// Its place, modifiers included.
    pub span: Span,
}

/// A selector of series, over a window.
#[derive(Clone, Debug)]
pub struct MatrixSelector {
    /// Which series; its shift is that of the window.
    pub selector: VectorSelector,
    /// Length of the window.
    pub range: Duration,
    /// Its place, modifiers included.
    pub span: Span,
}

/// An expression evaluated at steps of its own over a window.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// What is evaluated.
    pub expr: Expr,
    /// Length of the window.
    pub range: Duration,
    /// Distance of the steps; the default interval when absent.
    pub step: Option<Duration>,
    /// Its `offset` and `@`.
    pub shift: Shift,
    /// Its place, modifiers included.
    pub span: Span,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub function: &'static Function,
    /// Its arguments.
    pub args: Vec<Expr>,
    /// Its place.
    pub span: Span,
}

/// Which aggregation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum AggregateOp {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    LimitK,
    LimitRatio,
    Quantile,
    CountValues,
}

impl AggregateOp {
    /// All of them, with their names.
    pub const ALL: [(AggregateOp, &'static str); 14] = [
        (AggregateOp::Sum, "sum"),
        (AggregateOp::Avg, "avg"),
        (AggregateOp::Min, "min"),
        (AggregateOp::Max, "max"),
        (AggregateOp::Count, "count"),
        (AggregateOp::Group, "group"),
        (AggregateOp::Stddev, "stddev"),
        (AggregateOp::Stdvar, "stdvar"),
        (AggregateOp::TopK, "topk"),
        (AggregateOp::BottomK, "bottomk"),
        (AggregateOp::LimitK, "limitk"),
        (AggregateOp::LimitRatio, "limit_ratio"),
        (AggregateOp::Quantile, "quantile"),
        (AggregateOp::CountValues, "count_values"),
    ];

    /// The operator of this name, in lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, n)| *n == name).map(|(op, _)| *op)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(op, _)| *op == self).map_or("", |(_, name)| name)
    }

    /// The type of its parameter, if it takes one.
    pub fn parameter(self) -> Option<ValueType> {
        match self {
            AggregateOp::TopK
            | AggregateOp::BottomK
            | AggregateOp::LimitK
            | AggregateOp::LimitRatio
            | AggregateOp::Quantile => Some(ValueType::Scalar),
            AggregateOp::CountValues => Some(ValueType::String),
            _ => None,
        }
    }
}

/// An aggregation over series.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// Which.
    pub op: AggregateOp,
    /// The parameter of those that take one.
    pub param: Option<Expr>,
    /// What is aggregated.
    pub expr: Expr,
    /// The labels of `by` or `without`.
    pub grouping: Vec<String>,
    /// Whether it is `without`.
    pub without: bool,
    /// Its place.
    pub span: Span,
}

/// Which binary operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Unless,
}

impl BinaryOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            BinaryOp::Add => "+",
            BinaryOp::Sub => "-",
            BinaryOp::Mul => "*",
            BinaryOp::Div => "/",
            BinaryOp::Mod => "%",
            BinaryOp::Pow => "^",
            BinaryOp::Atan2 => "atan2",
            BinaryOp::Equal => "==",
            BinaryOp::NotEqual => "!=",
            BinaryOp::Less => "<",
            BinaryOp::LessEqual => "<=",
            BinaryOp::Greater => ">",
            BinaryOp::GreaterEqual => ">=",
            BinaryOp::And => "and",
            BinaryOp::Or => "or",
            BinaryOp::Unless => "unless",
        }
    }

    /// How tightly it binds; more binds tighter.
    pub fn precedence(self) -> u8 {
        match self {
            BinaryOp::Or => 1,
            BinaryOp::And | BinaryOp::Unless => 2,
            op if op.is_comparison() => 3,
            BinaryOp::Add | BinaryOp::Sub => 4,
            BinaryOp::Pow => 6,
            _ => 5,
        }
    }

    /// Whether it compares.
    pub fn is_comparison(self) -> bool {
        matches!(
            self,
            BinaryOp::Equal
                | BinaryOp::NotEqual
                | BinaryOp::Less
                | BinaryOp::LessEqual
                | BinaryOp::Greater
                | BinaryOp::GreaterEqual
        )
    }

    /// Whether it is `and`, `or`, `unless`.
    pub fn is_set(self) -> bool {
        matches!(self, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless)
    }
}

/// How many series of each side belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// One of each side.
    OneToOne,
    /// `group_left`: many of the left, one of the right.
    ManyToOne,
    /// `group_right`: one of the left, many of the right.
    OneToMany,
    /// Set operators.
    ManyToMany,
}

/// Which series of both sides belong together.
#[derive(Clone, Debug)]
pub struct Matching {
    /// How many of each side.
    pub cardinality: Cardinality,
    /// Whether `labels` are those compared (`on`), and not those left out (`ignoring`).
    pub on: bool,
    /// The labels of `on` or `ignoring`.
    pub labels: Vec<String>,
    /// The labels of `group_left` or `group_right`, copied from the one side.
    pub include: Vec<String>,
    /// `fill_left`: the value of a missing left side.
    pub fill_left: Option<f64>,
    /// `fill_right`: the value of a missing right side.
    pub fill_right: Option<f64>,
}

impl Default for Matching {
    fn default() -> Self {
        Matching {
            cardinality: Cardinality::OneToOne,
            on: false,
            labels: Vec::new(),
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        }
    }
}

/// A binary operation.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Which.
    pub op: BinaryOp,
    /// The left side.
    pub left: Expr,
    /// The right side.
    pub right: Expr,
    /// How the series of two vectors meet; absent when a side is a scalar.
    pub matching: Option<Matching>,
    /// Whether a comparison answers 0 or 1 and does not filter.
    pub return_bool: bool,
}

/// A sign before an expression.
#[derive(Clone, Debug)]
pub struct Unary {
    /// Whether it is `-`.
    pub negate: bool,
    /// What it applies to.
    pub expr: Expr,
    /// Its place.
    pub span: Span,
}

/// Parentheses.
#[derive(Clone, Debug)]
pub struct Paren {
    /// What is inside.
    pub expr: Expr,
    /// Its place, parentheses included.
    pub span: Span,
}

/// An operator between durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum DurationOp {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
}

impl DurationOp {
    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            DurationOp::Add => "+",
            DurationOp::Sub => "-",
            DurationOp::Mul => "*",
            DurationOp::Div => "/",
            DurationOp::Mod => "%",
            DurationOp::Pow => "^",
        }
    }
}

/// A length of time: a literal, or computed from literals.
#[derive(Clone, Debug, PartialEq)]
pub enum Duration {
    /// `5m`, or `300` with `written_as_duration` false. In seconds.
    Literal {
        /// Seconds.
        seconds: f64,
        /// Whether it has a unit.
        written_as_duration: bool,
    },
    /// `step()`: the distance of the query's steps.
    Step,
    /// `range()`: the length of the query.
    Range,
    /// `-a`.
    Negate(Box<Duration>),
    /// `a + b`.
    Binary(DurationOp, Box<Duration>, Box<Duration>),
    /// `min(a, b)`.
    Min(Box<Duration>, Box<Duration>),
    /// `max(a, b)`.
    Max(Box<Duration>, Box<Duration>),
    /// `(a)`.
    Paren(Box<Duration>),
}
