//! What every backend owes: one suite, run on each of them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::memory::Memory;
use super::mixed::Mixed;
use super::rocksdb::{RocksDb, RocksDbSettings};
use super::{Backend, ChangelogPosition, Direction, Error, KeyRange, Run, SharedBackend, StorePartition, WriteBatch};
use crate::ids::{Offset, Partition, StoreId, TopicPartition};

/// A backend with the stores 0, 1 and 2.
struct Opened {
    backend: SharedBackend,
    _directory: Option<TempDir>,
}

fn memory() -> Opened {
    Opened { backend: Arc::new(Memory::new()), _directory: None }
}

fn open_rocksdb(stores: &[u32]) -> (RocksDb, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = RocksDbSettings::new(directory.path().join("rocksdb"), 16 << 20);
    settings.stores = stores.iter().map(|id| (StoreId(*id), Arc::from(format!("store_{id}")))).collect();
    (RocksDb::open(&settings).unwrap(), directory)
}

fn rocksdb() -> Opened {
    let (backend, directory) = open_rocksdb(&[0, 1, 2]);
    Opened { backend: Arc::new(backend), _directory: Some(directory) }
}

fn mixed() -> Opened {
    let (rocksdb, directory) = open_rocksdb(&[0, 2]);
    Opened { backend: Arc::new(Mixed::new(rocksdb, vec![StoreId(1)])), _directory: Some(directory) }
}

