//! The checked plan: what runs, with every name resolved.
//!
//! What it is: plain data made by the planner from a topology file. Everything above works from it alone; no YAML and no
//! text is looked at after planning.
//! What it is not: it holds no state and no addresses, and partition counts only where the file says them (the rest is
//! learnt from the log at start).
//!
//! How rows are laid out
//! - A node's output rows have exactly the slots of its `schema`. Slots from `visible` on are *hidden*: key columns that a
//!   `select` dropped, kept so that the key is always a list of slots of the row.
//! - A stream without `key:` has the hidden key column `_key BYTES`.
//! - A stream-table join's `on` and `select` see the concatenation of both sides' rows, left first.
//!
//! Invariants
//! - `nodes` is in topological order: an edge leads to a higher index.
//! - A store belongs to exactly one node, or to one source that is a table, and its name is the step's or table's.
//! - Two sub-topologies never read the same topic (EXACTLY-ONCE rule 7).

use std::sync::Arc;
use std::time::Duration;

use crate::expression::{AggregateSet, Expression, OverSet, PseudoColumns};
use crate::format::Format;
use crate::ids::{EventTime, StoreId, SubTopologyId, TopicName};
use crate::schema::Schema;

pub use super::fingerprint::{Fingerprint, Misreading, store_of};

#[derive(Clone, Debug)]
pub struct Plan {
    /// The application id: consumer group and prefix of internal topics.
    pub name: String,
    pub description: Option<String>,
    pub guarantee: Guarantee,
    pub sub_topologies: Vec<SubTopology>,
    /// Indexed by `StoreId`.
    pub stores: Vec<StorePlan>,
    pub tables: Vec<TablePlan>,
    /// Topics that Sidestream creates and checks: repartition topics, changelogs, dead letters.
    pub internal_topics: Vec<InternalTopic>,
    /// `<name>.dead-letters`.
    pub dead_letters: TopicName,
    /// The plan in words that do not change with the order of keys: what a state directory keeps to compare.
    pub fingerprint: Fingerprint,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

/// What becomes of a record that cannot be processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    DeadLetter,
    Skip,
    Fail,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    pub name: TopicName,
    pub kind: InternalTopicKind,
    /// `None`: as many as the largest source topic of the sub-topology given has.
    pub partitions: Option<u32>,
    pub partitions_like: Option<SubTopologyId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InternalTopicKind {
    Repartition,
    Changelog,
    DeadLetters,
}

// ---- sub-topologies and sources ------------------------------------------------------------------------------------

/// What one task runs.
#[derive(Clone, Debug)]
pub struct SubTopology {
    pub id: SubTopologyId,
    /// The steps in it, for people.
    pub name: String,
    pub sources: Vec<SourcePlan>,
    pub nodes: Vec<Node>,
    /// The stores that its tasks own.
    pub stores: Vec<StoreId>,
    /// Whether any node keeps state or waits for the watermark.
    pub stateful: bool,
}

/// One source topic of a sub-topology.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    pub topic: TopicName,
    /// More than one where several streams or tables are declared over the same topic.
    pub readers: Vec<Reader>,
    pub start: Start,
    /// Streams beside this topic's table wait for it when first opened.
    pub bootstrap: bool,
    /// `Some` for our own repartition topics: the sub-topologies that write it, whose tasks' watermarks it carries.
    pub repartition: Option<RepartitionSource>,
}

#[derive(Clone, Debug)]
pub struct RepartitionSource {
    pub upstream: SubTopologyId,
}

/// Where a new application begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    At(EventTime),
}

/// How the records of a topic become rows of one stream or table.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The stream's or table's name; of a repartition topic the step's.
    pub name: Arc<str>,
    pub encoding: Encoding,
    /// All columns, key columns first.
    pub schema: Schema,
    /// How many of the slots, from the first, a user sees.
    pub visible: usize,
    /// Slots of the key columns.
    pub key: Vec<usize>,
    /// Per slot: whether anything downstream reads it. Others stay NULL.
    pub used: Vec<bool>,
    pub pseudo: PseudoColumns,
    /// Over the schema; `None` is the record's timestamp.
    pub timestamp: Option<Expression>,
    pub watermark: WatermarkPlan,
    pub on_error: OnError,
    pub kind: ReaderKind,
    pub next: Vec<Edge>,
}

#[derive(Clone, Debug)]
pub enum Encoding {
    /// The topic's records are the user's.
    Declared { key: Format, value: Format },
    /// Our own envelope (`format::internal`).
    Internal,
}

#[derive(Clone, Debug)]
pub enum ReaderKind {
    Stream,
    /// Last value per key, kept in the store.
    Table {
        store: StoreId,
    },
    /// Changes of a table, behind a repartition topic: old and new rows.
    TableChanges,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatermarkPlan {
    pub delay: Duration,
    pub idle_timeout: Duration,
    pub max_ahead: Option<Duration>,
}

// ---- nodes -----------------------------------------------------------------------------------------------------------

/// Index of a node in its sub-topology.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub to: NodeId,
    pub port: Port,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Main,
    /// The table side of a join.
    Table,
}

