//! `group_by` and `aggregate`, unwindowed and tumbling.
//!
//! A record of a stream is added to its group. A change of a table is taken out of its old group and added to its new
//! one. With a window, the group is (window_start, group columns):
//! 1. A record whose window has closed (window end + grace <= watermark) is late.
//! 2. `emit: final` passes a window's groups on when the watermark passes its end + grace; `each` at once; `changes` at
//!    the flush. Steps that read only closed windows get them at the close, whatever `emit` says.
//! 3. Windows whose retention has passed are deleted after the flush, silently.

use std::ops::Range;

use super::materialize::{is_expired, new_is_expiry, stored_time};
use super::state::{AggregateState, KeyBuffer};
use super::{Context, Datum, Failure, RecordError, absent_if_failed, changed, deliver, project, reject, sink};
use crate::ids::EventTime;
use crate::metric;
use crate::metric::losses::Fate;
use crate::row::Row;
use crate::store::cache::{EntryId, Stored};
use crate::store::{self, KeyRange, key};
use crate::topology::plan::{AggregatePlan, Edge, Emit, Late, Node, Shape, WindowPlan};
use crate::value::Value;

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &AggregatePlan,
    state: &mut AggregateState,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    match datum {
        Datum::Record(_) if ctx.origin.tombstone => {
            ctx.dropped(&node.step, "tombstone");
            Ok(())
        }
        Datum::Record(row) => change(ctx, node, plan, state, Rows::Enters(row), time),
        Datum::Change { old: Some(old), new: Some(new), old_time } if same_group(ctx, plan, old, new) => {
            change(ctx, node, plan, state, Rows::Replaces { old, new, old_time }, time)
        }
        Datum::Change { old, new, old_time } => {
            if let Some(old) = old {
                // A row that failed was never in the result.
                absent_if_failed(change(ctx, node, plan, state, Rows::Leaves { old, old_time }, time))?;
            }
            match new {
                Some(new) => change(ctx, node, plan, state, Rows::Enters(new), time),
                None => Ok(()),
            }
        }
        Datum::Retimed { row, old_time } => change(ctx, node, plan, state, Rows::Stays { row, old_time }, time),
    }
}

/// What happens to one group. `old_time` is the event time that the old row entered with.
#[derive(Clone, Copy, Debug)]
enum Rows<'r> {
    Enters(&'r [Value]),
    Leaves {
        old: &'r [Value],
        old_time: EventTime,
    },
    Replaces {
        old: &'r [Value],
        new: &'r [Value],
        old_time: EventTime,
    },
    /// A row is as it was, but of a later event time.
    Stays {
        row: &'r [Value],
        old_time: EventTime,
    },
}

impl<'r> Rows<'r> {
    fn enters(self) -> Option<&'r [Value]> {
        match self {
            Self::Enters(row) | Self::Replaces { new: row, .. } | Self::Stays { row, .. } => Some(row),
            Self::Leaves { .. } => None,
        }
    }

    fn leaves(self) -> Option<(&'r [Value], EventTime)> {
        match self {
            Self::Enters(_) => None,
            Self::Leaves { old, old_time } | Self::Replaces { old, old_time, .. } => Some((old, old_time)),
            Self::Stays { row, old_time } => Some((row, old_time)),
        }
    }

    /// Any of them: they are of one group.
    fn row(self) -> &'r [Value] {
        match self {
            Self::Enters(row) | Self::Leaves { old: row, .. } | Self::Replaces { new: row, .. } => row,
            Self::Stays { row, .. } => row,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Add,
    Retract,
}

fn same_group(ctx: &Context<'_>, plan: &AggregatePlan, old: &[Value], new: &[Value]) -> bool {
    plan.group.iter().all(|column| match (column.eval(&ctx.env(old)), column.eval(&ctx.env(new))) {
        (Ok(old), Ok(new)) => old == new,
        _ => false,
    })
}

