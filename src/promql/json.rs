//! A syntax tree as JSON, in the shape of Prometheus' `parse_query`.

use serde_json::{Value, json};

use super::ast::{At, Cardinality, Expr, LabelMatcher, MatchOp, Matching, Shift, ValueType, VectorSelector};
use super::duration::DurationContext;
use super::format::number;
use super::function::Variadic;

/// The tree of `expr`.
pub fn tree_json(expr: &Expr) -> Value {
    match expr {
        Expr::Number(n) => json!({ "type": "numberLiteral", "val": number(n.value) }),
        Expr::String(s) => json!({ "type": "stringLiteral", "val": s.text() }),
        Expr::Paren(p) => json!({ "type": "parenExpr", "expr": tree_json(&p.expr) }),
        Expr::Unary(u) => {
            json!({ "type": "unaryExpr", "op": if u.negate { "-" } else { "+" }, "expr": tree_json(&u.expr) })
        }
        Expr::Vector(selector) => selector_json("vectorSelector", selector),
        Expr::Matrix(matrix) => {
            let mut node = selector_json("matrixSelector", &matrix.selector);
            node["range"] = json!(millis(&matrix.range));
            node
        }
        Expr::Subquery(s) => {
            let mut node = json!({
                "type": "subquery",
                "expr": tree_json(&s.expr),
                "range": millis(&s.range),
                "step": s.step.as_ref().map_or(0, millis),
            });
            put_shift(&mut node, &s.shift);
            node
        }
        Expr::Call(call) => json!({
            "type": "call",
            "func": {
                "name": call.function.name,
                "argTypes": call.function.args.iter().map(|t| t.name()).collect::<Vec<_>>(),
                "variadic": match call.function.variadic {
                    Variadic::Fixed => 0,
                    Variadic::UpTo(count) => count as i64,
                    Variadic::Any => -1,
                },
                "returnType": call.function.returns.name(),
            },
            "args": call.args.iter().map(tree_json).collect::<Vec<_>>(),
        }),
        Expr::Aggregate(a) => json!({
            "type": "aggregation",
            "op": a.op.name(),
            "expr": tree_json(&a.expr),
            "param": a.param.as_ref().map(tree_json),
            "grouping": a.grouping,
            "without": a.without,
        }),
        Expr::Binary(b) => {
            let vectors =
                b.left.value_type() == ValueType::Vector && b.right.value_type() == ValueType::Vector;
            let matching = b.matching.as_ref().filter(|_| vectors);
            json!({
                "type": "binaryExpr",
                "op": b.op.symbol(),
                "lhs": tree_json(&b.left),
                "rhs": tree_json(&b.right),
                "matching": matching.map(|m| matching_json(m, b.op.is_set())),
                "bool": b.return_bool,
            })
        }
    }
}

fn millis(duration: &super::ast::Duration) -> i64 {
    let nothing = DurationContext { step: 0.0, range: 0.0 };
    duration.nanos(nothing).map_or(0, |nanos| nanos / 1_000_000)
}

fn selector_json(kind: &str, selector: &VectorSelector) -> Value {
    let mut node = json!({
        "type": kind,
        "name": selector.name,
        "matchers": selector.matchers.iter().map(matcher_json).collect::<Vec<_>>(),
    });
    put_shift(&mut node, &selector.shift);
    node
}

fn put_shift(node: &mut Value, shift: &Shift) {
    let (timestamp, bound) = match shift.at {
        Some(At::Millis(millis)) => (Some(millis), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
        None => (None, None),
    };
    node["offset"] = json!(shift.offset.as_ref().map_or(0, millis));
    node["timestamp"] = json!(timestamp);
    node["startOrEnd"] = json!(bound);
}

fn matcher_json(matcher: &LabelMatcher) -> Value {
    let op = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Regex => "=~",
        MatchOp::NotRegex => "!~",
    };
    json!({ "name": matcher.name, "value": matcher.value, "type": op })
}

fn matching_json(matching: &Matching, is_set: bool) -> Value {
    let card = match matching.cardinality {
        _ if is_set => "many-to-many",
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    let mut node =
        json!({ "card": card, "labels": matching.labels, "on": matching.on, "include": matching.include });
    if matching.fill_left.is_some() || matching.fill_right.is_some() {
        node["fillValues"] = json!({
            "lhs": matching.fill_left.map(number),
            "rhs": matching.fill_right.map(number),
        });
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse;

    #[test]
    fn the_shape_is_that_of_prometheus() {
        let query = "topk(2, a{b!='c'} offset 1m) > bool on (x) max_over_time(d[5m:1m] @ 3)";
        let tree = tree_json(&parse(query).unwrap());
        assert_eq!(tree["type"], "binaryExpr");
        assert_eq!(tree["bool"], true);
        assert_eq!(tree["matching"]["card"], "one-to-one");
        assert_eq!(tree["lhs"]["op"], "topk");
        assert_eq!(tree["lhs"]["expr"]["offset"], 60_000);
        assert_eq!(tree["lhs"]["expr"]["matchers"][0]["type"], "!=");
        assert_eq!(tree["rhs"]["args"][0]["step"], 60_000);
        assert_eq!(tree["rhs"]["args"][0]["timestamp"], 3_000);
        assert_eq!(tree_json(&parse("-Inf").unwrap())["val"], "-Inf");
    }
}
