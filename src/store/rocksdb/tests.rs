//! What only a backend on disk can get wrong: reopening, crashes, broken files, locks, memory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::store::contract::{at, get, keys, position, put, rows};

fn settings(path: &Path, stores: &[&str]) -> RocksDbSettings {
    let mut settings = RocksDbSettings::new(path, 16 << 20);
    settings.stores = (0..).map(StoreId).zip(stores.iter().map(|name| Arc::from(*name))).collect();
    settings
}

fn open(path: &Path, stores: &[&str]) -> RocksDb {
    RocksDb::open(&settings(path, stores)).unwrap()
}

/// What the disk of a process that was killed at this moment holds. RocksDB clears away what it no longer needs in the
/// background: a copy in which a listed file is gone is made again.
fn copy_of(path: &Path) -> TempDir {
    loop {
        let copy = tempfile::tempdir().unwrap();
        match copy_files(path, copy.path()) {
            Ok(()) => return copy,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn copy_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for file in fs::read_dir(from)? {
        let file = file?;
        if file.file_type()?.is_file() && file.file_name() != "LOCK" {
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(())
}

fn full_batch(offset: i64) -> WriteBatch {
    WriteBatch {
        rows: rows([put(at(0, 1), format!("k{offset}"), b"v"), put(at(1, 1), format!("k{offset}"), b"v")]).rows,
        positions: vec![(at(0, 1), position(offset)), (at(1, 1), position(offset))],
        inputs: vec![(TopicPartition::new("in", Partition(1)), Offset(offset))],
    }
}

#[test]
fn everything_written_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a", "b"]);
    for offset in 1..=20 {
        database.write(full_batch(offset)).unwrap();
    }
    database.flush().unwrap();
    drop(database);
    // Ids are this process's: the names carry the state over.
    let database = open(directory.path(), &["b", "new", "a"]);
    for store in [0, 2] {
        assert_eq!(keys(&database, at(store, 1)).len(), 20);
        assert_eq!(database.changelog_position(at(store, 1)).unwrap(), Some(position(20)));
    }
    assert!(keys(&database, at(1, 1)).is_empty());
    assert_eq!(database.changelog_position(at(1, 1)).unwrap(), None);
    assert_eq!(database.input_offset(&TopicPartition::new("in", Partition(1))).unwrap(), Some(Offset(20)));
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a", "b"]);
    for offset in 1..=50 {
        database.write(full_batch(offset)).unwrap();
        if offset == 20 {
            // One of the column families is on disk, the others are in the log only.
            database.database.flush_cf(database.store(StoreId(0)).unwrap().1).unwrap();
        }
    }
    let crashed = copy_of(directory.path());
    let restarted = open(crashed.path(), &["a", "b"]);
    for store in [0, 1] {
        assert_eq!(keys(&restarted, at(store, 1)).len(), 50);
        assert_eq!(restarted.changelog_position(at(store, 1)).unwrap(), Some(position(50)));
    }
}

#[test]
fn a_log_torn_by_a_power_loss_loses_a_suffix_of_whole_writes() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a", "b"]);
    for offset in 1..=50 {
        database.write(full_batch(offset)).unwrap();
    }
    let crashed = copy_of(directory.path());
    let log = newest(crashed.path(), "log");
    let length = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(length / 2).unwrap();

    let restarted = open(crashed.path(), &["a", "b"]);
    let Offset(reached) = restarted.changelog_position(at(0, 1)).unwrap().unwrap().offset;
    assert!((1..50).contains(&reached), "{reached}");
    for store in [0, 1] {
        assert_eq!(keys(&restarted, at(store, 1)).len(), usize::try_from(reached).unwrap());
        assert_eq!(restarted.changelog_position(at(store, 1)).unwrap(), Some(position(reached)));
    }
    assert_eq!(restarted.input_offset(&TopicPartition::new("in", Partition(1))).unwrap(), Some(Offset(reached)));
}

/// Empties the write buffer of store 0.
fn to_file(database: &RocksDb) {
    database.database.flush_cf(database.store(StoreId(0)).unwrap().1).unwrap();
}

fn run_of(keys: std::ops::Range<u32>) -> Run {
    let mut run = Run::default();
    keys.for_each(|key| run.push(&key.to_be_bytes(), Some(b"v")));
    run
}

#[test]
fn a_restore_cut_off_by_a_crash_goes_on_from_its_last_run() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    let before = copy_of(directory.path());
    database.write_run(at(0, 1), &mut run_of(0..1000), position(1000)).unwrap();
    database.write_run(at(0, 1), &mut run_of(500..1500), position(2000)).unwrap();
    let after = copy_of(directory.path());

    assert_eq!(open(before.path(), &["a"]).changelog_position(at(0, 1)).unwrap(), None);
    let restarted = open(after.path(), &["a"]);
    assert_eq!(restarted.changelog_position(at(0, 1)).unwrap(), Some(position(2000)));
    assert_eq!(keys(&restarted, at(0, 1)).len(), 1500);
}

#[test]
fn the_file_of_a_run_that_a_crash_has_cut_off_is_removed_and_means_nothing() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), &["a"]));
    let torn = directory.path().join("runs").join("0.sst");
    fs::write(&torn, b"half a file").unwrap();
    let database = open(directory.path(), &["a"]);
    assert!(!torn.exists());
    assert!(keys(&database, at(0, 1)).is_empty());
    database.write_run(at(0, 1), &mut run_of(0..10), position(10)).unwrap();
    assert_eq!(keys(&database, at(0, 1)).len(), 10);
}

