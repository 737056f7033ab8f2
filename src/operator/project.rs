//! The stateless operators: filter, projection, and a table's changes as a stream.

use super::{Context, Datum, Failure, deliver, reject};
use crate::expression::{Env, EvalError, Expression};
use crate::ids::EventTime;
use crate::row::{Origin, Row};
use crate::topology::plan::Node;
use crate::value::Value;

/// Of a stream: rows for which the condition does not hold go no further. Of a table: they do not exist, so that a row
/// that no longer fits is deleted downstream.
pub fn filter(
    ctx: &mut Context<'_>,
    node: &Node,
    condition: &Expression,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    match datum {
        Datum::Record(row) => {
            if condition.holds(&ctx.env(row))? {
                deliver(ctx, &node.next, datum, time)?;
            }
        }
        Datum::Retimed { row, .. } => {
            // A row that fails was never passed on.
            if condition.holds(&ctx.env(row)).unwrap_or(false) {
                deliver(ctx, &node.next, datum, time)?;
            }
        }
        Datum::Change { old, new, old_time } => {
            let holds = |row: Option<&[Value]>| row.map_or(Ok(false), |row| condition.holds(&ctx.env(row)));
            // A row that fails counts as absent: it was never passed on.
            let old = old.filter(|row| holds(Some(row)).unwrap_or(false));
            let (new, error) = match holds(new) {
                Ok(true) => (new, None),
                Ok(false) => (None, None),
                Err(error) => (None, Some(error)),
            };
            if let Some(error) = error {
                reject::step(ctx, node, datum, time, &error.into())?;
            }
            if old.is_some() || new.is_some() {
                deliver(ctx, &node.next, Datum::Change { old, new, old_time }, time)?;
            }
        }
    }
    Ok(())
}

/// One expression per output slot.
pub fn project(
    ctx: &mut Context<'_>,
    node: &Node,
    expressions: &[Expression],
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    match datum {
        Datum::Record(row) => {
            let mut made = ctx.rows.take();
            evaluate(expressions, row, ctx.origin, &mut made)?;
            let result = deliver(ctx, &node.next, Datum::Record(&made), time);
            ctx.rows.give_back(made);
            result
        }
        Datum::Retimed { row, old_time } => {
            let mut made = ctx.rows.take();
            // A row that fails was never passed on.
            let result = match evaluate(expressions, row, ctx.origin, &mut made) {
                Ok(()) => deliver(ctx, &node.next, Datum::Retimed { row: &made, old_time }, time),
                Err(_) => Ok(()),
            };
            ctx.rows.give_back(made);
            result
        }
        Datum::Change { old, new, old_time } => {
            let (mut old_row, mut new_row) = (ctx.rows.take(), ctx.rows.take());
            let old = old.filter(|row| evaluate(expressions, row, ctx.origin, &mut old_row).is_ok());
            let new = match new.map(|row| evaluate(expressions, row, ctx.origin, &mut new_row)) {
                Some(Ok(())) => true,
                Some(Err(error)) => {
                    reject::step(ctx, node, datum, time, &error.into())?;
                    false
                }
                None => false,
            };
            let change = Datum::Change { old: old.map(|_| &*old_row), new: new.then_some(&*new_row), old_time };
            let result = if old.is_some() || new { deliver(ctx, &node.next, change, time) } else { Ok(()) };
            ctx.rows.give_back(old_row);
            ctx.rows.give_back(new_row);
            result
        }
    }
}

/// Appends the values of the expressions.
pub(super) fn evaluate(
    expressions: &[Expression],
    row: &[Value],
    origin: &Origin,
    into: &mut Row,
) -> Result<(), EvalError> {
    let env = Env { row, origin };
    for expression in expressions {
        into.push(match expression.as_column() {
            Some(slot) => row[slot].clone(),
            None => expression.eval(&env)?,
        });
    }
    Ok(())
}

/// A change becomes a row with `_op` (`insert`, `update`, `delete`) as its last visible slot.
pub fn to_stream(ctx: &mut Context<'_>, node: &Node, datum: Datum<'_>, time: EventTime) -> Result<(), Failure> {
    let (row, operation) = match datum {
        Datum::Record(row) | Datum::Change { old: None, new: Some(row), .. } => (row, "insert"),
        Datum::Change { old: Some(_), new: Some(row), .. } => (row, "update"),
        Datum::Change { old: Some(row), new: None, .. } => (row, "delete"),
        Datum::Retimed { .. } | Datum::Change { old: None, new: None, .. } => return Ok(()),
    };
    let mut made = ctx.rows.take();
    let visible = node.visible.saturating_sub(1).min(row.len());
    made.extend_from_slice(&row[..visible]);
    made.push(Value::string(operation));
    made.extend_from_slice(&row[visible..]);
    let result = deliver(ctx, &node.next, Datum::Record(&made), time);
    ctx.rows.give_back(made);
    result
}
