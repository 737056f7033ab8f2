//! Restored rows as files of their own.
//!
//! What it is: a run, sorted, becomes a file that RocksDB takes in as it is: no write-ahead log, no write buffer, no flush.
//! What it is not: it does not say what is in a file to anybody but RocksDB; positions are written by its caller.
//!
//! While runs of a store come in, its files are merged less often ([`Runs::begin`]). Each lies over the whole partition, so
//! that every merge rewrites everything that has been restored so far. Reads of such a store have more files to look
//! through for that long.
//!
//! Invariants
//! - A file is synced before RocksDB knows of it.
//! - What a crash has left in the directory is removed when the database is opened.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use ::rocksdb::{ColumnFamily, IngestExternalFileOptions, Options, SstFileWriter};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::super::Error;
use super::open::{Database, using};
use super::tuning;
use crate::ids::{Partition, StoreId};
use crate::store::Run;

/// Inside the database's directory, so that a file is moved in and not copied.
const DIRECTORY: &str = "runs";

pub(super) struct Runs {
    directory: PathBuf,
    family: Options,
    bytes: usize,
    next: AtomicU64,
    /// How many restorations write to each store.
    writing: Mutex<FxHashMap<StoreId, u32>>,
}

impl Runs {
    pub(super) fn new(database: &Path, family: Options, bytes: usize) -> Result<Self, Error> {
        let directory = database.join(DIRECTORY);
        let refused = |error: &std::io::Error| Error::Io { reason: format!("{}: {error}", directory.display()) };
        match std::fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(refused(&error)),
            _ => {}
        }
        std::fs::create_dir(&directory).map_err(|error| refused(&error))?;
        Ok(Self { directory, family, bytes, next: AtomicU64::new(0), writing: Mutex::default() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes a run a part of the database. It is visible when this returns.
    pub(super) fn add(
        &self,
        database: &Database,
        family: &ColumnFamily,
        partition: Partition,
        run: &mut Run,
    ) -> Result<(), Error> {
        let path = self.directory.join(format!("{}.sst", self.next.fetch_add(1, Ordering::Relaxed)));
        let added = self.write_file(&path, partition, run).and_then(|()| {
            let mut options = IngestExternalFileOptions::default();
            options.set_move_files(true);
            database.ingest_external_file_cf_opts(family, &options, vec![&path])
        });
        if added.is_err() {
            // The disk may be full. What is not removed now is removed at the next start.
            let _left_behind = std::fs::remove_file(&path);
        }
        added.map_err(|error| using(&error))
    }

    fn write_file(&self, path: &Path, partition: Partition, run: &mut Run) -> Result<(), ::rocksdb::Error> {
        let mut writer = SstFileWriter::create(&self.family);
        writer.open(path)?;
        let mut prefixed = partition.0.to_be_bytes().to_vec();
        let prefix = prefixed.len();
        for (key, value) in run.sorted() {
            prefixed.truncate(prefix);
            prefixed.extend_from_slice(key);
            match value {
                Some(value) => writer.put(&prefixed, value),
                None => writer.delete(&prefixed),
            }?;
        }
        writer.finish()
    }

    pub(super) fn begin(&self, database: &Database, store: StoreId, family: &ColumnFamily) {
        let mut writing = self.writing.lock();
        let count = writing.entry(store).or_default();
        *count += 1;
        if *count == 1 {
            apply(database, family, &tuning::WHILE_RUNS_COME);
        }
    }

    pub(super) fn end(&self, database: &Database, store: StoreId, family: &ColumnFamily) {
        let mut writing = self.writing.lock();
        let Some(count) = writing.get_mut(&store) else { return };
        *count -= 1;
        if *count == 0 {
            writing.remove(&store);
            apply(database, family, &tuning::OTHERWISE);
        }
    }
}

fn apply(database: &Database, family: &ColumnFamily, options: &[(&str, &str)]) {
    if let Err(error) = database.set_options_cf(family, options) {
        // It costs speed and nothing else.
        tracing::debug!(%error, "options of a store were not changed");
    }
}
