//! From a syntax tree to a plan: times resolved, functions bound, and what does not depend on the
//! step evaluated once.

use std::cell::Cell;
use std::fmt::{self, Write as _};

use super::ast::{
    self, AggregateOp, At, BinaryOp, Expr, LabelMatcher, MatchOp, Matching, Span, StringLiteral,
};
use super::budget::Options;
use super::call::{self, Bound};
use super::duration::DurationContext;
use super::labels::LabelsBuilder;
use super::parser::REGEX_SIZE_MAX;
use super::source::WindowFunction;
use crate::error::{Error, Result};
use crate::model::{Matcher, NAME_KEY, Selector};
use crate::promql::Labels;

/// A step of the plan. Scalars, strings and vectors are told apart by the type checks before.
#[derive(Debug)]
pub(super) enum Node {
    Number(f64),
    Text(StringLiteral),
    /// The time of evaluation, in seconds.
    Time,
    Select(Box<Select>),
    /// Samples as they are: only as the whole of an instant query.
    Matrix(Box<Windowed>),
    Window(Box<WindowCall>),
    Call(Box<Call>),
    Aggregate(Box<Aggregate>),
    Binary(Box<Binary>),
    Negate(Box<Node>),
    /// Evaluated at the first step, and the same at all others.
    Once(Box<Node>),
}

/// Where in time a selector or subquery looks: at a fixed time or that of the step, less an offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) at: Option<i64>,
    pub(super) offset: i64,
}

#[derive(Debug)]
pub(super) struct Select {
    pub(super) selector: Selector,
    pub(super) moved: Moved,
    text: String,
}

impl Select {
    /// A selection that the query does not spell out.
    pub(super) fn hidden(selector: Selector, moved: Moved) -> Self {
        Select { selector, moved, text: String::new() }
    }
}

#[derive(Debug)]
pub(super) struct Windowed {
    pub(super) input: Input,
    pub(super) moved: Moved,
    /// Length of the window, nanoseconds.
    pub(super) range: i64,
}

#[derive(Debug)]
pub(super) enum Input {
    Select(Selector, String),
    Subquery { node: Node, step: i64 },
}

#[derive(Debug)]
pub(super) struct WindowCall {
    pub(super) function: WindowFunction,
    pub(super) windowed: Windowed,
    pub(super) params: Vec<Node>,
    /// Place of the first argument.
    pub(super) span: Span,
    /// The labels of the answer of `absent_over_time`.
    pub(super) absent: Labels,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) bound: Bound,
    pub(super) args: Vec<Node>,
    pub(super) spans: Vec<Span>,
}

#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) op: AggregateOp,
    pub(super) param: Option<Node>,
    pub(super) param_span: Span,
    pub(super) input: Node,
    pub(super) grouping: Vec<String>,
    pub(super) without: bool,
}

#[derive(Debug)]
pub(super) struct Binary {
    pub(super) op: BinaryOp,
    pub(super) left: Node,
    pub(super) right: Node,
    pub(super) shape: Shape,
    pub(super) return_bool: bool,
}

/// Which sides of a binary operation are vectors.
#[derive(Debug)]
pub(super) enum Shape {
    Scalars,
    ScalarLeft,
    ScalarRight,
    Vectors(Matching),
}

/// The query that a plan is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Query<'o> {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
    pub(super) options: &'o Options,
    /// Size of the compiled expressions so far.
    pub(super) regex_size: &'o Cell<usize>,
}

/// A node, and whether it is the same at every step.
struct Planned {
    node: Node,
    fixed: bool,
}

/// Plans `expr`, which was checked.
///
/// # Errors
/// `InvalidInput` for what only evaluation can find wrong: a label name, a regular expression of
/// `label_replace`, a duration that comes to nothing.
pub(super) fn plan(expr: &Expr, query: Query<'_>) -> Result<Node> {
    Ok(once(query.plan(expr)?))
}

fn once(planned: Planned) -> Node {
    match planned {
        Planned { node: node @ (Node::Number(_) | Node::Text(_) | Node::Matrix(_)), .. } => node,
        Planned { node, fixed: true } => Node::Once(Box::new(node)),
        Planned { node, fixed: false } => node,
    }
}

