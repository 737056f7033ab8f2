//! The log on a real Kafka: what only a broker can answer. The contract that both logs keep is `log::contract`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sidestream::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use sidestream::limits;
use sidestream::log::kafka::{GroupProtocol, KafkaLog, KafkaSettings};
use sidestream::log::{
    Cleanup, Error, FetchSlot, Fetched, Fetcher, GroupMetadata, Leave, Log, Membership, MembershipSettings, NewTopic,
    Next, OffsetCommit, OffsetQuery, Outcome, OutgoingRecord, OwnershipEvent, Producer, ProducerSettings, SendFailure,
    SharedLog, contract,
};

use support::broker;
use support::eventually;

const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);

fn log() -> KafkaLog {
    KafkaLog::new(KafkaSettings::new(broker::shared())).unwrap()
}

/// A name that no other test or run uses.
fn unique(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", uuid::Uuid::new_v4().simple(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn topic(log: &KafkaLog, name: &str, partitions: u32) -> TopicName {
    let name = TopicName::new(unique(name));
    let new = NewTopic { name: name.clone(), partitions, replication: None, cleanup: Cleanup::Delete, config: vec![] };
    log.create_topic(&new).unwrap();
    name
}

fn producer(log: &KafkaLog, transactional_id: &str) -> Box<dyn Producer> {
    let settings = ProducerSettings {
        name: "test".to_owned(),
        transactional_id: Some(transactional_id.to_owned()),
        max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        batch_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        queue_bytes: 8 << 20,
    };
    let mut producer = log.producer(&settings).unwrap();
    producer.init().unwrap();
    producer
}

fn membership_settings(group: &str, topics: &[TopicName]) -> MembershipSettings {
    MembershipSettings {
        group: group.to_owned(),
        client_id: "test".to_owned(),
        instance_id: None,
        topics: topics.to_vec(),
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(200),
        max_poll_interval: Duration::from_mins(1),
    }
}

fn member(log: &KafkaLog, group: &str, topics: &[TopicName]) -> Box<dyn Membership> {
    log.join(&membership_settings(group, topics)).unwrap()
}

/// A member that owns its topic's one partition.
fn owner(log: &KafkaLog, input: &TopicName) -> Box<dyn Membership> {
    let mut membership = member(log, &unique("group"), std::slice::from_ref(input));
    own(&mut *membership, &mut Vec::new(), 1);
    membership
}

/// Polls and acknowledges until the member owns `count` partitions.
fn own(membership: &mut dyn Membership, owned: &mut Vec<TopicPartition>, count: usize) {
    eventually("partitions are assigned", PATIENCE, || {
        follow(membership, owned);
        (owned.len() == count).then_some(())
    });
}

fn follow(membership: &mut dyn Membership, owned: &mut Vec<TopicPartition>) {
    let Some(event) = membership.poll(STEP).unwrap() else { return };
    match &event {
        OwnershipEvent::Assigned(partitions) => owned.extend(partitions.iter().cloned()),
        OwnershipEvent::Revoked(partitions) | OwnershipEvent::Lost(partitions) => {
            owned.retain(|partition| !partitions.contains(partition));
        }
    }
    membership.acknowledge(&event).unwrap();
}

fn record(value: &[u8]) -> OutgoingRecord<'_> {
    OutgoingRecord { key: Some(b"key"), value: Some(value), timestamp: EventTime(1_000), headers: &[] }
}

fn offset(topic: &TopicName, offset: i64) -> OffsetCommit {
    OffsetCommit {
        partition: TopicPartition::new(topic.clone(), Partition(0)),
        offset: Offset(offset),
        metadata: "here".to_owned(),
    }
}

