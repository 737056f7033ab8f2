//! Keyed state: what is committed (a backend), and the write-back cache over it that a task works on.
//!
//! What it is: stores by name, split by partition; keys and rows as versioned bytes; one write per commit that carries
//! rows, changelog offsets and input offsets together. RocksDB is named only in `store::rocksdb`.
//! What it is not: it knows no topics beyond their names, no transactions, no operators.
//!
//! Invariants
//! - A backend only ever holds committed state; nothing uncommitted is written to it (EXACTLY-ONCE, "How a record flows").
//! - One `write` is atomic over all stores and offsets in it.
//! - Keys of one partition of one store are contiguous, and their order is that of their columns.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::ids::{Offset, Partition, StoreId, TopicPartition};

pub type SharedBackend = Arc<dyn Backend>;

/// One partition of one store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StorePartition {
    pub store: StoreId,
    pub partition: Partition,
}

/// Committed state on this machine.
///
/// Keys are the encoded keys of one store partition (`store::key`), without any prefix of the backend's own; a backend
/// adds and strips that itself. An implementer owes: `write` is atomic, reads never see half of one, and a reader in
/// another thread sees it as soon as `write` has returned.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Calls `visit` with the value, or `None`.
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error>;

    /// Visits the entries with `from <= key < to` in order (`to: None` = to the end of the partition), or backwards.
    fn scan(
        &self,
        at: StorePartition,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error>;

    /// Writes all of it or nothing.
    fn write(&self, batch: WriteBatch) -> Result<(), Error>;

    /// What is recorded about a store's partition; `None` where nothing was ever written or it was wiped.
    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error>;

    /// The input offset recorded with the state.
    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error>;

    /// Removes the rows and the position of a store's partition.
    fn wipe(&self, at: StorePartition) -> Result<(), Error>;

    /// The partitions of a store that hold anything.
    fn partitions(&self, store: StoreId) -> Result<Vec<Partition>, Error>;

    /// Bytes of memory and disk in use, for metrics.
    fn usage(&self) -> Usage;

    /// Makes everything durable (before a clean exit).
    fn flush(&self) -> Result<(), Error>;
}

#[derive(Clone, Copy, Debug)]
pub struct KeyRange<'a> {
    pub from: &'a [u8],
    pub to: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Backward,
}

/// How far the rows of a store's partition reflect its changelog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangelogPosition {
    /// Kafka's id of the changelog topic.
    pub topic_id: String,
    /// The next changelog offset to apply.
    pub offset: Offset,
    /// When it was last written, microseconds since the epoch.
    pub written_at: i64,
}

/// One commit's changes, over any number of stores.
#[derive(Clone, Debug, Default)]
pub struct WriteBatch {
    pub rows: Vec<RowWrite>,
    pub positions: Vec<(StorePartition, ChangelogPosition)>,
    pub inputs: Vec<(TopicPartition, Offset)>,
}

#[derive(Clone, Debug)]
pub struct RowWrite {
    pub at: StorePartition,
    pub key: Box<[u8]>,
    /// `None` deletes.
    pub value: Option<Box<[u8]>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Only this one means: wipe and restore (EXACTLY-ONCE rule 19).
    #[error("the state is corrupt: {reason}")]
    Corrupt { reason: String },
    #[error("state directory {path}: {reason}")]
    Directory { path: String, reason: String, help: String },
    #[error("state directory {path} is in use by another process")]
    Locked { path: String },
    #[error("reading or writing state failed: {reason}")]
    Io { reason: String },
    #[error("a stored {what} cannot be read: {reason}")]
    Encoding { what: &'static str, reason: String },
}