impl Query<'_> {
    fn plan(&self, expr: &Expr) -> Result<Planned> {
        let fixed = |node| Ok(Planned { node, fixed: true });
        match expr {
            Expr::Number(n) => fixed(Node::Number(n.value)),
            Expr::String(s) => fixed(Node::Text(s.clone())),
            Expr::Paren(paren) => self.plan(&paren.expr),
            Expr::Vector(selector) => {
                let moved = self.moved(&selector.shift)?;
                let select =
                    Select { selector: to_selector(&selector.matchers), moved, text: expr.to_string() };
                Ok(Planned { node: Node::Select(Box::new(select)), fixed: moved.at.is_some() })
            }
            Expr::Matrix(_) | Expr::Subquery(_) => {
                let windowed = self.windowed(expr)?;
                let fixed = windowed.moved.at.is_some();
                Ok(Planned { node: Node::Matrix(Box::new(windowed)), fixed })
            }
            Expr::Unary(unary) => {
                let Planned { node, fixed } = self.plan(&unary.expr)?;
                let node = if unary.negate { Node::Negate(Box::new(node)) } else { node };
                Ok(Planned { node, fixed })
            }
            Expr::Aggregate(aggregate) => self.aggregate(aggregate),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => self.call(call),
        }
    }

    fn moved(&self, shift: &ast::Shift) -> Result<Moved> {
        let at = shift.at.map(|at| match at {
            At::Millis(millis) => millis.saturating_mul(1_000_000),
            At::Start => self.start,
            At::End => self.end,
        });
        let offset = shift.offset.as_ref().map_or(Ok(0), |offset| self.nanos(offset))?;
        Ok(Moved { at, offset })
    }

    fn nanos(&self, duration: &ast::Duration) -> Result<i64> {
        let seconds = |nanos: i64| nanos as f64 / 1e9;
        let context =
            DurationContext { step: seconds(self.step), range: seconds(self.end.saturating_sub(self.start)) };
        duration.nanos(context).map_err(Error::invalid_input)
    }

    fn positive_nanos(&self, duration: &ast::Duration) -> Result<i64> {
        match self.nanos(duration)? {
            nanos if nanos > 0 => Ok(nanos),
            _ => Err(Error::invalid_input("duration must be greater than 0")),
        }
    }

    fn windowed(&self, expr: &Expr) -> Result<Windowed> {
        match expr.unwrap_parens() {
            Expr::Matrix(matrix) => {
                let selector = to_selector(&matrix.selector.matchers);
                Ok(Windowed {
                    input: Input::Select(selector, expr.to_string()),
                    moved: self.moved(&matrix.selector.shift)?,
                    range: self.positive_nanos(&matrix.range)?,
                })
            }
            Expr::Subquery(subquery) => {
                let step = match &subquery.step {
                    Some(step) => self.positive_nanos(step)?,
                    None => self.options.subquery_step.max(1),
                };
                let node = once(self.plan(&subquery.expr)?);
                Ok(Windowed {
                    input: Input::Subquery { node, step },
                    moved: self.moved(&subquery.shift)?,
                    range: self.positive_nanos(&subquery.range)?,
                })
            }
            other => Err(Error::invalid_input(format!("not a range vector: {other}"))),
        }
    }

    /// Both, wrapped unless the node above is as fixed as they are.
    fn pair(&self, a: &Expr, b: Option<&Expr>) -> Result<(Node, Option<Node>, bool)> {
        let a = self.plan(a)?;
        let Some(b) = b else { return Ok((a.node, None, a.fixed)) };
        let b = self.plan(b)?;
        if a.fixed && b.fixed {
            return Ok((a.node, Some(b.node), true));
        }
        Ok((once(a), Some(once(b)), false))
    }

    fn aggregate(&self, aggregate: &ast::Aggregate) -> Result<Planned> {
        let (input, param, fixed) = self.pair(&aggregate.expr, aggregate.param.as_ref())?;
        let mut grouping = aggregate.grouping.clone();
        grouping.sort();
        grouping.dedup();
        let node = Aggregate {
            op: aggregate.op,
            param,
            param_span: aggregate.param.as_ref().map(Expr::span).unwrap_or_default(),
            input,
            grouping,
            without: aggregate.without,
        };
        Ok(Planned { node: Node::Aggregate(Box::new(node)), fixed })
    }

    fn binary(&self, binary: &ast::Binary) -> Result<Planned> {
        use ast::ValueType::Scalar;
        let (left, right, fixed) = self.pair(&binary.left, Some(&binary.right))?;
        let shape = match (binary.left.value_type(), binary.right.value_type()) {
            (Scalar, Scalar) => Shape::Scalars,
            (Scalar, _) => Shape::ScalarLeft,
            (_, Scalar) => Shape::ScalarRight,
            _ => Shape::Vectors(binary.matching.clone().unwrap_or_default()),
        };
        let Some(right) = right else {
            return Err(Error::invalid_input("binary expression without a right side"));
        };
        let (op, return_bool) = (binary.op, binary.return_bool);
        let node = Binary { op, left, right, shape, return_bool };
        Ok(Planned { node: Node::Binary(Box::new(node)), fixed })
    }

    fn call(&self, call: &ast::Call) -> Result<Planned> {
        if let Some(function) = WindowFunction::from_name(call.function.name) {
            return self.window_call(function, call);
        }
        match call.function.name {
            "time" => return Ok(Planned { node: Node::Time, fixed: false }),
            "pi" => return Ok(Planned { node: Node::Number(std::f64::consts::PI), fixed: true }),
            _ => {}
        }
        let bound = call::bind(call)?;
        if let Bound::LabelReplace(replace) = &bound {
            self.regex_size.set(self.regex_size.get() + replace.regex_size());
            if self.regex_size.get() > REGEX_SIZE_MAX {
                return Err(Error::limit_exceeded(format!(
                    "the regular expressions of label_replace take more than {REGEX_SIZE_MAX} bytes"
                )));
            }
        }
        let mut args = Vec::new();
        for (index, arg) in call.args.iter().enumerate() {
            // The label selector of `info` is no vector; it is bound.
            if !(call.function.name == "info" && index == 1) {
                args.push(self.plan(arg)?);
            }
        }
        if args.is_empty() {
            let time =
                Call { name: "vector", bound: Bound::Vector, args: vec![Node::Time], spans: Vec::new() };
            args.push(Planned { node: Node::Call(Box::new(time)), fixed: false });
        }
        let fixed = args.iter().all(|arg| arg.fixed) && !call.function.depends_on_time();
        // `timestamp` looks at the selector itself.
        let as_is = fixed || (matches!(bound, Bound::Timestamp) && matches!(args[0].node, Node::Select(_)));
        let args = args.into_iter().map(|arg| if as_is { arg.node } else { once(arg) }).collect();
        let spans = call.args.iter().map(Expr::span).collect();
        let node = Call { name: call.function.name, bound, args, spans };
        Ok(Planned { node: Node::Call(Box::new(node)), fixed })
    }

    fn window_call(&self, function: WindowFunction, call: &ast::Call) -> Result<Planned> {
        let is_window = |arg: &&Expr| arg.value_type() == ast::ValueType::Matrix;
        let Some(window) = call.args.iter().find(is_window) else {
            return Err(Error::invalid_input(format!("{} without a range vector", call.function.name)));
        };
        let windowed = self.windowed(window)?;
        let mut fixed = windowed.moved.at.is_some() && !call.function.depends_on_time();
        let mut params = Vec::new();
        for arg in call.args.iter().filter(|arg| !is_window(arg)) {
            params.push(self.plan(arg)?);
        }
        fixed = fixed && params.iter().all(|param| param.fixed);
        let params = params.into_iter().map(|param| if fixed { param.node } else { once(param) }).collect();
        let absent = match window {
            Expr::Matrix(matrix) if function == WindowFunction::Absent => {
                absent_labels(&matrix.selector.matchers)
            }
            _ => Labels::empty(),
        };
        let span = call.args.first().map(Expr::span).unwrap_or_default();
        let node = WindowCall { function, windowed, params, span, absent };
        Ok(Planned { node: Node::Window(Box::new(node)), fixed })
    }
}

