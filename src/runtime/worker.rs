//! A worker: one thread's fetch client, transactional producer and tasks. It fetches, processes, decides when to commit,
//! and deals with what becomes of a commit.
//!
//! What it is not: it neither joins groups nor restores state; the coordinator gives it restored tasks and takes them
//! away. It can be stepped with `turn`, so that a simulation and a thread drive the same code.
//!
//! A commit (EXACTLY-ONCE, "Committing")
//! 1. Every task that has something to commit flushes: outputs and changelog records go to the producer.
//! 2. Under the ownership lock the offsets of these tasks go into the transaction with the group's metadata, read fresh,
//!    and the transaction is committed.
//! 3. The same rows, with changelog positions from acknowledgements and the input offsets, are written to the backend
//!    in one batch. Only then are they the tasks' new base.
//!
//! What can happen instead
//! - *Aborted*: roll the tasks back, fetch again from the committed offsets.
//! - *Unknown*, a fence, or a failed write after the commit: a new producer with the same id; the tasks are dropped and
//!   handed back to be restored and opened again (`Turn::reopen`).
//! - A refused record: replay with commits of single records until the guilty one is found, which is dead-lettered; a
//!   task whose commits fail without a record to blame is parked after the third time (rule 20).
//!
//! Invariants
//! - A transaction is committed only with the offsets of all tasks that wrote in it, under their current ownership.
//! - The backend is written after a commit that has succeeded, and never otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::ids::{EventTime, Offset, TaskId, TopicPartition};
use crate::limits;
use crate::log::{self, FetchSlot, Fetched, Fetcher, OffsetCommit, Outcome, ProducerSettings, SharedLog};
use crate::metric::{self, Counter, Histogram};
use crate::operator::Outbox;
use crate::probe::{self, Mark, Rule};
use crate::runtime::ownership::Ownership;
use crate::runtime::view::{CommittedCell, Condition, View};
use crate::store::budget::MemoryBudget;
use crate::store::{ChangelogPosition, SharedBackend, WriteBatch};
use crate::task::{Facts, Progress, Staged, Task};
use crate::topology::Plan;

mod pace;
pub mod step;
mod trouble;

use pace::{Load, Pace};
use step::{Step, StepCell};
use trouble::{Trouble, log_trouble, not_owned, not_stored, replay, trouble};

/// Events taken from the fetch client at a time.
const FETCH_LIMIT: usize = 4096;
/// Records of one task processed before the next one has its turn.
const PROCESS_LIMIT: usize = 1024;
/// Fetching of an input pauses above this many queued records, and goes on below half of it.
const QUEUE_LIMIT: usize = 16_384;
/// Between attempts to make a producer.
const PRODUCER_RETRY: Duration = Duration::from_secs(1);

/// What a worker is made from.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    pub index: usize,
    /// `None` for `guarantee: at_least_once`.
    pub transactional_id: Option<String>,
    pub log: SharedLog,
    pub plan: Arc<Plan>,
    pub facts: Arc<Facts>,
    pub backend: SharedBackend,
    pub clock: SharedClock,
    pub ownership: Arc<Ownership>,
    pub commit_interval: Duration,
    pub sync_max_wait: Option<Duration>,
    pub budget: MemoryBudget,
    pub view: Arc<View>,
}

/// What one turn came to.
#[derive(Debug, Default)]
pub struct Turn {
    /// Whether there is more to do at once.
    pub busy: bool,
    /// Whether nothing has been done and no queued record waits for its time.
    pub at_rest: bool,
    /// Tasks that the worker has dropped: their state must be restored to the end of the changelog and they be opened
    /// again.
    pub reopen: Vec<TaskId>,
    /// Tasks that are not processed any more, with the reason.
    pub parked: Vec<(TaskId, String)>,
}

/// The process must end: `on_error: fail` has met a bad record. Everything uncommitted has been rolled back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Stop {
    pub message: String,
}

