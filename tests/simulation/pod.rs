//! A pod: an instance, the disk that outlives it, and what can happen to that disk.
//!
//! A process that is killed leaves its RocksDB files as they are at that moment: they are copied before the database is
//! closed, since closing writes more. What it does after its death reaches neither the log nor the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use sidestream::ids::{Offset, Partition, StoreId, TopicPartition};
use sidestream::store::memory::Memory;
use sidestream::store::{
    Backend, ChangelogPosition, Direction, Error, KeyRange, Run, SharedBackend, StorePartition, Usage, VisitEntry,
    WriteBatch, WritePressure,
};
use tempfile::TempDir;

use super::weather::{StateFault, Weather};

/// Where a pod keeps its state.
pub enum Disk {
    RocksDb { root: TempDir, current: PathBuf, copies: u32 },
    Memory { current: Arc<Memory>, at: Vec<StorePartition>, inputs: Vec<TopicPartition> },
}

/// An earlier state of a disk.
pub enum Copy {
    RocksDb(PathBuf),
    Memory(Arc<Memory>),
}

impl Disk {
    pub fn rocksdb() -> Self {
        // Fsyncs cost nothing where there is no disk behind the directory.
        let shared_memory = Path::new("/dev/shm");
        let root = if shared_memory.is_dir() { tempfile::tempdir_in(shared_memory) } else { tempfile::tempdir() };
        let root = root.unwrap();
        let current = root.path().join("0");
        Self::RocksDb { root, current, copies: 0 }
    }

    /// `at` and `inputs`: everything that may ever be stored.
    pub fn memory(at: Vec<StorePartition>, inputs: Vec<TopicPartition>) -> Self {
        Self::Memory { current: Arc::new(Memory::new()), at, inputs }
    }

    /// As it is now, while the process runs.
    pub fn copy(&mut self) -> Copy {
        match self {
            Self::RocksDb { root, current, copies } => {
                *copies += 1;
                let to = root.path().join(copies.to_string());
                // RocksDB flushes and compacts by itself: a copy of files of different moments is no state that a kill leaves.
                loop {
                    let before = listing(current);
                    copy_files(current, &to);
                    if listing(current) == before {
                        return Copy::RocksDb(to);
                    }
                    std::fs::remove_dir_all(&to).unwrap();
                }
            }
            Self::Memory { current, at, inputs } => {
                let to = Memory::new();
                copy_rows(&**current, &to, at, inputs);
                Copy::Memory(Arc::new(to))
            }
        }
    }

    /// What a process finds that starts now.
    pub fn put_back(&mut self, copy: Copy) {
        match (self, copy) {
            (Self::RocksDb { current, .. }, Copy::RocksDb(path)) => {
                let _may_be_absent = std::fs::remove_dir_all(&*current);
                *current = path;
            }
            (Self::Memory { current, .. }, Copy::Memory(memory)) => *current = memory,
            (Self::RocksDb { .. }, Copy::Memory(_)) | (Self::Memory { .. }, Copy::RocksDb(_)) => {
                unreachable!("a disk stays what it is")
            }
        }
    }

    pub fn clear(&mut self) {
        match self {
            Self::RocksDb { root, current, copies } => {
                let _may_be_absent = std::fs::remove_dir_all(&*current);
                *copies += 1;
                *current = root.path().join(copies.to_string());
            }
            Self::Memory { current, .. } => *current = Arc::new(Memory::new()),
        }
    }
}

/// Every file below a directory, with its length and when it was written last.
fn listing(directory: &Path) -> BTreeMap<PathBuf, Option<(u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(directory) else { return files };
    for entry in entries {
        let path = entry.unwrap().path();
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => files.extend(listing(&path)),
            // One that has just been removed is none of the next listing.
            metadata => {
                let facts = metadata.ok().map(|metadata| (metadata.len(), metadata.modified().unwrap()));
                files.insert(path, facts);
            }
        }
    }
    files
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_files(&entry.path(), &target);
        } else if let Err(error) = std::fs::copy(entry.path(), &target) {
            // RocksDB removes files that it no longer needs by itself.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

fn copy_rows(from: &dyn Backend, to: &dyn Backend, stores: &[StorePartition], inputs: &[TopicPartition]) {
    let mut batch = WriteBatch::default();
    for &at in stores {
        let mut run = Run::default();
        for (key, value) in rows(from, at) {
            run.push(&key, Some(&value));
        }
        batch.rows.push((at, run));
        batch.positions.extend(from.changelog_position(at).unwrap().map(|position| (at, position)));
    }
    for input in inputs {
        batch.inputs.extend(from.input_offset(input).unwrap().map(|offset| (input.clone(), offset)));
    }
    to.write(batch).unwrap();
}

/// All rows of a store's partition, by key.
pub fn rows(backend: &dyn Backend, at: StorePartition) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let all = KeyRange { from: &[], to: None };
    let scanned = backend.scan(at, all, Direction::Forward, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    });
    scanned.unwrap();
    rows
}

