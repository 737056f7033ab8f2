//! What the cache promises to its task, whatever is evicted, packed, erased or read ahead.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::ids::{Partition, StoreId};
use crate::schema::{Column, Schema, Type};
use crate::store::WriteBatch;
use crate::store::memory::Memory;

const AT: StorePartition = StorePartition { store: StoreId(0), partition: Partition(0) };

/// Some hundred decoded rows, and as many packed ones as there can be.
const LEAST_TO_PACK: usize = 100_000;

#[derive(Clone, Debug)]
enum Operation {
    Put(u8, i64),
    Delete(u8),
    Erase(u8),
    ReadAhead(u8, u8),
    Get(u8),
    Keys(u8, u8),
    Commit,
    Rollback,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        4 => (any::<u8>(), any::<i64>()).prop_map(|(key, value)| Operation::Put(key, value)),
        2 => any::<u8>().prop_map(Operation::Delete),
        2 => any::<u8>().prop_map(Operation::Erase),
        1 => any::<(u8, u8)>().prop_map(|(from, to)| Operation::ReadAhead(from, to)),
        3 => any::<u8>().prop_map(Operation::Get),
        2 => any::<(u8, u8)>().prop_map(|(from, to)| Operation::Keys(from, to)),
        1 => Just(Operation::Commit),
        1 => Just(Operation::Rollback),
    ]
}

impl Table {
    fn is_erased(&self, number: usize) -> bool {
        self.entries[self.dirty[number]].state == State::Erased
    }
}

fn table(backend: &SharedBackend, budget_bytes: usize) -> Table {
    let schema = Schema::new([Column::new("value", Type::Bigint, false)]);
    Table::new(AT, backend.clone(), RowCodec::only(1, schema), Access::ByKeyAndRange, budget_bytes)
}

fn commit(table: &mut Table, backend: &SharedBackend) {
    let mut run = Run::default();
    table
        .stage(|key, value| {
            run.push(key, value);
            Ok::<(), Error>(())
        })
        .unwrap();
    backend.write(WriteBatch { rows: vec![(AT, run)], ..WriteBatch::default() }).unwrap();
    table.committed();
}

fn value(stored: Option<&Stored>) -> Option<i64> {
    stored.map(|stored| match stored.row[..] {
        [Value::Bigint(value)] => value,
        ref other => panic!("{other:?}"),
    })
}

proptest! {
    /// Whatever is evicted, committed or rolled back in between, reads see what a plain map would.
    #[test]
    fn the_cache_reads_like_a_map_with_commits_and_rollbacks(
        operations in proptest::collection::vec(operation(), 1..1_000),
        budget_bytes in prop_oneof![Just(0_usize), Just(800), Just(LEAST_TO_PACK), Just(1 << 20)],
    ) {
        let backend: SharedBackend = Arc::new(Memory::new());
        let mut table = table(&backend, budget_bytes);
        let (mut committed, mut current) = (BTreeMap::new(), BTreeMap::new());
        for operation in operations {
            match operation {
                Operation::Put(key, value) => {
                    let id = table.entry(&[key]).unwrap();
                    table.put(id, Stored { row: vec![Value::Bigint(value)], time: EventTime(value) });
                    current.insert(key, value);
                }
                Operation::Delete(key) => {
                    let id = table.entry(&[key]).unwrap();
                    table.delete(id);
                    current.remove(&key);
                }
                Operation::Erase(key) => {
                    if current.remove(&key).is_some() {
                        table.erase(&[key]).unwrap();
                    }
                }
                Operation::ReadAhead(from, to) => {
                    let mut keys = Run::default();
                    (from..to).rev().for_each(|key| keys.push(&[key], None));
                    table.read_ahead(&mut keys).unwrap();
                }
                Operation::Get(key) => {
                    prop_assert_eq!(value(table.get(&[key]).unwrap()), current.get(&key).copied());
                }
                Operation::Keys(from, to) => {
                    let (from, to) = (from.min(to), from.max(to));
                    let range = KeyRange { from: &[from], to: Some(&[to]) };
                    let keys: Vec<u8> =
                        table.keys(range, usize::MAX).unwrap().iter().map(|key| key[0]).collect();
                    let expected: Vec<u8> = current.range(from..to).map(|(key, _)| *key).collect();
                    prop_assert_eq!(keys, expected);
                }
                Operation::Commit => {
                    for number in 0..table.dirty_len() {
                        let dirty = table.dirty(number);
                        let key = dirty.key[0];
                        if !table.is_erased(number) {
                            prop_assert_eq!(value(dirty.before), committed.get(&key).copied());
                        }
                        prop_assert_eq!(value(dirty.after), current.get(&key).copied());
                    }
                    commit(&mut table, &backend);
                    committed.clone_from(&current);
                }
                Operation::Rollback => {
                    table.rollback();
                    current.clone_from(&committed);
                }
            }
        }
    }
}

