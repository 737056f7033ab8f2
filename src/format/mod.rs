//! Bytes <-> rows, where a record enters a task and where one leaves.
//!
//! A closed set of formats; each is a file. Decoders and encoders are made once per source or sink and reused, so that a
//! record costs no set-up.
//!
//! Invariants
//! - A decoder fills exactly the slots that are used and leaves the others as they are (NULL).
//! - Decoding never panics, whatever the bytes; what does not fit the schema is a [`DecodeError`] that names the column.
//! - What a failed decode leaves in the used slots has no meaning; what a failed encode has appended neither.

pub mod internal;
pub mod json;
mod kafka;
mod number;
pub mod text;
mod time;

use json::{JsonDecoder, JsonEncoder};

use crate::row::Row;
use crate::schema::{Column, Schema, Type};
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Json,
    /// UTF-8 text; one column, other types than STRING in the form of [`text`].
    String,
    /// One BYTES column.
    Bytes,
    /// Kafka's own serializers; one column.
    Kafka,
}

impl Format {
    pub const ALL: [Self; 4] = [Self::Json, Self::String, Self::Bytes, Self::Kafka];

    /// As a topology spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Kafka => "kafka",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// How a key is written where nobody says: the plain value of one column, as UTF-8 text where Kafka's serializers
    /// cannot hold it; a JSON object of several.
    pub fn of_key(key: &Schema) -> Self {
        match key.columns() {
            [column] if kafka::supports(&column.ty) => Self::Kafka,
            [_] => Self::String,
            _ => Self::Json,
        }
    }
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

/// Bytes of one source into slots.
#[derive(Debug)]
pub struct Decoder {
    kind: DecoderKind,
}

#[derive(Debug)]
enum DecoderKind {
    Json(Box<JsonDecoder>),
    /// One column: its slot, if it is used.
    Single {
        format: Format,
        column: Column,
        slot: usize,
    },
    /// Nothing of the record is used.
    Unused,
}

impl Decoder {
    /// For the columns of `schema`, which become the slots `first_slot..` of a row; only those with `used` are filled.
    pub fn new(format: Format, schema: &Schema, used: &[bool], first_slot: usize) -> Self {
        let kind = match (format, schema.columns().first(), used.first()) {
            (Format::Json, _, _) => DecoderKind::Json(Box::new(JsonDecoder::new(schema, used, first_slot))),
            (Format::String | Format::Bytes | Format::Kafka, Some(column), Some(true)) => {
                DecoderKind::Single { format, column: column.clone(), slot: first_slot }
            }
            (Format::String | Format::Bytes | Format::Kafka, _, _) => DecoderKind::Unused,
        };
        Self { kind }
    }

    /// Fills the used slots; a row that is too short is filled up with NULL first. A record without a value (`None` in
    /// Kafka) has nothing to decode: that is the caller's to see.
    pub fn decode(&mut self, bytes: &[u8], into: &mut Row) -> Result<(), DecodeError> {
        match &mut self.kind {
            DecoderKind::Json(decoder) => decoder.decode(bytes, into),
            DecoderKind::Single { format, column, slot } => {
                if into.len() <= *slot {
                    into.resize(*slot + 1, Value::Null);
                }
                let value = decode_single(*format, bytes, &column.ty)
                    .map_err(|reason| DecodeError::Column { column: column.name.to_string(), reason })?;
                into[*slot] = value;
                Ok(())
            }
            DecoderKind::Unused => Ok(()),
        }
    }
}

fn decode_single(format: Format, bytes: &[u8], ty: &Type) -> Result<Value, String> {
    match (format, ty) {
        (Format::Bytes, Type::Bytes) => Ok(Value::bytes(bytes)),
        (Format::Kafka, ty) => kafka::decode(bytes, ty),
        (Format::String, ty) => {
            let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
            text::parse(text, ty)
        }
        (Format::Bytes | Format::Json, ty) => Err(format!("{} cannot hold one {ty}", format.name())),
    }
}

/// Rows of one sink into bytes.
#[derive(Debug)]
pub struct Encoder {
    kind: EncoderKind,
}

#[derive(Debug)]
enum EncoderKind {
    Json(JsonEncoder),
    Single { format: Format, column: Option<Column> },
}

impl Encoder {
    pub fn new(format: Format, schema: &Schema) -> Self {
        let kind = match format {
            Format::Json => EncoderKind::Json(JsonEncoder::new(schema)),
            Format::String | Format::Bytes | Format::Kafka => {
                EncoderKind::Single { format, column: schema.columns().first().cloned() }
            }
        };
        Self { kind }
    }

    /// Appends the bytes of `row`, which has the values of the schema in its order. The formats of one value have no NULL:
    /// a caller that allows it looks first and writes a record without a key or value.
    pub fn encode(&mut self, row: &[Value], into: &mut Vec<u8>) -> Result<(), EncodeError> {
        match &self.kind {
            EncoderKind::Json(encoder) => encoder.encode(row, into),
            EncoderKind::Single { format, column } => {
                let Some((column, value)) = column.as_ref().zip(row.first()) else { return Ok(()) };
                encode_single(*format, value, &column.ty, into).map_err(|reason| EncodeError {
                    column: column.name.to_string(),
                    format: format.name(),
                    reason,
                })
            }
        }
    }
}

fn encode_single(format: Format, value: &Value, ty: &Type, into: &mut Vec<u8>) -> Result<(), String> {
    match (format, value) {
        (_, Value::Null) => return Err("it is NULL".to_owned()),
        (Format::Kafka, value) => return kafka::encode(value, into),
        (Format::Bytes, Value::Bytes(bytes)) => into.extend_from_slice(bytes),
        (Format::String, value) => text::write(value, ty, into),
        (Format::Bytes | Format::Json, _) => return Err(format!("{} cannot hold one {ty}", format.name())),
    }
    Ok(())
}

/// Whether a format can hold these columns; the reason if not. For `check`.
pub fn supports(format: Format, schema: &Schema) -> Result<(), String> {
    // A column whose declared type is none: that has been said.
    if schema.columns().iter().any(|column| column.ty == Type::Null) {
        return Ok(());
    }
    let one_column = || match schema.columns() {
        [column] => Ok(column),
        columns => Err(format!("format {} holds one column, not {}", format.name(), columns.len())),
    };
    match format {
        Format::Json => Ok(()),
        Format::String => one_column().map(|_| ()),
        Format::Bytes => match one_column()? {
            column if column.ty == Type::Bytes => Ok(()),
            column => Err(format!("format bytes holds BYTES; column `{}` is {}", column.name, column.ty)),
        },
        Format::Kafka => match one_column()? {
            column if kafka::supports(&column.ty) => Ok(()),
            column => Err(format!(
                "format kafka holds INT, BIGINT, DOUBLE, STRING or BYTES; column `{}` is {}",
                column.name, column.ty
            )),
        },
    }
}

#[cfg(test)]
pub(crate) mod arbitrary;
#[cfg(test)]
mod tests;
