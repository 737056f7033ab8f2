//! To users' topics: rules that choose the topic, keys and values as bytes, tombstones for a table's rows that are gone.
//!
//! A table's rules are judged on the old and the new row: where the old row was written and the new one is not, or is
//! under another key, the old key gets a tombstone first.

use super::state::{SinkRuleState, SinkState};
use super::{Context, Datum, Failure, project};
use crate::expression::EvalError;
use crate::format::json;
use crate::ids::{EventTime, Partition, TopicName};
use crate::log::OutgoingRecord;
use crate::log::partitioner::partition_of;
use crate::row::Header;
use crate::topology::plan::{Node, SinkPlan, SinkRule};
use crate::value::Value;

pub fn process(
    ctx: &mut Context<'_>,
    node: &Node,
    plan: &SinkPlan,
    state: &mut SinkState,
    datum: Datum<'_>,
    time: EventTime,
) -> Result<(), Failure> {
    let (old, new) = match datum {
        Datum::Record(row) => (None, Some(row)),
        Datum::Change { old, new, .. } => (old, new),
        // Nothing of it is written.
        Datum::Retimed { .. } => return Ok(()),
    };
    let old_holds = match old {
        // An old row that fails was never written.
        Some(old) => any_holds(ctx, plan, old).unwrap_or(false),
        None => false,
    };
    let new_holds = match new {
        Some(new) => any_holds(ctx, plan, new)?,
        None => false,
    };
    // Everything that can fail is computed for all rules before the first record is sent.
    for (rule, state) in plan.rules.iter().zip(&mut state.rules) {
        state.tombstone = None;
        state.send = false;
        let was = match old {
            Some(old) if !rule.append_only && applies(ctx, rule, old, old_holds).unwrap_or(false) => Some(old),
            _ => None,
        };
        let is = match new {
            Some(new) if applies(ctx, rule, new, new_holds)? => Some(new),
            _ => None,
        };
        if let Some(row) = was
            && encode_key(ctx, rule, state, row).is_ok()
        {
            state.tombstone = Some(std::mem::take(&mut state.key));
        }
        if let Some(row) = is {
            if has_no_place(ctx, rule, row)? {
                ctx.dropped(&node.step, "null_key");
                continue;
            }
            encode_key(ctx, rule, state, row)?;
            encode_value(ctx, rule, state, row)?;
            state.send = true;
            if state.tombstone.as_ref() == Some(&state.key) {
                state.tombstone = None;
            }
        }
    }
    for (rule, rule_state) in plan.rules.iter().zip(&mut state.rules) {
        write(ctx, rule, rule_state, &mut state.round_robin, new.or(old).unwrap_or_default(), time)?;
    }
    Ok(())
}