#[test]
fn clean_rows_are_evicted_down_to_the_budget_and_dirty_ones_never() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut table = table(&backend, 2_000);
    for key in 0..200_u8 {
        let id = table.entry(&[key]).unwrap();
        table.put(id, Stored { row: vec![Value::Bigint(i64::from(key))], time: EventTime(0) });
    }
    assert_eq!(table.dirty_len(), 200);
    commit(&mut table, &backend);
    assert!(table.bytes <= 2_000, "{} bytes", table.bytes);
    for key in 0..200_u8 {
        assert_eq!(value(table.get(&[key]).unwrap()), Some(i64::from(key)));
    }
    assert!(table.look_ups.missed > 150, "{:?}", table.look_ups);
}

#[test]
fn rows_that_left_the_decoded_part_come_back_without_asking_the_backend() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut table = table(&backend, LEAST_TO_PACK);
    for key in 0..1_000_u16 {
        let id = table.entry(&key.to_be_bytes()).unwrap();
        table.put(id, Stored { row: vec![Value::Bigint(i64::from(key))], time: EventTime(3) });
        if key % 100 == 99 {
            commit(&mut table, &backend);
        }
    }
    assert_eq!(table.look_ups.missed, 1_000);
    assert!(table.bytes < LEAST_TO_PACK / 3, "{} decoded bytes", table.bytes);
    for key in 0..1_000_u16 {
        let expected = Stored { row: vec![Value::Bigint(i64::from(key))], time: EventTime(3) };
        assert_eq!(table.get(&key.to_be_bytes()).unwrap(), Some(&expected));
    }
    assert_eq!(table.look_ups.missed, 1_000);
    // What is deleted does not come back either.
    for key in 0..1_000_u16 {
        let id = table.entry(&key.to_be_bytes()).unwrap();
        table.delete(id);
    }
    commit(&mut table, &backend);
    assert_eq!(table.get(&7_u16.to_be_bytes()).unwrap(), None);
}

#[test]
fn changed_rows_push_out_none_that_are_kept() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut table = table(&backend, 1 << 20);
    let put = |table: &mut Table, keys: std::ops::Range<u32>| {
        for key in keys {
            let id = table.entry(&key.to_be_bytes()).unwrap();
            table.put(id, Stored { row: vec![Value::Bigint(1)], time: EventTime(3) });
        }
    };
    put(&mut table, 0..5_000);
    commit(&mut table, &backend);
    assert_eq!(table.dirty_bytes(), 0);
    put(&mut table, 5_000..15_000);
    assert!(table.dirty_bytes() > 2 << 20, "{} bytes", table.dirty_bytes());
    table.take_look_ups();
    for key in 0..5_000_u32 {
        assert_eq!(value(table.get(&key.to_be_bytes()).unwrap()), Some(1));
    }
    assert_eq!(table.take_look_ups(), LookUps { all: 5_000, missed: 0, ahead: 0 });
    table.rollback();
    assert_eq!((table.dirty_bytes(), table.dirty_len()), (0, 0));
}

