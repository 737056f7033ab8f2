//! The state of an instance on this machine: opens directory and database, and refuses a plan that would misread them.
//!
//! Invariant: nothing is opened for writing before the plan has been found to fit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::store::directory::StateDirectory;
use crate::store::memory::Memory;
use crate::store::mixed::Mixed;
use crate::store::rocksdb::{RocksDb, RocksDbSettings};
use crate::store::{self, SharedBackend};
use crate::topology::Plan;
use crate::topology::plan::{BackendKind, Fingerprint};

/// An opened state directory with what runs on it. Dropping it releases the directory's lock: keep it until the end.
#[derive(Debug)]
pub struct State {
    pub directory: StateDirectory,
    pub backend: SharedBackend,
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(
        "the state in {path} was written by another version of this topology and would be misread:\n{}",
        .changes.join("\n")
    )]
    Misfit { path: String, changes: Vec<String> },
}

impl Error {
    /// What the user can do about it.
    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.help(),
            Self::Misfit { .. } => Some(
                "give the changed step a new name, undo the change, or clear its state with `sidestream reset --step NAME`",
            ),
        }
    }
}

/// Opens the state directory for a plan. `rocksdb_bytes` is RocksDB's share of the memory budget.
///
/// A database that is corrupt is discarded and restored from the changelogs (EXACTLY-ONCE rule 19); every other error
/// leaves the files untouched.
pub fn open(path: &Path, plan: &Plan, rocksdb_bytes: u64) -> Result<State, Error> {
    let mut directory = StateDirectory::open(path, &plan.name)?;
    let changes = misreadings(&directory.identity().plan, &plan.fingerprint);
    if !changes.is_empty() {
        return Err(Error::Misfit { path: path.display().to_string(), changes });
    }
    let backend = open_backend(&mut directory, plan, rocksdb_bytes)?;
    directory.keep_plan(&plan.fingerprint.lines)?;
    Ok(State { directory, backend })
}

fn open_backend(
    directory: &mut StateDirectory,
    plan: &Plan,
    rocksdb_bytes: u64,
) -> Result<SharedBackend, store::Error> {
    let (on_disk, in_memory): (Vec<_>, Vec<_>) =
        plan.stores.iter().partition(|store| store.backend == BackendKind::RocksDb);
    if on_disk.is_empty() {
        return Ok(Arc::new(Memory::new()));
    }
    let mut settings = RocksDbSettings::new(directory.database_path(), rocksdb_bytes);
    settings.stores = on_disk.iter().map(|store| (store.id, Arc::clone(&store.name))).collect();
    let database = match RocksDb::open(&settings) {
        Ok(database) => database,
        Err(store::Error::Corrupt { reason }) => {
            tracing::error!(reason, "the local state is corrupt: it is discarded and restored from the changelogs");
            directory.discard_database()?;
            RocksDb::open(&settings)?
        }
        Err(error) => return Err(error),
    };
    if in_memory.is_empty() {
        return Ok(Arc::new(database));
    }
    Ok(Arc::new(Mixed::new(database, in_memory.iter().map(|store| store.id).collect())))
}

/// The lines of the plan that wrote the state which the new plan says differently, each with both versions.
///
/// A line's first two words say what it is about (`store NAME ...`); the rest must not change. A line that is gone or new
/// harms nothing: that state is not read.
pub fn misreadings(written: &[String], plan: &Fingerprint) -> Vec<String> {
    let now: BTreeMap<(&str, &str), &str> = plan.lines.iter().map(|line| (subject(line), line.as_str())).collect();
    written
        .iter()
        .filter_map(|before| {
            let now = now.get(&subject(before))?;
            (now != before).then(|| format!("  was: {before}\n  now: {now}"))
        })
        .collect()
}

fn subject(line: &str) -> (&str, &str) {
    let mut words = line.split_whitespace();
    (words.next().unwrap_or_default(), words.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::misreadings;
    use crate::topology::plan::Fingerprint;

    fn lines(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_string()).collect()
    }

    #[test]
    fn only_what_is_said_differently_about_the_same_thing_would_be_misread() {
        let written = lines(&["store a key-value id:STRING", "store b window w:10s", "source t json"]);
        let plan =
            Fingerprint { lines: lines(&["source t json", "store a key-value id:BIGINT", "store c list id:STRING"]) };
        let changes = misreadings(&written, &plan);
        assert_eq!(changes, ["  was: store a key-value id:STRING\n  now: store a key-value id:BIGINT"]);
    }

    #[test]
    fn a_new_directory_fits_every_plan() {
        assert!(misreadings(&[], &Fingerprint { lines: lines(&["store a key-value id:STRING"]) }).is_empty());
    }
}
