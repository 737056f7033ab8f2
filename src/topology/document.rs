//! A topology file as typed data: what was written, with where it stands, before any name is resolved.
//!
//! What it is: the whole of the language that this version runs; one field per clause. SQL stays text ([`Scalar`]) that
//! knows its place in the file.
//! What it is not: checked beyond the form of each clause; the planner does that.

use std::time::Duration;

use super::diagnostic::{FileId, Span};
use super::plan::{Emit, Frame, Guarantee, JoinKind, OnError, Start, WatermarkPlan};
pub use super::yaml::Scalar;
use crate::format::Format;
use crate::schema::Column;

/// Something and where it stands.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct Document {
    pub name: Scalar,
    pub description: Option<String>,
    pub guarantee: Guarantee,
    /// Streams, then tables.
    pub sources: Vec<SourceDef>,
    pub steps: Vec<StepDef>,
    /// Old step names and new ones.
    pub rename: Vec<(Scalar, Scalar)>,
    pub tests: Vec<TestCase>,
    pub dev: Vec<Generator>,
    /// Names that were declared but could not be made out; what is wrong with them is reported.
    pub unreadable: Vec<String>,
}

// ---- sources ---------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Stream,
    Table,
}

#[derive(Clone, Debug)]
pub struct SourceDef {
    pub kind: SourceKind,
    pub name: Scalar,
    pub topics: Vec<Scalar>,
    pub key: Option<KeyDef>,
    pub format: At<Format>,
    pub columns: Vec<ColumnDef>,
    pub timestamp: Option<Scalar>,
    pub watermark: WatermarkPlan,
    pub late: Option<Scalar>,
    pub on_error: OnError,
    pub start: At<Start>,
    pub bootstrap: bool,
    pub query: bool,
}

#[derive(Clone, Debug)]
pub struct KeyDef {
    pub format: At<Format>,
    pub columns: Vec<ColumnDef>,
}

#[derive(Clone, Debug)]
pub struct ColumnDef {
    pub column: Column,
    pub span: Span,
}

// ---- steps -----------------------------------------------------------------------------------------------------------

/// The clauses in the order in which they apply.
#[derive(Clone, Debug)]
pub struct StepDef {
    pub name: Scalar,
    pub from: Vec<InputDef>,
    pub joins: Vec<JoinDef>,
    pub filter: Option<Scalar>,
    pub key_by: Option<KeyByDef>,
    pub over: Option<OverDef>,
    pub window: Option<WindowDef>,
    pub group_by: Option<GroupByDef>,
    pub aggregate: Option<At<Vec<Named>>>,
    pub having: Option<Scalar>,
    pub select: Option<Scalar>,
    pub emit: Option<At<Emit>>,
    pub ttl: Option<At<TtlDef>>,
    pub to: Option<At<Vec<RuleDef>>>,
    // Beside them:
    pub shape: Option<At<AsDef>>,
    pub late: Option<Scalar>,
    pub on_error: OnError,
    pub retention: Option<At<Duration>>,
    pub query: bool,
    pub keep_empty: Option<At<bool>>,
    /// A clause could not be read, and that is reported: what is missing says nothing.
    pub incomplete: bool,
}

/// A name and an expression.
#[derive(Clone, Debug)]
pub struct Named {
    pub name: Scalar,
    pub expression: Scalar,
}

#[derive(Clone, Debug)]
pub struct InputDef {
    pub name: At<String>,
    pub alias: Option<At<String>>,
}

#[derive(Clone, Debug)]
pub struct JoinDef {
    pub with: Scalar,
    pub alias: Option<Scalar>,
    pub kind: JoinKind,
    pub on: Scalar,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct KeyByDef {
    pub by: Scalar,
    pub partitions: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct OverDef {
    pub by: Option<Scalar>,
    pub specs: Vec<OverSpecDef>,
    pub grace: Duration,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub struct OverSpecDef {
    pub frame: Frame,
    pub exclude_current: bool,
    pub aggregate: Vec<Named>,
    pub span: Span,
}

/// A tumbling window.
#[derive(Clone, Debug)]
pub struct WindowDef {
    pub size: Duration,
    pub grace: Duration,
    pub offset: Duration,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum GroupByDef {
    /// `[]`: one group of everything.
    Global(Span),
    By(Scalar),
}

#[derive(Clone, Debug)]
pub enum AsDef {
    Table { latest: Option<Scalar> },
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlDef {
    /// `none`, said on purpose.
    Forever,
    After {
        after: Duration,
        downstream: bool,
    },
}

#[derive(Clone, Debug)]
pub struct RuleDef {
    pub topic: Scalar,
    pub condition: Option<Scalar>,
    pub otherwise: bool,
    pub key: Option<Scalar>,
    pub key_format: Option<At<Format>>,
    pub value: Option<Scalar>,
    pub format: Option<At<Format>>,
    pub headers: Vec<Named>,
    pub span: Span,
}

// ---- tests and generated input ---------------------------------------------------------------------------------------

/// One entry of `tests`.
#[derive(Clone, Debug)]
pub struct TestCase {
    pub name: String,
    pub given: Vec<Given>,
    pub expect: Vec<Expect>,
    pub faults: Vec<Fault>,
    /// Partitions per topic; two unless said.
    pub partitions: Option<u32>,
    pub file: FileId,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Given {
    Records(Box<GivenRecords>),
    /// Event time moves on, on all partitions.
    Advance {
        by: Duration,
        span: Span,
    },
}

#[derive(Clone, Debug)]
pub struct GivenRecords {
    /// The stream or table.
    pub source: Scalar,
    /// Where it is told apart from the row, or where there is no row.
    pub key: Option<serde_json::Value>,
    /// The whole row, key columns included. `$i` in texts is the repetition, from 0.
    pub value: Option<serde_json::Value>,
    /// A record without a value: a tombstone.
    pub delete: bool,
    pub repeat: u64,
    /// The timestamp column moves by this from one repetition to the next.
    pub every: Option<Duration>,
    /// Kafka's record timestamp: RFC 3339 or epoch milliseconds.
    pub timestamp: Option<serde_json::Value>,
    pub headers: Vec<(String, String)>,
    pub partition: Option<u32>,
    pub span: Span,
}

#[derive(Clone, Debug)]
pub enum Expect {
    Topic(ExpectTopic),
    /// Exactly these rows, in any order; each names at least the columns to compare.
    Table {
        table: Scalar,
        rows: Vec<serde_json::Value>,
        span: Span,
    },
    /// Topics without a record.
    Nothing {
        topics: Vec<Scalar>,
        span: Span,
    },
}

#[derive(Clone, Debug)]
pub struct ExpectTopic {
    pub topic: Scalar,
    pub count: Option<u64>,
    pub contains: Vec<serde_json::Value>,
    pub exactly: Option<Vec<serde_json::Value>>,
    /// Keys of the tombstones.
    pub tombstones: Option<Vec<serde_json::Value>>,
    pub span: Span,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// After so many fetched records.
    CrashAfter(u64),
    RebalanceAfter(u64),
    DuplicateFetchAt(u64),
}

/// One entry of `dev`: how rows of a stream or table are made up.
#[derive(Clone, Debug)]
pub struct Generator {
    pub source: Scalar,
    /// Records per second.
    pub rate: f64,
    /// Columns and expressions; one may use the columns before it.
    pub values: Vec<Named>,
    pub span: Span,
}
