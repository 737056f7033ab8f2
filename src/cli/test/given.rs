//! The input of a test, as records.

use serde_json::{Map, Value as Json};

use super::super::record::{Bytes, SourceWriter, source_of};
use super::compare::as_written;
use crate::format::json::to_json;
use crate::format::text::parse_timestamp;
use crate::ids::{EventTime, TopicName};
use crate::row::Header;
use crate::schema::Type;
use crate::topology::Plan;
use crate::topology::document::GivenRecords;
use crate::value::Value;

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenRecord {
    pub topic: TopicName,
    /// `None`: by the key, as other clients do.
    pub partition: Option<u32>,
    pub bytes: Bytes,
    /// Kafka's record timestamp.
    pub timestamp: EventTime,
    /// What the timestamp column says, if there is one; else the record timestamp.
    pub event_time: EventTime,
    pub headers: Vec<Header>,
}

/// The records of one entry. Where it says no record timestamp, that is the event time; `now` where there is none either.
pub fn records(plan: &Plan, given: &GivenRecords, now: EventTime) -> Result<Vec<GivenRecord>, String> {
    let name = &given.source.text;
    let (source, reader) = source_of(plan, name).ok_or_else(|| format!("there is no stream or table `{name}`"))?;
    let mut writer = SourceWriter::new(reader).ok_or_else(|| format!("`{name}` is not read from a topic of yours"))?;
    let time_column = reader.timestamp.as_ref().and_then(crate::expression::Expression::as_column);
    let time_column = time_column.and_then(|slot| reader.schema.columns().get(slot)).map(|column| &*column.name);
    let every_ms = given.every.map_or(0, |every| i64::try_from(every.as_millis()).unwrap_or(i64::MAX));
    let said = given.timestamp.as_ref().map(instant).transpose()?;

    (0..given.repeat)
        .map(|index| {
            let shift = every_ms.saturating_mul(i64::try_from(index).unwrap_or(i64::MAX));
            let key = given.key.as_ref().map(|key| repetition(key, index));
            let timestamp = said.unwrap_or(now).saturating_add(shift);
            let mut event_time = timestamp;
            let bytes = match (&given.value, given.delete) {
                (Some(value), false) => {
                    let mut row = match repetition(value, index) {
                        Json::Object(row) => row,
                        other => return Err(format!("value: write columns and values, not {other}")),
                    };
                    take_as_text(&mut row, &writer);
                    if let Some(column) = time_column {
                        event_time = move_time(&mut row, column, shift).unwrap_or(event_time);
                    }
                    writer.object(&row, key.as_ref())?
                }
                (value, _) => {
                    let key = key.or_else(|| value.as_ref().map(|value| repetition(value, index)));
                    writer.tombstone(&key.ok_or("a deletion needs a `key`")?)?
                }
            };
            // A record is produced when it happens, unless the test says otherwise.
            let timestamp = if said.is_some() { timestamp } else { event_time };
            let header = |(name, value): &(String, String)| Header {
                name: Box::from(&**name),
                value: Some(Box::from(value.as_bytes())),
            };
            Ok(GivenRecord {
                topic: source.topic.clone(),
                partition: given.partition,
                bytes,
                timestamp,
                event_time,
                headers: given.headers.iter().map(header).collect(),
            })
        })
        .collect()
}

/// `$i` in every text becomes the number of the repetition, from 0.
fn repetition(value: &Json, index: u64) -> Json {
    match value {
        Json::String(text) => Json::String(text.replace("$i", &index.to_string())),
        Json::Array(values) => values.iter().map(|value| repetition(value, index)).collect(),
        Json::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), repetition(value, index))).collect::<Map<_, _>>().into()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
    }
}

fn take_as_text(row: &mut Map<String, Json>, writer: &SourceWriter) {
    for (name, value) in row.iter_mut() {
        if let Some(column) = writer.schema().column(name) {
            *value = as_written(value, &column.ty);
        }
    }
}

/// Moves the timestamp column on, in the form in which it was written. `None` where it holds no time, which may be what
/// the test is about.
fn move_time(row: &mut Map<String, Json>, column: &str, shift_ms: i64) -> Option<EventTime> {
    let value = row.get_mut(column)?;
    let moved = instant(value).ok()?.saturating_add(shift_ms);
    if shift_ms != 0 {
        *value = match value {
            Json::Number(_) => Json::from(moved.0),
            _ => to_json(&Value::Timestamp(moved.micros()), &Type::Timestamp),
        };
    }
    Some(moved)
}

fn instant(value: &Json) -> Result<EventTime, String> {
    let micros = match value {
        Json::String(text) => parse_timestamp(text),
        Json::Number(number) => number.as_i64().and_then(|millis| millis.checked_mul(1000)),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    };
    micros
        .map(EventTime::from_micros)
        .ok_or_else(|| format!("{value} is not a time; write RFC 3339 or milliseconds since the epoch"))
}
