//! Opening the database, and what RocksDB's errors mean.
//!
//! Invariant: an error leaves the files as they are. Only corruption is [`Error::Corrupt`], because that is what is wiped
//! (EXACTLY-ONCE rule 19); a disk that is full or a file that may not be read is the operator's to repair.

use std::path::Path;

use ::rocksdb::{ColumnFamilyDescriptor, DBWithThreadMode, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, SingleThreaded};

use super::super::Error;
use super::super::refusal::Refusal;
use super::metadata;
use super::tuning::{RocksDbSettings, Tuning};

pub(super) type Database = DBWithThreadMode<SingleThreaded>;

/// Our metadata lie in the column family that every database has.
pub(super) const METADATA_FAMILY: &str = DEFAULT_COLUMN_FAMILY_NAME;
const STORE_FAMILY_PREFIX: &str = "store:";

pub(super) fn family_name(store: &str) -> String {
    format!("{STORE_FAMILY_PREFIX}{store}")
}

/// The names of the stores that a database holds, in or out of the plan, in order; none if there is no database.
pub fn stores_on_disk(path: &Path) -> Result<Vec<String>, Error> {
    let families = families_on_disk(path)?;
    let mut stores: Vec<String> =
        families.iter().filter_map(|family| family.strip_prefix(STORE_FAMILY_PREFIX)).map(str::to_owned).collect();
    stores.sort_unstable();
    Ok(stores)
}

fn families_on_disk(path: &Path) -> Result<Vec<String>, Error> {
    // RocksDB has no error of its own for "there is nothing here".
    let exists =
        path.join("CURRENT").try_exists().map_err(|error| opening(path, ErrorKind::IOError, &error.to_string()))?;
    if !exists {
        return Ok(Vec::new());
    }
    Database::list_cf(&::rocksdb::Options::default(), path).map_err(|error| opening(path, error.kind(), error.as_ref()))
}

/// Opens the database with a column family for every store of the plan and for every one that it has already.
pub(super) fn open(settings: &RocksDbSettings) -> Result<(Database, Tuning), Error> {
    let path = &settings.path;
    let mut families = families_on_disk(path)?;
    families.push(METADATA_FAMILY.to_owned());
    families.extend(settings.stores.iter().map(|(_, name)| family_name(name)));
    families.sort_unstable();
    families.dedup();

    let tuning = Tuning::new(settings, families.len());
    let descriptors = families.into_iter().map(|name| ColumnFamilyDescriptor::new(name, tuning.family.clone()));
    let database = Database::open_cf_descriptors(&tuning.database, path, descriptors)
        .map_err(|error| opening(path, error.kind(), error.as_ref()))?;
    check_format_version(&database, path)?;
    Ok((database, tuning))
}

fn check_format_version(database: &Database, path: &Path) -> Result<(), Error> {
    match database.get(metadata::FORMAT_VERSION_KEY).map_err(|error| using(&error))?.as_deref() {
        Some([metadata::FORMAT_VERSION]) => Ok(()),
        Some(other) => Err(Error::Directory {
            path: path.display().to_string(),
            reason: format!(
                "the database was written in format {other:?}, this version of sidestream knows {}",
                metadata::FORMAT_VERSION
            ),
            help: "run the version that wrote it, or clear the state with `sidestream reset`".to_owned(),
        }),
        None => database
            .put(metadata::FORMAT_VERSION_KEY, [metadata::FORMAT_VERSION])
            .map_err(|error| opening(path, error.kind(), error.as_ref())),
    }
}

/// What an error means while the database is in use.
pub(super) fn using(error: &::rocksdb::Error) -> Error {
    let reason = error.as_ref().to_owned();
    if is_corruption(error.kind(), &reason) { Error::Corrupt { reason } } else { Error::Io { reason } }
}

/// What an error means while the database is being opened.
fn opening(path: &Path, kind: ErrorKind, message: &str) -> Error {
    if is_corruption(kind, message) {
        return Error::Corrupt { reason: message.to_owned() };
    }
    let path = path.display().to_string();
    let help = match Refusal::of(message) {
        Some(refusal) => refusal.help(),
        None if message.contains("/LOCK:") => return Error::Locked { path, holder: None },
        None => {
            "the files were left as they are; if they cannot be repaired, `sidestream reset` clears them and the \
                 state is restored from the changelogs"
        }
    };
    Error::Directory { path, reason: message.to_owned(), help: help.to_owned() }
}

/// RocksDB also says "Corruption" where the operating system refused to open a file. Such a file is not corrupt.
fn is_corruption(kind: ErrorKind, message: &str) -> bool {
    kind == ErrorKind::Corruption && Refusal::of(message).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(kind: ErrorKind, message: &str) -> Error {
        opening(Path::new("/state"), kind, message)
    }

    #[test]
    fn corruption_is_the_only_error_that_is_wiped() {
        assert!(matches!(meaning(ErrorKind::Corruption, "Corruption: bad magic number"), Error::Corrupt { .. }));
        for (kind, message) in [
            (ErrorKind::IOError, "IO error: No space left on device: While appending to file: /state/000001.log"),
            (ErrorKind::IOError, "IO error: While open a file for random read: /state/000009.sst: No such file"),
            (ErrorKind::InvalidArgument, "Invalid argument: Column families not opened: x"),
            (ErrorKind::NotSupported, "Not implemented: compression"),
        ] {
            assert!(matches!(meaning(kind, message), Error::Directory { .. }), "{message}");
        }
    }

    #[test]
    fn a_file_that_may_not_be_read_is_not_corrupt_although_rocksdb_says_so() {
        let message = "Corruption: Can't access /000009.sst: IO error: /state/000009.sst: Permission denied";
        let error = meaning(ErrorKind::Corruption, message);
        assert!(matches!(&error, Error::Directory { .. }), "{error}");
        assert!(error.help().unwrap().contains("right to read"));
    }

    #[test]
    fn a_held_lock_and_a_forbidden_lock_file_are_told_apart() {
        let held = "IO error: While lock file: /state/LOCK: Resource temporarily unavailable";
        assert!(matches!(meaning(ErrorKind::IOError, held), Error::Locked { .. }));
        let forbidden = "IO error: While open a file for lock: /state/LOCK: Permission denied";
        assert!(matches!(meaning(ErrorKind::IOError, forbidden), Error::Directory { .. }));
    }
}
