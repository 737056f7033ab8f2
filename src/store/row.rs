//! Stored rows as bytes, and how rows that were written with an earlier layout are read.
//!
//! ```text
//! row     := format (01) | header | [event time] | values
//! header  := varint: the layout's version * 2, plus 1 where an event time follows
//! time    := zigzag varint, milliseconds
//! values  := one bit per column, lowest first, set where it is NULL | the other columns' values
//! BOOLEAN 00/01   INT, BIGINT, DATE zigzag varint   TIMESTAMP 8 bytes, little-endian   DOUBLE 8 bytes, little-endian
//! DECIMAL scale, zigzag varint   STRING, BYTES varint length, bytes   INTERVAL three zigzag varints   JSON as BYTES
//! ARRAY varint count, values as above   MAP varint count, the keys as STRING, values as above   STRUCT values as above
//! ```
//!
//! What it is not: it does not know where the list of layouts is kept; its owner keeps a store's layouts for as long as
//! rows of them may exist.
//!
//! Invariants
//! - These bytes are on disk and in changelogs. A version of a layout is never used for another; a format byte neither.
//! - Whatever the bytes, decoding gives a row of the current layout or an error; memory is bounded by the bytes' length.
//! - Columns are known by name. A changed layout is accepted only where no stored value changes its meaning.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;

use super::Error;
use crate::ids::EventTime;
use crate::row::Row;
use crate::schema::{Column, Schema, Type};
use crate::value::{Decimal, Interval, Value};

const FORMAT: u8 = 1;

/// Reads and writes the rows of one store.
#[derive(Clone, Debug)]
pub struct RowCodec {
    version: u32,
    schema: Schema,
    /// What a column gets that the row's layout did not have.
    defaults: Row,
    /// Other layouts that rows may have.
    earlier: Vec<Layout>,
}

#[derive(Clone, Debug)]
struct Layout {
    version: u32,
    columns: Vec<StoredColumn>,
    /// Slots of the current layout that this one lacks.
    added: Vec<usize>,
}

#[derive(Clone, Debug)]
struct StoredColumn {
    ty: Type,
    /// The slot of the current layout, and how to get there; `None` where the column was dropped.
    target: Option<(usize, Widening)>,
}

/// How a stored value becomes one of the current type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Widening {
    None,
    IntToBigint,
    IntToDouble,
    BigintToDouble,
    BigintToDecimal,
    DecimalToScale(u8),
}

/// Stored rows that the current layout would misread.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("column `{column}` is stored as {stored} and cannot be read as {wanted}")]
    Incompatible { column: String, stored: Type, wanted: Type },
    #[error("layout {version} of the store is there twice")]
    Duplicate { version: u32 },
    #[error("{given} default values for {columns} columns")]
    Defaults { given: usize, columns: usize },
}

impl RowCodec {
    /// `layouts` are all that the store has had. Where the current one is among them it has that version (the highest, if
    /// several), else the next free one: see [`Self::version`]. Columns that a row lacks become NULL; see
    /// [`Self::with_defaults`].
    pub fn new(layouts: Vec<(u32, Schema)>, current: Schema) -> Result<Self, LayoutError> {
        let same =
            layouts.iter().filter(|(_, schema)| same_columns(schema, &current)).map(|(version, _)| *version).max();
        let next = layouts.iter().map(|(version, _)| version.saturating_add(1)).max().unwrap_or(1);
        Self::with_version(layouts, same.unwrap_or(next), current)
    }

    /// As [`Self::new`], with the version said. `layouts` may hold it, with the same columns.
    pub fn with_version(layouts: Vec<(u32, Schema)>, version: u32, current: Schema) -> Result<Self, LayoutError> {
        let mut earlier: Vec<Layout> = Vec::new();
        for (stored_version, schema) in layouts {
            let is_current = stored_version == version && same_columns(&schema, &current);
            if is_current {
                continue;
            }
            if stored_version == version || earlier.iter().any(|layout| layout.version == stored_version) {
                return Err(LayoutError::Duplicate { version: stored_version });
            }
            earlier.push(Layout::new(stored_version, &schema, &current)?);
        }
        Ok(Self { earlier, ..Self::only(version, current) })
    }

