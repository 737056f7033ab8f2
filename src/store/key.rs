//! Keys as bytes whose order is the order of their columns (memcomparable), so that a store can be scanned by prefix.
//!
//! The encoding of one key is the concatenation of its columns, each a tag and, unless NULL, its value:
//!
//! | | bytes |
//! |---|---|
//! | tag | `01` a value follows, `02` NULL: NULLs sort last, as in SQL. `00` ends an array |
//! | BOOLEAN | `00`, `01` |
//! | INT, DATE | 4 bytes big-endian, sign bit flipped |
//! | BIGINT, TIMESTAMP | 8 bytes, the same |
//! | DOUBLE | 8 bytes of IEEE's total order; -0.0 as 0.0, one NaN, above all numbers |
//! | DECIMAL(p,s) | the unscaled number at scale s, 8 bytes where p <= 18, else 16, as BIGINT |
//! | STRING, BYTES | the bytes, `00` as `00 ff`, then `00 01` |
//! | INTERVAL | months, days (0 to 29), microseconds (below a day) of its length, as INT, INT, BIGINT |
//! | STRUCT | its fields, each with a tag |
//! | ARRAY | its elements, each with a tag, then `00` |
//!
//! Around a key: a windowed key is the window's start (8 bytes, milliseconds, as BIGINT) and then the key; an entry of a
//! list is the key, its event time (as BIGINT) and a tie (8 bytes big-endian).
//!
//! Invariants
//! - Values that SQL calls equal have equal bytes, and bytes compare as values do (strings by their UTF-8 bytes).
//! - An encoded key is no proper prefix of another of the same schema: columns cannot be mistaken for each other.
//! - The bytes do not depend on whether a column may be NULL, nor on names.
//! - These bytes are on disk and in changelogs. They never change for a type; there is no version byte, since a second
//!   encoding in one store would break its order.

use std::sync::Arc;

use compact_str::CompactString;

use super::Error;
use crate::ids::EventTime;
use crate::row::Row;
use crate::schema::{Schema, Type};
use crate::value::{Decimal, Interval, Value};

const END: u8 = 0x00;
const PRESENT: u8 = 0x01;
const NULL: u8 = 0x02;

const ESCAPE: u8 = 0x00;
const ESCAPED_ZERO: u8 = 0xff;
const TERMINATOR: u8 = 0x01;

const SIGN_64: u64 = 1 << 63;
const MICROS_PER_DAY: i64 = 86_400_000_000;
/// The largest precision whose numbers all fit 64 bits.
const SHORT_DECIMAL_PRECISION: u8 = 18;

/// Whether values of the type have an order that keys can follow.
pub fn is_key_type(ty: &Type) -> bool {
    match ty {
        Type::Boolean
        | Type::Int
        | Type::Bigint
        | Type::Double
        | Type::Decimal { .. }
        | Type::String
        | Type::Bytes
        | Type::Date
        | Type::Timestamp
        | Type::Interval => true,
        Type::Array(element) => is_key_type(element),
        Type::Struct(fields) => fields.iter().all(|field| is_key_type(&field.ty)),
        Type::Null | Type::Map(_) | Type::Json => false,
    }
}

// ---- whole keys ------------------------------------------------------------------------------------------------------

/// Appends the key whose values, in the schema's order, are `key`.
pub fn encode_key(key: &[Value], schema: &Schema, into: &mut Vec<u8>) -> Result<(), Error> {
    let columns = schema.columns();
    if key.len() != columns.len() {
        return Err(not_encodable(format!("it has {} values for {} columns", key.len(), columns.len())));
    }
    for (value, column) in key.iter().zip(columns) {
        encode_value(value, &column.ty, into)?;
    }
    Ok(())
}

/// Appends the key that stands in these slots of a row; `schema` is the row's.
pub fn encode_key_slots(row: &[Value], slots: &[usize], schema: &Schema, into: &mut Vec<u8>) -> Result<(), Error> {
    for &slot in slots {
        match (row.get(slot), schema.columns().get(slot)) {
            (Some(value), Some(column)) => encode_value(value, &column.ty, into)?,
            _ => return Err(not_encodable(format!("the row has no slot {slot}"))),
        }
    }
    Ok(())
}

