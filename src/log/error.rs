//! What can go wrong with the log, and what must happen next.

use crate::ids::{Offset, TopicName, TopicPartition};

/// Who acts on an error, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The log is away or busy: try again later; nothing is lost.
    Retry,
    /// Somebody must repair something outside (create a topic, grant a right); wait and look again.
    Wait,
    /// The group has moved on: abort, and follow the coming rebalance.
    Rejoin,
    /// The producer is of no more use: drop it and make another with the same id.
    RecreateProducer,
    /// Another process uses this member's static id.
    Fenced,
    /// The position does not exist any more.
    Reposition,
    /// A record was refused: find it and set it aside.
    Poison,
    /// A mistake in settings or in Sidestream itself: stop with this message.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("Kafka cannot be reached: {reason}")]
    Unreachable { reason: String },
    #[error("Kafka did not answer within the time allowed: {reason}")]
    TimedOut { reason: String },
    #[error("committed offsets of {} belong to a transaction that has not ended yet", list(partitions))]
    OffsetsPending { partitions: Vec<TopicPartition> },
    #[error("authentication failed: {reason}")]
    Authentication { reason: String },
    #[error("not authorised: {reason}")]
    NotAuthorised { reason: String },
    #[error("topic `{topic}` does not exist")]
    TopicMissing { topic: TopicName },
    #[error("topic `{topic}` exists already")]
    TopicExists { topic: TopicName },
    #[error("topic `{topic}` was refused: {reason}")]
    TopicRefused { topic: TopicName, reason: String },
    #[error("offset {offset} of {partition} is out of range")]
    OffsetOutOfRange { partition: TopicPartition, offset: Offset },
    #[error("the group has moved on to another generation: {reason}")]
    StaleGeneration { reason: String },
    #[error("another process has joined with the same instance id: {reason}")]
    InstanceFenced { reason: String },
    #[error("another producer has taken over the transactional id: {reason}")]
    ProducerFenced { reason: String },
    #[error("the transaction cannot go on: {reason}")]
    TransactionAborted { reason: String },
    #[error("a record was refused by topic `{topic}`: {reason}")]
    RecordRefused { topic: TopicName, reason: String },
    #[error("the client has failed for good: {reason}")]
    ClientFailed { reason: String },
    #[error("invalid setting: {reason}")]
    Setting { reason: String },
}

impl Error {
    pub fn next(&self) -> Next {
        match self {
            Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::OffsetsPending { .. }
            | Self::TransactionAborted { .. } => Next::Retry,
            Self::Authentication { .. }
            | Self::NotAuthorised { .. }
            | Self::TopicMissing { .. }
            | Self::TopicExists { .. }
            | Self::TopicRefused { .. } => Next::Wait,
            Self::StaleGeneration { .. } => Next::Rejoin,
            Self::InstanceFenced { .. } => Next::Fenced,
            Self::ProducerFenced { .. } | Self::ClientFailed { .. } => Next::RecreateProducer,
            Self::OffsetOutOfRange { .. } => Next::Reposition,
            Self::RecordRefused { .. } => Next::Poison,
            Self::Setting { .. } => Next::Stop,
        }
    }
}

fn list(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    names.join(" or ")
}

/// What became of a commit that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it is visible or ever will be. The transaction is still to be ended with `abort` unless the error
    /// asks for a new producer.
    Aborted,
    /// It may or may not have happened. Only a new producer with the same id can tell, by its `init`.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("commit failed ({outcome:?}): {error}")]
pub struct CommitFailure {
    pub outcome: Outcome,
    #[source]
    pub error: Error,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendFailure {
    #[error("the producer's queue is full")]
    QueueFull,
    #[error(transparent)]
    Refused(#[from] Error),
}
