//! Which layouts the rows of a store have had, kept beside them.
//!
//! A row names its layout by a number that is computed from the columns, so that whoever meets the row (another machine
//! that restores the changelog, a later version of the topology) finds the columns in the task's meta store, under
//! `layout/<store>/<number>`. Nothing else has to be kept in step.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::expression::parse_type;
use crate::ids::TopicName;
use crate::schema::{Column, Schema};
use crate::store::key::prefix_end;
use crate::store::row::{RowCodec, layout_hash};
use crate::store::{self, Backend, Direction, KeyRange, StorePartition};
use crate::topology::plan::{AggregatePlan, GROUP_SIZE, Node, OperatorPlan, StorePlan};
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

/// The codec of a store partition that knows every layout its rows may have, and the current layout's row where it is
/// not in the meta store yet.
pub fn codec(
    store: &StorePlan,
    nodes: &[Node],
    meta: Option<(&dyn Backend, StorePartition)>,
) -> Result<(RowCodec, Option<LayoutRow>), Error> {
    let current = layout_hash(&store.value);
    let layouts = known(&store.name, meta)?;
    let is_known = layouts.iter().any(|(number, _)| *number == current);
    let misread =
        |error: store::row::LayoutError| Error::Layout { store: store.name.to_string(), reason: error.to_string() };
    let mut codec = RowCodec::with_version(layouts, current, store.value.clone()).map_err(misread)?;
    if let Some(aggregate) = owner(nodes, store) {
        codec = codec.with_defaults(empty_state(aggregate, &store.value)).map_err(misread)?;
    }
    let row = (!is_known && meta.is_some()).then(|| layout_row(&store.name, &store.value));
    Ok((codec, row))
}

/// The earlier layouts of the records in a repartition topic, as its reader knew them, and the present one's row where
/// it is not in the meta store yet.
pub fn of_topic(
    topic: &TopicName,
    present: &Schema,
    meta: Option<(&dyn Backend, StorePartition)>,
) -> Result<(Vec<Schema>, Option<LayoutRow>), Error> {
    let layouts = known(topic.as_str(), meta)?;
    let is_known = layouts.iter().any(|(number, _)| *number == layout_hash(present));
    let row = (!is_known && meta.is_some()).then(|| layout_row(topic.as_str(), present));
    Ok((layouts.into_iter().map(|(_, schema)| schema).collect(), row))
}

/// The layouts that the meta store has under a name.
fn known(name: &str, meta: Option<(&dyn Backend, StorePartition)>) -> Result<Vec<(u32, Schema)>, Error> {
    let Some((backend, at)) = meta else { return Ok(Vec::new()) };
    let mut layouts = Vec::new();
    let prefix = format!("layout/{name}/");
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

fn layout_row(name: &str, schema: &Schema) -> LayoutRow {
    LayoutRow { key: format!("layout/{name}/{}", layout_hash(schema)).into_bytes(), value: encode(schema) }
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
