//! Records that cannot be processed: dead letters, skips, and the decision to stop.
//!
//! A dead letter is the original record, bytes and headers, with headers added that say where it came from and why it is
//! here. Where no record is at hand (a window's close, a table's update at a flush) it is the row in JSON.

use super::context::Context;
use super::{Datum, Failure};
use crate::expression::EvalError;
use crate::format::{DecodeError, EncodeError, json};
use crate::ids::{EventTime, Partition};
use crate::log::OutgoingRecord;
use crate::metric;
use crate::metric::losses::Fate;
use crate::row::Header;
use crate::schema::Schema;
use crate::topology::plan::{Node, OnError};

/// Bytes of key and value that a dead letter keeps at least, before its record's own headers are given up.
const LEAST_ROOM: usize = 1024;

/// Why a record was rejected: a stable code for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RecordError {
    pub code: &'static str,
    pub message: String,
}

impl RecordError {
    pub const UNDECODABLE: &'static str = "undecodable";
    pub const NOT_ENCODABLE: &'static str = "not_encodable";
    pub const EXPRESSION: &'static str = "expression";
    pub const NULL_TIMESTAMP: &'static str = "null_timestamp";
    pub const TOO_FAR_AHEAD: &'static str = "too_far_ahead";
    pub const TOO_LARGE: &'static str = "too_large";
    pub const REFUSED: &'static str = "refused";

    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: shortened(message.into()) }
    }
}

/// A message that fits a header, whatever value it quotes.
fn shortened(mut message: String) -> String {
    const LONGEST: usize = 2000;
    if message.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        message.push('…');
    }
    message
}

impl From<EvalError> for RecordError {
    fn from(error: EvalError) -> Self {
        Self::new(Self::EXPRESSION, error.to_string())
    }
}

impl From<DecodeError> for RecordError {
    fn from(error: DecodeError) -> Self {
        Self::new(Self::UNDECODABLE, error.to_string())
    }
}

impl From<EncodeError> for RecordError {
    fn from(error: EncodeError) -> Self {
        Self::new(Self::NOT_ENCODABLE, error.to_string())
    }
}

impl From<EvalError> for Failure {
    fn from(error: EvalError) -> Self {
        Self::Record(error.into())
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::Record(error.into())
    }
}

/// A step could not process what reached it.
pub fn step(
    ctx: &mut Context<'_>,
    node: &Node,
    datum: Datum<'_>,
    time: EventTime,
    error: &RecordError,
) -> Result<(), Failure> {
    let schema = ctx.input_of(node).map(|(schema, _)| schema);
    let row = Described { row: datum.row(), schema: schema.as_ref(), time };
    reject(ctx, &node.step, node.on_error, error, Some(&row))
}

/// A source could not read a record.
pub fn source(ctx: &mut Context<'_>, reader: &str, on_error: OnError, error: &RecordError) -> Result<(), Failure> {
    reject(ctx, reader, on_error, error, None)
}

struct Described<'a> {
    row: &'a [crate::value::Value],
    schema: Option<&'a Schema>,
    time: EventTime,
}

fn reject(
    ctx: &mut Context<'_>,
    step: &str,
    on_error: OnError,
    error: &RecordError,
    row: Option<&Described<'_>>,
) -> Result<(), Failure> {
    match on_error {
        OnError::Skip => {
            ctx.dropped(step, "skipped");
            ctx.lost(Fate::Skipped, step, error.code, &error.message);
            Ok(())
        }
        OnError::Fail => Err(Failure::Stop { message: format!("step `{step}` failed on {}: {error}", ctx.place()) }),
        OnError::DeadLetter => {
            ctx.counters.counter(&metric::RECORDS_DEAD_LETTERED, &[step]).add(1);
            ctx.lost(Fate::DeadLettered, step, error.code, &error.message);
            dead_letter(ctx, step, error, row)
        }
    }
}

fn dead_letter(
    ctx: &mut Context<'_>,
    step: &str,
    error: &RecordError,
    row: Option<&Described<'_>>,
) -> Result<(), Failure> {
    let text = |name: &str, value: String| Header { name: name.into(), value: Some(value.into_bytes().into()) };
    let mut headers = ctx.record.map(crate::log::Record::headers).unwrap_or_default();
    headers.push(text("sidestream.step", step.to_owned()));
    headers.push(text("sidestream.error.code", error.code.to_owned()));
    headers.push(text("sidestream.error.message", error.message.clone()));
    let described;
    let (key, value, timestamp) = match (ctx.record, row) {
        (Some(record), _) => {
            headers.push(text("sidestream.topic", ctx.origin.topic.to_string()));
            headers.push(text("sidestream.partition", ctx.origin.partition.to_string()));
            headers.push(text("sidestream.offset", record.offset.to_string()));
            (record.key(), record.value(), record.timestamp)
        }
        (None, Some(row)) => {
            headers.push(text("sidestream.partition", ctx.partition.to_string()));
            described = match row.schema {
                Some(schema) if schema.len() == row.row.len() => {
                    serde_json::Value::Object(json::row_to_json(row.row, schema)).to_string()
                }
                _ => format!("{:?}", row.row),
            };
            (None, Some(described.as_bytes()), row.time)
        }
        (None, None) => (None, None, EventTime(0)),
    };
    let topic = ctx.outbox.dead_letters();
    let size = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    let (mut key, mut value) = (key, value);
    if size > ctx.outbox.room(topic, &headers) {
        headers.push(text("sidestream.truncated", "true".to_owned()));
        if ctx.outbox.room(topic, &headers) < LEAST_ROOM {
            // The record's own headers leave no room: what says why it is here matters more.
            headers.retain(|header| header.name.starts_with("sidestream."));
        }
        let room = ctx.outbox.room(topic, &headers);
        key = key.map(|key| &key[..key.len().min(room / 2)]);
        let left = room.saturating_sub(key.map_or(0, <[u8]>::len));
        value = value.map(|value| &value[..value.len().min(left)]);
    }
    ctx.outbox.send(topic, Partition(0), OutgoingRecord { key, value, timestamp, headers: &headers })
}
