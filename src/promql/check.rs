//! Types and arities of a parsed query.

use super::ast::{Aggregate, Binary, Call, Cardinality, Expr, Span, ValueType, VectorSelector};
use super::format::quote;
use super::function::Variadic;
use super::parser::{Parsed, fault};

/// Checks `expr`, which was parsed from `query`.
pub(super) fn check(expr: &Expr, query: &str) -> Parsed<()> {
    match expr {
        Expr::Number(_) | Expr::String(_) => Ok(()),
        Expr::Vector(selector) => selects_something(selector),
        Expr::Matrix(matrix) => selects_something(&matrix.selector),
        Expr::Paren(paren) => check(&paren.expr, query),
        Expr::Unary(unary) => {
            check(&unary.expr, query)?;
            match unary.expr.value_type() {
                ValueType::Scalar | ValueType::Vector => Ok(()),
                other => fault(
                    unary.span,
                    format!(
                        "unary expression only allowed on expressions of type scalar or instant vector, got {:?}",
                        other.documented()
                    ),
                ),
            }
        }
        Expr::Subquery(subquery) => {
            check(&subquery.expr, query)?;
            match subquery.expr.value_type() {
                ValueType::Vector => Ok(()),
                other => fault(
                    subquery.span,
                    format!("subquery is only allowed on instant vector, got {} instead", other.name()),
                ),
            }
        }
        Expr::Aggregate(aggregate) => check_aggregate(aggregate, query),
        Expr::Binary(binary) => check_binary(binary, query),
        Expr::Call(call) => check_call(call, query),
    }
}

fn selects_something(selector: &VectorSelector) -> Parsed<()> {
    if selector.name.is_empty() && selector.matchers.iter().all(|m| m.condition.matches_absent()) {
        return fault(selector.span, "vector selector must contain at least one non-empty matcher");
    }
    Ok(())
}

fn expect_type(expr: &Expr, wanted: ValueType, context: &str) -> Parsed<()> {
    let found = expr.value_type();
    if found == wanted {
        return Ok(());
    }
    let (wanted, found) = (wanted.documented(), found.documented());
    fault(expr.span(), format!("expected type {wanted} in {context}, got {found}"))
}

fn check_aggregate(aggregate: &Aggregate, query: &str) -> Parsed<()> {
    check(&aggregate.expr, query)?;
    expect_type(&aggregate.expr, ValueType::Vector, "aggregation expression")?;
    if let (Some(param), Some(wanted)) = (&aggregate.param, aggregate.op.parameter()) {
        check(param, query)?;
        expect_type(param, wanted, "aggregation parameter")?;
    }
    Ok(())
}

fn check_binary(binary: &Binary, query: &str) -> Parsed<()> {
    check(&binary.left, query)?;
    check(&binary.right, query)?;
    let span = binary.left.span().to(binary.right.span());
    let (left, right) = (binary.left.value_type(), binary.right.value_type());
    let scalars = left == ValueType::Scalar && right == ValueType::Scalar;
    if binary.return_bool && !binary.op.is_comparison() {
        return fault(operator_span(binary, query), "bool modifier can only be used on comparison operators");
    }
    if binary.op.is_comparison() && !binary.return_bool && scalars {
        return fault(operator_span(binary, query), "comparisons between scalars must use BOOL modifier");
    }
    for (side, found) in [(&binary.left, left), (&binary.right, right)] {
        if found != ValueType::Scalar && found != ValueType::Vector {
            return fault(side.span(), "binary expression must contain only scalar and instant vector types");
        }
    }
    let any_scalar = left == ValueType::Scalar || right == ValueType::Scalar;
    if any_scalar && binary.op.is_set() {
        let op = binary.op.symbol();
        return fault(span, format!("set operator {op:?} not allowed in binary scalar expression"));
    }
    let Some(matching) = &binary.matching else { return Ok(()) };
    if matching.on
        && let Some(label) = matching.labels.iter().find(|label| matching.include.contains(label))
    {
        let label = quote(label.as_bytes());
        return fault(
            operator_span(binary, query),
            format!("label {label} must not occur in ON and GROUP clause at once"),
        );
    }
    let fills = matching.fill_left.is_some() || matching.fill_right.is_some();
    if any_scalar && !matching.labels.is_empty() {
        return fault(span, "vector matching only allowed between instant vectors");
    }
    if any_scalar && fills {
        return fault(span, "filling in missing series only allowed between instant vectors");
    }
    if binary.op.is_set() && matching.cardinality != Cardinality::OneToOne {
        return fault(span, format!("no grouping allowed for {:?} operation", binary.op.symbol()));
    }
    if binary.op.is_set() && fills {
        return fault(span, "filling in missing series not allowed for set operators");
    }
    Ok(())
}

/// The place between the operands, without the blanks around it.
fn operator_span(binary: &Binary, query: &str) -> Span {
    let (start, end) = (binary.left.span().end, binary.right.span().start);
    let between = query.get(start..end).unwrap_or_default();
    let blanks = between.len() - between.trim_start().len();
    Span { start: start + blanks, end: start + between.trim_end().len() }
}

fn check_call(call: &Call, query: &str) -> Parsed<()> {
    let function = call.function;
    let (wanted, found) = (function.args.len(), call.args.len());
    let optional = usize::from(function.variadic != Variadic::Fixed);
    let most = match function.variadic {
        Variadic::Fixed => wanted,
        Variadic::UpTo(count) => wanted - 1 + count,
        Variadic::Any => usize::MAX,
    };
    let name = function.name;
    if optional == 0 && found != wanted {
        return fault(call.span, format!("expected {wanted} argument(s) in call to {name:?}, got {found}"));
    }
    if found < wanted - optional {
        let least = wanted - optional;
        return fault(
            call.span,
            format!("expected at least {least} argument(s) in call to {name:?}, got {found}"),
        );
    }
    if found > most {
        return fault(
            call.span,
            format!("expected at most {most} argument(s) in call to {name:?}, got {found}"),
        );
    }
    for (index, arg) in call.args.iter().enumerate() {
        if name == "info" && index == 1 {
            check_info_selector(arg)?;
            continue;
        }
        check(arg, query)?;
        let Some(wanted) = function.args.get(index).or(function.args.last()) else { continue };
        expect_type(arg, *wanted, &format!("call to function {name:?}"))?;
    }
    Ok(())
}

/// The second argument of `info` selects labels; it may match everything, but names no metric.
fn check_info_selector(arg: &Expr) -> Parsed<()> {
    match arg {
        Expr::Vector(selector) if selector.name.is_empty() => Ok(()),
        Expr::Vector(_) => fault(arg.span(), "expected label selectors only, got vector selector instead"),
        _ => fault(arg.span(), "expected label selectors only"),
    }
}
