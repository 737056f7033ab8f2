//! The read-only view of a running instance: what HTTP and the command line show, and what queries read.
//!
//! What it is: one shared value that the runtime writes and everybody else reads. It exists before Kafka has been
//! reached, so that `/readyz` can say what is being waited for.
//! What it is not: it decides nothing and does no network I/O; forwarding a read to another instance is HTTP's work.
//!
//! Invariants
//! - Rows come from the backend alone, so reads see committed state.
//! - Once ready, an instance stays ready until it stops; what happens later is shown as degraded.

pub mod condition;
pub mod query;
pub mod restoring;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use crate::clock::SharedClock;
use crate::ids::{EventTime, Offset, Partition, SubTopologyId, TaskId, TopicPartition};
use crate::metric::{self, Counters};
use crate::store::SharedBackend;
use crate::task::Facts;
use crate::topology::Plan;

pub use condition::{Condition, Conditions, Note, Raised};
pub use query::{FoundRow, Located, QueryError, ScanRequest, WindowRange};

/// See the module.
#[derive(Debug)]
pub struct View {
    pub plan: Arc<Plan>,
    pub counters: Arc<Counters>,
    clock: SharedClock,
    started: Duration,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    phase: Phase,
    conditions: Conditions,
    facts: Option<Arc<Facts>>,
    backend: Option<SharedBackend>,
    tasks: BTreeMap<TaskId, TaskView>,
    committed: HashMap<TopicPartition, CommittedCell>,
    /// With the time at which they were asked for, on the monotonic clock.
    ends: HashMap<TopicPartition, (Offset, Duration)>,
    /// Where each task's owner answers queries, from the last stable table.
    endpoints: BTreeMap<TaskId, String>,
}

/// Who this process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub instance_id: String,
    /// HOST:PORT under which other instances reach its HTTP.
    pub endpoint: String,
}

/// Where the instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not yet ready for the first time.
    Starting,
    Running,
    Stopping,
    Stopped,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// Why it is not ready; empty when it is.
    pub reasons: Vec<Note>,
    /// What is amiss while ready.
    pub degraded: Vec<Note>,
}

/// One owned task.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskView {
    pub id: TaskId,
    pub state: TaskState,
    /// The worker that runs it.
    pub worker: Option<usize>,
    pub watermark: Option<EventTime>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TaskState {
    Restoring(RestoreProgress),
    Running,
    /// With the reason.
    Parked(String),
    /// Could not be opened, with the reason.
    Failed(String),
}

/// How far the restoration of a task has come, over all its stores.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RestoreProgress {
    /// Changelog records applied.
    pub records: u64,
    pub bytes: u64,
    /// Offsets to go through in all. Control records and compacted ones count, so `done` is what to compare with.
    pub total: u64,
    pub done: u64,
    /// `None` before anything can be said.
    pub remaining: Option<Duration>,
}

/// How far the worker that owns an input has come with it.
#[derive(Clone, Debug, Default)]
pub struct CommittedCell(Arc<Reached>);

/// -1 before anything is known.
#[derive(Debug)]
struct Reached {
    committed: AtomicI64,
    passed: AtomicI64,
}

impl Default for Reached {
    fn default() -> Self {
        Self { committed: AtomicI64::new(-1), passed: AtomicI64::new(-1) }
    }
}

impl CommittedCell {
    /// The committed offset.
    pub fn set(&self, offset: Offset) {
        self.0.committed.store(offset.0, Ordering::Relaxed);
    }

    /// All records before `offset` are committed. It may lie beyond the committed offset: what is between them are
    /// control records.
    pub fn pass(&self, offset: Offset) {
        self.0.passed.store(offset.0, Ordering::Relaxed);
    }

    pub fn get(&self) -> Option<Offset> {
        let offset = self.0.committed.load(Ordering::Relaxed);
        (offset >= 0).then_some(Offset(offset))
    }

    fn passed(&self) -> Option<Offset> {
        self.get().map(|committed| committed.max(Offset(self.0.passed.load(Ordering::Relaxed))))
    }
}

/// How far an owned input partition is behind its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputLag {
    pub input: TopicPartition,
    pub task: TaskId,
    pub committed: Option<Offset>,
    /// The high watermark as last asked for.
    pub end: Option<Offset>,
    /// In records; control records count too, but for those at the end.
    pub lag: Option<u64>,
}

/// Who answers for a task's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Local,
    /// HOST:PORT.
    Remote(String),
    /// Nobody is known to own it: a rebalance, or the first seconds of its owner.
    Unknown,
}

impl View {
    pub fn new(plan: Arc<Plan>, clock: SharedClock) -> Arc<Self> {
        let started = clock.monotonic();
        Arc::new(Self {
            plan,
            counters: Counters::shared(),
            clock,
            started,
            state: RwLock::new(State {
                identity: Identity::default(),
                phase: Phase::Starting,
                conditions: Conditions::default(),
                facts: None,
                backend: None,
                tasks: BTreeMap::new(),
                committed: HashMap::new(),
                ends: HashMap::new(),
                endpoints: BTreeMap::new(),
            }),
        })
    }