/// Appends one column of a key. An INT or BIGINT may stand for a wider number.
pub fn encode_value(value: &Value, ty: &Type, into: &mut Vec<u8>) -> Result<(), Error> {
    if value.is_null() {
        into.push(NULL);
        return Ok(());
    }
    into.push(PRESENT);
    match (ty, value) {
        (Type::Boolean, Value::Boolean(value)) => into.push(u8::from(*value)),
        (Type::Int, Value::Int(value)) | (Type::Date, Value::Date(value)) => push_i32(*value, into),
        (Type::Bigint, Value::Bigint(value)) | (Type::Timestamp, Value::Timestamp(value)) => push_i64(*value, into),
        (Type::Bigint, Value::Int(value)) => push_i64(i64::from(*value), into),
        (Type::Double, Value::Double(value)) => push_double(*value, into),
        (Type::Double, Value::Int(value)) => push_double(f64::from(*value), into),
        (Type::Double, Value::Bigint(value)) => push_double(*value as f64, into),
        (Type::Decimal { precision, scale }, Value::Decimal(value)) => {
            push_decimal(*value, *precision, *scale, into)?;
        }
        (Type::Decimal { precision, scale }, Value::Int(value)) => {
            push_decimal(Decimal::new(i128::from(*value), 0), *precision, *scale, into)?;
        }
        (Type::Decimal { precision, scale }, Value::Bigint(value)) => {
            push_decimal(Decimal::new(i128::from(*value), 0), *precision, *scale, into)?;
        }
        (Type::String, Value::String(value)) => push_bytes(value.as_bytes(), into),
        (Type::Bytes, Value::Bytes(value)) => push_bytes(value, into),
        (Type::Interval, Value::Interval(value)) => push_interval(*value, into)?,
        (Type::Array(element), Value::Array(values)) => {
            for value in values.iter() {
                encode_value(value, element, into)?;
            }
            into.push(END);
        }
        (Type::Struct(fields), Value::Struct(values)) if fields.len() == values.len() => {
            for (value, field) in values.iter().zip(fields.iter()) {
                encode_value(value, &field.ty, into)?;
            }
        }
        _ => return Err(not_encodable(format!("a value is no {ty}"))),
    }
    Ok(())
}

/// Appends the values of a key to a row.
pub fn decode_key(bytes: &[u8], schema: &Schema, into: &mut Row) -> Result<(), Error> {
    let mut reader = Reader { rest: bytes };
    for column in schema.columns() {
        into.push(reader.value(&column.ty)?);
    }
    if reader.rest.is_empty() { Ok(()) } else { Err(corrupt("bytes are left over")) }
}

// ---- around keys -----------------------------------------------------------------------------------------------------

/// Appends a window's start, milliseconds: what stands before the key in a window store.
pub fn push_window_start(start: EventTime, into: &mut Vec<u8>) {
    push_i64(start.0, into);
}

/// The window's start and the encoded key of a windowed key.
pub fn split_windowed_key(bytes: &[u8]) -> Result<(EventTime, &[u8]), Error> {
    let Some((start, key)) = bytes.split_first_chunk::<8>() else { return Err(corrupt("it has no window start")) };
    Ok((EventTime(read_i64(*start)), key))
}

/// Appends what tells the entries of one key's list apart and orders them: event time, then a tie.
pub fn push_list_position(time: EventTime, tie: u64, into: &mut Vec<u8>) {
    push_i64(time.0, into);
    into.extend_from_slice(&tie.to_be_bytes());
}

/// The encoded key, event time and tie of a list's entry.
pub fn split_list_key(bytes: &[u8]) -> Result<(&[u8], EventTime, u64), Error> {
    let entry = bytes.split_last_chunk::<8>().and_then(|(rest, tie)| {
        let (key, time) = rest.split_last_chunk::<8>()?;
        Some((key, EventTime(read_i64(*time)), u64::from_be_bytes(*tie)))
    });
    entry.ok_or_else(|| corrupt("it has no event time and tie"))
}

/// Appends the beginning that all keys share whose next column is a STRING that starts with `text`.
pub fn push_text_prefix(text: &str, into: &mut Vec<u8>) {
    into.push(PRESENT);
    push_escaped(text.as_bytes(), into);
}

