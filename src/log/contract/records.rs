//! Records, transactions, and what fences them.

use super::scene::{METADATA, Scene, at, sorted, texts};
use crate::ids::{EventTime, Offset, Partition, TopicPartition};
use crate::log::{
    Cleanup, Committed, GroupMetadata, Next, Outcome, OutgoingRecord, ProducerSettings, SendFailure, SharedLog,
};
use crate::row::Header;

pub(super) fn a_record_keeps_its_parts(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let headers = [
        Header { name: "trace".into(), value: Some(Box::from(*b"\x00\xff")) },
        Header { name: "absent".into(), value: None },
        Header { name: "trace".into(), value: Some(Box::from(*b"")) },
    ];
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    let handle = producer.topic(&output).unwrap();
    assert_eq!(producer.topic(&output).unwrap(), handle, "the same handle for the same name");
    producer.begin().unwrap();
    let part = |key, value, time, headers| OutgoingRecord { key, value, timestamp: EventTime(time), headers };
    let parts = [
        part(Some(b"key".as_slice()), Some(b"value".as_slice()), 1_700_000_000_123, headers.as_slice()),
        part(None, Some(b"without a key"), 2, &[]),
        part(Some(b"tombstone"), None, 1_700_000_000_000, &[]),
        part(Some(b""), Some(b""), 1, &[]),
    ];
    for record in parts {
        scene.send(producer.as_mut(), &output, 0, record);
    }
    scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    let records = scene.read(&output, 0, Offset::ZERO);
    assert_eq!(records.len(), parts.len());
    for (record, part) in records.iter().zip(parts) {
        assert_eq!((record.key(), record.value()), (part.key, part.value));
        assert_eq!(record.timestamp, part.timestamp);
        assert_eq!(record.headers(), part.headers);
    }
    assert_eq!(records[0].size(), 8);
}

pub(super) fn a_topic_with_times_of_its_own_takes_records_of_any_time(log: SharedLog, prefix: &str) {
    const IN_2100: EventTime = EventTime(4_102_444_800_000);
    let scene = Scene::new(log, prefix);
    let output = scene.topic_with("output", 1, Cleanup::Delete, &[("message.timestamp.type", "LogAppendTime")]);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    for timestamp in [IN_2100, EventTime(1)] {
        let record = OutgoingRecord { key: Some(b"key"), value: Some(b"value"), timestamp, headers: &[] };
        scene.send(producer.as_mut(), &output, 0, record);
    }
    scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    let times: Vec<EventTime> = scene.read(&output, 0, Offset::ZERO).iter().map(|record| record.timestamp).collect();
    assert_eq!(times.len(), 2);
    assert!(times.iter().all(|time| *time < IN_2100 && *time > EventTime(1)), "{times:?}");
}

pub(super) fn records_come_in_order(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 2);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    for round in 0..3 {
        producer.begin().unwrap();
        for number in 0..100 {
            scene.send_text(producer.as_mut(), &output, number % 2, &format!("{round}.{number:02}"));
        }
        scene.commit(producer.as_mut(), &mut member, round).unwrap();
    }
    for partition in 0..2 {
        let records = scene.read(&output, partition, Offset::ZERO);
        assert!(records.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets grow");
        let texts = texts(&records);
        assert_eq!(texts.len(), 150);
        assert!(texts.is_sorted(), "in the order of sending");
    }
}

pub(super) fn a_commit_shows_records_and_offsets(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    assert_eq!(scene.committed(0), None);
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "one");
    scene.commit(producer.as_mut(), &mut member, 7).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(7)));
    assert_eq!(texts(&scene.read(&output, 0, Offset::ZERO)), ["one"]);
    // A transaction of offsets alone.
    producer.begin().unwrap();
    scene.commit(producer.as_mut(), &mut member, 8).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(8)));
    let input = TopicPartition { topic: scene.input.clone(), partition: Partition(0) };
    let commits = scene.log.committed(&scene.group, &[input]).unwrap();
    assert_eq!(commits[0].as_ref().unwrap().metadata, METADATA);
}

pub(super) fn an_aborted_transaction_is_never_seen(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "aborted");
    scene.drain(producer.as_mut());
    producer.abort().unwrap();
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "committed");
    scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "aborted too");
    scene.drain(producer.as_mut());
    producer.abort().unwrap();
    assert_eq!(texts(&scene.read(&output, 0, Offset::ZERO)), ["committed"]);
    assert_eq!(scene.committed(0), Some(Offset(1)));
}

pub(super) fn readers_stop_at_an_open_transaction(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let (mut slow, mut fast) = (scene.producer("slow"), scene.producer("fast"));
    slow.begin().unwrap();
    scene.send_text(slow.as_mut(), &output, 0, "slow");
    scene.drain(slow.as_mut());
    scene.until("the slow record is in the log", || (scene.end(&output, 0) >= Offset(1)).then_some(()));
    fast.begin().unwrap();
    scene.send_text(fast.as_mut(), &output, 0, "fast");
    scene.commit(fast.as_mut(), &mut member, 1).unwrap();
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    let end = reader.next_end(&scene);
    assert_eq!((end, reader.take()), (Offset::ZERO, vec![]), "nothing behind an open transaction is handed out");
    scene.commit(slow.as_mut(), &mut member, 2).unwrap();
    reader.read_to(&scene, Offset(4));
    assert_eq!(reader.take(), ["slow", "fast"]);
}

pub(super) fn the_end_lies_beyond_control_records(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    let mut reader = scene.reader(&output, 0, Offset::ZERO);
    assert_eq!(reader.next_end(&scene), Offset::ZERO, "an empty partition has an end");
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "one");
    scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    reader.read_to(&scene, Offset(2));
    assert_eq!(scene.end(&output, 0), Offset(2), "the control record takes an offset");
    assert_eq!(reader.take(), ["one"]);
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "aborted");
    scene.drain(producer.as_mut());
    producer.abort().unwrap();
    reader.read_to(&scene, Offset(4));
    assert_eq!(reader.take(), Vec::<String>::new(), "an end can move without a record");
}

