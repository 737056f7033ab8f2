//! One task: a sub-topology on one partition number. It takes fetched records in time order, runs the operators, keeps
//! their state in write-back tables, and says what a commit must write.
//!
//! What it is not: it does no network I/O of its own beyond handing records to a producer, never retries, never sleeps,
//! never decides when to commit. A worker (`runtime::worker`) drives it; a restoration (`task::restore`) prepares it.
//!
//! The life of a task
//! 1. *Opened* when its stores are restored: `Task::open` with the committed offsets.
//! 2. Fed with `offer` and `reached_end`, run with `process` until the worker decides to commit.
//! 3. `flush` emits what is due downstream and to the changelogs, and returns the [`Staged`] rows and offsets; after the
//!    transaction has been committed and the rows written, `committed` makes them the new base. Or `rollback` forgets
//!    everything since.
//! 4. Closed by dropping it. What was committed stays on disk.
//!
//! Invariants
//! - Between two commits nothing reaches the backend.
//! - `rollback` leaves the task as it was after its last commit: rows, time state and positions.

mod ahead;
pub mod facts;
pub mod input;
pub mod layout;
pub mod reader;
pub mod restore;
mod run;
mod source_rows;
pub mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use facts::{Changelog, Facts};
pub use run::{Progress, Staged};

use crate::clock::SharedClock;
use crate::ids::{EventTime, Offset, StoreId, TaskId, TopicPartition};
use crate::log::Record;
use crate::metric::{self, Counter, Counters};
use crate::operator::ahead::Keys;
use crate::operator::context::{OpenStore, RowPool, Stores};
use crate::operator::state::{KeyBuffer, NodeState};
use crate::probe::{self, Rule};
use crate::row::Origin;
use crate::store::cache::{Access, Table};
use crate::store::list::ListTable;
use crate::store::{self, SharedBackend, StorePartition};
use crate::topology::Plan;
use crate::topology::plan::{Late, NodeId, OperatorPlan, ReaderKind, StoreKind, SubTopology};
use input::{Input, Needs};
use layout::LayoutRow;
use time::{InputKind, TaskTime};

/// Why a task could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The rows were written by another version of the topology, and this one cannot read them.
    #[error(
        "the state of `{store}` was written by another version of this topology and would be misread: {reason}; give the \
         step a new name, undo the change, or clear its state with `sidestream reset --step {store}`"
    )]
    Layout { store: String, reason: String },
}

