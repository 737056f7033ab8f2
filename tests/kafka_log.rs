//! The log on a real Kafka: what only a broker can answer. The contract that both logs keep is `log::contract`.

mod support;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sidestream::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use sidestream::limits;
use sidestream::log::kafka::{KafkaLog, KafkaSettings};
use sidestream::log::{
    Cleanup, FetchSlot, Fetched, Fetcher, Leave, Log, Membership, MembershipSettings, NewTopic, OffsetCommit,
    OffsetQuery, OutgoingRecord, OwnershipEvent, Producer, ProducerSettings,
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
        queue_bytes: 8 << 20,
    };
    let mut producer = log.producer(&settings).unwrap();
    producer.init().unwrap();
    producer
}

fn member(log: &KafkaLog, group: &str, topics: &[TopicName]) -> Box<dyn Membership> {
    log.join(&MembershipSettings {
        group: group.to_owned(),
        client_id: "test".to_owned(),
        instance_id: None,
        topics: topics.to_vec(),
        session_timeout: Duration::from_secs(6),
        heartbeat_interval: Duration::from_millis(200),
        max_poll_interval: Duration::from_secs(60),
    })
    .unwrap()
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
