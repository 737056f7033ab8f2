//! Rows of the view as JSON.

use super::answer::{Position, TableRow};
use super::problem::{Code, Problem};
use crate::format::json::row_to_json;
use crate::runtime::view::{FoundRow, QueryError};
use crate::topology::Plan;
use crate::topology::plan::TablePlan;

/// A row as the table's output topics would write it.
pub fn table_row(table: &TablePlan, found: &FoundRow) -> TableRow {
    TableRow { key: row_to_json(&found.key, &table.key), row: row_to_json(&found.row, &table.schema) }
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
