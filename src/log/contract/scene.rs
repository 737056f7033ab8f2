//! What a case starts with, and how it waits.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{SharedClock, SystemClock};
use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::log::{
    Cleanup, CommitFailure, Committed, Error, FetchSlot, Fetched, Fetcher, Group, GroupMetadata, Leave, Membership,
    MembershipSettings, NewTopic, Next, OffsetCommit, OffsetQuery, OutgoingRecord, OwnershipEvent, Producer,
    ProducerSettings, Record, SendFailure, SharedLog,
};

pub(super) const SLOT: FetchSlot = FetchSlot(3);
pub(super) const METADATA: &str = "host:8088";
/// How long one step of a poll may wait.
pub(super) const STEP: Duration = Duration::from_millis(20);
pub(super) const DEADLINE: Duration = Duration::from_secs(40);

/// A log with a source topic of two partitions, and a group that reads it.
pub(super) struct Scene {
    pub(super) log: SharedLog,
    pub(super) prefix: String,
    pub(super) group: String,
    pub(super) input: TopicName,
    pub(super) clock: SharedClock,
}

impl Scene {
    pub(super) fn new(log: SharedLog, prefix: &str) -> Self {
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

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    pub(super) fn both(&self) -> BTreeSet<TopicPartition> {
        (0..2).map(|partition| at(&self.input, partition)).collect()
    }

    /// Asks again until there is an answer.
    #[expect(clippy::disallowed_methods, reason = "polls with a deadline")]
    pub(super) fn until<R>(&self, what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
        let start = self.clock.monotonic();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(self.clock.monotonic().saturating_sub(start) < DEADLINE, "not within the deadline: {what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub(super) fn topic(&self, name: &str, partitions: u32) -> TopicName {
        self.topic_with(name, partitions, Cleanup::Delete, &[])
    }

    pub(super) fn topic_with(
        &self,
        name: &str,
        partitions: u32,
        cleanup: Cleanup,
        config: &[(&str, &str)],
    ) -> TopicName {
        let name = TopicName::new(self.name(name));
        let config = config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let new = NewTopic { name: name.clone(), partitions, replication: None, cleanup, config };
        self.log.create_topic(&new).unwrap();
        name
    }

    pub(super) fn end(&self, topic: &TopicName, partition: u32) -> Offset {
        self.until("the end is told", || match self.log.offsets(OffsetQuery::End, &[at(topic, partition)]) {
            Ok(ends) => Some(ends[0]),
            Err(error) => {
                // A topic that has just been made may have no leader yet.
                assert_eq!(error.next(), Next::Retry, "{error}");
                None
            }
        })
    }

    pub(super) fn committed(&self, partition: u32) -> Option<Offset> {
        let partitions = [at(&self.input, partition)];
        let answer =
            self.until("the committed offsets are stable", || self.log.committed(&self.group, &partitions).ok());
        answer[0].as_ref().map(|committed| committed.offset)
    }

    pub(super) fn offset(&self, offset: i64) -> [OffsetCommit; 1] {
        let partition = at(&self.input, 0);
        [OffsetCommit { partition, offset: Offset(offset), metadata: METADATA.to_owned() }]
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    pub(super) fn settings(&self, name: &str) -> ProducerSettings {
        ProducerSettings {
            name: self.name(name),
            transactional_id: Some(self.name(name)),
            max_message_bytes: 1_048_588,
            batch_bytes: 1_048_588,
            queue_bytes: 16 << 20,
        }
    }

    pub(super) fn producer(&self, name: &str) -> Box<dyn Producer> {
        let mut producer = self.log.producer(&self.settings(name)).unwrap();
        producer.init().unwrap();
        producer
    }

    pub(super) fn send(
        &self,
        producer: &mut dyn Producer,
        topic: &TopicName,
        partition: u32,
        record: OutgoingRecord<'_>,
    ) {
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

    pub(super) fn send_text(&self, producer: &mut dyn Producer, topic: &TopicName, partition: u32, text: &str) {
        let value = Some(text.as_bytes());
        self.send(
            producer,
            topic,
            partition,
            OutgoingRecord { key: None, value, timestamp: EventTime(1), headers: &[] },
        );
    }

    pub(super) fn drain(&self, producer: &mut dyn Producer) {
        self.until("the queue is empty", || {
            producer.poll(Duration::from_millis(1));
            (producer.queued_bytes() == 0).then_some(())
        });
    }

    pub(super) fn commit(
        &self,
        producer: &mut dyn Producer,
        member: &mut Member,
        offset: i64,
    ) -> Result<Committed, CommitFailure> {
        producer.commit(&self.offset(offset), &member.metadata())
    }

    /// Commits these texts, by a producer and a group of their own.
    pub(super) fn write(&self, topic: &TopicName, partition: u32, texts: &[&str]) {
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
    pub(super) fn member(&self, client_id: &str, instance_id: Option<&str>) -> Member {
        let mut member = self.joining(client_id, instance_id);
        self.settle(&mut [&mut member], |members| members[0].owned.len() == 2);
        member
    }

    pub(super) fn joining(&self, client_id: &str, instance_id: Option<&str>) -> Member {
        self.member_of(&self.group, client_id, instance_id)
    }

    pub(super) fn member_of(&self, group: &str, client_id: &str, instance_id: Option<&str>) -> Member {
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
    pub(super) fn settle(&self, members: &mut [&mut Member], done: impl Fn(&[&mut Member]) -> bool) {
        self.until("the group settles", || {
            for member in members.iter_mut() {
                member.step(Answer::Acknowledge);
            }
            done(members).then_some(())
        });
    }

    /// One partition each, and both know of the same generation.
    pub(super) fn share(&self, one: &mut Member, two: &mut Member) {
        let generation = |member: &Member| member.group.metadata().map(|metadata| metadata.generation);
        self.settle(&mut [one, two], |members| {
            members.iter().all(|member| member.owned.len() == 1) && generation(members[0]) == generation(members[1])
        });
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    pub(super) fn reader(&self, topic: &TopicName, partition: u32, from: Offset) -> Reader {
        let fetcher = self.log.fetcher(&self.name("reader")).unwrap();
        let mut reader = Reader { fetcher, records: vec![], texts: vec![], ends: vec![], failed: vec![] };
        reader.assign(topic, partition, from);
        reader
    }

    /// Everything up to the high watermark of now.
    pub(super) fn read(&self, topic: &TopicName, partition: u32, from: Offset) -> Vec<Record> {
        let mut reader = self.reader(topic, partition, from);
        reader.read_to(self, self.end(topic, partition));
        reader.records
    }
}

pub(super) struct Member {
    pub(super) membership: Box<dyn Membership>,
    pub(super) group: Arc<dyn Group>,
    pub(super) owned: BTreeSet<TopicPartition>,
}

#[derive(Clone, Copy)]
pub(super) enum Answer {
    Acknowledge,
    Keep,
}

impl Member {
    pub(super) fn step(&mut self, answer: Answer) -> Option<OwnershipEvent> {
        let event = self.membership.poll(STEP).unwrap()?;
        if let Answer::Acknowledge = answer {
            self.acknowledge(&event);
        }
        Some(event)
    }

    pub(super) fn acknowledge(&mut self, event: &OwnershipEvent) {
        match event {
            OwnershipEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            OwnershipEvent::Revoked(partitions) | OwnershipEvent::Lost(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
            }
        }
        self.membership.acknowledge(event).unwrap();
    }

    pub(super) fn metadata(&self) -> GroupMetadata {
        self.group.metadata().unwrap()
    }
}

pub(super) struct Reader {
    pub(super) fetcher: Box<dyn Fetcher>,
    pub(super) records: Vec<Record>,
    pub(super) texts: Vec<String>,
    pub(super) ends: Vec<Offset>,
    pub(super) failed: Vec<(FetchSlot, Error)>,
}

impl Reader {
    pub(super) fn assign(&mut self, topic: &TopicName, partition: u32, from: Offset) {
        self.ends.clear();
        self.fetcher.assign(SLOT, &at(topic, partition), from).unwrap();
    }

    pub(super) fn step(&mut self) {
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

    pub(super) fn next_end(&mut self, scene: &Scene) -> Offset {
        scene.until("the end is told", || {
            self.step();
            assert_eq!(self.failed, []);
            self.ends.pop()
        })
    }

    pub(super) fn read_to(&mut self, scene: &Scene, end: Offset) {
        scene.until("the end is reached", || {
            self.step();
            assert_eq!(self.failed, []);
            self.ends.iter().any(|reached| *reached >= end).then_some(())
        });
    }

    /// The texts since the last call.
    pub(super) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }
}

pub(super) fn at(topic: &TopicName, partition: u32) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: Partition(partition) }
}

pub(super) fn sorted(committed: Committed) -> Vec<(TopicPartition, Offset)> {
    let mut ends = committed.ends;
    ends.sort();
    ends
}

pub(super) fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()).collect()
}

impl Debug for Scene {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scene").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
