//! The last value per key: `as: table`, and the tables over source topics.
//!
//! 1. The key's bytes find the stored row; a row whose ttl has run out counts as absent.
//! 2. An upsert replaces it (unless `latest` says that it is older), a tombstone deletes it.
//! 3. `emit: each` and source tables pass the change on at once; `emit: changes` once per key at the flush.
//!
//! A table under a new key (`key_by`) has rows from several upstream tasks, in no order between them, and more than one row
//! may claim a key. There a row gives way only to one of the same former key, or to one that is not older; and a deletion
//! deletes only the row of its own former key.

use super::state::KeyBuffer;
use super::{Context, Datum, Failure, changed, deliver};
use crate::expression::{Env, Expression, order};
use crate::ids::{EventTime, StoreId};
use crate::row::Row;
use crate::store::cache::{Expired, Stored};
use crate::store::key;
use crate::topology::plan::{Edge, Emit, MaterializePlan, Node, OperatorPlan, Ttl};
use crate::value::Value;

/// What a table keeps, and where its changes go.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The step or table, for counting.
    pub step: &'a str,
    pub store: StoreId,
    /// Slots of the key columns in a row of the table.
    pub key: &'a [usize],
    pub latest: Option<&'a Expression>,
    /// See [`MaterializePlan::former_key`].
    pub former_key: &'a [usize],
    pub emit: Emit,
    pub ttl: Option<Ttl>,
    pub next: &'a [Edge],
}

impl<'a> Target<'a> {
    fn of(node: &'a Node, plan: &'a MaterializePlan) -> Self {
        Self {
            step: &node.step,
            store: plan.store,
            key: &plan.key,
            latest: plan.latest.as_ref(),
            former_key: &plan.former_key,
            emit: plan.emit,
            ttl: plan.ttl,
            next: &node.next,
        }
    }
}

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &MaterializePlan,
    state: &mut KeyBuffer,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    let target = Target::of(node, plan);
    match datum {
        Datum::Record(row) if ctx.origin.tombstone => apply(ctx, target, state, row, Operation::Delete, time),
        Datum::Record(row) | Datum::Change { new: Some(row), .. } => {
            apply(ctx, target, state, row, Operation::Upsert, time)
        }
        // With the later event time, which is all that has changed.
        Datum::Retimed { row, .. } => apply(ctx, target, state, row, Operation::Upsert, time),
        Datum::Change { old: Some(row), new: None, .. } => apply(ctx, target, state, row, Operation::Delete, time),
        Datum::Change { old: None, new: None, .. } => Ok(()),
    }
}

/// What is done to a table's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Upsert,
    Delete,
}

/// Puts or deletes the row of a key. Of a deletion only the key columns of `row` are looked at.
pub fn apply(
    ctx: &mut Context<'_>,
    target: Target<'_>,
    buffer: &mut KeyBuffer,
    row: &[Value],
    operation: Operation,
    time: EventTime,
) -> Result<(), Failure> {
    if let [slot] = target.key
        && row[*slot].is_null()
    {
        ctx.dropped(target.step, "null_key");
        return Ok(());
    }
    let schema = &ctx.store_plans[target.store.index()].key;
    buffer.values.clear();
    buffer.values.extend(target.key.iter().map(|&slot| row[slot].clone()));
    buffer.bytes.clear();
    key::encode_key(&buffer.values, schema, &mut buffer.bytes)?;

    let watermark = ctx.watermark;
    let table = ctx.stores.table(target.store);
    let id = table.entry(&buffer.bytes)?;
    let expired = table.stored(id).is_some_and(|stored| is_expired(stored, target.ttl, watermark));
    // Downstream still has a row that has run out of time; it is told unless it is to keep it.
    let tell = !expired || target.ttl.is_some_and(|ttl| ttl.downstream);
    let old_time = table.stored(id).map_or(time, |stored| stored.time);
    let stored = table.stored(id).filter(|_| tell);
    let mut old_row = ctx.rows.take();
    let old = match stored {
        Some(stored) => {
            assemble(&buffer.values, &stored.row, target.key, row.len(), &mut old_row);
            true
        }
        None => false,
    };
    let is_others = old && target.former_key.iter().any(|&slot| row[slot] != old_row[slot]);
    let replaces = match (target.latest, old && !expired, operation) {
        (_, true, Operation::Delete) if is_others => false,
        (_, true, Operation::Upsert) if is_others && time < old_time => {
            ctx.dropped(target.step, "superseded");
            false
        }
        (Some(latest), true, Operation::Upsert) => !is_older(latest, ctx, row, &old_row)?,
        _ => true,
    };
    if replaces {
        let table = ctx.stores.table(target.store);
        match operation {
            Operation::Upsert => {
                // Where a row's age decides how long it is kept, its last event counts, which need not be the last to arrive.
                // Elsewhere a row's time is that of its record, which is all that a restoration from the topic knows.
                let time = if target.ttl.is_some() { stored_time(table.stored(id), time) } else { time };
                table.put(id, Stored { row: without_key(row, target.key), time });
            }
            Operation::Delete => table.delete(id),
        }
        let time = table.stored(id).map_or(time, |stored| stored.time);
        let new = (operation == Operation::Upsert).then_some(row);
        let old = old.then_some(&*old_row);
        if target.emit == Emit::Each && (old.is_some() || new.is_some()) {
            deliver(ctx, target.next, Datum::Change { old, new, old_time }, time)?;
        }
    }
    ctx.rows.give_back(old_row);
    Ok(())
}

