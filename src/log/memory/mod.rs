//! A faithful in-process log: topics, transactions, fencing, groups and compaction as Kafka has them, without a broker.
//!
//! What it is: what `dev`, `test` and the fault simulation run on. It passes the contract suite that the real log passes.
//! It works from many threads, and from one thread with a manual clock, where the same calls give the same answers: it
//! draws no random number, and nothing depends on the order of a hash map.
//!
//! What it is not: durable, replicated, or bounded by itself: `trim`, `compact` and `delete_records` are there to be
//! called.
//!
//! Invariants
//! - One lock over the whole state, held for the time of one request; faults are drawn outside of it.
//! - Time passes only where a request looks at the clock: sessions, transactions and late control records are decided
//!   before the request is.
//! - No call blocks but a `fetch` or `poll` with a wait (and not even these in a log made `for_one_thread`). What Kafka would wait for, such as pending offsets, is
//!   `Error::TimedOut` at once.
//! - A fetched record is the stored one, shared: fetching copies nothing.

mod assignor;
pub mod faults;
mod fetcher;
mod group;
mod membership;
mod producer;
mod state;
mod topic;
mod transaction;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use crate::clock::SharedClock;
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::log::{
    CommittedOffset, Error, Fetcher, GroupDescription, Log, Membership, MembershipSettings, NewTopic, OffsetCommit,
    OffsetQuery, OutgoingRecord, Payload, Producer, ProducerSettings, Record, SharedLog, TopicDescription,
};
use faults::{Client, Fault, FaultSource, Request, Step};
use state::{Shared, Waiting};

pub use topic::StoredRecord;
pub use transaction::End;

/// A client's handle to an in-process log. Clones are the same client.
#[derive(Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
    client: Arc<Client>,
}

impl MemoryLog {
    /// An empty log. Its cluster id is made from the clock's wall time.
    pub fn new(clock: SharedClock) -> Self {
        let cluster_id = format!("memory-{:x}", clock.wall_micros());
        Self::with_cluster_id(clock, cluster_id)
    }

    /// An empty log of a cluster with this id.
    pub fn with_cluster_id(clock: SharedClock, cluster_id: impl Into<String>) -> Self {
        Self::made(clock, cluster_id.into(), Waiting::Blocks)
    }

    /// An empty log for a simulation on one thread: nobody else could end a wait, so that each one ends at once.
    pub fn for_one_thread(clock: SharedClock, cluster_id: impl Into<String>) -> Self {
        Self::made(clock, cluster_id.into(), Waiting::EndsAtOnce)
    }

    fn made(clock: SharedClock, cluster_id: String, waiting: Waiting) -> Self {
        Self { shared: Arc::new(Shared::new(clock, cluster_id, waiting)), client: Client::new("") }
    }

    pub fn shared(&self) -> SharedLog {
        Arc::new(self.clone())
    }

    // ---- simulated processes ---------------------------------------------------------------------------------------