/// The values up to an end at or behind the high watermark.
fn read(log: &KafkaLog, fetcher: &mut dyn Fetcher, slot: FetchSlot, partition: &TopicPartition) -> Vec<String> {
    let high_watermark = log.offsets(OffsetQuery::End, std::slice::from_ref(partition)).unwrap()[0];
    let mut values = Vec::new();
    eventually("the end is reached", PATIENCE, || {
        let mut fetched = Vec::new();
        fetcher.fetch(&mut fetched, 1_000, STEP).unwrap();
        let mut ended = None;
        for event in fetched {
            match event {
                Fetched::Record(from, record) => {
                    assert_eq!(from, slot);
                    values.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
                }
                Fetched::End(from, end) => {
                    assert_eq!(from, slot);
                    ended = (end >= high_watermark).then_some(());
                }
                Fetched::Failed(_, error) => panic!("{error}"),
            }
        }
        ended
    });
    values
}

#[test]
fn a_real_broker_keeps_the_contract() {
    let shared: SharedLog = Arc::new(log());
    for (name, case) in contract::CASES {
        println!("{name}");
        case(Arc::clone(&shared), &unique("contract"));
    }
}

#[test]
fn a_transaction_of_records_and_offsets_is_committed_as_one() {
    let log = log();
    let (input, output) = (topic(&log, "input", 1), topic(&log, "output", 1));
    let group = unique("group");
    let mut membership = member(&log, &group, std::slice::from_ref(&input));
    let mut owned = Vec::new();
    own(&mut *membership, &mut owned, 1);

    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&output).unwrap();
    producer.begin().unwrap();
    for value in ["a", "b", "c"] {
        producer.send(handle, Partition(0), record(value.as_bytes())).unwrap();
    }
    let metadata = membership.group().metadata().expect("a member");
    let committed = producer.commit(&[offset(&input, 42)], &metadata).unwrap();

    let partition = TopicPartition::new(output, Partition(0));
    assert_eq!(committed.ends, [(partition.clone(), Offset(3))]);
    assert_eq!(producer.queued_bytes(), 0);
    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(7), &partition, Offset::ZERO).unwrap();
    assert_eq!(read(&log, &mut *fetcher, FetchSlot(7), &partition), ["a", "b", "c"]);
    let stored = log.committed(&group, &[TopicPartition::new(input, Partition(0))]).unwrap();
    let stored = stored[0].clone().expect("a committed offset");
    assert_eq!((stored.offset, stored.metadata.as_str()), (Offset(42), "here"));
    membership.close(Leave::Now).unwrap();
}

#[test]
fn a_stale_generation_is_refused_and_nothing_of_the_transaction_is_seen() {
    let log = log();
    let (input, output) = (topic(&log, "input", 2), topic(&log, "output", 1));
    let group = unique("group");
    let mut first = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_first = Vec::new();
    own(&mut *first, &mut owned_first, 2);
    let stale = first.group().metadata().expect("a member");

    let mut second = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_second = Vec::new();
    eventually("the second member gets its share", PATIENCE, || {
        follow(&mut *first, &mut owned_first);
        follow(&mut *second, &mut owned_second);
        (owned_second.len() == 1).then_some(())
    });

    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&output).unwrap();
    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"stale")).unwrap();
    let failure = producer.commit(&[offset(&input, 1)], &stale).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Aborted);
    assert!(matches!(failure.error, Error::StaleGeneration { .. }), "{failure}");
    producer.abort().unwrap();

    // The same producer goes on with the group's present metadata.
    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"fresh")).unwrap();
    let fresh = first.group().metadata().expect("a member");
    producer.commit(&[offset(&input, 1)], &fresh).unwrap();
    let partition = TopicPartition::new(output, Partition(0));
    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(0), &partition, Offset::ZERO).unwrap();
    assert_eq!(read(&log, &mut *fetcher, FetchSlot(0), &partition), ["fresh"]);
}

