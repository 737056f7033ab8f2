//! The bytes of our own rows in RocksDB's `default` column family: format version, changelog positions, input offsets.
//!
//! ```text
//! key "v"                                    -> version of everything in this database, 1 byte
//! key "p" name-length:u16 name partition:u32 -> 1 offset:i64 written_at:i64 topic-id (UTF-8, to the end)
//! key "i" name-length:u16 name partition:u32 -> 1 offset:i64
//! ```
//! Numbers are big-endian. Stores and topics are named, since ids are only one process's. The first byte of a value is its
//! version; key letters are never reused.

use super::super::{ChangelogPosition, Error};
use crate::ids::{Offset, Partition, TopicPartition};

/// Of the database: column families, keys and rows of metadata. Rows of stores carry versions of their own.
pub(super) const FORMAT_VERSION: u8 = 1;
pub(super) const FORMAT_VERSION_KEY: &[u8] = b"v";

const VALUE_VERSION: u8 = 1;

pub(super) fn position_key(store: &str, partition: Partition) -> Vec<u8> {
    named_key(b'p', store, partition)
}

pub(super) fn input_key(input: &TopicPartition) -> Vec<u8> {
    named_key(b'i', input.topic.as_str(), input.partition)
}

/// What all position keys of a store begin with; a partition follows.
pub(super) fn position_prefix(store: &str) -> Vec<u8> {
    let mut key = position_key(store, Partition(0));
    key.truncate(key.len() - size_of::<u32>());
    key
}

/// The partition in a key that begins with [`position_prefix`].
pub(super) fn partition_of(position_key: &[u8]) -> Option<Partition> {
    let bytes = position_key.last_chunk::<4>()?;
    Some(Partition(u32::from_be_bytes(*bytes)))
}

fn named_key(letter: u8, name: &str, partition: Partition) -> Vec<u8> {
    let mut key = Vec::with_capacity(name.len() + 7);
    key.push(letter);
    // Kafka's topic names have at most 249 bytes; store names are shorter.
    let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

pub(super) fn encode_position(position: &ChangelogPosition) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend_from_slice(&position.offset.0.to_be_bytes());
    value.extend_from_slice(&position.written_at.to_be_bytes());
    value.extend_from_slice(position.topic_id.as_bytes());
    value
}

pub(super) fn decode_position(value: &[u8]) -> Result<ChangelogPosition, Error> {
    let unreadable = |reason: &str| Error::Encoding { what: "changelog position", reason: reason.to_owned() };
    let fields = versioned(value).map_err(|version| unreadable(&version))?;
    let (offset, fields) = fields.split_first_chunk::<8>().ok_or_else(|| unreadable("it is too short"))?;
    let (written_at, topic_id) = fields.split_first_chunk::<8>().ok_or_else(|| unreadable("it is too short"))?;
    let topic_id = str::from_utf8(topic_id).map_err(|_| unreadable("its topic id is not UTF-8"))?;
    Ok(ChangelogPosition {
        topic_id: topic_id.to_owned(),
        offset: Offset(i64::from_be_bytes(*offset)),
        written_at: i64::from_be_bytes(*written_at),
    })
}

pub(super) fn encode_input(offset: Offset) -> Vec<u8> {
    let mut value = vec![VALUE_VERSION];
    value.extend_from_slice(&offset.0.to_be_bytes());
    value
}

pub(super) fn decode_input(value: &[u8]) -> Result<Offset, Error> {
    let unreadable = |reason: String| Error::Encoding { what: "input offset", reason };
    let fields = versioned(value).map_err(unreadable)?;
    let offset: [u8; 8] = fields.try_into().map_err(|_| unreadable(format!("it has {} bytes", value.len())))?;
    Ok(Offset(i64::from_be_bytes(offset)))
}

fn versioned(value: &[u8]) -> Result<&[u8], String> {
    match value.split_first() {
        Some((&VALUE_VERSION, fields)) => Ok(fields),
        Some((version, _)) => Err(format!("its version is {version}, known is {VALUE_VERSION}")),
        None => Err("it is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_position_are_the_ones_that_existing_directories_hold() {
        let position = ChangelogPosition { topic_id: "tid".to_owned(), offset: Offset(258), written_at: -2 };
        assert_eq!(position_key("ab", Partition(7)), b"p\0\x02ab\0\0\0\x07");
        let value = encode_position(&position);
        assert_eq!(value, b"\x01\0\0\0\0\0\0\x01\x02\xff\xff\xff\xff\xff\xff\xff\xfetid");
        assert_eq!(decode_position(&value).unwrap(), position);
    }

    #[test]
    fn the_bytes_of_an_input_offset_are_the_ones_that_existing_directories_hold() {
        assert_eq!(input_key(&TopicPartition::new("t", Partition(1))), b"i\0\x01t\0\0\0\x01");
        assert_eq!(encode_input(Offset(5)), b"\x01\0\0\0\0\0\0\0\x05");
        assert_eq!(decode_input(&encode_input(Offset(5))).unwrap(), Offset(5));
    }

    #[test]
    fn a_value_of_a_later_version_or_a_wrong_length_is_an_error_and_not_a_number() {
        assert!(decode_position(b"\x02\0\0\0\0\0\0\0\0").is_err());
        assert!(decode_position(b"\x01\0\0").is_err());
        assert!(decode_position(b"").is_err());
        assert!(decode_input(b"\x01\0").is_err());
    }

    #[test]
    fn a_store_whose_name_begins_with_anothers_has_other_keys() {
        let short = position_prefix("a");
        assert!(position_key("a", Partition(3)).starts_with(&short));
        assert!(!position_key("a\0\0\0\0", Partition(3)).starts_with(&short));
        assert_eq!(partition_of(&position_key("a", Partition(3))), Some(Partition(3)));
    }
}
