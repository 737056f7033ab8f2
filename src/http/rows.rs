//! Rows of the view as JSON.

use serde_json::{Map, Value as Json};

use super::answer::{Position, TableRow};
use super::problem::{Code, Problem};
use crate::format::{Encoder, Format};
use crate::runtime::view::{FoundRow, QueryError};
use crate::topology::Plan;
use crate::topology::plan::TablePlan;
use crate::value::Value;

/// Turns rows of one table into JSON, as its output topics would write them.
#[derive(Debug)]
pub struct RowWriter {
    key: Encoder,
    row: Encoder,
    buffer: Vec<u8>,
}

impl RowWriter {
    pub fn new(table: &TablePlan) -> Self {
        Self {
            key: Encoder::new(Format::Json, &table.key),
            row: Encoder::new(Format::Json, &table.schema),
            buffer: Vec::new(),
        }
    }

    pub fn write(&mut self, found: &FoundRow) -> Result<TableRow, Problem> {
        let key = object(&mut self.key, &found.key, &mut self.buffer)?;
        let row = object(&mut self.row, &found.row, &mut self.buffer)?;
        Ok(TableRow { key, row })
    }
}

fn object(encoder: &mut Encoder, values: &[Value], buffer: &mut Vec<u8>) -> Result<Map<String, Json>, Problem> {
    buffer.clear();
    if values.is_empty() {
        return Ok(Map::new());
    }
    let unwritable =
        |reason: String| Problem::new(Code::Internal, format!("a row cannot be written as JSON: {reason}"));
    encoder.encode(values, buffer).map_err(|error| unwritable(error.to_string()))?;
    serde_json::from_slice(buffer).map_err(|error| unwritable(error.to_string()))
}

/// The offsets that these rows reflect, and how many records are not in them yet.
pub fn position<'a>(rows: impl IntoIterator<Item = &'a FoundRow>) -> (Position, Option<u64>) {
    let mut position = Position::new();
    let mut counted = Vec::new();
    let mut lag = Some(0);
    for row in rows {
        // All rows of a partition come from one task, at one position.
        if counted.contains(&row.partition) {
            continue;
        }
        counted.push(row.partition);
        position.extend(row.position.iter().map(|(partition, offset)| (partition.to_string(), offset.0)));
        lag = lag.zip(row.lag).map(|(sum, more)| sum + more);
    }
    (position, lag)
}

/// Why the view gave no answer, as a problem.
pub fn problem(error: &QueryError, plan: &Plan) -> Problem {
    let code = match error {
        QueryError::NoSuchTable { .. } | QueryError::NotQueryable { .. } => {
            let names: Vec<&str> =
                plan.tables.iter().filter(|table| table.queryable).map(|table| &*table.name).collect();
            let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
            return Problem::new(Code::UnknownTable, format!("{error}; the tables that can be queried: {known}"));
        }
        QueryError::BadKey { .. } => Code::MalformedKey,
        QueryError::BadRange { .. } => Code::MalformedParameter,
        QueryError::Starting { .. } => Code::Starting,
        QueryError::Restoring { .. } => Code::Restoring,
        QueryError::NoOwner { .. } => Code::Rebalancing,
        QueryError::Failed { reason } => {
            tracing::error!(reason, "reading state for a query failed");
            Code::StateUnreadable
        }
    };
    Problem::new(code, error.to_string())
}
