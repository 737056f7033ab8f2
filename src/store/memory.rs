//! State in memory: for `backend: memory`, `sidestream test` and `sidestream dev`.
//!
//! What it is: one ordered map per store partition behind one lock, so that a write is seen whole or not at all.
//! What it is not: durable (a restart restores from the changelogs), or bounded: its rows are the user's own choice.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::{
    Backend, ChangelogPosition, Direction, Error, KeyRange, Run, StorePartition, Usage, VisitEntry, WriteBatch,
};
use crate::ids::{Offset, Partition, StoreId, TopicPartition};

#[derive(Debug, Default)]
pub struct Memory {
    state: RwLock<State>,
}

type Rows = BTreeMap<Box<[u8]>, Box<[u8]>>;

#[derive(Debug, Default)]
struct State {
    rows: BTreeMap<StorePartition, Rows>,
    positions: BTreeMap<StorePartition, ChangelogPosition>,
    inputs: BTreeMap<TopicPartition, Offset>,
    /// Of keys and values, and what a map entry costs beside them.
    bytes: u64,
}

/// Two fat pointers, and a share of a node that is about two thirds full.
const ENTRY_OVERHEAD_BYTES: usize = 48;

impl Memory {
    pub fn new() -> Self {
        Self::default()
    }
}

impl State {
    fn apply(&mut self, at: StorePartition, run: &Run) {
        let rows = self.rows.entry(at).or_default();
        for (key, value) in run.iter() {
            let (added, removed) = match value {
                Some(value) => (entry_bytes(key.len(), value.len()), rows.insert(key.into(), value.into())),
                None => (0, rows.remove(key)),
            };
            let removed = removed.map_or(0, |value| entry_bytes(key.len(), value.len()));
            self.bytes = (self.bytes + added).saturating_sub(removed);
        }
    }
}

fn entry_bytes(key: usize, value: usize) -> u64 {
    (key + value + ENTRY_OVERHEAD_BYTES) as u64
}

impl Backend for Memory {
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error> {
        let state = self.state.read();
        visit(state.rows.get(&at).and_then(|rows| rows.get(key)).map(AsRef::as_ref));
        Ok(())
    }

    fn scan(
        &self,
        at: StorePartition,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), Error> {
        if range.to.is_some_and(|to| to <= range.from) {
            return Ok(());
        }
        let state = self.state.read();
        let Some(rows) = state.rows.get(&at) else { return Ok(()) };
        let bounds = (Bound::Included(range.from), range.to.map_or(Bound::Unbounded, Bound::Excluded));
        let mut entries = rows.range::<[u8], _>(bounds);
        while let Some((key, value)) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let mut state = self.state.write();
        for (at, run) in &batch.rows {
            state.apply(*at, run);
        }
        state.positions.extend(batch.positions);
        state.inputs.extend(batch.inputs);
        Ok(())
    }

    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error> {
        Ok(self.state.read().positions.get(&at).cloned())
    }

    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error> {
        Ok(self.state.read().inputs.get(input).copied())
    }

    fn wipe(&self, at: StorePartition) -> Result<(), Error> {
        let mut state = self.state.write();
        let freed = state.rows.remove(&at).unwrap_or_default();
        state.positions.remove(&at);
        let bytes: u64 = freed.iter().map(|(key, value)| entry_bytes(key.len(), value.len())).sum();
        state.bytes = state.bytes.saturating_sub(bytes);
        Ok(())
    }

    fn partitions(&self, store: StoreId) -> Result<Vec<Partition>, Error> {
        let state = self.state.read();
        let with_rows = state.rows.iter().filter(|(_, rows)| !rows.is_empty()).map(|(at, _)| at);
        let mut partitions: Vec<Partition> =
            with_rows.chain(state.positions.keys()).filter(|at| at.store == store).map(|at| at.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        Ok(partitions)
    }

    fn usage(&self) -> Usage {
        Usage { memory_bytes: self.state.read().bytes, disk_bytes: 0 }
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}
