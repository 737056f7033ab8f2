//! The outside log: topics, offsets, transactions and group membership, behind one seam.
//!
//! What it is: the vocabulary that everything above uses to talk to Kafka, and nothing more. `kafka` is the product,
//! `memory` is a faithful in-process log for `dev`, `test` and the fault simulation. Both pass one contract suite
//! (`log::contract`).
//!
//! What it is not: it never retries, never decides what an error means for a task, never looks into a record.
//!
//! Invariants
//! - All reads are read-committed. A record of an aborted or open transaction is never handed out.
//! - Offsets are handed to `Producer::commit` with the group's metadata; there is no way to commit without it.
//! - Every error says what must happen next ([`Error::next`]).

#[doc(hidden)]
pub mod contract;
pub mod error;
pub mod kafka;
pub mod memory;
pub mod partitioner;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::row::Header;

pub use error::{CommitFailure, Error, Next, Outcome, SendFailure};

pub type SharedLog = Arc<dyn Log>;

/// A Kafka cluster, or something that behaves like one.
///
/// An implementer owes: every method may block for network time but returns within `limits::LOG_REQUEST_TIMEOUT` with
/// an error rather than hang; methods may be called from any thread.
pub trait Log: Send + Sync + fmt::Debug {
    /// The id of the cluster, which local state is bound to.
    fn cluster_id(&self) -> Result<String, Error>;

    /// One entry per name asked for, in that order; `None` where the topic does not exist.
    fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<Option<TopicDescription>>, Error>;

    /// Creates the topics and returns when those that it has made are visible in metadata and can be used. One entry per topic, in that
    /// order: what is wrong with one does not keep the others from being made. `Error::TopicExists` where it is there already.
    fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<(), Error>>, Error>;

    /// [`Log::create_topics`] for one.
    fn create_topic(&self, topic: &NewTopic) -> Result<(), Error> {
        self.create_topics(std::slice::from_ref(topic))?.into_iter().collect()
    }

    /// Deleting an absent topic is not an error.
    fn delete_topics(&self, names: &[TopicName]) -> Result<(), Error>;

    /// Deletes the records before the offsets (repartition topics, after a commit). Compacted-only topics refuse it.
    fn delete_records(&self, before: &[(TopicPartition, Offset)]) -> Result<(), Error>;

    /// The group's committed offsets with `require_stable`: waits for pending transactional commits to be decided.
    /// One entry per partition asked for, in that order.
    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Error>;

    /// One entry per partition asked for, in that order. Reads uncommitted ends: `OffsetQuery::End` is the high
    /// watermark, not the last stable offset.
    fn offsets(&self, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, Error>;

    /// Says that this group will be asked about soon: what that takes can be made ready meanwhile. Does not wait.
    fn expect_group(&self, _group: &str) {}

    /// The members of the group now.
    fn describe_group(&self, group: &str) -> Result<GroupDescription, Error>;

    /// Deletes an empty group with its offsets (`reset`). An absent group is not an error.
    fn delete_group(&self, group: &str) -> Result<(), Error>;

    /// Sets committed offsets of a group that has no members (`reset --offsets`).
    fn set_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<(), Error>;

    /// A client that reads the partitions it is told to.
    fn fetcher(&self, name: &str) -> Result<Box<dyn Fetcher>, Error>;

    /// A fetch client for reading to an end: it is told of that soon, while one for records that are still to come may have
    /// the cluster hold the answer back until some have.
    ///
    /// # Errors
    /// As [`Log::fetcher`].
    fn fetcher_to_the_end(&self, name: &str) -> Result<Box<dyn Fetcher>, Error> {
        self.fetcher(name)
    }

    /// A producer. It does not talk to the log before `init`.
    fn producer(&self, settings: &ProducerSettings) -> Result<Box<dyn Producer>, Error>;

    /// Joins the consumer group. The member fetches nothing.
    fn join(&self, settings: &MembershipSettings) -> Result<Box<dyn Membership>, Error>;
}

// ---- topics ------------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    pub name: TopicName,
    /// Kafka's topic id: another one under the same name is another topic.
    pub id: String,
    pub partitions: u32,
    pub cleanup: Cleanup,
    /// `max.message.bytes`: the largest record batch that the topic takes.
    pub max_message_bytes: usize,
    /// `delete.retention.ms`: how long a tombstone is kept in a compacted topic.
    pub delete_retention_ms: i64,
    pub timestamps: Timestamps,
}

