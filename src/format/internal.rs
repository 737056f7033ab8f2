//! The records of our own repartition topics: rows between two sub-topologies, and how far the task that sent them is.
//!
//! ```text
//! envelope := version (02) | kind and flags | partition | watermark | [time | old row's time | row | row]
//! kind and flags: 01 record   02 change   03 watermark   04 tombstone of a stream (its row is NULLs but for the key)
//!                 05 retimed: a table's row as it was, at a later time
//!                  +10 the old row is there   +20 the new row is there
//!                 +80 the upstream task is idle
//! partition  varint: of the task that sent it
//! watermark  zigzag varint, milliseconds; times likewise. An old row's time is there where an old row is, and with 05
//! row        as in `store::row`, old before new; its layout's version is the hash of its columns
//! ```
//!
//! What it is not: the record's key and headers are Kafka's own; the upstream sub-topology is known from the plan.
//!
//! Invariants
//! - These bytes are on the wire between versions of Sidestream. A version or kind is never used for another. Version 01
//!   had no old row's time.
//! - Every record carries its sender's watermark (EXACTLY-ONCE rule 17).

use super::DecodeError;
use crate::ids::{EventTime, Partition};
use crate::row::Row;
use crate::schema::Schema;
use crate::store;
use crate::store::row::{LayoutError, Reader, RowCodec, layout_hash, push_varint, push_zigzag};
use crate::value::Value;

const VERSION: u8 = 2;

const RECORD: u8 = 0x01;
const CHANGE: u8 = 0x02;
const WATERMARK: u8 = 0x03;
const TOMBSTONE: u8 = 0x04;
const RETIMED: u8 = 0x05;
const KIND: u8 = 0x0f;
const OLD: u8 = 0x10;
const NEW: u8 = 0x20;
const IDLE: u8 = 0x80;

/// How far the task that sent a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The partition of the upstream task.
    pub upstream: Partition,
    /// Its watermark where it sent this.
    pub watermark: EventTime,
    /// Whether all its inputs are idle, so that its watermark holds nobody back.
    pub idle: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    pub progress: Progress,
    pub content: Content,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A stream's row and its event time.
    Record { row: Row, time: EventTime },
    /// A stream's record without a value: its row, of which only what comes from the key is there.
    Tombstone { row: Row, time: EventTime },
    /// A table's row before and after: without `old` an insert, without `new` a delete.
    /// `old_time` is the event time that the old row was passed on with.
    Change { old: Option<Row>, new: Option<Row>, old_time: EventTime, time: EventTime },
    /// A table's row of which only the event time has changed.
    Retimed { row: Row, old_time: EventTime, time: EventTime },
    /// Nothing but the progress.
    Watermark,
}

/// Reads and writes the envelopes of one repartition topic.
#[derive(Clone, Debug)]
pub struct InternalFormat {
    codec: RowCodec,
}

impl InternalFormat {
    pub fn new(schema: Schema) -> Self {
        Self { codec: RowCodec::only(layout_hash(&schema), schema) }
    }

    /// Also reads records that were sent before the columns changed.
    pub fn with_earlier(schema: Schema, earlier: impl IntoIterator<Item = Schema>) -> Result<Self, LayoutError> {
        let mut layouts: Vec<(u32, Schema)> = Vec::new();
        for schema in earlier {
            let version = layout_hash(&schema);
            if layouts.iter().all(|(known, _)| *known != version) {
                layouts.push((version, schema));
            }
        }
        Ok(Self { codec: RowCodec::with_version(layouts, layout_hash(&schema), schema)? })
    }

    /// Appends a row of a stream.
    pub fn encode_record(
        &self,
        progress: Progress,
        row: &[Value],
        time: EventTime,
        into: &mut Vec<u8>,
    ) -> Result<(), store::Error> {
        self.encode_row(RECORD, progress, row, time, into)
    }