#[test]
fn runs_of_a_partition_leave_its_neighbours_alone_and_are_merged_when_they_have_ended() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    let level_0 = || {
        let family = database.store(StoreId(0)).unwrap().1;
        database.database.property_int_value_cf(family, "rocksdb.num-files-at-level0").unwrap().unwrap()
    };
    database.write(rows([put(at(0, 0), b"k", b"v"), put(at(0, 2), b"k", b"v")])).unwrap();
    database.begin_runs(StoreId(0));
    for number in 0..12 {
        database.write_run(at(0, 1), &mut run_of(number..number + 500), position(i64::from(number))).unwrap();
    }
    assert!(level_0() > 4, "merged while more come: {}", level_0());
    database.end_runs(StoreId(0));
    database.database.wait_for_compact(&::rocksdb::WaitForCompactOptions::default()).unwrap();
    assert!(level_0() <= 4, "{}", level_0());
    assert_eq!(keys(&database, at(0, 1)).len(), 511);
    for neighbour in [0, 2] {
        assert_eq!(keys(&database, at(0, neighbour)), [b"k"]);
    }
}

#[test]
fn a_wipe_survives_a_crash_even_when_rows_lie_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    for partition in [1, 2] {
        let value = vec![7; 200];
        database.write(rows((0..5000u32).map(|key| put(at(0, partition), key.to_be_bytes(), &value)))).unwrap();
        database
            .write(WriteBatch { positions: vec![(at(0, partition), position(5))], ..WriteBatch::default() })
            .unwrap();
        to_file(&database);
        database.reclaim(at(0, partition)).unwrap();
    }
    database.wipe(at(0, 1)).unwrap();
    let crashed = copy_of(directory.path());
    let restarted = open(crashed.path(), &["a"]);
    assert!(keys(&restarted, at(0, 1)).is_empty());
    assert_eq!(restarted.changelog_position(at(0, 1)).unwrap(), None);
    assert_eq!(keys(&restarted, at(0, 2)).len(), 5000);
    assert_eq!(restarted.partitions(StoreId(0)).unwrap(), [Partition(2)]);
}

fn newest(path: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|end| end == extension)).max().unwrap()
}

fn with_rows_in_files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    let value = vec![7; 100];
    database.write(rows((0..5000u32).map(|key| put(at(0, 1), key.to_be_bytes(), &value)))).unwrap();
    to_file(&database);
    directory
}