macro_rules! on_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod on_memory {
            $(#[test] fn $test() { super::$test(&*super::memory().backend); })+
        }
        mod on_rocksdb {
            $(#[test] fn $test() { super::$test(&*super::rocksdb().backend); })+
        }
        mod on_both_at_once {
            $(#[test] fn $test() { super::$test(&*super::mixed().backend); })+
        }
    };
}

on_every_backend![
    a_row_reads_back_as_written_until_it_is_overwritten_or_deleted,
    the_last_write_of_a_key_within_a_batch_wins,
    an_empty_key_and_an_empty_value_are_a_row,
    keys_and_values_may_hold_any_bytes,
    a_batched_look_up_answers_in_the_order_asked,
    a_scan_is_ordered_by_key_bytes_in_both_directions,
    a_scan_includes_from_and_excludes_to_in_both_directions,
    a_scan_ends_where_its_visitor_says_so,
    an_empty_or_backward_range_visits_nothing,
    partitions_and_stores_are_isolated_from_each_other,
    a_batch_over_several_stores_is_seen_whole_with_its_positions_and_inputs,
    a_scan_beside_a_writer_sees_every_batch_whole,
    a_batch_naming_an_unknown_store_writes_nothing,
    a_position_is_replaced_by_a_later_one,
    wiping_removes_rows_and_position_of_that_partition_only,
    a_wipe_spares_the_empty_key_of_the_next_partition,
    a_wiped_partition_can_be_written_again,
    a_run_is_visible_with_its_position_and_the_last_row_of_a_key_wins,
    partitions_with_rows_or_a_position_are_listed,
    usage_grows_with_what_is_kept,
];

const STORE: StoreId = StoreId(0);

pub(super) fn at(store: u32, partition: u32) -> StorePartition {
    StorePartition { store: StoreId(store), partition: Partition(partition) }
}

/// A row, or that there is none any more.
pub(super) type RowWrite = (StorePartition, Vec<u8>, Option<Vec<u8>>);

pub(super) fn put(at: StorePartition, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> RowWrite {
    (at, key.as_ref().into(), Some(value.as_ref().into()))
}

fn delete(at: StorePartition, key: &[u8]) -> RowWrite {
    (at, key.into(), None)
}

pub(super) fn rows(rows: impl IntoIterator<Item = RowWrite>) -> WriteBatch {
    let mut batch = WriteBatch::default();
    for (at, key, value) in rows {
        let place = batch.rows.iter().position(|(other, _)| *other == at).unwrap_or_else(|| {
            batch.rows.push((at, Run::default()));
            batch.rows.len() - 1
        });
        batch.rows[place].1.push(&key, value.as_deref());
    }
    batch
}

pub(super) fn position(offset: i64) -> ChangelogPosition {
    ChangelogPosition { topic_id: "topic-id".to_owned(), offset: Offset(offset), written_at: 1_700_000_000_000_000 }
}

pub(super) fn get(backend: &dyn Backend, at: StorePartition, key: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    backend.get(at, key, &mut |value| found = Some(value.map(<[u8]>::to_vec))).unwrap();
    found.expect("`visit` is called")
}

fn scan(
    backend: &dyn Backend,
    at: StorePartition,
    from: &[u8],
    to: Option<&[u8]>,
    direction: Direction,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let visit = &mut |key: &[u8], value: &[u8]| {
        found.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    };
    backend.scan(at, KeyRange { from, to }, direction, visit).unwrap();
    found
}

pub(super) fn keys(backend: &dyn Backend, at: StorePartition) -> Vec<Vec<u8>> {
    scan(backend, at, b"", None, Direction::Forward).into_iter().map(|(key, _)| key).collect()
}

fn a_row_reads_back_as_written_until_it_is_overwritten_or_deleted(backend: &dyn Backend) {
    assert_eq!(get(backend, at(0, 0), b"k"), None);
    backend.write(rows([put(at(0, 0), b"k", b"1")])).unwrap();
    assert_eq!(get(backend, at(0, 0), b"k").as_deref(), Some(&b"1"[..]));
    backend.write(rows([put(at(0, 0), b"k", b"22")])).unwrap();
    assert_eq!(get(backend, at(0, 0), b"k").as_deref(), Some(&b"22"[..]));
    backend.write(rows([delete(at(0, 0), b"k"), delete(at(0, 0), b"never there")])).unwrap();
    assert_eq!(get(backend, at(0, 0), b"k"), None);
    assert!(keys(backend, at(0, 0)).is_empty());
}

fn the_last_write_of_a_key_within_a_batch_wins(backend: &dyn Backend) {
    let here = at(0, 0);
    let batch = [put(here, b"a", b"1"), delete(here, b"a"), put(here, b"b", b"1"), put(here, b"b", b"2")];
    backend.write(rows(batch.into_iter().chain([delete(here, b"c"), put(here, b"c", b"3")]))).unwrap();
    assert_eq!(get(backend, here, b"a"), None);
    assert_eq!(get(backend, here, b"b").as_deref(), Some(&b"2"[..]));
    assert_eq!(get(backend, here, b"c").as_deref(), Some(&b"3"[..]));
}

fn an_empty_key_and_an_empty_value_are_a_row(backend: &dyn Backend) {
    backend.write(rows([put(at(0, 3), b"", b"")])).unwrap();
    assert_eq!(get(backend, at(0, 3), b"").as_deref(), Some(&b""[..]));
    assert_eq!(keys(backend, at(0, 3)), [b""]);
    assert!(keys(backend, at(0, 2)).is_empty());
}

fn keys_and_values_may_hold_any_bytes(backend: &dyn Backend) {
    let long = vec![0xFF; 5000];
    let all: Vec<&[u8]> = vec![b"\0", b"\0\0", b"\xFF", b"\xFF\xFF\xFF\xFF\xFF", &long];
    backend.write(rows(all.iter().map(|key| put(at(0, 1), key, key)))).unwrap();
    for key in &all {
        assert_eq!(get(backend, at(0, 1), key).as_deref(), Some(*key));
    }
    assert_eq!(keys(backend, at(0, 1)).len(), all.len());
}

fn a_batched_look_up_answers_in_the_order_asked(backend: &dyn Backend) {
    let here = at(0, 1);
    backend.write(rows((0..100u8).filter(|n| n % 2 == 0).map(|n| put(here, [n], [n, n])))).unwrap();
    backend.write(rows([put(at(0, 2), [1], b"of another partition")])).unwrap();
    for asked in [vec![5u8, 4, 98, 4, 99, 0], (0..100).collect(), vec![]] {
        let keys: Vec<[u8; 1]> = asked.iter().map(|n| [*n]).collect();
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let mut answers = Vec::new();
        backend.multi_get(here, &keys, &mut |index, value| answers.push((index, value.map(<[u8]>::to_vec)))).unwrap();
        let expected: Vec<_> = asked.iter().map(|n| (n % 2 == 0).then(|| vec![*n, *n])).enumerate().collect();
        assert_eq!(answers, expected);
    }
}

const SORTED: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"ab", b"b", b"\xFF"];

fn a_scan_is_ordered_by_key_bytes_in_both_directions(backend: &dyn Backend) {
    // Written in two batches and out of order.
    for part in [&[4usize, 0, 6][..], &[5, 2, 1, 3][..]] {
        backend.write(rows(part.iter().map(|index| put(at(0, 1), SORTED[*index], b"v")))).unwrap();
    }
    backend.write(rows([put(at(0, 0), b"z", b""), put(at(0, 2), b"", b"")])).unwrap();
    assert_eq!(keys(backend, at(0, 1)), SORTED);
    let mut backward = scan(backend, at(0, 1), b"", None, Direction::Backward);
    backward.reverse();
    assert_eq!(backward, scan(backend, at(0, 1), b"", None, Direction::Forward));
}

fn a_scan_includes_from_and_excludes_to_in_both_directions(backend: &dyn Backend) {
    backend.write(rows(SORTED.iter().map(|key| put(at(0, 1), key, key)))).unwrap();
    let bounds: Vec<&[u8]> = SORTED.into_iter().chain([&b"aa"[..], b"c", b"\xFF\xFF"]).collect();
    for from in &bounds {
        for to in bounds.iter().map(|to| Some(*to)).chain([None]) {
            let within = |key: &&[u8]| *key >= *from && to.is_none_or(|to| *key < to);
            let mut expected: Vec<Vec<u8>> = SORTED.into_iter().filter(within).map(<[u8]>::to_vec).collect();
            for direction in [Direction::Forward, Direction::Backward] {
                let found = scan(backend, at(0, 1), from, to, direction);
                let found: Vec<Vec<u8>> = found.into_iter().map(|(key, _)| key).collect();
                assert_eq!(found, expected, "{direction:?} {from:?} {to:?}");
                expected.reverse();
            }
        }
    }
}

fn a_scan_ends_where_its_visitor_says_so(backend: &dyn Backend) {
    backend.write(rows(SORTED.iter().map(|key| put(at(0, 1), key, key)))).unwrap();
    for (direction, expected) in [(Direction::Forward, SORTED[1]), (Direction::Backward, SORTED[5])] {
        let mut seen = Vec::new();
        let visit = &mut |key: &[u8], _: &[u8]| {
            seen.push(key.to_vec());
            if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        backend.scan(at(0, 1), KeyRange { from: b"", to: None }, direction, visit).unwrap();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[1], expected);
    }
}

fn an_empty_or_backward_range_visits_nothing(backend: &dyn Backend) {
    backend.write(rows(SORTED.iter().map(|key| put(at(0, 1), key, key)))).unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        assert!(scan(backend, at(0, 1), b"b", Some(b"b"), direction).is_empty());
        assert!(scan(backend, at(0, 1), b"b", Some(b"a"), direction).is_empty());
        assert!(scan(backend, at(0, 9), b"", None, direction).is_empty());
    }
}

