//! The bodies of answers: what a client may rely on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Offsets by `topic-partition`.
pub type Position = BTreeMap<String, i64>;

/// One row of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "table": "spend_per_account",
    "key": {"account": "acct-7"},
    "row": {"account": "acct-7", "n": 12, "total": 240.5},
    "position": {"payments.transactions-3": 18250},
    "lag": 4,
    "served_by": "orders-0"
}))]
pub struct RowAnswer {
    pub table: String,
    /// The key columns, `window_start` included.
    #[schema(value_type = Object)]
    pub key: Map<String, Value>,
    /// All columns.
    #[schema(value_type = Object)]
    pub row: Map<String, Value>,
    /// The input offsets that the row reflects: everything before them is in it.
    #[schema(value_type = BTreeMap<String, i64>)]
    pub position: Position,
    /// How many input records are not yet in it; null until the ends of the inputs are known.
    pub lag: Option<u64>,
    /// The instance that holds the row.
    pub served_by: String,
}

/// Many rows of a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "table": "spend_per_hour",
    "rows": [{
        "key": {"account": "acct-7", "window_start": "2026-01-31T12:00:00Z"},
        "row": {"account": "acct-7", "window_start": "2026-01-31T12:00:00Z", "n": 3, "total": 61.2}
    }],
    "cursor": null,
    "position": {"payments.transactions-3": 18250},
    "lag": 4,
    "served_by": ["orders-0"]
}))]
pub struct RowsAnswer {
    pub table: String,
    pub rows: Vec<TableRow>,
    /// Where the next page begins: send it as `cursor`. Null at the end.
    pub cursor: Option<String>,
    /// The input offsets that the rows reflect.
    #[schema(value_type = BTreeMap<String, i64>)]
    pub position: Position,
    /// How many input records are not yet in them; null until the ends of the inputs are known.
    pub lag: Option<u64>,
    /// The instances that hold them.
    pub served_by: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TableRow {
    /// The key columns, `window_start` included.
    #[schema(value_type = Object)]
    pub key: Map<String, Value>,
    /// All columns.
    #[schema(value_type = Object)]
    pub row: Map<String, Value>,
}

/// `GET /v1/tables`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TablesAnswer {
    pub tables: Vec<TableAnswer>,
}

/// A table that can be queried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "spend_per_hour",
    "windowed": true,
    "key": [{"name": "account", "type": "STRING", "nullable": true}],
    "columns": [{"name": "account", "type": "STRING", "nullable": true}, {"name": "n", "type": "BIGINT", "nullable": false}],
    "path": "/v1/tables/spend_per_hour/{account}"
}))]
pub struct TableAnswer {
    pub name: String,
    /// Whether a key has a row per window.
    pub windowed: bool,
    /// What the key in the path consists of.
    pub key: Vec<ColumnAnswer>,
    pub columns: Vec<ColumnAnswer>,
    /// How to write the key in the path.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ColumnAnswer {
    pub name: String,
    /// In SQL.
    #[serde(rename = "type")]
    pub kind: String,
    pub nullable: bool,
}

/// `GET /healthz`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"status": "alive"}))]
pub struct HealthAnswer {
    pub status: String,
}

/// `GET /readyz`, when ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"ready": true, "degraded": []}))]
pub struct ReadyAnswer {
    pub ready: bool,
    /// What is amiss although reads are answered.
    pub degraded: Vec<Reason>,
}

/// Why the instance is not ready, or what is amiss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "code": "kafka_unreachable",
    "subject": "",
    "message": "no broker answers at kafka:9092",
    "since": "2026-01-31T12:00:00Z"
}))]
pub struct Reason {
    /// Stable, for programs.
    pub code: String,
    /// The topic, task or worker that it is about; empty for the whole instance.
    pub subject: String,
    pub message: String,
    /// RFC 3339.
    pub since: String,
}

/// `GET /v1/info`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "name": "fraud",
    "version": "0.1.0",
    "instance": "fraud-0",
    "endpoint": "10.0.0.7:8088",
    "phase": "running",
    "guarantee": "exactly_once",
    "uptime_seconds": 311,
    "cluster": "MkU3OEVBNTcwNTJENDM2Qk",
    "peers": ["10.0.0.8:8088"],
    "tasks": [{"task": "0_0", "steps": "features", "partition": 0, "state": "running", "worker": 0,
               "watermark": "2026-01-31T12:00:00Z"}]
}))]
pub struct InfoAnswer {
    /// The application id.
    pub name: String,
    pub description: Option<String>,
    /// Of Sidestream.
    pub version: String,
    pub instance: String,
    /// Where other instances reach this one.
    pub endpoint: String,
    /// starting, running, stopping, stopped
    pub phase: String,
    /// exactly_once, at_least_once
    pub guarantee: String,
    pub uptime_seconds: u64,
    /// Null until Kafka has been reached.
    pub cluster: Option<String>,
    /// The other instances known.
    pub peers: Vec<String>,
    /// Those that this instance owns.
    pub tasks: Vec<TaskAnswer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskAnswer {
    /// `SUBTOPOLOGY_PARTITION`
    pub task: String,
    /// The steps that it runs.
    pub steps: String,
    pub partition: u32,
    /// restoring, running, parked, failed
    pub state: String,
    /// Why it is parked or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub worker: Option<usize>,
    /// Event time that it has reached, RFC 3339; null before the first record.
    pub watermark: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreAnswer>,
}

/// How far the restoration of a task's state has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RestoreAnswer {
    /// Changelog records applied.
    pub records: u64,
    pub bytes: u64,
    /// 0 to 1.
    pub done: f64,
    /// An estimate; null before anything can be said.
    pub remaining_seconds: Option<u64>,
}

/// `GET /v1/lag`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "instance": "fraud-0",
    "total": 4,
    "inputs": [{"topic": "payments.transactions", "partition": 3, "task": "0_3", "committed": 18250, "end": 18254, "lag": 4}]
}))]
pub struct LagAnswer {
    pub instance: String,
    /// The sum over the inputs whose lag is known.
    pub total: u64,
    /// The partitions that this instance reads.
    pub inputs: Vec<InputAnswer>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InputAnswer {
    pub topic: String,
    pub partition: u32,
    pub task: String,
    /// The offset that is committed; null before the first commit.
    pub committed: Option<i64>,
    /// The end of the partition as last asked for.
    pub end: Option<i64>,
    /// In records; transaction markers count too.
    pub lag: Option<u64>,
}

/// `GET /v1/topology`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TopologyAnswer {
    pub name: String,
    pub sub_topologies: Vec<SubTopologyAnswer>,
    /// A diagram for <https://mermaid.js.org>.
    pub mermaid: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubTopologyAnswer {
    pub id: u32,
    pub steps: String,
    /// Topics that it reads.
    pub sources: Vec<String>,
    /// Topics that it writes.
    pub sinks: Vec<String>,
    /// The state that it keeps.
    pub stores: Vec<String>,
    /// One per partition; null until Kafka has been reached.
    pub tasks: Option<u32>,
}
