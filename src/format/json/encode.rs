//! Rows as JSON objects, appended to a buffer that the caller reuses.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::scanner::plain_length;
use crate::format::{EncodeError, number, time};
use crate::schema::{Schema, Type};
use crate::value::Value;

#[derive(Debug)]
pub(in crate::format) struct JsonEncoder {
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    /// What stands before the value: `{"name":` or `,"name":`.
    lead: Box<[u8]>,
    name: Box<str>,
    ty: Type,
}

impl JsonEncoder {
    pub fn new(schema: &Schema) -> Self {
        let fields = schema.columns().iter().enumerate().map(|(index, column)| {
            let mut lead = vec![if index == 0 { b'{' } else { b',' }];
            write_string(&column.name, &mut lead);
            lead.push(b':');
            Field { lead: lead.into(), name: column.name.as_ref().into(), ty: column.ty.clone() }
        });
        Self { fields: fields.collect() }
    }

    pub fn encode(&self, row: &[Value], into: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.fields.is_empty() {
            into.push(b'{');
        }
        for (index, field) in self.fields.iter().enumerate() {
            into.extend_from_slice(&field.lead);
            let written = row.get(index).is_some_and(|value| write_value(value, &field.ty, into));
            if !written {
                let reason = format!("the value is no {}", field.ty);
                return Err(EncodeError { column: field.name.to_string(), format: "JSON", reason });
            }
        }
        into.push(b'}');
        Ok(())
    }
}

/// Appends a value. False, with something of it appended, where the value is not of the type.
#[must_use]
pub(in crate::format) fn write_value(value: &Value, ty: &Type, into: &mut Vec<u8>) -> bool {
    match (value, ty) {
        (Value::Null, _) => into.extend_from_slice(b"null"),
        (Value::Boolean(true), Type::Boolean) => into.extend_from_slice(b"true"),
        (Value::Boolean(false), Type::Boolean) => into.extend_from_slice(b"false"),
        (Value::Int(value), Type::Int) => into.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        (Value::Bigint(value), Type::Bigint) => into.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        (Value::Double(value), Type::Double) => write_double(*value, into),
        (Value::Decimal(value), Type::Decimal { scale, .. }) => {
            quoted(into, |into| number::write_decimal(*value, *scale, into));
        }
        (Value::String(value), Type::String) => write_string(value, into),
        (Value::Bytes(value), Type::Bytes) => quoted(into, |into| write_base64(value, into)),
        (Value::Date(days), Type::Date) => quoted(into, |into| time::write_date(*days, into)),
        (Value::Timestamp(micros), Type::Timestamp) => quoted(into, |into| time::write_timestamp(*micros, into)),
        (Value::Interval(interval), Type::Interval) => quoted(into, |into| time::write_interval(*interval, into)),
        (Value::Array(elements), Type::Array(ty)) => {
            into.push(b'[');
            for (index, element) in elements.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                if !write_value(element, ty, into) {
                    return false;
                }
            }
            into.push(b']');
        }
        (Value::Map(entries), Type::Map(ty)) => {
            into.push(b'{');
            for (index, (key, value)) in entries.iter().enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_string(key, into);
                into.push(b':');
                if !write_value(value, ty, into) {
                    return false;
                }
            }
            into.push(b'}');
        }
        (Value::Struct(values), Type::Struct(columns)) => {
            if values.len() != columns.len() {
                return false;
            }
            into.push(b'{');
            for (index, (value, column)) in values.iter().zip(columns.iter()).enumerate() {
                if index > 0 {
                    into.push(b',');
                }
                write_string(&column.name, into);
                into.push(b':');
                if !write_value(value, &column.ty, into) {
                    return false;
                }
            }
            into.push(b'}');
        }
        (Value::Json(tree), Type::Json) => return serde_json::to_writer(into, &**tree).is_ok(),
        _ => return false,
    }
    true
}

fn write_double(value: f64, into: &mut Vec<u8>) {
    if value.is_finite() {
        into.extend_from_slice(zmij::Buffer::new().format_finite(value).as_bytes());
    } else {
        into.extend_from_slice(b"null");
    }
}

fn quoted(into: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    into.push(b'"');
    write(into);
    into.push(b'"');
}

fn write_base64(bytes: &[u8], into: &mut Vec<u8>) {
    let start = into.len();
    into.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = BASE64_STANDARD.encode_slice(bytes, &mut into[start..]).unwrap_or(0);
    into.truncate(start + written);
}

/// Appends a string with its quotes. Only what must be escaped is: quotes, backslashes, control characters.
fn write_string(text: &str, into: &mut Vec<u8>) {
    into.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, after) = rest.split_at(plain_length(rest));
        into.extend_from_slice(plain);
        let [special, after @ ..] = after else { break };
        match special {
            b'"' | b'\\' => into.extend_from_slice(&[b'\\', *special]),
            b'\n' => into.extend_from_slice(b"\\n"),
            b'\r' => into.extend_from_slice(b"\\r"),
            b'\t' => into.extend_from_slice(b"\\t"),
            control => {
                let hexadecimal = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
                into.extend_from_slice(b"\\u00");
                into.extend_from_slice(&[hexadecimal(control >> 4), hexadecimal(control & 15)]);
            }
        }
        rest = after;
    }
    into.push(b'"');
}
