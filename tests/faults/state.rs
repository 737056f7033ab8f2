//! What local state is worth when its disk was full in the middle of everything: writes, flushes, merges and restorations.
//!
//! RocksDB alone, without Kafka: whatever it answered, a store's rows are those of its position, also in what a kill at that
//! moment leaves behind, and the writes that were acknowledged are all there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::ops::{ControlFlow, Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64};
use std::time::{Duration, SystemTime};

use sidestream::ids::{Offset, Partition, StoreId};
use sidestream::store::rocksdb::{RocksDb, RocksDbSettings};
use sidestream::store::{Backend, ChangelogPosition, Direction, Error, KeyRange, Run, StorePartition, WriteBatch};

use crate::support::case::pause;
use crate::support::disk::Disk;
use crate::support::eventually;

const STORES: u32 = 3;
/// Each is written to by one thread, as one task's state is.
const WRITERS: u32 = 3;
/// The one of them that also restores.
const RESTORING: u32 = 2;
const KEYS: i64 = 500;
const VALUE_BYTES: usize = 300;
const ROWS_PER_WRITE: i64 = 40;
const PATIENCE: Duration = Duration::from_secs(60);

/// Row `n` of a partition is written to key `n % KEYS`, and deletes it every 17th time: so a position says what is there.
fn row(number: i64) -> (Box<[u8]>, Option<Box<[u8]>>) {
    let key = (number % KEYS).to_be_bytes();
    // Hard to compress, so that the disk fills.
    let mut random = fastrand::Rng::with_seed(number.cast_unsigned());
    let value: Box<[u8]> = std::iter::repeat_with(|| random.u8(..)).take(VALUE_BYTES).collect();
    (key.into(), (number % 17 != 0).then_some(value))
}

fn run(numbers: Range<i64>) -> Run {
    let mut run = Run::default();
    numbers.map(row).for_each(|(key, value)| run.push(&key, value.as_deref()));
    run
}

type Rows = BTreeMap<Box<[u8]>, Box<[u8]>>;

fn apply(rows: &mut Rows, numbers: Range<i64>) {
    for number in numbers {
        match row(number) {
            (key, Some(value)) => rows.insert(key, value),
            (key, None) => rows.remove(&key),
        };
    }
}

fn expected_at(position: i64) -> Rows {
    let mut rows = Rows::new();
    apply(&mut rows, (position - KEYS).max(0)..position);
    rows
}

fn at(store: u32, partition: u32) -> StorePartition {
    StorePartition { store: StoreId(store), partition: Partition(partition) }
}

fn position(offset: i64) -> ChangelogPosition {
    ChangelogPosition { topic_id: "topic".to_owned(), offset: Offset(offset), written_at: 0 }
}

fn position_of(database: &RocksDb, at: StorePartition) -> i64 {
    database.changelog_position(at).unwrap().map_or(0, |position| position.offset.0)
}

fn open(path: &Path) -> Result<RocksDb, Error> {
    let mut settings = RocksDbSettings::new(path, 8 << 20);
    settings.stores = (0..STORES).map(|store| (StoreId(store), Arc::from(format!("store-{store}")))).collect();
    RocksDb::open(&settings)
}

/// Every store of a partition has the rows of its position, and that position is one of these. Where restorations were cut
/// off rows may be ahead of it: then they are right once what follows the position has been applied.
fn check(database: &RocksDb, what: &str, may_be: impl Fn(u32) -> RangeInclusive<i64>) {
    for (partition, store) in (0..WRITERS).flat_map(|partition| (0..STORES).map(move |store| (partition, store))) {
        let at = at(store, partition);
        let (position, may_be) = (position_of(database, at), may_be(partition));
        assert!(may_be.contains(&position), "{what}: {at:?} stands at {position}, not within {may_be:?}");
        let mut rows = BTreeMap::new();
        let all = KeyRange { from: &[], to: None };
        let scanned = database.scan(at, all, Direction::Forward, &mut |key, value| {
            rows.insert(Box::from(key), Box::from(value));
            ControlFlow::Continue(())
        });
        scanned.unwrap();
        let known_at = if partition == RESTORING { *may_be.end() } else { position };
        apply(&mut rows, position..known_at);
        assert!(rows == expected_at(known_at), "{what}: the rows of {at:?} are not those of its position {position}");
    }
}

/// One thread's part: commits, and in one partition also what a restoration does. Goes on from what was acknowledged, as a
/// task does that is restored after a failed write.
struct Writer<'a> {
    database: &'a RocksDb,
    partition: u32,
    /// What was acknowledged.
    written: &'a AtomicI64,
    night: &'a Night,
}

/// What happens to all writers.
#[derive(Default)]
struct Night {
    failures: AtomicU64,
    /// They are to do nothing, and how many do so.
    hold: AtomicBool,
    held: AtomicU32,
    over: AtomicBool,
}