/// How tasks are taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Commit what they have done (a revocation, the end of the process).
    Commit,
    /// Nothing may be committed for them any more (a loss).
    Drop,
}

/// See the module.
pub struct Worker {
    settings: WorkerSettings,
    fetcher: Box<dyn Fetcher>,
    outbox: Outbox,
    tasks: BTreeMap<TaskId, Owned>,
    slots: Vec<Option<(TaskId, usize)>>,
    fetched: Vec<Fetched>,
    pace: Pace,
    /// As the last round found it.
    load: Load,
    epoch: u64,
    /// After a refused record: commit after every record until these positions have been passed.
    cautious: BTreeMap<TopicPartition, Offset>,
    /// The one task whose commit is under way, while cautious.
    committing: Option<TaskId>,
    /// Tasks whose inputs could not be assigned: to be opened again.
    unassigned: Vec<TaskId>,
    /// Do nothing before then (monotonic): the log is away, or the group is moving.
    pause_until: Duration,
    oldest_uncommitted: Option<Duration>,
    /// The last one is gone and making another has failed so far.
    needs_producer: bool,
    step: Arc<StepCell>,
    meters: Meters,
}

struct Owned {
    task: Task,
    slots: Vec<FetchSlot>,
    paused: Vec<bool>,
    cells: Vec<CommittedCell>,
    failures: u32,
    /// The record that was marked as refused last.
    poisoned: Option<(usize, Offset)>,
    parked: bool,
    waiting_until: Option<Duration>,
}

struct Meters {
    commits: Counter,
    aborted: Counter,
    unknown: Counter,
    recreated: Counter,
    processing: Counter,
    commit_duration: Arc<Histogram>,
    latency: Arc<Histogram>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("index", &self.settings.index).field("tasks", &self.tasks.keys()).finish()
    }
}

impl Worker {
    /// Makes the clients and fences the producer's predecessor.
    ///
    /// # Errors
    /// The log's, to be tried again as they say.
    pub fn new(settings: WorkerSettings) -> Result<Self, log::Error> {
        let fetcher = settings.log.fetcher(&format!("{}-worker-{}", settings.plan.name, settings.index))?;
        let producer = make_producer(&settings)?;
        let counters = &settings.view.counters;
        let outbox = Outbox::new(producer, &settings.facts.topics, &settings.plan.dead_letters, Arc::clone(counters));
        let index = settings.index.to_string();
        let meters = Meters {
            commits: counters.counter(&metric::COMMITS, &[&index]),
            aborted: counters.counter(&metric::COMMIT_FAILURES, &[&index, "aborted"]),
            unknown: counters.counter(&metric::COMMIT_FAILURES, &[&index, "unknown"]),
            recreated: counters.counter(&metric::PRODUCERS_RECREATED, &[&index]),
            processing: counters.counter(&metric::PROCESSING_TIME, &[&index]),
            commit_duration: counters.histogram(&metric::COMMIT_DURATION, &[&index]),
            latency: counters.histogram(&metric::RECORD_LATENCY, &[&index]),
        };
        Ok(Self {
            fetcher,
            outbox,
            tasks: BTreeMap::new(),
            slots: Vec::new(),
            fetched: Vec::with_capacity(FETCH_LIMIT),
            pace: Pace::new(settings.commit_interval, settings.clock.monotonic()),
            load: Load::Light,
            epoch: settings.ownership.epoch(),
            cautious: BTreeMap::new(),
            committing: None,
            unassigned: Vec::new(),
            pause_until: Duration::ZERO,
            oldest_uncommitted: None,
            needs_producer: false,
            step: Arc::default(),
            meters,
            settings,
        })
    }

    pub fn tasks(&self) -> impl Iterator<Item = TaskId> {
        self.tasks.keys().copied()
    }

    /// What it is doing, to be read from other threads.
    pub fn step(&self) -> Arc<StepCell> {
        Arc::clone(&self.step)
    }

