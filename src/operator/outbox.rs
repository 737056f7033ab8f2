//! The way out: every record that a task writes, to users' topics, repartition topics, changelogs and dead letters.
//!
//! It begins the transaction with its first record (EXACTLY-ONCE rule 2c), checks sizes before the client sees them
//! (20a), and waits for room where the producer's queue is full (15c).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Failure, RecordError};
use crate::ids::{Partition, TopicName};
use crate::limits;
use crate::log::{self, OutgoingRecord, Producer, SendFailure, TopicDescription, TopicHandle};
use crate::metric::{self, Counter, Counters};
use crate::row::Header;

/// A topic's number in an outbox. Lasts longer than the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutTopic(usize);

#[derive(Debug)]
struct Topic {
    name: TopicName,
    partitions: u32,
    max_message_bytes: usize,
    handle: Option<TopicHandle>,
    /// Since it was written to first.
    written: Option<Counter>,
    /// Of `written`, not counted there yet: a transaction's records are counted when it ends.
    uncounted: u64,
}

impl Topic {
    fn count(&mut self, counters: &Counters) {
        if self.uncounted > 0 {
            let series = || counters.counter(&metric::RECORDS_WRITTEN, &[self.name.as_str()]);
            self.written.get_or_insert_with(series).add(std::mem::take(&mut self.uncounted));
        }
    }
}

/// See the module. One per worker.
pub struct Outbox {
    producer: Box<dyn Producer>,
    topics: Vec<Topic>,
    dead_letters: OutTopic,
    in_transaction: bool,
    sent: u64,
    counters: Arc<Counters>,
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").field("topics", &self.topics).field("in_transaction", &self.in_transaction).finish()
    }
}

impl Outbox {
    /// Around a producer that has been initialised; `topics` are all that may be written to.
    pub fn new(
        producer: Box<dyn Producer>,
        topics: &HashMap<TopicName, TopicDescription>,
        dead_letters: &TopicName,
        counters: Arc<Counters>,
    ) -> Self {
        let mut names: Vec<&TopicName> = topics.keys().collect();
        names.sort();
        let topics = names
            .into_iter()
            .map(|name| Topic {
                name: name.clone(),
                partitions: topics[name].partitions,
                max_message_bytes: topics[name].max_message_bytes,
                handle: None,
                written: None,
                uncounted: 0,
            })
            .collect();
        let mut outbox = Self { producer, topics, dead_letters: OutTopic(0), in_transaction: false, sent: 0, counters };
        outbox.dead_letters = outbox.topic(dead_letters);
        outbox
    }

    /// Goes on with another producer; what was in the old one's transaction is gone.
    pub fn replace_producer(&mut self, producer: Box<dyn Producer>) {
        self.producer = producer;
        self.in_transaction = false;
        for topic in &mut self.topics {
            topic.handle = None;
            topic.count(&self.counters);
        }
    }

    pub fn producer(&mut self) -> &mut dyn Producer {
        &mut *self.producer
    }

    pub fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// The transaction has ended.
    pub fn ended(&mut self) {
        self.in_transaction = false;
        self.topics.iter_mut().for_each(|topic| topic.count(&self.counters));
    }

    /// Records sent since the outbox was made.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// The number of a topic; the same one for the same name.
    pub fn topic(&mut self, name: &TopicName) -> OutTopic {
        if let Some(index) = self.topics.iter().position(|topic| topic.name == *name) {
            return OutTopic(index);
        }
        debug_assert!(false, "topic {name} was not described at start");
        self.topics.push(Topic {
            name: name.clone(),
            partitions: 1,
            max_message_bytes: limits::DEFAULT_MAX_MESSAGE_BYTES,
            handle: None,
            written: None,
            uncounted: 0,
        });
        OutTopic(self.topics.len() - 1)
    }

    pub fn dead_letters(&self) -> OutTopic {
        self.dead_letters
    }

    pub fn partitions(&self, topic: OutTopic) -> u32 {
        self.topics[topic.0].partitions
    }

    /// Bytes of key and value that a record with these headers may have.
    pub fn room(&self, topic: OutTopic, headers: &[Header]) -> usize {
        self.topics[topic.0].max_message_bytes.saturating_sub(RECORD_OVERHEAD + header_bytes(headers))
    }

    /// Begins the transaction where none is open. A commit that writes nothing but offsets needs it too.
    pub fn begin(&mut self) -> Result<(), log::Error> {
        if !self.in_transaction {
            self.producer.begin()?;
            self.in_transaction = true;
        }
        Ok(())
    }

    /// Queues a record. A record that the topic could not take is a record error and is not sent.
    pub fn send(&mut self, topic: OutTopic, partition: Partition, record: OutgoingRecord<'_>) -> Result<(), Failure> {
        let size = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
        let max = self.topics[topic.0].max_message_bytes;
        if size + header_bytes(record.headers) + RECORD_OVERHEAD > max {
            let name = &self.topics[topic.0].name;
            return Err(RecordError::new(
                RecordError::TOO_LARGE,
                format!("a record of {size} bytes is too large for topic `{name}` (max.message.bytes {max})"),
            )
            .into());
        }
        self.begin()?;
        let handle = match self.topics[topic.0].handle {
            Some(handle) => handle,
            None => {
                let handle = self.producer.topic(&self.topics[topic.0].name)?;
                self.topics[topic.0].handle = Some(handle);
                handle
            }
        };
        let mut waited = Duration::ZERO;
        loop {
            match self.producer.send(handle, partition, record) {
                Ok(()) => {
                    self.sent += 1;
                    self.topics[topic.0].uncounted += 1;
                    return Ok(());
                }
                Err(SendFailure::QueueFull) if waited < limits::LOG_REQUEST_TIMEOUT => {
                    self.producer.poll(QUEUE_FULL_POLL);
                    waited += QUEUE_FULL_POLL;
                }
                Err(SendFailure::QueueFull) => {
                    return Err(log::Error::TimedOut { reason: "the producer's queue stays full".to_owned() }.into());
                }
                Err(SendFailure::Refused(error)) => return Err(error.into()),
            }
        }
    }
}

/// How long one look at a full queue takes.
const QUEUE_FULL_POLL: Duration = Duration::from_millis(5);

/// More than what Kafka's record batch and record framing add (61 bytes and up to about 30).
const RECORD_OVERHEAD: usize = 128;

fn header_bytes(headers: &[Header]) -> usize {
    headers.iter().map(|header| 10 + header.name.len() + header.value.as_ref().map_or(0, |value| value.len())).sum()
}