pub(super) fn to_selector(matchers: &[LabelMatcher]) -> Selector {
    let matcher = |m: &LabelMatcher| Matcher { key: m.name.clone(), condition: m.condition.clone() };
    Selector { matchers: matchers.iter().map(matcher).collect() }
}

/// The labels of what `absent` answers for a selector: those that it sets by one `=` alone.
pub(super) fn absent_labels(matchers: &[LabelMatcher]) -> Labels {
    let mut labels = LabelsBuilder::default();
    let mut seen = Vec::new();
    for matcher in matchers.iter().filter(|m| m.name != NAME_KEY) {
        if matcher.op == MatchOp::Equal && !seen.contains(&&matcher.name) {
            labels.set(&matcher.name, &matcher.value);
            seen.push(&matcher.name);
        } else {
            labels.set(&matcher.name, "");
        }
    }
    labels.build()
}

impl Node {
    /// Whether evaluating it holds many series at a time.
    pub(super) fn collects(&self) -> bool {
        match self {
            Node::Number(_) | Node::Text(_) | Node::Time | Node::Select(_) | Node::Matrix(_) => false,
            Node::Negate(inner) | Node::Once(inner) => inner.collects(),
            Node::Window(call) => match &call.windowed.input {
                Input::Select(..) => false,
                Input::Subquery { node, .. } => node.collects(),
            },
            Node::Call(call) => call.bound.collects() || call.args.iter().any(Node::collects),
            Node::Aggregate(aggregate) => {
                use AggregateOp::{BottomK, CountValues, Quantile, TopK};
                matches!(aggregate.op, BottomK | CountValues | Quantile | TopK) || aggregate.input.collects()
            }
            Node::Binary(binary) => {
                matches!(binary.shape, Shape::Vectors(_)) || binary.left.collects() || binary.right.collects()
            }
        }
    }
}