#[test]
fn a_producer_whose_id_was_taken_over_is_fenced() {
    let log = log();
    let (input, output) = (topic(&log, "input", 1), topic(&log, "output", 1));
    let membership = owner(&log, &input);
    let metadata = membership.group().metadata().expect("a member");
    let id = unique("id");
    let mut old = producer(&log, &id);
    let handle = old.topic(&output).unwrap();
    old.begin().unwrap();
    old.send(handle, Partition(0), record(b"old")).unwrap();

    let mut new = producer(&log, &id);
    let failure = old.commit(&[offset(&input, 1)], &metadata).unwrap_err();
    assert_eq!(failure.error.next(), Next::RecreateProducer, "{failure}");

    let handle = new.topic(&output).unwrap();
    new.begin().unwrap();
    new.send(handle, Partition(0), record(b"new")).unwrap();
    new.commit(&[offset(&input, 1)], &metadata).unwrap();
    let partition = TopicPartition::new(output, Partition(0));
    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(0), &partition, Offset::ZERO).unwrap();
    assert_eq!(read(&log, &mut *fetcher, FetchSlot(0), &partition), ["new"]);
}

#[test]
fn an_open_transaction_of_a_killed_producer_is_aborted_by_its_successors_init() {
    let log = log();
    let output = topic(&log, "output", 1);
    let partition = TopicPartition::new(output.clone(), Partition(0));
    let id = unique("id");
    let mut killed = producer(&log, &id);
    let handle = killed.topic(&output).unwrap();
    killed.begin().unwrap();
    killed.send(handle, Partition(0), record(b"lost")).unwrap();
    eventually("the record is in the log", PATIENCE, || {
        killed.poll(STEP);
        (killed.queued_bytes() == 0).then_some(())
    });
    drop(killed);

    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(0), &partition, Offset::ZERO).unwrap();
    let _successor = producer(&log, &id);
    // Ends behind the aborted record and its marker, without having handed out either.
    assert!(read(&log, &mut *fetcher, FetchSlot(0), &partition).is_empty());
    assert!(log.offsets(OffsetQuery::End, &[partition]).unwrap()[0] >= Offset(1));
}

#[test]
fn committed_offsets_are_not_answered_while_a_transaction_may_change_them() {
    let log = log();
    let (input, output) = (topic(&log, "input", 1), topic(&log, "output", 1));
    let membership = owner(&log, &input);
    let metadata = membership.group().metadata().expect("a member");
    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&output).unwrap();
    for round in 1..=20 {
        producer.begin().unwrap();
        producer.send(handle, Partition(0), record(b"x")).unwrap();
        producer.commit(&[offset(&input, round)], &metadata).unwrap();
        let stored = log.committed(&metadata.group, &[TopicPartition::new(input.clone(), Partition(0))]).unwrap();
        assert_eq!(stored[0].as_ref().map(|stored| stored.offset), Some(Offset(round)));
    }
}

#[test]
fn partitions_move_to_a_new_member_one_by_one() {
    let log = log();
    let input = topic(&log, "input", 4);
    let group = unique("group");
    let mut first = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_first = Vec::new();
    own(&mut *first, &mut owned_first, 4);
    let mut second = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_second = Vec::new();
    let mut smallest = owned_first.len();
    eventually("the partitions are shared", PATIENCE, || {
        follow(&mut *first, &mut owned_first);
        follow(&mut *second, &mut owned_second);
        assert!(owned_first.iter().all(|partition| !owned_second.contains(partition)), "owned by both");
        smallest = smallest.min(owned_first.len());
        (owned_second.len() == 2).then_some(())
    });
    // What stays was never given up.
    assert_eq!((owned_first.len(), smallest), (2, 2));

    let description = log.describe_group(&group).unwrap();
    assert_eq!(description.members.len(), 2);
    assert!(description.members.iter().all(|member| member.client_id == "test" && member.assignment.len() == 2));

    second.close(Leave::Now).unwrap();
    own(&mut *first, &mut owned_first, 4);
}