fn change(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &AggregatePlan,
    state: &mut AggregateState,
    rows: Rows<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    let row = rows.row();
    let KeyBuffer { values, bytes } = &mut state.key;
    values.clear();
    project::evaluate(&plan.group, row, ctx.origin, values)?;
    if let [Value::Null] = values[..] {
        ctx.dropped(&node.step, "null_key");
        return Ok(());
    }
    bytes.clear();
    let start = plan.window.map(|window| window_start(window, time));
    if let (Some(window), Some(start)) = (plan.window, start) {
        if is_closed(window, start, state.closed_to) {
            return late(ctx, node, plan, row, time);
        }
        key::push_window_start(start, bytes);
    }
    key::encode_key(values, &ctx.store_plans[plan.store.index()].key, bytes)?;

    let watermark = ctx.watermark;
    let table = ctx.stores.table(plan.store);
    let id = table.entry(bytes)?;
    let expired = table.stored(id).is_some_and(|stored| is_expired(stored, plan.ttl, watermark));
    let old_time = table.stored(id).map_or(time, |stored| stored.time);
    let mut old_row = ctx.rows.take();
    if plan.emit == Emit::Each
        && let Some(stored) = table.stored(id)
        && (!expired || plan.ttl.is_some_and(|ttl| ttl.downstream))
    {
        // One that could not be computed was never passed on.
        let was_passed_on = absent_if_failed(results(plan, values, start, stored, &mut old_row).map(|()| true))?;
        if !was_passed_on {
            old_row.clear();
        }
    }
    if expired {
        table.delete(id);
    }
    // An expired group, or one that has never been, holds nothing that could leave it.
    let leaves = rows.leaves().filter(|_| table.stored(id).is_some());
    let before = if plan.emit == Emit::Each { table.stored(id).cloned() } else { None };
    // The addition goes first: the other way round a group of one row would be empty in between, and deleted.
    let mut failed = match rows.enters() {
        Some(row) => failure_of(accumulate(ctx, plan, id, row, time, time, Sign::Add))?,
        None => None,
    };
    if let Some((row, old_time)) = leaves {
        // A row that failed was never in the result.
        absent_if_failed(accumulate(ctx, plan, id, row, old_time, time, Sign::Retract))?;
    }
    if plan.emit == Emit::Each {
        let mut new_row = ctx.rows.take();
        let table = ctx.stores.table(plan.store);
        if let Some(stored) = table.stored(id)
            && let Some(failure) = failure_of(results(plan, values, start, stored, &mut new_row))?
        {
            failed = Some(failure);
            new_row.clear();
            // A result that cannot be computed leaves a stream's groups as they were. Rows of a table will leave again: they
            // stay in, and the group is without a result until they do.
            if plan.input == Shape::Stream {
                match before {
                    Some(before) => table.put(id, before),
                    None => table.delete(id),
                }
                if let Some(stored) = ctx.stores.table(plan.store).stored(id) {
                    results(plan, values, start, stored, &mut new_row)?;
                }
            }
        }
        let nothing_happened = failed.is_some() && old_row == new_row;
        if !nothing_happened {
            // A group's event time is the highest in it.
            let time = ctx.stores.table(plan.store).stored(id).map_or(old_time.max(time), |stored| stored.time);
            match (non_empty(&old_row), non_empty(&new_row)) {
                (None, None) => {}
                (Some(old), Some(new)) if matches!(rows, Rows::Stays { .. }) && old == new => {
                    if old_time != time {
                        deliver(ctx, &node.next, Datum::Retimed { row: new, old_time }, time)?;
                    }
                }
                (old, new) => deliver(ctx, &node.next, Datum::Change { old, new, old_time }, time)?,
            }
        }
        ctx.rows.give_back(new_row);
    }
    ctx.rows.give_back(old_row);
    failed.map_or(Ok(()), |error| Err(Failure::Record(error)))
}

/// The record's own failure apart from those that end everything.
fn failure_of(result: Result<(), Failure>) -> Result<Option<RecordError>, Failure> {
    match result {
        Ok(()) => Ok(None),
        Err(Failure::Record(error)) => Ok(Some(error)),
        Err(failure) => Err(failure),
    }
}

fn non_empty(row: &Row) -> Option<&[Value]> {
    (!row.is_empty()).then_some(&**row)
}