#[test]
fn a_broken_manifest_is_corruption() {
    let directory = with_rows_in_files();
    let current = fs::read_to_string(directory.path().join("CURRENT")).unwrap();
    let manifest = directory.path().join(current.trim());
    let mut bytes = fs::read(&manifest).unwrap();
    for byte in &mut bytes[20..60] {
        *byte ^= 0xFF;
    }
    fs::write(&manifest, bytes).unwrap();
    let error = RocksDb::open(&settings(directory.path(), &["a"])).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    // Nothing was deleted on the way.
    assert!(newest(directory.path(), "sst").exists());
}

#[test]
fn a_table_file_cut_short_is_corruption() {
    let directory = with_rows_in_files();
    let table = newest(directory.path(), "sst");
    fs::File::options().write(true).open(&table).unwrap().set_len(100).unwrap();
    let error = RocksDb::open(&settings(directory.path(), &["a"])).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}

#[test]
fn flipped_bits_in_a_row_are_corruption_and_not_a_wrong_row() {
    let directory = with_rows_in_files();
    let table = newest(directory.path(), "sst");
    let mut bytes = fs::read(&table).unwrap();
    for byte in &mut bytes[0..512] {
        *byte ^= 0xFF;
    }
    fs::write(&table, bytes).unwrap();
    // Found when read, or already when opened.
    let read = RocksDb::open(&settings(directory.path(), &["a"]))
        .and_then(|database| database.get(at(0, 1), &0u32.to_be_bytes(), &mut |_| {}));
    assert!(matches!(read, Err(Error::Corrupt { .. })), "{read:?}");
}

#[test]
fn a_database_that_is_open_elsewhere_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    database.write(rows([put(at(0, 0), b"k", b"v")])).unwrap();
    let error = RocksDb::open(&settings(directory.path(), &["a"])).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    assert!(get(&database, at(0, 0), b"k").is_some());
}

#[test]
fn a_place_that_cannot_be_written_is_named_and_not_called_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "not ours").unwrap();
    for path in [file.clone(), file.join("below"), PathBuf::from("/proc/sidestream/state")] {
        let error = RocksDb::open(&settings(&path, &["a"])).unwrap_err();
        assert!(matches!(&error, Error::Directory { path: named, .. } if Path::new(named) == path), "{error:?}");
        assert!(error.help().is_some());
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not ours");
}

#[test]
fn a_database_of_a_later_format_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a"]);
    database.database.put(metadata::FORMAT_VERSION_KEY, [metadata::FORMAT_VERSION + 1]).unwrap();
    drop(database);
    let error = RocksDb::open(&settings(directory.path(), &["a"])).unwrap_err();
    assert!(matches!(&error, Error::Directory { reason, .. } if reason.contains("format")), "{error:?}");
}

#[test]
fn a_store_that_left_the_plan_is_kept_until_it_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    assert!(stores_on_disk(&directory.path().join("none")).unwrap().is_empty());
    let database = open(directory.path(), &["kept", "left"]);
    database.write(full_batch(1)).unwrap();
    drop(database);

    drop(open(directory.path(), &["kept"]));
    assert_eq!(stores_on_disk(directory.path()).unwrap(), ["kept", "left"]);
    let database = open(directory.path(), &["kept", "left"]);
    assert_eq!(database.changelog_position(at(1, 1)).unwrap(), Some(position(1)));
    drop(database);

    let mut database = open(directory.path(), &["kept"]);
    database.drop_store("left").unwrap();
    database.drop_store("never there").unwrap();
    drop(database);
    assert_eq!(stores_on_disk(directory.path()).unwrap(), ["kept"]);
    let database = open(directory.path(), &["kept", "left"]);
    assert_eq!(database.changelog_position(at(1, 1)).unwrap(), None);
    assert!(keys(&database, at(1, 1)).is_empty());
    assert_eq!(keys(&database, at(0, 1)).len(), 1);
}