#[test]
fn a_revocation_waits_for_its_acknowledgement() {
    let log = log();
    let input = topic(&log, "input", 2);
    let group = unique("group");
    let mut first = member(&log, &group, std::slice::from_ref(&input));
    own(&mut *first, &mut Vec::new(), 2);
    let mut second = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_second = Vec::new();
    let event = eventually("a partition is revoked", PATIENCE, || {
        follow(&mut *second, &mut owned_second);
        first.poll(STEP).unwrap()
    });
    let OwnershipEvent::Revoked(revoked) = &event else { panic!("{event:?}") };
    assert_eq!(revoked.len(), 1);
    // A commit for it is still accepted: the member's metadata is that of the group.
    let metadata = first.group().metadata().expect("a member");
    let commit = OffsetCommit { partition: revoked[0].clone(), offset: Offset(5), metadata: String::new() };
    first.group().commit(std::slice::from_ref(&commit), &metadata).unwrap();
    for _ in 0..20 {
        follow(&mut *second, &mut owned_second);
        assert!(owned_second.is_empty());
    }
    first.acknowledge(&event).unwrap();
    eventually("the partition has moved", PATIENCE, || {
        follow(&mut *first, &mut Vec::new());
        follow(&mut *second, &mut owned_second);
        (owned_second == *revoked).then_some(())
    });
    let stored = log.committed(&group, revoked).unwrap();
    assert_eq!(stored[0].as_ref().map(|stored| stored.offset), Some(Offset(5)));
}

#[test]
fn a_member_that_is_not_polled_loses_its_partitions() {
    let log = log();
    let input = topic(&log, "input", 1);
    let settings = MembershipSettings {
        max_poll_interval: Duration::from_secs(6),
        ..membership_settings(&unique("group"), std::slice::from_ref(&input))
    };
    let mut membership = log.join(&settings).unwrap();
    let mut owned = Vec::new();
    own(&mut *membership, &mut owned, 1);
    let group = membership.group();
    eventually("the member has no place in the group", PATIENCE, || group.metadata().is_none().then_some(()));
    let event = eventually("the loss is told", PATIENCE, || membership.poll(STEP).unwrap());
    assert_eq!(event, OwnershipEvent::Lost(owned));
    membership.acknowledge(&event).unwrap();
    own(&mut *membership, &mut Vec::new(), 1);
    assert!(group.metadata().is_some());
}

#[test]
fn a_second_process_with_the_same_instance_id_fences_the_first() {
    let log = log();
    let input = topic(&log, "input", 1);
    let settings = MembershipSettings {
        instance_id: Some("same".to_owned()),
        ..membership_settings(&unique("group"), std::slice::from_ref(&input))
    };
    let mut first = log.join(&settings).unwrap();
    own(&mut *first, &mut Vec::new(), 1);
    assert_eq!(first.group().metadata().expect("a member").instance_id.as_deref(), Some("same"));
    let mut second = log.join(&settings).unwrap();
    own(&mut *second, &mut Vec::new(), 1);
    let error = eventually("the first is fenced", PATIENCE, || first.poll(STEP).err());
    assert_eq!(error.next(), Next::Fenced, "{error}");
}

#[test]
fn a_record_that_its_topic_refuses_is_the_reason_of_the_failed_commit() {
    let log = log();
    let input = topic(&log, "input", 1);
    let small = TopicName::new(unique("small"));
    log.create_topic(&NewTopic {
        name: small.clone(),
        partitions: 1,
        replication: None,
        cleanup: Cleanup::Delete,
        config: vec![("max.message.bytes".to_owned(), "1000".to_owned())],
    })
    .unwrap();
    let membership = owner(&log, &input);
    let metadata = membership.group().metadata().expect("a member");
    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&small).unwrap();
    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(&[b'x'; 5_000])).unwrap();
    let failure = producer.commit(&[offset(&input, 1)], &metadata).unwrap_err();
    assert_eq!(failure.outcome, Outcome::Aborted);
    assert!(matches!(&failure.error, Error::RecordRefused { topic, .. } if *topic == small), "{failure}");
    producer.abort().unwrap();

    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"small")).unwrap();
    let committed = producer.commit(&[offset(&input, 1)], &metadata).unwrap();
    assert_eq!(committed.ends.len(), 1);
    assert_eq!(producer.queued_bytes(), 0);
}

