//! A process whose stores live partly in RocksDB and partly in memory (`backend: memory` on a step).
//!
//! Rows and positions go where their store lives; input offsets go to RocksDB, which lasts.
//!
//! Invariant: RocksDB is written first, since only it can refuse; after it, memory cannot. A crash loses all of memory
//! together with its positions, so its stores are restored in full.

use super::memory::Memory;
use super::rocksdb::RocksDb;
use super::{
    Backend, ChangelogPosition, Direction, Error, KeyRange, Run, StorePartition, Usage, VisitEntry, WriteBatch,
    WritePressure,
};
use crate::ids::{Offset, Partition, StoreId, TopicPartition};

#[derive(Debug)]
pub struct Mixed {
    rocksdb: RocksDb,
    memory: Memory,
    /// Few: a search through them is cheaper than a map.
    in_memory: Vec<StoreId>,
}

impl Mixed {
    pub fn new(rocksdb: RocksDb, in_memory: Vec<StoreId>) -> Self {
        Self { rocksdb, memory: Memory::new(), in_memory }
    }

    fn is_in_memory(&self, store: StoreId) -> bool {
        self.in_memory.contains(&store)
    }

    fn of(&self, store: StoreId) -> &dyn Backend {
        if self.is_in_memory(store) { &self.memory } else { &self.rocksdb }
    }

    /// What goes to memory, and the rest.
    fn divide<T>(&self, all: Vec<T>, store: impl Fn(&T) -> StoreId) -> (Vec<T>, Vec<T>) {
        all.into_iter().partition(|item| self.is_in_memory(store(item)))
    }
}

impl Backend for Mixed {
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error> {
        self.of(at.store).get(at, key, visit)
    }

    fn multi_get(
        &self,
        at: StorePartition,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        self.of(at.store).multi_get(at, keys, visit)
    }

    fn scan(
        &self,
        at: StorePartition,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), Error> {
        self.of(at.store).scan(at, range, direction, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        let (memory_rows, rows) = self.divide(batch.rows, |(at, _)| at.store);
        let (memory_positions, positions) = self.divide(batch.positions, |(at, _)| at.store);
        self.rocksdb.write(WriteBatch { rows, positions, inputs: batch.inputs })?;
        self.memory.write(WriteBatch { rows: memory_rows, positions: memory_positions, inputs: Vec::new() })
    }

    fn write_run(&self, at: StorePartition, run: &mut Run, position: ChangelogPosition) -> Result<(), Error> {
        self.of(at.store).write_run(at, run, position)
    }

    fn run_bytes(&self) -> usize {
        self.rocksdb.run_bytes()
    }

    fn begin_runs(&self, store: StoreId) {
        self.of(store).begin_runs(store);
    }

    fn end_runs(&self, store: StoreId) {
        self.of(store).end_runs(store);
    }

    fn write_pressure(&self) -> WritePressure {
        self.rocksdb.write_pressure()
    }

    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error> {
        self.of(at.store).changelog_position(at)
    }

    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error> {
        self.rocksdb.input_offset(input)
    }

    fn wipe(&self, at: StorePartition) -> Result<(), Error> {
        self.of(at.store).wipe(at)
    }

    fn reclaim(&self, at: StorePartition) -> Result<(), Error> {
        self.of(at.store).reclaim(at)
    }

    fn partitions(&self, store: StoreId) -> Result<Vec<Partition>, Error> {
        self.of(store).partitions(store)
    }

    fn usage(&self) -> Usage {
        let (rocksdb, memory) = (self.rocksdb.usage(), self.memory.usage());
        Usage {
            memory_bytes: rocksdb.memory_bytes + memory.memory_bytes,
            disk_bytes: rocksdb.disk_bytes + memory.disk_bytes,
        }
    }

    fn flush(&self) -> Result<(), Error> {
        self.rocksdb.flush()
    }
}
