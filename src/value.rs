//! One SQL value, as rows hold it.
//!
//! A value does not know its type: the schema does, and whoever reads a slot knows the schema. `Null` inhabits every
//! type. Cloning is cheap: strings of up to 24 bytes are inline, everything larger is shared.

use std::collections::BTreeMap;
use std::sync::Arc;

use compact_str::CompactString;

pub use crate::decimal::Decimal;

/// See the type of the column for which variant a slot holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Int(i32),
    Bigint(i64),
    Double(f64),
    Decimal(Decimal),
    String(CompactString),
    Bytes(Arc<[u8]>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    Interval(Interval),
    Array(Arc<[Value]>),
    Map(Arc<BTreeMap<CompactString, Value>>),
    /// The fields in the order of the type.
    Struct(Arc<[Value]>),
    Json(Arc<serde_json::Value>),
}

/// PostgreSQL's interval: the three parts are independent, since months and days have no fixed length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

// Rows in memory are made of these.
const _: () = assert!(size_of::<Value>() == 32);

impl Value {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    pub fn string(text: impl AsRef<str>) -> Self {
        Self::String(CompactString::new(text))
    }

    pub fn bytes(bytes: impl AsRef<[u8]>) -> Self {
        Self::Bytes(Arc::from(bytes.as_ref()))
    }
}