    /// Of a store or topic that has had no other layout.
    pub fn only(version: u32, schema: Schema) -> Self {
        let defaults = vec![Value::Null; schema.len()];
        Self { version, schema, defaults, earlier: Vec::new() }
    }

    /// One value per column of the current layout: what rows get that were stored before the column was added.
    pub fn with_defaults(self, defaults: Row) -> Result<Self, LayoutError> {
        if defaults.len() != self.schema.len() {
            return Err(LayoutError::Defaults { given: defaults.len(), columns: self.schema.len() });
        }
        Ok(Self { defaults, ..self })
    }

    /// The version of the current layout, which new rows are written with.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The current layout.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Appends a row of the current layout. An error is a mistake of ours; what was appended by then has no meaning.
    pub fn encode(&self, row: &[Value], time: Option<EventTime>, into: &mut Vec<u8>) -> Result<(), Error> {
        let columns = self.schema.columns();
        if row.len() != columns.len() {
            return Err(encoding(format!("it has {} values for {} columns", row.len(), columns.len())));
        }
        into.push(FORMAT);
        push_varint((u64::from(self.version) << 1) | u64::from(time.is_some()), into);
        if let Some(time) = time {
            push_zigzag(time.0, into);
        }
        push_values(row.iter().zip(columns.iter().map(|column| &column.ty)), into)
    }

    /// The row in the current layout, and the event time if one was stored.
    pub fn decode(&self, bytes: &[u8]) -> Result<(Row, Option<EventTime>), Error> {
        let mut row = Row::with_capacity(self.schema.len());
        let time = self.decode_into(bytes, &mut row)?;
        Ok((row, time))
    }

    /// As [`Self::decode`], into a row whose memory is used again. After an error its content has no meaning.
    pub fn decode_into(&self, bytes: &[u8], row: &mut Row) -> Result<Option<EventTime>, Error> {
        let mut reader = Reader { rest: bytes };
        let time = self.decode_next(&mut reader, row)?;
        if reader.rest.is_empty() { Ok(time) } else { Err(Corrupt("bytes are left over").into()) }
    }

    /// As [`Self::decode_into`], of a row that more bytes follow.
    pub(crate) fn decode_next(&self, reader: &mut Reader<'_>, row: &mut Row) -> Result<Option<EventTime>, Error> {
        let format = reader.byte()?;
        if format != FORMAT {
            return Err(encoding(format!("its format is {format}; this version of Sidestream knows {FORMAT}")));
        }
        let header = reader.varint()?;
        let time = if header & 1 == 1 { Some(EventTime(reader.zigzag()?)) } else { None };
        if header >> 1 == u64::from(self.version) {
            reader.values(self.schema.columns().iter().map(|column| &column.ty), row)?;
        } else {
            let layout = self.earlier.iter().find(|layout| u64::from(layout.version) == header >> 1);
            let Some(layout) = layout else { return Err(encoding(format!("its layout {} is unknown", header >> 1))) };
            layout.decode(reader, &self.defaults, row)?;
        }
        Ok(time)
    }
}

impl Layout {
    fn new(version: u32, stored: &Schema, current: &Schema) -> Result<Self, LayoutError> {
        let mut columns: Vec<StoredColumn> = Vec::with_capacity(stored.len());
        let mut added: Vec<usize> = (0..current.len()).collect();
        for column in stored.columns() {
            // Of columns with one name, the first is the first and the second the second.
            let same_name = |slot: &usize| current.columns()[*slot].name == column.name;
            let target = match added.iter().position(same_name) {
                None => None,
                Some(at) => {
                    let slot = added.remove(at);
                    let wanted = &current.columns()[slot].ty;
                    let widening = widening(&column.ty, wanted).ok_or_else(|| LayoutError::Incompatible {
                        column: column.name.to_string(),
                        stored: column.ty.clone(),
                        wanted: wanted.clone(),
                    })?;
                    Some((slot, widening))
                }
            };
            columns.push(StoredColumn { ty: column.ty.clone(), target });
        }
        Ok(Self { version, columns, added })
    }

