//! Reading committed rows of this instance's tables.

use crate::ids::{Offset, Partition, TopicPartition};
use crate::row::Row;

use crate::topology::plan::TablePlan;
use crate::value::Value;

use super::{Owner, View};

/// A row of a table, as a user sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundRow {
    /// The store key's bytes: what a scan's cursor names, and the order in which scans go.
    pub encoded_key: Vec<u8>,
    /// In the order of the table's key columns (`window_start` included).
    pub key: Row,
    /// In the order of the table's schema.
    pub row: Row,
    pub partition: Partition,
    /// The committed input offsets of the task that owns it.
    pub position: Vec<(TopicPartition, Offset)>,
    /// In records, over all inputs of the task; `None` before the ends are known.
    pub lag: Option<u64>,
}

/// `window_start` in `[from, to)`, milliseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowRange {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

/// One page of a table's rows, in encoded key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanRequest {
    /// The beginning of the first key column, which must be a STRING.
    pub prefix: Option<String>,
    pub windows: WindowRange,
    /// Only keys greater than this one (`FoundRow::encoded_key` of the last row seen).
    pub after: Option<Vec<u8>>,
    /// At least 1.
    pub limit: usize,
}

/// Where a key of a table is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// `None` where the partition cannot be told from the key (the topic's records were keyed by others, in a format
    /// whose bytes are not fixed): ask here first, then every peer.
    pub partition: Option<Partition>,
    /// Of that partition; `Local` where `partition` is `None`.
    pub owner: Owner,
}

/// Why a read gave no answer. (A key without a row is an answer.)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    #[error("there is no table `{table}`")]
    NoSuchTable { table: String },
    #[error("table `{table}` says `query: false`")]
    NotQueryable { table: String },
    #[error("{reason}")]
    BadKey { reason: String },
    #[error("{reason}")]
    BadRange { reason: String },
    /// 503 with Retry-After.
    #[error("the instance is starting: {reason}")]
    Starting { reason: String },
    /// 503 with Retry-After.
    #[error("partition {partition} of the table is being restored")]
    Restoring { partition: Partition },
    /// Neither here nor anywhere known: 503 with Retry-After.
    #[error("no instance is known to own partition {partition} of the table now")]
    NoOwner { partition: Partition },
    #[error("reading the state failed: {reason}")]
    Failed { reason: String },
}

impl View {
    /// The table of that name, if it may be asked.
    pub fn table(&self, name: &str) -> Result<&TablePlan, QueryError> {
        let table = self.plan.tables.iter().find(|table| &*table.name == name);
        let table = table.ok_or_else(|| QueryError::NoSuchTable { table: name.to_string() })?;
        if table.queryable { Ok(table) } else { Err(QueryError::NotQueryable { table: name.to_string() }) }
    }

    /// Who answers for a key. `key` has the table's key columns without `window_start`.
    pub fn locate(&self, table: &TablePlan, key: &[Value]) -> Result<Located, QueryError> {
        let _ = (table, key);
        Err(QueryError::Starting { reason: "not known yet".to_string() })
    }

    /// The rows of a key in the partitions that this instance owns: at most one, or one per window in order. `key` has
    /// the table's key columns without `window_start`.
    pub fn get(&self, table: &TablePlan, key: &[Value], windows: WindowRange) -> Result<Vec<FoundRow>, QueryError> {
        let _ = (table, key, windows);
        Err(QueryError::Starting { reason: "not known yet".to_string() })
    }

    /// A page of the rows in the partitions that this instance owns, in encoded key order.
    pub fn scan(&self, table: &TablePlan, request: &ScanRequest) -> Result<Vec<FoundRow>, QueryError> {
        let _ = (table, request);
        Err(QueryError::Starting { reason: "not known yet".to_string() })
    }
}