#[test]
fn a_topic_that_does_not_exist_is_named() {
    let log = log();
    let missing = TopicName::new(unique("missing"));
    let expected = Error::TopicMissing { topic: missing.clone() };
    assert_eq!(log.describe_topics(std::slice::from_ref(&missing)).unwrap(), [None]);
    assert_eq!(producer(&log, &unique("id")).topic(&missing).unwrap_err(), expected);
    let partition = TopicPartition::new(missing.clone(), Partition(0));
    assert_eq!(log.offsets(OffsetQuery::End, std::slice::from_ref(&partition)).unwrap_err(), expected);
    log.delete_topics(std::slice::from_ref(&missing)).unwrap();
    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(1), &partition, Offset::ZERO).unwrap();
    let failed = eventually("the reader is told", PATIENCE, || {
        let mut fetched = Vec::new();
        fetcher.fetch(&mut fetched, 10, STEP).unwrap();
        fetched.pop()
    });
    assert!(matches!(&failed, Fetched::Failed(FetchSlot(1), error) if *error == expected), "{failed:?}");
}

#[test]
fn what_a_broker_describes_is_what_was_created() {
    let log = log();
    let name = TopicName::new(unique("described"));
    let new = NewTopic {
        name: name.clone(),
        partitions: 3,
        replication: Some(1),
        cleanup: Cleanup::Compact,
        config: vec![("delete.retention.ms".to_owned(), "604800000".to_owned())],
    };
    log.create_topic(&new).unwrap();
    assert_eq!(log.create_topic(&new).unwrap_err(), Error::TopicExists { topic: name.clone() });
    let described = log.describe_topics(&[TopicName::new(unique("missing")), name.clone()]).unwrap();
    let [None, Some(found)] = described.as_slice() else { panic!("{described:?}") };
    assert_eq!((found.name.clone(), found.partitions, found.cleanup), (name.clone(), 3, Cleanup::Compact));
    assert_eq!((found.delete_retention_ms, found.max_message_bytes), (604_800_000, limits::DEFAULT_MAX_MESSAGE_BYTES));
    assert!(!log.cluster_id().unwrap().is_empty());

    log.delete_topics(std::slice::from_ref(&name)).unwrap();
    eventually("the topic is gone", PATIENCE, || {
        log.describe_topics(std::slice::from_ref(&name)).unwrap()[0].is_none().then_some(())
    });
    log.create_topic(&new).unwrap();
    let again = log.describe_topics(std::slice::from_ref(&name)).unwrap();
    assert_ne!(again[0].as_ref().map(|topic| &topic.id), Some(&found.id), "another topic has another id");
}

#[test]
fn a_broker_restart_is_survived_by_every_client() {
    let mut broker = broker::Broker::start();
    let log = KafkaLog::new(KafkaSettings::new(broker.brokers())).unwrap();
    let (input, output) = (topic(&log, "input", 1), topic(&log, "output", 1));
    let partition = TopicPartition::new(output.clone(), Partition(0));
    let mut membership = member(&log, &unique("group"), std::slice::from_ref(&input));
    let mut owned = Vec::new();
    own(&mut *membership, &mut owned, 1);
    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&output).unwrap();
    let mut fetcher = log.fetcher("test").unwrap();
    fetcher.assign(FetchSlot(0), &partition, Offset::ZERO).unwrap();
    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"before")).unwrap();
    producer.commit(&[offset(&input, 1)], &membership.group().metadata().expect("a member")).unwrap();
    assert_eq!(read(&log, &mut *fetcher, FetchSlot(0), &partition), ["before"]);

    broker.kill9();
    broker.run();

    // The group comes back by itself; a broker that restarts may drop the member, whose partitions are then lost and
    // assigned again.
    eventually("the member commits", PATIENCE, || {
        match membership.poll(STEP) {
            Ok(Some(event)) => membership.acknowledge(&event).unwrap(),
            Ok(None) => {}
            Err(error) => assert_eq!(error.next(), Next::Retry, "{error}"),
        }
        let metadata = membership.group().metadata()?;
        producer.begin().ok()?;
        producer.send(handle, Partition(0), record(b"after")).unwrap();
        match producer.commit(&[offset(&input, 2)], &metadata) {
            Ok(_) => Some(()),
            Err(failure) => {
                assert_eq!(failure.outcome, Outcome::Aborted, "{failure}");
                producer.abort().unwrap();
                None
            }
        }
    });
    assert_eq!(read(&log, &mut *fetcher, FetchSlot(0), &partition), ["after"]);
}

