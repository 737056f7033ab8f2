//! Topics and their partitions: what a broker's log holds.
//!
//! Invariants
//! - Offsets only grow. A control record takes an offset and nothing else; the records of an aborted transaction leave
//!   their offsets behind.
//! - What lies before the last stable offset is decided: every record there is committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::transaction::{End, ProducerId};
use crate::clock::Clock;
use crate::ids::{EventTime, Offset, Partition, TopicName, TopicPartition};
use crate::log::{Cleanup, Error, NewTopic, OffsetQuery, OutgoingRecord, Timestamps, TopicDescription};
use crate::row::Header;

/// Kafka's defaults of `max.message.bytes` and `delete.retention.ms`.
const MAX_MESSAGE_BYTES: usize = 1_048_588;
const DELETE_RETENTION_MS: i64 = 86_400_000;

/// Kafka's longest topic name.
const MAX_NAME: usize = 249;

/// The header of a record batch of version 2, up to its first record.
const BATCH_HEADER_BYTES: usize = 61;

/// A record as the log keeps it.
#[derive(Debug)]
pub struct StoredRecord {
    pub offset: Offset,
    pub timestamp: EventTime,
    pub key: Option<Box<[u8]>>,
    pub value: Option<Box<[u8]>>,
    pub headers: Box<[Header]>,
}

impl StoredRecord {
    pub(super) fn copy_of(record: OutgoingRecord<'_>, offset: Offset) -> Self {
        Self {
            offset,
            timestamp: record.timestamp,
            key: record.key.map(Box::from),
            value: record.value.map(Box::from),
            headers: Box::from(record.headers),
        }
    }

    pub(super) fn as_outgoing(&self) -> OutgoingRecord<'_> {
        OutgoingRecord {
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            timestamp: self.timestamp,
            headers: &self.headers,
        }
    }
}

/// The bytes of a batch with this record alone.
pub(super) fn batch_bytes(record: &OutgoingRecord<'_>) -> usize {
    let field = |bytes: Option<&[u8]>| bytes.map_or(1, |bytes| varint_bytes(bytes.len()) + bytes.len());
    let headers: usize =
        record.headers.iter().map(|header| field(Some(header.name.as_bytes())) + field(header.value.as_deref())).sum();
    // attributes, timestamp delta and offset delta take one byte each in a batch of one
    let body = 3 + field(record.key) + field(record.value) + varint_bytes(record.headers.len()) + headers;
    BATCH_HEADER_BYTES + varint_bytes(body) + body
}

/// Bytes of a length as a zigzag varint.
fn varint_bytes(length: usize) -> usize {
    let bits = usize::BITS - (length << 1).leading_zeros();
    (bits.max(1) as usize).div_ceil(7)
}

/// A topic's place in [`Topics`]. Never reused: another topic under the same name has another one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TopicIndex(usize);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PartitionIndex {
    pub topic: TopicIndex,
    pub partition: Partition,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    topics: Vec<Option<Topic>>,
    /// For look-ups only: its order is never seen.
    by_name: FxHashMap<TopicName, TopicIndex>,
}

impl Topics {
    pub fn create(&mut self, new: &NewTopic) -> Result<(), Error> {
        if self.by_name.contains_key(&new.name) {
            return Err(Error::TopicExists { topic: new.name.clone() });
        }
        let index = TopicIndex(self.topics.len());
        let topic = Topic::new(new, index)?;
        self.by_name.insert(new.name.clone(), index);
        self.topics.push(Some(topic));
        Ok(())
    }

    /// Whether there was such a topic.
    pub fn delete(&mut self, name: &TopicName) -> bool {
        let Some(index) = self.by_name.remove(name) else { return false };
        self.topics[index.0] = None;
        true
    }

    pub fn index(&self, name: &TopicName) -> Result<TopicIndex, Error> {
        self.by_name.get(name).copied().ok_or_else(|| Error::TopicMissing { topic: name.clone() })
    }

    /// `None` where the topic was deleted.
    pub fn get(&self, index: TopicIndex) -> Option<&Topic> {
        self.topics.get(index.0)?.as_ref()
    }

    pub fn get_mut(&mut self, index: TopicIndex) -> Option<&mut Topic> {
        self.topics.get_mut(index.0)?.as_mut()
    }

    pub fn named(&self, name: &TopicName) -> Result<&Topic, Error> {
        let index = self.index(name)?;
        self.get(index).ok_or_else(|| Error::TopicMissing { topic: name.clone() })
    }

    pub fn named_mut(&mut self, name: &TopicName) -> Result<&mut Topic, Error> {
        let index = self.index(name)?;
        self.get_mut(index).ok_or_else(|| Error::TopicMissing { topic: name.clone() })
    }

    pub fn partition_count(&self, name: &TopicName) -> u32 {
        self.named(name).map_or(0, Topic::partition_count)
    }

    pub fn partition(&self, partition: &TopicPartition) -> Result<&PartitionLog, Error> {
        let missing = || Error::TopicMissing { topic: partition.topic.clone() };
        self.named(&partition.topic)?.partition(partition.partition).ok_or_else(missing)
    }