    fn decode(&self, reader: &mut Reader<'_>, defaults: &[Value], row: &mut Row) -> Result<(), Error> {
        let mut stored = Vec::with_capacity(self.columns.len());
        reader.values(self.columns.iter().map(|column| &column.ty), &mut stored)?;
        row.clear();
        row.resize(defaults.len(), Value::Null);
        for (value, column) in stored.into_iter().zip(&self.columns) {
            if let Some((slot, widening)) = column.target {
                row[slot] = widening.apply(value)?;
            }
        }
        for &slot in &self.added {
            row[slot] = defaults[slot].clone();
        }
        Ok(())
    }
}

impl Widening {
    fn apply(self, value: Value) -> Result<Value, Error> {
        Ok(match (self, value) {
            (Self::IntToBigint, Value::Int(value)) => Value::Bigint(i64::from(value)),
            (Self::IntToDouble, Value::Int(value)) => Value::Double(f64::from(value)),
            (Self::BigintToDouble, Value::Bigint(value)) => Value::Double(value as f64),
            (Self::BigintToDecimal, Value::Bigint(value)) => Value::Decimal(Decimal::from(value)),
            (Self::DecimalToScale(scale), Value::Decimal(value)) if value.scale < scale => {
                let factor = 10_i128.checked_pow(u32::from(scale - value.scale));
                let unscaled = factor.and_then(|factor| value.unscaled.checked_mul(factor));
                let Some(unscaled) = unscaled else { return Err(encoding("a decimal is too large".to_owned())) };
                Value::Decimal(Decimal::new(unscaled, scale))
            }
            (_, value) => value,
        })
    }
}

fn widening(stored: &Type, wanted: &Type) -> Option<Widening> {
    match (stored, wanted) {
        // A column of type NULL holds nothing but NULLs.
        (Type::Null, _) => Some(Widening::None),
        (Type::Int, Type::Bigint) => Some(Widening::IntToBigint),
        (Type::Int, Type::Double) => Some(Widening::IntToDouble),
        (Type::Bigint, Type::Double) => Some(Widening::BigintToDouble),
        // The sums of tables were kept so.
        (Type::Bigint, Type::Decimal { precision: 19.., scale: 0 }) => Some(Widening::BigintToDecimal),
        (Type::Decimal { precision, scale }, Type::Decimal { precision: wanted_precision, scale: wanted_scale }) => {
            let whole = precision.saturating_sub(*scale);
            let wanted_whole = wanted_precision.saturating_sub(*wanted_scale);
            (scale <= wanted_scale && whole <= wanted_whole).then_some(Widening::DecimalToScale(*wanted_scale))
        }
        _ => (shape(stored) == shape(wanted)).then_some(Widening::None),
    }
}

/// The type without whether fields within may be NULL, which stored bytes do not depend on.
fn shape(ty: &Type) -> Type {
    match ty {
        Type::Array(element) => Type::Array(Arc::new(shape(element))),
        Type::Map(value) => Type::Map(Arc::new(shape(value))),
        Type::Struct(fields) => Type::Struct(shapes(fields)),
        Type::Null
        | Type::Boolean
        | Type::Int
        | Type::Bigint
        | Type::Double
        | Type::Decimal { .. }
        | Type::String
        | Type::Bytes
        | Type::Date
        | Type::Timestamp
        | Type::Interval
        | Type::Json => ty.clone(),
    }
}

fn shapes(columns: &[Column]) -> Arc<[Column]> {
    columns.iter().map(|column| Column { ty: shape(&column.ty), nullable: true, ..column.clone() }).collect()
}

fn same_columns(a: &Schema, b: &Schema) -> bool {
    shapes(a.columns()) == shapes(b.columns())
}

/// A version that needs no list of layouts: equal for equal layouts, different for others but by chance. FNV-1a of the
/// columns' names and types.
pub fn layout_hash(schema: &Schema) -> u32 {
    let text = Type::Struct(shapes(schema.columns())).to_string();
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

// ---- values ----------------------------------------------------------------------------------------------------------

fn push_values<'a>(
    values: impl ExactSizeIterator<Item = (&'a Value, &'a Type)>,
    into: &mut Vec<u8>,
) -> Result<(), Error> {
    let nulls = into.len();
    into.resize(nulls + values.len().div_ceil(8), 0);
    for (index, (value, ty)) in values.enumerate() {
        if value.is_null() {
            into[nulls + index / 8] |= 1 << (index % 8);
        } else {
            push_value(value, ty, into)?;
        }
    }
    Ok(())
}