    /// The furthest watermark of any source of its tasks.
    pub fn furthest(&self) -> EventTime {
        self.tasks.values().map(|owned| owned.task.furthest()).max().unwrap_or(EventTime::MIN)
    }

    /// Moves the event time of all sources to `time` (`advance` in topology tests).
    ///
    /// # Errors
    /// As [`Worker::turn`].
    pub fn advance_event_time(&mut self, time: EventTime) -> Result<Turn, Stop> {
        let mut turn = Turn::default();
        let outbox = &mut self.outbox;
        let advanced = self.tasks.values_mut().try_for_each(|owned| owned.task.advance_event_time(time, outbox));
        if let Err(failure) = advanced {
            self.recover(trouble(failure), &mut turn)?;
        }
        Ok(turn)
    }

    /// Takes a restored task over.
    pub fn add(&mut self, task: Task) {
        if self.tasks.is_empty() {
            self.epoch = self.settings.ownership.epoch();
        }
        let id = task.id();
        let inputs: Vec<(TopicPartition, Offset)> =
            task.inputs().map(|(partition, offset)| (partition.clone(), offset)).collect();
        let mut slots = Vec::with_capacity(inputs.len());
        for (number, (partition, from)) in inputs.iter().enumerate() {
            let slot = self.free_slot(id, number);
            if let Err(error) = self.fetcher.assign(slot, partition, *from) {
                self.settings.view.raise(Condition::WorkerWaiting, &self.subject(), &error.to_string());
                self.unassigned.push(id);
            }
            slots.push(slot);
        }
        let cells = inputs.iter().map(|(partition, _)| self.settings.view.committed_cell(partition)).collect();
        let paused = vec![false; inputs.len()];
        self.tasks.insert(
            id,
            Owned { task, slots, paused, cells, failures: 0, poisoned: None, parked: false, waiting_until: None },
        );
    }

    /// Gives tasks up. With `Closing::Commit` what they have done is committed first, if that is possible; what is not
    /// committed will be done again by their next owner.
    pub fn close(&mut self, ids: &[TaskId], how: Closing) -> Turn {
        let mut turn = Turn::default();
        let dirty = |id: &TaskId| self.tasks.get(id).is_some_and(|owned| owned.task.processed_since_commit() > 0);
        if how == Closing::Commit && ids.iter().any(dirty) {
            probe::reached(Mark::CommittedOnRevocation);
        }
        // A producer that was given up may have a transaction open with what tasks wrote that have been opened anew since.
        if how == Closing::Commit
            && (!self.needs_producer || probe::is_broken(Rule::GivenUpProducerCommits))
            && ids.iter().any(|id| self.tasks.contains_key(id))
            && let Err(trouble) = self.commit()
            && let Err(stop) = self.recover(trouble, &mut turn)
        {
            tracing::error!(reason = %stop, "commit on closing failed");
        }
        let mut uncommitted = false;
        for id in ids {
            if let Some(owned) = self.remove(*id) {
                uncommitted |= how == Closing::Drop && owned.task.is_dirty();
            }
            turn.reopen.retain(|reopened| reopened != id);
        }
        if how == Closing::Drop {
            self.epoch = self.settings.ownership.epoch();
            // What the lost tasks wrote is in the open transaction: it must not be committed with the others' work.
            if uncommitted && self.outbox.in_transaction() && !probe::is_broken(Rule::LostTaskStaysInTransaction) {
                probe::reached(Mark::LostInTransaction);
                self.abort_and_rollback(&mut turn);
            }
        }
        turn
    }

