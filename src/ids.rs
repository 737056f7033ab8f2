//! Names and numbers with a meaning of their own, so that a partition is never taken for an offset.
//!
//! Nothing here has behaviour beyond formatting and order.

use std::fmt;
use std::sync::Arc;

/// The name of a Kafka topic. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn new(name: impl AsRef<str>) -> Self {
        Self(Arc::from(name.as_ref()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// A partition number of a topic, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Partition(pub u32);

impl Partition {
    /// As Kafka's wire protocol and librdkafka spell it.
    #[expect(clippy::cast_possible_wrap, reason = "Kafka's partition numbers are non-negative 32-bit integers")]
    pub fn as_i32(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One partition of one topic.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: Partition,
}

impl TopicPartition {
    pub fn new(topic: impl Into<TopicName>, partition: Partition) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A position in a partition: the offset of a record, or of the next record to read. Never negative.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub i64);

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The position after the record at this offset.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Event time: milliseconds since 1970-01-01T00:00:00Z, as Kafka's record timestamp. (TIMESTAMP values in rows are
/// microseconds; see [`crate::value::Value::Timestamp`].)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct EventTime(pub i64);

impl EventTime {
    /// Before every event: the watermark of an input that has reported nothing.
    pub const MIN: Self = Self(i64::MIN);
    pub const MAX: Self = Self(i64::MAX);

    /// From microseconds, rounded down.
    pub fn from_micros(micros: i64) -> Self {
        Self(micros.div_euclid(1000))
    }

    /// In microseconds; saturates at the ends of the range.
    pub fn micros(self) -> i64 {
        self.0.saturating_mul(1000)
    }

    #[must_use]
    pub fn saturating_add(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    #[must_use]
    pub fn saturating_sub(self, millis: i64) -> Self {
        // MIN means "nothing known" and stays so.
        if self == Self::MIN { self } else { Self(self.0.saturating_sub(millis)) }
    }
}

/// Index of a sub-topology in the plan.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SubTopologyId(pub u32);

/// A task: one sub-topology on one partition number, over all its co-partitioned source topics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TaskId {
    pub sub_topology: SubTopologyId,
    pub partition: Partition,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology.0, self.partition)
    }
}

/// Index of a store in the plan. The store's *name* is what lasts; this is only a handle within one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StoreId(pub u32);

impl StoreId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