    /// A handle for another client of the same log: a process that can be killed, and that faults are drawn for.
    #[must_use]
    pub fn client(&self, name: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), client: Client::new(name) }
    }

    /// Ends this client as SIGKILL would: nothing that it or its producers, fetchers and memberships do from now on
    /// reaches the log. Open transactions stay open, memberships stay until their session times out. A process that
    /// starts again takes another handle from `client`.
    pub fn kill(&self) {
        self.shared.kill(&self.client);
    }

    // ---- faults ----------------------------------------------------------------------------------------------------

    /// Who is asked at each step of each client. `None` ends the faults.
    pub fn set_faults(&self, source: Option<FaultSource>) {
        self.shared.set_faults(source);
    }

    /// Writes the control records that [`Fault::DelayMarkers`] holds back.
    pub fn release_markers(&self) {
        self.shared.with(|state, _| {
            let (transactions, mut participants) = state.transactions();
            if transactions.release_markers(&mut participants) {
                state.changed();
            }
        });
    }

    /// Does what another producer's `init` would do: aborts the open transaction and fences its producer.
    pub fn fence(&self, transactional_id: &str) {
        self.shared.with(|state, now| {
            let (transactions, mut participants) = state.transactions();
            transactions.fence_id(transactional_id, now, &mut participants);
            state.changed();
        });
    }

    /// Ends a member's session as if its heartbeats had not arrived. Whether there was such a member.
    pub fn expire_member(&self, group: &str, member_id: &str) -> bool {
        self.shared.with(|state, now| state.expire_member(group, member_id, now))
    }

    /// Starts a rebalance, as any change of the group would.
    pub fn force_rebalance(&self, group: &str) {
        self.shared.with(|state, now| state.force_rebalance(group, now));
    }

    // ---- direct access ---------------------------------------------------------------------------------------------

    /// Appends a record outside of any transaction.
    pub fn append(&self, topic: &TopicName, partition: Partition, record: OutgoingRecord<'_>) -> Result<Offset, Error> {
        self.shared.with(|state, _| state.append(topic, partition, record, &self.shared.clock))
    }

    /// All committed records of a partition, from its start to its last stable offset.
    pub fn records(&self, partition: &TopicPartition) -> Result<Vec<Record>, Error> {
        self.shared.with(|state, _| {
            let log = state.topics.partition(partition)?;
            Ok(log.committed_from(log.start()).map(fetched).collect())
        })
    }

    /// All committed records of a topic, by partition and offset.
    pub fn topic_records(&self, topic: &TopicName) -> Result<Vec<(Partition, Record)>, Error> {
        self.shared.with(|state, _| {
            let named = state.topics.named(topic)?;
            let partitions = (0..named.partition_count()).map(Partition);
            Ok(partitions
                .filter_map(|number| named.partition(number).map(|log| (number, log)))
                .flat_map(|(number, log)| log.committed_from(log.start()).map(move |record| (number, fetched(record))))
                .collect())
        })
    }

    pub fn high_watermark(&self, partition: &TopicPartition) -> Result<Offset, Error> {
        self.shared.with(|state, _| Ok(state.topics.partition(partition)?.end()))
    }

    pub fn last_stable_offset(&self, partition: &TopicPartition) -> Result<Offset, Error> {
        self.shared.with(|state, _| Ok(state.topics.partition(partition)?.last_stable()))
    }

    /// One run of the log cleaner over the topic: keeps the last committed record per key, and drops a tombstone that an
    /// earlier run has seen `delete.retention.ms` ago. Nothing where the topic is not compacted.
    pub fn compact(&self, topic: &TopicName) -> Result<(), Error> {
        let now_ms = self.shared.clock.wall_micros().div_euclid(1000);
        self.shared.with(|state, _| {
            state.topics.named_mut(topic)?.compact(now_ms);
            Ok(())
        })
    }

    /// Deletes all but the last `keep` committed records of each partition, as retention would.
    pub fn trim(&self, topic: &TopicName, keep: usize) -> Result<(), Error> {
        self.shared.with(|state, _| {
            state.topics.named_mut(topic)?.trim(keep);
            Ok(())
        })
    }

    /// Gives the topic more partitions; fewer is not possible.
    pub fn grow_topic(&self, topic: &TopicName, partitions: u32) -> Result<(), Error> {
        self.shared.with(|state, now| {
            state.topics.named_mut(topic)?.grow(partitions);
            state.groups.topic_changed(topic, now);
            state.changed();
            Ok(())
        })
    }

    /// Serves a request, with the faults that are drawn for it.
    fn request<R>(
        &self,
        request: Request,
        serve: impl FnOnce(&mut state::State, std::time::Duration) -> Result<R, Error>,
    ) -> Result<R, Error> {
        match self.shared.fault(&self.client, Step::Request(request)) {
            Fault::Unreachable => Err(faults::unreachable(&self.client)),
            Fault::AnswerLost => {
                let _answer = self.shared.with(serve);
                Err(faults::answer_lost())
            }
            _ => self.shared.with(serve),
        }
    }
}