    /// One round: fetch, process, commit where it is due. Waits at most `wait`, and only if there is nothing to do.
    ///
    /// # Errors
    /// `Stop` ends the process; everything else is dealt with here and shows in the turn and the view.
    pub fn turn(&mut self, wait: Duration) -> Result<Turn, Stop> {
        let mut turn = Turn::default();
        let now = self.now();
        if now < self.pause_until {
            return Ok(turn);
        }
        let epoch = self.settings.ownership.epoch();
        if self.epoch != epoch {
            if self.tasks.keys().any(|task| !self.settings.ownership.owns(*task)) {
                // Some of them are lost; the coordinator is about to take them away. Nothing can be committed before.
                return Ok(turn);
            }
            self.epoch = epoch;
        }
        if self.needs_producer {
            self.step.set(Step::MakingProducer);
            match make_producer(&self.settings) {
                Ok(producer) => {
                    self.outbox.replace_producer(producer);
                    self.needs_producer = false;
                }
                Err(error) => {
                    self.settings.view.raise(Condition::WorkerWaiting, &self.subject(), &error.to_string());
                    self.pause_until = now + PRODUCER_RETRY;
                    return Ok(turn);
                }
            }
        }
        for id in std::mem::take(&mut self.unassigned) {
            if self.remove(id).is_some() {
                turn.reopen.push(id);
            }
        }
        if let Err(trouble) = self.round(now, wait, &mut turn) {
            self.recover(trouble, &mut turn)?;
        }
        Ok(turn)
    }

    fn round(&mut self, now: Duration, wait: Duration, turn: &mut Turn) -> Result<(), Trouble> {
        let begins_in = self.time_to_begin(now);
        let queued = self.tasks.values().any(|owned| owned.runnable(now));
        let wait = match (queued, begins_in) {
            (true, Some(begins_in)) => wait.min(begins_in),
            (true, None) => Duration::ZERO,
            (false, _) => wait.min(self.time_to_commit(now)),
        };
        self.step.set(Step::Fetching);
        let fetched = self.fetch(wait)?;
        let began = self.now();
        if self.time_to_begin(began).is_some() && fetched < FETCH_LIMIT {
            return Ok(());
        }
        self.step.set(Step::Processing);
        let mut busy = false;
        let mut drained = true;
        let mut since_commit = 0;
        let view = Arc::clone(&self.settings.view);
        let end_since = |input: &TopicPartition, since| view.end_since(input, since);
        let outbox = &mut self.outbox;
        let limit = if self.cautious.is_empty() { PROCESS_LIMIT } else { 1 };
        for owned in self.tasks.values_mut().filter(|owned| !owned.parked) {
            let before = owned.task.processed_since_commit();
            match owned.task.process(limit, outbox, began).map_err(trouble)? {
                Progress::More => {
                    (busy, drained) = (true, false);
                    owned.waiting_until = None;
                }
                Progress::Drained => owned.waiting_until = None,
                Progress::Waiting { until } => {
                    drained = false;
                    owned.waiting_until = Some(until.unwrap_or(Duration::MAX));
                }
            }
            // While a refused record is looked for, what time alone leads to comes when no record does.
            if limit > 1 {
                busy |= owned.task.tick(outbox, began, &end_since).map_err(trouble)?;
            }
            since_commit += owned.task.processed_since_commit();
            if before == 0 && since_commit > 0 && self.oldest_uncommitted.is_none() {
                self.oldest_uncommitted = Some(began);
            }
            // One record at a time while a refused one is looked for.
            if limit == 1 && owned.task.processed_since_commit() > 0 {
                break;
            }
        }
        if limit == 1 && since_commit == 0 {
            self.committing = self.only_task_to_commit();
            if let Some(owned) = self.committing.and_then(|task| self.tasks.get_mut(&task)) {
                busy |= owned.task.tick(&mut self.outbox, began, &end_since).map_err(trouble)?;
            }
        }
        self.throttle()?;
        self.outbox.producer().poll(Duration::ZERO);
        let dirty = self.tasks.values().any(|owned| owned.task.is_dirty() && !owned.parked);
        self.load = self.load(drained && fetched < FETCH_LIMIT);
        if dirty && (!self.cautious.is_empty() || self.pace.is_due(self.now(), self.load)) {
            self.commit()?;
            busy = true;
        }
        self.meters.processing.add(micros(self.now().saturating_sub(began)));
        turn.busy = busy || fetched > 0;
        turn.at_rest = !turn.busy && self.tasks.values().all(|owned| owned.waiting_until.is_none());
        Ok(())
    }

