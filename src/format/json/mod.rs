//! JSON (RFC 8259): one object per record, its fields by name.
//!
//! How types appear
//!
//! | type | read from | written as |
//! |---|---|---|
//! | BOOLEAN | `true`, `false` | the same |
//! | INT, BIGINT | a number with an integral value, range checked | a number |
//! | DOUBLE | a number | a number; NaN and infinities `null` |
//! | DECIMAL(p,s) | a number or a string, if it fits without rounding | a string with s digits after the point |
//! | STRING | a string | a string |
//! | BYTES | base64 text, padded or not | base64 text, padded |
//! | DATE | `"2026-01-31"` | the same |
//! | TIMESTAMP | an RFC 3339 string, or a number of milliseconds since the epoch | `"2026-01-31T12:00:00.5Z"` |
//! | INTERVAL | an ISO 8601 duration | the same |
//! | ARRAY, MAP, STRUCT | array, object, object | the same |
//! | JSON | any value but `null` | the same |
//!
//! Invariants
//! - `null` and a missing field are NULL; either is refused for a NOT NULL column.
//! - No string becomes a number or a number a string (DECIMAL text apart).
//! - Of a field that is there twice the last counts; each is checked.
//! - Fields that nobody reads are held to the grammar, not to their column's type.
//! - The whole record is UTF-8 and one JSON value; anything after it is malformed.

mod decode;
mod encode;
mod names;
mod scanner;
mod tree;

pub use tree::{from_json, row_to_json, to_json};

pub(super) use decode::JsonDecoder;
pub(super) use encode::{JsonEncoder, write_value};

use super::DecodeError;

/// Why a value cannot be read. A pointer, so that results on the hot path stay small.
#[derive(Debug)]
struct Fault(Box<Cause>);

#[derive(Debug)]
enum Cause {
    Malformed {
        reason: String,
    },
    /// The text is JSON, but not of the column's type. The path leads from the column into it.
    Mismatch {
        path: String,
        reason: String,
    },
}

impl Fault {
    #[cold]
    fn malformed(reason: String) -> Self {
        Self(Box::new(Cause::Malformed { reason }))
    }

    #[cold]
    fn mismatch(reason: String) -> Self {
        Self(Box::new(Cause::Mismatch { path: String::new(), reason }))
    }

    /// As seen from the value that holds the faulty one at `step`, such as `.name` or `[3]`.
    #[cold]
    fn within(mut self, step: &str) -> Self {
        if let Cause::Mismatch { path, .. } = &mut *self.0 {
            path.insert_str(0, step);
        }
        self
    }

    #[cold]
    fn into_error(self) -> DecodeError {
        match *self.0 {
            Cause::Malformed { reason } => DecodeError::Malformed { format: "JSON", reason },
            Cause::Mismatch { path, reason } => {
                DecodeError::Column { column: path.trim_start_matches('.').to_owned(), reason }
            }
        }
    }
}

#[cfg(test)]
mod tests;