impl fmt::Display for Node {
    /// One line for each step of the plan, inputs indented below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        write_node(self, 0, &mut out);
        f.write_str(out.trim_end())
    }
}

fn write_node(node: &Node, level: usize, out: &mut String) {
    out.push_str(&"  ".repeat(level));
    let mut line = |text: fmt::Arguments<'_>| {
        let _ = writeln!(out, "{text}");
    };
    match node {
        Node::Number(value) => line(format_args!("number {value}")),
        Node::Text(text) => line(format_args!("string {:?}", text.text())),
        Node::Time => line(format_args!("time")),
        Node::Select(select) => line(format_args!("select {}", select.text)),
        Node::Negate(inner) => {
            line(format_args!("negate"));
            write_node(inner, level + 1, out);
        }
        Node::Once(inner) => {
            line(format_args!("once"));
            write_node(inner, level + 1, out);
        }
        Node::Matrix(windowed) => {
            line(format_args!("samples"));
            write_windowed(windowed, level + 1, out);
        }
        Node::Window(call) => {
            line(format_args!("window {}", call.function.name()));
            call.params.iter().for_each(|param| write_node(param, level + 1, out));
            write_windowed(&call.windowed, level + 1, out);
        }
        Node::Call(call) => {
            line(format_args!("call {}", call.name));
            call.args.iter().for_each(|arg| write_node(arg, level + 1, out));
        }
        Node::Aggregate(aggregate) => {
            let keyword = if aggregate.without { "without" } else { "by" };
            line(format_args!("aggregate {} {keyword} {:?}", aggregate.op.name(), aggregate.grouping));
            aggregate.param.iter().for_each(|param| write_node(param, level + 1, out));
            write_node(&aggregate.input, level + 1, out);
        }
        Node::Binary(binary) => {
            let shape = match &binary.shape {
                Shape::Scalars => "scalars".to_owned(),
                Shape::ScalarLeft => "scalar and vector".to_owned(),
                Shape::ScalarRight => "vector and scalar".to_owned(),
                Shape::Vectors(matching) => {
                    let keyword = if matching.on { "on" } else { "ignoring" };
                    format!("vectors {keyword} {:?} {:?}", matching.labels, matching.cardinality)
                }
            };
            line(format_args!("binary {} {shape}", binary.op.symbol()));
            write_node(&binary.left, level + 1, out);
            write_node(&binary.right, level + 1, out);
        }
    }
}

fn write_windowed(windowed: &Windowed, level: usize, out: &mut String) {
    out.push_str(&"  ".repeat(level));
    match &windowed.input {
        Input::Select(_, text) => {
            let _ = writeln!(out, "select {text}");
        }
        Input::Subquery { node, step } => {
            let length = |nanos: i64| super::format::duration(nanos as f64 / 1e9);
            let _ = writeln!(out, "subquery range {} step {}", length(windowed.range), length(*step));
            write_node(node, level + 1, out);
        }
    }
}
