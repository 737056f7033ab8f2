//! A log whose calls can be made to wait, as those of a client that hangs would.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::log::{
    CommitFailure, Committed, CommittedOffset, Error, FetchSlot, Fetched, Fetcher, GroupDescription, GroupMetadata,
    Log, Membership, MembershipSettings, NewTopic, OffsetCommit, OffsetQuery, OutgoingRecord, Producer,
    ProducerSettings, SendFailure, SharedLog, TopicDescription, TopicHandle,
};

/// Whoever comes while it is closed waits until it is opened.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    opened: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

impl Gate {
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    pub fn open(&self) {
        self.state.lock().closed = false;
        self.opened.notify_all();
    }

    /// How many stand before it.
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    fn pass(&self) {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.closed {
            self.opened.wait(&mut state);
        }
        state.waiting -= 1;
    }
}

/// `inner`, with a gate before what fetchers of that name read and one before what producers send.
#[derive(Debug)]
pub struct GatedLog {
    pub inner: SharedLog,
    pub fetchers: &'static str,
    pub fetches: Arc<Gate>,
    pub sends: Arc<Gate>,
    /// Transactions whose end was asked for.
    pub commits: Arc<AtomicUsize>,
}

impl GatedLog {
    pub fn new(inner: SharedLog, fetchers: &'static str) -> Self {
        Self { inner, fetchers, fetches: Arc::default(), sends: Arc::default(), commits: Arc::default() }
    }
}

impl Log for GatedLog {
    fn cluster_id(&self) -> Result<String, Error> {
        self.inner.cluster_id()
    }

    fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<Option<TopicDescription>>, Error> {
        self.inner.describe_topics(names)
    }

    fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<(), Error>>, Error> {
        self.inner.create_topics(topics)
    }

    fn delete_topics(&self, names: &[TopicName]) -> Result<(), Error> {
        self.inner.delete_topics(names)
    }

    fn delete_records(&self, before: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.inner.delete_records(before)
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Error> {
        self.inner.committed(group, partitions)
    }

    fn offsets(&self, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, Error> {
        self.inner.offsets(query, partitions)
    }

    fn expect_group(&self, group: &str) {
        self.inner.expect_group(group);
    }

    fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        self.inner.describe_group(group)
    }

    fn delete_group(&self, group: &str) -> Result<(), Error> {
        self.inner.delete_group(group)
    }

    fn set_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<(), Error> {
        self.inner.set_offsets(group, offsets)
    }

    fn fetcher(&self, name: &str) -> Result<Box<dyn Fetcher>, Error> {
        let inner = self.inner.fetcher(name)?;
        if name != self.fetchers {
            return Ok(inner);
        }
        Ok(Box::new(GatedFetcher { inner, gate: Arc::clone(&self.fetches) }))
    }

    fn producer(&self, settings: &ProducerSettings) -> Result<Box<dyn Producer>, Error> {
        let (gate, commits) = (Arc::clone(&self.sends), Arc::clone(&self.commits));
        Ok(Box::new(GatedProducer { inner: self.inner.producer(settings)?, gate, commits }))
    }

    fn join(&self, settings: &MembershipSettings) -> Result<Box<dyn Membership>, Error> {
        self.inner.join(settings)
    }
}

struct GatedFetcher {
    inner: Box<dyn Fetcher>,
    gate: Arc<Gate>,
}

impl Fetcher for GatedFetcher {
    fn assign(&mut self, slot: FetchSlot, partition: &TopicPartition, from: Offset) -> Result<(), Error> {
        self.inner.assign(slot, partition, from)
    }

    fn unassign(&mut self, slot: FetchSlot) -> Result<(), Error> {
        self.inner.unassign(slot)
    }

    fn pause(&mut self, slot: FetchSlot) -> Result<(), Error> {
        self.inner.pause(slot)
    }

    fn resume(&mut self, slot: FetchSlot) -> Result<(), Error> {
        self.inner.resume(slot)
    }

    fn fetch(&mut self, into: &mut Vec<Fetched>, limit: usize, wait: Duration) -> Result<(), Error> {
        self.gate.pass();
        self.inner.fetch(into, limit, wait)
    }
}

struct GatedProducer {
    inner: Box<dyn Producer>,
    gate: Arc<Gate>,
    commits: Arc<AtomicUsize>,
}

impl Producer for GatedProducer {
    fn init(&mut self) -> Result<(), Error> {
        self.inner.init()
    }

    fn topic(&mut self, name: &TopicName) -> Result<TopicHandle, Error> {
        self.inner.topic(name)
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.inner.begin()
    }

    fn send(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
        record: OutgoingRecord<'_>,
    ) -> Result<(), SendFailure> {
        self.gate.pass();
        self.inner.send(topic, partition, record)
    }

    fn poll(&mut self, wait: Duration) {
        self.inner.poll(wait);
    }

    fn queued_bytes(&self) -> usize {
        self.inner.queued_bytes()
    }

    fn commit(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<Committed, CommitFailure> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(offsets, group)
    }

    fn abort(&mut self) -> Result<(), Error> {
        self.inner.abort()
    }
}