/// The end of a prefix: makes `prefix` the smallest bytes above all that start with it. False where there is none, which
/// means to the end of the store.
pub fn advance_to_prefix_end(prefix: &mut Vec<u8>) -> bool {
    while let Some(last) = prefix.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return true;
        }
        prefix.pop();
    }
    false
}

/// The smallest bytes above all that start with `prefix`; `None` where there are none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    advance_to_prefix_end(&mut end).then_some(end)
}

// ---- values ----------------------------------------------------------------------------------------------------------

fn push_i32(value: i32, into: &mut Vec<u8>) {
    into.extend_from_slice(&(value.cast_unsigned() ^ (1 << 31)).to_be_bytes());
}

fn push_i64(value: i64, into: &mut Vec<u8>) {
    into.extend_from_slice(&(value.cast_unsigned() ^ SIGN_64).to_be_bytes());
}

fn read_i64(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ SIGN_64).cast_signed()
}

/// IEEE 754's totalOrder: a negative number's bits are all flipped, of others only the sign.
fn push_double(value: f64, into: &mut Vec<u8>) {
    let bits = if value.is_nan() {
        f64::NAN.to_bits() & !SIGN_64
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    let ordered = if bits & SIGN_64 == 0 { bits | SIGN_64 } else { !bits };
    into.extend_from_slice(&ordered.to_be_bytes());
}

fn push_decimal(value: Decimal, precision: u8, scale: u8, into: &mut Vec<u8>) -> Result<(), Error> {
    let unscaled = at_scale(value, scale);
    let overflow = || not_encodable(format!("a value does not fit DECIMAL({precision},{scale})"));
    let unscaled = unscaled.ok_or_else(overflow)?;
    if precision <= SHORT_DECIMAL_PRECISION {
        push_i64(i64::try_from(unscaled).map_err(|_| overflow())?, into);
    } else {
        into.extend_from_slice(&(unscaled.cast_unsigned() ^ (1 << 127)).to_be_bytes());
    }
    Ok(())
}

fn at_scale(value: Decimal, scale: u8) -> Option<i128> {
    if value.scale == scale {
        return Some(value.unscaled);
    }
    let factor = 10_i128.checked_pow(u32::from(value.scale.abs_diff(scale)))?;
    if value.scale < scale {
        return value.unscaled.checked_mul(factor);
    }
    (value.unscaled % factor == 0).then(|| value.unscaled / factor)
}

fn push_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    push_escaped(bytes, into);
    into.extend_from_slice(&[ESCAPE, TERMINATOR]);
}

fn push_escaped(bytes: &[u8], into: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = rest.iter().position(|&byte| byte == ESCAPE) {
        let (before, after) = rest.split_at(zero + 1);
        into.extend_from_slice(before);
        into.push(ESCAPED_ZERO);
        rest = after;
    }
    into.extend_from_slice(rest);
}

/// PostgreSQL compares intervals by length, a month being 30 days and a day 24 hours.
fn push_interval(value: Interval, into: &mut Vec<u8>) -> Result<(), Error> {
    let days = i64::from(value.days) + value.micros.div_euclid(MICROS_PER_DAY);
    let months = i64::from(value.months) + days.div_euclid(30);
    let Ok(months) = i32::try_from(months) else {
        return Err(not_encodable("an interval is too long".to_owned()));
    };
    push_i32(months, into);
    push_i32(i32::try_from(days.rem_euclid(30)).unwrap_or(0), into);
    push_i64(value.micros.rem_euclid(MICROS_PER_DAY), into);
    Ok(())
}