fn partitions_and_stores_are_isolated_from_each_other(backend: &dyn Backend) {
    let places = [at(0, 0), at(0, 1), at(0, 255), at(0, 256), at(1, 0), at(2, 65_536)];
    backend.write(rows(places.iter().map(|place| put(*place, b"k", format!("{place:?}"))))).unwrap();
    for place in places {
        assert_eq!(get(backend, place, b"k"), Some(format!("{place:?}").into_bytes()));
        assert_eq!(keys(backend, place), [b"k"]);
        assert_eq!(scan(backend, place, b"", None, Direction::Backward).len(), 1);
    }
    backend.write(rows([delete(at(0, 1), b"k")])).unwrap();
    assert_eq!(get(backend, at(0, 1), b"k"), None);
    assert!(get(backend, at(1, 0), b"k").is_some());
}

fn a_batch_over_several_stores_is_seen_whole_with_its_positions_and_inputs(backend: &dyn Backend) {
    let input = TopicPartition::new("orders", Partition(1));
    assert_eq!(backend.input_offset(&input).unwrap(), None);
    let batch = WriteBatch {
        rows: rows([put(at(0, 1), b"k", b"0"), put(at(1, 1), b"k", b"1"), put(at(2, 1), b"k", b"2")]).rows,
        positions: vec![(at(0, 1), position(10)), (at(2, 1), position(20))],
        inputs: vec![(input.clone(), Offset(7)), (TopicPartition::new("orders", Partition(2)), Offset(8))],
    };
    backend.write(batch).unwrap();
    for store in 0..3 {
        assert_eq!(get(backend, at(store, 1), b"k"), Some(store.to_string().into_bytes()));
    }
    assert_eq!(backend.changelog_position(at(0, 1)).unwrap(), Some(position(10)));
    assert_eq!(backend.changelog_position(at(1, 1)).unwrap(), None);
    assert_eq!(backend.changelog_position(at(2, 1)).unwrap(), Some(position(20)));
    assert_eq!(backend.changelog_position(at(0, 2)).unwrap(), None);
    assert_eq!(backend.input_offset(&input).unwrap(), Some(Offset(7)));
    assert_eq!(backend.input_offset(&TopicPartition::new("orders", Partition(0))).unwrap(), None);
}

