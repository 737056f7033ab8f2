//! What every implementation of the log owes, as cases that run against any of them.
//!
//! [`CASES`] is run on `memory` by this module's test, and on a real broker by `tests/kafka_log.rs`. A case makes topics
//! and groups of its own under the prefix that it is given. Waiting is polling with a deadline, since a broker takes its
//! time; a case that needs faults is `memory`'s own test instead.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test suite, though not a test target")]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SharedClock, SystemClock};
use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::log::{
    Cleanup, CommitFailure, Committed, Error, FetchSlot, Fetched, Fetcher, Group, GroupMetadata, Leave, Membership,
    MembershipSettings, NewTopic, Next, OffsetCommit, OffsetQuery, Outcome, OutgoingRecord, OwnershipEvent, Producer,
    ProducerSettings, Record, SendFailure, SharedLog,
};
use crate::row::Header;

/// One duty. The prefix is unique for each run of the case: topics, groups and ids begin with it.
pub type Case = fn(SharedLog, &str);

pub const CASES: &[(&str, Case)] = &[
    ("a_record_keeps_its_key_value_headers_and_timestamp", a_record_keeps_its_parts),
    ("records_of_a_partition_come_in_offset_order", records_come_in_order),
    ("a_commit_shows_records_and_offsets_together", a_commit_shows_records_and_offsets),
    ("an_aborted_transaction_is_never_seen", an_aborted_transaction_is_never_seen),
    ("readers_stop_at_an_open_transaction", readers_stop_at_an_open_transaction),
    ("the_end_lies_beyond_control_records_and_is_told_again", the_end_lies_beyond_control_records),
    ("a_commit_returns_the_acknowledged_ends", a_commit_returns_the_acknowledged_ends),
    ("init_fences_the_older_producer_and_aborts_its_transaction", init_fences_the_older_producer),
    ("a_stale_generation_is_refused", a_stale_generation_is_refused),
    ("a_stranger_to_the_group_is_refused", a_stranger_to_the_group_is_refused),
    ("a_producer_without_transactions_commits_through_the_group", a_plain_producer_commits_through_the_group),
    ("offsets_are_committed_outside_of_transactions_too", offsets_are_committed_outside_of_transactions),
    ("an_unknown_group_has_no_offsets_and_no_members", an_unknown_group_has_nothing),
    ("a_member_owns_everything_and_is_described", a_member_owns_everything_and_is_described),
    ("a_second_member_gets_what_the_first_has_given_up", a_second_member_gets_what_the_first_has_given_up),
    ("a_member_that_leaves_passes_its_partitions_on", a_member_that_leaves_passes_its_partitions_on),
    ("a_static_member_returns_to_its_partitions", a_static_member_returns_to_its_partitions),
    ("a_second_process_with_the_instance_id_fences_the_first", a_second_process_fences_the_first),
    ("an_empty_group_is_deleted_with_its_offsets", an_empty_group_is_deleted),
    ("an_offset_out_of_range_fails_its_slot_alone", an_offset_out_of_range_fails_its_slot_alone),
    ("a_missing_topic_is_named", a_missing_topic_is_named),
    ("offsets_are_found_by_time", offsets_are_found_by_time),
    ("a_record_too_large_for_its_topic_is_refused", a_record_too_large_is_refused),
    ("an_assigned_slot_is_repositioned", an_assigned_slot_is_repositioned),
    ("a_paused_slot_hands_out_nothing", a_paused_slot_hands_out_nothing),
    ("a_fetch_keeps_its_limit", a_fetch_keeps_its_limit),
    ("topics_are_described_as_they_were_made", topics_are_described),
    ("a_topic_made_again_has_another_id", a_topic_made_again_has_another_id),
    ("deleted_records_are_out_of_range", deleted_records_are_out_of_range),
];

// ---- records and transactions --------------------------------------------------------------------------------------