    pub fn partition_mut(&mut self, index: PartitionIndex) -> Option<&mut PartitionLog> {
        self.get_mut(index.topic)?.partition_mut(index.partition)
    }
}

#[derive(Debug)]
pub(super) struct Topic {
    name: TopicName,
    id: String,
    cleanup: Cleanup,
    max_message_bytes: usize,
    delete_retention_ms: i64,
    timestamps: Timestamps,
    partitions: Vec<PartitionLog>,
}

impl Topic {
    fn new(new: &NewTopic, index: TopicIndex) -> Result<Self, Error> {
        let refused = |reason: String| Error::TopicRefused { topic: new.name.clone(), reason };
        let name = new.name.as_str();
        let legal = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
        if name.is_empty() || name.len() > MAX_NAME || matches!(name, "." | "..") || !name.chars().all(legal) {
            return Err(refused("the name is not a legal one".to_owned()));
        }
        if new.partitions == 0 {
            return Err(refused("a topic has at least one partition".to_owned()));
        }
        let mut topic = Self {
            name: new.name.clone(),
            id: format!("{:022}", index.0 + 1),
            cleanup: new.cleanup,
            max_message_bytes: MAX_MESSAGE_BYTES,
            delete_retention_ms: DELETE_RETENTION_MS,
            timestamps: Timestamps::CreateTime,
            partitions: Vec::new(),
        };
        for (name, value) in &new.config {
            let invalid = |_| refused(format!("`{value}` is not a value of {name}"));
            match name.as_str() {
                "max.message.bytes" => topic.max_message_bytes = value.parse().map_err(invalid)?,
                "delete.retention.ms" => topic.delete_retention_ms = value.parse().map_err(invalid)?,
                "message.timestamp.type" if value == "LogAppendTime" => topic.timestamps = Timestamps::LogAppendTime,
                // Nothing here expires, moves to another broker or is packed.
                _ => {}
            }
        }
        topic.grow(new.partitions);
        Ok(topic)
    }

    /// More partitions, never fewer.
    pub fn grow(&mut self, partitions: u32) {
        while self.partition_count() < partitions {
            self.partitions.push(PartitionLog::default());
        }
    }

    pub fn describe(&self) -> TopicDescription {
        TopicDescription {
            name: self.name.clone(),
            id: self.id.clone(),
            partitions: self.partition_count(),
            cleanup: self.cleanup,
            max_message_bytes: self.max_message_bytes,
            delete_retention_ms: self.delete_retention_ms,
            timestamps: self.timestamps,
        }
    }