#[test]
fn the_decoded_part_is_as_large_as_it_is_useful() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut table = table(&backend, 4 << 20);
    let mut random = fastrand::Rng::with_seed(1);
    let most = table.decoded_bytes;
    let mut use_keys = |table: &mut Table, keys: u32| {
        for number in 0..3 * Answers::COUNT {
            let key = random.u32(..keys).to_be_bytes();
            let id = table.entry(&key).unwrap();
            let before = value(table.stored(id)).unwrap_or(0);
            table.put(id, Stored { row: vec![Value::Bigint(before + 1)], time: EventTime(3) });
            if number % 1_000 == 999 {
                commit(table, &backend);
            }
        }
        commit(table, &backend);
    };
    use_keys(&mut table, 1_000);
    assert_eq!(table.decoded_bytes, most, "all rows are in it");
    use_keys(&mut table, 40_000);
    assert_eq!(table.decoded_bytes, most / 4, "most rows have left it when they are asked for");
    assert!(table.bytes <= most / 4, "{} bytes", table.bytes);
    assert_eq!(table.look_ups.missed, u64::try_from(table.index.len() + table.packed.len()).unwrap());
    for key in 4_000..40_000_u32 {
        table.erase(&key.to_be_bytes()).unwrap();
    }
    commit(&mut table, &backend);
    use_keys(&mut table, 4_000);
    assert_eq!(table.decoded_bytes, most, "they would all fit again");
    let total: i64 = (0..4_000_u32).map(|key| value(table.get(&key.to_be_bytes()).unwrap()).unwrap_or(0)).sum();
    assert!(total > i64::from(6 * Answers::COUNT), "{total}");
}

#[test]
fn a_row_is_erased_without_being_read() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut first = table(&backend, 0);
    for key in [b"a", b"b", b"c"] {
        let id = first.entry(key).unwrap();
        first.put(id, Stored { row: vec![Value::Bigint(1)], time: EventTime(3) });
    }
    commit(&mut first, &backend);
    let mut table = table(&backend, 0);
    table.erase(b"a").unwrap();
    table.erase(b"b").unwrap();
    assert_eq!(table.look_ups, LookUps::default());
    // One that is asked for after all is as if it had been read first.
    assert_eq!(table.get(b"b").unwrap(), None);
    assert_eq!(value(table.dirty(1).before), Some(1));
    table.rollback();
    assert_eq!(value(table.get(b"a").unwrap()), Some(1));
    table.erase(b"c").unwrap();
    commit(&mut table, &backend);
    let range = KeyRange { from: b"", to: None };
    assert_eq!(table.keys(range, 9).unwrap(), [Box::from(*b"a"), Box::from(*b"b")] as [Box<[u8]>; 2]);
}

#[test]
fn rows_that_were_read_ahead_are_not_read_again() {
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut first = table(&backend, 0);
    let keys: Vec<[u8; 2]> = (0..1_500_u16).map(u16::to_be_bytes).collect();
    for key in &keys {
        let id = first.entry(key).unwrap();
        first.put(id, Stored { row: vec![Value::Bigint(1)], time: EventTime(3) });
    }
    commit(&mut first, &backend);
    let mut table = table(&backend, 4 * LEAST_TO_PACK);
    assert!(table.room_ahead().is_none());
    for key in &keys[..1024] {
        table.get(key).unwrap();
    }
    assert!(table.room_ahead().is_some(), "every row came from the backend");
    let mut ahead = Run::default();
    keys[1000..].iter().for_each(|key| ahead.push(key, None));
    ahead.push(b"absent", None);
    table.read_ahead(&mut ahead).unwrap();
    assert_eq!(table.take_look_ups(), LookUps { all: 1024, missed: 1024 + 476 + 1, ahead: 476 + 1 });
    assert_eq!(table.get(b"absent").unwrap(), None);
    for key in &keys[1000..] {
        assert_eq!(value(table.get(key).unwrap()), Some(1));
    }
    assert_eq!(table.take_look_ups(), LookUps { all: 501, missed: 0, ahead: 0 });
    for _ in 0..2 {
        for key in &keys {
            assert_eq!(value(table.get(key).unwrap()), Some(1));
        }
    }
    assert!(table.room_ahead().is_none(), "every row is cached");
}
