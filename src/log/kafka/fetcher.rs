//! Reads assigned partitions in batches.
//!
//! Invariants
//! - A slot's records are handed out in offset order, none below the position it was last assigned at: librdkafka drops
//!   what was fetched before a stop, and `Slot::next` drops whatever else is lower.
//! - A paused slot's records are held back here, so that a short pause costs no second fetch. Beyond
//!   `limits::FETCH_HELD_BYTES` the client itself is paused, which drops its queue and fetches again after `resume`.
//! - An assignment is told at most once that it is out of range, and only if the cluster says so, too. librdkafka finds that
//!   out several times, and late, and of positions of earlier assignments: its main thread hears of it (`rd_kafka_offset_reset`)
//!   without knowing which assignment was meant, and then ends the fetching of the one that there is.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::error::{Subject, leaves_doubt, translate};
use super::native::client::TopicKey;
use super::native::consume::{Consumer, Delivery};
use super::native::{Code, NativeError, Topic};
use crate::ids::{EventTime, Offset, TopicName, TopicPartition};
use crate::limits;
use crate::log::{Error, FetchSlot, Fetched, Fetcher, Payload, Record};

#[derive(Debug)]
pub struct KafkaFetcher {
    // Topic handles and the consumer's queue both keep the client alive.
    topics: FxHashMap<TopicName, Topic>,
    slots: FxHashMap<FetchSlot, Slot>,
    by_partition: FxHashMap<(TopicKey, i32), FetchSlot>,
    /// Resumed slots that still hold records.
    released: VecDeque<FetchSlot>,
    consumer: Consumer,
}

#[derive(Debug)]
struct Slot {
    partition: TopicPartition,
    key: (TopicKey, i32),
    /// No record below it is handed out.
    next: i64,
    /// It is out of range, and this has been told.
    is_out_of_range: bool,
    flow: Flow,
    /// What arrived while paused, in order.
    held: VecDeque<Fetched>,
    held_bytes: usize,
}

/// What becomes of a delivery.
enum Accepted {
    Passed(Fetched),
    /// It belongs to an earlier position.
    Dropped,
    /// librdkafka has ended the fetching: the position is out of range, or one was earlier.
    OutOfRange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Open,
    /// Held back here; the client goes on fetching.
    Held,
    /// The client has been told to stop, too.
    Stopped,
}

impl KafkaFetcher {
    pub fn new(consumer: Consumer) -> Self {
        Self {
            topics: FxHashMap::default(),
            slots: FxHashMap::default(),
            by_partition: FxHashMap::default(),
            released: VecDeque::new(),
            consumer,
        }
    }

    fn topic(&mut self, name: &TopicName) -> Result<&Topic, Error> {
        if !self.topics.contains_key(name) {
            let topic = Topic::new(self.consumer.client(), name.as_str()).map_err(|error| about(&error, name))?;
            self.topics.insert(name.clone(), topic);
        }
        self.topics.get(name).ok_or_else(|| Error::TopicMissing { topic: name.clone() })
    }

    /// Stops the slot and forgets what it holds. A slot that is not assigned is left alone.
    fn stop(&mut self, slot: FetchSlot) -> Result<(), Error> {
        let Some(old) = self.slots.remove(&slot) else { return Ok(()) };
        self.by_partition.remove(&old.key);
        self.released.retain(|released| *released != slot);
        let topic = &old.partition.topic;
        if old.flow == Flow::Stopped {
            // The client's pause outlives the assignment.
            self.consumer.resume(&old.partition).map_err(|error| about(&error, topic))?;
        }
        let Some(handle) = self.topics.get(topic) else { return Ok(()) };
        self.consumer.stop(handle, old.key.1).map_err(|error| about(&error, topic))
    }

    /// Asks the cluster whether the slot's position is out of range; goes on fetching there if it is not.
    fn look_at_range(&mut self, slot: FetchSlot, into: &mut Vec<Fetched>) -> Result<(), Error> {
        let Some(state) = self.slots.get_mut(&slot).filter(|state| !state.is_out_of_range) else { return Ok(()) };
        let topic = &state.partition.topic;
        let Some(handle) = self.topics.get(topic) else { return Ok(()) };
        let range = self.consumer.range(&state.partition, limits::LOG_REQUEST_TIMEOUT);
        if range.is_ok_and(|range| !range.contains(&state.next)) {
            state.is_out_of_range = true;
            let error = Error::OffsetOutOfRange { partition: state.partition.clone(), offset: Offset(state.next) };
            if let Some(failed) = state.pass(Fetched::Failed(slot, error)) {
                into.push(failed);
            }
            return Ok(());
        }
        tracing::debug!(partition = %state.partition, offset = state.next, "not out of range; fetching goes on");
        self.consumer.stop(handle, state.key.1).map_err(|error| about(&error, topic))?;
        self.consumer.start(handle, state.key.1, state.next).map_err(|error| about(&error, topic))
    }

