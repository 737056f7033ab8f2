//! A row in flight, and what is known of the record that it came from.

use std::sync::Arc;

use crate::ids::{EventTime, Offset, Partition, TopicName};
use crate::value::Value;

/// The values of a row in the order of its schema.
pub type Row = Vec<Value>;

/// One Kafka header: a name and bytes, where the bytes may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: Box<str>,
    pub value: Option<Box<[u8]>>,
}

/// Headers in their order. Shared, since most records have none and those that do pass them on unchanged.
pub type Headers = Option<Arc<[Header]>>;

/// The pseudo-columns of a record: `_key _timestamp _topic _partition _offset _headers _tombstone`, and `NOW()`.
///
/// Stateless steps leave it as it is; behind a repartition topic it describes the record of that topic.
#[derive(Clone, Debug)]
pub struct Origin {
    pub topic: TopicName,
    pub partition: Partition,
    pub offset: Offset,
    /// The record's key as it stood in the topic.
    pub key: Option<Arc<[u8]>>,
    pub headers: Headers,
    /// Kafka's record timestamp, or what the source's `timestamp` expression said.
    pub time: EventTime,
    pub tombstone: bool,
    /// When the record was fetched, microseconds since the epoch: `NOW()`.
    pub fetched_at: i64,
}
