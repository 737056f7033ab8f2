//! State in RocksDB: one database per process, one column family per store.
//!
//! What it is: keys prefixed by partition (4 bytes, big-endian), so that a partition is a range; rows, changelog positions
//! and input offsets of a commit in one RocksDB write batch over all column families.
//! What it is not: it knows no encodings but its own metadata, and it never deletes anything that it was not told to.
//!
//! Invariants
//! - The write-ahead log is on and not synced: a crash of the process loses nothing, a power loss a suffix of writes, never
//!   a part of one (EXACTLY-ONCE rule 19). RocksDB syncs older logs before it flushes one of several column families.
//! - Rows of a run skip the log and the write buffers (`rocksdb::runs`); a position that counts on them is written only
//!   after their file was synced.
//! - The write buffers stay below their limit plus one batch per writer, beside what open scans pin: a write that finds them
//!   full flushes first.
//! - Stores on disk that the plan does not name are opened, because RocksDB wants them all, and left alone.

mod metadata;
mod open;
mod runs;
#[cfg(test)]
mod tests;
mod tuning;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::rocksdb::properties::{
    ACTUAL_DELAYED_WRITE_RATE, CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_TABLE_READERS_MEM, IS_WRITE_STOPPED,
};
use ::rocksdb::{Cache, ColumnFamily, ReadOptions, WriteBufferManager, WriteOptions};
use parking_lot::Mutex;

pub use open::stores_on_disk;
pub use tuning::{MINIMUM_MEMORY_BYTES, RocksDbSettings};

use self::open::{Database, METADATA_FAMILY, family_name, using};
use self::runs::Runs;
use super::{
    Backend, ChangelogPosition, Direction, Error, KeyRange, Run, StorePartition, Usage, VisitEntry, WriteBatch,
    WritePressure,
};
use crate::ids::{Offset, Partition, StoreId, TopicPartition};

pub struct RocksDb {
    database: Database,
    path: PathBuf,
    /// Indexed by `StoreId`; `None` for stores that live elsewhere.
    stores: Vec<Option<StoreName>>,
    cache: Cache,
    write_buffers: WriteBufferManager,
    write_buffer_limit: usize,
    /// Held by the one writer that makes room.
    making_room: Mutex<()>,
    point_read: ReadOptions,
    logged: WriteOptions,
    runs: Runs,
}

struct StoreName {
    name: Arc<str>,
    family: String,
}

