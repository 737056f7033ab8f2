//! The `on` of a join, taken apart into equalities between the sides and the rest.

use std::collections::BTreeSet;

use sqlparser::ast::{BinaryOperator, Expr};

use super::check::{Checker, Typed};
use super::eval::Node;
use super::parse::{self, Source};
use super::{Expression, Problem, Scope, ScopeColumn};
use crate::schema::Type;

/// The `on` of a join, taken apart.
#[derive(Clone, Debug)]
pub struct JoinCondition {
    /// `left = right` conjuncts: the left over the left row, the right over the right row (slots from 0). At least one.
    /// Both sides of one are of the same type.
    pub equalities: Vec<(Expression, Expression)>,
    /// The other conjuncts, over both rows: left slots, then right slots.
    pub residual: Option<Expression>,
}

/// Compiles the `on` of a join. Both scopes number their slots from 0; the left row is as wide as its highest slot says.
pub fn compile_join(text: &str, left: &Scope, right: &Scope) -> Result<JoinCondition, Vec<Problem>> {
    let source = Source::new(text);
    let syntax = parse::expression(source)?;
    let width = left.columns.iter().map(|column| column.slot + 1).max().unwrap_or(0);
    let mut both = left.clone();
    both.columns.extend(right.columns.iter().map(|column| ScopeColumn { slot: column.slot + width, ..column.clone() }));
    let mut checker = Checker::new(text, &both);
    let mut equalities = Vec::new();
    let mut rest: Vec<Typed> = Vec::new();
    let mut problems = Vec::new();
    for conjunct in conjuncts(&syntax) {
        let checked = checker.boolean(conjunct);
        let Some(checked) = checked else { continue };
        match sides(conjunct, &mut checker, width) {
            Some((of_left, of_right)) => match equality(text, source, of_left, of_right, left, right) {
                Ok(pair) => equalities.push(pair),
                Err(more) => problems.extend(more),
            },
            None => rest.push(checked),
        }
    }
    let complete = problems.is_empty() && checker.problems.is_empty();
    if complete && equalities.is_empty() {
        let help = Some("write an equality between a column of each side: a.id = b.id".to_owned());
        checker.problem::<()>(source.whole(), "a join needs an equality between its two sides", help);
    }
    let volatile = checker.volatile;
    problems.append(&mut checker.problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let residual = (!rest.is_empty()).then(|| {
        let nullable = rest.iter().any(|conjunct| conjunct.nullable);
        let mut nodes: Vec<Node> = rest.into_iter().map(|conjunct| conjunct.node).collect();
        let node = if nodes.len() == 1 { nodes.remove(0) } else { Node::And(nodes.into()) };
        let typed = Typed { node, ty: Type::Boolean, nullable, span: source.whole(), untyped: false };
        Expression::new(typed, volatile, text)
    });
    Ok(JoinCondition { equalities, residual })
}

/// The parts of a chain of ANDs, in order.
fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    let mut found = Vec::new();
    let mut open = vec![expr];
    while let Some(expr) = open.pop() {
        match expr {
            Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
                open.push(right);
                open.push(left);
            }
            Expr::Nested(inner) => open.push(inner),
            other => found.push(other),
        }
    }
    found
}

/// The sides of an equality between the two rows, the left row's first.
fn sides<'e>(conjunct: &'e Expr, checker: &mut Checker<'_>, width: usize) -> Option<(&'e Expr, &'e Expr)> {
    let Expr::BinaryOp { left: a, op: BinaryOperator::Eq, right: b } = conjunct else { return None };
    let mut reads = |expr: &Expr| -> Option<BTreeSet<usize>> { Some(checker.check(expr)?.node.reads().0) };
    let (a_slots, b_slots) = (reads(a)?, reads(b)?);
    let of_left = |slots: &BTreeSet<usize>| !slots.is_empty() && slots.iter().all(|slot| *slot < width);
    let of_right = |slots: &BTreeSet<usize>| !slots.is_empty() && slots.iter().all(|slot| *slot >= width);
    if of_left(&a_slots) && of_right(&b_slots) {
        Some((a, b))
    } else if of_right(&a_slots) && of_left(&b_slots) {
        Some((b, a))
    } else {
        None
    }
}

/// Each side over its own row, both of one type.
fn equality(
    text: &str,
    source: Source<'_>,
    of_left: &Expr,
    of_right: &Expr,
    left: &Scope,
    right: &Scope,
) -> Result<(Expression, Expression), Vec<Problem>> {
    let (mut left, mut right) = (Checker::new(text, left), Checker::new(text, right));
    let sides = left.check(of_left).zip(right.check(of_right));
    let sides = sides.and_then(|(a, b)| {
        // Checked before over both rows, so that there is a common type.
        let ty = super::types::common(&a.ty, &b.ty)?;
        left.coerce(a, &ty).zip(right.coerce(b, &ty))
    });
    let Some((a, b)) = sides else {
        left.problems.append(&mut right.problems);
        return Err(left.into_problems());
    };
    let shown = |expr: &Expr| source.text.get(source.of(expr)).unwrap_or(text);
    let a = Expression::new(a, left.volatile, shown(of_left));
    Ok((a, Expression::new(b, right.volatile, shown(of_right))))
}