impl Writer<'_> {
    fn run(&self) {
        let mut random = fastrand::Rng::with_seed(u64::from(self.partition));
        let mut from = 0;
        while !self.night.over.load(SeqCst) {
            if self.night.hold.load(SeqCst) {
                self.night.held.fetch_add(1, SeqCst);
                while self.night.hold.load(SeqCst) {
                    pause(Duration::from_millis(1));
                }
                self.night.held.fetch_sub(1, SeqCst);
            }
            let to = from + ROWS_PER_WRITE;
            let restores = self.partition == RESTORING && random.bool();
            match if restores { self.restore(from, to) } else { self.commit(from, to) } {
                Ok(()) => {
                    from = to;
                    self.written.store(to, SeqCst);
                }
                Err(Error::Io { reason }) => {
                    assert!(reason.contains("No space left on device"), "{reason}");
                    self.night.failures.fetch_add(1, SeqCst);
                    pause(Duration::from_millis(20));
                }
                Err(error) => unreachable!("{error}"),
            }
        }
    }

    fn commit(&self, from: i64, to: i64) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for store in 0..STORES {
            let at = at(store, self.partition);
            batch.rows.push((at, run(from..to)));
            batch.positions.push((at, position(to)));
        }
        self.database.write(batch)
    }

    /// Store by store, as files.
    fn restore(&self, from: i64, to: i64) -> Result<(), Error> {
        for store in 0..STORES {
            self.database.write_run(at(store, self.partition), &mut run(from..to), position(to))?;
        }
        Ok(())
    }
}

#[test]
fn a_full_disk_leaves_no_half_of_a_write_and_takes_none_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let Some(disk) = Disk::mount(&path, "size=32m") else {
        return eprintln!("not shown: mounting a file system takes root");
    };
    let database = open(&path.join("state")).unwrap();
    let written: Vec<AtomicI64> = (0..WRITERS).map(|_| AtomicI64::new(0)).collect();
    let night = Night::default();
    let acknowledged = |partition: u32| written[partition as usize].load(SeqCst);
    let stands_at = |partition| acknowledged(partition)..=acknowledged(partition) + ROWS_PER_WRITE;
    std::thread::scope(|scope| {
        for partition in 0..WRITERS {
            let writer =
                Writer { database: &database, partition, written: &written[partition as usize], night: &night };
            scope.spawn(move || writer.run());
        }
        for round in 0..2 {
            let before: Vec<i64> = (0..WRITERS).map(acknowledged).collect();
            eventually("all write", PATIENCE, || {
                (0..WRITERS).all(|number| acknowledged(number) > before[number as usize] + 5 * KEYS).then_some(())
            });
            let failures = night.failures.load(SeqCst);
            disk.fill();
            eventually("writes fail", PATIENCE, || (night.failures.load(SeqCst) > failures + 10).then_some(()));
            night.hold.store(true, SeqCst);
            eventually("all hold still", PATIENCE, || (night.held.load(SeqCst) == WRITERS).then_some(()));
            check(&database, &format!("full, round {round}"), stands_at);
            let left = directory.path().join(format!("left-{round}"));
            copy_unchanged(&path.join("state"), &left);
            match open(&left) {
                Ok(database) => check(&database, &format!("killed, round {round}"), stands_at),
                // Nothing is built upon, everything is restored.
                Err(Error::Corrupt { reason }) => eprintln!("round {round}: a kill leaves what is wiped: {reason}"),
                Err(error) => unreachable!("{error}"),
            }
            disk.free();
            night.hold.store(false, SeqCst);
        }
        night.over.store(true, SeqCst);
    });
    check(&database, "in use", stands_at);
    drop(database);
    check(&open(&path.join("state")).unwrap(), "opened again", stands_at);
}

/// What a kill at this moment would leave: the database may still work on its files by itself.
fn copy_unchanged(from: &Path, to: &Path) {
    eventually("a copy of one moment", PATIENCE, || {
        let before = listing(from);
        std::fs::create_dir_all(to).unwrap();
        for (name, _) in &before {
            // One that has just been removed is none of the next listing.
            let _gone = std::fs::copy(from.join(name), to.join(name));
        }
        let unchanged = listing(from) == before;
        if !unchanged {
            std::fs::remove_dir_all(to).unwrap();
        }
        unchanged.then_some(())
    });
    std::fs::remove_file(to.join("LOCK")).unwrap();
}

fn listing(directory: &Path) -> Vec<(OsString, Option<(u64, SystemTime)>)> {
    let files = std::fs::read_dir(directory).unwrap().flatten().filter(|file| file.path().is_file());
    let fact = |metadata: Metadata| (metadata.len(), metadata.modified().unwrap());
    let mut files: Vec<_> = files.map(|file| (file.file_name(), file.metadata().ok().map(fact))).collect();
    files.sort_unstable();
    files
}
