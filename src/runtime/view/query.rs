//! Reading committed rows of this instance's tables.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::format::Encoder;
use crate::ids::{EventTime, Offset, Partition, TaskId, TopicPartition};
use crate::log::partitioner::partition_of;
use crate::operator::view;
use crate::row::{Origin, Row};
use crate::schema::Type;
use crate::store::cache::Stored;
use crate::store::row::RowCodec;
use crate::store::{Direction, KeyRange, SharedBackend, StorePartition, key};
use crate::task::{Facts, input, layout};
use crate::topology::plan::{StoreKind, StorePlan, TablePlan};
use crate::value::Value;

use super::{InputLag, Owner, TaskState, View};

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
        let reader = Reading::new(self, table)?;
        let Some(partition) = reader.partition_of(key) else {
            return Ok(Located { partition: None, owner: Owner::Local });
        };
        let owner = self.owner(TaskId { sub_topology: reader.store.sub_topology, partition });
        Ok(Located { partition: Some(partition), owner })
    }

    /// The rows of a key in the partitions that this instance owns: at most one, or one per window in order. `key` has
    /// the table's key columns without `window_start`.
    pub fn get(&self, table: &TablePlan, key: &[Value], windows: WindowRange) -> Result<Vec<FoundRow>, QueryError> {
        let reader = Reading::new(self, table)?;
        let mut key_bytes = Vec::new();
        key::encode_key(key, &reader.store.key, &mut key_bytes)
            .map_err(|error| QueryError::BadKey { reason: error.to_string() })?;
        let partitions = match reader.partition_of(key) {
            Some(partition) => vec![partition],
            None => reader.local_partitions(),
        };
        let mut found = Vec::new();
        for partition in partitions {
            let part = reader.part(partition)?;
            match reader.store.kind {
                StoreKind::Window => part.windows_of(&key_bytes, windows, &mut found)?,
                StoreKind::KeyValue | StoreKind::List | StoreKind::Meta => part.row_of(&key_bytes, &mut found)?,
            }
        }
        found.sort_by(|a, b| a.encoded_key.cmp(&b.encoded_key));
        Ok(found)
    }

    /// A page of the rows in the partitions that this instance owns, in encoded key order.
    pub fn scan(&self, table: &TablePlan, request: &ScanRequest) -> Result<Vec<FoundRow>, QueryError> {
        let reader = Reading::new(self, table)?;
        let range = reader.range(request)?;
        let mut found = Vec::new();
        for partition in reader.local_partitions() {
            reader.part(partition)?.page(&range, request.limit, &mut found)?;
        }
        found.sort_by(|a, b| a.encoded_key.cmp(&b.encoded_key));
        found.truncate(request.limit);
        Ok(found)
    }
}

/// Everything that reading one table needs, taken once.
struct Reading<'a> {
    view: &'a View,
    table: &'a TablePlan,
    store: &'a StorePlan,
    facts: Arc<Facts>,
    backend: SharedBackend,
}

/// Encoded keys `from <= key < to` that hold `infix` behind the window's start.
struct Range {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    infix: Vec<u8>,
}

impl<'a> Reading<'a> {
    fn new(view: &'a View, table: &'a TablePlan) -> Result<Self, QueryError> {
        let starting = |reason: &str| QueryError::Starting { reason: reason.to_string() };
        let facts = view.facts().ok_or_else(|| starting("Kafka has not been reached yet"))?;
        let backend = view.backend().ok_or_else(|| starting("the state has not been opened yet"))?;
        let store = &view.plan.stores[table.store.index()];
        Ok(Self { view, table, store, facts, backend })
    }

    fn is_windowed(&self) -> bool {
        self.store.kind == StoreKind::Window
    }

    /// By the bytes that the key has in the topic; `None` where those are not known.
    fn partition_of(&self, key: &[Value]) -> Option<Partition> {
        let partitioning = self.table.partitioning.as_ref()?;
        let mut bytes = Vec::new();
        Encoder::new(partitioning.format, &partitioning.key).encode(key, &mut bytes).ok()?;
        Some(partition_of(&bytes, self.facts.tasks(self.store.sub_topology)))
    }

