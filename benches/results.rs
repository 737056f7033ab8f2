//! Whether two programs did the same work: the last row of every key of their outputs.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{FetchSlot, Fetched, Log, OffsetQuery};

use crate::support::cluster::Kafka;
use crate::support::eventually;

const PATIENCE: Duration = Duration::from_mins(2);
/// Sums of doubles depend on how they are added up: as a share of the value.
const TOLERANCE: f64 = 1e-9;

/// How many keys there are.
///
/// # Panics
/// Where one topic has a key that the other lacks, or another last row.
pub fn assert_equal(kafka: &Kafka, topic: &str, other_topic: &str, partitions: u32) -> usize {
    let rows = last_rows(kafka, topic, partitions);
    let others = last_rows(kafka, other_topic, partitions);
    assert_eq!(rows.len(), others.len(), "keys of {topic} and of {other_topic}");
    for (key, row) in &rows {
        let name = String::from_utf8_lossy(key);
        let other = others.get(key).unwrap_or_else(|| panic!("{other_topic} has no {name}"));
        let (row, other): (Value, Value) =
            (serde_json::from_slice(row).unwrap(), serde_json::from_slice(other).unwrap());
        assert!(is_same(&row, &other), "{name}: {row} in {topic}, {other} in {other_topic}");
    }
    rows.len()
}

/// Rows of one level.
fn is_same(row: &Value, other: &Value) -> bool {
    let (Value::Object(row), Value::Object(other)) = (row, other) else { return row == other };
    row.len() == other.len()
        && row.iter().all(|(name, value)| match (value.as_f64(), other.get(name).and_then(Value::as_f64)) {
            (Some(value), Some(other)) => (value - other).abs() <= value.abs() * TOLERANCE,
            _ => other.get(name) == Some(value),
        })
}

fn last_rows(kafka: &Kafka, topic: &str, partitions: u32) -> HashMap<Box<[u8]>, Box<[u8]>> {
    let partitions: Vec<TopicPartition> =
        (0..partitions).map(|number| TopicPartition::new(TopicName::new(topic), Partition(number))).collect();
    let ends = kafka.log.offsets(OffsetQuery::End, &partitions).unwrap();
    let mut fetcher = kafka.log.fetcher("bench-results").unwrap();
    for (slot, partition) in (0..).map(FetchSlot).zip(&partitions) {
        fetcher.assign(slot, partition, Offset::ZERO).unwrap();
    }
    let mut rows = HashMap::new();
    let mut done = vec![false; partitions.len()];
    let mut events = Vec::new();
    eventually("a topic read to its end", PATIENCE, || {
        fetcher.fetch(&mut events, 10_000, Duration::from_millis(50)).unwrap();
        for event in events.drain(..) {
            match event {
                Fetched::Record(_, record) => {
                    let (key, value) = (record.key().unwrap(), record.value());
                    rows.insert(Box::from(key), value.map(Box::from).unwrap_or_default());
                }
                Fetched::End(slot, end) => done[slot.0 as usize] |= end >= ends[slot.0 as usize],
                Fetched::Failed(_, error) => panic!("{topic}: {error}"),
            }
        }
        done.iter().all(|done| *done).then_some(())
    });
    rows
}
