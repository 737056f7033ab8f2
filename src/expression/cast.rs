//! CAST: which types convert to which, and how.
//!
//! As PostgreSQL, with these differences: BYTES and STRING convert as UTF-8; TIMESTAMP and INTERVAL are written as RFC 3339
//! and ISO 8601; a BIGINT is not a TIMESTAMP (`TO_TIMESTAMP`, `EPOCH_MS` say the unit).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use compact_str::{CompactString, ToCompactString as _};

use super::EvalError;
use super::calendar;
use super::eval::{Eval, as_f64, out_of_range};
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// Whether `CAST(from AS to)` exists. Whether it succeeds depends on the value.
pub fn castable(from: &Type, to: &Type) -> bool {
    use Type::{
        Array, Bigint, Boolean, Bytes, Date, Decimal, Double, Int, Interval, Json, Map, Null, String, Struct, Timestamp,
    };
    if from == to {
        return true;
    }
    match (from, to) {
        (Null, _) | (_, Json) => true,
        (Json, Boolean | Int | Bigint | Double | Decimal { .. } | String | Array(_) | Map(_) | Struct(_)) => true,
        (Int | Bigint | Double | Decimal { .. }, Int | Bigint | Double | Decimal { .. } | String) => true,
        (Boolean, Int | Bigint | String) | (Int | Bigint, Boolean) => true,
        (String, Boolean | Int | Bigint | Double | Decimal { .. } | Bytes | Date | Timestamp | Interval) => true,
        (Bytes | Date | Timestamp | Interval, String) | (Date, Timestamp) | (Timestamp, Date) => true,
        (Array(from), Array(to)) | (Map(from), Map(to)) => castable(from, to),
        (Struct(from), Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to.iter()).all(|(from, to)| castable(&from.ty, &to.ty))
        }
        (Array(_) | Map(_) | Struct(_), String) => true,
        _ => false,
    }
}

/// Converts a value of type `from`.
pub fn cast(value: &Value, from: &Type, to: &Type) -> Eval<Value> {
    if value.is_null() {
        return Ok(Value::Null);
    }
    if from == to {
        return Ok(value.clone());
    }
    match (value, to) {
        (_, Type::Null) => Ok(Value::Null),
        (_, Type::Json) => match (value, from) {
            (Value::String(text), Type::String) => parse_json(text),
            _ => to_json(value, from).map(|json| Value::Json(Arc::new(json))),
        },
        (Value::Json(json), _) => from_json(json, to),
        (_, Type::String) => to_text(value, from).map(Value::String),
        (Value::Boolean(value), Type::Int) => Ok(Value::Int(i32::from(*value))),
        (Value::Boolean(value), Type::Bigint) => Ok(Value::Bigint(i64::from(*value))),
        (Value::Int(_) | Value::Bigint(_) | Value::Double(_) | Value::Decimal(_), _) => number(value, to),
        (Value::String(text), _) => parse(text, to),
        (Value::Date(days), Type::Timestamp) => Ok(Value::Timestamp(calendar::date_to_timestamp(*days))),
        (Value::Timestamp(micros), Type::Date) => calendar::timestamp_to_date(*micros).map(Value::Date),
        (Value::Array(elements), Type::Array(to)) => {
            let Type::Array(from) = from else { return Err(unexpected(to)) };
            let elements: Eval<Arc<[Value]>> = elements.iter().map(|element| cast(element, from, to)).collect();
            elements.map(Value::Array)
        }
        (Value::Map(entries), Type::Map(to)) => {
            let Type::Map(from) = from else { return Err(unexpected(to)) };
            let entries: Eval<BTreeMap<CompactString, Value>> =
                entries.iter().map(|(key, value)| Ok((key.clone(), cast(value, from, to)?))).collect();
            entries.map(|entries| Value::Map(Arc::new(entries)))
        }
        (Value::Struct(fields), Type::Struct(to)) => {
            let Type::Struct(from) = from else { return Err(unexpected(&Type::Struct(Arc::clone(to)))) };
            let types = from.iter().zip(to.iter());
            let fields: Eval<Arc<[Value]>> =
                fields.iter().zip(types).map(|(field, (from, to))| cast(field, &from.ty, &to.ty)).collect();
            fields.map(Value::Struct)
        }
        (_, to) => Err(unexpected(to)),
    }
}

/// Not reached for what [`castable`] allows.
fn unexpected(to: &Type) -> Box<EvalError> {
    Box::new(EvalError::Function { function: "CAST", reason: format!("no conversion to {to}") })
}

fn invalid(to: &Type, text: &str) -> Box<EvalError> {
    const SHOWN: usize = 100;
    let mut shown: String = text.chars().take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Box::new(EvalError::Invalid { ty: to.clone(), text: format!("'{shown}'") })
}