    fn local_partitions(&self) -> Vec<Partition> {
        let tasks = self.view.tasks();
        let ours = tasks.iter().filter(|task| task.id.sub_topology == self.store.sub_topology);
        ours.map(|task| task.id.partition).collect()
    }

    /// One partition that this instance owns and whose state is complete.
    fn part(&self, partition: Partition) -> Result<Part<'_>, QueryError> {
        let id = TaskId { sub_topology: self.store.sub_topology, partition };
        let task = self.view.tasks().into_iter().find(|task| task.id == id);
        match task.map(|task| task.state) {
            None => return Err(QueryError::NoOwner { partition }),
            Some(TaskState::Restoring(_) | TaskState::Failed(_)) => return Err(QueryError::Restoring { partition }),
            Some(TaskState::Running | TaskState::Parked(_)) => {}
        }
        let sub = &self.view.plan.sub_topologies[self.store.sub_topology.0 as usize];
        let stores = &self.view.plan.stores;
        let meta = sub.stores.iter().copied().find(|store| stores[store.index()].kind == StoreKind::Meta);
        let meta = meta.map(|store| layout::Meta { backend: &*self.backend, at: StorePartition { store, partition } });
        let topic_id = &self.facts.changelog(self.store.id).topic_id;
        let (codec, _) = layout::codec(self.store, topic_id, &sub.nodes, meta).map_err(|error| failed(&error))?;
        let lags = self.view.lag();
        let ours: Vec<&InputLag> = lags.iter().filter(|lag| lag.task == id).collect();
        let position = ours.iter().filter_map(|lag| Some((lag.input.clone(), lag.committed?))).collect();
        let lag = ours.iter().map(|lag| lag.lag).sum();
        let at = StorePartition { store: self.store.id, partition };
        let topic = self.facts.representative(self.store.sub_topology);
        Ok(Part { reading: self, at, codec, position, lag, origin: input::no_origin(topic, partition) })
    }

    fn range(&self, request: &ScanRequest) -> Result<Range, QueryError> {
        let mut infix = Vec::new();
        if let Some(prefix) = &request.prefix {
            let first = self.store.key.columns().first().map(|column| &column.ty);
            if first != Some(&Type::String) {
                let reason =
                    format!("table `{}` has no prefixes: its key does not begin with a STRING", self.table.name);
                return Err(QueryError::BadRange { reason });
            }
            key::push_text_prefix(prefix, &mut infix);
        }
        let (mut from, to) = if self.is_windowed() {
            let bound = |time: i64| {
                let mut bytes = Vec::new();
                key::push_window_start(EventTime(time), &mut bytes);
                bytes
            };
            (request.windows.from.map(bound).unwrap_or_default(), request.windows.to.map(bound))
        } else {
            (infix.clone(), key::prefix_end(&infix))
        };
        if let Some(after) = &request.after {
            // The smallest bytes above it.
            let mut next = after.clone();
            next.push(0);
            from = from.max(next);
        }
        Ok(Range { from, to, infix })
    }
}

/// One partition of a table.
struct Part<'a> {
    reading: &'a Reading<'a>,
    at: StorePartition,
    codec: RowCodec,
    position: Vec<(TopicPartition, Offset)>,
    lag: Option<u64>,
    origin: Origin,
}