impl fmt::Debug for RocksDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksDb").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RocksDb {
    /// Opens or creates the database.
    ///
    /// # Errors
    /// `Corrupt` where it must be wiped, `Locked` where another process has it, else `Directory`; the files are untouched.
    pub fn open(settings: &RocksDbSettings) -> Result<Self, Error> {
        let (database, tuning) = open::open(settings)?;
        let count = settings.stores.iter().map(|(id, _)| id.index() + 1).max().unwrap_or(0);
        let mut stores: Vec<Option<StoreName>> = std::iter::repeat_with(|| None).take(count).collect();
        for (id, name) in &settings.stores {
            stores[id.index()] = Some(StoreName { name: Arc::clone(name), family: family_name(name) });
        }
        let runs = Runs::new(&settings.path, tuning.family, tuning.run_bytes)?;
        Ok(Self {
            database,
            path: settings.path.clone(),
            stores,
            cache: tuning.cache,
            write_buffers: tuning.write_buffers,
            write_buffer_limit: tuning.write_buffer_limit,
            making_room: Mutex::new(()),
            point_read: ReadOptions::default(),
            logged: WriteOptions::default(),
            runs,
        })
    }

    /// Removes a store with its positions, in the plan or not, and gives back its space.
    pub fn drop_store(&mut self, name: &str) -> Result<(), Error> {
        // Positions first: without one, whatever is left is not trusted.
        let prefix = metadata::position_prefix(name);
        let mut end = prefix.clone();
        end.extend_from_slice(&[u8::MAX; 5]);
        let mut batch = ::rocksdb::WriteBatch::default();
        batch.delete_range_cf(self.metadata()?, &prefix, &end);
        self.database.write_opt(batch, &self.logged).map_err(|error| using(&error))?;

        let family = family_name(name);
        if self.database.cf_handle(&family).is_some() {
            self.database.drop_cf(&family).map_err(|error| using(&error))?;
        }
        for store in &mut self.stores {
            if store.as_ref().is_some_and(|store| *store.name == *name) {
                *store = None;
            }
        }
        Ok(())
    }

    fn store(&self, store: StoreId) -> Result<(&StoreName, &ColumnFamily), Error> {
        let name = self.stores.get(store.index()).and_then(Option::as_ref).ok_or(Error::UnknownStore { store })?;
        let family = self.database.cf_handle(&name.family).ok_or(Error::UnknownStore { store })?;
        Ok((name, family))
    }

    fn metadata(&self) -> Result<&ColumnFamily, Error> {
        let missing = || Error::Corrupt { reason: "the metadata column family is missing".to_owned() };
        self.database.cf_handle(METADATA_FAMILY).ok_or_else(missing)
    }

    /// In the order of their keys: neighbours in a write buffer are found faster one after the other.
    fn put_rows(&self, batch: &mut ::rocksdb::WriteBatch, rows: &mut [(StorePartition, Run)]) -> Result<(), Error> {
        let mut prefixed_key = Vec::with_capacity(64);
        for (at, run) in rows {
            let (_, family) = self.store(at.store)?;
            for (key, value) in run.sorted() {
                prefixed_into(&mut prefixed_key, at.partition, key);
                match value {
                    Some(value) => batch.put_cf(family, &prefixed_key, value),
                    None => batch.delete_cf(family, &prefixed_key),
                }
            }
        }
        Ok(())
    }

    /// Flushes the largest write buffers until they are below their limit, by one writer while the others wait.
    ///
    /// What an open scan pins is not freed by a flush: then the write goes on above the limit, rather than flush the same
    /// few rows with every write or wait for a reader.
    fn make_room(&self) -> Result<(), Error> {
        if self.write_buffers.get_usage() < self.write_buffer_limit {
            return Ok(());
        }
        let _only_one = self.making_room.lock();
        let mut families = vec![self.metadata()?];
        families.extend(self.stores.iter().flatten().filter_map(|store| self.database.cf_handle(&store.family)));
        // If none holds more than this, all of them together are a quarter of the limit, and not the cause.
        let worthwhile = (self.write_buffer_limit / families.len() / 4) as u64;
        let mut by_size = Vec::with_capacity(families.len());
        for family in families {
            let unflushed = self.database.property_int_value_cf(family, CUR_SIZE_ALL_MEM_TABLES);
            by_size.push((unflushed.map_err(|error| using(&error))?.unwrap_or(0), family));
        }
        by_size.sort_unstable_by_key(|(unflushed, _)| std::cmp::Reverse(*unflushed));
        for (unflushed, family) in by_size {
            if unflushed < worthwhile || self.write_buffers.get_usage() < self.write_buffer_limit {
                break;
            }
            self.database.flush_cf(family).map_err(|error| using(&error))?;
        }
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        // For a metric: a file that vanishes while we look counts nothing.
        let Ok(files) = std::fs::read_dir(&self.path) else { return 0 };
        files.flatten().filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    fn partitions_with_rows(&self, family: &ColumnFamily, found: &mut Vec<Partition>) -> Result<(), Error> {
        let mut rows = self.database.raw_iterator_cf_opt(family, ReadOptions::default());
        rows.seek_to_first();
        while let Some(key) = rows.key() {
            let partition = Partition(u32::from_be_bytes(*partition_prefix(key)?));
            found.push(partition);
            rows.seek(end_of(partition));
        }
        rows.status().map_err(|error| using(&error))
    }

    fn partitions_with_positions(&self, store: &str, found: &mut Vec<Partition>) -> Result<(), Error> {
        let prefix = metadata::position_prefix(store);
        let mut positions = self.database.raw_iterator_cf_opt(self.metadata()?, ReadOptions::default());
        positions.seek(&prefix);
        while let Some(key) = positions.key().filter(|key| key.starts_with(&prefix)) {
            found.extend(metadata::partition_of(key));
            positions.next();
        }
        positions.status().map_err(|error| using(&error))
    }
}