impl Log for MemoryLog {
    fn cluster_id(&self) -> Result<String, Error> {
        self.request(Request::ClusterId, |state, _| Ok(state.cluster_id.clone()))
    }

    fn describe_topics(&self, names: &[TopicName]) -> Result<Vec<Option<TopicDescription>>, Error> {
        self.request(Request::DescribeTopics, |state, _| {
            Ok(names.iter().map(|name| state.topics.named(name).ok().map(topic::Topic::describe)).collect())
        })
    }

    fn create_topics(&self, topics: &[NewTopic]) -> Result<Vec<Result<(), Error>>, Error> {
        self.request(Request::CreateTopics, |state, now| {
            let create = |topic: &NewTopic| {
                state.topics.create(topic)?;
                state.groups.topic_changed(&topic.name, now);
                Ok(())
            };
            let created = topics.iter().map(create).collect();
            state.changed();
            Ok(created)
        })
    }

    fn delete_topics(&self, names: &[TopicName]) -> Result<(), Error> {
        self.request(Request::DeleteTopics, |state, now| {
            for name in names {
                if state.topics.delete(name) {
                    state.groups.topic_deleted(name, now);
                }
            }
            state.changed();
            Ok(())
        })
    }

    fn delete_records(&self, before: &[(TopicPartition, Offset)]) -> Result<(), Error> {
        self.request(Request::DeleteRecords, |state, _| {
            for (partition, offset) in before {
                state.topics.named_mut(&partition.topic)?.delete_before(partition.partition, *offset)?;
            }
            state.changed();
            Ok(())
        })
    }

    fn committed(&self, group: &str, partitions: &[TopicPartition]) -> Result<Vec<Option<CommittedOffset>>, Error> {
        self.request(Request::Committed, |state, _| {
            let Some(group) = state.groups.get(group) else { return Ok(vec![None; partitions.len()]) };
            partitions.iter().map(|partition| group.committed(partition)).collect()
        })
    }

    fn offsets(&self, query: OffsetQuery, partitions: &[TopicPartition]) -> Result<Vec<Offset>, Error> {
        self.request(Request::Offsets, |state, _| {
            partitions.iter().map(|partition| Ok(state.topics.partition(partition)?.offset(query))).collect()
        })
    }

    fn describe_group(&self, group: &str) -> Result<GroupDescription, Error> {
        self.request(Request::DescribeGroup, |state, _| {
            let absent = || GroupDescription { members: Vec::new(), stable: false };
            Ok(state.groups.get(group).map_or_else(absent, group::GroupState::describe))
        })
    }

    fn delete_group(&self, group: &str) -> Result<(), Error> {
        self.request(Request::DeleteGroup, |state, _| state.groups.delete(group))
    }

    fn set_offsets(&self, group: &str, offsets: &[OffsetCommit]) -> Result<(), Error> {
        self.request(Request::SetOffsets, |state, _| state.groups.set_offsets(group, offsets))
    }

    fn fetcher(&self, name: &str) -> Result<Box<dyn Fetcher>, Error> {
        Ok(Box::new(fetcher::MemoryFetcher::new(&self.shared, &self.client, name)))
    }

    fn producer(&self, settings: &ProducerSettings) -> Result<Box<dyn Producer>, Error> {
        Ok(Box::new(producer::MemoryProducer::new(&self.shared, &self.client, settings)))
    }

    fn join(&self, settings: &MembershipSettings) -> Result<Box<dyn Membership>, Error> {
        match self.shared.fault(&self.client, Step::Request(Request::Join)) {
            Fault::Unreachable | Fault::AnswerLost => Err(faults::unreachable(&self.client)),
            _ => Ok(Box::new(membership::MemoryMembership::join(&self.shared, &self.client, settings))),
        }
    }
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryLog").field("client", &self.client.name).finish_non_exhaustive()
    }
}

fn fetched(record: &Arc<StoredRecord>) -> Record {
    Record { offset: record.offset, timestamp: record.timestamp, payload: Payload::Memory(Arc::clone(record)) }
}
