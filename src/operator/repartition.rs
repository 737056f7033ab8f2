//! To a repartition topic: rows under a new key, with the watermark of this task riding on them.
//!
//! The key's bytes are those that other clients would write (`key_format`), so that what is behind the topic is
//! co-partitioned with other topics of that key. The value is our envelope (`format::internal`).
//!
//! Watermarks (EXACTLY-ONCE rule 17c): data carries them; a record of its own goes only to partitions whose last one has
//! fallen behind by [`MIN_ADVANCE_MS`], at most once per [`MIN_INTERVAL_MS`].

use super::state::{Carried, RepartitionState};
use super::{Context, Datum, Failure, absent_if_failed, project};
use crate::format::internal::{self, Progress};
use crate::ids::{EventTime, Partition};
use crate::log::OutgoingRecord;
use crate::log::partitioner::partition_of;
use crate::probe::{self, Mark};
use crate::topology::plan::{Node, RepartitionPlan};
use crate::value::Value;

/// A watermark record is worth sending after an advance of this.
pub const MIN_ADVANCE_MS: i64 = 100;
/// The least time between two watermark records to one partition.
pub const MIN_INTERVAL_MS: u64 = 1000;

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &RepartitionPlan,
    state: &mut RepartitionState,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    match datum {
        Datum::Record(row) => {
            if let Some(partition) = key(ctx, node, plan, state, row)? {
                let progress = progress(ctx, node);
                state.value.clear();
                if ctx.origin.tombstone {
                    state.format.encode_tombstone(progress, row, time, &mut state.value)?;
                } else {
                    state.format.encode_record(progress, row, time, &mut state.value)?;
                }
                send(ctx, plan, state, partition, progress.watermark, time)?;
            }
            Ok(())
        }
        Datum::Retimed { row, old_time } => {
            if let Some(partition) = absent_if_failed(key(ctx, node, plan, state, row))? {
                let progress = progress(ctx, node);
                state.value.clear();
                state.format.encode_retimed(progress, row, old_time, time, &mut state.value)?;
                send(ctx, plan, state, partition, progress.watermark, time)?;
            }
            Ok(())
        }
        // The old row leaves its group where it was, the new one enters where it belongs. One record where that is one
        // partition and one key.
        Datum::Change { old, new, old_time } => {
            let progress = progress(ctx, node);
            if let (Some(old), Some(new)) = (old, new) {
                let old_at = key(ctx, node, plan, state, old).unwrap_or(None);
                let old_key = state.key.bytes.clone();
                let new_at = key(ctx, node, plan, state, new)?;
                if let (Some(_), Some(partition)) = (old_at, new_at)
                    && old_key == state.key.bytes
                {
                    state.value.clear();
                    state.format.encode_change(progress, Some((old, old_time)), Some(new), time, &mut state.value)?;
                    return send(ctx, plan, state, partition, progress.watermark, time);
                }
            }
            for (old, new) in [(old, None), (None, new)] {
                let Some(row) = old.or(new) else { continue };
                let partition = match key(ctx, node, plan, state, row) {
                    // An old row that fails was never sent.
                    Err(Failure::Record(_)) if new.is_none() => None,
                    other => other?,
                };
                if let Some(partition) = partition {
                    state.value.clear();
                    state.format.encode_change(
                        progress,
                        old.map(|old| (old, old_time)),
                        new,
                        time,
                        &mut state.value,
                    )?;
                    send(ctx, plan, state, partition, progress.watermark, time)?;
                }
            }
            Ok(())
        }
    }
}

/// Encodes the key into the state's buffer; `None` where a single key column is NULL.
fn key(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &RepartitionPlan,
    state: &mut RepartitionState,
    row: &[Value],
) -> Result<Option<Partition>, Failure> {
    let topic = *state.topic.get_or_insert_with(|| ctx.outbox.topic(&plan.topic));
    state.key.values.clear();
    project::evaluate(&plan.key, row, ctx.origin, &mut state.key.values)?;
    if let [Value::Null] = state.key.values[..] {
        ctx.dropped(&node.step, "null_key");
        return Ok(None);
    }
    state.key.bytes.clear();
    state.key_encoder.encode(&state.key.values, &mut state.key.bytes)?;
    Ok(Some(partition_of(&state.key.bytes, ctx.outbox.partitions(topic))))
}

