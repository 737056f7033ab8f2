//! What operators work with while a record, a watermark or a flush passes through them.

use super::Datum;
use super::outbox::Outbox;
use super::state::NodeState;
use crate::clock::Clock;
use crate::expression::Env;
use crate::ids::{EventTime, Partition, StoreId};
use crate::log::Record;
use crate::metric::losses::Fate;
use crate::metric::{self, Counters};
use crate::row::{Origin, Row};
use crate::schema::Schema;
use crate::store::cache::Table;
use crate::store::list::ListTable;
use crate::topology::plan::{Edge, Node, NodeId, StorePlan, SubTopology};
use crate::value::Value;

/// See the module.
#[derive(Debug)]
pub struct Context<'a> {
    pub plan: &'a SubTopology,
    /// Of the whole topology, indexed by `StoreId`.
    pub store_plans: &'a [StorePlan],
    pub partition: Partition,
    pub stores: &'a mut Stores,
    pub nodes: &'a mut [NodeState],
    pub outbox: &'a mut Outbox,
    /// The record that is being processed, as pseudo-columns. At a flush or a window's close, an empty one.
    pub origin: &'a Origin,
    /// The record itself; none at a flush or a window's close.
    pub record: Option<&'a Record>,
    /// Its source topic's number in the sub-topology and its offset, as one number: the tie between equal times.
    pub tie: u64,
    /// The task's watermark, and by how much each node's lies behind it (milliseconds).
    pub watermark: EventTime,
    pub holds: &'a [i64],
    pub counters: &'a Counters,
    /// Asked only where a record is lost.
    pub clock: &'a dyn Clock,
    pub rows: &'a mut RowPool,
}

impl<'a> Context<'a> {
    pub fn env<'r>(&self, row: &'r [Value]) -> Env<'r>
    where
        'a: 'r,
    {
        Env { row, origin: self.origin }
    }

    /// The layout of the rows that reach a node, and how many of their slots a user sees.
    pub fn input_of(&self, node: &Node) -> Option<(Schema, usize)> {
        let leads_here = |edges: &[Edge]| edges.iter().any(|edge| edge.to == node.id);
        let from_node =
            self.plan.nodes.iter().find(|from| leads_here(&from.next)).map(|from| (from.schema.clone(), from.visible));
        from_node.or_else(|| {
            let mut readers = self.plan.sources.iter().flat_map(|source| &source.readers);
            readers.find(|reader| leads_here(&reader.next)).map(|reader| (reader.schema.clone(), reader.visible))
        })
    }

    /// The row of a stream's record that a step works on. Tombstones are left out and counted; a table's changes are not
    /// for such a step.
    pub fn record_row<'d>(&self, node: &Node, datum: Datum<'d>) -> Option<&'d [Value]> {
        let Datum::Record(row) = datum else { return None };
        if self.origin.tombstone {
            self.dropped(&node.step, "tombstone");
            return None;
        }
        Some(row)
    }

    /// Counts a record that a step leaves out of its state.
    pub fn dropped(&self, step: &str, reason: &str) {
        self.counters.counter(&metric::RECORDS_DROPPED, &[step, reason]).add(1);
    }

    /// Tells of a record that did not come through. It is counted elsewhere.
    pub fn lost(&self, fate: Fate, step: &str, code: &'static str, reason: &str) {
        self.counters.losses.note(self.clock.monotonic(), fate, step, code, self.place(), reason);
    }

    /// Where what is being processed stands, for people.
    pub fn place(&self) -> String {
        match self.record {
            Some(record) => format!("{}-{} at offset {}", self.origin.topic, self.origin.partition, record.offset),
            None => format!("a row of partition {}", self.partition),
        }
    }

    /// Counts a row that ran out of time.
    pub fn expired(&self, store: StoreId) {
        self.counters.counter(&metric::STATE_ROWS_EXPIRED, &[&self.store_plans[store.index()].name]).add(1);
    }

    /// The watermark at a node's input.
    pub fn watermark_at(&self, node: NodeId) -> EventTime {
        self.watermark.saturating_sub(self.holds[node.index()])
    }
}

/// Rows for reuse: a row that an operator makes lives only until what is behind it has returned.
#[derive(Debug, Default)]
pub struct RowPool {
    free: Vec<Row>,
}

impl RowPool {
    pub fn take(&mut self) -> Row {
        self.free.pop().unwrap_or_default()
    }

    pub fn give_back(&mut self, mut row: Row) {
        row.clear();
        self.free.push(row);
    }
}

/// The open stores of a task.
#[derive(Debug, Default)]
pub struct Stores {
    /// Indexed by `StoreId`; `None` belongs to another sub-topology.
    pub open: Vec<Option<OpenStore>>,
}

#[derive(Debug)]
pub enum OpenStore {
    Table(Box<Table>),
    List(Box<ListTable>),
}

impl Stores {
    /// The key-value and window stores.
    pub fn tables(&self) -> impl Iterator<Item = &Table> {
        self.open.iter().filter_map(|store| match store {
            Some(OpenStore::Table(table)) => Some(&**table),
            _ => None,
        })
    }

    /// A key-value or window store of this task.
    #[expect(clippy::panic, reason = "the planner gives every operator a store of its own sub-topology")]
    pub fn table(&mut self, id: StoreId) -> &mut Table {
        match self.open.get_mut(id.index()) {
            Some(Some(OpenStore::Table(table))) => table,
            _ => panic!("store {} is not an open table of this task", id.0),
        }
    }

    /// A list store of this task.
    #[expect(clippy::panic, reason = "the planner gives every operator a store of its own sub-topology")]
    pub fn list(&mut self, id: StoreId) -> &mut ListTable {
        match self.open.get_mut(id.index()) {
            Some(Some(OpenStore::List(list))) => list,
            _ => panic!("store {} is not an open list of this task", id.0),
        }
    }
}