    /// Appends a stream's record that had no value.
    pub fn encode_tombstone(
        &self,
        progress: Progress,
        row: &[Value],
        time: EventTime,
        into: &mut Vec<u8>,
    ) -> Result<(), store::Error> {
        self.encode_row(TOMBSTONE, progress, row, time, into)
    }

    /// An envelope of one row.
    fn encode_row(
        &self,
        kind: u8,
        progress: Progress,
        row: &[Value],
        time: EventTime,
        into: &mut Vec<u8>,
    ) -> Result<(), store::Error> {
        push_head(kind, progress, into);
        push_zigzag(time.0, into);
        self.codec.encode(row, None, into)
    }

    /// Appends a change of a table.
    pub fn encode_change(
        &self,
        progress: Progress,
        old: Option<(&[Value], EventTime)>,
        new: Option<&[Value]>,
        time: EventTime,
        into: &mut Vec<u8>,
    ) -> Result<(), store::Error> {
        let old_flag = if old.is_some() { OLD } else { 0 };
        let new_flag = if new.is_some() { NEW } else { 0 };
        push_head(CHANGE | old_flag | new_flag, progress, into);
        push_zigzag(time.0, into);
        if let Some((_, old_time)) = old {
            push_zigzag(old_time.0, into);
        }
        for row in [old.map(|(row, _)| row), new].into_iter().flatten() {
            self.codec.encode(row, None, into)?;
        }
        Ok(())
    }

    /// Appends a table's row of which only the event time has changed.
    pub fn encode_retimed(
        &self,
        progress: Progress,
        row: &[Value],
        old_time: EventTime,
        time: EventTime,
        into: &mut Vec<u8>,
    ) -> Result<(), store::Error> {
        push_head(RETIMED, progress, into);
        push_zigzag(time.0, into);
        push_zigzag(old_time.0, into);
        self.codec.encode(row, None, into)
    }

    /// Reads any envelope of the topic.
    pub fn decode(&self, bytes: &[u8]) -> Result<Envelope, DecodeError> {
        let mut reader = Reader { rest: bytes };
        let envelope = self.read(&mut reader).map_err(|error| match error {
            store::Error::Encoding { reason, .. } => malformed(reason),
            other => malformed(other.to_string()),
        })?;
        if reader.rest.is_empty() { Ok(envelope) } else { Err(malformed("bytes are left over".to_owned())) }
    }

    fn read(&self, reader: &mut Reader<'_>) -> Result<Envelope, store::Error> {
        let version = reader.byte()?;
        if !(1..=VERSION).contains(&version) {
            return Err(unreadable(format!(
                "its version is {version}; this version of Sidestream knows up to {VERSION} (was a newer one rolled back?)"
            )));
        }
        let flags = reader.byte()?;
        let partition = reader.varint()?;
        let Ok(partition) = u32::try_from(partition) else {
            return Err(unreadable(format!("{partition} is no partition")));
        };
        let watermark = EventTime(reader.zigzag()?);
        let progress = Progress { upstream: Partition(partition), watermark, idle: flags & IDLE != 0 };
        let content = match (flags & KIND, flags & !(KIND | IDLE)) {
            (RECORD, 0) => {
                let time = EventTime(reader.zigzag()?);
                Content::Record { row: self.row(reader)?, time }
            }
            (TOMBSTONE, 0) => {
                let time = EventTime(reader.zigzag()?);
                Content::Tombstone { row: self.row(reader)?, time }
            }
            (CHANGE, rows) if rows & !(OLD | NEW) == 0 => {
                let time = EventTime(reader.zigzag()?);
                let has_old_time = rows & OLD != 0 && version > 1;
                let old_time = if has_old_time { EventTime(reader.zigzag()?) } else { time };
                let old = if rows & OLD != 0 { Some(self.row(reader)?) } else { None };
                let new = if rows & NEW != 0 { Some(self.row(reader)?) } else { None };
                Content::Change { old, new, old_time, time }
            }
            (RETIMED, 0) => {
                let time = EventTime(reader.zigzag()?);
                let old_time = EventTime(reader.zigzag()?);
                Content::Retimed { row: self.row(reader)?, old_time, time }
            }
            (WATERMARK, 0) => Content::Watermark,
            _ => return Err(unreadable(format!("its kind {flags:#04x} is unknown"))),
        };
        Ok(Envelope { progress, content })
    }

