//! Values as plain text, one value by itself: keys that Kafka's own serializers cannot hold, values of `format: string`,
//! keys in HTTP paths.
//!
//! Invariants
//! - What [`render`] writes, [`parse`] reads as an equal value of the type. NULL has no text; a caller looks first.
//! - STRING is the text itself, without quotes. BYTES are PostgreSQL's `\x` and hexadecimal digits. TIMESTAMP is RFC 3339,
//!   DATE, INTERVAL ISO 8601. ARRAY, MAP, STRUCT and JSON are JSON.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::number::{self, Digits};
use super::{json, time};
use crate::schema::Type;
use crate::value::Value;

/// The text of a value of this type; NULL gives the empty text.
pub fn render(value: &Value, ty: &Type) -> String {
    let mut text = Vec::new();
    write(value, ty, &mut text);
    // What is written is UTF-8: text as it was, else ASCII.
    String::from_utf8(text).unwrap_or_default()
}

/// Appends what [`render`] gives.
pub fn write(value: &Value, ty: &Type, into: &mut Vec<u8>) {
    match value {
        Value::Null => {}
        Value::Boolean(value) => into.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Int(value) => into.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Value::Bigint(value) => into.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        Value::Double(value) => write_double(*value, into),
        Value::Decimal(value) => {
            let scale = if let Type::Decimal { scale, .. } = ty { *scale } else { value.scale };
            number::write_decimal(*value, scale, into);
        }
        Value::String(value) => into.extend_from_slice(value.as_bytes()),
        Value::Bytes(value) => {
            let digit = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            into.extend_from_slice(b"\\x");
            into.extend(value.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        }
        Value::Date(days) => time::write_date(*days, into),
        Value::Timestamp(micros) => time::write_timestamp(*micros, into),
        Value::Interval(interval) => time::write_interval(*interval, into),
        Value::Array(_) | Value::Map(_) | Value::Struct(_) | Value::Json(_) => {
            let start = into.len();
            if !json::write_value(value, ty, into) {
                into.truncate(start);
            }
        }
    }
}

/// The value of this type that the text means; the reason where it means none. BYTES are also read as base64, as JSON
/// shows them, and TIMESTAMP as milliseconds since the epoch.
pub fn parse(text: &str, ty: &Type) -> Result<Value, String> {
    let invalid = || format!("`{text}` is not a {ty}");
    let value = match ty {
        Type::Null => None,
        Type::Boolean => match text {
            "true" => Some(Value::Boolean(true)),
            "false" => Some(Value::Boolean(false)),
            _ => None,
        },
        Type::Int => text.parse().ok().map(Value::Int),
        Type::Bigint => text.parse().ok().map(Value::Bigint),
        Type::Double => parse_double(text).map(Value::Double),
        Type::Decimal { precision, scale } => {
            Digits::parse(text).and_then(|digits| digits.decimal(*precision, *scale)).map(Value::Decimal)
        }
        Type::String => Some(Value::string(text)),
        Type::Bytes => parse_bytes(text).map(Value::bytes),
        Type::Date => time::parse_date(text).map(Value::Date),
        Type::Timestamp => parse_timestamp(text).map(Value::Timestamp),
        Type::Interval => time::parse_interval(text).map(Value::Interval),
        Type::Array(_) | Type::Map(_) | Type::Struct(_) | Type::Json => {
            let tree = serde_json::from_str(text).map_err(|error| format!("{}: {error}", invalid()))?;
            return json::from_json(&tree, ty);
        }
    };
    value.ok_or_else(invalid)
}

/// Microseconds since the epoch, of RFC 3339 text or a number of milliseconds.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(millis) => millis.checked_mul(1000),
        Err(_) => time::parse_timestamp(text),
    }
}

/// PostgreSQL's spelling: whole numbers without a point, `NaN`, `Infinity`, `-Infinity`.
fn write_double(value: f64, into: &mut Vec<u8>) {
    if value.is_nan() {
        into.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        into.extend_from_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    } else {
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(value);
        into.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    }
}

fn parse_double(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    // A number too large for a DOUBLE is not infinity unless it says so.
    let says_so = text.trim_start_matches(['-', '+']).starts_with(['i', 'I']);
    (!value.is_infinite() || says_so).then_some(value)
}

fn parse_bytes(text: &str) -> Option<Vec<u8>> {
    let Some(digits) = text.strip_prefix("\\x") else { return BASE64_STANDARD.decode(text).ok() };
    let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some((digit(*high)? << 4) | digit(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{Decimal, Interval};
    use std::sync::Arc;

    #[test]
    fn values_read_back_from_their_text() {
        for (value, ty, text) in [
            (Value::Boolean(true), Type::Boolean, "true"),
            (Value::Int(-7), Type::Int, "-7"),
            (Value::Bigint(i64::MIN), Type::Bigint, "-9223372036854775808"),
            (Value::Double(1.0), Type::Double, "1"),
            (Value::Double(0.1), Type::Double, "0.1"),
            (Value::Double(f64::NEG_INFINITY), Type::Double, "-Infinity"),
            (Value::Decimal(Decimal::new(-1250, 2)), Type::Decimal { precision: 6, scale: 2 }, "-12.50"),
            (Value::Decimal(Decimal::new(5, 1)), Type::Decimal { precision: 6, scale: 3 }, "0.500"),
            (Value::string("a \"b\""), Type::String, "a \"b\""),
            (Value::bytes([0, 255, 16]), Type::Bytes, "\\x00ff10"),
            (Value::Date(20_454), Type::Date, "2026-01-01"),
            (Value::Timestamp(1_767_225_600_500_000), Type::Timestamp, "2026-01-01T00:00:00.5Z"),
            (Value::Interval(Interval { months: 1, days: 2, micros: 3 }), Type::Interval, "P1M2DT0.000003S"),
            (Value::Array(Arc::from([Value::Int(1), Value::Null])), Type::Array(Arc::new(Type::Int)), "[1,null]"),
        ] {
            assert_eq!(render(&value, &ty), text);
            assert_eq!(parse(text, &ty), Ok(value), "{text}");
        }
    }

    #[test]
    fn text_that_is_no_value_of_the_type_is_refused() {
        for (text, ty) in [
            ("yes", Type::Boolean),
            ("1.0", Type::Int),
            ("99999999999", Type::Int),
            ("", Type::Bigint),
            ("1e999", Type::Double),
            ("1.005", Type::Decimal { precision: 6, scale: 2 }),
            ("\\x0", Type::Bytes),
            ("\\xzz", Type::Bytes),
            ("2026-02-30", Type::Date),
            ("noon", Type::Timestamp),
            ("[1", Type::Array(Arc::new(Type::Int))),
            ("[\"a\"]", Type::Array(Arc::new(Type::Int))),
        ] {
            assert!(parse(text, &ty).is_err(), "{text} as {ty}");
        }
    }

    #[test]
    fn bytes_and_timestamps_are_read_as_json_and_http_show_them() {
        assert_eq!(parse("aGk=", &Type::Bytes), Ok(Value::bytes(b"hi")));
        assert_eq!(parse("1500", &Type::Timestamp), Ok(Value::Timestamp(1_500_000)));
    }
}