fn number(value: &Value, to: &Type) -> Eval<Value> {
    let whole = || -> Eval<i128> {
        match value {
            Value::Int(number) => Ok(i128::from(*number)),
            Value::Bigint(number) => Ok(i128::from(*number)),
            Value::Decimal(number) => number.rounded().ok_or_else(|| out_of_range(to.clone())),
            // PostgreSQL rounds halves of a double to even.
            Value::Double(number) => double_to_integer(number.round_ties_even(), to),
            _ => Err(unexpected(to)),
        }
    };
    match to {
        Type::Boolean => Ok(Value::Boolean(whole()? != 0)),
        Type::Int => i32::try_from(whole()?).map(Value::Int).map_err(|_| out_of_range(Type::Int)),
        Type::Bigint => i64::try_from(whole()?).map(Value::Bigint).map_err(|_| out_of_range(Type::Bigint)),
        Type::Double => as_f64(value).map(Value::Double).ok_or_else(|| unexpected(to)),
        Type::Decimal { precision, scale } => {
            let number = match value {
                Value::Double(number) => Decimal::from_f64(*number, *scale),
                Value::Decimal(number) => Some(*number),
                _ => Some(Decimal::new(whole()?, 0)),
            };
            let fitted = number.and_then(|number| number.fitted(*precision, *scale));
            fitted.map(Value::Decimal).ok_or_else(|| out_of_range(to.clone()))
        }
        _ => Err(unexpected(to)),
    }
}

/// Of a whole double.
pub fn double_to_integer(number: f64, to: &Type) -> Eval<i128> {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if !(-LIMIT..LIMIT).contains(&number) {
        return Err(out_of_range(to.clone()));
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked against the range above")]
    Ok(number as i128)
}

/// The text form of a type, read.
pub fn parse(text: &str, to: &Type) -> Eval<Value> {
    let trimmed = text.trim();
    let bad = || invalid(to, text);
    match to {
        Type::Boolean => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Ok(Value::Boolean(true)),
            "false" | "f" | "no" | "n" | "off" | "0" => Ok(Value::Boolean(false)),
            _ => Err(bad()),
        },
        Type::Int => match trimmed.parse::<i128>() {
            Ok(number) => i32::try_from(number).map(Value::Int).map_err(|_| out_of_range(Type::Int)),
            Err(_) => Err(bad()),
        },
        Type::Bigint => match trimmed.parse::<i128>() {
            Ok(number) => i64::try_from(number).map(Value::Bigint).map_err(|_| out_of_range(Type::Bigint)),
            Err(_) => Err(bad()),
        },
        Type::Double => {
            let number = parse_double(trimmed).ok_or_else(bad)?;
            // What is written with digits and still infinite is too large.
            let overflow = number.is_infinite() && trimmed.contains(|digit: char| digit.is_ascii_digit());
            if overflow { Err(out_of_range(Type::Double)) } else { Ok(Value::Double(number)) }
        }
        Type::Decimal { precision, scale } => {
            let number: Decimal = trimmed.parse().map_err(|_| bad())?;
            number.fitted(*precision, *scale).map(Value::Decimal).ok_or_else(|| out_of_range(to.clone()))
        }
        Type::String => Ok(Value::string(text)),
        Type::Bytes => Ok(Value::bytes(text)),
        Type::Date => calendar::parse_date(text).map(Value::Date).map_err(|_| bad()),
        Type::Timestamp => calendar::parse_timestamp(text).map(Value::Timestamp),
        Type::Interval => calendar::parse_interval(text).map(Value::Interval),
        Type::Json => parse_json(text),
        Type::Null | Type::Array(_) | Type::Map(_) | Type::Struct(_) => Err(unexpected(to)),
    }
}

