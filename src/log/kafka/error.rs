//! From a client's error code to what it means for Sidestream. The only place that knows codes' meanings.

use super::native::{Code, NativeError};
use crate::ids::{Offset, TopicName, TopicPartition};
use crate::log::Error;

/// What a request was about, for the error's words.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// The cluster, a group, a transaction.
    Cluster,
    Topic(&'a TopicName),
    /// Reading from a position.
    Position(&'a TopicPartition, Offset),
}

impl<'a> Subject<'a> {
    fn topic(self) -> Option<&'a TopicName> {
        match self {
            Self::Cluster => None,
            Self::Topic(topic) => Some(topic),
            Self::Position(partition, _) => Some(&partition.topic),
        }
    }
}

/// What kind of trouble a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Unreachable,
    TimedOut,
    Authentication,
    NotAuthorised,
    TopicMissing,
    TopicExists,
    OutOfRange,
    StaleGeneration,
    InstanceFenced,
    ProducerFenced,
    RecordRefused,
    /// An argument that the client or the broker does not take.
    Invalid,
    Other,
}

fn meaning(code: Code) -> Meaning {
    match code {
        Code::TRANSPORT
        | Code::ALL_BROKERS_DOWN
        | Code::RESOLVE
        | Code::WAIT_COORD
        | Code::NOENT
        | Code::LEADER_NOT_AVAILABLE
        | Code::NOT_LEADER_OR_FOLLOWER
        | Code::FENCED_LEADER_EPOCH
        | Code::UNKNOWN_LEADER_EPOCH
        | Code::OFFSET_NOT_AVAILABLE
        | Code::BROKER_NOT_AVAILABLE
        | Code::REPLICA_NOT_AVAILABLE
        | Code::NOT_ENOUGH_REPLICAS
        | Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | Code::NETWORK_EXCEPTION
        | Code::NOT_CONTROLLER
        | Code::KAFKA_STORAGE_ERROR
        | Code::COORDINATOR_LOAD_IN_PROGRESS
        | Code::COORDINATOR_NOT_AVAILABLE
        | Code::NOT_COORDINATOR => Meaning::Unreachable,
        Code::TIMED_OUT
        | Code::TIMED_OUT_QUEUE
        | Code::MSG_TIMED_OUT
        | Code::REQUEST_TIMED_OUT
        | Code::UNSTABLE_OFFSET_COMMIT => Meaning::TimedOut,
        Code::AUTHENTICATION | Code::SSL | Code::SASL_AUTHENTICATION_FAILED | Code::UNSUPPORTED_SASL_MECHANISM => {
            Meaning::Authentication
        }
        Code::TOPIC_AUTHORIZATION_FAILED
        | Code::GROUP_AUTHORIZATION_FAILED
        | Code::CLUSTER_AUTHORIZATION_FAILED
        | Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Meaning::NotAuthorised,
        Code::LOCAL_UNKNOWN_TOPIC | Code::LOCAL_UNKNOWN_PARTITION | Code::UNKNOWN_TOPIC_OR_PARTITION => {
            Meaning::TopicMissing
        }
        Code::TOPIC_ALREADY_EXISTS => Meaning::TopicExists,
        Code::AUTO_OFFSET_RESET | Code::OFFSET_OUT_OF_RANGE => Meaning::OutOfRange,
        Code::ILLEGAL_GENERATION
        | Code::UNKNOWN_MEMBER_ID
        | Code::REBALANCE_IN_PROGRESS
        | Code::STALE_MEMBER_EPOCH
        | Code::FENCED_MEMBER_EPOCH
        | Code::ASSIGNMENT_LOST
        | Code::MAX_POLL_EXCEEDED => Meaning::StaleGeneration,
        Code::FENCED_INSTANCE_ID | Code::UNRELEASED_INSTANCE_ID => Meaning::InstanceFenced,
        // A transaction that the broker timed out looks the same: its epoch was raised.
        Code::FENCED | Code::PRODUCER_FENCED | Code::INVALID_PRODUCER_EPOCH => Meaning::ProducerFenced,
        Code::MSG_SIZE_TOO_LARGE
        | Code::RECORD_LIST_TOO_LARGE
        | Code::INVALID_RECORD
        | Code::INVALID_MSG
        | Code::INVALID_MSG_SIZE
        | Code::INVALID_TIMESTAMP => Meaning::RecordRefused,
        Code::INVALID_ARG | Code::INVALID_TOPIC => Meaning::Invalid,
        _ => Meaning::Other,
    }
}

/// The request's answer may still come, or have been lost: nobody knows what it did.
pub fn leaves_doubt(code: Code) -> bool {
    matches!(meaning(code), Meaning::Unreachable | Meaning::TimedOut)
}

/// The client asked the wrong broker: it has to learn anew who leads the partition.
pub fn leader_is_stale(code: Code) -> bool {
    matches!(
        code,
        Code::NOENT
            | Code::LEADER_NOT_AVAILABLE
            | Code::NOT_LEADER_OR_FOLLOWER
            | Code::FENCED_LEADER_EPOCH
            | Code::UNKNOWN_LEADER_EPOCH
    )
}

