//! The state directory of one instance: who owns it, what it holds, and how it is cleared.
//!
//! ```text
//! <state_dir>/lock       held for as long as the process runs; holds its pid
//! <state_dir>/identity   see `identity`
//! <state_dir>/rocksdb/   the database
//! ```
//! What it is not: it opens no database while running; the caller does, with [`StateDirectory::database_path`].
//!
//! Invariants
//! - One process at a time (an advisory lock on `lock`, released by the operating system when the process ends).
//! - `identity` is replaced by rename after an fsync: a crash leaves the old one or the new one.
//! - Nothing is deleted but by `discard_database`, `destroy_store` and `destroy`. A directory that is not ours, is of another
//!   application, of another cluster or of a later format is an error, and stays as it is.

mod identity;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub use identity::{Identity, LayoutColumn, RowLayout};

use self::identity::{FORMAT, Unreadable};
use super::Error;
use super::refusal::Refusal;
use super::rocksdb::{MINIMUM_MEMORY_BYTES, RocksDb, RocksDbSettings, remove_database};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
const NEW_IDENTITY: &str = "identity.new";
const DATABASE: &str = "rocksdb";

#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    identity: Identity,
    /// Unlocks when dropped.
    lock: File,
}

impl StateDirectory {
    /// Opens the directory for an application, or makes it.
    ///
    /// # Errors
    /// `Locked` while another process has it; `Directory` where it cannot be written, is of another application or of
    /// another format, or holds a database but no identity.
    pub fn open(path: &Path, application: &str) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|error| refused(path, &error))?;
        let lock = lock(path)?;
        let identity = match read_identity(path)? {
            Some(identity) if identity.application != application => {
                let other = &identity.application;
                return Err(unusable(
                    path,
                    format!("it holds the state of the application {other:?}, not of {application:?}"),
                    format!(
                        "give {application:?} a directory of its own with --state-dir; if it was renamed from {other:?}, \
                         its consumer group and topics have another name too, so start with an empty directory"
                    ),
                ));
            }
            Some(identity) => identity,
            None if exists(path, DATABASE)? => {
                return Err(unusable(
                    path,
                    format!("it holds a database but no `{IDENTITY}` file, so whose state it is cannot be known"),
                    "restore the file if you have it, else clear the directory with `sidestream reset`; the state is then \
                     restored from the changelogs"
                        .to_owned(),
                ));
            }
            None => {
                let identity = Identity::new(application);
                write_identity(path, &identity)?;
                identity
            }
        };
        Ok(Self { path: path.to_owned(), identity, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to the directory that was opened: not when it was deleted, or replaced, since. The
    /// database would go on for a while, on files that nobody finds again.
    pub fn is_in_place(&self) -> bool {
        let (held, found) = (self.lock.metadata(), fs::metadata(self.path.join(LOCK)));
        match (held, found) {
            (Ok(held), Ok(found)) => (held.dev(), held.ino()) == (found.dev(), found.ino()),
            (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        }
    }

    /// Where the database belongs.
    pub fn database_path(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Ties the state to a cluster on first contact, and checks it on every later one.
    ///
    /// # Errors
    /// `Directory` if the state is of another cluster: its offsets mean nothing in this one.
    pub fn bind_cluster(&mut self, cluster_id: &str) -> Result<(), Error> {
        match &self.identity.cluster_id {
            Some(known) if known == cluster_id => Ok(()),
            Some(known) => Err(unusable(
                &self.path,
                format!("its state is of the Kafka cluster {known}, but the brokers are of {cluster_id}"),
                "connect to the cluster it was written with, choose another directory with --state-dir, or clear this one \
                 with `sidestream reset`"
                    .to_owned(),
            )),
            None => self.change(|identity| identity.cluster_id = Some(cluster_id.to_owned())),
        }
    }

    /// Notes that workers 0 to `count - 1` are about to get transactional ids. Returns every number ever noted, ascending:
    /// the transactions of all of them are to be ended before any offset is read (EXACTLY-ONCE rule 2b).
    pub fn use_workers(&mut self, count: u32) -> Result<Vec<u32>, Error> {
        self.change(|identity| identity.workers.extend(0..count))?;
        Ok(self.identity.workers.iter().copied().collect())
    }

    /// Keeps the fingerprint of the plan that is about to run. Compare it with `identity().plan` first.
    pub fn keep_plan(&mut self, lines: &[String]) -> Result<(), Error> {
        self.change(|identity| identity.plan = lines.to_vec())
    }

    /// Keeps a layout that rows of a store are about to be written with; on disk before this returns.
    ///
    /// # Errors
    /// `Encoding` if that version has other columns: its rows would be misread.
    pub fn keep_layout(&mut self, store: &str, layout: RowLayout) -> Result<(), Error> {
        let mut identity = self.identity.clone();
        let version = layout.version;
        identity.add_layout(store, layout).map_err(|known| Error::Encoding {
            what: "row layout",
            reason: format!(
                "layout {version} of the store {store:?} already has the columns {:?}",
                known.iter().map(|column| format!("{} {}", column.name, column.ty)).collect::<Vec<_>>()
            ),
        })?;
        self.change(|current| *current = identity)
    }

    /// Removes the database and keeps the identity: what [`Error::Corrupt`] asks for. It must be closed.
    pub fn discard_database(&mut self) -> Result<(), Error> {
        remove_database(&self.database_path())
    }

    /// Removes one store, its positions and its layouts. The database must be closed.
    pub fn destroy_store(&mut self, name: &str) -> Result<(), Error> {
        if exists(&self.path, DATABASE)? {
            RocksDb::open(&RocksDbSettings::new(self.database_path(), MINIMUM_MEMORY_BYTES))?.drop_store(name)?;
        }
        self.change(|identity| {
            identity.stores.remove(name);
        })
    }

    /// Changes the identity on disk, then in memory; does nothing if it stays the same.
    fn change(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), Error> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        if identity != self.identity {
            write_identity(&self.path, &identity)?;
            self.identity = identity;
        }
        Ok(())
    }
}

/// Removes what a state directory holds, readable or not; files that are not ours stay, and with them the directory.
///
/// # Errors
/// `Locked` while a process has it.
pub fn destroy(path: &Path) -> Result<(), Error> {
    if !path.try_exists().map_err(|error| refused(path, &error))? {
        return Ok(());
    }
    let lock = lock(path)?;
    // First the identity: without it, whatever a crash leaves of the rest is refused and not trusted.
    for file in [IDENTITY, NEW_IDENTITY] {
        remove_file(&path.join(file))?;
    }
    remove_database(&path.join(DATABASE))?;
    remove_file(&path.join(LOCK))?;
    drop(lock);
    match fs::remove_dir(path) {
        // Other files are in it, or it is a mount point.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy) => Ok(()),
        Err(error) => Err(refused(path, &error)),
        Ok(()) => Ok(()),
    }
}

/// Whose state a directory holds, without locking it: for `plan` and messages. `None` where there is none.
pub fn peek(path: &Path) -> Result<Option<Identity>, Error> {
    read_identity(path)
}

fn lock(path: &Path) -> Result<File, Error> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path.join(LOCK))
        .map_err(|error| refused(path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: a holder that has not written its pid yet stays unnamed.
            let holder = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
            return Err(Error::Locked { path: path.display().to_string(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(refused(path, &error)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(|error| refused(path, &error))?;
    Ok(file)
}

fn read_identity(path: &Path) -> Result<Option<Identity>, Error> {
    let text = match fs::read_to_string(path.join(IDENTITY)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(path, &error)),
    };
    Identity::from_json(&text).map(Some).map_err(|unreadable| match unreadable {
        Unreadable::OtherFormat { format } => unusable(
            path,
            format!("it is in format {format}, this version of sidestream knows {FORMAT}"),
            "run the version that wrote it, or clear the directory with `sidestream reset`".to_owned(),
        ),
        Unreadable::Broken { reason } => unusable(
            path,
            format!("its `{IDENTITY}` file cannot be read: {reason}"),
            "restore the file if you have it, else clear the directory with `sidestream reset`; the state is then restored \
             from the changelogs"
                .to_owned(),
        ),
    })
}

fn write_identity(path: &Path, identity: &Identity) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let text = identity.to_json()?;
        let mut file = File::create(path.join(NEW_IDENTITY))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(path.join(NEW_IDENTITY), path.join(IDENTITY))?;
        // The rename itself lasts once the directory is synced.
        File::open(path)?.sync_all()
    };
    write().map_err(|error| refused(path, &error))
}

fn exists(path: &Path, entry: &str) -> Result<bool, Error> {
    path.join(entry).try_exists().map_err(|error| refused(path, &error))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(refused(path, &error)),
        _ => Ok(()),
    }
}

fn refused(path: &Path, error: &io::Error) -> Error {
    let reason = error.to_string();
    let help = Refusal::of(&reason).map_or("choose a directory that can be written with --state-dir", Refusal::help);
    unusable(path, reason, help.to_owned())
}

fn unusable(path: &Path, reason: String, help: String) -> Error {
    Error::Directory { path: path.display().to_string(), reason, help }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::StoreId;
    use crate::schema::{Column, Schema, Type};
    use crate::store::Backend;
    use crate::store::contract::{at, keys, put, rows};

    fn open(path: &Path) -> Result<StateDirectory, Error> {
        StateDirectory::open(path, "fraud")
    }

    fn reason_and_help(error: &Error) -> (&str, &str) {
        match error {
            Error::Directory { reason, help, .. } => (reason, help),
            other => panic!("{other:?}"),
        }
    }

    fn layout(version: u32, names: &[&str]) -> RowLayout {
        let decimal = Type::Decimal { precision: 10, scale: 2 };
        let schema = Schema::new(names.iter().map(|name| Column::new(name, decimal.clone(), true)));
        RowLayout { version, columns: LayoutColumn::all_of(&schema) }
    }

    #[test]
    fn what_was_noted_is_there_after_reopening() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("deeper/state");
        let mut directory = open(&path).unwrap();
        let instance_id = directory.identity().instance_id.clone();
        assert_eq!(uuid::Uuid::parse_str(&instance_id).unwrap().get_version_num(), 4);
        directory.bind_cluster("cluster-a").unwrap();
        directory.use_workers(2).unwrap();
        directory.keep_plan(&["store a".to_owned(), "topic \"b\"\n".to_owned()]).unwrap();
        directory.keep_layout("totals", layout(1, &["total"])).unwrap();
        let noted = directory.identity().clone();
        drop(directory);

        let directory = open(&path).unwrap();
        assert_eq!(*directory.identity(), noted);
        assert_eq!(directory.identity().instance_id, instance_id);
        assert_eq!(directory.identity().layouts("totals")[0].columns[0].ty, "DECIMAL(10,2)");
        assert_eq!(peek(&path).unwrap(), Some(noted));
    }

    #[test]
    fn the_identity_file_is_the_one_that_existing_directories_hold() {
        let directory = tempfile::tempdir().unwrap();
        let text = r#"{
  "format": 1,
  "application": "fraud",
  "cluster_id": null,
  "instance_id": "0b54b0a3-6b5f-4b0a-9a53-0a5c9c2c6d0e",
  "workers": [
    0
  ],
  "plan": [
    "store totals"
  ],
  "stores": {
    "totals": [
      {
        "version": 1,
        "columns": [
          {
            "name": "total",
            "type": "DECIMAL(10,2)",
            "nullable": true
          }
        ]
      }
    ]
  }
}
"#;
        fs::write(directory.path().join(IDENTITY), text).unwrap();
        let opened = open(directory.path()).unwrap();
        assert_eq!(opened.identity().layouts("totals"), [layout(1, &["total"])]);
        assert_eq!(opened.identity().to_json().unwrap(), text);
    }

    #[test]
    fn worker_numbers_are_remembered_when_fewer_run_later() {
        let path = tempfile::tempdir().unwrap();
        assert_eq!(open(path.path()).unwrap().use_workers(4).unwrap(), [0, 1, 2, 3]);
        assert_eq!(open(path.path()).unwrap().use_workers(1).unwrap(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_version_of_a_layout_never_gets_other_columns() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = open(path.path()).unwrap();
        for (store, version, names) in [("totals", 7, ["a", "b"]), ("totals", 3, ["b", "a"]), ("others", 7, ["c", "d"])]
        {
            directory.keep_layout(store, layout(version, &names)).unwrap();
            directory.keep_layout(store, layout(version, &names)).unwrap();
        }
        let before = directory.identity().clone();
        let error = directory.keep_layout("totals", layout(3, &["a", "c"])).unwrap_err();
        assert!(error.to_string().contains("layout 3"), "{error}");
        assert_eq!(*directory.identity(), before);
        drop(directory);
        let directory = open(path.path()).unwrap();
        assert_eq!(directory.identity().layouts("totals"), [layout(7, &["a", "b"]), layout(3, &["b", "a"])]);
    }

    #[test]
    fn a_second_process_is_told_who_has_the_directory() {
        let path = tempfile::tempdir().unwrap();
        let first = open(path.path()).unwrap();
        for error in [open(path.path()).unwrap_err(), destroy(path.path()).unwrap_err()] {
            assert!(matches!(error, Error::Locked { holder: Some(pid), .. } if pid == std::process::id()), "{error:?}");
            assert!(error.to_string().contains(&std::process::id().to_string()));
        }
        drop(first);
        open(path.path()).unwrap();
    }

    #[test]
    fn the_state_of_another_application_is_refused_and_kept() {
        let path = tempfile::tempdir().unwrap();
        drop(StateDirectory::open(path.path(), "orders").unwrap());
        let before = fs::read(path.path().join(IDENTITY)).unwrap();
        let error = open(path.path()).unwrap_err();
        let (reason, help) = reason_and_help(&error);
        assert!(reason.contains("orders") && reason.contains("fraud"), "{reason}");
        assert!(help.contains("--state-dir"), "{help}");
        assert_eq!(fs::read(path.path().join(IDENTITY)).unwrap(), before);
    }

    #[test]
    fn the_state_of_another_cluster_is_refused_and_kept() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = open(path.path()).unwrap();
        directory.bind_cluster("a").unwrap();
        directory.bind_cluster("a").unwrap();
        let error = directory.bind_cluster("b").unwrap_err();
        let (reason, help) = reason_and_help(&error);
        assert!(reason.contains("cluster a") && help.contains("reset"), "{reason}; {help}");
        assert_eq!(peek(path.path()).unwrap().unwrap().cluster_id.as_deref(), Some("a"));
    }

    #[test]
    fn a_later_format_and_a_broken_identity_are_refused_and_kept() {
        let path = tempfile::tempdir().unwrap();
        for (text, expected) in
            [(r#"{"format": 2, "new": {}}"#, "format 2"), ("{\"for", "cannot be read"), ("", "cannot be read")]
        {
            fs::write(path.path().join(IDENTITY), text).unwrap();
            let error = open(path.path()).unwrap_err();
            let (reason, help) = reason_and_help(&error);
            assert!(reason.contains(expected) && help.contains("reset"), "{reason}; {help}");
            assert_eq!(fs::read_to_string(path.path().join(IDENTITY)).unwrap(), text);
        }
    }

    #[test]
    fn a_database_without_an_identity_is_refused() {
        let path = tempfile::tempdir().unwrap();
        fs::create_dir(path.path().join(DATABASE)).unwrap();
        let error = open(path.path()).unwrap_err();
        assert!(reason_and_help(&error).0.contains("no `identity`"), "{error:?}");
        // The way out that the message names works.
        destroy(path.path()).unwrap();
        open(path.path()).unwrap();
    }

    #[test]
    fn a_crash_while_the_identity_was_replaced_leaves_the_old_one() {
        let path = tempfile::tempdir().unwrap();
        let noted = open(path.path()).unwrap().identity().clone();
        fs::write(path.path().join(NEW_IDENTITY), "{\"format\": 1, \"appl").unwrap();
        assert_eq!(*open(path.path()).unwrap().identity(), noted);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_with_what_to_do() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "not ours").unwrap();
        for path in [file.clone(), file.join("below"), PathBuf::from("/proc/sidestream")] {
            let error = open(&path).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            assert!(reason_and_help(&error).1.contains("--state-dir"), "{error:?}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "not ours");
    }

    fn database(directory: &StateDirectory) -> RocksDb {
        let mut settings = RocksDbSettings::new(directory.database_path(), MINIMUM_MEMORY_BYTES);
        settings.stores = vec![(StoreId(0), Arc::from("kept")), (StoreId(1), Arc::from("gone"))];
        RocksDb::open(&settings).unwrap()
    }

    #[test]
    fn a_destroyed_store_is_gone_and_the_others_stay() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = open(path.path()).unwrap();
        directory.destroy_store("before there is a database").unwrap();
        for store in ["kept", "gone"] {
            directory.keep_layout(store, layout(1, &["a"])).unwrap();
        }
        database(&directory).write(rows([put(at(0, 0), b"k", b"v"), put(at(1, 0), b"k", b"v")])).unwrap();
        directory.destroy_store("gone").unwrap();
        let database = database(&directory);
        assert_eq!(keys(&database, at(0, 0)).len(), 1);
        assert!(keys(&database, at(1, 0)).is_empty());
        assert!(directory.identity().layouts("gone").is_empty());
        assert_eq!(directory.identity().layouts("kept").len(), 1);
    }

    #[test]
    fn a_discarded_database_leaves_the_identity() {
        let path = tempfile::tempdir().unwrap();
        let mut directory = open(path.path()).unwrap();
        database(&directory).write(rows([put(at(0, 0), b"k", b"v")])).unwrap();
        let noted = directory.identity().clone();
        directory.discard_database().unwrap();
        directory.discard_database().unwrap();
        assert!(keys(&database(&directory), at(0, 0)).is_empty());
        assert_eq!(peek(path.path()).unwrap(), Some(noted));
    }

    #[test]
    fn destroying_removes_our_files_and_spares_others() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        destroy(&path).unwrap();
        drop(database(&open(&path).unwrap()));
        destroy(&path).unwrap();
        assert!(!path.exists());

        drop(database(&open(&path).unwrap()));
        fs::write(path.join("notes.txt"), "the user's").unwrap();
        destroy(&path).unwrap();
        let left: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["notes.txt"]);
    }
}