fn a_scan_beside_a_writer_sees_every_batch_whole(backend: &dyn Backend) {
    const KEYS: u8 = 50;
    let write_all = |value: u32| backend.write(rows((0..KEYS).map(|key| put(at(0, 0), [key], value.to_be_bytes()))));
    write_all(0).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for value in 1..300 {
                write_all(value).unwrap();
            }
            ended.store(true, Ordering::SeqCst);
        });
        let mut last = 0;
        while !ended.load(Ordering::SeqCst) {
            let seen = scan(backend, at(0, 0), b"", None, Direction::Forward);
            assert_eq!(seen.len(), usize::from(KEYS));
            assert!(seen.iter().all(|(_, value)| *value == seen[0].1), "half of a batch: {seen:?}");
            let value = u32::from_be_bytes(seen[0].1[..].try_into().unwrap());
            assert!(value >= last, "went back from {last} to {value}");
            last = value;
        }
    });
}

fn a_batch_naming_an_unknown_store_writes_nothing(backend: &dyn Backend) {
    let result = backend.write(rows([put(at(0, 0), b"k", b"v"), put(at(99, 0), b"k", b"v")]));
    // The memory backend takes any store; one with a fixed set must refuse before it has written anything.
    if let Err(error) = result {
        assert!(matches!(error, Error::UnknownStore { store: StoreId(99) }), "{error}");
        assert_eq!(get(backend, at(0, 0), b"k"), None);
    }
}

fn a_position_is_replaced_by_a_later_one(backend: &dyn Backend) {
    for offset in [1, 5, 6] {
        let batch = WriteBatch { positions: vec![(at(0, 1), position(offset))], ..WriteBatch::default() };
        backend.write(batch).unwrap();
        assert_eq!(backend.changelog_position(at(0, 1)).unwrap(), Some(position(offset)));
    }
}

fn wiping_removes_rows_and_position_of_that_partition_only(backend: &dyn Backend) {
    let places = [at(0, 0), at(0, 1), at(0, 2), at(1, 1)];
    let input = TopicPartition::new("orders", Partition(1));
    for place in places {
        backend
            .write(WriteBatch {
                rows: rows((0..200u8).map(|key| put(place, [key, 1], b"v"))).rows,
                positions: vec![(place, position(3))],
                inputs: vec![(input.clone(), Offset(9))],
            })
            .unwrap();
    }
    backend.wipe(at(0, 1)).unwrap();
    backend.wipe(at(0, 7)).unwrap();
    backend.reclaim(at(0, 1)).unwrap();
    assert!(keys(backend, at(0, 1)).is_empty());
    assert_eq!(get(backend, at(0, 1), &[3, 1]), None);
    assert_eq!(backend.changelog_position(at(0, 1)).unwrap(), None);
    for place in [at(0, 0), at(0, 2), at(1, 1)] {
        assert_eq!(keys(backend, place).len(), 200);
        assert_eq!(backend.changelog_position(place).unwrap(), Some(position(3)));
    }
    assert_eq!(backend.input_offset(&input).unwrap(), Some(Offset(9)));
}

fn a_wipe_spares_the_empty_key_of_the_next_partition(backend: &dyn Backend) {
    backend.write(rows([put(at(0, 1), b"\xFF\xFF\xFF\xFF", b"v"), put(at(0, 2), b"", b"next")])).unwrap();
    backend.reclaim(at(0, 1)).unwrap();
    backend.wipe(at(0, 1)).unwrap();
    assert_eq!(get(backend, at(0, 2), b"").as_deref(), Some(&b"next"[..]));
    assert!(keys(backend, at(0, 1)).is_empty());
}

