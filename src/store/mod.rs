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

pub mod budget;
pub mod cache;
#[cfg(test)]
mod contract;
pub mod directory;
pub mod key;
pub mod list;
pub mod memory;
pub mod mixed;
mod packed;
mod refusal;
pub mod rocksdb;
pub mod row;
pub mod run;
pub mod sweep;

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::ids::{Offset, Partition, StoreId, TopicPartition};
pub use run::Run;

pub type SharedBackend = Arc<dyn Backend>;

/// Called with the key and value of one entry; says whether to go on.
pub type VisitEntry<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

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
/// another thread sees it as soon as `write` has returned. `store::contract` runs the same tests on every implementer.
///
/// A `visit` closure must not call the backend: it may run under a lock, and what it borrows pins memory.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Calls `visit` with the value, or `None`.
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error>;

    /// Calls `visit` once per key, with its place in `keys` and the value, or `None`. Ascending keys are the cheapest.
    fn multi_get(
        &self,
        at: StorePartition,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        for (index, key) in keys.iter().enumerate() {
            self.get(at, key, &mut |value| visit(index, value))?;
        }
        Ok(())
    }

    /// Visits the entries with `from <= key < to` in order (`to: None` = to the end of the partition), or backwards.
    fn scan(
        &self,
        at: StorePartition,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), Error>;

    /// Writes all of it or nothing.
    fn write(&self, batch: WriteBatch) -> Result<(), Error>;

    /// Writes what a restoration has read, faster than `write`, and then records how far it reaches.
    ///
    /// A crash in between may leave any of the rows without the position. That never makes the recorded one lie: it says
    /// what is there *at least*, and these rows are further along the same changelog, so that applying it again from the
    /// recorded offset ends in the same state.
    fn write_run(&self, at: StorePartition, run: &mut Run, position: ChangelogPosition) -> Result<(), Error> {
        self.write(WriteBatch {
            rows: vec![(at, std::mem::take(run))],
            positions: vec![(at, position)],
            inputs: Vec::new(),
        })
    }

    /// How many bytes of rows are worth a run.
    fn run_bytes(&self) -> usize {
        1 << 20
    }

    /// Runs are about to be written to a store, until as many calls of `end_runs`: it may put off what costs while they
    /// come.
    fn begin_runs(&self, _store: StoreId) {}

    fn end_runs(&self, _store: StoreId) {}

    /// Whether the backend is behind with its background work. A restore makes way then; a task need not.
    fn write_pressure(&self) -> WritePressure {
        WritePressure::None
    }

    /// What is recorded about a store's partition; `None` where nothing was ever written or it was wiped.
    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error>;

    /// The input offset recorded with the state.
    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error>;

    /// Removes the rows and the position of a store's partition. Offsets of inputs stay: they belong to tasks.
    ///
    /// A partition without a position may hold rows of a restore that was cut off: wipe it before restoring it in full.
    fn wipe(&self, at: StorePartition) -> Result<(), Error>;

    /// Gives back the disk space of what was wiped. May take seconds.
    fn reclaim(&self, _at: StorePartition) -> Result<(), Error> {
        Ok(())
    }

    /// The partitions of a store that hold rows or a position, ascending.
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
    /// Of several rows of a key the last one counts.
    pub rows: Vec<(StorePartition, Run)>,
    pub positions: Vec<(StorePartition, ChangelogPosition)>,
    pub inputs: Vec<(TopicPartition, Offset)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: u64,
    pub disk_bytes: u64,
}

/// How often rows were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LookUps {
    pub all: u64,
    /// Those that a cache did not have.
    pub missed: u64,
    /// Those of them that were read before they were asked for, many at once.
    pub ahead: u64,
}

/// How far background work is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WritePressure {
    #[default]
    None,
    /// Writes are being slowed down.
    Delayed,
    /// Writes wait.
    Stopped,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Only this one means: wipe and restore (EXACTLY-ONCE rule 19).
    #[error("the state is corrupt: {reason}")]
    Corrupt { reason: String },
    /// The user must act; nothing in the directory was changed.
    #[error("state directory {path}: {reason}")]
    Directory { path: String, reason: String, help: String },
    /// The user must act, or another process must end.
    #[error("state directory {path} is in use by {}", holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")))]
    Locked { path: String, holder: Option<u32> },
    /// The disk or the operating system refused; nothing of the write in question is visible.
    #[error("reading or writing state failed: {reason}")]
    Io { reason: String },
    #[error("a stored {what} cannot be read: {reason}")]
    Encoding { what: &'static str, reason: String },
    /// The caller's mistake: this backend was opened without that store.
    #[error("no store with the number {} was opened", store.index())]
    UnknownStore { store: StoreId },
}

impl Error {
    /// [`Error::help`] as the rest of a sentence: `; make room`, or nothing.
    pub fn help_clause(&self) -> String {
        self.help().map(|help| format!("; {help}")).unwrap_or_default()
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Directory { help, .. } => Some(help),
            Self::Locked { .. } => {
                Some("each instance needs a state directory of its own: stop the other process or set --state-dir")
            }
            Self::Io { reason } => refusal::Refusal::of(reason).map(refusal::Refusal::help_in_use),
            Self::Corrupt { .. } | Self::Encoding { .. } | Self::UnknownStore { .. } => None,
        }
    }
}