impl Backend for RocksDb {
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error> {
        let (_, family) = self.store(at.store)?;
        with_prefix(at.partition, key, |key| {
            let value =
                self.database.get_pinned_cf_opt(family, key, &self.point_read).map_err(|error| using(&error))?;
            visit(value.as_deref());
            Ok(())
        })
    }

    fn multi_get(
        &self,
        at: StorePartition,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        let (_, family) = self.store(at.store)?;
        let prefix = at.partition.0.to_be_bytes();
        let mut bytes = Vec::with_capacity(keys.iter().map(|key| prefix.len() + key.len()).sum());
        for key in keys {
            bytes.extend_from_slice(&prefix);
            bytes.extend_from_slice(key);
        }
        let mut rest = bytes.as_slice();
        let mut prefixed = Vec::with_capacity(keys.len());
        for key in keys {
            let (first, after) = rest.split_at(prefix.len() + key.len());
            prefixed.push(first);
            rest = after;
        }
        let sorted = keys.is_sorted();
        let values = self.database.batched_multi_get_cf_opt(family, prefixed, sorted, &self.point_read);
        for (index, value) in values.into_iter().enumerate() {
            visit(index, value.map_err(|error| using(&error))?.as_deref());
        }
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
        let (_, family) = self.store(at.store)?;
        let upper = range.to.map_or_else(|| end_of(at.partition).to_vec(), |to| prefixed(at.partition, to));
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(prefixed(at.partition, range.from));
        options.set_iterate_upper_bound(upper);
        let mut entries = self.database.raw_iterator_cf_opt(family, options);
        match direction {
            Direction::Forward => entries.seek_to_first(),
            Direction::Backward => entries.seek_to_last(),
        }
        while let Some((key, value)) = entries.item() {
            let prefix = partition_prefix(key)?;
            if visit(&key[prefix.len()..], value).is_break() {
                return Ok(());
            }
            match direction {
                Direction::Forward => entries.next(),
                Direction::Backward => entries.prev(),
            }
        }
        entries.status().map_err(|error| using(&error))
    }

    fn write(&self, mut batch: WriteBatch) -> Result<(), Error> {
        self.make_room()?;
        let mut writes = ::rocksdb::WriteBatch::default();
        self.put_rows(&mut writes, &mut batch.rows)?;
        let metadata_family = self.metadata()?;
        for (at, position) in &batch.positions {
            let (store, _) = self.store(at.store)?;
            let key = metadata::position_key(&store.name, at.partition);
            writes.put_cf(metadata_family, key, metadata::encode_position(position));
        }
        for (input, offset) in &batch.inputs {
            writes.put_cf(metadata_family, metadata::input_key(input), metadata::encode_input(*offset));
        }
        self.database.write_opt(writes, &self.logged).map_err(|error| using(&error))
    }

    fn write_run(&self, at: StorePartition, run: &mut Run, position: ChangelogPosition) -> Result<(), Error> {
        let (_, family) = self.store(at.store)?;
        if !run.is_empty() {
            self.runs.add(&self.database, family, at.partition, run)?;
        }
        // The file is synced, this need not be.
        self.write(WriteBatch { positions: vec![(at, position)], ..WriteBatch::default() })
    }

    fn run_bytes(&self) -> usize {
        self.runs.bytes()
    }

    fn begin_runs(&self, store: StoreId) {
        if let Ok((_, family)) = self.store(store) {
            self.runs.begin(&self.database, store, family);
        }
    }

    fn end_runs(&self, store: StoreId) {
        if let Ok((_, family)) = self.store(store) {
            self.runs.end(&self.database, store, family);
        }
    }

    fn write_pressure(&self) -> WritePressure {
        // A property that cannot be read is no pressure: it only paces restores.
        let property = |name| self.database.property_int_value(name).ok().flatten().unwrap_or(0);
        if property(IS_WRITE_STOPPED) > 0 {
            WritePressure::Stopped
        } else if property(ACTUAL_DELAYED_WRITE_RATE) > 0 {
            WritePressure::Delayed
        } else {
            WritePressure::None
        }
    }

    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error> {
        let (store, _) = self.store(at.store)?;
        let key = metadata::position_key(&store.name, at.partition);
        let value = self.database.get_pinned_opt(key, &self.point_read).map_err(|error| using(&error))?;
        value.as_deref().map(metadata::decode_position).transpose()
    }

    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error> {
        let key = metadata::input_key(input);
        let value = self.database.get_pinned_opt(key, &self.point_read).map_err(|error| using(&error))?;
        value.as_deref().map(metadata::decode_input).transpose()
    }