// ---- the backend of a process that may die ---------------------------------------------------------------------------

/// A backend whose reads and writes meet faults, and that is out of reach once its process is dead.
pub struct Mortal {
    pub inner: SharedBackend,
    pub weather: Arc<Weather>,
    pub client: sidestream::log::memory::MemoryLog,
    pub name: String,
    pub dead: Arc<AtomicBool>,
}

impl std::fmt::Debug for Mortal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mortal").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Mortal {
    /// `tear` does a part of the change.
    fn change(
        &self,
        change: impl FnOnce() -> Result<(), Error>,
        tear: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let refused = |reason: &str| Err(Error::Io { reason: reason.to_owned() });
        if self.dead.load(Ordering::SeqCst) {
            return refused("the process is dead");
        }
        match self.weather.strike_state(&self.name) {
            StateFault::None => change(),
            StateFault::Refused => refused("no space left on device"),
            StateFault::Denied => change().and_then(|()| refused("it is not known whether it was written")),
            StateFault::Torn => tear().and_then(|()| refused("no space left on device")),
            StateFault::KilledBefore => {
                self.die();
                refused("the process is dead")
            }
            StateFault::KilledAfter => {
                let changed = change();
                self.die();
                changed
            }
        }
    }

    fn read(&self) -> Result<(), Error> {
        let fails = !self.dead.load(Ordering::SeqCst) && self.weather.strike_read(&self.name);
        if fails { Err(Error::Io { reason: "input/output error".to_owned() }) } else { Ok(()) }
    }

    fn die(&self) {
        self.weather.kill(&self.name);
        self.client.kill();
    }
}

impl Backend for Mortal {
    fn get(&self, at: StorePartition, key: &[u8], visit: &mut dyn FnMut(Option<&[u8]>)) -> Result<(), Error> {
        self.read()?;
        self.inner.get(at, key, visit)
    }

    fn multi_get(
        &self,
        at: StorePartition,
        keys: &[&[u8]],
        visit: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), Error> {
        self.read()?;
        self.inner.multi_get(at, keys, visit)
    }

    fn scan(
        &self,
        at: StorePartition,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut VisitEntry<'_>,
    ) -> Result<(), Error> {
        self.read()?;
        self.inner.scan(at, range, direction, visit)
    }

    fn write(&self, batch: WriteBatch) -> Result<(), Error> {
        // More than a backend may do, which writes all of a batch or nothing: rows without their position do no harm.
        let every_other = |(at, rows): &(StorePartition, Run)| {
            let mut some = Run::default();
            rows.iter().step_by(2).for_each(|(key, value)| some.push(key, value));
            (*at, some)
        };
        let torn = WriteBatch { rows: batch.rows.iter().map(every_other).collect(), ..WriteBatch::default() };
        self.change(|| self.inner.write(batch), || self.inner.write(torn))
    }

    /// As a backend may do it: first the rows and then the position, so that it may be killed in between. Not as files:
    /// what RocksDB merges in the background cannot be copied in one moment.
    fn write_run(&self, at: StorePartition, run: &mut Run, position: ChangelogPosition) -> Result<(), Error> {
        let rows = vec![(at, std::mem::take(run))];
        self.write(WriteBatch { rows, ..WriteBatch::default() })?;
        self.write(WriteBatch { positions: vec![(at, position)], ..WriteBatch::default() })
    }

    /// A few rows, so that restorations have several runs.
    fn run_bytes(&self) -> usize {
        400
    }

    fn write_pressure(&self) -> WritePressure {
        WritePressure::None
    }

    fn changelog_position(&self, at: StorePartition) -> Result<Option<ChangelogPosition>, Error> {
        self.read()?;
        self.inner.changelog_position(at)
    }

    fn input_offset(&self, input: &TopicPartition) -> Result<Option<Offset>, Error> {
        self.read()?;
        self.inner.input_offset(input)
    }

    fn wipe(&self, at: StorePartition) -> Result<(), Error> {
        self.change(|| self.inner.wipe(at), || Ok(()))
    }

    fn reclaim(&self, at: StorePartition) -> Result<(), Error> {
        self.inner.reclaim(at)
    }

    fn partitions(&self, store: StoreId) -> Result<Vec<Partition>, Error> {
        self.inner.partitions(store)
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn flush(&self) -> Result<(), Error> {
        if self.dead.load(Ordering::SeqCst) { Ok(()) } else { self.inner.flush() }
    }
}