/// Adds or retracts a row of event time `row_time`; `time` is that of what makes it happen. On an error nothing has changed.
fn accumulate(
    ctx: &mut Context<'_>,
    plan: &AggregatePlan,
    id: EntryId,
    row: &[Value],
    row_time: EventTime,
    time: EventTime,
    sign: Sign,
) -> Result<(), Failure> {
    let env = crate::expression::Env { row, origin: ctx.origin };
    let counted = plan.input == Shape::Table;
    let width = plan.aggregates.state().len();
    let table = ctx.stores.table(plan.store);
    let was_there = table.stored(id).is_some();
    let stored = table.change(id, || {
        let mut empty = plan.aggregates.empty();
        if counted {
            empty.push(Value::Bigint(0));
        }
        empty
    });
    let outcome = match sign {
        Sign::Add => plan.aggregates.add(&mut stored.row[..width], &env, row_time),
        Sign::Retract => plan.aggregates.retract(&mut stored.row[..width], &env, row_time),
    };
    if let Err(error) = outcome {
        if !was_there {
            table.delete(id);
        }
        return Err(error.into());
    }
    stored.time = stored_time(Some(stored), time);
    if counted && let Some(Value::Bigint(size)) = stored.row.get_mut(width) {
        *size += if sign == Sign::Add { 1 } else { -1 };
        if *size <= 0 && !plan.keep_empty {
            table.delete(id);
        }
    }
    Ok(())
}

/// `window_start` of the tumbling window that a time falls into.
pub fn window_start(window: WindowPlan, time: EventTime) -> EventTime {
    let since = time.0.saturating_sub(window.offset_ms);
    EventTime(since.saturating_sub(since.rem_euclid(window.size_ms)).saturating_add(window.offset_ms))
}

/// Whether a window's end + grace has been reached.
fn is_closed(window: WindowPlan, start: EventTime, watermark: EventTime) -> bool {
    watermark != EventTime::MIN && start.saturating_add(window.size_ms).saturating_add(window.grace_ms) <= watermark
}

fn late(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &AggregatePlan,
    row: &[Value],
    time: EventTime,
) -> Result<(), Failure> {
    ctx.counters.counter(&metric::RECORDS_LATE, &[&node.step]).add(1);
    match &plan.late {
        Late::Drop => {
            let reason =
                "its window had closed; a longer `grace` waits for such records, and `late: {to: TOPIC}` keeps them";
            ctx.lost(Fate::DroppedLate, &node.step, "late", reason);
            Ok(())
        }
        Late::To(topic) => sink::late(ctx, node, topic, row, time),
    }
}

/// The output row of a group: group columns, `window_start`, `window_end`, results.
pub(super) fn results(
    plan: &AggregatePlan,
    group: &[Value],
    start: Option<EventTime>,
    stored: &Stored,
    into: &mut Row,
) -> Result<(), Failure> {
    into.clear();
    into.extend_from_slice(group);
    if let (Some(window), Some(start)) = (plan.window, start) {
        into.push(Value::Timestamp(start.micros()));
        into.push(Value::Timestamp(start.saturating_add(window.size_ms).micros()));
    }
    let width = plan.aggregates.state().len();
    plan.aggregates.results(&stored.row[..width.min(stored.row.len())], into)?;
    Ok(())
}

/// Emits what has changed since the last commit, once per key (`emit: changes`).
pub fn flush(ctx: &mut Context<'_>, node: &Node, plan: &AggregatePlan) -> Result<(), Failure> {
    if plan.emit != Emit::Changes || node.next.is_empty() {
        return Ok(());
    }
    let schema = &ctx.store_plans[plan.store.index()].key;
    for number in 0..ctx.stores.table(plan.store).dirty_len() {
        let (mut group, mut old_row, mut new_row) = (ctx.rows.take(), ctx.rows.take(), ctx.rows.take());
        let dirty = ctx.stores.table(plan.store).dirty(number);
        let (start, group_key) = split(plan, dirty.key)?;
        key::decode_key(group_key, schema, &mut group)?;
        let silent = new_is_expiry(dirty.before, dirty.after.is_some(), plan.ttl, ctx.watermark);
        let time = dirty.after.or(dirty.before).map_or(EventTime(0), |stored| stored.time);
        let old_time = dirty.before.map_or(time, |before| before.time);
        if let Some(before) = dirty.before
            && results(plan, &group, start, before, &mut old_row).is_err()
        {
            // It was rejected when it was new.
            old_row.clear();
        }
        let mut failed = None;
        if let Some(after) = dirty.after {
            match results(plan, &group, start, after, &mut new_row) {
                Ok(()) => {}
                Err(Failure::Record(error)) => failed = Some(error),
                Err(failure) => return Err(failure),
            }
        }
        if let Some(error) = failed {
            new_row.clear();
            reject::step(ctx, node, Datum::Record(&group), time, &error)?;
        }
        if !silent {
            changed(ctx, node, (non_empty(&old_row), old_time), (non_empty(&new_row), time))?;
        }
        for row in [group, old_row, new_row] {
            ctx.rows.give_back(row);
        }
    }
    Ok(())
}