impl Part<'_> {
    fn row_of(&self, key_bytes: &[u8], found: &mut Vec<FoundRow>) -> Result<(), QueryError> {
        let mut decoded = Ok(None);
        let mut decode = |value: Option<&[u8]>| {
            if let Some(value) = value {
                decoded = self.decode(key_bytes, value);
            }
        };
        self.reading.backend.get(self.at, key_bytes, &mut decode).map_err(|error| failed(&error))?;
        found.extend(decoded?);
        Ok(())
    }

    /// Every window of a key: looks for the key in one window, then jumps to the next window that there is.
    fn windows_of(&self, key_bytes: &[u8], range: WindowRange, found: &mut Vec<FoundRow>) -> Result<(), QueryError> {
        let mut start = EventTime(range.from.unwrap_or(i64::MIN));
        let end = range.to.map(EventTime);
        loop {
            let mut wanted = Vec::with_capacity(8 + key_bytes.len());
            key::push_window_start(start, &mut wanted);
            wanted.extend_from_slice(key_bytes);
            // The first entry that is not before the key in this window.
            let mut entry = None;
            let mut take = |key: &[u8], value: &[u8]| {
                entry = Some((key.to_vec(), value.to_vec()));
                ControlFlow::Break(())
            };
            let rest = KeyRange { from: &wanted, to: None };
            self.reading.backend.scan(self.at, rest, Direction::Forward, &mut take).map_err(|error| failed(&error))?;
            let Some((key, value)) = entry else { return Ok(()) };
            let (window, rest) = key::split_windowed_key(&key).map_err(|error| failed(&error))?;
            if end.is_some_and(|end| window >= end) {
                return Ok(());
            }
            // Each look goes forward: an entry of this very window is not before the key.
            start = match rest.cmp(key_bytes) {
                Ordering::Less => window,
                Ordering::Equal => {
                    found.extend(self.decode(&key, &value)?);
                    window.saturating_add(1)
                }
                Ordering::Greater => window.saturating_add(1),
            };
            if window == EventTime::MAX {
                return Ok(());
            }
        }
    }

    fn page(&self, range: &Range, limit: usize, found: &mut Vec<FoundRow>) -> Result<(), QueryError> {
        let mut taken = 0;
        let mut failure = None;
        let infix_at = if self.reading.is_windowed() { 8 } else { 0 };
        let mut take = |key: &[u8], value: &[u8]| {
            if !key.get(infix_at..).is_some_and(|rest| rest.starts_with(&range.infix)) {
                return ControlFlow::Continue(());
            }
            match self.decode(key, value) {
                Ok(Some(row)) => {
                    found.push(row);
                    taken += 1;
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
            if taken >= limit || failure.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let keys = KeyRange { from: &range.from, to: range.to.as_deref() };
        self.reading.backend.scan(self.at, keys, Direction::Forward, &mut take).map_err(|error| failed(&error))?;
        failure.map_or(Ok(()), Err)
    }

    /// `None` where a filter of the table leaves the row out.
    fn decode(&self, key_bytes: &[u8], value: &[u8]) -> Result<Option<FoundRow>, QueryError> {
        let Reading { table, store, .. } = self.reading;
        let (row, time) = self.codec.decode(value).map_err(|error| failed(&error))?;
        let stored = Stored { row, time: time.unwrap_or(EventTime::MIN) };
        let shown = view::row_of(table, store, key_bytes, &stored, &self.origin).map_err(|error| failed(&error))?;
        let Some(mut row) = shown else { return Ok(None) };
        // Behind the visible columns stand key columns that a `select` dropped.
        row.truncate(table.schema.len());
        let (start, keys) = view::split_key(store, key_bytes).map_err(|error| failed(&error))?;
        let mut keys = keys.into_iter();
        let key = table
            .key
            .columns()
            .iter()
            .map(|column| match start {
                Some(start) if &*column.name == WINDOW_START => Value::Timestamp(start.micros()),
                Some(_) | None => keys.next().unwrap_or(Value::Null),
            })
            .collect();
        Ok(Some(FoundRow {
            encoded_key: key_bytes.to_vec(),
            key,
            row,
            partition: self.at.partition,
            position: self.position.clone(),
            lag: self.lag,
        }))
    }
}

const WINDOW_START: &str = "window_start";

fn failed(error: &dyn std::fmt::Display) -> QueryError {
    QueryError::Failed { reason: error.to_string() }
}
