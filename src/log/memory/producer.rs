//! Writes records and ends transactions.
//!
//! Records are in the log, undecided, when `send` returns; only a fault keeps them in the queue. The steps of a commit:
//! 1. deliver what is queued; 2. add the offsets, fenced by the group; 3. end the transaction. Each answers to faults.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::faults::{self, Client, Fault, MarkerDelay, Step};
use super::state::{Shared, State, no_partition};
use super::topic::{PartitionIndex, StoredRecord, TopicIndex, batch_bytes};
use super::transaction::{End, Identity};
use crate::clock::SharedClock;
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::log::{
    CommitFailure, Committed, Error, GroupMetadata, OffsetCommit, Outcome, OutgoingRecord, Producer, ProducerSettings,
    SendFailure, TopicHandle,
};

#[derive(Debug)]
pub(super) struct MemoryProducer {
    shared: Arc<Shared>,
    client: Arc<Client>,
    settings: ProducerSettings,
    phase: Phase,
    topics: Vec<Target>,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// What the log has refused since the last `begin`: the transaction cannot be committed any more.
    refused: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    New,
    /// `None`: without a transactional id.
    Ready(Option<Identity>),
    Open(Identity),
}

#[derive(Debug)]
struct Target {
    name: TopicName,
    index: Option<TopicIndex>,
    /// Acknowledged in this transaction, or since the last commit.
    ends: BTreeMap<Partition, Offset>,
}

#[derive(Debug)]
struct Queued {
    topic: TopicHandle,
    partition: Partition,
    record: StoredRecord,
    bytes: usize,
}

impl MemoryProducer {
    pub fn new(shared: &Arc<Shared>, client: &Arc<Client>, settings: &ProducerSettings) -> Self {
        Self {
            shared: Arc::clone(shared),
            client: Arc::clone(client),
            settings: settings.clone(),
            phase: Phase::New,
            topics: Vec::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            refused: None,
        }
    }

    fn name(&self) -> &str {
        self.settings.transactional_id.as_deref().unwrap_or(&self.settings.name)
    }

    fn fault(&self, step: Step<'_>) -> Fault {
        let fault = self.shared.fault(&self.client, step);
        if fault == Fault::Fence
            && let Some(id) = &self.settings.transactional_id
        {
            self.shared.with(|state, now| {
                let (transactions, mut participants) = state.transactions();
                transactions.fence_id(id, now, &mut participants);
                state.changed();
            });
        }
        fault
    }

    /// What strikes this record, if there are faults at all.
    fn send_fault(&self, topic: TopicHandle, partition: Partition, key: Option<&[u8]>) -> Fault {
        if self.client.is_killed() {
            return Fault::Unreachable;
        }
        if !self.shared.has_faults() {
            return Fault::None;
        }
        let topic = &self.topics[topic.0 as usize].name;
        self.fault(Step::Send { producer: self.name(), topic, partition, key })
    }

    /// Delivers what is queued, in order.
    fn deliver(&mut self) {
        while let Some(queued) = self.queue.pop_front() {
            self.queued_bytes -= queued.bytes;
            let answer = self.append(queued.topic, queued.partition, queued.record.as_outgoing());
            self.note(answer);
        }
    }

    fn note(&mut self, answer: Result<(), Error>) {
        if let Err(error) = answer {
            self.refused.get_or_insert(error);
        }
    }

    fn append(&mut self, topic: TopicHandle, partition: Partition, record: OutgoingRecord<'_>) -> Result<(), Error> {
        let identity = match self.phase {
            Phase::Open(identity) => Some(identity),
            Phase::Ready(_) | Phase::New => None,
        };
        let target = &mut self.topics[topic.0 as usize];
        let clock = &self.shared.clock;
        let offset = self.shared.with_timeless(|state| {
            if let Some(identity) = identity {
                state.open_transaction(identity, clock)?;
            }
            append(state, target, partition, record, identity, clock)
        })?;
        target.ends.insert(partition, offset.next());
        Ok(())
    }

    /// What was acknowledged, and forgets it.
    fn take_ends(&mut self) -> Committed {
        let mut ends = Vec::new();
        for target in &mut self.topics {
            for (partition, end) in std::mem::take(&mut target.ends) {
                ends.push((TopicPartition { topic: target.name.clone(), partition }, end));
            }
        }
        ends.sort();
        Committed { ends }
    }