fn split<'k>(plan: &AggregatePlan, key: &'k [u8]) -> Result<(Option<EventTime>, &'k [u8]), store::Error> {
    if plan.window.is_none() {
        return Ok((None, key));
    }
    key::split_windowed_key(key).map(|(start, group)| (Some(start), group))
}

/// The watermark has moved to `watermark` at this node: closes and expires windows.
pub fn advance(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &AggregatePlan,
    state: &mut AggregateState,
    watermark: EventTime,
) -> Result<(), Failure> {
    let Some(window) = plan.window else { return Ok(()) };
    let before = state.closed_to;
    if watermark <= before {
        return Ok(());
    }
    let edges = if plan.emit == Emit::Final { &node.next } else { &plan.closed };
    if !edges.is_empty() {
        close(ctx, node, plan, window, edges, before..watermark)?;
    }
    state.closed_to = watermark;
    Ok(())
}

/// Deletes the windows whose retention has passed. Comes after the flush, so that what changed in them has been emitted;
/// they take no records any more.
pub fn expire_windows(ctx: &mut Context<'_>, plan: &AggregatePlan, state: &mut AggregateState) -> Result<(), Failure> {
    let Some(window) = plan.window else { return Ok(()) };
    let retained = window.size_ms.saturating_add(window.retention_ms.max(window.grace_ms));
    let (before, now) = (state.expired_to, state.closed_to);
    if now > before {
        expire(ctx, plan, window, before.saturating_sub(retained), now.saturating_sub(retained))?;
        state.expired_to = now;
    }
    Ok(())
}

/// Passes on the groups of the windows that closed when the watermark moved from one time to another.
fn close(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &AggregatePlan,
    window: WindowPlan,
    edges: &[Edge],
    watermark: Range<EventTime>,
) -> Result<(), Failure> {
    let Range { start: before, end: now } = watermark;
    let behind = window.size_ms.saturating_add(window.grace_ms);
    // Window starts in (before - behind, now - behind] have just closed.
    let schema = &ctx.store_plans[plan.store.index()].key;
    for key in window_keys(ctx, plan, window, before.saturating_sub(behind), now.saturating_sub(behind))? {
        let (start, group_key) = split(plan, &key)?;
        let (mut group, mut row) = (ctx.rows.take(), ctx.rows.take());
        key::decode_key(group_key, schema, &mut group)?;
        let table = ctx.stores.table(plan.store);
        if let (Some(stored), Some(start)) = (table.get(&key)?, start) {
            let end = start.saturating_add(window.size_ms);
            match results(plan, &group, Some(start), stored, &mut row) {
                Ok(()) => {
                    let at = end.saturating_add(-1);
                    deliver(ctx, edges, Datum::Change { old: None, new: Some(&row), old_time: at }, at)?;
                }
                Err(Failure::Record(error)) => {
                    reject::step(ctx, node, Datum::Record(&group), end.saturating_add(-1), &error)?;
                }
                Err(failure) => return Err(failure),
            }
        }
        ctx.rows.give_back(group);
        ctx.rows.give_back(row);
    }
    Ok(())
}

/// Deletes the windows whose start lies in (after, until].
fn expire(
    ctx: &mut Context<'_>,
    plan: &AggregatePlan,
    window: WindowPlan,
    after: EventTime,
    until: EventTime,
) -> Result<(), Failure> {
    for key in window_keys(ctx, plan, window, after, until)? {
        ctx.stores.table(plan.store).erase(&key)?;
        ctx.expired(plan.store);
    }
    Ok(())
}

/// The keys of the windows whose start lies in (after, until], in order. Asks the store only where such a window can be.
fn window_keys(
    ctx: &mut Context<'_>,
    plan: &AggregatePlan,
    window: WindowPlan,
    after: EventTime,
    until: EventTime,
) -> Result<Vec<Box<[u8]>>, Failure> {
    if until == EventTime::MIN || (after != EventTime::MIN && window_start(window, until) <= after) {
        return Ok(Vec::new());
    }
    let (mut from, mut to) = (Vec::with_capacity(8), Vec::with_capacity(8));
    if after != EventTime::MIN {
        key::push_window_start(after.saturating_add(1), &mut from);
    }
    key::push_window_start(until.saturating_add(1), &mut to);
    let range = KeyRange { from: &from, to: Some(&to) };
    Ok(ctx.stores.table(plan.store).keys(range, usize::MAX)?)
}