/// What a task is made from. Its stores have been restored.
#[derive(Debug)]
pub struct OpenTask {
    pub id: TaskId,
    pub plan: Arc<Plan>,
    pub facts: Arc<Facts>,
    pub backend: SharedBackend,
    pub clock: SharedClock,
    pub counters: Arc<Counters>,
    /// Per source of the sub-topology: the next offset to read.
    pub positions: Vec<Offset>,
    /// Per source: where a table's first reading ends; streams wait until then.
    pub bootstrap_ends: Vec<Option<Offset>>,
    /// For all its row caches together.
    pub cache_bytes: usize,
    /// How long a record waits for known unread data of other inputs; `None` is without limit.
    pub sync_max_wait: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub struct Task {
    id: TaskId,
    plan: Arc<Plan>,
    facts: Arc<Facts>,
    clock: SharedClock,
    counters: Arc<Counters>,
    sync_max_wait: Option<Duration>,
    inputs: Vec<TaskInput>,
    stores: Stores,
    nodes: Vec<NodeState>,
    /// Per node: by how much its watermark lies behind the task's.
    holds: Vec<i64>,
    /// Nodes that act when the watermark moves.
    windows: Vec<NodeId>,
    time: TaskTime,
    /// The watermark that the nodes have acted on: what is sent while they act on a newer one still carries this.
    acted_on: EventTime,
    /// As of the last commit: what a rollback goes back to.
    committed_time: TaskTime,
    stored_time: Option<Vec<u8>>,
    /// The time state that the staged rows hold.
    staged_time: Option<Vec<u8>>,
    meta: Option<StoreId>,
    layouts: Vec<LayoutRow>,
    /// Records are to be dead-lettered without being processed: the log refused what they lead to, and why.
    poison: BTreeMap<(usize, Offset), String>,
    /// Since when a record has waited for other inputs.
    waiting_since: Option<Duration>,
    /// The watermark at which the last complete look for expired rows began.
    swept_at: EventTime,
    empty_origin: Origin,
    rows: RowPool,
    /// What the records that wait will look up, while stores want to read ahead.
    ahead: Keys,
    /// For the keys of tables over source topics.
    table_key: KeyBuffer,
    /// How many rows of each store the next commit writes.
    staged_rows: Vec<(StoreId, u64)>,
    dirty: bool,
    processed_since_commit: u64,
    last_processed: Option<(usize, Offset)>,
}

#[derive(Debug)]
struct TaskInput {
    input: Input,
    /// The source of the sub-topology that it is a partition of.
    source: usize,
    committed: Offset,
    records: Counter,
    bytes: Counter,
    /// Records and bytes that the counters have not been told of.
    uncounted: (u64, u64),
}

impl Task {
    /// # Errors
    /// `Layout` where stored rows cannot be read by this plan; `Store` where they cannot be read at all.
    pub fn open(open: OpenTask) -> Result<Self, Error> {
        let OpenTask {
            id,
            plan,
            facts,
            backend,
            clock,
            counters,
            positions,
            bootstrap_ends,
            cache_bytes,
            sync_max_wait,
        } = open;
        let sub = &plan.sub_topologies[id.sub_topology.0 as usize];
        let now = clock.monotonic();
        let holds = holds(sub);
        let needs = needs(sub);
        let meta = sub.stores.iter().copied().find(|id| plan.stores[id.index()].kind == StoreKind::Meta);
        let meta_at = meta.map(|store| StorePartition { store, partition: id.partition });
        let (stores, mut layouts) = open_stores(&plan, &facts, id, &backend, meta_at, cache_bytes)?;
        let mut inputs = Vec::new();
        for (source, partition) in facts.inputs(&plan, id).into_iter().enumerate() {
            let Some(partition) = partition else { continue };
            let source_plan = &sub.sources[source];
            let mut earlier = Vec::new();
            if let ([reader], Some(_)) = (&source_plan.readers[..], &source_plan.repartition) {
                let meta = meta_at.map(|at| layout::Meta { backend: &*backend, at });
                let topic_id = facts.topics.get(&source_plan.topic).map_or("", |topic| topic.id.as_str());
                let (known, layout) = layout::of_topic(&source_plan.topic, topic_id, &reader.schema, meta)?;
                layouts.extend(layout);
                earlier = known;
            }
            let position = positions.get(source).copied().unwrap_or_default();
            let bootstrap = bootstrap_ends.get(source).copied().flatten();
            let topic = partition.topic.as_str();
            inputs.push(TaskInput {
                source,
                committed: position,
                records: counters.counter(&metric::RECORDS_READ, &[topic]),
                bytes: counters.counter(&metric::BYTES_READ, &[topic]),
                uncounted: (0, 0),
                input: Input::new(source_plan, partition.partition, position, bootstrap, needs, now, &earlier),
            });
        }

        let mut time = TaskTime::new(inputs.iter().map(|input| {
            let source = &sub.sources[input.source];
            let is_stream = source.readers.iter().any(|reader| !matches!(reader.kind, ReaderKind::Table { .. }));
            let kind = match &source.repartition {
                Some(repartition) => InputKind::Upstream { tasks: facts.tasks(repartition.upstream) },
                None if is_stream => InputKind::Source,
                None => InputKind::Table,
            };
            (source.topic.clone(), kind)
        }));
        let mut stored_time = None;
        if let Some(at) = meta_at {
            backend.get(at, time::KEY, &mut |value| stored_time = value.map(<[u8]>::to_vec))?;
            if let Some(bytes) = &stored_time
                && !probe::is_broken(Rule::TimeForgotten)
            {
                time.restore(bytes)?;
            }
        }
        let nodes = NodeState::of(sub, |node| time.watermark().saturating_sub(holds[node]));
        let windows = sub
            .nodes
            .iter()
            .filter(|node| matches!(&node.operator, OperatorPlan::Aggregate(plan) if plan.window.is_some()))
            .map(|node| node.id)
            .collect();
        let empty_origin = input::no_origin(facts.representative(id.sub_topology), id.partition);
        Ok(Self {
            id,
            facts,
            clock,
            counters,
            sync_max_wait,
            inputs,
            stores,
            nodes,
            holds,
            windows,
            swept_at: time.watermark(),
            acted_on: time.watermark(),
            committed_time: time.clone(),
            time,
            stored_time,
            staged_time: None,
            meta,
            layouts,
            poison: BTreeMap::new(),
            waiting_since: None,
            empty_origin,
            rows: RowPool::default(),
            ahead: Keys::default(),
            table_key: KeyBuffer::default(),
            // The offsets of all inputs are committed when a task opens (EXACTLY-ONCE rule 6).
            dirty: true,
            staged_rows: Vec::new(),
            processed_since_commit: 0,
            last_processed: None,
            plan,
        })
    }

    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The partitions to fetch, and from where.
    pub fn inputs(&self) -> impl Iterator<Item = (&TopicPartition, Offset)> {
        self.inputs.iter().map(|input| (&input.input.partition, input.input.expected()))
    }

