//! Reading rows from the backend before the records that look them up are processed, many at once.
//!
//! What it is not: needed. It fills caches, and whatever it leaves out is read when it is looked up.

use super::reader::Rows;
use super::{Task, TaskInput};
use crate::operator::Failure;
use crate::operator::ahead::Ahead;
use crate::store::cache::Table;

/// How many records of an input are looked at ahead of their processing, where there is room for their rows.
const MOST_AHEAD: usize = 4096;
/// With fewer, blocks are hardly shared.
const LEAST_AHEAD: usize = 128;

impl Task {
    /// How many records it is worth to look at ahead.
    pub(super) fn room_ahead(&self) -> Option<usize> {
        let room = self.stores.tables().filter_map(Table::room_ahead).min();
        room.map(|room| room.clamp(LEAST_AHEAD, MOST_AHEAD))
    }

    /// Where the records that were looked at ahead have all been processed: reads what the next of them will look up, at
    /// most so many of each input.
    pub(super) fn read_ahead(&mut self, most: usize, fetched_at: i64) -> Result<(), Failure> {
        let Self { plan, inputs, stores, rows, ahead: keys, id, .. } = self;
        let sub = &plan.sub_topologies[id.sub_topology.0 as usize];
        let mut ahead = Ahead { plan: sub, stores: &plan.stores, rows, keys };
        for TaskInput { input, .. } in inputs {
            input.look_ahead(most, fetched_at, |reader, origin| {
                if let Ok(Rows::One | Rows::Deletion) = reader.outcome() {
                    ahead.read(reader.plan(), reader.row(), origin, reader.time());
                }
            });
        }
        for (store, keys) in keys.by_store() {
            let table = stores.table(*store);
            if table.room_ahead().is_some() {
                table.read_ahead(keys)?;
            }
            keys.clear();
        }
        Ok(())
    }
}