    // ---- for readers -------------------------------------------------------------------------------------------------

    pub fn identity(&self) -> Identity {
        self.state.read().identity.clone()
    }

    pub fn phase(&self) -> Phase {
        self.state.read().phase
    }

    /// Since the view was made.
    pub fn uptime(&self) -> Duration {
        self.clock.monotonic().saturating_sub(self.started)
    }

    pub fn readiness(&self) -> Readiness {
        let state = self.state.read();
        let mut notes = state.conditions.notes();
        match state.phase {
            Phase::Running => Readiness { ready: true, reasons: Vec::new(), degraded: notes },
            Phase::Starting => {
                if notes.is_empty() {
                    notes.push(if state.facts.is_none() {
                        self.note(Condition::KafkaUnreachable, "no answer from Kafka yet")
                    } else {
                        self.note(Condition::Joining, "joining the consumer group")
                    });
                }
                Readiness { ready: false, reasons: notes, degraded: Vec::new() }
            }
            Phase::Stopping | Phase::Stopped => {
                notes.push(self.note(Condition::Stopping, "shutting down"));
                Readiness { ready: false, reasons: notes, degraded: Vec::new() }
            }
        }
    }

    /// What is amiss now, in one line; empty where nothing is.
    pub fn trouble(&self) -> String {
        let notes = self.state.read().conditions.notes();
        let amiss = notes.into_iter().filter(|note| !note.condition.is_ordinary());
        amiss.map(|note| note.message).collect::<Vec<_>>().join("; ")
    }

    fn note(&self, condition: Condition, message: &str) -> Note {
        let since = self.clock.wall_micros();
        Note { condition, subject: String::new(), message: message.to_string(), since }
    }

    /// What was learnt about the topics; `None` before Kafka has been reached.
    pub fn facts(&self) -> Option<Arc<Facts>> {
        self.state.read().facts.clone()
    }

    /// `None` before the state directory has been opened.
    pub fn backend(&self) -> Option<SharedBackend> {
        self.state.read().backend.clone()
    }

    /// The tasks that this instance owns.
    pub fn tasks(&self) -> Vec<TaskView> {
        self.state.read().tasks.values().cloned().collect()
    }

    /// Per owned input partition.
    pub fn lag(&self) -> Vec<InputLag> {
        let state = self.state.read();
        let Some(facts) = &state.facts else { return Vec::new() };
        let mut lags = Vec::new();
        for task in state.tasks.keys() {
            for input in facts.inputs(&self.plan, *task).into_iter().flatten() {
                let cell = state.committed.get(&input);
                let committed = cell.and_then(CommittedCell::get);
                let end = state.ends.get(&input).map(|(end, _)| *end);
                let passed = cell.and_then(CommittedCell::passed);
                let lag = passed.zip(end).map(|(passed, end)| end.0.saturating_sub(passed.0).max(0));
                let lag = lag.and_then(|lag| u64::try_from(lag).ok());
                lags.push(InputLag { input, task: *task, committed, end, lag });
            }
        }
        lags
    }

    /// The high watermark of an input, if it was asked for at that time (monotonic clock) or later.
    pub fn end_since(&self, input: &TopicPartition, since: Duration) -> Option<Offset> {
        self.state.read().ends.get(input).filter(|(_, asked)| *asked >= since).map(|(end, _)| *end)
    }

    /// Who answers for a task's state, by the last stable table.
    pub fn owner(&self, task: TaskId) -> Owner {
        let state = self.state.read();
        if state.tasks.contains_key(&task) {
            return Owner::Local;
        }
        match state.endpoints.get(&task) {
            Some(endpoint) if *endpoint != state.identity.endpoint => Owner::Remote(endpoint.clone()),
            Some(_) | None => Owner::Unknown,
        }
    }

    /// Who answers for each partition of a sub-topology's state.
    pub fn owners(&self, sub_topology: SubTopologyId) -> BTreeMap<Partition, Owner> {
        let tasks = self.facts().map_or(0, |facts| facts.tasks(sub_topology));
        (0..tasks).map(Partition).map(|partition| (partition, self.owner(TaskId { sub_topology, partition }))).collect()
    }

    /// The other instances known, each once.
    pub fn peers(&self) -> Vec<String> {
        let state = self.state.read();
        let mut peers: Vec<String> = state.endpoints.values().cloned().collect();
        peers.retain(|endpoint| *endpoint != state.identity.endpoint && !endpoint.is_empty());
        peers.sort();
        peers.dedup();
        peers
    }

    // ---- for the runtime ---------------------------------------------------------------------------------------------