    /// Asks the cluster which topics are missing or forbidden; their slots fail with the next fetch.
    fn look_for_topics(&mut self) {
        let Self { topics, slots, released, .. } = self;
        for (name, topic) in topics {
            let counted = topic.partition_count(limits::LOG_REQUEST_TIMEOUT);
            let of_topic = slots.iter_mut().filter(|(_, state)| state.partition.topic == *name);
            for (slot, state) in of_topic {
                let error = match &counted {
                    Ok(count) if state.partition.partition.0 < *count => continue,
                    Ok(_) => Error::TopicMissing { topic: name.clone() },
                    Err(error) if leaves_doubt(error.code) => continue,
                    Err(error) => about(error, name),
                };
                state.hold(Fetched::Failed(*slot, error));
                if state.flow == Flow::Open && !released.contains(slot) {
                    released.push_back(*slot);
                }
            }
        }
    }

    /// Moves what resumed slots hold, up to `limit` events.
    fn release(&mut self, into: &mut Vec<Fetched>, limit: usize) {
        while let Some(slot) = self.released.front().copied() {
            let room = limit.saturating_sub(into.len());
            let Some(state) = self.slots.get_mut(&slot) else {
                self.released.pop_front();
                continue;
            };
            let count = state.held.len().min(room);
            for fetched in state.held.drain(..count) {
                state.held_bytes -= size(&fetched);
                into.push(fetched);
            }
            if !state.held.is_empty() {
                return;
            }
            self.released.pop_front();
        }
    }
}

impl Fetcher for KafkaFetcher {
    fn assign(&mut self, slot: FetchSlot, partition: &TopicPartition, from: Offset) -> Result<(), Error> {
        let paused = self.slots.get(&slot).is_some_and(|state| state.flow != Flow::Open);
        self.stop(slot)?;
        let number = partition.partition.as_i32();
        let key = (self.topic(&partition.topic)?.id(), number);
        if let Some(other) = self.by_partition.get(&key).copied() {
            self.stop(other)?;
        }
        let handle =
            self.topics.get(&partition.topic).ok_or_else(|| Error::TopicMissing { topic: partition.topic.clone() })?;
        self.consumer.start(handle, number, from.0).map_err(|error| about(&error, &partition.topic))?;
        self.by_partition.insert(key, slot);
        let state = Slot {
            partition: partition.clone(),
            key,
            next: from.0,
            is_out_of_range: false,
            // Repositioning does not resume.
            flow: if paused { Flow::Held } else { Flow::Open },
            held: VecDeque::new(),
            held_bytes: 0,
        };
        self.slots.insert(slot, state);
        Ok(())
    }

    fn unassign(&mut self, slot: FetchSlot) -> Result<(), Error> {
        self.stop(slot)
    }

    fn pause(&mut self, slot: FetchSlot) -> Result<(), Error> {
        let Some(state) = self.slots.get_mut(&slot) else { return Ok(()) };
        if state.flow == Flow::Open {
            state.flow = Flow::Held;
        }
        self.released.retain(|released| *released != slot);
        Ok(())
    }

    fn resume(&mut self, slot: FetchSlot) -> Result<(), Error> {
        let Some(state) = self.slots.get_mut(&slot) else { return Ok(()) };
        let before = std::mem::replace(&mut state.flow, Flow::Open);
        let partition = state.partition.clone();
        if before != Flow::Open && !state.held.is_empty() {
            self.released.push_back(slot);
        }
        if before == Flow::Stopped {
            self.consumer.resume(&partition).map_err(|error| about(&error, &partition.topic))?;
        }
        Ok(())
    }

