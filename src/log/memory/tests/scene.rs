//! A log with one source topic of two partitions and one output, and a process on it.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::ManualClock;
use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::limits;
use crate::log::memory::MemoryLog;
use crate::log::memory::faults::{Fault, Step};
use crate::log::{
    Cleanup, CommitFailure, Committed, FetchSlot, Fetched, Fetcher, Log, Membership, MembershipSettings, NewTopic,
    OffsetCommit, OutgoingRecord, OwnershipEvent, Producer, ProducerSettings,
};

pub(super) const GROUP: &str = "group";
pub(super) const SLOT: FetchSlot = FetchSlot(0);

pub(super) fn at(topic: &str, partition: u32) -> TopicPartition {
    TopicPartition::new(topic, Partition(partition))
}

pub(super) fn text(value: &str) -> OutgoingRecord<'_> {
    OutgoingRecord { key: Some(b"key"), value: Some(value.as_bytes()), timestamp: EventTime(0), headers: &[] }
}

pub(super) fn offsets(offset: i64) -> [OffsetCommit; 1] {
    [OffsetCommit { partition: at("input", 0), offset: Offset(offset), metadata: String::new() }]
}

pub(super) struct Scene {
    pub log: MemoryLog,
    pub clock: Arc<ManualClock>,
}

impl Scene {
    pub fn new() -> Self {
        let clock = ManualClock::at(1_700_000_000_000_000);
        let log = MemoryLog::new(clock.clone());
        let scene = Self { log, clock };
        scene.topic("input", 2, Cleanup::Delete);
        scene.topic("output", 1, Cleanup::Delete);
        scene
    }

    pub fn topic(&self, name: &str, partitions: u32, cleanup: Cleanup) {
        let name = TopicName::new(name);
        self.log.create_topic(&NewTopic { name, partitions, replication: None, cleanup, config: vec![] }).unwrap();
    }

    /// A process that owns the whole source topic, with a producer that has run its `init`.
    pub fn process(&self, name: &str) -> Process {
        let mut process = Process::start(&self.log.client(name), name, None);
        process.settle();
        assert_eq!(process.owned.len(), 2);
        process
    }

    /// Faults that strike at one step, once.
    pub fn strike(&self, at: impl Fn(Step<'_>) -> bool + Send + 'static, fault: Fault) {
        let fault = Mutex::new(Cell::new(Some(fault)));
        self.log.set_faults(Some(Box::new(move |point| {
            if !at(point.step) {
                return Fault::None;
            }
            fault.lock().unwrap().take().unwrap_or(Fault::None)
        })));
    }

    pub fn committed(&self) -> Option<i64> {
        let committed = self.log.committed(GROUP, &[at("input", 0)]).unwrap();
        committed[0].as_ref().map(|committed| committed.offset.0)
    }

    /// The committed values of the output.
    pub fn output(&self) -> Vec<String> {
        let records = self.log.records(&at("output", 0)).unwrap();
        records.iter().map(|record| String::from_utf8(record.value().unwrap().to_vec()).unwrap()).collect()
    }

    pub fn end(&self) -> i64 {
        self.log.high_watermark(&at("output", 0)).unwrap().0
    }

    pub fn stable(&self) -> i64 {
        self.log.last_stable_offset(&at("output", 0)).unwrap().0
    }

    pub fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    pub fn reader(&self, from: i64) -> Reader {
        let mut fetcher = self.log.fetcher("reader").unwrap();
        fetcher.assign(SLOT, &at("output", 0), Offset(from)).unwrap();
        Reader { fetcher }
    }
}

pub(super) struct Process {
    pub log: MemoryLog,
    pub membership: Box<dyn Membership>,
    pub producer: Box<dyn Producer>,
    pub owned: Vec<TopicPartition>,
}

impl Process {
    pub fn start(log: &MemoryLog, name: &str, instance_id: Option<&str>) -> Self {
        let settings = MembershipSettings {
            group: GROUP.to_owned(),
            client_id: name.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            topics: vec!["input".into()],
            session_timeout: limits::SESSION_TIMEOUT,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            max_poll_interval: limits::MAX_POLL_INTERVAL,
        };
        let membership = log.join(&settings).unwrap();
        Self { log: log.clone(), membership, producer: producer(log, name), owned: Vec::new() }
    }

    /// One poll, acknowledged.
    pub fn step(&mut self) -> Option<OwnershipEvent> {
        let event = self.membership.poll(Duration::ZERO).unwrap()?;
        match &event {
            OwnershipEvent::Assigned(partitions) => self.owned.extend(partitions.iter().cloned()),
            OwnershipEvent::Revoked(partitions) | OwnershipEvent::Lost(partitions) => {
                self.owned.retain(|partition| !partitions.contains(partition));
            }
        }
        self.owned.sort();
        self.membership.acknowledge(&event).unwrap();
        Some(event)
    }

    /// Polls until there is nothing to be told.
    pub fn settle(&mut self) {
        while self.step().is_some() {}
    }

    pub fn begin_with(&mut self, values: &[&str]) {
        self.producer.begin().unwrap();
        let topic = self.producer.topic(&"output".into()).unwrap();
        for value in values {
            self.producer.send(topic, Partition(0), text(value)).unwrap();
        }
    }

    pub fn commit(&mut self, offset: i64) -> Result<Committed, CommitFailure> {
        let metadata = self.membership.group().metadata().unwrap();
        self.producer.commit(&offsets(offset), &metadata)
    }

    pub fn generation(&self) -> i32 {
        self.membership.group().metadata().unwrap().generation
    }
}

/// After its `init`.
pub(super) fn producer(log: &MemoryLog, id: &str) -> Box<dyn Producer> {
    let settings = ProducerSettings {
        name: id.to_owned(),
        transactional_id: Some(id.to_owned()),
        max_message_bytes: 1 << 20,
        batch_bytes: 1 << 20,
        queue_bytes: 200,
    };
    let mut producer = log.producer(&settings).unwrap();
    producer.init().unwrap();
    producer
}

pub(super) struct Reader {
    pub fetcher: Box<dyn Fetcher>,
}

impl Reader {
    /// What one fetch hands out: values, and ends as `<offset>`.
    pub fn fetch(&mut self) -> Vec<String> {
        let mut fetched = Vec::new();
        self.fetcher.fetch(&mut fetched, 100, Duration::ZERO).unwrap();
        let shown = fetched.into_iter().map(|event| match event {
            Fetched::Record(_, record) => String::from_utf8(record.value().unwrap().to_vec()).unwrap(),
            Fetched::End(_, end) => format!("<{end}>"),
            Fetched::Failed(_, error) => error.to_string(),
        });
        shown.collect()
    }
}