/// Emits what has changed since the last commit, once per key (`emit: changes`).
pub fn flush(ctx: &mut Context<'_>, node: &Node, plan: &MaterializePlan) -> Result<(), Failure> {
    if plan.emit != Emit::Changes || node.next.is_empty() {
        return Ok(());
    }
    for number in 0..ctx.stores.table(plan.store).dirty_len() {
        let schema = &ctx.store_plans[plan.store.index()].key;
        let (mut keys, mut old_row, mut new_row) = (ctx.rows.take(), ctx.rows.take(), ctx.rows.take());
        let dirty = ctx.stores.table(plan.store).dirty(number);
        key::decode_key(dirty.key, schema, &mut keys)?;
        let length = node.schema.len();
        let make = |stored: Option<&Stored>, into: &mut Row| {
            stored.map(|stored| assemble(&keys, &stored.row, &node.key, length, into)).is_some()
        };
        let (old, new) = (make(dirty.before, &mut old_row), make(dirty.after, &mut new_row));
        let silent = new_is_expiry(dirty.before, dirty.after.is_some(), plan.ttl, ctx.watermark);
        let time = dirty.after.or(dirty.before).map_or(EventTime(0), |stored| stored.time);
        let old_time = dirty.before.map_or(time, |before| before.time);
        if !silent {
            let (old, new) = (old.then_some(&*old_row), new.then_some(&*new_row));
            changed(ctx, node, (old, old_time), (new, time))?;
        }
        for row in [keys, old_row, new_row] {
            ctx.rows.give_back(row);
        }
    }
    Ok(())
}

/// Deletes rows whose ttl has run out, at most `limit` rows looked at; returns whether it came to the end of the table.
pub fn expire(
    ctx: &mut Context<'_>,
    node: &Node,
    store: StoreId,
    ttl: Ttl,
    emit: Emit,
    limit: usize,
) -> Result<bool, Failure> {
    let until = ctx.watermark.saturating_sub(ttl.after_ms);
    let Expired { keys, done } = ctx.stores.table(store).expired(until, limit)?;
    for key in keys {
        let table = ctx.stores.table(store);
        let id = table.entry(&key)?;
        let Some(stored) = table.stored(id).filter(|stored| stored.time <= until).cloned() else { continue };
        table.delete(id);
        ctx.expired(store);
        if emit != Emit::Each || !ttl.downstream || node.next.is_empty() {
            continue;
        }
        let mut row = ctx.rows.take();
        super::view::table_row(node, &ctx.store_plans[store.index()], &key, &stored, &mut row)?;
        let change = Datum::Change { old: Some(&row), new: None, old_time: stored.time };
        deliver(ctx, &node.next, change, ctx.watermark)?;
        ctx.rows.give_back(row);
    }
    Ok(done)
}

/// The ttl and emit of a node whose table may expire.
pub fn ttl_of(operator: &OperatorPlan) -> Option<(StoreId, Ttl, Emit)> {
    match operator {
        OperatorPlan::Materialize(plan) => plan.ttl.map(|ttl| (plan.store, ttl, plan.emit)),
        OperatorPlan::Aggregate(plan) => plan.ttl.map(|ttl| (plan.store, ttl, plan.emit)),
        OperatorPlan::Filter(_)
        | OperatorPlan::Project(_)
        | OperatorPlan::StreamTableJoin(_)
        | OperatorPlan::Over(_)
        | OperatorPlan::ToStream
        | OperatorPlan::Repartition(_)
        | OperatorPlan::Sink(_) => None,
    }
}

pub(super) fn is_expired(stored: &Stored, ttl: Option<Ttl>, watermark: EventTime) -> bool {
    ttl.is_some_and(|ttl| stored.time <= watermark.saturating_sub(ttl.after_ms) && watermark != EventTime::MIN)
}

/// Whether a deletion is an expiry that downstream is not to hear of (`downstream: keep`).
pub(super) fn new_is_expiry(before: Option<&Stored>, lives: bool, ttl: Option<Ttl>, watermark: EventTime) -> bool {
    !lives && ttl.is_some_and(|ttl| !ttl.downstream) && before.is_some_and(|before| is_expired(before, ttl, watermark))
}

/// The time kept with a row never goes back.
pub(super) fn stored_time(stored: Option<&Stored>, time: EventTime) -> EventTime {
    stored.map_or(time, |stored| stored.time.max(time))
}

fn is_older(latest: &Expression, ctx: &Context<'_>, row: &[Value], old: &[Value]) -> Result<bool, Failure> {
    let new = latest.eval(&Env { row, origin: ctx.origin })?;
    let old = latest.eval(&Env { row: old, origin: ctx.origin })?;
    Ok(match (old.is_null(), new.is_null()) {
        (true, _) => false,
        (false, true) => true,
        (false, false) => order::compare(&old, &new).is_gt(),
    })
}

/// A row without its key columns: what is stored.
pub(super) fn without_key(row: &[Value], key: &[usize]) -> Row {
    row.iter().enumerate().filter(|(slot, _)| !key.contains(slot)).map(|(_, value)| value.clone()).collect()
}

/// The whole row again, `length` slots, from its key columns and what is stored.
pub(super) fn assemble(keys: &[Value], stored: &[Value], key: &[usize], length: usize, into: &mut Row) {
    into.clear();
    let mut rest = stored.iter();
    for slot in 0..length {
        let value = match key.iter().position(|&at| at == slot) {
            Some(at) => keys.get(at),
            None => rest.next(),
        };
        into.push(value.cloned().unwrap_or(Value::Null));
    }
}