    fn commit_offsets(
        &mut self,
        identity: Option<Identity>,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), Error> {
        match self.fault(Step::BeforeOffsets(self.name())) {
            Fault::Unreachable => return Err(faults::unreachable(&self.client)),
            Fault::Abort => return Err(abort_asked()),
            Fault::StaleGeneration => {
                return Err(Error::StaleGeneration { reason: "the group has moved on meanwhile".to_owned() });
            }
            _ => {}
        }
        self.shared.with(|state, now| match identity {
            Some(identity) => state.add_offsets(identity, offsets, group, now),
            None => state.commit_offsets(offsets, group),
        })
    }

    fn end(&mut self, identity: Identity, end: End) -> Result<(), CommitFailure> {
        let aborted = |error| CommitFailure { outcome: Outcome::Aborted, error };
        let unknown = |error| CommitFailure { outcome: Outcome::Unknown, error };
        let mut delay: Option<MarkerDelay> = None;
        match self.fault(Step::BeforeEnd(self.name(), end)) {
            Fault::Unreachable => return Err(unknown(no_answer(&self.client))),
            Fault::Late if end == End::Commit => {
                self.shared.with(|state, _| state.transactions().0.commit_later(identity.producer));
                return Err(unknown(faults::answer_lost()));
            }
            Fault::Abort if end == End::Commit => return Err(aborted(abort_asked())),
            Fault::DelayMarkers(by) => delay = Some(by),
            _ => {}
        }
        // Another producer, or time, has ended it in the only way that is open to them.
        self.shared
            .with(|state, now| {
                let (transactions, mut participants) = state.transactions();
                transactions.check(identity)?;
                transactions.end(identity.producer, end, delay, now, &mut participants);
                state.changed();
                Ok(())
            })
            .map_err(aborted)?;
        match self.fault(Step::AfterEnd(self.name(), end)) {
            Fault::Unreachable | Fault::AnswerLost => Err(unknown(no_answer(&self.client))),
            _ => Ok(()),
        }
    }
}

impl Producer for MemoryProducer {
    fn init(&mut self) -> Result<(), Error> {
        let fault = self.fault(Step::Init(self.name()));
        if fault == Fault::Unreachable {
            return Err(faults::unreachable(&self.client));
        }
        let id = self.settings.transactional_id.as_deref();
        let identity = id.map(|id| {
            self.shared.with(|state, now| {
                let (transactions, mut participants) = state.transactions();
                let identity = transactions.init(id, now, &mut participants);
                state.changed();
                identity
            })
        });
        if fault == Fault::AnswerLost {
            return Err(faults::answer_lost());
        }
        self.phase = Phase::Ready(identity);
        Ok(())
    }

    fn topic(&mut self, name: &TopicName) -> Result<TopicHandle, Error> {
        let known = self.topics.iter().position(|target| target.name == *name);
        let place = known.unwrap_or_else(|| {
            self.topics.push(Target { name: name.clone(), index: None, ends: BTreeMap::new() });
            self.topics.len() - 1
        });
        u32::try_from(place).map(TopicHandle).map_err(|_| misuse("too many topics"))
    }

    fn begin(&mut self) -> Result<(), Error> {
        match self.phase {
            Phase::New => return Err(misuse("`begin` comes after `init`")),
            Phase::Open(_) => return Err(misuse("the previous transaction has not ended")),
            Phase::Ready(None) => {}
            Phase::Ready(Some(identity)) => self.phase = Phase::Open(identity),
        }
        Ok(())
    }

    fn send(
        &mut self,
        topic: TopicHandle,
        partition: Partition,
        record: OutgoingRecord<'_>,
    ) -> Result<(), SendFailure> {
        match self.phase {
            Phase::New => return Err(misuse("`send` comes after `init`").into()),
            Phase::Ready(Some(_)) => return Err(misuse("there is no open transaction").into()),
            Phase::Ready(None) | Phase::Open(_) => {}
        }
        let Some(target) = self.topics.get(topic.0 as usize) else {
            return Err(misuse("the handle is another producer's").into());
        };
        let bytes = batch_bytes(&record);
        if bytes > self.settings.max_message_bytes {
            let limit = self.settings.max_message_bytes;
            let reason = format!("a batch of {bytes} bytes is larger than the producer's limit, {limit}");
            return Err(Error::RecordRefused { topic: target.name.clone(), reason }.into());
        }
        match self.send_fault(topic, partition, record.key) {
            // Who waits for room in the queue of a killed client would wait for ever.
            Fault::Unreachable if self.client.is_killed() => return Err(faults::unreachable(&self.client).into()),
            Fault::Unreachable => return Err(SendFailure::QueueFull),
            Fault::Refuse => {
                let reason = "refused by a fault".to_owned();
                let refused = Error::RecordRefused { topic: self.topics[topic.0 as usize].name.clone(), reason };
                self.note(Err(refused));
            }
            fault if fault == Fault::Delay || !self.queue.is_empty() => {
                if !self.queue.is_empty() && self.queued_bytes + bytes > self.settings.queue_bytes {
                    return Err(SendFailure::QueueFull);
                }
                let record = StoredRecord::copy_of(record, Offset::ZERO);
                self.queue.push_back(Queued { topic, partition, record, bytes });
                self.queued_bytes += bytes;
            }
            _ => match self.append(topic, partition, record) {
                Ok(()) => {}
                // The client knows these from the topic's metadata; the others come with the acknowledgement.
                Err(error @ Error::TopicMissing { .. }) => return Err(error.into()),
                Err(error) => self.note(Err(error)),
            },
        }
        Ok(())
    }

