//! Keys as they stand in a path, and cursors.
//!
//! A key of one column is its plain value; of several, a JSON object of all of them. `window_start` is never part of the
//! key in the path: windows are asked for by `from` and `to`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json};

use super::problem::{Code, Problem};
use crate::format::{json, text};
use crate::row::Row;
use crate::schema::Column;
use crate::topology::plan::TablePlan;
use crate::value::Value;

/// The column that a windowed table's key holds beside the columns of the group.
pub const WINDOW_START: &str = "window_start";

/// The columns that the key in the path is made of.
pub fn columns(table: &TablePlan) -> Vec<&Column> {
    table.key.columns().iter().filter(|column| !is_window_start(table, column)).collect()
}

fn is_window_start(table: &TablePlan, column: &Column) -> bool {
    table.windowed && &*column.name == WINDOW_START
}

/// Reads the key of a path, already percent-decoded.
pub fn parse(table: &TablePlan, text: &str) -> Result<Row, Problem> {
    let columns = columns(table);
    let parsed = match columns.as_slice() {
        [column] => text::parse(text, &column.ty).map(|value| vec![value]),
        _ => values_of(&columns, text),
    };
    parsed.map_err(|reason| {
        let expected = expectation(table, &columns);
        let detail = format!("`{text}` is not a key of table `{}`: {reason}; {expected}", table.name);
        Problem::new(Code::MalformedKey, detail)
    })
}

/// A JSON object with exactly the columns.
fn values_of(columns: &[&Column], text: &str) -> Result<Row, String> {
    let object: Map<String, Json> =
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON object ({error})"))?;
    if let Some(unknown) = object.keys().find(|name| columns.iter().all(|column| *column.name != ***name)) {
        return Err(format!("`{unknown}` is not a key column"));
    }
    let value = |column: &&Column| {
        let tree = object.get(&*column.name).ok_or_else(|| format!("`{}` is missing", column.name))?;
        json::from_json(tree, &column.ty).map_err(|reason| format!("`{}`: {reason}", column.name))
    };
    columns.iter().map(value).collect()
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

/// The path of a row, percent-encoded. The reverse of [`parse`], for links and examples; `key` has the table's key
/// columns, `window_start` included.
pub fn path_of(table: &TablePlan, key: &[Value]) -> String {
    let in_path = table.key.columns().iter().zip(key).filter(|(column, _)| !is_window_start(table, column));
    let parts: Vec<(&Column, &Value)> = in_path.collect();
    let text = if let [(column, value)] = parts.as_slice() {
        text::render(value, &column.ty)
    } else {
        let fields = parts.iter().map(|(column, value)| (column.name.to_string(), json::to_json(value, &column.ty)));
        Json::Object(fields.collect()).to_string()
    };
    // RFC 3986 leaves these as they are.
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    format!("/v1/tables/{}/{}", table.name, utf8_percent_encode(&text, RESERVED))
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
        .map(|[high, low]| {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            Some((digit(*high)? << 4) | digit(*low)?)
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{cursor, parse_cursor};

    proptest! {
        #[test]
        fn a_cursor_is_read_back_and_sorts_as_its_key(left: Vec<u8>, right: Vec<u8>) {
            prop_assert_eq!(&parse_cursor(&cursor(&left)).unwrap(), &left);
            prop_assert_eq!(cursor(&left).cmp(&cursor(&right)), left.cmp(&right));
        }
    }

    #[test]
    fn a_cursor_that_was_made_up_is_refused() {
        for text in ["abc", "zz", "+1", "0x"] {
            assert_eq!(parse_cursor(text).unwrap_err().status, 400, "{text}");
        }
    }
}