#[test]
fn a_store_may_have_the_name_of_our_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["default"]);
    database.write(rows([put(at(0, 0), b"k", b"v")])).unwrap();
    assert_eq!(keys(&database, at(0, 0)), [b"k"]);
    assert_eq!(database.partitions(StoreId(0)).unwrap(), [Partition(0)]);
}

#[test]
fn many_column_families_share_one_small_budget() {
    let directory = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..100).map(|index| format!("store_{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let database = open(directory.path(), &names);
    let value = vec![3; 500];
    for round in 0..30u32 {
        database.write(rows((0..100).map(|store| put(at(store, 0), round.to_be_bytes(), &value)))).unwrap();
        let memory = database.usage().memory_bytes;
        assert!(memory <= 20 << 20, "{memory} bytes in round {round}");
    }
    drop(database);
    let database = open(directory.path(), &names);
    assert!((0..100).all(|store| keys(&database, at(store, 0)).len() == 30));
}

#[test]
fn memory_stays_within_the_budget_under_a_million_small_writes() {
    const BUDGET: u64 = 16 << 20;
    let directory = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"];
    let database = open(directory.path(), &names);
    let mut highest = 0;
    let mut key = 0u64;
    for _ in 0..500 {
        // Keys spread over the whole range, as hashes do.
        let batch = (0..2000u32).map(|row| {
            key += 1;
            put(at(row % 4, row % 3), key.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes(), [7; 16])
        });
        database.write(rows(batch)).unwrap();
        highest = highest.max(database.usage().memory_bytes);
        assert!(database.write_buffers.get_usage() <= database.write_buffer_limit + (1 << 20));
    }
    assert!(highest <= BUDGET + BUDGET / 8, "{highest} bytes");
}

#[test]
fn writers_side_by_side_in_a_small_budget_all_come_through() {
    let directory = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d"];
    let mut settings = settings(directory.path(), &names);
    settings.memory_bytes = MINIMUM_MEMORY_BYTES;
    let database = RocksDb::open(&settings).unwrap();
    let value = vec![5; 400];
    std::thread::scope(|scope| {
        for writer in 0..4u32 {
            let (database, value) = (&database, &value);
            scope.spawn(move || {
                for round in 0..12u32 {
                    // Every writer into every store, and far more at once than a write buffer takes.
                    let batch = (0..2000u32)
                        .map(|row| put(at(row % 4, writer), [round.to_be_bytes(), row.to_be_bytes()].concat(), value));
                    database.write(rows(batch)).unwrap();
                }
            });
        }
    });
    assert!((0..16u32).all(|place| keys(&database, at(place % 4, place / 4)).len() == 6_000));
}

#[test]
fn a_scan_left_open_does_not_stop_the_writers() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path(), &["a", "b"]);
    database.write(rows([put(at(0, 0), b"1", b"v"), put(at(0, 0), b"2", b"v")])).unwrap();
    let (began, beginning) = std::sync::mpsc::channel();
    let (written, writing) = std::sync::mpsc::channel();
    let minute = std::time::Duration::from_mins(1);
    std::thread::scope(|scope| {
        let database = &database;
        let scanned = scope.spawn(move || {
            let mut seen = 0;
            let visit = &mut |_: &[u8], _: &[u8]| {
                if seen == 0 {
                    began.send(()).unwrap();
                    writing.recv_timeout(minute).unwrap();
                }
                seen += 1;
                std::ops::ControlFlow::Continue(())
            };
            database.scan(at(0, 0), KeyRange { from: b"", to: None }, Direction::Forward, visit).unwrap();
            seen
        });
        beginning.recv_timeout(minute).unwrap();
        let value = vec![5; 1000];
        for round in 0..40u32 {
            let batch =
                (0..1000u32).map(|row| put(at(row % 2, 0), [round.to_be_bytes(), row.to_be_bytes()].concat(), &value));
            database.write(rows(batch)).unwrap();
        }
        written.send(()).unwrap();
        // It sees the partition as it was when it began.
        assert_eq!(scanned.join().unwrap(), 2);
    });
}
