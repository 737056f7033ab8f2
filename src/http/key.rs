//! Keys as they stand in a path, and cursors.
//!
//! A key of one column is its plain value; of several, a JSON object of all of them. `window_start` is never part of the
//! key in the path: windows are asked for by `from` and `to`.

use serde_json::{Map, Value as Json};

use super::problem::{Code, Problem};
use crate::format::{Decoder, Format};
use crate::row::Row;
use crate::schema::{Column, Schema, Type};
use crate::topology::plan::TablePlan;
use crate::value::Value;

/// The column that a windowed table's key holds beside the columns of the group.
pub const WINDOW_START: &str = "window_start";

/// The columns that the key in the path is made of.
pub fn columns(table: &TablePlan) -> Vec<&Column> {
    table.key.columns().iter().filter(|column| !(table.windowed && &*column.name == WINDOW_START)).collect()
}

/// Reads the key of a path, already percent-decoded.
pub fn parse(table: &TablePlan, text: &str) -> Result<Row, Problem> {
    let columns = columns(table);
    let malformed = |reason: String| {
        let expected = expectation(table, &columns);
        Problem::new(
            Code::MalformedKey,
            format!("`{text}` is not a key of table `{}`: {reason}; {expected}", table.name),
        )
    };
    let object = match columns.as_slice() {
        [column] => format!("{{{}:{}}}", Json::from(&*column.name), plain(column, text).map_err(malformed)?),
        _ => object_of(&columns, text).map_err(malformed)?,
    };
    let schema = Schema::new(columns.iter().map(|column| (*column).clone()));
    let used = vec![true; schema.len()];
    let mut row: Row = vec![Value::Null; schema.len()];
    Decoder::new(Format::Json, &schema, &used, 0)
        .decode(object.as_bytes(), &mut row)
        .map_err(|error| malformed(error.to_string()))?;
    Ok(row)
}

/// The plain value as JSON text.
fn plain(column: &Column, text: &str) -> Result<String, String> {
    let quoted = || Json::from(text).to_string();
    let number = || text.parse::<f64>().is_ok_and(f64::is_finite) && !text.starts_with('+');
    Ok(match &column.ty {
        Type::String | Type::Bytes | Type::Date | Type::Interval | Type::Null => quoted(),
        Type::Timestamp if text.parse::<i64>().is_ok() => text.to_owned(),
        Type::Timestamp => quoted(),
        Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. } if number() => text.to_owned(),
        Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. } => {
            return Err(format!("column `{}` is {} and this is not a number", column.name, column.ty));
        }
        Type::Boolean if matches!(text, "true" | "false") => text.to_owned(),
        Type::Boolean => return Err(format!("column `{}` is BOOLEAN: true or false", column.name)),
        Type::Array(_) | Type::Map(_) | Type::Struct(_) | Type::Json => {
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .map_err(|error| format!("column `{}` is {}, written as JSON: {error}", column.name, column.ty))?;
            text.to_owned()
        }
    })
}

/// Checks that the text is a JSON object with exactly the columns.
fn object_of(columns: &[&Column], text: &str) -> Result<String, String> {
    let object: Map<String, Json> =
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON object ({error})"))?;
    if let Some(unknown) = object.keys().find(|name| columns.iter().all(|column| *column.name != ***name)) {
        return Err(format!("`{unknown}` is not a key column"));
    }
    if let Some(missing) = columns.iter().find(|column| !object.contains_key(&*column.name)) {
        return Err(format!("`{}` is missing", missing.name));
    }
    Ok(text.to_owned())
}

/// What the key must look like.
fn expectation(table: &TablePlan, columns: &[&Column]) -> String {
    let listed = columns.iter().map(|column| format!("{} {}", column.name, column.ty)).collect::<Vec<_>>().join(", ");
    match columns {
        [] => format!("the table has one group, its key is {{}}: {}", example_path(table)),
        [_] => format!("write the plain value of {listed}, percent-encoded: {}", example_path(table)),
        _ => format!("write a JSON object of {listed}, percent-encoded: {}", example_path(table)),
    }
}

/// The table's path with a placeholder for the key.
pub fn example_path(table: &TablePlan) -> String {
    let columns = columns(table);
    let key = match columns.as_slice() {
        [] => "{}".to_owned(),
        [column] => format!("{{{}}}", column.name),
        _ => {
            let fields: Vec<String> = columns.iter().map(|column| format!("\"{}\": ...", column.name)).collect();
            format!("{{{}}}", fields.join(", "))
        }
    };
    format!("/v1/tables/{}/{key}", table.name)
}

/// The key's text for a path, percent-encoded. The reverse of [`parse`], for links and examples; `object` holds the key
/// columns of a row as JSON.
pub fn path_of(table: &TablePlan, object: &Map<String, Json>) -> String {
    let columns = columns(table);
    let text = match columns.as_slice() {
        [column] => match object.get(&*column.name) {
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        },
        _ => {
            let key = columns
                .iter()
                .filter_map(|column| object.get(&*column.name).map(|value| (column.name.to_string(), value.clone())));
            Json::Object(key.collect()).to_string()
        }
    };
    let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC);
    // What RFC 3986 leaves unreserved reads better as it is.
    let readable = encoded.to_string().replace("%2D", "-").replace("%2E", ".").replace("%5F", "_").replace("%7E", "~");
    format!("/v1/tables/{}/{readable}", table.name)
}

/// A cursor for the key of the last row of a page.
pub fn cursor(encoded_key: &[u8]) -> String {
    use std::fmt::Write as _;
    encoded_key.iter().fold(String::with_capacity(encoded_key.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The key that a cursor names.
pub fn parse_cursor(text: &str) -> Result<Vec<u8>, Problem> {
    let malformed = || Problem::new(Code::MalformedParameter, format!("cursor: `{text}` does not come from an answer"));
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return Err(malformed()) };
    pairs
        .iter()
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(malformed)
}