/// `problem` is the last trouble that the client reported: it explains a time-out.
pub fn translate(error: &NativeError, subject: Subject<'_>, problem: Option<&NativeError>) -> Error {
    let reason = error.to_string();
    match meaning(error.code) {
        Meaning::Unreachable => explained(problem).unwrap_or(Error::Unreachable { reason }),
        Meaning::TimedOut => explained(problem).unwrap_or(Error::TimedOut { reason }),
        Meaning::Authentication => Error::Authentication { reason },
        Meaning::NotAuthorised => Error::NotAuthorised { reason },
        Meaning::StaleGeneration => Error::StaleGeneration { reason },
        Meaning::InstanceFenced => Error::InstanceFenced { reason },
        Meaning::ProducerFenced => Error::ProducerFenced { reason },
        Meaning::OutOfRange => match subject {
            Subject::Position(partition, offset) => Error::OffsetOutOfRange { partition: partition.clone(), offset },
            Subject::Cluster | Subject::Topic(_) => Error::Unreachable { reason },
        },
        Meaning::TopicMissing | Meaning::TopicExists | Meaning::RecordRefused | Meaning::Invalid | Meaning::Other => {
            match subject.topic() {
                Some(topic) => about_topic(error, topic, reason),
                None if error.fatal => Error::ClientFailed { reason },
                None if error.abortable => Error::TransactionAborted { reason },
                None if error.code == Code::INVALID_ARG => Error::Setting { reason },
                None => Error::Unreachable { reason },
            }
        }
    }
}

fn about_topic(error: &NativeError, topic: &TopicName, reason: String) -> Error {
    let topic = topic.clone();
    match meaning(error.code) {
        Meaning::TopicMissing => Error::TopicMissing { topic },
        Meaning::TopicExists => Error::TopicExists { topic },
        Meaning::RecordRefused if error.code == Code::INVALID_TIMESTAMP => {
            let reason = format!(
                "{reason}: its time is further from Kafka's clock than the topic's message.timestamp.after.max.ms (an hour by \
                 default) and message.timestamp.before.max.ms allow"
            );
            Error::RecordRefused { topic, reason }
        }
        Meaning::RecordRefused => Error::RecordRefused { topic, reason },
        _ if error.fatal => Error::ClientFailed { reason },
        _ => Error::TopicRefused { topic, reason },
    }
}

/// Why nothing was answered, if the client knows.
fn explained(problem: Option<&NativeError>) -> Option<Error> {
    let problem = problem?;
    let reason = problem.to_string();
    match meaning(problem.code) {
        Meaning::Authentication => Some(Error::Authentication { reason }),
        Meaning::Unreachable => Some(Error::Unreachable { reason }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;
    use crate::log::Next;

    fn next(code: Code) -> Next {
        translate(&NativeError::from_code(code), Subject::Topic(&TopicName::new("t")), None).next()
    }

    #[test]
    fn every_kind_of_trouble_says_what_must_happen_next() {
        for (code, expected) in [
            (Code::TRANSPORT, Next::Retry),
            (Code::TIMED_OUT, Next::Retry),
            (Code::UNSTABLE_OFFSET_COMMIT, Next::Retry),
            (Code::TOPIC_AUTHORIZATION_FAILED, Next::Wait),
            (Code::UNKNOWN_TOPIC_OR_PARTITION, Next::Wait),
            (Code::SASL_AUTHENTICATION_FAILED, Next::Wait),
            (Code::ILLEGAL_GENERATION, Next::Rejoin),
            (Code::STALE_MEMBER_EPOCH, Next::Rejoin),
            (Code::FENCED_INSTANCE_ID, Next::Fenced),
            (Code::INVALID_PRODUCER_EPOCH, Next::RecreateProducer),
            (Code::MSG_SIZE_TOO_LARGE, Next::Poison),
            (Code::INVALID_RECORD, Next::Poison),
        ] {
            assert_eq!(next(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_position_that_is_gone_is_named() {
        let partition = TopicPartition::new("t", Partition(3));
        let error = NativeError::from_code(Code::AUTO_OFFSET_RESET);
        let translated = translate(&error, Subject::Position(&partition, Offset(7)), None);
        assert_eq!(translated, Error::OffsetOutOfRange { partition, offset: Offset(7) });
    }

    #[test]
    fn a_timeout_is_explained_by_the_clients_last_problem() {
        let late = NativeError::from_code(Code::TIMED_OUT);
        let wrong_password = NativeError::from_code(Code::AUTHENTICATION);
        assert!(matches!(translate(&late, Subject::Cluster, Some(&wrong_password)), Error::Authentication { .. }));
        assert!(matches!(translate(&late, Subject::Cluster, None), Error::TimedOut { .. }));
    }

    #[test]
    fn a_code_of_a_newer_broker_is_no_reason_to_stop() {
        assert_eq!(translate(&NativeError::from_code(Code(999)), Subject::Cluster, None).next(), Next::Retry);
    }
}