    pub fn set_identity(&self, identity: Identity) {
        self.state.write().identity = identity;
    }

    pub fn set_phase(&self, phase: Phase) {
        self.state.write().phase = phase;
    }

    pub fn set_backend(&self, backend: SharedBackend) {
        self.state.write().backend = Some(backend);
    }

    pub fn set_facts(&self, facts: Arc<Facts>) {
        self.state.write().facts = Some(facts);
    }

    /// Says that a condition holds, in the view and, when it is news, in the log. Returns whether it is.
    pub fn raise(&self, condition: Condition, subject: &str, message: &str) -> bool {
        let now = self.clock.wall_micros();
        let raised = self.state.write().conditions.raise(condition, subject, message, now);
        match raised {
            Raised::New if condition.is_ordinary() => {
                tracing::info!(condition = condition.code(), subject, reason = message, "condition raised");
            }
            Raised::New => {
                tracing::warn!(condition = condition.code(), subject, reason = message, "condition raised");
            }
            // Another cause of the same failure is news; the words for an outage change with every attempt.
            Raised::Reworded if matches!(condition, Condition::TaskFailed | Condition::TaskParked) => {
                tracing::warn!(condition = condition.code(), subject, reason = message, "condition has another reason");
            }
            Raised::Reworded => {
                tracing::debug!(condition = condition.code(), subject, reason = message, "condition reworded");
            }
            Raised::Known => return false,
        }
        true
    }

    pub fn clear(&self, condition: Condition, subject: &str) {
        if self.state.write().conditions.clear(condition, subject) {
            tracing::info!(condition = condition.code(), subject, "condition cleared");
        }
    }

    pub fn clear_all(&self, condition: Condition) {
        self.retain(condition, |_| false);
    }

    /// Clears the subjects of a condition that are not to be kept.
    pub fn retain(&self, condition: Condition, keep: impl Fn(&str) -> bool) {
        let cleared = self.state.write().conditions.retain(condition, keep);
        for subject in cleared {
            tracing::info!(condition = condition.code(), subject, "condition cleared");
        }
    }

    pub fn holds(&self, condition: Condition) -> bool {
        self.state.read().conditions.holds(condition)
    }

    /// Adds an owned task or replaces what is known about it.
    pub fn set_task(&self, task: TaskView) {
        self.state.write().tasks.insert(task.id, task);
        self.count_tasks();
    }

    pub fn set_task_state(&self, id: TaskId, state: TaskState) {
        if let Some(task) = self.state.write().tasks.get_mut(&id) {
            task.state = state;
        }
        self.count_tasks();
    }

    /// Called by workers, at most once per commit.
    pub fn set_watermark(&self, id: TaskId, watermark: EventTime) {
        if let Some(task) = self.state.write().tasks.get_mut(&id) {
            task.watermark = Some(watermark);
        }
    }

    pub fn remove_task(&self, id: TaskId) {
        {
            let mut state = self.state.write();
            state.tasks.remove(&id);
            let inputs = state.facts.as_ref().map(|facts| facts.inputs(&self.plan, id)).unwrap_or_default();
            for input in inputs.into_iter().flatten() {
                state.committed.remove(&input);
                state.ends.remove(&input);
            }
            let subject = id.to_string();
            state.conditions.clear(Condition::TaskParked, &subject);
            state.conditions.clear(Condition::TaskFailed, &subject);
            state.conditions.clear(Condition::TaskWaiting, &subject);
        }
        self.count_tasks();
    }

    fn count_tasks(&self) {
        let state = self.state.read();
        let count = |matches: fn(&TaskState) -> bool| {
            i64::try_from(state.tasks.values().filter(|task| matches(&task.state)).count()).unwrap_or(i64::MAX)
        };
        self.counters.gauge(&metric::TASKS_OWNED, &[]).set(count(|_| true));
        self.counters.gauge(&metric::TASKS_RESTORING, &[]).set(count(|state| matches!(state, TaskState::Restoring(_))));
        self.counters.gauge(&metric::TASKS_PARKED, &[]).set(count(|state| matches!(state, TaskState::Parked(_))));
    }

    /// The cell in which a worker keeps the committed offset of an input that it owns.
    pub fn committed_cell(&self, input: &TopicPartition) -> CommittedCell {
        self.state.write().committed.entry(input.clone()).or_default().clone()
    }

    /// The high watermarks, asked for at that time (monotonic clock): before the question, so that they hold for later.
    pub fn set_ends(&self, ends: impl IntoIterator<Item = (TopicPartition, Offset)>, asked: Duration) {
        self.state.write().ends.extend(ends.into_iter().map(|(partition, end)| (partition, (end, asked))));
    }

    /// Replaces the routing table.
    pub fn set_endpoints(&self, endpoints: BTreeMap<TaskId, String>) {
        self.state.write().endpoints = endpoints;
    }
}
