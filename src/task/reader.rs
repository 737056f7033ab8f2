//! From a record's bytes to the rows of one stream or table.
//!
//! Only the columns that the plan uses are decoded, straight into a row that is reused.

use std::ops::Range;

use crate::expression::Env;
use crate::format::Decoder;
use crate::format::internal::{Content, InternalFormat, Progress};
use crate::ids::EventTime;
use crate::log::Record;
use crate::operator::RecordError;
use crate::row::{Origin, Row};
use crate::schema::Schema;
use crate::topology::plan::{Encoding, Reader, ReaderKind};
use crate::value::Value;

/// See the module. Holds the rows of the record that was read last.
#[derive(Debug)]
pub struct RowReader {
    plan: Reader,
    key: Option<Decoder>,
    value: Option<Decoder>,
    /// The slots that a record's key fills; the others are filled by its value.
    key_slots: Range<usize>,
    row: Row,
    outcome: Result<Rows, RecordError>,
    time: EventTime,
    internal: Option<InternalFormat>,
    progress: Option<Progress>,
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// `RowReader::row` holds it.
    One,
    /// Of a stream: the record had no value; what does not come from its key is NULL.
    Tombstone,
    /// Of a table: only the key columns are there.
    Deletion,
    /// Of a table behind a repartition topic.
    Change { old: Option<Row>, new: Option<Row>, old_time: EventTime },
    /// Of such a table: `RowReader::row` holds a row of which only the event time has changed.
    Retimed { old_time: EventTime },
    /// Only time.
    Watermark,
}

impl RowReader {
    /// `earlier`: layouts that records of a repartition topic may still have.
    pub fn new(plan: &Reader, earlier: Vec<Schema>) -> Self {
        let key_first = plan.key.first().copied().unwrap_or(0);
        let key_range = key_first..key_first + plan.key.len();
        let (key, value) = match plan.encoding {
            Encoding::Declared { key, value } => {
                let columns = plan.schema.columns();
                let value_range = if key_first == 0 { key_range.end..columns.len() } else { 0..key_first };
                let decoder = |format, range: std::ops::Range<usize>| {
                    let schema = Schema::new(columns[range.clone()].iter().cloned());
                    let used = &plan.used[range.clone()];
                    used.contains(&true).then(|| Decoder::new(format, &schema, used, range.start))
                };
                (decoder(key, key_range.clone()), decoder(value, value_range))
            }
            Encoding::Internal => (None, None),
        };
        Self {
            plan: plan.clone(),
            key,
            value,
            key_slots: key_range,
            row: Row::new(),
            outcome: Ok(Rows::Watermark),
            time: EventTime::MIN,
            internal: matches!(plan.encoding, Encoding::Internal).then(|| internal_format(plan, earlier)),
            progress: None,
        }
    }

    pub fn plan(&self) -> &Reader {
        &self.plan
    }

    pub fn kind(&self) -> &ReaderKind {
        &self.plan.kind
    }

    pub fn row(&self) -> &[Value] {
        &self.row
    }

    pub fn outcome(&self) -> &Result<Rows, RecordError> {
        &self.outcome
    }

    pub fn time(&self) -> EventTime {
        self.time
    }

    /// What an upstream task said with the record.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// Reads a record; afterwards `outcome`, `row`, `time` and `progress` are its. Returns its event time.
    pub fn read(&mut self, record: &Record, origin: &mut Origin) -> EventTime {
        origin.tombstone = record.value().is_none() && matches!(self.plan.kind, ReaderKind::Stream);
        self.time = record.timestamp;
        self.progress = None;
        self.outcome = match self.plan.encoding {
            Encoding::Declared { .. } => self.read_declared(record, origin),
            Encoding::Internal => self.read_internal(record, origin),
        };
        self.time
    }

    fn read_declared(&mut self, record: &Record, origin: &Origin) -> Result<Rows, RecordError> {
        // Used slots are filled anew by each record, and nobody writes to the others.
        self.row.resize(self.plan.schema.len(), Value::Null);
        match (&mut self.key, record.key()) {
            (Some(decoder), Some(bytes)) => decoder.decode(bytes, &mut self.row)?,
            (Some(_), None) => self.row[self.key_slots.clone()].fill(Value::Null),
            (None, _) => {}
        }
        let Some(bytes) = record.value() else {
            let Range { start, end } = self.key_slots;
            self.row[..start].fill(Value::Null);
            self.row[end..].fill(Value::Null);
            return Ok(match self.plan.kind {
                ReaderKind::Table { .. } => Rows::Deletion,
                ReaderKind::Stream | ReaderKind::TableChanges => Rows::Tombstone,
            });
        };
        if let Some(decoder) = &mut self.value {
            decoder.decode(bytes, &mut self.row)?;
        }
        if let Some(timestamp) = &self.plan.timestamp {
            match timestamp.eval(&Env { row: &self.row, origin })? {
                Value::Timestamp(micros) => self.time = EventTime::from_micros(micros),
                _ => return Err(RecordError::new(RecordError::NULL_TIMESTAMP, "the timestamp is NULL")),
            }
        }
        if let Some(max_ahead) = self.plan.watermark.max_ahead {
            let limit = EventTime::from_micros(origin.fetched_at)
                .saturating_add(i64::try_from(max_ahead.as_millis()).unwrap_or(i64::MAX));
            if self.time > limit {
                let ahead = format!("the event time is more than {} s ahead of the clock", max_ahead.as_secs());
                return Err(RecordError::new(RecordError::TOO_FAR_AHEAD, ahead));
            }
        }
        Ok(Rows::One)
    }

    /// The times of these records are in their values: Kafka's are those of their append.
    fn read_internal(&mut self, record: &Record, origin: &mut Origin) -> Result<Rows, RecordError> {
        let undecodable = |reason: String| RecordError::new(RecordError::UNDECODABLE, reason);
        let bytes = record.value().ok_or_else(|| undecodable("a repartition record has no value".to_owned()))?;
        let format = self.internal.as_ref().ok_or_else(|| undecodable("not a repartition topic".to_owned()))?;
        let envelope = format.decode(bytes)?;
        self.progress = Some(envelope.progress);
        let rows = match envelope.content {
            Content::Record { row, time } => {
                (self.row, self.time) = (row, time);
                Rows::One
            }
            Content::Tombstone { row, time } => {
                (self.row, self.time) = (row, time);
                Rows::Tombstone
            }
            Content::Change { old, new, old_time, time } => {
                self.time = time;
                Rows::Change { old, new, old_time }
            }
            Content::Retimed { row, old_time, time } => {
                (self.row, self.time) = (row, time);
                Rows::Retimed { old_time }
            }
            Content::Watermark => {
                self.time = EventTime(envelope.progress.watermark.0.max(0));
                Rows::Watermark
            }
        };
        origin.time = self.time;
        Ok(rows)
    }
}

/// Reads what was sent under an earlier layout as far as it can be read under the present one.
fn internal_format(plan: &Reader, earlier: Vec<Schema>) -> InternalFormat {
    InternalFormat::with_earlier(plan.schema.clone(), earlier).unwrap_or_else(|error| {
        tracing::warn!(step = %plan.name, %error, "records under way with the earlier columns cannot be read");
        InternalFormat::new(plan.schema.clone())
    })
}