    fn fetch(&mut self, into: &mut Vec<Fetched>, limit: usize, wait: Duration) -> Result<(), Error> {
        let start = into.len();
        let limit = start + limit;
        self.release(into, limit);
        let room = limit - into.len();
        if room == 0 {
            return Ok(());
        }
        let wait = if into.len() > start { Duration::ZERO } else { wait };
        let Self { slots, by_partition, consumer, released, .. } = self;
        let (mut overfull, mut doubtful) = (Vec::new(), Vec::new());
        let mut last: Option<((TopicKey, i32), FetchSlot)> = None;
        let taken = consumer.take(room, wait, |delivery| {
            let key = delivery.key();
            // Records come in runs of one partition.
            let slot = match last {
                Some((known, slot)) if known == key => slot,
                _ => {
                    let Some(slot) = by_partition.get(&key).copied() else { return };
                    last = Some((key, slot));
                    slot
                }
            };
            let Some(state) = slots.get_mut(&slot) else { return };
            let fetched = match state.accept(slot, delivery) {
                Accepted::Passed(fetched) => fetched,
                Accepted::Dropped => return,
                Accepted::OutOfRange => return doubtful.push(slot),
            };
            if let Some(fetched) = state.pass(fetched) {
                into.push(fetched);
                return;
            }
            if state.flow == Flow::Held && state.held_bytes > limits::FETCH_HELD_BYTES {
                state.flow = Flow::Stopped;
                overfull.push(state.partition.clone());
            }
        });
        debug_assert!(released.iter().all(|slot| slots.contains_key(slot)), "a released slot is assigned");
        for partition in overfull {
            self.consumer.pause(&partition).map_err(|error| about(&error, &partition.topic))?;
        }
        for slot in doubtful {
            self.look_at_range(slot, into)?;
        }
        if taken == 0 {
            // Serves the client's error events.
            self.consumer.client().poll(Duration::ZERO);
        }
        if self.consumer.client().take_topic_problem() {
            self.look_for_topics();
        }
        Ok(())
    }
}

impl Drop for KafkaFetcher {
    fn drop(&mut self) {
        let slots: Vec<FetchSlot> = self.slots.keys().copied().collect();
        for slot in slots {
            if let Err(error) = self.stop(slot) {
                tracing::debug!(%error, "a partition could not be stopped; its client is destroyed anyway");
            }
        }
    }
}

impl Slot {
    /// Returns what can be handed out at once, and keeps it otherwise.
    fn pass(&mut self, fetched: Fetched) -> Option<Fetched> {
        // Behind what is still held, a record waits its turn even in an open slot.
        if self.flow == Flow::Open && self.held.is_empty() {
            return Some(fetched);
        }
        self.hold(fetched);
        None
    }

    fn hold(&mut self, fetched: Fetched) {
        self.held_bytes += size(&fetched);
        self.held.push_back(fetched);
    }

    /// What the delivery means for this slot.
    fn accept(&mut self, slot: FetchSlot, delivery: Delivery) -> Accepted {
        match delivery {
            Delivery::Record { offset, timestamp, message, .. } => {
                if offset < self.next {
                    return Accepted::Dropped;
                }
                self.next = offset + 1;
                let (offset, payload) = (Offset(offset), Payload::Kafka(message));
                Accepted::Passed(Fetched::Record(slot, Record { offset, timestamp: EventTime(timestamp), payload }))
            }
            Delivery::End { offset, .. } => {
                if offset < self.next {
                    return Accepted::Dropped;
                }
                self.next = offset;
                Accepted::Passed(Fetched::End(slot, Offset(offset)))
            }
            Delivery::Failed { offset, error, .. } => {
                if matches!(error.code, Code::AUTO_OFFSET_RESET | Code::OFFSET_OUT_OF_RANGE) {
                    return Accepted::OutOfRange;
                }
                let position = if offset >= 0 { offset } else { self.next };
                let error = translate(&error, Subject::Position(&self.partition, Offset(position)), None);
                Accepted::Passed(Fetched::Failed(slot, error))
            }
        }
    }
}

impl Delivery {
    fn key(&self) -> (TopicKey, i32) {
        match self {
            Self::Record { topic, partition, .. }
            | Self::End { topic, partition, .. }
            | Self::Failed { topic, partition, .. } => (*topic, *partition),
        }
    }
}

/// What a held event counts for.
fn size(fetched: &Fetched) -> usize {
    match fetched {
        Fetched::Record(_, record) => record.size() + limits::FETCH_RECORD_OVERHEAD_BYTES,
        Fetched::End(..) | Fetched::Failed(..) => limits::FETCH_RECORD_OVERHEAD_BYTES,
    }
}

fn about(error: &NativeError, topic: &TopicName) -> Error {
    translate(error, Subject::Topic(topic), None)
}
