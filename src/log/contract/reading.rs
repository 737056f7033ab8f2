//! Positions, limits and failures of a fetcher.

use std::time::Duration;

use super::scene::{SLOT, STEP, Scene, at};
use crate::ids::{EventTime, Offset, TopicName};
use crate::log::{Cleanup, Error, FetchSlot, Fetched, NewTopic, Next, OffsetQuery, OutgoingRecord, SharedLog};

pub(super) fn an_offset_out_of_range_fails_its_slot_alone(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 2);
    scene.write(&output, 0, &["zero"]);
    scene.write(&output, 1, &["one"]);
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    reader.fetcher.assign(FetchSlot(5), &at(&output, 1), Offset(100)).unwrap();
    let error = scene.until("the slot fails", || {
        reader.step();
        reader.failed.pop()
    });
    assert_eq!(error, (FetchSlot(5), Error::OffsetOutOfRange { partition: at(&output, 1), offset: Offset(100) }));
    reader.read_to(&scene, scene.end(&output, 0));
    assert_eq!(reader.take(), ["zero"]);
    // It can be put right.
    reader.fetcher.assign(FetchSlot(5), &at(&output, 1), Offset::ZERO).unwrap();
    scene.until("the record comes", || {
        reader.step();
        (reader.texts.as_slice() == ["one"]).then_some(())
    });
    assert_eq!(reader.failed, []);
}

pub(super) fn a_slot_that_is_put_right_at_once_is_read(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    scene.write(&output, 0, &["zero", "one"]);
    let end = scene.end(&output, 0);
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    reader.read_to(&scene, end);
    assert_eq!(reader.take(), ["zero", "one"]);
    for attempt in 0..50 {
        // Too high, or read already; what is found out about it comes in its own time.
        reader.assign(&output, 0, Offset(if attempt % 2 == 0 { 100 } else { 0 }));
        reader.step();
        reader.failed.clear();
        reader.take();
        reader.assign(&output, 0, Offset(1));
        reader.read_to(&scene, end);
        assert_eq!(reader.take(), ["one"]);
    }
}

pub(super) fn a_missing_topic_is_named(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let missing = TopicName::new(scene.name("missing"));
    let described = scene.log.describe_topics(&[missing.clone(), scene.input.clone()]).unwrap();
    assert_eq!(described[0], None);
    assert_eq!(described[1].as_ref().unwrap().name, scene.input);
    let error = scene.log.offsets(OffsetQuery::End, &[at(&missing, 0)]).unwrap_err();
    assert_eq!(error, Error::TopicMissing { topic: missing.clone() });
    scene.log.delete_topics(&[missing]).unwrap();
    let again = NewTopic {
        name: scene.input.clone(),
        partitions: 1,
        replication: None,
        cleanup: Cleanup::Delete,
        config: Vec::new(),
    };
    assert_eq!(scene.log.create_topic(&again), Err(Error::TopicExists { topic: scene.input.clone() }));
    let wrong = NewTopic { name: TopicName::new(format!("{prefix} a/b")), ..again };
    assert_eq!(scene.log.create_topic(&wrong).unwrap_err().next(), Next::Wait);
}

pub(super) fn offsets_are_found_by_time(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    for time in [1_700_000_001_000, 1_700_000_002_000, 1_700_000_003_000] {
        let record = OutgoingRecord { key: None, value: Some(b"x"), timestamp: EventTime(time), headers: &[] };
        scene.send(producer.as_mut(), &output, 0, record);
    }
    scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    scene.until("the control record is written", || (scene.end(&output, 0) == Offset(4)).then_some(()));
    let find = |time| scene.log.offsets(OffsetQuery::At(EventTime(time)), &[at(&output, 0), at(&output, 0)]).unwrap();
    assert_eq!(find(0), [Offset(0), Offset(0)]);
    assert_eq!(find(1_700_000_001_001), [Offset(1), Offset(1)]);
    assert_eq!(find(1_700_000_003_000), [Offset(2), Offset(2)]);
    assert_eq!(find(4_000_000_000_000), [Offset(4), Offset(4)], "the end, where there is none");
    assert_eq!(scene.log.offsets(OffsetQuery::Start, &[at(&output, 0)]).unwrap(), [Offset(0)]);
}

pub(super) fn an_assigned_slot_is_repositioned(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 2);
    scene.write(&output, 0, &["a", "b", "c"]);
    scene.write(&output, 1, &["other"]);
    let end = scene.end(&output, 0);
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    reader.read_to(&scene, end);
    assert_eq!(reader.take(), ["a", "b", "c"]);
    reader.assign(&output, 0, Offset(1));
    reader.read_to(&scene, end);
    assert_eq!(reader.take(), ["b", "c"]);
    reader.assign(&output, 0, Offset(2));
    reader.assign(&output, 0, Offset(0));
    reader.read_to(&scene, end);
    assert_eq!(reader.take(), ["a", "b", "c"], "nothing twice, and nothing of the position in between");
    reader.fetcher.unassign(SLOT).unwrap();
    reader.assign(&output, 1, Offset::ZERO);
    reader.read_to(&scene, scene.end(&output, 1));
    assert_eq!(reader.take(), ["other"], "a slot may get another partition");
}

pub(super) fn a_paused_slot_hands_out_nothing(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    assert_eq!(reader.next_end(&scene), Offset::ZERO);
    reader.fetcher.pause(SLOT).unwrap();
    scene.write(&output, 0, &["a", "b"]);
    for _ in 0..10 {
        reader.step();
    }
    assert_eq!((reader.take(), reader.ends.pop()), (vec![], None));
    reader.fetcher.resume(SLOT).unwrap();
    reader.read_to(&scene, scene.end(&output, 0));
    assert_eq!(reader.take(), ["a", "b"]);
}

pub(super) fn a_fetch_keeps_its_limit(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    scene.write(&output, 0, &["a", "b", "c", "d", "e"]);
    let end = scene.end(&output, 0);
    let mut fetcher = scene.log.fetcher(&scene.name("reader")).unwrap();
    fetcher.assign(SLOT, &at(&output, 0), Offset::ZERO).unwrap();
    let mut fetched = Vec::new();
    scene.until("everything comes", || {
        let before = fetched.len();
        fetcher.fetch(&mut fetched, 2, STEP).unwrap();
        assert!(fetched.len() - before <= 2);
        matches!(fetched.last(), Some(Fetched::End(_, reached)) if *reached >= end).then_some(())
    });
    let records: Vec<Offset> = fetched
        .iter()
        .filter_map(|event| if let Fetched::Record(_, record) = event { Some(record.offset) } else { None })
        .collect();
    assert_eq!(records, [0, 1, 2, 3, 4].map(Offset));
    let mut nothing = Vec::new();
    fetcher.fetch(&mut nothing, 2, Duration::ZERO).unwrap();
    assert!(nothing.is_empty(), "an end is told once: {nothing:?}");
}
