//! From a stored row to the row that a user sees: for queries, for joins with a table that is computed from another, and
//! for expiry.
//!
//! A view is a chain of operators: the one that owns the store first (it knows how its state becomes a result), then
//! filters and projections. An empty chain is a table over a topic: key columns, then the others.

use super::aggregate;
use super::materialize::assemble;
use super::{Failure, RecordError, absent_if_failed};
use crate::expression::Env;
use crate::ids::EventTime;
use crate::row::{Origin, Row};
use crate::store::cache::Stored;
use crate::store::{self, key};
use crate::topology::plan::{Node, OperatorPlan, StoreKind, StorePlan, TablePlan};
use crate::value::Value;

/// Appends the row that a table node passes on for a stored row.
pub fn table_row(
    node: &Node,
    store: &StorePlan,
    key_bytes: &[u8],
    stored: &Stored,
    into: &mut Row,
) -> Result<(), Failure> {
    let (start, keys) = split_key(store, key_bytes)?;
    match &node.operator {
        OperatorPlan::Aggregate(plan) => aggregate::results(plan, &keys, start, stored, into),
        _ => {
            assemble(&keys, &stored.row, &node.key, node.schema.len(), into);
            Ok(())
        }
    }
}

/// The row of a queryable table for a stored row; `None` where a filter of the view leaves it out, or the row fails.
///
/// # Errors
/// `Failure::Store` where the key cannot be read.
pub fn row_of(
    table: &TablePlan,
    store: &StorePlan,
    key_bytes: &[u8],
    stored: &Stored,
    origin: &Origin,
) -> Result<Option<Row>, Failure> {
    let (start, keys) = split_key(store, key_bytes)?;
    through(&table.view, &keys, start, stored, origin)
}

/// The decoded parts of a store key: `window_start` of a window store, and the key columns.
pub fn split_key(store: &StorePlan, key_bytes: &[u8]) -> Result<(Option<EventTime>, Row), store::Error> {
    let (start, rest) = match store.kind {
        StoreKind::Window => {
            let (start, rest) = key::split_windowed_key(key_bytes)?;
            (Some(start), rest)
        }
        StoreKind::KeyValue | StoreKind::List | StoreKind::Meta => (None, key_bytes),
    };
    let mut keys = Row::new();
    key::decode_key(rest, &store.key, &mut keys)?;
    Ok((start, keys))
}

/// Runs a stored row through a view. A row that fails counts as absent: it became a dead letter when it was new.
pub(super) fn through(
    view: &[OperatorPlan],
    keys: &[Value],
    start: Option<EventTime>,
    stored: &Stored,
    origin: &Origin,
) -> Result<Option<Row>, Failure> {
    absent_if_failed(seen(view, keys, start, stored, origin))
}

fn seen(
    view: &[OperatorPlan],
    keys: &[Value],
    start: Option<EventTime>,
    stored: &Stored,
    origin: &Origin,
) -> Result<Option<Row>, Failure> {
    let mut row = Row::new();
    let rest = match view {
        [OperatorPlan::Aggregate(plan), rest @ ..] => {
            aggregate::results(plan, keys, start, stored, &mut row)?;
            rest
        }
        [OperatorPlan::Materialize(plan), rest @ ..] => {
            assemble(keys, &stored.row, &plan.key, keys.len() + stored.row.len(), &mut row);
            rest
        }
        rest => {
            row.extend_from_slice(keys);
            row.extend_from_slice(&stored.row);
            rest
        }
    };
    for operator in rest {
        let env = Env { row: &row, origin };
        match operator {
            OperatorPlan::Filter(condition) => {
                if !condition.holds(&env)? {
                    return Ok(None);
                }
            }
            OperatorPlan::Project(expressions) => {
                let projected = expressions.iter().map(|expression| expression.eval(&env)).collect::<Result<_, _>>()?;
                row = projected;
            }
            other => {
                debug_assert!(false, "{other:?} cannot stand in a view");
                return Err(
                    RecordError::new(RecordError::EXPRESSION, "this table cannot be computed on reading").into()
                );
            }
        }
    }
    Ok(Some(row))
}
