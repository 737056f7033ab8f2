//! `over`: every record of a stream, with aggregates of its key as of that record.
//!
//! 1. The record is put into its key's list, at its place by event time.
//! 2. Each specification's frame is cut out of the list and evaluated.
//! 3. The row goes on with the results appended.
//! 4. Records of the key that lie behind the watermark by more than the longest frame + grace are dropped, but as many
//!    as `rows` and LAG need are kept; with `range: unbounded` all are.
//! 5. With a ttl, a key whose last record lies that far behind the watermark is forgotten: before its next record is put in,
//!    or by the sweep, whichever comes first.
//!
//! The same record read again (after a rollback) finds itself in the list and is answered the same.

use std::collections::VecDeque;
use std::ops::Range;

use super::state::KeyBuffer;
use super::{Context, Datum, Failure, deliver, project};
use crate::expression::KeptRow;
use crate::ids::EventTime;
use crate::row::Row;
use crate::store::key;
use crate::store::list::Inserted;
use crate::topology::plan::{Frame, Node, OverPlan};
use crate::value::Value;

/// How many entries of other keys are looked at for expiry per commit.
const SWEEP_LIMIT: usize = 512;

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &OverPlan,
    state: &mut KeyBuffer,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    let Some(row) = ctx.record_row(node, datum) else { return Ok(()) };
    state.values.clear();
    project::evaluate(&plan.by, row, ctx.origin, &mut state.values)?;
    if let [Value::Null] = state.values[..] {
        ctx.dropped(&node.step, "null_key");
        return Ok(());
    }
    state.bytes.clear();
    key::encode_key(&state.values, &ctx.store_plans[plan.store.index()].key, &mut state.bytes)?;
    let mut kept = Row::with_capacity(plan.kept.len());
    project::evaluate(&plan.kept, row, ctx.origin, &mut kept)?;

    let forgotten_until = forgotten_until(ctx, node, plan);
    let list = ctx.stores.list(plan.store);
    if let Some(until) = forgotten_until {
        list.forget(&state.bytes, until)?;
    }
    let inserted = list.insert(&state.bytes, KeptRow { time, tie: ctx.tie, values: kept })?;
    let (Inserted::At(at) | Inserted::Already(at)) = inserted;
    let mut made = ctx.rows.take();
    made.extend_from_slice(row);
    let origin = ctx.origin;
    let rows = ctx.stores.list(plan.store).rows(&state.bytes)?;
    let evaluated = plan.specs.iter().try_for_each(|spec| {
        let frame = frame(spec.frame, rows, at);
        spec.set.results(rows, frame, spec.exclude_current, at, origin, &mut made)
    });
    let result = match evaluated {
        Ok(()) => deliver(ctx, &node.next, Datum::Record(&made), time),
        Err(error) => {
            if let Inserted::At(at) = inserted {
                ctx.stores.list(plan.store).remove(&state.bytes, at)?;
            }
            Err(error.into())
        }
    };
    ctx.rows.give_back(made);
    result?;

    let until = expired_until(ctx, node, plan);
    ctx.stores.list(plan.store).expire(&state.bytes, until, kept_rows(plan))?;
    Ok(())
}

/// Before a commit: drops records of keys that nothing arrives for any more, a bounded number at a time.
pub fn flush(ctx: &mut Context<'_>, node: &Node, plan: &OverPlan) -> Result<(), Failure> {
    let by_age = (kept_rows(plan) == 0).then(|| expired_until(ctx, node, plan));
    let of_keys = forgotten_until(ctx, node, plan);
    let list = ctx.stores.list(plan.store);
    match (by_age, of_keys) {
        // Where records go sooner than their keys would, there is nothing left to forget.
        (Some(until), of_keys) if until != EventTime::MIN && of_keys.is_none_or(|of_keys| of_keys <= until) => {
            list.sweep(until, SWEEP_LIMIT)?;
        }
        (_, Some(until)) if until != EventTime::MIN => {
            let forgotten = list.sweep_keys(until, SWEEP_LIMIT)?;
            (0..forgotten).for_each(|_| ctx.expired(plan.store));
        }
        _ => {}
    }
    Ok(())
}

/// Keys whose last record is not later than this are forgotten.
fn forgotten_until(ctx: &Context<'_>, node: &Node, plan: &OverPlan) -> Option<EventTime> {
    let watermark = ctx.watermark_at(node.id);
    plan.ttl_ms.map(|ttl| if watermark == EventTime::MIN { watermark } else { watermark.saturating_sub(ttl) })
}

/// Event times up to here are behind every frame.
fn expired_until(ctx: &Context<'_>, node: &Node, plan: &OverPlan) -> EventTime {
    ctx.watermark_at(node.id).saturating_sub(plan.grace_ms)
}

/// How many records of a key are kept whatever their age.
fn kept_rows(plan: &OverPlan) -> usize {
    plan.specs
        .iter()
        .map(|spec| {
            let rows = match spec.frame {
                Frame::Rows { n } => n + usize::from(spec.exclude_current),
                Frame::Range { .. } => 0,
                Frame::Unbounded => usize::MAX,
            };
            let lag = spec.set.lag();
            rows.max(if lag > 0 { lag + 1 } else { 0 })
        })
        .max()
        .unwrap_or(0)
}

/// The rows of a frame for the record at `at`.
fn frame(frame: Frame, rows: &VecDeque<KeptRow>, at: usize) -> Range<usize> {
    match frame {
        Frame::Range { ms } => {
            let after = rows[at].time.0.saturating_sub(ms);
            rows.partition_point(|row| row.time.0 <= after)..not_later(rows, at)
        }
        Frame::Unbounded => 0..not_later(rows, at),
        Frame::Rows { n } => (at + 1).saturating_sub(n)..at + 1,
    }
}

/// The end of the rows that are not later than the one at `at`.
fn not_later(rows: &VecDeque<KeptRow>, at: usize) -> usize {
    let time = rows[at].time;
    rows.partition_point(|row| row.time <= time)
}
