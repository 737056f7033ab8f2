//! Which layouts the rows of a store have had, kept beside them.
//!
//! A row names its layout by a number that is computed from the columns, so that whoever meets the row (another machine
//! that restores the changelog, a later version of the topology) finds the columns in the task's meta store, under
//! `layout/<store>/<topic id>/<number>`. Beside them, under `plan/<store>/<topic id>`, stands what else reading the rows
//! depends on: the lines of the plan's fingerprint about that store.
//!
//! Invariant: the topic id is that of the store's changelog (or of the repartition topic itself). One that is made anew
//! holds no row of before, so that what is known of the former one binds nobody (`sidestream reset --step`).

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Changelog, Error};
use crate::expression::parse_type;
use crate::ids::TopicName;
use crate::schema::{Column, Schema};
use crate::store::key::prefix_end;
use crate::store::row::{RowCodec, layout_hash};
use crate::store::{self, Backend, Direction, KeyRange, StorePartition};
use crate::topology::Plan;
use crate::topology::plan::{AggregatePlan, Fingerprint, GROUP_SIZE, Guarantee, Node, OperatorPlan, StorePlan};
use crate::value::Value;

/// A layout that must be written to the meta store before a row that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRow {
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct ColumnText {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    nullable: bool,
}

/// Where a task keeps its layouts.
#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    pub backend: &'a dyn Backend,
    pub at: StorePartition,
}

/// The codec of a store partition that knows every layout its rows may have, and the current layout's row where it is
/// not in the meta store yet. `topic_id` is that of its changelog.
pub fn codec(
    store: &StorePlan,
    topic_id: &str,
    nodes: &[Node],
    meta: Option<Meta<'_>>,
) -> Result<(RowCodec, Option<LayoutRow>), Error> {
    let current = layout_hash(&store.value);
    let layouts = known(&store.name, topic_id, meta)?;
    let is_known = layouts.iter().any(|(number, _)| *number == current);
    let misread =
        |error: store::row::LayoutError| Error::Layout { store: store.name.to_string(), reason: error.to_string() };
    let mut codec = RowCodec::with_version(layouts, current, store.value.clone()).map_err(misread)?;
    if let Some(aggregate) = owner(nodes, store) {
        codec = codec.with_defaults(empty_state(aggregate, &store.value)).map_err(misread)?;
    }
    let row = (!is_known && meta.is_some()).then(|| layout_row(&store.name, topic_id, &store.value));
    Ok((codec, row))
}

/// Refuses rows that were written under a plan which said something else about their store, and gives the row that keeps
/// what this plan says, where the meta store has it not.
///
/// What a plan says is committed together with the first row under it. Rows beside which it is missing were written by a
/// task that kept it elsewhere, because the step had another key or read other topics.
pub fn check_plan(
    store: &StorePlan,
    changelog: &Changelog,
    plan: &Plan,
    meta: Option<Meta<'_>>,
) -> Result<Option<LayoutRow>, Error> {
    let Some(Meta { backend, at }) = meta else { return Ok(None) };
    let misread = |reason: &str| Error::Layout { store: store.name.to_string(), reason: reason.to_owned() };
    let key = format!("plan/{}/{}", store.name, changelog.topic_id).into_bytes();
    let mut written: Option<String> = None;
    backend.get(at, &key, &mut |value| {
        written = value.map(|value| String::from_utf8_lossy(value).into_owned());
    })?;
    // Without transactions the first rows may have come through alone.
    let certain = plan.guarantee == Guarantee::ExactlyOnce && !changelog.is_source;
    if written.is_none() && certain && holds_rows(backend, StorePartition { store: store.id, ..at })? {
        return Err(misread(
            "nothing says how its rows were written, so the step had another key or read other topics",
        ));
    }
    let written = written.unwrap_or_default();
    if let Some(change) = plan.fingerprint.misreadings(written.lines()).first() {
        return Err(misread(&change.message));
    }
    let own = Fingerprint { lines: plan.fingerprint.of_store(&store.name).map(str::to_owned).collect() };
    let lines = own.on_top_of(written.lines()).join("\n");
    Ok((lines != written).then(|| LayoutRow { key, value: lines.into_bytes() }))
}

