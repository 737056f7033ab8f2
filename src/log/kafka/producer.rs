//! Writes records, and commits them together with offsets.
//!
//! The commit, step by step:
//! 1. Kick the queue, and send the offsets with the group's metadata while the last batches are on their way.
//! 2. Wait until every record is acknowledged or refused.
//! 3. Look whether a record was refused or the transaction broke: then it is surely not committed.
//! 4. Commit. From here on a failure leaves the outcome unknown.
//!
//! Without transactions: wait for the acknowledgements, then commit the offsets through the group.
//!
//! Invariant: between `begin` and the end of `commit` or `abort`, `touched` lists each partition written to, once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::error::{Subject, leaves_doubt, translate};
use super::membership::Memberships;
use super::native::produce::{Cell, Producer as NativeProducer, ProducerTopic};
use super::native::{Code, NativeError, admin};
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::limits;
use crate::log::{
    CommitFailure, Committed, Error, GroupMetadata, OffsetCommit, Outcome, OutgoingRecord, Producer, SendFailure,
    TopicHandle,
};

/// How long one step of waiting for acknowledgements lasts. librdkafka wakes nobody when the last one arrives, so this
/// is what a commit may lose.
const DRAIN_STEP: Duration = Duration::from_millis(1);
/// How long a new client may take to reach a broker before it is used all the same.
const CONTACT_WAIT: Duration = Duration::from_secs(1);
/// How many steps pass between two looks at the transaction's state.
const STEPS_PER_LOOK: u32 = 20;

pub struct KafkaProducer {
    native: NativeProducer,
    /// To make the client again; may hold secrets.
    properties: Vec<(String, String)>,
    guarantee: Guarantee,
    topics: Vec<Topic>,
    by_name: FxHashMap<TopicName, TopicHandle>,
    touched: Vec<(TopicHandle, Partition)>,
}

#[derive(Debug)]
pub enum Guarantee {
    /// Idempotent, without transactions; offsets are committed through a membership.
    AtLeastOnce(Arc<Memberships>),
    ExactlyOnce(Transaction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transaction {
    None,
    Open,
}

#[derive(Debug)]
struct Topic {
    name: TopicName,
    native: ProducerTopic,
    partitions: Vec<PartitionState>,
}

#[derive(Debug)]
struct PartitionState {
    cell: Cell,
    sent_bytes: u64,
    touched: bool,
}

impl fmt::Debug for KafkaProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaProducer({:?}, {:?})", self.native, self.guarantee)
    }
}

impl KafkaProducer {
    pub fn new(properties: Vec<(String, String)>, guarantee: Guarantee) -> Result<Self, NativeError> {
        let native = NativeProducer::new(&properties)?;
        let (topics, by_name, touched) = (Vec::new(), FxHashMap::default(), Vec::new());
        Ok(Self { native, properties, guarantee, topics, by_name, touched })
    }

    fn error(&self, error: &NativeError, subject: Subject<'_>) -> Error {
        let error = self.native.client().fatal_error().unwrap_or_else(|| error.clone());
        let problem = leaves_doubt(error.code).then(|| self.native.client().problem()).flatten();
        translate(&error, subject, problem.as_ref())
    }

    /// Learns of partitions that the topic has got since.
    fn count_partitions(&mut self, handle: TopicHandle) -> Result<usize, Error> {
        let topic = &self.topics[handle.0 as usize];
        let counted = self.native.partition_count(topic.native, limits::LOG_REQUEST_TIMEOUT);
        let count = counted.map_err(|error| self.error(&error, Subject::Topic(&topic.name)))?;
        let Self { native, topics, .. } = self;
        let partitions = &mut topics[handle.0 as usize].partitions;
        while partitions.len() < count as usize {
            partitions.push(PartitionState { cell: native.add_cell(), sent_bytes: 0, touched: false });
        }
        Ok(partitions.len())
    }

    fn touched(&self) -> impl Iterator<Item = (&Topic, Partition, &PartitionState)> {
        self.touched.iter().map(|(handle, partition)| {
            let topic = &self.topics[handle.0 as usize];
            (topic, *partition, &topic.partitions[partition.0 as usize])
        })
    }

    /// Forgets the transaction's acknowledgements.
    fn forget_touched(&mut self) {
        for (handle, partition) in self.touched.drain(..) {
            let state = &mut self.topics[handle.0 as usize].partitions[partition.0 as usize];
            self.native.cell(state.cell).reset();
            state.touched = false;
        }
    }

    /// Waits until nothing is on its way; ends early when there is no point in waiting.
    fn drain(&self, limit: Duration) -> Result<(), NativeError> {
        let mut waited = Duration::ZERO;
        let mut steps = 0_u32;
        while self.native.queued() > 0 {
            self.native.flush(DRAIN_STEP);
            waited += DRAIN_STEP;
            steps += 1;
            if steps.is_multiple_of(STEPS_PER_LOOK)
                && let Some(error) = self.broken()
            {
                return Err(error);
            }
            if waited >= limit {
                return Err(NativeError::new(Code::TIMED_OUT, "records are not acknowledged"));
            }
        }
        Ok(())
    }

