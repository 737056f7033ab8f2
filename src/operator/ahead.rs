//! Which rows records are about to look up, found out before they are processed, so that a store is asked for many at once.
//!
//! What it is: a walk through the filters and projections behind a reader, up to the steps that look a row up by key, whose
//! keys it collects.
//! What it is not: a promise. It changes nothing and reports nothing; a key that is missing here is looked up by itself, one
//! too many costs a look-up. So it may stop wherever going on is not simple: behind a join, at changes of tables.

use super::context::RowPool;
use super::{aggregate, project};
use crate::expression::Env;
use crate::ids::{EventTime, StoreId};
use crate::row::{Origin, Row};
use crate::store::Run;
use crate::store::key;
use crate::topology::plan::{Edge, OperatorPlan, Reader, ReaderKind, StorePlan, SubTopology};
use crate::value::Value;

/// Keys by store.
#[derive(Debug, Default)]
pub struct Keys {
    stores: Vec<(StoreId, Run)>,
    bytes: Vec<u8>,
}

/// What the walk needs beside the record.
#[derive(Debug)]
pub struct Ahead<'a> {
    pub plan: &'a SubTopology,
    /// Of the whole topology, indexed by `StoreId`.
    pub stores: &'a [StorePlan],
    pub rows: &'a mut RowPool,
    pub keys: &'a mut Keys,
}

impl Keys {
    /// Those of each store, without order; the caller empties them.
    pub fn by_store(&mut self) -> impl Iterator<Item = &mut (StoreId, Run)> {
        self.stores.iter_mut()
    }

    fn push(&mut self, stores: &[StorePlan], store: StoreId, before: Option<EventTime>, values: &[Value]) {
        self.bytes.clear();
        if let Some(start) = before {
            key::push_window_start(start, &mut self.bytes);
        }
        let encoded = key::encode_key(values, &stores[store.index()].key, &mut self.bytes);
        if encoded.is_err() || values.iter().all(Value::is_null) {
            return;
        }
        let place = self.stores.iter().position(|(other, _)| *other == store).unwrap_or_else(|| {
            self.stores.push((store, Run::default()));
            self.stores.len() - 1
        });
        self.stores[place].1.push(&self.bytes, None);
    }
}

impl Ahead<'_> {
    /// Collects what a record with this row will look up.
    pub fn read(&mut self, reader: &Reader, row: &[Value], origin: &Origin, time: EventTime) {
        match reader.kind {
            ReaderKind::Table { store } => self.of_slots(store, &reader.key, row),
            ReaderKind::Stream | ReaderKind::TableChanges => self.walk(&reader.next, row, origin, time),
        }
    }

    fn walk(&mut self, edges: &[Edge], row: &[Value], origin: &Origin, time: EventTime) {
        let (plan, env) = (self.plan, Env { row, origin });
        for edge in edges {
            let node = &plan.nodes[edge.to.index()];
            match &node.operator {
                // What fails is rejected when it is processed.
                OperatorPlan::Filter(condition) => {
                    if condition.holds(&env).unwrap_or(false) {
                        self.walk(&node.next, row, origin, time);
                    }
                }
                OperatorPlan::Project(expressions) => self.evaluated(expressions, row, origin, |ahead, made| {
                    ahead.walk(&node.next, made, origin, time);
                }),
                OperatorPlan::StreamTableJoin(join) => self.evaluated(&join.key, row, origin, |ahead, values| {
                    ahead.keys.push(ahead.stores, join.store, None, values);
                }),
                OperatorPlan::Aggregate(plan) => self.evaluated(&plan.group, row, origin, |ahead, values| {
                    let start = plan.window.map(|window| aggregate::window_start(window, time));
                    ahead.keys.push(ahead.stores, plan.store, start, values);
                }),
                OperatorPlan::Materialize(plan) => self.of_slots(plan.store, &plan.key, row),
                OperatorPlan::Over(_)
                | OperatorPlan::ToStream
                | OperatorPlan::Repartition(_)
                | OperatorPlan::Sink(_) => {}
            }
        }
    }

    fn evaluated(
        &mut self,
        expressions: &[crate::expression::Expression],
        row: &[Value],
        origin: &Origin,
        then: impl FnOnce(&mut Self, &Row),
    ) {
        let mut made = self.rows.take();
        if project::evaluate(expressions, row, origin, &mut made).is_ok() {
            then(self, &made);
        }
        self.rows.give_back(made);
    }

    fn of_slots(&mut self, store: StoreId, slots: &[usize], row: &[Value]) {
        let mut values = self.rows.take();
        values.extend(slots.iter().map(|&slot| row[slot].clone()));
        self.keys.push(self.stores, store, None, &values);
        self.rows.give_back(values);
    }
}