    // ---- fetching ----------------------------------------------------------------------------------------------------

    fn free_slot(&mut self, task: TaskId, input: usize) -> FetchSlot {
        let index = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[index] = Some((task, input));
        FetchSlot(u32::try_from(index).unwrap_or(u32::MAX))
    }

    fn remove(&mut self, id: TaskId) -> Option<Owned> {
        let owned = self.tasks.remove(&id)?;
        for (partition, _) in owned.task.inputs() {
            self.cautious.remove(partition);
        }
        for slot in &owned.slots {
            if let Err(error) = self.fetcher.unassign(*slot) {
                tracing::debug!(task = %id, %error, "unassign failed; its records are dropped on arrival");
            }
            self.slots[slot.0 as usize] = None;
        }
        Some(owned)
    }

    /// Takes what has been fetched into the tasks. Returns how many events there were: fewer than [`FETCH_LIMIT`] means
    /// that the client has nothing more at hand.
    fn fetch(&mut self, wait: Duration) -> Result<usize, Trouble> {
        let mut events = std::mem::take(&mut self.fetched);
        let result = self.fetcher.fetch(&mut events, FETCH_LIMIT, wait);
        let now = self.now();
        let count = events.len();
        let mut failed = None;
        for event in events.drain(..) {
            match event {
                Fetched::Record(slot, record) => {
                    if let Some((owned, input)) = self.of_slot(slot) {
                        owned.task.offer(input, record, now);
                    }
                }
                Fetched::End(slot, end) => {
                    if let Some((owned, input)) = self.of_slot(slot) {
                        owned.task.reached_end(input, end);
                        if owned.task.is_settled(input) {
                            owned.cells[input].pass(end);
                        }
                    }
                }
                Fetched::Failed(slot, error) => {
                    if self.slots.get(slot.0 as usize).copied().flatten().is_some() {
                        failed = Some((slot, error));
                    }
                }
            }
        }
        self.fetched = events;
        result.map_err(|error| replay(&error))?;
        match failed {
            Some((slot, error)) => Err(self.fetch_failed(slot, &error)),
            None => Ok(count),
        }
    }

    fn of_slot(&mut self, slot: FetchSlot) -> Option<(&mut Owned, usize)> {
        let (task, input) = self.slots.get(slot.0 as usize).copied().flatten()?;
        self.tasks.get_mut(&task).map(|owned| (owned, input))
    }

    /// Pauses inputs whose queue is long, and goes on with those whose queue is short again.
    fn throttle(&mut self) -> Result<(), Trouble> {
        let inputs: usize = self.tasks.values().map(|owned| owned.slots.len()).sum();
        let fetch_bytes = usize::try_from(self.settings.budget.fetch_queue_per_worker).unwrap_or(usize::MAX);
        let bytes_limit = fetch_bytes / inputs.max(1);
        for owned in self.tasks.values_mut() {
            for input in 0..owned.slots.len() {
                let (records, bytes) = owned.task.queued(input);
                let long = records > QUEUE_LIMIT || bytes > bytes_limit;
                let short = records < QUEUE_LIMIT / 2 && bytes < bytes_limit / 2;
                if long && !owned.paused[input] {
                    self.fetcher.pause(owned.slots[input]).map_err(|error| replay(&error))?;
                    owned.paused[input] = true;
                } else if short && owned.paused[input] {
                    self.fetcher.resume(owned.slots[input]).map_err(|error| replay(&error))?;
                    owned.paused[input] = false;
                }
            }
        }
        Ok(())
    }