    /// What makes further waiting pointless.
    fn broken(&self) -> Option<NativeError> {
        match self.guarantee {
            Guarantee::ExactlyOnce(_) => self.native.transaction_error(),
            Guarantee::AtLeastOnce(_) => self.native.client().fatal_error(),
        }
    }

    /// The first record that did not get through.
    fn refused(&self) -> Option<(NativeError, TopicName)> {
        self.touched().find_map(|(topic, _, state)| {
            let code = self.native.cell(state.cell).failure()?;
            Some((NativeError::from_code(code), topic.name.clone()))
        })
    }

    /// Why the records did not all get through, if they did not. A refused record explains a broken transaction.
    fn delivery_failure(&self, drained: Result<(), NativeError>) -> Option<CommitFailure> {
        if let Some((error, topic)) = self.refused() {
            return Some(self.before_commit(&error, Subject::Topic(&topic)));
        }
        let error = drained.err().or_else(|| self.broken())?;
        Some(self.before_commit(&error, Subject::Cluster))
    }

    /// A failure before the commit was asked for: nothing is committed. Where an answer is missing the producer has to
    /// be replaced all the same, since a late request could reach its next transaction (KAFKA-17754).
    fn before_commit(&self, error: &NativeError, subject: Subject<'_>) -> CommitFailure {
        let outcome = if leaves_doubt(error.code) { Outcome::Unknown } else { Outcome::Aborted };
        CommitFailure { outcome, error: self.error(error, subject) }
    }

    fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), CommitFailure> {
        let Err(error) = self.native.send_offsets(offsets, group, limits::TRANSACTION_TIMEOUT) else { return Ok(()) };
        // A record that was refused meanwhile breaks the transaction first, and is the better reason.
        if let Some((refused, topic)) = self.refused() {
            return Err(self.before_commit(&refused, Subject::Topic(&topic)));
        }
        Err(self.before_commit(&error, Subject::Cluster))
    }

    fn try_commit(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<(), CommitFailure> {
        self.native.flush(Duration::ZERO);
        if let Guarantee::ExactlyOnce(_) = self.guarantee {
            self.send_offsets(offsets, group)?;
        }
        let drained = self.drain(limits::TRANSACTION_TIMEOUT);
        if let Some(failure) = self.delivery_failure(drained) {
            return Err(failure);
        }
        match &self.guarantee {
            Guarantee::ExactlyOnce(_) => self.commit_transaction(),
            Guarantee::AtLeastOnce(memberships) => memberships.commit(offsets, group).map_err(|error| {
                let doubt = matches!(error, Error::Unreachable { .. } | Error::TimedOut { .. });
                CommitFailure { outcome: if doubt { Outcome::Unknown } else { Outcome::Aborted }, error }
            }),
        }
    }

    fn commit_transaction(&mut self) -> Result<(), CommitFailure> {
        if let Err(error) = self.native.commit_transaction(limits::COMMIT_TIMEOUT) {
            // Refused for a lost record: the one answer that is given before the commit is asked for.
            let outcome = if error.code == Code::INCONSISTENT { Outcome::Aborted } else { Outcome::Unknown };
            return Err(CommitFailure { outcome, error: self.error(&error, Subject::Cluster) });
        }
        self.guarantee = Guarantee::ExactlyOnce(Transaction::None);
        Ok(())
    }

    /// Whatever went wrong, what the broker made of it is known only to a new producer's `init`.
    fn beyond_repair(&self, error: &NativeError) -> Error {
        match self.error(error, Subject::Cluster) {
            fenced @ Error::ProducerFenced { .. } => fenced,
            other => Error::ClientFailed { reason: other.to_string() },
        }
    }

    /// Aborts by taking over the transactional id.
    ///
    /// A record that the broker refused leaves a gap in its partition's sequence numbers, and the next transaction
    /// would be aborted for it (`OUT_OF_ORDER_SEQUENCE_NUMBER`); a new client starts with a new epoch.
    fn replace_client(&mut self) -> Result<(), Error> {
        let mut native = NativeProducer::new(&self.properties).map_err(|error| self.beyond_repair(&error))?;
        let initialised = native.init_transactions(limits::LOG_REQUEST_TIMEOUT);
        initialised.map_err(|error| self.beyond_repair(&error))?;
        for topic in &mut self.topics {
            let name = &topic.name;
            let added = native.add_topic(name.as_str());
            topic.native = added.map_err(|error| translate(&error, Subject::Topic(name), None))?;
            for state in &mut topic.partitions {
                *state = PartitionState { cell: native.add_cell(), sent_bytes: 0, touched: false };
            }
        }
        self.touched.clear();
        self.native = native;
        Ok(())
    }

    fn take_ends(&mut self) -> Committed {
        let ends = self
            .touched()
            .filter_map(|(topic, partition, state)| {
                let end = self.native.cell(state.cell).take_end()?;
                Some((TopicPartition { topic: topic.name.clone(), partition }, Offset(end)))
            })
            .collect();
        self.forget_touched();
        Committed { ends }
    }
}