fn push_value(value: &Value, ty: &Type, into: &mut Vec<u8>) -> Result<(), Error> {
    match (value, ty) {
        (Value::Boolean(value), Type::Boolean) => into.push(u8::from(*value)),
        (Value::Int(value), Type::Int) | (Value::Date(value), Type::Date) => push_zigzag(i64::from(*value), into),
        (Value::Bigint(value), Type::Bigint) => push_zigzag(*value, into),
        (Value::Timestamp(value), Type::Timestamp) => into.extend_from_slice(&value.to_le_bytes()),
        (Value::Double(value), Type::Double) => into.extend_from_slice(&value.to_bits().to_le_bytes()),
        (Value::Decimal(value), Type::Decimal { .. }) => {
            into.push(value.scale);
            let mut rest = ((value.unscaled << 1) ^ (value.unscaled >> 127)).cast_unsigned();
            while rest >= 0x80 {
                into.push(low_bits(rest) | 0x80);
                rest >>= 7;
            }
            into.push(low_bits(rest));
        }
        (Value::String(value), Type::String) => push_bytes(value.as_bytes(), into),
        (Value::Bytes(value), Type::Bytes) => push_bytes(value, into),
        (Value::Interval(value), Type::Interval) => {
            push_zigzag(i64::from(value.months), into);
            push_zigzag(i64::from(value.days), into);
            push_zigzag(value.micros, into);
        }
        (Value::Array(values), Type::Array(element)) => {
            push_varint(values.len() as u64, into);
            push_values(values.iter().map(|value| (value, &**element)), into)?;
        }
        (Value::Map(entries), Type::Map(value_ty)) => {
            push_varint(entries.len() as u64, into);
            for key in entries.keys() {
                push_bytes(key.as_bytes(), into);
            }
            push_values(entries.values().map(|value| (value, &**value_ty)), into)?;
        }
        (Value::Struct(values), Type::Struct(fields)) if values.len() == fields.len() => {
            push_values(values.iter().zip(fields.iter().map(|field| &field.ty)), into)?;
        }
        (Value::Json(tree), Type::Json) => {
            let text = serde_json::to_vec(&**tree).map_err(|error| encoding(error.to_string()))?;
            push_bytes(&text, into);
        }
        _ => return Err(encoding(format!("a value is no {ty}"))),
    }
    Ok(())
}

pub(crate) fn push_varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(low_bits(u128::from(value)) | 0x80);
        value >>= 7;
    }
    into.push(low_bits(u128::from(value)));
}

pub(crate) fn push_zigzag(value: i64, into: &mut Vec<u8>) {
    push_varint(((value << 1) ^ (value >> 63)).cast_unsigned(), into);
}

fn low_bits(value: u128) -> u8 {
    (value & 0x7f) as u8
}

fn push_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    push_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

/// Why bytes are no row. Small, since it is part of every result on the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt(pub &'static str);

const TOO_SHORT: Corrupt = Corrupt("it ends too early");

impl From<Corrupt> for Error {
    #[cold]
    fn from(Corrupt(reason): Corrupt) -> Self {
        encoding(reason.to_owned())
    }
}

