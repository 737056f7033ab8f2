//! Values as `serde_json` trees, for HTTP, tests in YAML and dead letters. Not for records: those go by `decode` and
//! `encode`, and mean the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;
use serde_json::{Map, Value as Tree};

use crate::format::number::Digits;
use crate::format::{text, time};
use crate::schema::{Column, Schema, Type};
use crate::value::Value;

/// The value as JSON. A value that is not of the type (our own mistake) is written by what it is.
pub fn to_json(value: &Value, ty: &Type) -> Tree {
    match (value, ty) {
        (Value::Null, _) => Tree::Null,
        (Value::Boolean(value), _) => Tree::Bool(*value),
        (Value::Int(value), _) => Tree::from(*value),
        (Value::Bigint(value), _) => Tree::from(*value),
        // NaN and infinities become null.
        (Value::Double(value), _) => Tree::from(*value),
        (Value::Json(tree), _) => (**tree).clone(),
        (Value::Array(elements), ty) => {
            let element_ty = if let Type::Array(element) = ty { element } else { &Type::Null };
            elements.iter().map(|element| to_json(element, element_ty)).collect()
        }
        (Value::Map(entries), ty) => {
            let value_ty = if let Type::Map(value) = ty { value } else { &Type::Null };
            entries.iter().map(|(key, value)| (key.to_string(), to_json(value, value_ty))).collect()
        }
        (Value::Struct(values), Type::Struct(columns)) => Tree::Object(fields(values, columns)),
        (Value::Struct(values), _) => values.iter().map(|value| to_json(value, &Type::Null)).collect(),
        (Value::Bytes(_), _) => {
            let mut quoted = Vec::new();
            let written = super::write_value(value, &Type::Bytes, &mut quoted);
            let text = String::from_utf8(quoted).unwrap_or_default();
            if written { Tree::from(text.trim_matches('"')) } else { Tree::Null }
        }
        (Value::String(_) | Value::Decimal(_) | Value::Date(_) | Value::Timestamp(_) | Value::Interval(_), _) => {
            Tree::String(text::render(value, ty))
        }
    }
}

/// The row as an object, its columns in order.
pub fn row_to_json(row: &[Value], schema: &Schema) -> Map<String, Tree> {
    fields(row, schema.columns())
}

fn fields(values: &[Value], columns: &[Column]) -> Map<String, Tree> {
    values.iter().zip(columns).map(|(value, column)| (column.name.to_string(), to_json(value, &column.ty))).collect()
}

/// The value that a JSON value means for a column of this type; the reason where it means none.
pub fn from_json(tree: &Tree, ty: &Type) -> Result<Value, String> {
    let mismatch = || format!("expected {ty}, found {}", kind(tree));
    Ok(match (ty, tree) {
        (_, Tree::Null) => Value::Null,
        (Type::Boolean, Tree::Bool(value)) => Value::Boolean(*value),
        (Type::Int, Tree::Number(_)) => {
            Value::Int(integer(tree).and_then(|value| i32::try_from(value).ok()).ok_or_else(|| out_of_range(tree, ty))?)
        }
        (Type::Bigint, Tree::Number(_)) => Value::Bigint(integer(tree).ok_or_else(|| out_of_range(tree, ty))?),
        (Type::Double, Tree::Number(number)) => Value::Double(number.as_f64().ok_or_else(|| out_of_range(tree, ty))?),
        (Type::Decimal { precision, scale }, Tree::Number(number)) => {
            let digits = Digits::parse(&number.to_string());
            let decimal = digits.and_then(|digits| digits.decimal(*precision, *scale));
            Value::Decimal(decimal.ok_or_else(|| format!("{tree} does not fit {ty}"))?)
        }
        (Type::Timestamp, Tree::Number(_)) => {
            let micros = integer(tree).and_then(|millis| millis.checked_mul(1000));
            Value::Timestamp(micros.ok_or_else(|| out_of_range(tree, ty))?)
        }
        (Type::String, Tree::String(value)) => Value::string(value),
        (Type::Bytes, Tree::String(value)) => {
            Value::bytes(super::decode::bytes(value).ok_or_else(|| not_a(value, ty))?)
        }
        (Type::Date, Tree::String(value)) => Value::Date(time::parse_date(value).ok_or_else(|| not_a(value, ty))?),
        (Type::Timestamp, Tree::String(value)) => {
            Value::Timestamp(time::parse_timestamp(value).ok_or_else(|| not_a(value, ty))?)
        }
        (Type::Interval, Tree::String(value)) => {
            Value::Interval(time::parse_interval(value).ok_or_else(|| not_a(value, ty))?)
        }
        (Type::Decimal { precision, scale }, Tree::String(value)) => {
            let decimal = Digits::parse(value).and_then(|digits| digits.decimal(*precision, *scale));
            Value::Decimal(decimal.ok_or_else(|| not_a(value, ty))?)
        }
        (Type::Array(element), Tree::Array(elements)) => {
            Value::Array(elements.iter().map(|tree| from_json(tree, element)).collect::<Result<_, _>>()?)
        }
        (Type::Map(value_ty), Tree::Object(entries)) => {
            let entries = entries.iter().map(|(key, tree)| Ok((CompactString::new(key), from_json(tree, value_ty)?)));
            Value::Map(Arc::new(entries.collect::<Result<BTreeMap<_, _>, String>>()?))
        }
        (Type::Struct(columns), Tree::Object(fields)) => {
            let values = columns.iter().map(|column| {
                let value = fields.get(&*column.name).map_or(Ok(Value::Null), |tree| from_json(tree, &column.ty));
                match value.map_err(|reason| format!("{}: {reason}", column.name))? {
                    Value::Null if !column.nullable => Err(format!("{}: missing or null, but NOT NULL", column.name)),
                    value => Ok(value),
                }
            });
            Value::Struct(values.collect::<Result<_, _>>()?)
        }
        (Type::Json, tree) => Value::Json(Arc::new(tree.clone())),
        _ => return Err(mismatch()),
    })
}

/// Of a number with an integral value.
fn integer(tree: &Tree) -> Option<i64> {
    tree.as_i64().or_else(|| Digits::parse(&tree.to_string())?.integer())
}

fn out_of_range(tree: &Tree, ty: &Type) -> String {
    format!("{tree} is not in the range of {ty}")
}

fn not_a(text: &str, ty: &Type) -> String {
    format!("`{text}` is not a {ty}")
}

fn kind(tree: &Tree) -> &'static str {
    match tree {
        Tree::Null => "null",
        Tree::Bool(_) => "a boolean",
        Tree::Number(_) => "a number",
        Tree::String(_) => "a string",
        Tree::Array(_) => "an array",
        Tree::Object(_) => "an object",
    }
}