impl Producer for KafkaProducer {
    fn init(&mut self) -> Result<(), Error> {
        let Guarantee::ExactlyOnce(_) = self.guarantee else { return Ok(()) };
        // A new transactional client may not connect to anything for a second (rd_kafka_brokers_add0 counts the coordinator,
        // which it does not know yet, as a broker), and looks for the coordinator again after 500 ms where no broker is
        // connected (`rd_kafka_txn_coord_query`). That there is none shows below, with its reason.
        if let Err(error) = admin::reach(self.native.client(), CONTACT_WAIT) {
            tracing::debug!(%error, "no broker is connected yet");
        }
        let done = self.native.init_transactions(limits::LOG_REQUEST_TIMEOUT);
        done.map_err(|error| self.error(&error, Subject::Cluster))?;
        self.native.client().forget_problem();
        Ok(())
    }

    fn topic(&mut self, name: &TopicName) -> Result<TopicHandle, Error> {
        if let Some(handle) = self.by_name.get(name) {
            return Ok(*handle);
        }
        let native = self.native.add_topic(name.as_str());
        let native = native.map_err(|error| translate(&error, Subject::Topic(name), None))?;
        let handle = TopicHandle(u32::try_from(self.topics.len()).unwrap_or(u32::MAX));
        self.topics.push(Topic { name: name.clone(), native, partitions: Vec::new() });
        if let Err(error) = self.count_partitions(handle) {
            self.topics.pop();
            self.native.remove_last_topic();
            return Err(error);
        }
        self.by_name.insert(name.clone(), handle);
        Ok(handle)
    }

    fn begin(&mut self) -> Result<(), Error> {
        let Guarantee::ExactlyOnce(transaction) = self.guarantee else { return Ok(()) };
        debug_assert_eq!(transaction, Transaction::None, "a transaction is open already");
        self.native.begin_transaction().map_err(|error| self.error(&error, Subject::Cluster))?;
        self.guarantee = Guarantee::ExactlyOnce(Transaction::Open);
        Ok(())
    }

    fn send(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
        record: OutgoingRecord<'_>,
    ) -> Result<(), SendFailure> {
        let index = partition.0 as usize;
        if index >= self.topics[topic.0 as usize].partitions.len() && index >= self.count_partitions(topic)? {
            let topic = self.topics[topic.0 as usize].name.clone();
            return Err(Error::TopicRefused { topic, reason: format!("it has no partition {partition}") }.into());
        }
        let target = &mut self.topics[topic.0 as usize];
        let state = &mut target.partitions[index];
        let bytes = (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
        let sent = self.native.send(target.native, partition.as_i32(), &record, state.cell);
        let in_queue = match &sent {
            Ok(()) => true,
            Err(failure) => failure.settled,
        };
        if in_queue {
            state.sent_bytes += bytes;
            if !state.touched {
                state.touched = true;
                self.touched.push((topic, partition));
            }
        }
        let Err(failure) = sent else { return Ok(()) };
        if failure.error.code == Code::QUEUE_FULL {
            return Err(SendFailure::QueueFull);
        }
        let name = &self.topics[topic.0 as usize].name;
        Err(self.error(&failure.error, Subject::Topic(name)).into())
    }

    fn poll(&mut self, wait: Duration) {
        self.native.client().poll(wait);
    }

    fn queued_bytes(&self) -> usize {
        let queued = self
            .touched()
            .map(|(_, _, state)| state.sent_bytes.saturating_sub(self.native.cell(state.cell).settled_bytes()))
            .sum::<u64>();
        usize::try_from(queued).unwrap_or(usize::MAX)
    }

    fn commit(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<Committed, CommitFailure> {
        assert!(!offsets.is_empty(), "a commit without offsets fences nothing");
        assert!(group.generation >= 0 && !group.member_id.is_empty(), "a commit needs a member's metadata");
        if let Guarantee::ExactlyOnce(Transaction::None) = self.guarantee {
            let error = Error::Setting { reason: "there is no open transaction to commit".to_owned() };
            return Err(CommitFailure { outcome: Outcome::Aborted, error });
        }
        let committed = self.try_commit(offsets, group);
        if committed.is_err() && matches!(self.guarantee, Guarantee::AtLeastOnce(_)) {
            // No `abort` will.
            self.forget_touched();
        }
        committed?;
        self.native.client().forget_problem();
        Ok(self.take_ends())
    }

    fn abort(&mut self) -> Result<(), Error> {
        let Guarantee::ExactlyOnce(Transaction::Open) = self.guarantee else { return Ok(()) };
        if self.refused().is_some() {
            self.replace_client()?;
        } else {
            let aborted = self.native.abort_transaction(limits::LOG_REQUEST_TIMEOUT);
            aborted.map_err(|error| self.beyond_repair(&error))?;
        }
        self.guarantee = Guarantee::ExactlyOnce(Transaction::None);
        self.forget_touched();
        Ok(())
    }
}