/// Whether any rule with a condition, or without one, takes the row; `otherwise` is for when none does.
fn any_holds(ctx: &Context<'_>, plan: &SinkPlan, row: &[Value]) -> Result<bool, EvalError> {
    for rule in &plan.rules {
        if !rule.otherwise && holds(ctx, rule, row)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds(ctx: &Context<'_>, rule: &SinkRule, row: &[Value]) -> Result<bool, EvalError> {
    rule.condition.as_ref().map_or(Ok(true), |condition| condition.holds(&ctx.env(row)))
}

fn applies(ctx: &Context<'_>, rule: &SinkRule, row: &[Value], another_holds: bool) -> Result<bool, EvalError> {
    if rule.otherwise { Ok(!another_holds) } else { holds(ctx, rule, row) }
}

/// Whether the row's key is a single NULL.
fn has_no_place(ctx: &Context<'_>, rule: &SinkRule, row: &[Value]) -> Result<bool, EvalError> {
    match &rule.key[..] {
        [key] if rule.key_is_own && !rule.key_passthrough && key.nullable => Ok(key.eval(&ctx.env(row))?.is_null()),
        _ => Ok(false),
    }
}

fn encode_key(ctx: &Context<'_>, rule: &SinkRule, state: &mut SinkRuleState, row: &[Value]) -> Result<(), Failure> {
    state.key.clear();
    if rule.key_passthrough {
        state.key.extend_from_slice(ctx.origin.key.as_deref().unwrap_or_default());
    } else if let Some(key) = state.key_columns.clone().and_then(|columns| row.get(columns)) {
        state.key_encoder.encode(key, &mut state.key)?;
    } else {
        state.key_values.clear();
        project::evaluate(&rule.key, row, ctx.origin, &mut state.key_values)?;
        state.key_encoder.encode(&state.key_values, &mut state.key)?;
    }
    Ok(())
}

fn encode_value(ctx: &Context<'_>, rule: &SinkRule, state: &mut SinkRuleState, row: &[Value]) -> Result<(), Failure> {
    state.value.clear();
    if let Some(values) = state.value_columns.clone().and_then(|columns| row.get(columns)) {
        state.value_encoder.encode(values, &mut state.value)?;
        return Ok(());
    }
    state.value_values.clear();
    project::evaluate(&rule.value, row, ctx.origin, &mut state.value_values)?;
    state.value_encoder.encode(&state.value_values, &mut state.value)?;
    Ok(())
}

/// Sends what was encoded: the tombstone first.
fn write(
    ctx: &mut Context<'_>,
    rule: &SinkRule,
    state: &mut SinkRuleState,
    round_robin: &mut u32,
    row: &[Value],
    time: EventTime,
) -> Result<(), Failure> {
    if state.tombstone.is_none() && !state.send {
        return Ok(());
    }
    let headers = headers(ctx, rule, row)?;
    let topic = *state.topic.get_or_insert_with(|| ctx.outbox.topic(&rule.topic));
    let partitions = ctx.outbox.partitions(topic);
    let has_key = has_key(ctx, rule);
    let partition = |key: &[u8], round_robin: &mut u32| {
        if has_key {
            return partition_of(key, partitions);
        }
        *round_robin = round_robin.wrapping_add(1);
        Partition(*round_robin % partitions.max(1))
    };
    if let Some(key) = state.tombstone.take()
        && has_key
    {
        let at = partition(&key, round_robin);
        let record = OutgoingRecord { key: Some(&key), value: None, timestamp: time, headers: &headers };
        ctx.outbox.send(topic, at, record)?;
    }
    if std::mem::take(&mut state.send) {
        let at = partition(&state.key, round_robin);
        let key = has_key.then_some(&*state.key);
        let record = OutgoingRecord { key, value: Some(&state.value), timestamp: time, headers: &headers };
        ctx.outbox.send(topic, at, record)?;
    }
    Ok(())
}

fn has_key(ctx: &Context<'_>, rule: &SinkRule) -> bool {
    !rule.key_passthrough || ctx.origin.key.is_some()
}

fn headers(ctx: &Context<'_>, rule: &SinkRule, row: &[Value]) -> Result<Vec<Header>, Failure> {
    let mut headers = Vec::new();
    if rule.pass_headers
        && let Some(passed) = &ctx.origin.headers
    {
        headers.extend_from_slice(passed);
    }
    for (name, expression) in &rule.headers {
        let value = match expression.eval(&ctx.env(row))? {
            Value::Null => None,
            Value::String(text) => Some(text.as_bytes().into()),
            Value::Bytes(bytes) => Some(Box::from(&*bytes)),
            other => Some(crate::format::text::render(&other, &expression.ty).into_bytes().into()),
        };
        headers.push(Header { name: name.clone(), value });
    }
    Ok(headers)
}

/// A late record, as its step's input row in JSON, to the topic for it.
pub(super) fn late(
    ctx: &mut Context<'_>,
    node: &Node,
    topic: &TopicName,
    row: &[Value],
    time: EventTime,
) -> Result<(), Failure> {
    let value = match ctx.input_of(node) {
        Some((schema, visible)) => {
            let mut object = json::row_to_json(row, &schema);
            let hidden: Vec<String> =
                schema.columns().iter().skip(visible).map(|column| column.name.to_string()).collect();
            object.retain(|name, _| !hidden.contains(name));
            serde_json::Value::Object(object).to_string()
        }
        None => String::from("null"),
    };
    let mut headers: Vec<Header> = ctx.origin.headers.as_deref().map(<[Header]>::to_vec).unwrap_or_default();
    headers.push(Header { name: "sidestream.step".into(), value: Some(node.step.as_bytes().into()) });
    let topic = ctx.outbox.topic(topic);
    let key = ctx.origin.key.clone();
    let partitions = ctx.outbox.partitions(topic);
    let partition =
        key.as_deref().map_or(Partition(ctx.partition.0 % partitions.max(1)), |key| partition_of(key, partitions));
    let record =
        OutgoingRecord { key: key.as_deref(), value: Some(value.as_bytes()), timestamp: time, headers: &headers };
    ctx.outbox.send(topic, partition, record)?;
    Ok(())
}