#[derive(Clone, Debug)]
pub struct Node {
    /// Its index in `SubTopology::nodes`.
    pub id: NodeId,
    /// The step that it belongs to.
    pub step: Arc<str>,
    pub operator: OperatorPlan,
    /// Output rows.
    pub schema: Schema,
    /// How many of the slots, from the first, a user sees.
    pub visible: usize,
    /// Slots of the key columns in output rows.
    pub key: Vec<usize>,
    pub output: Shape,
    pub on_error: OnError,
    /// Whether it is to hear of a table's rows that have got a later event time and nothing else: something goes by that
    /// (FIRST, LAST, a ttl, a row's right to a new key), here or behind.
    pub retimed: bool,
    pub next: Vec<Edge>,
}

impl Node {
    /// All edges that leave it.
    pub fn edges(&self) -> impl Iterator<Item = &Edge> {
        let closed = match &self.operator {
            OperatorPlan::Aggregate(plan) => &plan.closed[..],
            _ => &[],
        };
        self.next.iter().chain(closed)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Stream,
    Table,
}

#[derive(Clone, Debug)]
pub enum OperatorPlan {
    /// Rows for which it does not hold go no further; of a table, they are deletes.
    Filter(Expression),
    /// One expression per output slot.
    Project(Vec<Expression>),
    /// The table's row of the same key beside the stream's row. Output: left slots, then right slots (NULL if none).
    StreamTableJoin(StreamTableJoinPlan),
    /// The last value per key.
    Materialize(MaterializePlan),
    Aggregate(AggregatePlan),
    Over(OverPlan),
    /// A table's changes as a stream of rows, with `_op` as the last visible slot.
    ToStream,
    /// To a repartition topic. Ends the sub-topology.
    Repartition(RepartitionPlan),
    /// To topics of the user.
    Sink(SinkPlan),
}

#[derive(Clone, Debug)]
pub struct StreamTableJoinPlan {
    pub kind: JoinKind,
    /// The store of the table side; in the same sub-topology.
    pub store: StoreId,
    /// Over the stream's row: the table's key, in the order of the store's key columns.
    pub key: Vec<Expression>,
    /// Over both rows: further conjuncts of `on`.
    pub condition: Option<Expression>,
    /// Filters and projections between the table's store and the join, where the table is a stateless step over another.
    pub view: Vec<OperatorPlan>,
    /// Slots of the table's row as the join sees it.
    pub table_columns: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
}

#[derive(Clone, Debug)]
pub struct MaterializePlan {
    pub store: StoreId,
    /// Slots of the key columns in the rows, input and output alike.
    pub key: Vec<usize>,
    /// `{table: {latest: at}}`: a row replaces the kept one unless this is lower.
    pub latest: Option<Expression>,
    /// Of a table under a new key: the slots of the key that its rows had before, which tell apart rows that meet under one
    /// new key. Empty otherwise.
    pub former_key: Vec<usize>,
    pub emit: Emit,
    pub ttl: Option<Ttl>,
}

#[derive(Clone, Debug)]
pub struct AggregatePlan {
    pub store: StoreId,
    /// What flows in.
    pub input: Shape,
    /// Over input rows, one per group column; the first slots of the output, before `window_start`, `window_end`.
    pub group: Vec<Expression>,
    pub window: Option<WindowPlan>,
    pub aggregates: Arc<AggregateSet>,
    pub emit: Emit,
    /// Unwindowed only.
    pub ttl: Option<Ttl>,
    /// A group of a table that has become empty stays, at its empty value.
    pub keep_empty: bool,
    pub late: Late,
    /// Get each group of a window once, when it closes, whatever `emit` says.
    pub closed: Vec<Edge>,
}

/// Tumbling windows: `[n * size + offset, (n + 1) * size + offset)` in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowPlan {
    pub size_ms: i64,
    pub offset_ms: i64,
    pub grace_ms: i64,
    /// Closed windows stay queryable until the watermark has passed their end by this.
    pub retention_ms: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// A row per input record.
    Each,
    /// The latest once per key and commit.
    Changes,
    /// Once, at close.
    Final,
}