/// librdkafka 2.12.1 aborts when a request to a coordinator has timed out and the broker comes back (#4605).
#[test]
fn a_group_asked_for_while_the_broker_is_away_does_not_end_the_process() {
    let mut broker = broker::Broker::start();
    let log = KafkaLog::new(KafkaSettings::new(broker.brokers())).unwrap();
    let input = topic(&log, "input", 1);
    let group = unique("group");
    let mut membership = member(&log, &group, std::slice::from_ref(&input));
    own(&mut *membership, &mut Vec::new(), 1);
    assert_eq!(log.describe_group(&group).unwrap().members.len(), 1);
    broker.kill9();
    assert_eq!(log.describe_group(&group).unwrap_err().next(), Next::Retry);
    broker.run();
    eventually("the group is described again", PATIENCE, || log.describe_group(&group).ok());
}

#[test]
fn a_log_that_is_away_is_unreachable_within_the_time_allowed() {
    let log = KafkaLog::new(KafkaSettings::new("127.0.0.1:1")).unwrap();
    let error = log.cluster_id().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert_eq!(error.next(), Next::Retry);
}

#[test]
fn tls_and_both_kinds_of_passwords_work() {
    let broker = broker::Broker::start_secure();
    let secure = |mechanism: &str, password: &str| {
        let mut settings = KafkaSettings::new(broker.secure_brokers());
        settings.properties.extend(
            [
                ("security.protocol", "sasl_ssl"),
                ("ssl.ca.location", &broker.certificate().display().to_string()),
                ("sasl.mechanism", mechanism),
                ("sasl.username", broker::USER),
                ("sasl.password", password),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        KafkaLog::new(settings).unwrap()
    };
    for mechanism in ["PLAIN", "SCRAM-SHA-256"] {
        let log = secure(mechanism, broker::PASSWORD);
        let (input, output) = (topic(&log, "input", 1), topic(&log, "output", 1));
        let membership = owner(&log, &input);
        let mut producer = producer(&log, &unique("id"));
        let handle = producer.topic(&output).unwrap();
        producer.begin().unwrap();
        producer.send(handle, Partition(0), record(b"secret")).unwrap();
        producer.commit(&[offset(&input, 1)], &membership.group().metadata().expect("a member")).unwrap();
        let partition = TopicPartition::new(output, Partition(0));
        let mut fetcher = log.fetcher("test").unwrap();
        fetcher.assign(FetchSlot(0), &partition, Offset::ZERO).unwrap();
        assert_eq!(read(&log, &mut *fetcher, FetchSlot(0), &partition), ["secret"], "{mechanism}");
    }
    let error = secure("PLAIN", "wrong").cluster_id().unwrap_err();
    assert!(matches!(error, Error::Authentication { .. }), "{error}");
}

/// Writes `count` numbered records of about a kilobyte, without transactions.
fn fill(log: &KafkaLog, output: &TopicName, count: usize) {
    let settings = ProducerSettings {
        name: "filler".to_owned(),
        transactional_id: None,
        max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        batch_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
        queue_bytes: 4 << 20,
    };
    let mut producer = log.producer(&settings).unwrap();
    let handle = producer.topic(output).unwrap();
    for number in 0..count {
        let value = format!("{number:01000}");
        while let Err(failure) = producer.send(handle, Partition(0), record(value.as_bytes())) {
            assert_eq!(failure, SendFailure::QueueFull);
            producer.poll(STEP);
        }
    }
    eventually("all is acknowledged", PATIENCE, || {
        producer.poll(STEP);
        (producer.queued_bytes() == 0).then_some(())
    });
}

#[test]
fn neither_a_long_pause_nor_a_jump_back_loses_or_repeats_a_record() {
    let log = log();
    let output = topic(&log, "output", 1);
    // Several times what a paused slot may hold.
    let count = 4 * limits::FETCH_HELD_BYTES / 1_000;
    fill(&log, &output, count);
    let partition = TopicPartition::new(output, Partition(0));
    let mut fetcher = log.fetcher("test").unwrap();
    let slot = FetchSlot(3);
    fetcher.assign(slot, &partition, Offset::ZERO).unwrap();
    let mut fetched = Vec::new();
    let expect_next = |fetched: &mut Vec<Fetched>, next: &mut usize| {
        for event in fetched.drain(..) {
            if let Fetched::Record(_, record) = event {
                assert_eq!(record.offset.0, i64::try_from(*next).unwrap());
                assert_eq!(record.value().unwrap(), format!("{next:01000}").as_bytes());
                *next += 1;
            }
        }
    };
    let mut next = 0;
    for round in 0..3 {
        // Some of it, then a pause during which all the rest would come, then on.
        let target = next + 500;
        eventually("some records come", PATIENCE, || {
            fetcher.fetch(&mut fetched, 300, STEP).unwrap();
            expect_next(&mut fetched, &mut next);
            (next >= target).then_some(())
        });
        fetcher.pause(slot).unwrap();
        for _ in 0..30 {
            fetcher.fetch(&mut fetched, 5_000, STEP).unwrap();
            assert!(fetched.is_empty(), "a paused slot hands out nothing");
        }
        if round == 1 {
            fetcher.assign(slot, &partition, Offset(100)).unwrap();
            next = 100;
        }
        fetcher.resume(slot).unwrap();
    }
    eventually("the rest comes", PATIENCE, || {
        fetcher.fetch(&mut fetched, 5_000, STEP).unwrap();
        expect_next(&mut fetched, &mut next);
        (next == count).then_some(())
    });
}

#[test]
fn a_group_that_the_broker_assigns_works_too() {
    let mut settings = KafkaSettings::new(broker::shared());
    settings.group_protocol = GroupProtocol::Consumer;
    let log = KafkaLog::new(settings).unwrap();
    let (input, output) = (topic(&log, "input", 2), topic(&log, "output", 1));
    let group = unique("group");
    let mut first = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_first = Vec::new();
    own(&mut *first, &mut owned_first, 2);
    let mut second = member(&log, &group, std::slice::from_ref(&input));
    let mut owned_second = Vec::new();
    eventually("the partitions are shared", PATIENCE, || {
        follow(&mut *first, &mut owned_first);
        follow(&mut *second, &mut owned_second);
        (owned_first.len() == 1 && owned_second.len() == 1).then_some(())
    });
    let mut producer = producer(&log, &unique("id"));
    let handle = producer.topic(&output).unwrap();
    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"x")).unwrap();
    let metadata = first.group().metadata().expect("a member");
    producer.commit(&[offset(&input, 1)], &metadata).unwrap();

    producer.begin().unwrap();
    producer.send(handle, Partition(0), record(b"y")).unwrap();
    // An epoch before any assignment; one in between is accepted while the partition has not moved (KIP-1251).
    let stale = GroupMetadata { generation: 0, ..metadata };
    let failure = producer.commit(&[offset(&input, 2)], &stale).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Rejoin), "{failure}");
}