fn progress(ctx: &Context<'_>, node: &Node) -> Progress {
    Progress { upstream: ctx.partition, watermark: ctx.watermark_at(node.id), idle: false }
}

fn send(
    ctx: &mut Context<'_>,
    plan: &RepartitionPlan,
    state: &mut RepartitionState,
    partition: Partition,
    watermark: EventTime,
    time: EventTime,
) -> Result<(), Failure> {
    let topic = *state.topic.get_or_insert_with(|| ctx.outbox.topic(&plan.topic));
    let record =
        OutgoingRecord { key: Some(&state.key.bytes), value: Some(&state.value), timestamp: time, headers: &[] };
    ctx.outbox.send(topic, partition, record)?;
    let carried = carried(state, partition);
    carried.watermark = watermark;
    carried.idle = false;
    Ok(())
}

fn carried(state: &mut RepartitionState, partition: Partition) -> &mut Carried {
    let at = partition.0 as usize;
    while state.carried.len() <= at {
        #[expect(clippy::cast_possible_truncation, reason = "partition counts are 32-bit")]
        let next = Partition(state.carried.len() as u32);
        state.carried.push(Carried { partition: next, watermark: EventTime::MIN, idle: false, sent_at_ms: None });
    }
    &mut state.carried[at]
}

/// Whether a task has gone idle, as downstream should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Active,
    Idle,
}

/// Sends watermark records to the partitions that have fallen behind. Returns how many were sent.
pub fn send_watermarks(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &RepartitionPlan,
    state: &mut RepartitionState,
    activity: Activity,
    now_ms: u64,
) -> Result<usize, Failure> {
    let due: Vec<Carried> = due(ctx, node, plan, state, activity, now_ms).collect();
    let topic = *state.topic.get_or_insert_with(|| ctx.outbox.topic(&plan.topic));
    let watermark = ctx.watermark_at(node.id);
    for behind in &due {
        probe::reached(Mark::WatermarkSent);
        let idle = activity == Activity::Idle;
        state.value.clear();
        internal::encode_watermark(Progress { upstream: ctx.partition, watermark, idle }, &mut state.value);
        let timestamp = EventTime(watermark.0.max(0));
        let record = OutgoingRecord { key: None, value: Some(&state.value), timestamp, headers: &[] };
        ctx.outbox.send(topic, behind.partition, record)?;
        *carried(state, behind.partition) =
            Carried { partition: behind.partition, watermark, idle, sent_at_ms: Some(now_ms) };
    }
    Ok(due.len())
}

/// The partitions that should get a watermark record now.
pub fn due<'s>(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &RepartitionPlan,
    state: &'s mut RepartitionState,
    activity: Activity,
    now_ms: u64,
) -> impl Iterator<Item = Carried> + use<'s> {
    let topic = *state.topic.get_or_insert_with(|| ctx.outbox.topic(&plan.topic));
    let watermark = ctx.watermark_at(node.id);
    if let Some(last) = ctx.outbox.partitions(topic).checked_sub(1) {
        carried(state, Partition(last));
    }
    let idle = activity == Activity::Idle;
    let state = &*state;
    state.carried.iter().copied().filter(move |carried| {
        let advanced = watermark != EventTime::MIN
            && (carried.watermark == EventTime::MIN
                || watermark.0.saturating_sub(carried.watermark.0) >= MIN_ADVANCE_MS);
        let rested = carried.sent_at_ms.is_none_or(|at| now_ms.saturating_sub(at) >= MIN_INTERVAL_MS);
        (advanced && rested) || idle != carried.idle
    })
}