    /// A fetched record of an input.
    pub fn offer(&mut self, input: usize, record: Record, now: Duration) {
        self.inputs[input].input.offer(record, now);
    }

    /// The fetcher has caught up with an input's log.
    pub fn reached_end(&mut self, input: usize, end: Offset) {
        self.inputs[input].input.reached_end(end);
    }

    /// Records fetched and not processed, and their bytes, of an input.
    pub fn queued(&self, input: usize) -> (usize, usize) {
        let input = &self.inputs[input].input;
        (input.queued(), input.queued_bytes())
    }

    pub fn watermark(&self) -> EventTime {
        self.time.watermark()
    }

    /// The furthest watermark of its sources.
    pub fn furthest(&self) -> EventTime {
        self.time.furthest()
    }

    /// Whether a commit would write anything.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    pub fn processed_since_commit(&self) -> u64 {
        self.processed_since_commit
    }

    /// The record that was processed last: its input and offset.
    pub fn last_processed(&self) -> Option<(usize, Offset)> {
        self.last_processed
    }

    /// Whether every record of an input that has been fetched is committed.
    pub fn is_settled(&self, input: usize) -> bool {
        self.processed_since_commit == 0 && self.inputs[input].input.queued() == 0
    }

    /// The next record of an input to be processed.
    pub fn position(&self, input: usize) -> Offset {
        self.inputs[input].input.position()
    }

    /// What this record leads to was refused by the log, for that reason: it is dead-lettered when it comes again.
    pub fn set_poison(&mut self, input: usize, offset: Offset, reason: String) {
        self.poison.insert((input, offset), reason);
    }

    fn sub(&self) -> &SubTopology {
        &self.plan.sub_topologies[self.id.sub_topology.0 as usize]
    }
}

fn open_stores(
    plan: &Plan,
    facts: &Facts,
    id: TaskId,
    backend: &SharedBackend,
    meta: Option<StorePartition>,
    cache_bytes: usize,
) -> Result<(Stores, Vec<LayoutRow>), Error> {
    let sub = &plan.sub_topologies[id.sub_topology.0 as usize];
    let meta = meta.map(|at| layout::Meta { backend: &**backend, at });
    let mut stores = Stores { open: (0..plan.stores.len()).map(|_| None).collect() };
    let mut layouts = Vec::new();
    let cached = sub.stores.iter().filter(|store| plan.stores[store.index()].kind != StoreKind::Meta).count();
    let share = cache_bytes / cached.max(1);
    for &store in &sub.stores {
        let store_plan = &plan.stores[store.index()];
        let at = StorePartition { store, partition: id.partition };
        let access = match store_plan.kind {
            StoreKind::Meta => continue,
            StoreKind::Window => Access::ByKeyAndRange,
            StoreKind::KeyValue | StoreKind::List => Access::ByKey,
        };
        let changelog = facts.changelog(store);
        layouts.extend(layout::check_plan(store_plan, changelog, plan, meta)?);
        let (codec, layout) = layout::codec(store_plan, &changelog.topic_id, &sub.nodes, meta)?;
        layouts.extend(layout);
        let open = if store_plan.kind == StoreKind::List {
            OpenStore::List(Box::new(ListTable::new(at, backend.clone(), codec, share)))
        } else {
            OpenStore::Table(Box::new(Table::new(at, backend.clone(), codec, access, share)))
        };
        stores.open[store.index()] = Some(open);
    }
    Ok((stores, layouts))
}

/// By how much each node's watermark lies behind the task's: what the steps before it hold back (LANGUAGE, "Time").
fn holds(sub: &SubTopology) -> Vec<i64> {
    let mut holds = vec![0_i64; sub.nodes.len()];
    for node in &sub.nodes {
        let own = match &node.operator {
            OperatorPlan::Aggregate(plan) => plan.window.map_or(0, |window| window.grace_ms),
            _ => 0,
        };
        let behind = holds[node.id.index()].saturating_add(own);
        for edge in node.edges() {
            let hold = &mut holds[edge.to.index()];
            *hold = (*hold).max(behind);
        }
    }
    holds
}

/// Whether record keys and headers must be kept for what leaves the sub-topology.
fn needs(sub: &SubTopology) -> Needs {
    let mut needs = Needs::default();
    for node in &sub.nodes {
        match &node.operator {
            OperatorPlan::Sink(plan) => {
                needs.key |= plan.rules.iter().any(|rule| rule.key_passthrough);
                needs.headers |= plan.rules.iter().any(|rule| rule.pass_headers);
            }
            // A late record keeps its key and headers.
            OperatorPlan::Aggregate(plan) if matches!(plan.late, Late::To(_)) => {
                needs.key = true;
                needs.headers = true;
            }
            _ => {}
        }
    }
    needs
}