/// A cursor over bytes that may be anything. Shared with `format::internal`, whose envelopes hold rows.
pub(crate) struct Reader<'a> {
    pub rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Replaces the slots by values of these types, one each.
    fn values<'t>(&mut self, types: impl ExactSizeIterator<Item = &'t Type>, slots: &mut Row) -> Result<(), Corrupt> {
        let nulls = self.take(types.len().div_ceil(8))?;
        slots.truncate(types.len());
        for (index, ty) in types.enumerate() {
            // One by one, so that an array that claims a million elements gets no memory in advance.
            if index == slots.len() {
                slots.push(Value::Null);
            }
            let slot = &mut slots[index];
            let is_null = nulls.get(index / 8).is_some_and(|bits| bits >> (index % 8) & 1 == 1);
            if is_null {
                *slot = Value::Null;
            } else {
                self.value(ty, slot)?;
            }
        }
        Ok(())
    }

    /// Written in place by each arm: a value that is returned is copied byte by byte around its tag, which costs more than
    /// reading it did.
    fn value(&mut self, ty: &Type, slot: &mut Value) -> Result<(), Corrupt> {
        match ty {
            Type::Null => return Err(Corrupt("a column of type NULL has a value")),
            Type::Boolean => match self.byte()? {
                0 => *slot = Value::Boolean(false),
                1 => *slot = Value::Boolean(true),
                _ => return Err(Corrupt("a boolean is neither true nor false")),
            },
            Type::Int => *slot = Value::Int(self.small()?),
            Type::Date => *slot = Value::Date(self.small()?),
            Type::Bigint => *slot = Value::Bigint(self.zigzag()?),
            Type::Timestamp => *slot = Value::Timestamp(i64::from_le_bytes(self.chunk()?)),
            Type::Double => *slot = Value::Double(f64::from_bits(u64::from_le_bytes(self.chunk()?))),
            Type::Decimal { .. } => {
                let scale = self.byte()?;
                if scale > Decimal::MAX_PRECISION {
                    return Err(Corrupt("a decimal's scale is out of range"));
                }
                let zigzag = self.varint_128()?;
                let unscaled = (zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed();
                *slot = Value::Decimal(Decimal::new(unscaled, scale));
            }
            Type::String => *slot = Value::String(self.string()?),
            Type::Bytes => *slot = Value::bytes(self.bytes()?),
            Type::Interval => {
                *slot =
                    Value::Interval(Interval { months: self.small()?, days: self.small()?, micros: self.zigzag()? });
            }
            Type::Array(element) => {
                let count = self.count()?;
                let mut values = Row::new();
                self.values((0..count).map(|_| &**element), &mut values)?;
                *slot = Value::Array(Arc::from(values));
            }
            Type::Map(value_ty) => {
                let count = self.count()?;
                // Each key takes at least the byte of its length.
                let mut keys = Vec::with_capacity(count.min(self.rest.len()));
                for _ in 0..count {
                    keys.push(self.string()?);
                }
                let mut values = Row::new();
                self.values((0..count).map(|_| &**value_ty), &mut values)?;
                *slot = Value::Map(Arc::new(keys.into_iter().zip(values).collect::<BTreeMap<_, _>>()));
            }
            Type::Struct(fields) => {
                let mut values = Row::with_capacity(fields.len());
                self.values(fields.iter().map(|field| &field.ty), &mut values)?;
                *slot = Value::Struct(Arc::from(values));
            }
            Type::Json => {
                let tree = serde_json::from_slice(self.bytes()?);
                *slot = Value::Json(Arc::new(tree.map_err(|_| Corrupt("a JSON value is malformed"))?));
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Corrupt> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else { return Err(TOO_SHORT) };
        self.rest = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else { return Err(TOO_SHORT) };
        self.rest = rest;
        Ok(*taken)
    }

    pub fn byte(&mut self) -> Result<u8, Corrupt> {
        let Some((byte, rest)) = self.rest.split_first() else { return Err(TOO_SHORT) };
        self.rest = rest;
        Ok(*byte)
    }

    pub fn varint(&mut self) -> Result<u64, Corrupt> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (bits << shift) >> shift != bits {
                return Err(Corrupt("a number is too long"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    fn varint_128(&mut self) -> Result<u128, Corrupt> {
        let (mut value, mut shift) = (0_u128, 0);
        loop {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            if shift > 127 || (bits << shift) >> shift != bits {
                return Err(Corrupt("a number is too long"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    pub fn zigzag(&mut self) -> Result<i64, Corrupt> {
        let zigzag = self.varint()?;
        Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed())
    }

    fn small(&mut self) -> Result<i32, Corrupt> {
        i32::try_from(self.zigzag()?).map_err(|_| Corrupt("a number is too large for its type"))
    }

    /// Of elements; each takes at least a bit.
    fn count(&mut self) -> Result<usize, Corrupt> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count.div_ceil(8) <= self.rest.len() => Ok(count),
            _ => Err(TOO_SHORT),
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Corrupt> {
        let length = usize::try_from(self.varint()?).map_err(|_| TOO_SHORT)?;
        self.take(length)
    }

    fn string(&mut self) -> Result<CompactString, Corrupt> {
        CompactString::from_utf8(self.bytes()?).map_err(|_| Corrupt("a string is not UTF-8"))
    }
}

#[cold]
fn encoding(reason: String) -> Error {
    Error::Encoding { what: "row", reason }
}

#[cfg(test)]
mod tests;