impl TopicDescription {
    pub fn all_partitions(&self) -> impl Iterator<Item = TopicPartition> {
        (0..self.partitions).map(|number| TopicPartition::new(self.name.clone(), Partition(number)))
    }
}

/// `message.timestamp.type`: whose times the topic's records have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamps {
    /// The producer's. Kafka refuses those that are too far from its own: `message.timestamp.after.max.ms`, an hour ahead.
    CreateTime,
    /// Kafka's own.
    LogAppendTime,
}

/// `cleanup.policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    Delete,
    Compact,
    CompactDelete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    pub name: TopicName,
    pub partitions: u32,
    /// `None` is the broker's default.
    pub replication: Option<u16>,
    pub cleanup: Cleanup,
    /// Further topic configuration, in Kafka's names.
    pub config: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The log start offset.
    Start,
    /// The high watermark.
    End,
    /// The first record with at least this timestamp, or the end if there is none.
    At(EventTime),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: Offset,
    pub metadata: String,
}

// ---- reading -----------------------------------------------------------------------------------------------------

/// A caller's number for an assigned partition: what fetched records are labelled with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchSlot(pub u32);

/// Reads assigned partitions in batches. Belongs to one thread.
///
/// An implementer owes: records of one slot come in offset order, each at most once between two (re)positionings, none
/// from before the last `assign`/`seek` of its slot, none while paused (what was fetched ahead stays inside and is
/// handed out after `resume`); an `End` each time that the reader catches up with the last stable offset.
pub trait Fetcher: Send {
    /// Starts to read the partition at the offset. An assigned slot is repositioned, and stays paused if it was.
    fn assign(&mut self, slot: FetchSlot, partition: &TopicPartition, from: Offset) -> Result<(), Error>;
    fn unassign(&mut self, slot: FetchSlot) -> Result<(), Error>;
    fn pause(&mut self, slot: FetchSlot) -> Result<(), Error>;
    fn resume(&mut self, slot: FetchSlot) -> Result<(), Error>;
    /// Appends what has arrived, at most `limit` events, waiting up to `wait` for the first one.
    fn fetch(&mut self, into: &mut Vec<Fetched>, limit: usize, wait: Duration) -> Result<(), Error>;
}

#[derive(Debug)]
pub enum Fetched {
    Record(FetchSlot, Record),
    /// Everything that is committed before this offset has been handed out. Control records take offsets: it can be
    /// greater than the last record's successor.
    End(FetchSlot, Offset),
    /// Reading this slot failed (topic gone, offset out of range, not authorised); the other slots go on.
    Failed(FetchSlot, Error),
}

/// One record, as fetched. The bytes stay where the client put them.
#[derive(Debug)]
pub struct Record {
    pub offset: Offset,
    /// Kafka's record timestamp.
    pub timestamp: EventTime,
    pub(in crate::log) payload: Payload,
}

#[derive(Debug)]
pub(in crate::log) enum Payload {
    Memory(Arc<memory::StoredRecord>),
    Kafka(kafka::message::Message),
}

impl Record {
    pub fn key(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Memory(record) => record.key.as_deref(),
            Payload::Kafka(message) => message.key(),
        }
    }

    pub fn value(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Memory(record) => record.value.as_deref(),
            Payload::Kafka(message) => message.value(),
        }
    }

    /// The headers in their order. Parsed on each call: ask only where they are used.
    pub fn headers(&self) -> Vec<Header> {
        match &self.payload {
            Payload::Memory(record) => record.headers.to_vec(),
            Payload::Kafka(message) => message.headers(),
        }
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        self.key().map_or(0, <[u8]>::len) + self.value().map_or(0, <[u8]>::len)
    }
}

// ---- writing -----------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSettings {
    /// Shown in the broker's logs.
    pub name: String,
    /// `None`: an idempotent producer without transactions (`at_least_once`).
    pub transactional_id: Option<String>,
    /// The largest record batch that any of its topics takes.
    pub max_message_bytes: usize,
    /// The largest record batch that all of its topics take: what more than one record may come to.
    pub batch_bytes: usize,
    /// How many bytes may wait for the broker.
    pub queue_bytes: usize,
}