fn a_wiped_partition_can_be_written_again(backend: &dyn Backend) {
    backend.write(rows([put(at(0, 1), b"old", b"v"), put(at(0, 1), b"both", b"old")])).unwrap();
    backend.wipe(at(0, 1)).unwrap();
    backend.write(rows([put(at(0, 1), b"new", b"v"), put(at(0, 1), b"both", b"new")])).unwrap();
    assert_eq!(keys(backend, at(0, 1)), [&b"both"[..], b"new"]);
    assert_eq!(get(backend, at(0, 1), b"both").as_deref(), Some(&b"new"[..]));
}

fn a_run_is_visible_with_its_position_and_the_last_row_of_a_key_wins(backend: &dyn Backend) {
    let value = vec![7; 1000];
    backend.write(rows([put(at(0, 1), 7u32.to_be_bytes(), b"old"), put(at(0, 1), b"kept", b"old")])).unwrap();
    let mut run = Run::default();
    for key in (0..3000u32).rev() {
        run.push(&key.to_be_bytes(), Some(&value));
    }
    run.push(&5u32.to_be_bytes(), None);
    run.push(&6u32.to_be_bytes(), None);
    run.push(&6u32.to_be_bytes(), Some(b"again"));
    backend.begin_runs(StoreId(0));
    backend.write_run(at(0, 1), &mut run, position(3003)).unwrap();
    assert_eq!(keys(backend, at(0, 1)).len(), 3000);
    assert_eq!(get(backend, at(0, 1), &5u32.to_be_bytes()), None);
    assert_eq!(get(backend, at(0, 1), &6u32.to_be_bytes()).as_deref(), Some(&b"again"[..]));
    assert_eq!(get(backend, at(0, 1), &7u32.to_be_bytes()).as_deref(), Some(&*value));
    assert_eq!(backend.changelog_position(at(0, 1)).unwrap(), Some(position(3003)));
    run.clear();
    run.push(b"kept", None);
    backend.write_run(at(0, 1), &mut run, position(3004)).unwrap();
    backend.write_run(at(0, 1), &mut Run::default(), position(3005)).unwrap();
    backend.end_runs(StoreId(0));
    assert_eq!(keys(backend, at(0, 1)).len(), 2999);
    assert_eq!(backend.changelog_position(at(0, 1)).unwrap(), Some(position(3005)));
    backend.write(rows([put(at(0, 1), b"kept", b"new")])).unwrap();
    assert_eq!(get(backend, at(0, 1), b"kept").as_deref(), Some(&b"new"[..]));
}

fn partitions_with_rows_or_a_position_are_listed(backend: &dyn Backend) {
    assert!(backend.partitions(STORE).unwrap().is_empty());
    backend
        .write(WriteBatch {
            rows: rows([
                put(at(0, 300), b"", b""),
                put(at(0, 2), b"k", b"v"),
                put(at(0, 2), b"l", b"v"),
                put(at(1, 4), b"", b""),
            ])
            .rows,
            positions: vec![(at(0, 9), position(0)), (at(0, 2), position(0)), (at(1, 5), position(0))],
            inputs: Vec::new(),
        })
        .unwrap();
    assert_eq!(backend.partitions(STORE).unwrap(), [2, 9, 300].map(Partition));
    assert_eq!(backend.partitions(StoreId(1)).unwrap(), [4, 5].map(Partition));
    backend.wipe(at(0, 2)).unwrap();
    backend.write(rows([delete(at(0, 300), b"")])).unwrap();
    assert_eq!(backend.partitions(STORE).unwrap(), [9].map(Partition));
}

fn usage_grows_with_what_is_kept(backend: &dyn Backend) {
    let before = backend.usage();
    let value = vec![1; 10_000];
    backend.write(rows((0..200u32).map(|key| put(at(0, 0), key.to_be_bytes(), &value)))).unwrap();
    backend.flush().unwrap();
    let after = backend.usage();
    assert!(
        after.memory_bytes + after.disk_bytes >= before.memory_bytes + before.disk_bytes + 2_000_000,
        "{before:?} {after:?}"
    );
}