    /// The record with the time that it has in this topic.
    pub fn stamped<'r>(&self, record: OutgoingRecord<'r>, clock: &dyn Clock) -> OutgoingRecord<'r> {
        match self.timestamps {
            Timestamps::CreateTime => record,
            Timestamps::LogAppendTime => {
                OutgoingRecord { timestamp: EventTime::from_micros(clock.wall_micros()), ..record }
            }
        }
    }

    pub fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    pub fn partition(&self, partition: Partition) -> Option<&PartitionLog> {
        self.partitions.get(partition.0 as usize)
    }

    pub fn partition_mut(&mut self, partition: Partition) -> Option<&mut PartitionLog> {
        self.partitions.get_mut(partition.0 as usize)
    }

    /// What a broker checks before it appends.
    pub fn accepts(&self, record: &OutgoingRecord<'_>) -> Result<(), Error> {
        let refused = |reason: String| Err(Error::RecordRefused { topic: self.name.clone(), reason });
        let bytes = batch_bytes(record);
        if bytes > self.max_message_bytes {
            let limit = self.max_message_bytes;
            return refused(format!("a batch of {bytes} bytes is larger than max.message.bytes, {limit}"));
        }
        if record.key.is_none() && self.cleanup != Cleanup::Delete {
            return refused("a compacted topic takes no record without a key".to_owned());
        }
        Ok(())
    }

    pub fn delete_before(&mut self, partition: Partition, offset: Offset) -> Result<(), Error> {
        if self.cleanup == Cleanup::Compact {
            let reason = "records of a compacted topic cannot be deleted".to_owned();
            return Err(Error::TopicRefused { topic: self.name.clone(), reason });
        }
        let name = self.name.clone();
        let log = self.partition_mut(partition).ok_or_else(|| Error::TopicMissing { topic: name.clone() })?;
        if log.delete_before(offset) {
            Ok(())
        } else {
            Err(Error::OffsetOutOfRange { partition: TopicPartition { topic: name, partition }, offset })
        }
    }

    /// Keeps the last `keep` committed records of each partition, and what is not decided yet.
    pub fn trim(&mut self, keep: usize) {
        for partition in &mut self.partitions {
            partition.trim(keep);
        }
    }

    /// Cleans every partition, as one run of the log cleaner would. Nothing where the topic is not compacted.
    pub fn compact(&mut self, now_ms: i64) {
        if self.cleanup == Cleanup::Delete {
            return;
        }
        for partition in &mut self.partitions {
            partition.compact(now_ms, self.delete_retention_ms);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct PartitionLog {
    /// In offset order. Holds no control record and no record of a transaction known to be aborted.
    entries: VecDeque<Entry>,
    start: Offset,
    end: Offset,
    /// The first offset of each transaction whose control record is not written yet.
    open: BTreeMap<ProducerId, Offset>,
    /// When a tombstone that was there in an earlier run of the cleaner may go: milliseconds since the epoch.
    delete_horizons: BTreeMap<Offset, i64>,
}

#[derive(Debug)]
struct Entry {
    record: Arc<StoredRecord>,
    /// Who wrote it inside a transaction. Means something only at and after the first offset of that producer in `open`.
    producer: Option<ProducerId>,
}

impl PartitionLog {
    /// The record's offset, and whether it is the first one of the producer's transaction in this partition.
    pub fn append(&mut self, mut record: StoredRecord, producer: Option<ProducerId>) -> (Offset, bool) {
        let offset = self.end;
        record.offset = offset;
        let mut first = false;
        if let Some(producer) = producer {
            self.open.entry(producer).or_insert_with(|| {
                first = true;
                offset
            });
        }
        self.entries.push_back(Entry { record: Arc::new(record), producer });
        self.end = offset.next();
        (offset, first)
    }

    /// Writes the control record of a producer's transaction, if it has one open here.
    pub fn end_transaction(&mut self, producer: ProducerId, end: End) {
        let Some(first) = self.open.remove(&producer) else { return };
        if end == End::Abort {
            let kept_before = self.position_of(first);
            let tail = self.entries.split_off(kept_before);
            self.entries.extend(tail.into_iter().filter(|entry| entry.producer != Some(producer)));
        }
        self.end = self.end.next();
    }

    pub fn start(&self) -> Offset {
        self.start
    }

    /// The high watermark.
    pub fn end(&self) -> Offset {
        self.end
    }

    /// Where read-committed readers stop.
    pub fn last_stable(&self) -> Offset {
        self.open.values().min().copied().unwrap_or(self.end)
    }

    pub fn offset(&self, query: OffsetQuery) -> Offset {
        match query {
            OffsetQuery::Start => self.start,
            OffsetQuery::End => self.end,
            OffsetQuery::At(time) => self
                .entries
                .iter()
                .find(|entry| entry.record.timestamp >= time)
                .map_or(self.end, |entry| entry.record.offset),
        }
    }

    /// The committed records from an offset on.
    pub fn committed_from(&self, from: Offset) -> impl Iterator<Item = &Arc<StoredRecord>> {
        let stable = self.last_stable();
        self.entries
            .range(self.position_of(from)..)
            .map(|entry| &entry.record)
            .take_while(move |record| record.offset < stable)
    }

    /// The last `count` committed records before an offset, in order.
    pub fn committed_before(&self, before: Offset, count: usize) -> impl Iterator<Item = &Arc<StoredRecord>> {
        let end = self.position_of(before.min(self.last_stable()));
        self.entries.range(end.saturating_sub(count)..end).map(|entry| &entry.record)
    }

    /// `false` where the offset is beyond the high watermark.
    fn delete_before(&mut self, offset: Offset) -> bool {
        if offset > self.end {
            return false;
        }
        self.start = self.start.max(offset);
        while self.entries.front().is_some_and(|entry| entry.record.offset < self.start) {
            self.entries.pop_front();
        }
        true
    }

    fn trim(&mut self, keep: usize) {
        let stable = self.last_stable();
        let excess = self.position_of(stable).saturating_sub(keep);
        if excess > 0 {
            let start = self.entries.get(excess).map_or(stable, |entry| entry.record.offset.min(stable));
            self.delete_before(start);
        }
    }

    fn compact(&mut self, now_ms: i64, delete_retention_ms: i64) {
        let stable = self.last_stable();
        let mut last: FxHashMap<&[u8], Offset> = FxHashMap::default();
        for entry in &self.entries {
            if let Some(key) = entry.record.key.as_deref().filter(|_| entry.record.offset < stable) {
                last.insert(key, entry.record.offset);
            }
        }
        let mut horizons = BTreeMap::new();
        let keep: Vec<bool> = self
            .entries
            .iter()
            .map(|entry| {
                let record = &entry.record;
                let Some(key) = record.key.as_deref().filter(|_| record.offset < stable) else { return true };
                if last.get(key) != Some(&record.offset) {
                    return false;
                }
                if record.value.is_some() {
                    return true;
                }
                let fresh = now_ms.saturating_add(delete_retention_ms);
                let horizon = self.delete_horizons.get(&record.offset).copied().unwrap_or(fresh);
                let kept = now_ms < horizon || !self.delete_horizons.contains_key(&record.offset);
                if kept {
                    horizons.insert(record.offset, horizon);
                }
                kept
            })
            .collect();
        let mut keep = keep.into_iter();
        self.entries.retain(|_| keep.next().unwrap_or(true));
        self.delete_horizons = horizons;
    }

    /// Index of the first entry at or after an offset.
    fn position_of(&self, offset: Offset) -> usize {
        self.entries.partition_point(|entry| entry.record.offset < offset)
    }
}