pub(super) fn a_commit_returns_the_acknowledged_ends(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let (one, two) = (scene.topic("one", 2), scene.topic("two", 1));
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &one, 1, "a");
    scene.send_text(producer.as_mut(), &one, 1, "b");
    scene.send_text(producer.as_mut(), &two, 0, "c");
    let committed = scene.commit(producer.as_mut(), &mut member, 1).unwrap();
    assert_eq!(sorted(committed), [(at(&one, 1), Offset(2)), (at(&two, 0), Offset(1))]);
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &two, 0, "d");
    let committed = scene.commit(producer.as_mut(), &mut member, 2).unwrap();
    assert_eq!(sorted(committed), [(at(&two, 0), Offset(3))], "only this transaction's, behind the control record");
    producer.begin().unwrap();
    let committed = scene.commit(producer.as_mut(), &mut member, 3).unwrap();
    assert_eq!(committed, Committed::default());
}

pub(super) fn init_fences_the_older_producer(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut old = scene.producer("p");
    old.begin().unwrap();
    scene.send_text(old.as_mut(), &output, 0, "old");
    scene.drain(old.as_mut());
    scene.until("the old record is in the log", || (scene.end(&output, 0) >= Offset(1)).then_some(()));
    let mut new = scene.producer("p");
    scene.until("the old transaction is aborted", || (scene.end(&output, 0) >= Offset(2)).then_some(()));
    let failure = scene.commit(old.as_mut(), &mut member, 1).unwrap_err();
    assert_eq!(failure.error.next(), Next::RecreateProducer, "{failure}");
    drop(old);
    assert_eq!(scene.committed(0), None);
    new.begin().unwrap();
    scene.send_text(new.as_mut(), &output, 0, "new");
    scene.commit(new.as_mut(), &mut member, 2).unwrap();
    assert_eq!(texts(&scene.read(&output, 0, Offset::ZERO)), ["new"]);
    assert_eq!(scene.committed(0), Some(Offset(2)));
}

pub(super) fn a_stale_generation_is_refused(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut one = scene.member("a", None);
    let stale = one.metadata();
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "stale");
    let mut two = scene.joining("b", None);
    scene.share(&mut one, &mut two);
    let failure = producer.commit(&scene.offset(1), &stale).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Aborted, "{failure}");
    assert_eq!(failure.error.next(), Next::Rejoin, "{failure}");
    producer.abort().unwrap();
    assert_eq!(scene.committed(0), None);
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "fresh");
    producer.commit(&scene.offset(2), &one.metadata()).unwrap();
    assert_eq!(texts(&scene.read(&output, 0, Offset::ZERO)), ["fresh"]);
    assert_eq!(scene.committed(0), Some(Offset(2)));
    let error = one.group.commit(&scene.offset(3), &stale).unwrap_err();
    assert_eq!(error.next(), Next::Rejoin, "{error}");
}

pub(super) fn a_stranger_to_the_group_is_refused(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    let stranger = GroupMetadata { member_id: "stranger".to_owned(), ..member.metadata() };
    let failure = producer.commit(&scene.offset(1), &stranger).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Rejoin), "{failure}");
    producer.abort().unwrap();
    assert_eq!(scene.committed(0), None);
}

pub(super) fn a_plain_producer_commits_through_the_group(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let mut member = scene.member("a", None);
    let mut producer = scene.log.producer(&ProducerSettings { transactional_id: None, ..scene.settings("p") }).unwrap();
    producer.init().unwrap();
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &output, 0, "one");
    scene.send_text(producer.as_mut(), &output, 0, "two");
    let committed = scene.commit(producer.as_mut(), &mut member, 5).unwrap();
    assert_eq!(sorted(committed), [(at(&output, 0), Offset(2))], "no control record");
    assert_eq!(texts(&scene.read(&output, 0, Offset::ZERO)), ["one", "two"]);
    assert_eq!(scene.committed(0), Some(Offset(5)));
    let stale = GroupMetadata { generation: member.metadata().generation + 1, ..member.metadata() };
    let failure = producer.commit(&scene.offset(6), &stale).unwrap_err();
    assert_eq!(failure.error.next(), Next::Rejoin, "{failure}");
    assert_eq!(scene.committed(0), Some(Offset(5)));
}

pub(super) fn a_record_too_large_is_refused(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let small = scene.topic_with("small", 1, Cleanup::Delete, &[("max.message.bytes", "2000")]);
    let mut member = scene.member("a", None);
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &small, 0, "fits");
    let handle = producer.topic(&small).unwrap();
    let value = vec![b'x'; 5000];
    let record = OutgoingRecord { key: None, value: Some(&value), timestamp: EventTime(0), headers: &[] };
    let error = match producer.send(handle, Partition(0), record) {
        Err(SendFailure::Refused(error)) => error,
        Err(SendFailure::QueueFull) => panic!("the queue is empty"),
        Ok(()) => {
            let failure = scene.commit(producer.as_mut(), &mut member, 1).unwrap_err();
            assert_eq!(failure.outcome, Outcome::Aborted, "{failure}");
            failure.error
        }
    };
    assert_eq!(error.next(), Next::Poison, "{error}");
    producer.abort().unwrap();
    producer.begin().unwrap();
    scene.send_text(producer.as_mut(), &small, 0, "fits");
    scene.commit(producer.as_mut(), &mut member, 2).unwrap();
    assert_eq!(texts(&scene.read(&small, 0, Offset::ZERO)), ["fits"]);
}