    // ---- committing --------------------------------------------------------------------------------------------------

    /// While the next transaction had better not begin yet: how long that lasts.
    fn time_to_begin(&self, now: Duration) -> Option<Duration> {
        if self.settings.transactional_id.is_none() || self.outbox.in_transaction() {
            return None;
        }
        self.pace.begins_at(self.load).checked_sub(now).filter(|left| !left.is_zero())
    }

    fn time_to_commit(&self, now: Duration) -> Duration {
        if self.tasks.values().any(|owned| owned.task.is_dirty() && !owned.parked) {
            self.pace.due_at(self.load).saturating_sub(now)
        } else {
            Duration::MAX
        }
    }

    fn load(&self, idle: bool) -> Load {
        let (rows, bytes) = self
            .tasks
            .values()
            .map(|owned| owned.task.dirty_rows())
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let dirty_limit = usize::try_from(self.settings.budget.dirty_rows_per_worker).unwrap_or(usize::MAX);
        if rows > 0 && bytes > dirty_limit {
            return Load::Full;
        }
        // At least once, what has been sent is seen already.
        let is_awaited = self.settings.transactional_id.is_some() || rows > 0;
        if idle && is_awaited { Load::Light } else { Load::Heavy }
    }

    /// Commits everything that the tasks have done.
    fn commit(&mut self) -> Result<(), Trouble> {
        let began = self.now();
        self.step.set(Step::Sending);
        let mut staged: Vec<(TaskId, Staged)> = Vec::new();
        self.committing = self.only_task_to_commit();
        for (id, owned) in &mut self.tasks {
            let chosen = self.committing.is_none_or(|only| only == *id);
            if chosen && owned.task.is_dirty() && !owned.parked {
                let endpoint = self.settings.ownership.endpoint();
                let staging = owned.task.flush(&mut self.outbox, endpoint, began).map_err(trouble)?;
                staged.push((*id, staging));
            }
        }
        if staged.is_empty() {
            return Ok(());
        }
        let mut offsets: Vec<OffsetCommit> = staged.iter().flat_map(|(_, staged)| staged.offsets.clone()).collect();
        if probe::is_broken(Rule::OffsetsOfOneTask) {
            offsets.truncate(staged[0].1.offsets.len());
        }
        if probe::is_broken(Rule::StateBeforeCommit) {
            let _refused = self.settings.backend.write(self.batch(&mut staged.clone(), &[]));
        }
        let tasks: Vec<TaskId> = staged.iter().map(|(id, _)| *id).collect();
        self.outbox.begin().map_err(log_trouble)?;
        self.step.set(Step::Committing);
        let producer = self.outbox.producer();
        let committed =
            self.settings.ownership.for_commit(&tasks, self.epoch, |group| producer.commit(&offsets, group));
        let ends = match committed {
            Ok(Ok(committed)) => committed,
            Ok(Err(failure)) if probe::is_broken(Rule::UnknownIsCommitted) && failure.outcome == Outcome::Unknown => {
                log::Committed::default()
            }
            Ok(Err(failure)) => return Err(self.commit_failed(&failure)),
            Err(not_owner) => return Err(not_owned(not_owner)),
        };
        self.outbox.ended();
        self.step.set(Step::WritingState);
        let partitions = ends.ends.len() + offsets.len();
        let batch = self.batch(&mut staged, &ends.ends);
        if !probe::is_broken(Rule::StateNeverWritten)
            && let Err(error) = self.settings.backend.write(batch)
            && !probe::is_broken(Rule::StateRefusalIgnored)
        {
            probe::reached(Mark::StateNotWritten);
            return Err(not_stored(&error));
        }
        for (id, staged) in &staged {
            if let Some(owned) = self.tasks.get_mut(id) {
                owned.task.committed(staged);
                owned.failures = 0;
                for (cell, offset) in owned.cells.iter().zip(&staged.offsets) {
                    cell.set(offset.offset);
                }
                let watermark = owned.task.watermark();
                if watermark != EventTime::MIN {
                    self.settings.view.set_watermark(*id, watermark);
                }
            }
        }
        self.settled(began, partitions, &offsets);
        Ok(())
    }

