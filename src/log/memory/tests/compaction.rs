//! Compaction.

use std::time::Duration;

use super::scene::{SLOT, Scene, at, text};
use crate::ids::{EventTime, Offset, Partition};
use crate::log::{Cleanup, Log, OutgoingRecord};

fn put(scene: &Scene, key: &str, value: Option<&str>) {
    let value = value.map(str::as_bytes);
    let record = OutgoingRecord { key: Some(key.as_bytes()), value, timestamp: EventTime(0), headers: &[] };
    scene.log.append(&"table".into(), Partition(0), record).unwrap();
}

fn offsets(scene: &Scene) -> Vec<i64> {
    scene.log.compact(&"table".into()).unwrap();
    scene.log.records(&at("table", 0)).unwrap().iter().map(|record| record.offset.0).collect()
}

#[test]
fn compaction_keeps_the_last_record_per_key_at_its_offset() {
    let scene = Scene::new();
    scene.topic("table", 1, Cleanup::Compact);
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("c", "1"), ("a", "3")] {
        put(&scene, key, Some(value));
    }
    assert_eq!(offsets(&scene), [1, 3, 4]);
    assert_eq!(scene.log.high_watermark(&at("table", 0)).unwrap(), Offset(5));
    let mut fetcher = scene.log.fetcher("reader").unwrap();
    fetcher.assign(SLOT, &at("table", 0), Offset(0)).unwrap();
    let mut fetched = Vec::new();
    fetcher.fetch(&mut fetched, 10, Duration::ZERO).unwrap();
    assert_eq!(fetched.len(), 4, "a gap is no end: three records and the end");
}

#[test]
fn a_tombstone_stays_for_its_retention_after_the_first_cleaning() {
    let scene = Scene::new();
    scene.topic("table", 1, Cleanup::Compact);
    put(&scene, "a", Some("1"));
    put(&scene, "a", None);
    put(&scene, "b", Some("1"));
    assert_eq!(offsets(&scene), [1, 2]);
    scene.advance(86_399);
    assert_eq!(offsets(&scene), [1, 2]);
    scene.advance(1);
    assert_eq!(offsets(&scene), [2]);
}

#[test]
fn compaction_leaves_what_is_not_decided() {
    let scene = Scene::new();
    scene.topic("table", 1, Cleanup::Compact);
    let mut process = scene.process("a");
    put(&scene, "key", Some("old"));
    process.producer.begin().unwrap();
    let topic = process.producer.topic(&"table".into()).unwrap();
    process.producer.send(topic, Partition(0), text("undecided")).unwrap();
    assert_eq!(offsets(&scene), [0]);
    process.producer.abort().unwrap();
    assert_eq!(offsets(&scene), [0]);
}
