//! Stream-table join: a stream's row beside the table's row of the same key, as the table is now.
//!
//! The table's own changes do nothing here: only a stream's record asks.

use super::state::KeyBuffer;
use super::{Context, Datum, Failure, deliver, project, view};
use crate::ids::EventTime;
use crate::row::Row;
use crate::store::key;
use crate::topology::plan::{JoinKind, Node, StreamTableJoinPlan};
use crate::value::Value;

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &StreamTableJoinPlan,
    state: &mut KeyBuffer,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    let Some(row) = ctx.record_row(node, datum) else { return Ok(()) };
    state.values.clear();
    project::evaluate(&plan.key, row, ctx.origin, &mut state.values)?;

    let mut joined = ctx.rows.take();
    joined.extend_from_slice(row);
    let matched = look_up(ctx, plan, state, row.len(), &mut joined)?;
    let result = match (matched, plan.kind) {
        (Match::Found, _) => deliver(ctx, &node.next, Datum::Record(&joined), time),
        (Match::None, JoinKind::Left) => {
            joined.truncate(row.len());
            joined.resize(row.len() + plan.table_columns, Value::Null);
            deliver(ctx, &node.next, Datum::Record(&joined), time)
        }
        (Match::None, JoinKind::Inner) => Ok(()),
    };
    ctx.rows.give_back(joined);
    result
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Match {
    Found,
    None,
}

/// Appends the table's row to `joined`, whose first `left` slots are the stream's row.
fn look_up(
    ctx: &mut Context<'_>,
    plan: &StreamTableJoinPlan,
    state: &mut KeyBuffer,
    left: usize,
    joined: &mut Row,
) -> Result<Match, Failure> {
    // NULL keys match nothing.
    if state.values.iter().any(Value::is_null) {
        return Ok(Match::None);
    }
    let store = &ctx.store_plans[plan.store.index()];
    state.bytes.clear();
    key::encode_key(&state.values, &store.key, &mut state.bytes)?;
    let Some(stored) = ctx.stores.table(plan.store).get(&state.bytes)? else { return Ok(Match::None) };
    if plan.view.is_empty() {
        // A table over a topic: its key columns, then the others.
        joined.extend_from_slice(&state.values);
        joined.extend_from_slice(&stored.row);
    } else {
        match view::through(&plan.view, &state.values, None, stored, ctx.origin)? {
            Some(row) => joined.extend(row),
            None => return Ok(Match::None),
        }
    }
    debug_assert_eq!(joined.len(), left + plan.table_columns, "the join's right side has the planned width");
    match &plan.condition {
        Some(condition) if !condition.holds(&ctx.env(joined))? => Ok(Match::None),
        _ => Ok(Match::Found),
    }
}