pub(super) fn holds_rows(backend: &dyn Backend, at: StorePartition) -> Result<bool, Error> {
    let mut found = false;
    backend.scan(at, KeyRange { from: b"", to: None }, Direction::Forward, &mut |_, _| {
        found = true;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The earlier layouts of the records in a repartition topic, as its reader knew them, and the present one's row where
/// it is not in the meta store yet.
pub fn of_topic(
    topic: &TopicName,
    topic_id: &str,
    present: &Schema,
    meta: Option<Meta<'_>>,
) -> Result<(Vec<Schema>, Option<LayoutRow>), Error> {
    let layouts = known(topic.as_str(), topic_id, meta)?;
    let is_known = layouts.iter().any(|(number, _)| *number == layout_hash(present));
    let row = (!is_known && meta.is_some()).then(|| layout_row(topic.as_str(), topic_id, present));
    Ok((layouts.into_iter().map(|(_, schema)| schema).collect(), row))
}

/// The layouts that the meta store has under a name.
fn known(name: &str, topic_id: &str, meta: Option<Meta<'_>>) -> Result<Vec<(u32, Schema)>, Error> {
    let Some(Meta { backend, at }) = meta else { return Ok(Vec::new()) };
    let mut layouts = Vec::new();
    let prefix = format!("layout/{name}/{topic_id}/");
    let to = prefix_end(prefix.as_bytes());
    let range = KeyRange { from: prefix.as_bytes(), to: to.as_deref() };
    let mut failed = None;
    backend.scan(at, range, Direction::Forward, &mut |key, value| {
        match decode(&key[prefix.len()..], value) {
            Some(layout) => layouts.push(layout),
            None => failed = Some(String::from_utf8_lossy(key).into_owned()),
        }
        ControlFlow::Continue(())
    })?;
    match failed {
        Some(key) => Err(store::Error::Encoding { what: "layout", reason: key }.into()),
        None => Ok(layouts),
    }
}

fn layout_row(name: &str, topic_id: &str, schema: &Schema) -> LayoutRow {
    LayoutRow { key: format!("layout/{name}/{topic_id}/{}", layout_hash(schema)).into_bytes(), value: encode(schema) }
}

/// The aggregate whose groups a store holds.
fn owner<'n>(nodes: &'n [Node], store: &StorePlan) -> Option<&'n AggregatePlan> {
    nodes.iter().find_map(|node| match &node.operator {
        OperatorPlan::Aggregate(plan) if plan.store == store.id => Some(plan),
        _ => None,
    })
}

/// The state of a group before any row.
fn empty_state(plan: &AggregatePlan, schema: &Schema) -> Vec<Value> {
    let mut empty = plan.aggregates.empty();
    if schema.columns().last().is_some_and(|column| &*column.name == GROUP_SIZE) {
        empty.push(Value::Bigint(0));
    }
    empty
}

fn encode(schema: &Schema) -> Vec<u8> {
    let columns: Vec<ColumnText> = schema
        .columns()
        .iter()
        .map(|column| ColumnText {
            name: column.name.to_string(),
            ty: column.ty.to_string(),
            nullable: column.nullable,
        })
        .collect();
    serde_json::to_vec(&columns).unwrap_or_default()
}

fn decode(number: &[u8], value: &[u8]) -> Option<(u32, Schema)> {
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    let columns: Vec<ColumnText> = serde_json::from_slice(value).ok()?;
    let columns: Option<Vec<Column>> = columns
        .into_iter()
        .map(|column| parse_type(&column.ty).ok().map(|(ty, _)| Column::new(column.name, ty, column.nullable)))
        .collect();
    Some((number, Schema::new(columns?)))
}