#[derive(Clone, Debug)]
pub enum Late {
    Drop,
    To(TopicName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl {
    pub after_ms: i64,
    /// Whether the deletion is passed on downstream.
    pub downstream: bool,
}

#[derive(Clone, Debug)]
pub struct OverPlan {
    /// Output: input slots, then one slot per aggregate of each specification.
    pub store: StoreId,
    /// Over input rows: the key of the store. NULL in a single column drops the record from the state but not the row.
    pub by: Vec<Expression>,
    /// What is kept of each record: expressions over the input row (arguments of aggregates and LAGs, filters).
    pub kept: Vec<Expression>,
    pub specs: Vec<OverSpec>,
    /// How long records are kept behind the watermark: the longest range + grace.
    pub grace_ms: i64,
    /// A key whose last record lies that far behind the watermark is forgotten.
    pub ttl_ms: Option<i64>,
}

#[derive(Clone, Debug)]
pub struct OverSpec {
    pub frame: Frame,
    pub exclude_current: bool,
    /// Over rows of `kept`.
    pub set: Arc<OverSet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Event time in (t - range, t].
    Range { ms: i64 },
    /// The last n by event time.
    Rows { n: usize },
    /// All up to t.
    Unbounded,
}

#[derive(Clone, Debug)]
pub struct RepartitionPlan {
    pub topic: TopicName,
    /// Over the node's input rows: the new key.
    pub key: Vec<Expression>,
    /// The key's columns, and the format of the key bytes that choose the partition. Behind the topic everything is
    /// co-partitioned with what other clients wrote: where a table's source topic joins in, its key format and types;
    /// else `kafka` for one column that it can hold, `json` otherwise.
    pub key_schema: Schema,
    pub key_format: Format,
    pub input: Shape,
}

#[derive(Clone, Debug)]
pub struct SinkPlan {
    /// In order. All that hold, else those that say `otherwise`.
    pub rules: Vec<SinkRule>,
    pub input: Shape,
}

#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a yes or no of the language")]
pub struct SinkRule {
    pub topic: TopicName,
    pub condition: Option<Expression>,
    pub otherwise: bool,
    /// Output key columns over the input row, with their names and types. None for the one group of `group_by: []`, whose
    /// key is `{}`.
    pub key: Vec<Expression>,
    pub key_schema: Schema,
    pub key_format: Format,
    /// True where the key is the step's own: a row of which its single column is NULL has no place, as behind a
    /// repartition topic.
    pub key_is_own: bool,
    /// True where the key is the source record's own, unchanged in bytes: it is passed through.
    pub key_passthrough: bool,
    pub value: Vec<Expression>,
    pub value_schema: Schema,
    pub value_format: Format,
    pub headers: Vec<(Box<str>, Expression)>,
    /// Whether input headers pass through.
    pub pass_headers: bool,
    /// Whether a table's rows are written without tombstones, because `key` does not identify its rows.
    pub append_only: bool,
}

// ---- stores and tables ---------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
pub struct StorePlan {
    pub id: StoreId,
    /// `<step>[-<clause>[-<alias>]]`, unique; also the name of its column family and metrics.
    pub name: Arc<str>,
    pub kind: StoreKind,
    /// Of a window store the group columns, without `window_start`; of a list store the columns of `by`.
    pub key: Schema,
    /// What is stored per key, without the key columns. Of an aggregate: the columns of `AggregateSet::state`, and after
    /// them, where the input is a table, [`GROUP_SIZE`]. Of a list: the kept expressions, each named by its text.
    /// Of a table: the other columns in their order. Of a meta store: nothing.
    pub value: Schema,
    pub backend: BackendKind,
    pub changelog: ChangelogPlan,
    pub sub_topology: SubTopologyId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// key -> row
    KeyValue,
    /// (window_start, key) -> row; `window_start` leads, so that closing and expiry are ranges.
    Window,
    /// key -> rows in event-time order
    List,
    /// The task's time state (EXACTLY-ONCE rule 16).
    Meta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    RocksDb,
    Memory,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangelogPlan {
    Own(TopicName),
    /// EXACTLY-ONCE rule 21: the source topic itself, if it turns out to be compacted; else the own one named here.
    SourceIfCompacted {
        source: TopicName,
        own: TopicName,
    },
}

/// The last state column of an aggregate over a table: how many rows the group has (BIGINT).
pub const GROUP_SIZE: &str = "_rows";

/// How the partition of a key is found: murmur2 over the bytes that this format gives the key's columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partitioning {
    pub format: Format,
    /// Columns of the table's key, without `window_start`; their types as they are written.
    pub key: Schema,
}

/// A table that can be queried: a store, and what is done to its rows on the way out.
#[derive(Clone, Debug)]
pub struct TablePlan {
    pub name: Arc<str>,
    pub store: StoreId,
    /// Key columns, `window_start` included.
    pub key: Schema,
    /// All columns as a user sees them.
    pub schema: Schema,
    /// From the store's row to the user's: the owning operator's own result first, then filters and projections.
    pub view: Vec<OperatorPlan>,
    pub queryable: bool,
    pub windowed: bool,
    /// `None` where the partition does not follow from the key (it was grouped within partitions of another key): every
    /// owner must be asked.
    pub partitioning: Option<Partitioning>,
}
