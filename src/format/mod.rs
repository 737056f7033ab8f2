//! Bytes <-> rows, where a record enters a task and where one leaves.
//!
//! A closed set of formats; each is a file. Decoders and encoders are made once per source or sink and reused, so that a
//! record costs no set-up.
//!
//! Invariants
//! - A decoder fills exactly the slots that are used and leaves the others as they are (NULL).
//! - Decoding never panics, whatever the bytes; what does not fit the schema is a [`DecodeError`] that names the column.

use crate::row::Row;
use crate::schema::Schema;
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
    /// UTF-8 text; one STRING column.
    String,
    /// One BYTES column.
    Bytes,
    /// Kafka's own serializers; one column.
    Kafka,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("not valid {format}: {reason}")]
    Malformed { format: &'static str, reason: String },
    #[error("column `{column}`: {reason}")]
    Column { column: String, reason: String },
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("column `{column}` cannot be written as {format}: {reason}")]
pub struct EncodeError {
    pub column: String,
    pub format: &'static str,
    pub reason: String,
}

#[derive(Debug)]
pub struct Decoder {}

impl Decoder {
    /// For the columns of `schema`, which become the slots `first_slot..` of a row; only those with `used` are filled.
    pub fn new(format: Format, schema: &Schema, used: &[bool], first_slot: usize) -> Self {
        let _ = (format, schema, used, first_slot);
        unimplemented!()
    }

    pub fn decode(&mut self, bytes: &[u8], into: &mut Row) -> Result<(), DecodeError> {
        let _ = (bytes, into);
        unimplemented!()
    }
}

#[derive(Debug)]
pub struct Encoder {}

impl Encoder {
    pub fn new(format: Format, schema: &Schema) -> Self {
        let _ = (format, schema);
        unimplemented!()
    }

    /// Appends the bytes of `row`, which has the values of the schema in its order.
    pub fn encode(&mut self, row: &[Value], into: &mut Vec<u8>) -> Result<(), EncodeError> {
        let _ = (row, into);
        unimplemented!()
    }
}

/// Whether a format can hold these columns; the reason if not. For `check`.
pub fn supports(format: Format, schema: &Schema) -> Result<(), String> {
    let _ = (format, schema);
    unimplemented!()
}