fn a_record_keeps_its_parts(log: SharedLog, prefix: &str) {
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

fn records_come_in_order(log: SharedLog, prefix: &str) {
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

fn a_commit_shows_records_and_offsets(log: SharedLog, prefix: &str) {
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

fn an_aborted_transaction_is_never_seen(log: SharedLog, prefix: &str) {
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

fn readers_stop_at_an_open_transaction(log: SharedLog, prefix: &str) {
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

fn the_end_lies_beyond_control_records(log: SharedLog, prefix: &str) {
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

fn a_commit_returns_the_acknowledged_ends(log: SharedLog, prefix: &str) {
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

fn init_fences_the_older_producer(log: SharedLog, prefix: &str) {
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

fn a_stale_generation_is_refused(log: SharedLog, prefix: &str) {
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

fn a_stranger_to_the_group_is_refused(log: SharedLog, prefix: &str) {
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

fn a_plain_producer_commits_through_the_group(log: SharedLog, prefix: &str) {
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

fn a_record_too_large_is_refused(log: SharedLog, prefix: &str) {
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

// ---- the group -----------------------------------------------------------------------------------------------------

fn offsets_are_committed_outside_of_transactions(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    member.group.commit(&scene.offset(3), &member.metadata()).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(3)));
    assert_eq!(scene.committed(1), None, "the other partition");
}

fn an_unknown_group_has_nothing(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    assert_eq!(scene.committed(0), None);
    let described = scene.until("the group is described", || scene.log.describe_group(&scene.group).ok());
    assert_eq!(described.members, []);
    scene.until("an absent group is deleted", || scene.log.delete_group(&scene.group).ok());
    let id = scene.log.cluster_id().unwrap();
    assert!(!id.is_empty());
    assert_eq!(scene.log.cluster_id().unwrap(), id);
}

fn a_member_owns_everything_and_is_described(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let joining = scene.joining("client-with-a-hash", None);
    assert_eq!(joining.group.metadata(), None, "no membership before the first assignment");
    drop(joining.membership.close(Leave::Now));
    let member = scene.member("client-with-a-hash", None);
    assert_eq!(member.owned, scene.both());
    let metadata = member.metadata();
    assert_eq!((metadata.group.as_str(), metadata.instance_id), (scene.group.as_str(), None));
    assert!(metadata.generation >= 0);
    let described = scene.until("the group is stable", || {
        scene.log.describe_group(&scene.group).ok().filter(|group| group.stable && group.members.len() == 1)
    });
    let described = &described.members[0];
    assert_eq!(described.client_id, "client-with-a-hash");
    assert_eq!(described.member_id, metadata.member_id);
    assert_eq!(described.instance_id, None);
    assert_eq!(described.assignment.iter().cloned().collect::<BTreeSet<_>>(), scene.both());
}

fn a_second_member_gets_what_the_first_has_given_up(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", None);
    let mut two = scene.joining("b", None);
    // Nothing comes to the second one before the first has acknowledged.
    let revoked = scene.until("something is revoked", || {
        assert_eq!(two.step(Answer::Acknowledge).filter(owns_something), None);
        one.step(Answer::Keep)
    });
    let OwnershipEvent::Revoked(partitions) = &revoked else { panic!("not a revocation: {revoked:?}") };
    assert_eq!(partitions.len(), 1, "only what moves is revoked");
    for _ in 0..10 {
        assert_eq!(two.step(Answer::Acknowledge).filter(owns_something), None, "it is not given up yet");
    }
    one.group.commit(&scene.offset(9), &one.metadata()).unwrap();
    one.acknowledge(&revoked);
    scene.share(&mut one, &mut two);
    assert_eq!(two.owned, partitions.iter().cloned().collect());
    assert_eq!(&one.owned | &two.owned, scene.both());
}

fn owns_something(event: &OwnershipEvent) -> bool {
    matches!(event, OwnershipEvent::Assigned(partitions) if !partitions.is_empty())
}

fn a_member_that_leaves_passes_its_partitions_on(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", None);
    let mut two = scene.joining("b", None);
    scene.share(&mut one, &mut two);
    let group = Arc::clone(&one.group);
    one.membership.close(Leave::Now).unwrap();
    assert_eq!(group.metadata(), None, "who has left has no membership");
    scene.settle(&mut [&mut two], |members| members[0].owned.len() == 2);
}

fn a_static_member_returns_to_its_partitions(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", Some("one"));
    let mut two = scene.joining("b", Some("two"));
    scene.share(&mut one, &mut two);
    let (owned, generation) = (two.owned.clone(), two.metadata().generation);
    two.membership.close(Leave::Stay).unwrap();
    let mut two = scene.joining("b", Some("two"));
    scene.settle(&mut [&mut one, &mut two], |members| !members[1].owned.is_empty());
    assert_eq!(two.owned, owned);
    assert_eq!(two.metadata().generation, generation, "nobody else has noticed");
    assert_eq!(one.owned.len(), 1);
    assert_eq!(two.metadata().instance_id.as_deref(), Some(scene.name("two").as_str()));
}

fn a_second_process_fences_the_first(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", Some("same"));
    let stale = one.metadata();
    let mut two = scene.joining("a", Some("same"));
    scene.settle(&mut [&mut two], |members| members[0].owned.len() == 2);
    let error = scene.until("the first one is fenced", || one.membership.poll(STEP).err());
    assert_eq!(error.next(), Next::Fenced, "{error}");
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    let failure = producer.commit(&scene.offset(1), &stale).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Fenced), "{failure}");
    producer.abort().unwrap();
    producer.begin().unwrap();
    scene.commit(producer.as_mut(), &mut two, 2).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(2)));
}

fn an_empty_group_is_deleted(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    member.group.commit(&scene.offset(3), &member.metadata()).unwrap();
    assert!(scene.log.delete_group(&scene.group).is_err(), "it has a member");
    assert_eq!(scene.committed(0), Some(Offset(3)));
    member.membership.close(Leave::Now).unwrap();
    scene.until("the group is deleted", || scene.log.delete_group(&scene.group).ok());
    assert_eq!(scene.committed(0), None);
}

// ---- reading -------------------------------------------------------------------------------------------------------

fn an_offset_out_of_range_fails_its_slot_alone(log: SharedLog, prefix: &str) {
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

fn a_missing_topic_is_named(log: SharedLog, prefix: &str) {
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

fn offsets_are_found_by_time(log: SharedLog, prefix: &str) {
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

fn an_assigned_slot_is_repositioned(log: SharedLog, prefix: &str) {
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

fn a_paused_slot_hands_out_nothing(log: SharedLog, prefix: &str) {
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

fn a_fetch_keeps_its_limit(log: SharedLog, prefix: &str) {
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

// ---- topics --------------------------------------------------------------------------------------------------------

fn topics_are_described(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let config = [("max.message.bytes", "4321"), ("delete.retention.ms", "98765")];
    let compacted = scene.topic_with("compacted", 3, Cleanup::Compact, &config);
    let both = scene.topic_with("both", 1, Cleanup::CompactDelete, &[]);
    let described = scene.log.describe_topics(&[both.clone(), compacted.clone(), scene.input.clone()]).unwrap();
    let described: Vec<_> = described.into_iter().map(Option::unwrap).collect();
    assert_eq!((&described[0].name, described[0].cleanup, described[0].partitions), (&both, Cleanup::CompactDelete, 1));
    assert_eq!((&described[1].name, described[1].cleanup), (&compacted, Cleanup::Compact));
    assert_eq!(described[1].partitions, 3);
    assert_eq!((described[1].max_message_bytes, described[1].delete_retention_ms), (4321, 98_765));
    assert_eq!((described[2].cleanup, described[2].partitions), (Cleanup::Delete, 2));
    assert_eq!((described[2].max_message_bytes, described[2].delete_retention_ms), (1_048_588, 86_400_000));
    assert_eq!(described.iter().map(|topic| &topic.id).collect::<BTreeSet<_>>().len(), 3);
}

fn a_topic_made_again_has_another_id(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let topic = scene.topic("topic", 1);
    scene.write(&topic, 0, &["old"]);
    let described = |scene: &Scene| scene.log.describe_topics(std::slice::from_ref(&topic)).unwrap().remove(0);
    let first = described(&scene).unwrap();
    scene.log.delete_topics(std::slice::from_ref(&topic)).unwrap();
    scene.until("it is gone", || described(&scene).is_none().then_some(()));
    // The broker may still be busy with the deletion.
    let again = NewTopic {
        name: topic.clone(),
        partitions: 2,
        replication: None,
        cleanup: Cleanup::Delete,
        config: Vec::new(),
    };
    scene.until("it is there again", || scene.log.create_topic(&again).ok());
    let second = described(&scene).unwrap();
    assert_ne!(first.id, second.id);
    assert_eq!(second.partitions, 2);
    assert_eq!(scene.end(&topic, 0), Offset::ZERO);
}

fn deleted_records_are_out_of_range(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let compacted = scene.topic_with("compacted", 1, Cleanup::Compact, &[]);
    scene.write(&output, 0, &["a", "b", "c"]);
    scene.log.delete_records(&[(at(&output, 0), Offset(2))]).unwrap();
    assert_eq!(scene.log.offsets(OffsetQuery::Start, &[at(&output, 0)]).unwrap(), [Offset(2)]);
    assert_eq!(texts(&scene.read(&output, 0, Offset(2))), ["c"]);
    let mut reader = scene.reader(&output, 0, Offset(1));
    let (_, error) = scene.until("the slot fails", || {
        reader.step();
        reader.failed.pop()
    });
    assert_eq!(error.next(), Next::Reposition, "{error}");
    let error = scene.log.delete_records(&[(at(&compacted, 0), Offset::ZERO)]).unwrap_err();
    assert_eq!(error.next(), Next::Wait, "{error}");
}

// ---- the scene of a case -------------------------------------------------------------------------------------------

const SLOT: FetchSlot = FetchSlot(3);
const METADATA: &str = "host:8088";
/// How long one step of a poll may wait.
const STEP: Duration = Duration::from_millis(20);
const DEADLINE: Duration = Duration::from_secs(40);

/// A log with a source topic of two partitions, and a group that reads it.
struct Scene {
    log: SharedLog,
    prefix: String,
    group: String,
    input: TopicName,
    clock: SharedClock,
}

impl Scene {
    fn new(log: SharedLog, prefix: &str) -> Self {
        let input = TopicName::new(format!("{prefix}-input"));
        let scene = Self {
            log,
            prefix: prefix.to_owned(),
            group: format!("{prefix}-group"),
            input,
            clock: SystemClock::shared(),
        };
        scene.topic("input", 2);
        scene
    }

    fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    fn both(&self) -> BTreeSet<TopicPartition> {
        (0..2).map(|partition| at(&self.input, partition)).collect()
    }

    /// Asks again until there is an answer.
    #[expect(clippy::disallowed_methods, reason = "polls with a deadline")]
    fn until<R>(&self, what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
        let start = self.clock.monotonic();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(self.clock.monotonic().saturating_sub(start) < DEADLINE, "not within the deadline: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn topic(&self, name: &str, partitions: u32) -> TopicName {
        self.topic_with(name, partitions, Cleanup::Delete, &[])
    }

    fn topic_with(&self, name: &str, partitions: u32, cleanup: Cleanup, config: &[(&str, &str)]) -> TopicName {
        let name = TopicName::new(self.name(name));
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.clone(), partitions, replication: None, cleanup, config };
        self.log.create_topic(&new).unwrap();
        name
    }

    fn end(&self, topic: &TopicName, partition: u32) -> Offset {
        self.log.offsets(OffsetQuery::End, &[at(topic, partition)]).unwrap()[0]
    }

    fn committed(&self, partition: u32) -> Option<Offset> {
        let partitions = [at(&self.input, partition)];
        let answer =
            self.until("the committed offsets are stable", || self.log.committed(&self.group, &partitions).ok());
        answer[0].as_ref().map(|committed| committed.offset)
    }

    fn offset(&self, offset: i64) -> [OffsetCommit; 1] {
        let partition = at(&self.input, 0);
        [OffsetCommit { partition, offset: Offset(offset), metadata: METADATA.to_owned() }]
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    fn settings(&self, name: &str) -> ProducerSettings {
        ProducerSettings {
            name: self.name(name),
            transactional_id: Some(self.name(name)),
            max_message_bytes: 1_048_588,
            queue_bytes: 16 << 20,
        }
    }

    fn producer(&self, name: &str) -> Box<dyn Producer> {
        let mut producer = self.log.producer(&self.settings(name)).unwrap();
        producer.init().unwrap();
        producer
    }

    fn send(&self, producer: &mut dyn Producer, topic: &TopicName, partition: u32, record: OutgoingRecord<'_>) {
        let handle = producer.topic(topic).unwrap();
        self.until("the record is queued", || match producer.send(handle, Partition(partition), record) {
            Ok(()) => Some(()),
            Err(SendFailure::QueueFull) => {
                producer.poll(STEP);
                None
            }
            Err(SendFailure::Refused(error)) => panic!("{error}"),
        });
    }

    fn send_text(&self, producer: &mut dyn Producer, topic: &TopicName, partition: u32, text: &str) {
        let value = Some(text.as_bytes());
        self.send(
            producer,
            topic,
            partition,
            OutgoingRecord { key: None, value, timestamp: EventTime(1), headers: &[] },
        );
    }

    fn drain(&self, producer: &mut dyn Producer) {
        self.until("the queue is empty", || {
            producer.poll(Duration::from_millis(1));
            (producer.queued_bytes() == 0).then_some(())
        });
    }

    fn commit(
        &self,
        producer: &mut dyn Producer,
        member: &mut Member,
        offset: i64,
    ) -> Result<Committed, CommitFailure> {
        producer.commit(&self.offset(offset), &member.metadata())
    }

    /// Commits these texts, by a producer and a group of their own.
    fn write(&self, topic: &TopicName, partition: u32, texts: &[&str]) {
        let name = format!("writer-of-{topic}-{partition}");
        let mut member = self.member_of(&self.name(&name), "writer", None);
        self.settle(&mut [&mut member], |members| !members[0].owned.is_empty());
        let mut producer = self.producer(&name);
        producer.begin().unwrap();
        for text in texts {
            self.send_text(producer.as_mut(), topic, partition, text);
        }
        let before = self.end(topic, partition).0;
        let records = i64::try_from(texts.len()).unwrap();
        self.commit(producer.as_mut(), &mut member, 1).unwrap();
        self.until("the control record is written", || {
            (self.end(topic, partition).0 > before && self.end(topic, partition).0 > records).then_some(())
        });
        member.membership.close(Leave::Now).unwrap();
    }

    // ---- the group ---------------------------------------------------------------------------------------------

    /// A member that owns both partitions.
    fn member(&self, client_id: &str, instance_id: Option<&str>) -> Member {
        let mut member = self.joining(client_id, instance_id);
        self.settle(&mut [&mut member], |members| members[0].owned.len() == 2);
        member
    }

    fn joining(&self, client_id: &str, instance_id: Option<&str>) -> Member {
        self.member_of(&self.group, client_id, instance_id)
    }

    fn member_of(&self, group: &str, client_id: &str, instance_id: Option<&str>) -> Member {
        let settings = MembershipSettings {
            group: group.to_owned(),
            client_id: client_id.to_owned(),
            instance_id: instance_id.map(|id| self.name(id)),
            topics: vec![self.input.clone()],
            session_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(200),
            max_poll_interval: Duration::from_mins(1),
        };
        let membership = self.log.join(&settings).unwrap();
        Member { group: membership.group(), membership, owned: BTreeSet::new() }
    }

    /// Polls the members in turn, and acknowledges what they are told, until it is so.
    fn settle(&self, members: &mut [&mut Member], done: impl Fn(&[&mut Member]) -> bool) {
        self.until("the group settles", || {
            for member in members.iter_mut() {
                member.step(Answer::Acknowledge);
            }
            done(members).then_some(())
        });
    }

    /// One partition each, and both know of the same generation.
    fn share(&self, one: &mut Member, two: &mut Member) {
        let generation = |member: &Member| member.group.metadata().map(|metadata| metadata.generation);
        self.settle(&mut [one, two], |members| {
            members.iter().all(|member| member.owned.len() == 1) && generation(members[0]) == generation(members[1])
        });
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    fn reader(&self, topic: &TopicName, partition: u32, from: Offset) -> Reader {
        let fetcher = self.log.fetcher(&self.name("reader")).unwrap();
        let mut reader = Reader { fetcher, records: vec![], texts: vec![], ends: vec![], failed: vec![] };
        reader.assign(topic, partition, from);
        reader
    }

    /// Everything up to the high watermark of now.
    fn read(&self, topic: &TopicName, partition: u32, from: Offset) -> Vec<Record> {
        let mut reader = self.reader(topic, partition, from);
        reader.read_to(self, self.end(topic, partition));
        reader.records
    }
}

struct Member {
    membership: Box<dyn Membership>,
    group: Arc<dyn Group>,
    owned: BTreeSet<TopicPartition>,
}

#[derive(Clone, Copy)]
enum Answer {
    Acknowledge,
    Keep,
}

impl Member {
    fn step(&mut self, answer: Answer) -> Option<OwnershipEvent> {
        let event = self.membership.poll(STEP).unwrap()?;
        if let Answer::Acknowledge = answer {
            self.acknowledge(&event);
        }
        Some(event)
    }

    fn acknowledge(&mut self, event: &OwnershipEvent) {
        match event {
            OwnershipEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            OwnershipEvent::Revoked(partitions) | OwnershipEvent::Lost(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
            }
        }
        self.membership.acknowledge(event).unwrap();
    }

    fn metadata(&self) -> GroupMetadata {
        self.group.metadata().unwrap()
    }
}

struct Reader {
    fetcher: Box<dyn Fetcher>,
    records: Vec<Record>,
    texts: Vec<String>,
    ends: Vec<Offset>,
    failed: Vec<(FetchSlot, Error)>,
}

impl Reader {
    fn assign(&mut self, topic: &TopicName, partition: u32, from: Offset) {
        self.ends.clear();
        self.fetcher.assign(SLOT, &at(topic, partition), from).unwrap();
    }

    fn step(&mut self) {
        let mut fetched = Vec::new();
        self.fetcher.fetch(&mut fetched, 1000, STEP).unwrap();
        for event in fetched {
            match event {
                Fetched::Record(_, record) => {
                    self.texts.extend(texts(std::slice::from_ref(&record)));
                    self.records.push(record);
                }
                Fetched::End(_, end) => self.ends.push(end),
                Fetched::Failed(slot, error) => self.failed.push((slot, error)),
            }
        }
    }

    fn next_end(&mut self, scene: &Scene) -> Offset {
        scene.until("the end is told", || {
            self.step();
            assert_eq!(self.failed, []);
            self.ends.pop()
        })
    }

    fn read_to(&mut self, scene: &Scene, end: Offset) {
        scene.until("the end is reached", || {
            self.step();
            assert_eq!(self.failed, []);
            self.ends.iter().any(|reached| *reached >= end).then_some(())
        });
    }

    /// The texts since the last call.
    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }
}

fn at(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: Partition(partition) }
}

fn sorted(committed: Committed) -> Vec<(TopicPartition, Offset)> {
    let mut ends = committed.ends;
    ends.sort();
    ends
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()).collect()
}

impl Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::CASES;
    use crate::clock::SystemClock;
    use crate::log::memory::MemoryLog;

    #[test]
    fn the_in_process_log_keeps_the_contract() {
        for (name, case) in CASES {
            println!("{name}");
            case(MemoryLog::new(SystemClock::shared()).shared(), name);
        }
    }
}