/// `None`: no number.
fn parse_double(text: &str) -> Option<f64> {
    match text.to_ascii_lowercase().as_str() {
        "nan" => return Some(f64::NAN),
        "infinity" | "inf" | "+infinity" | "+inf" => return Some(f64::INFINITY),
        "-infinity" | "-inf" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    text.parse().ok()
}

fn parse_json(text: &str) -> Eval<Value> {
    serde_json::from_str(text).map(|json| Value::Json(Arc::new(json))).map_err(|_| invalid(&Type::Json, text))
}

/// A value's text form, as `CAST(x AS STRING)`, `||` and CONCAT show it.
pub fn to_text(value: &Value, ty: &Type) -> Eval<CompactString> {
    Ok(match value {
        Value::Null => CompactString::default(),
        Value::Boolean(value) => CompactString::const_new(if *value { "true" } else { "false" }),
        Value::Int(number) => number.to_compact_string(),
        Value::Bigint(number) => number.to_compact_string(),
        Value::Double(number) => double_text(*number),
        Value::Decimal(number) => number.to_compact_string(),
        Value::String(text) => text.clone(),
        Value::Bytes(bytes) => {
            let Ok(text) = std::str::from_utf8(bytes) else {
                let text = "these bytes are not UTF-8; ENCODE(bytes, 'hex') shows any".to_owned();
                return Err(Box::new(EvalError::Invalid { ty: Type::String, text }));
            };
            CompactString::new(text)
        }
        Value::Date(days) => calendar::date_text(*days)?.into(),
        Value::Timestamp(micros) => calendar::timestamp_text(*micros)?.into(),
        Value::Interval(interval) => calendar::interval_text(*interval).into(),
        Value::Array(_) | Value::Map(_) | Value::Struct(_) => to_json(value, ty)?.to_string().into(),
        Value::Json(json) => json.to_string().into(),
    })
}

/// PostgreSQL's shortest form: an exponent from 1e15 and below 1e-4.
pub fn double_text(number: f64) -> CompactString {
    if number.is_nan() {
        return CompactString::const_new("NaN");
    }
    if number.is_infinite() {
        return CompactString::const_new(if number > 0.0 { "Infinity" } else { "-Infinity" });
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e15).contains(&magnitude) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}").into();
    }
    format!("{number}").into()
}

/// A value as JSON: as the JSON format writes it.
pub fn to_json(value: &Value, ty: &Type) -> Eval<serde_json::Value> {
    use serde_json::Value as Json;
    Ok(match (value, ty) {
        (Value::Null, _) => Json::Null,
        (Value::Boolean(value), _) => Json::Bool(*value),
        (Value::Int(number), _) => Json::from(*number),
        (Value::Bigint(number), _) => Json::from(*number),
        // NaN and the infinities have no JSON form: null.
        (Value::Double(number), _) => Json::from(*number),
        (Value::Bytes(bytes), _) => Json::String(base64::engine::general_purpose::STANDARD.encode(bytes)),
        (Value::Array(elements), Type::Array(element)) => {
            Json::Array(elements.iter().map(|value| to_json(value, element)).collect::<Eval<_>>()?)
        }
        (Value::Map(entries), Type::Map(ty)) => {
            let entries: Eval<_> =
                entries.iter().map(|(key, value)| Ok((key.to_string(), to_json(value, ty)?))).collect();
            Json::Object(entries?)
        }
        (Value::Struct(values), Type::Struct(fields)) => {
            let fields: Eval<_> = fields
                .iter()
                .zip(values.iter())
                .map(|(field, value)| Ok((field.name.to_string(), to_json(value, &field.ty)?)))
                .collect();
            Json::Object(fields?)
        }
        (Value::Json(json), _) => (**json).clone(),
        (value, ty) => Json::String(to_text(value, ty)?.into()),
    })
}

fn from_json(json: &Arc<serde_json::Value>, to: &Type) -> Eval<Value> {
    use serde_json::Value as Json;
    let bad = || invalid(to, &json.to_string());
    match (&**json, to) {
        (_, Type::String) => Ok(Value::String(json.to_string().into())),
        (_, Type::Json) => Ok(Value::Json(Arc::clone(json))),
        (Json::Null, _) => Ok(Value::Null),
        (Json::Bool(value), Type::Boolean) => Ok(Value::Boolean(*value)),
        (Json::Number(number), Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. }) => {
            if let Some(whole) = number.as_i64() {
                return self::number(&Value::Bigint(whole), to);
            }
            self::number(&Value::Double(number.as_f64().ok_or_else(bad)?), to)
        }
        (Json::Array(elements), Type::Array(element)) => {
            let elements: Eval<Arc<[Value]>> = elements.iter().map(|json| nested(json, element)).collect();
            elements.map(Value::Array)
        }
        (Json::Object(entries), Type::Map(value)) => {
            let entries: Eval<BTreeMap<CompactString, Value>> =
                entries.iter().map(|(key, json)| Ok((CompactString::new(key), nested(json, value)?))).collect();
            entries.map(|entries| Value::Map(Arc::new(entries)))
        }
        (Json::Object(entries), Type::Struct(fields)) => {
            let fields: Eval<Arc<[Value]>> = fields
                .iter()
                .map(|field| entries.get(&*field.name).map_or(Ok(Value::Null), |json| nested(json, &field.ty)))
                .collect();
            fields.map(Value::Struct)
        }
        _ => Err(bad()),
    }
}

/// Inside of an array, map or struct a JSON string is the text itself, and reads as any type.
fn nested(json: &serde_json::Value, to: &Type) -> Eval<Value> {
    match (json, to) {
        (serde_json::Value::String(text), to) if *to != Type::Json => parse(text, to),
        _ => from_json(&Arc::new(json.clone()), to),
    }
}