/// A producer's handle for a topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicHandle(pub u32);

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingRecord<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// The Kafka client takes 0 for "now"; `log::kafka` writes 1 instead.
    pub timestamp: EventTime,
    pub headers: &'a [Header],
}

/// Writes records, and commits them together with offsets. Belongs to one thread.
///
/// The life of a transaction: `init` once; then `begin`, `send`..., and `commit` or `abort`. Without a transactional id
/// `begin` and `abort` do nothing, and `commit` waits for all acknowledgements and then commits the offsets through the
/// group. An implementer owes: after an error whose `next()` is `Next::RecreateProducer` no call but `drop` is made.
pub trait Producer: Send {
    /// Fences every earlier producer with this transactional id and resolves its open transaction.
    fn init(&mut self) -> Result<(), Error>;

    /// The handle for a topic; the same one for the same name.
    fn topic(&mut self, name: &TopicName) -> Result<TopicHandle, Error>;

    fn begin(&mut self) -> Result<(), Error>;

    /// Queues a copy of the record. `SendFailure::QueueFull`: call `poll` and try again.
    fn send(&mut self, topic: TopicHandle, partition: Partition, record: OutgoingRecord<'_>)
    -> Result<(), SendFailure>;

    /// Serves the network for up to `wait`.
    fn poll(&mut self, wait: Duration);

    /// Bytes queued and not yet acknowledged.
    fn queued_bytes(&self) -> usize;

    /// Waits for all acknowledgements, adds the offsets under the group's metadata, and commits.
    ///
    /// `offsets` must not be empty (an empty list fences nothing), and the metadata must be that of a member
    /// (generation >= 0, member id not empty): both are asserted.
    fn commit(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<Committed, CommitFailure>;

    fn abort(&mut self) -> Result<(), Error>;
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    pub partition: TopicPartition,
    /// The next record to read.
    pub offset: Offset,
    pub metadata: String,
}

/// What a commit wrote, from acknowledgements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Per partition written to: the highest acknowledged offset + 1.
    pub ends: Vec<(TopicPartition, Offset)>,
}

// ---- the group ---------------------------------------------------------------------------------------------------

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MembershipSettings {
    pub group: String,
    /// Carries the hash of the ownership map; other members read it from the group's description.
    pub client_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// The representative topics. They exist.
    pub topics: Vec<TopicName>,
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub max_poll_interval: Duration,
}

/// What the group says about this member's partitions. Each must be acknowledged, and nothing else of the group goes on
/// for this member before it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnershipEvent {
    /// These are now owned, beside what was owned before. The first event of a membership is one of these, empty where
    /// there is nothing for this member yet.
    Assigned(Vec<TopicPartition>),
    /// These must be given up; commits for them are still accepted until the acknowledgement.
    Revoked(Vec<TopicPartition>),
    /// These are gone already; nothing may be committed for them.
    Lost(Vec<TopicPartition>),
}

/// This process's place in the group. Belongs to one thread, which polls it.
pub trait Membership: Send {
    /// Serves the group for up to `wait`. Must be called at least every `max_poll_interval`.
    fn poll(&mut self, wait: Duration) -> Result<Option<OwnershipEvent>, Error>;

    /// Tells the group that the event was acted upon.
    fn acknowledge(&mut self, event: &OwnershipEvent) -> Result<(), Error>;

    /// A handle to the group for other threads.
    fn group(&self) -> Arc<dyn Group>;

    /// Ends the membership. `Leave::Now` gives the partitions up at once; `Leave::Stay` (static members) keeps them
    /// until the session times out.
    fn close(self: Box<Self>, leave: Leave) -> Result<(), Error>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// A static member keeps its partitions until its session times out all the same: the Kafka client cannot take it
    /// out of the group.
    Now,
    Stay,
}

/// The group as workers see it.
pub trait Group: Send + Sync + fmt::Debug {
    /// Read fresh for every commit. `None` while there is no valid membership.
    fn metadata(&self) -> Option<GroupMetadata>;

    /// Commits offsets outside of any transaction, with this generation (`at_least_once`).
    fn commit(&self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error>;
}

/// What fences a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadata {
    pub group: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    pub members: Vec<GroupMember>,
    pub stable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    pub member_id: String,
    pub client_id: String,
    pub instance_id: Option<String>,
    pub assignment: Vec<TopicPartition>,
}