    /// 1. Rows and position go in one batch.
    /// 2. Files that lie wholly inside the range are unlinked: nothing in them is visible any more.
    /// 3. The range is deleted again: had step 1 been flushed and compacted meanwhile, step 2 might have unlinked the very
    ///    file that hid older rows.
    fn wipe(&self, at: StorePartition) -> Result<(), Error> {
        let (store, family) = self.store(at.store)?;
        let (from, to) = (at.partition.0.to_be_bytes(), end_of(at.partition));
        let mut batch = ::rocksdb::WriteBatch::default();
        batch.delete_range_cf(family, &from, &to);
        batch.delete_cf(self.metadata()?, metadata::position_key(&store.name, at.partition));
        self.database.write_opt(batch, &self.logged).map_err(|error| using(&error))?;

        // Unlike ranges of rows this one includes its end, which may be a row of the next partition: the empty key.
        let mut last = from.to_vec();
        last.extend_from_slice(&[u8::MAX; 16]);
        self.database.delete_file_in_range_cf(family, from.to_vec(), last).map_err(|error| using(&error))?;

        let mut batch = ::rocksdb::WriteBatch::default();
        batch.delete_range_cf(family, &from, &to);
        self.database.write_opt(batch, &self.logged).map_err(|error| using(&error))
    }

    fn reclaim(&self, at: StorePartition) -> Result<(), Error> {
        let (_, family) = self.store(at.store)?;
        let (from, to) = (at.partition.0.to_be_bytes(), end_of(at.partition));
        self.database.compact_range_cf(family, Some(from), Some(to));
        Ok(())
    }

    fn partitions(&self, store: StoreId) -> Result<Vec<Partition>, Error> {
        let (name, family) = self.store(store)?;
        let mut found = Vec::new();
        self.partitions_with_rows(family, &mut found)?;
        self.partitions_with_positions(&name.name, &mut found)?;
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn usage(&self) -> Usage {
        let families = self.stores.iter().flatten().filter_map(|store| self.database.cf_handle(&store.family));
        let readers: u64 = families
            .filter_map(|family| self.database.property_int_value_cf(family, ESTIMATE_TABLE_READERS_MEM).ok().flatten())
            .sum();
        Usage { memory_bytes: self.cache.get_usage() as u64 + readers, disk_bytes: self.disk_bytes() }
    }

    fn flush(&self) -> Result<(), Error> {
        self.database.flush_wal(true).map_err(|error| using(&error))
    }
}

/// Removes the database's files, after corruption or for a reset. The caller holds the state directory's lock.
pub fn remove_database(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { reason: format!("{}: {error}", path.display()) })
        }
        _ => Ok(()),
    }
}

/// Where the rows of the next partition begin. Kafka's partition numbers end at 2^31 - 1.
fn end_of(partition: Partition) -> [u8; 4] {
    partition.0.saturating_add(1).to_be_bytes()
}

fn partition_prefix(key: &[u8]) -> Result<&[u8; 4], Error> {
    let too_short = || Error::Corrupt { reason: "a key is shorter than its partition prefix".to_owned() };
    key.first_chunk::<4>().ok_or_else(too_short)
}

fn prefixed_into(buffer: &mut Vec<u8>, partition: Partition, key: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&partition.0.to_be_bytes());
    buffer.extend_from_slice(key);
}

fn prefixed(partition: Partition, key: &[u8]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(key.len() + 4);
    prefixed_into(&mut buffer, partition, key);
    buffer
}

/// Calls `with` with the prefixed key, on the stack for keys of usual length.
fn with_prefix<T>(partition: Partition, key: &[u8], with: impl FnOnce(&[u8]) -> T) -> T {
    const STACK: usize = 128;
    let length = key.len() + 4;
    if length > STACK {
        return with(&prefixed(partition, key));
    }
    let mut buffer = [0; STACK];
    buffer[..4].copy_from_slice(&partition.0.to_be_bytes());
    buffer[4..length].copy_from_slice(key);
    with(&buffer[..length])
}
