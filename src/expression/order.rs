//! The order of values: what `=`, `<`, `MIN`, `IN` and the multisets of `MIN` and `MAX` go by.
//!
//! PostgreSQL's order: NaN equals itself and is above every number, text goes by bytes, intervals count 30 days to the
//! month and 24 hours to the day. Nested NULLs equal one another and come last.

use std::cmp::Ordering;

use crate::value::{Decimal, Interval, Value};

/// Of two values of one type, or of two numbers.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Boolean(a), Value::Boolean(b)) => a.cmp(b),
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Bigint(a), Value::Bigint(b)) => a.cmp(b),
        (Value::Double(a), Value::Double(b)) => compare_doubles(*a, *b),
        (Value::Decimal(a), Value::Decimal(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Interval(a), Value::Interval(b)) => compare_intervals(*a, *b),
        (Value::Array(a), Value::Array(b)) | (Value::Struct(a), Value::Struct(b)) => compare_lists(a, b),
        (Value::Map(a), Value::Map(b)) => {
            let entries = a.iter().zip(b.iter());
            entries
                .map(|((a_key, a), (b_key, b))| a_key.cmp(b_key).then_with(|| compare(a, b)))
                .find(|order| order.is_ne())
                .unwrap_or_else(|| a.len().cmp(&b.len()))
        }
        (Value::Json(a), Value::Json(b)) => {
            if a == b {
                Ordering::Equal
            } else {
                // JSON has equality only; any fixed order serves a multiset.
                a.to_string().cmp(&b.to_string()).then(Ordering::Less)
            }
        }
        (a, b) => match (number(a), number(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (None, None) if as_f64(a).is_some() && as_f64(b).is_some() => mixed(a, b),
            (Some(_), None) | (None, Some(_)) if as_f64(a).is_some() && as_f64(b).is_some() => mixed(a, b),
            _ => rank(a).cmp(&rank(b)),
        },
    }
}

fn mixed(a: &Value, b: &Value) -> Ordering {
    compare_doubles(as_f64(a).unwrap_or(f64::NAN), as_f64(b).unwrap_or(f64::NAN))
}

#[inline]
pub fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// An interval's length by PostgreSQL's convention, in microseconds.
pub fn interval_length(interval: Interval) -> i128 {
    const DAY: i128 = 86_400_000_000;
    (i128::from(interval.months) * 30 + i128::from(interval.days)) * DAY + i128::from(interval.micros)
}

pub fn compare_intervals(a: Interval, b: Interval) -> Ordering {
    interval_length(a).cmp(&interval_length(b))
}

fn compare_lists(a: &[Value], b: &[Value]) -> Ordering {
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| compare(a, b)).find(|order| order.is_ne()).unwrap_or_else(|| a.len().cmp(&b.len()))
}

/// An exact number as a decimal.
fn number(value: &Value) -> Option<Decimal> {
    match value {
        Value::Int(number) => Some(Decimal::from(i64::from(*number))),
        Value::Bigint(number) => Some(Decimal::from(*number)),
        Value::Decimal(number) => Some(*number),
        _ => None,
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        value => number(value).map(Decimal::to_f64),
    }
}

/// Only a caller's mistake compares values of different types; the order is then by type.
fn rank(value: &Value) -> u8 {
    match value {
        Value::Boolean(_) => 0,
        Value::Int(_) | Value::Bigint(_) | Value::Double(_) | Value::Decimal(_) => 1,
        Value::String(_) => 2,
        Value::Bytes(_) => 3,
        Value::Date(_) => 4,
        Value::Timestamp(_) => 5,
        Value::Interval(_) => 6,
        Value::Array(_) => 7,
        Value::Map(_) => 8,
        Value::Struct(_) => 9,
        Value::Json(_) => 10,
        Value::Null => 11,
    }
}