    fn poll(&mut self, _wait: Duration) {
        if self.queue.is_empty() {
            return;
        }
        match self.fault(Step::ProducerPoll(self.name())) {
            Fault::Unreachable | Fault::Delay => {}
            _ => self.deliver(),
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    fn commit(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata) -> Result<Committed, CommitFailure> {
        assert!(!offsets.is_empty(), "a commit without offsets fences nothing");
        assert!(group.generation >= 0 && !group.member_id.is_empty(), "only a member may commit");
        let aborted = |error| CommitFailure { outcome: Outcome::Aborted, error };
        let identity = match self.phase {
            Phase::New => return Err(aborted(misuse("`commit` comes after `init`"))),
            Phase::Ready(Some(_)) => return Err(aborted(misuse("there is no open transaction"))),
            Phase::Ready(None) => None,
            Phase::Open(identity) => Some(identity),
        };
        if !self.queue.is_empty() {
            if self.fault(Step::ProducerPoll(self.name())) == Fault::Unreachable {
                let reason = "not all records were acknowledged".to_owned();
                return Err(aborted(Error::TimedOut { reason }));
            }
            self.deliver();
        }
        let refused = match identity {
            Some(_) => self.refused.clone(),
            // Without a transaction there is nobody else to forget it.
            None => self.refused.take(),
        };
        if let Some(error) = refused {
            return Err(aborted(error));
        }
        self.commit_offsets(identity, offsets, group).map_err(aborted)?;
        let lost = match self.fault(Step::AfterOffsets(self.name())) {
            Fault::Unreachable => Some(faults::unreachable(&self.client)),
            Fault::Abort => Some(abort_asked()),
            _ => None,
        };
        let Some(identity) = identity else {
            // The offsets are committed, whatever became of the answer.
            return match lost {
                Some(error) => Err(CommitFailure { outcome: Outcome::Unknown, error }),
                None => Ok(self.take_ends()),
            };
        };
        if let Some(error) = lost {
            return Err(aborted(error));
        }
        self.end(identity, End::Commit)?;
        self.phase = Phase::Ready(Some(identity));
        Ok(self.take_ends())
    }

    fn abort(&mut self) -> Result<(), Error> {
        let Phase::Open(identity) = self.phase else { return Ok(()) };
        self.queue.clear();
        self.queued_bytes = 0;
        self.refused = None;
        self.take_ends();
        self.end(identity, End::Abort).map_err(|failure| failure.error)?;
        self.phase = Phase::Ready(Some(identity));
        Ok(())
    }
}

fn append(
    state: &mut State,
    target: &mut Target,
    partition: Partition,
    record: OutgoingRecord<'_>,
    identity: Option<Identity>,
    clock: &SharedClock,
) -> Result<Offset, Error> {
    let index = match target.index.filter(|index| state.topics.get(*index).is_some()) {
        Some(index) => index,
        None => state.topics.index(&target.name)?,
    };
    target.index = Some(index);
    let missing = || Error::TopicMissing { topic: target.name.clone() };
    let topic = state.topics.get_mut(index).ok_or_else(missing)?;
    topic.accepts(&record)?;
    let record = topic.stamped(record, &**clock);
    let log = topic.partition_mut(partition).ok_or_else(|| no_partition(&target.name, partition))?;
    let stored = StoredRecord::copy_of(record, Offset::ZERO);
    let (offset, first) = log.append(stored, identity.map(|identity| identity.producer));
    match identity {
        Some(identity) if first => {
            state.transactions().0.add_partition(identity.producer, PartitionIndex { topic: index, partition });
        }
        Some(_) => {}
        None => state.changed(),
    }
    Ok(offset)
}

fn misuse(what: &str) -> Error {
    Error::Setting { reason: format!("a producer was used out of order: {what}") }
}

fn abort_asked() -> Error {
    Error::TransactionAborted { reason: "the broker asks for an abort".to_owned() }
}

fn no_answer(client: &Client) -> Error {
    if client.is_killed() { faults::unreachable(client) } else { faults::answer_lost() }
}