    /// While a refused record is looked for, tasks commit one by one, so that it is known whose commit fails: first the
    /// one that has processed something.
    fn only_task_to_commit(&self) -> Option<TaskId> {
        if self.cautious.is_empty() {
            return None;
        }
        let mut dirty = self.tasks.iter().filter(|(_, owned)| owned.task.is_dirty() && !owned.parked);
        let busy = dirty.clone().find(|(_, owned)| owned.task.processed_since_commit() > 0);
        busy.or_else(|| dirty.next()).map(|(id, _)| *id)
    }

    /// Rows, changelog positions and input offsets of a commit, for the backend.
    fn batch(&self, staged: &mut [(TaskId, Staged)], ends: &[(TopicPartition, Offset)]) -> WriteBatch {
        let written_at = self.settings.clock.wall_micros();
        let mut batch = WriteBatch::default();
        for (_, staged) in staged {
            batch.rows.append(&mut staged.rows);
            batch.positions.append(&mut staged.positions);
            for (changelog, at, topic_id) in &staged.changelogs {
                if let Some((_, offset)) = ends.iter().find(|(partition, _)| partition == changelog) {
                    let ahead = if probe::is_broken(Rule::PositionTooHigh) { 2 } else { 0 };
                    let (topic_id, offset) = (topic_id.clone(), Offset(offset.0 + ahead));
                    batch.positions.push((*at, ChangelogPosition { topic_id, offset, written_at }));
                }
            }
            batch.inputs.extend(staged.offsets.iter().map(|offset| (offset.partition.clone(), offset.offset)));
        }
        batch
    }

    fn settled(&mut self, began: Duration, partitions: usize, offsets: &[OffsetCommit]) {
        let now = self.now();
        self.meters.commits.add(1);
        self.meters.commit_duration.record(now.saturating_sub(began));
        if let Some(oldest) = self.oldest_uncommitted.take() {
            self.meters.latency.record(now.saturating_sub(oldest));
        }
        self.pace.committed(now, now.saturating_sub(began), partitions);
        for offset in offsets {
            if self.cautious.get(&offset.partition).is_some_and(|until| *until <= offset.offset) {
                self.cautious.remove(&offset.partition);
            }
        }
        self.settings.view.clear(Condition::WorkerWaiting, &self.subject());
    }

    fn subject(&self) -> String {
        format!("worker {}", self.settings.index)
    }

    fn now(&self) -> Duration {
        self.settings.clock.monotonic()
    }
}

impl Owned {
    /// Whether it could process something now.
    fn runnable(&self, now: Duration) -> bool {
        !self.parked
            && self.waiting_until.is_none_or(|until| until <= now)
            && (0..self.slots.len()).any(|input| self.task.queued(input).0 > 0)
    }
}

fn make_producer(settings: &WorkerSettings) -> Result<Box<dyn log::Producer>, log::Error> {
    let limits = settings.facts.topics.values().map(|topic| topic.max_message_bytes);
    let (largest, smallest) = (limits.clone().max(), limits.min());
    let mut producer = settings.log.producer(&ProducerSettings {
        name: format!("{}-worker-{}", settings.plan.name, settings.index),
        transactional_id: settings.transactional_id.clone(),
        max_message_bytes: largest.unwrap_or(limits::DEFAULT_MAX_MESSAGE_BYTES),
        batch_bytes: smallest.unwrap_or(limits::DEFAULT_MAX_MESSAGE_BYTES),
        queue_bytes: usize::try_from(settings.budget.producer_queue_per_worker).unwrap_or(usize::MAX),
    })?;
    producer.init()?;
    Ok(producer)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