    fn row(&self, reader: &mut Reader<'_>) -> Result<Row, store::Error> {
        let mut row = Row::with_capacity(self.codec.schema().len());
        self.codec.decode_next(reader, &mut row)?;
        Ok(row)
    }
}

/// Appends an envelope that holds nothing but the progress. It needs no columns.
pub fn encode_watermark(progress: Progress, into: &mut Vec<u8>) {
    push_head(WATERMARK, progress, into);
}

fn push_head(kind_and_rows: u8, progress: Progress, into: &mut Vec<u8>) {
    let idle = if progress.idle { IDLE } else { 0 };
    into.extend_from_slice(&[VERSION, kind_and_rows | idle]);
    push_varint(u64::from(progress.upstream.0), into);
    push_zigzag(progress.watermark.0, into);
}

#[cold]
fn unreadable(reason: String) -> store::Error {
    store::Error::Encoding { what: "internal record", reason }
}

#[cold]
fn malformed(reason: String) -> DecodeError {
    DecodeError::Malformed { format: "internal record", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::arbitrary::{any_schema, any_type, row_of};
    use crate::schema::{Column, Type};

    fn schema(columns: &[(&str, Type)]) -> Schema {
        Schema::new(columns.iter().map(|(name, ty)| Column::new(name, ty.clone(), true)))
    }

    fn progress(watermark: i64, idle: bool) -> Progress {
        Progress { upstream: Partition(300), watermark: EventTime(watermark), idle }
    }

    #[test]
    fn the_bytes_on_the_wire_do_not_change() {
        let format = InternalFormat::new(schema(&[("a", Type::Int)]));
        // Format 1, the hash of `a INT` as a header, no NULLs, 7.
        let row = [1, 208, 223, 135, 214, 17, 0, 14];
        let mut record = Vec::new();
        format.encode_record(progress(-1, false), &[Value::Int(7)], EventTime(2), &mut record).unwrap();
        assert_eq!(record, [&[2, 0x01, 172, 2, 1, 4][..], &row].concat());

        let mut change = Vec::new();
        let seven = [Value::Int(7)];
        format
            .encode_change(progress(0, false), Some((&seven, EventTime(1))), Some(&seven), EventTime(2), &mut change)
            .unwrap();
        assert_eq!(change, [&[2, 0x32, 172, 2, 0, 4, 2][..], &row, &row].concat());

        let mut retimed = Vec::new();
        format.encode_retimed(progress(0, false), &seven, EventTime(1), EventTime(2), &mut retimed).unwrap();
        assert_eq!(retimed, [&[2, 0x05, 172, 2, 0, 4, 2][..], &row].concat());

        let mut watermark = Vec::new();
        encode_watermark(progress(1, true), &mut watermark);
        assert_eq!(watermark, [2, 0x83, 172, 2, 2]);
    }

    #[test]
    fn all_kinds_read_back() {
        let format = InternalFormat::new(schema(&[("a", Type::Int), ("b", Type::String)]));
        let (one, two) = ([Value::Int(1), Value::Null], [Value::Null, Value::string("two")]);
        for progress in [progress(i64::MIN, true), progress(5, false), progress(i64::MAX, false)] {
            let mut bytes = Vec::new();
            format.encode_record(progress, &one, EventTime(-3), &mut bytes).unwrap();
            let content = Content::Record { row: one.to_vec(), time: EventTime(-3) };
            assert_eq!(format.decode(&bytes), Ok(Envelope { progress, content }));

            for (old, new) in
                [(None, Some(&two[..])), (Some(&one[..]), None), (Some(&one[..]), Some(&two[..])), (None, None)]
            {
                bytes.clear();
                let timed = old.map(|old| (old, EventTime(8)));
                format.encode_change(progress, timed, new, EventTime(9), &mut bytes).unwrap();
                let (old, new) = (old.map(<[_]>::to_vec), new.map(<[_]>::to_vec));
                let old_time = EventTime(if old.is_some() { 8 } else { 9 });
                let content = Content::Change { old, new, old_time, time: EventTime(9) };
                assert_eq!(format.decode(&bytes), Ok(Envelope { progress, content }));
            }

            bytes.clear();
            format.encode_retimed(progress, &two, EventTime(8), EventTime(9), &mut bytes).unwrap();
            let content = Content::Retimed { row: two.to_vec(), old_time: EventTime(8), time: EventTime(9) };
            assert_eq!(format.decode(&bytes), Ok(Envelope { progress, content }));

            bytes.clear();
            encode_watermark(progress, &mut bytes);
            assert_eq!(format.decode(&bytes), Ok(Envelope { progress, content: Content::Watermark }));
        }
    }

    #[test]
    fn what_another_version_wrote_is_refused_clearly() {
        let format = InternalFormat::new(schema(&[("a", Type::Int)]));
        let refused = |bytes: &[u8]| format.decode(bytes).unwrap_err().to_string();
        assert_eq!(
            refused(&[3, 1, 0, 0]),
            "not valid internal record: its version is 3; this version of Sidestream knows up to 2 (was a newer one rolled back?)"
        );
        assert_eq!(refused(&[2, 0x06, 0, 0]), "not valid internal record: its kind 0x06 is unknown");
        assert_eq!(refused(&[2, 0x11, 0, 0]), "not valid internal record: its kind 0x11 is unknown");
        assert_eq!(refused(&[2, 0x43, 0, 0]), "not valid internal record: its kind 0x43 is unknown");
        assert_eq!(refused(&[2, 0x03, 0, 0, 0]), "not valid internal record: bytes are left over");
        assert_eq!(refused(&[]), "not valid internal record: it ends too early");
    }

    #[test]
    fn records_in_flight_survive_changed_columns() {
        let (old, new) = (schema(&[("a", Type::Int)]), schema(&[("b", Type::Int), ("a", Type::Bigint)]));
        let mut bytes = Vec::new();
        let sent = InternalFormat::new(old.clone());
        sent.encode_record(progress(0, false), &[Value::Int(7)], EventTime(2), &mut bytes).unwrap();

        let error = InternalFormat::new(new.clone()).decode(&bytes).unwrap_err().to_string();
        assert!(error.contains("is unknown"), "{error}");
        let format = InternalFormat::with_earlier(new.clone(), [old.clone(), old, new]).unwrap();
        let row = vec![Value::Null, Value::Bigint(7)];
        assert_eq!(format.decode(&bytes).unwrap().content, Content::Record { row, time: EventTime(2) });
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            (schema, old, new) in any_schema(any_type(2)).prop_flat_map(|schema| {
                (Just(schema.clone()), row_of(&schema), row_of(&schema))
            }),
            bytes: Vec<u8>, at: prop::sample::Index, with: u8,
        ) {
            let format = InternalFormat::new(schema);
            let _ = format.decode(&[&[VERSION], bytes.as_slice()].concat());
            let mut bytes = Vec::new();
            format.encode_change(progress(7, false), Some((&old, EventTime(0))), Some(&new), EventTime(1), &mut bytes).unwrap();
            prop_assert!(format.decode(&bytes).is_ok());
            let at = at.index(bytes.len());
            prop_assert!(format.decode(&bytes[..at]).is_err());
            bytes[at] = with;
            let _ = format.decode(&bytes);
        }
    }
}