/// The interval of that length whose parts have one sign.
fn interval(months: i32, days: i32, micros: i64) -> Interval {
    if months >= 0 || (days == 0 && micros == 0) {
        return Interval { months, days, micros };
    }
    // Borrows a month, and from it a day, where they are there to borrow.
    let (months, days) = (months + 1, days - 30);
    if days < 0 && micros > 0 {
        Interval { months, days: days + 1, micros: micros - MICROS_PER_DAY }
    } else {
        Interval { months, days, micros }
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else { return Err(corrupt("it ends too early")) };
        self.rest = rest;
        Ok(*taken)
    }

    fn value(&mut self, ty: &Type) -> Result<Value, Error> {
        let [tag] = self.take()?;
        match tag {
            PRESENT => self.present(ty),
            NULL => Ok(Value::Null),
            _ => Err(corrupt("a column has an unknown tag")),
        }
    }

    fn present(&mut self, ty: &Type) -> Result<Value, Error> {
        Ok(match ty {
            Type::Boolean => match self.take()? {
                [0] => Value::Boolean(false),
                [1] => Value::Boolean(true),
                _ => return Err(corrupt("a boolean is neither true nor false")),
            },
            Type::Int => Value::Int(self.i32()?),
            Type::Date => Value::Date(self.i32()?),
            Type::Bigint => Value::Bigint(read_i64(self.take()?)),
            Type::Timestamp => Value::Timestamp(read_i64(self.take()?)),
            Type::Double => {
                let ordered = u64::from_be_bytes(self.take()?);
                let bits = if ordered & SIGN_64 == 0 { !ordered } else { ordered & !SIGN_64 };
                Value::Double(f64::from_bits(bits))
            }
            Type::Decimal { precision, scale } => {
                let unscaled = if *precision <= SHORT_DECIMAL_PRECISION {
                    i128::from(read_i64(self.take()?))
                } else {
                    (u128::from_be_bytes(self.take()?) ^ (1 << 127)).cast_signed()
                };
                Value::Decimal(Decimal::new(unscaled, *scale))
            }
            Type::String => {
                let mut buffer = Vec::new();
                let bytes = self.bytes(&mut buffer)?;
                Value::String(CompactString::from_utf8(bytes).map_err(|_| corrupt("a string is not UTF-8"))?)
            }
            Type::Bytes => {
                let mut buffer = Vec::new();
                Value::bytes(self.bytes(&mut buffer)?)
            }
            Type::Interval => {
                let (months, days, micros) = (self.i32()?, self.i32()?, read_i64(self.take()?));
                if !(0..30).contains(&days) || !(0..MICROS_PER_DAY).contains(&micros) {
                    return Err(corrupt("an interval's parts are out of range"));
                }
                Value::Interval(interval(months, days, micros))
            }
            Type::Array(element) => {
                let mut values = Vec::new();
                loop {
                    match self.take()? {
                        [END] => break,
                        [PRESENT] => values.push(self.present(element)?),
                        [NULL] => values.push(Value::Null),
                        _ => return Err(corrupt("an element has an unknown tag")),
                    }
                }
                Value::Array(Arc::from(values))
            }
            Type::Struct(fields) => {
                let values: Result<Vec<_>, _> = fields.iter().map(|field| self.value(&field.ty)).collect();
                Value::Struct(Arc::from(values?))
            }
            Type::Null | Type::Map(_) | Type::Json => return Err(corrupt("its type is none of a key")),
        })
    }

    fn i32(&mut self) -> Result<i32, Error> {
        Ok((u32::from_be_bytes(self.take()?) ^ (1 << 31)).cast_signed())
    }

    /// The bytes up to the terminator; `buffer` is used only where some were escaped.
    fn bytes<'b>(&mut self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], Error>
    where
        'a: 'b,
    {
        loop {
            let Some(zero) = self.rest.iter().position(|&byte| byte == ESCAPE) else {
                return Err(corrupt("a string has no end"));
            };
            let (before, after) = self.rest.split_at(zero);
            match after.get(1) {
                Some(&TERMINATOR) => {
                    self.rest = after.get(2..).unwrap_or_default();
                    if buffer.is_empty() {
                        return Ok(before);
                    }
                    buffer.extend_from_slice(before);
                    return Ok(buffer);
                }
                Some(&ESCAPED_ZERO) => {
                    buffer.extend_from_slice(before);
                    buffer.push(0);
                    self.rest = after.get(2..).unwrap_or_default();
                }
                _ => return Err(corrupt("a string has an unknown escape")),
            }
        }
    }
}

#[cold]
fn corrupt(reason: &str) -> Error {
    Error::Encoding { what: "key", reason: reason.to_owned() }
}

#[cold]
fn not_encodable(reason: String) -> Error {
    Error::Encoding { what: "key", reason }
}

#[cfg(test)]
mod tests;
