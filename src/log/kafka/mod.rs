//! The log on a real Kafka, through librdkafka.

pub mod message;
