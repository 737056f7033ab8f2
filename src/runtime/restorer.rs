//! Restores tasks one after the other, apart from the workers (EXACTLY-ONCE rule 5).
//!
//! What it is: a queue of jobs and one fetch client. [`Restorer::turn`] moves the first job on by one fetch; a job that
//! cannot go on is tried again later. A finished job is an opened task. Tasks with little to read go first, so that they
//! do not stand still behind those with much; one that reads nothing is opened while another is being restored.
//! What it is not: it does not know who owns what. A cancelled job is dropped; its result would be dropped too.
//!
//! Invariant: one task is always given to the same restorer, so that two jobs of a task never write side by side.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::ids::{StoreId, TaskId};
use crate::log::{self, Fetcher};
use crate::probe::{self, Mark};
use crate::runtime::view::{Condition, RestoreProgress, TaskState, View};
use crate::store::run::RunsGuard;
use crate::store::{StorePartition, WritePressure};
use crate::task::restore::{self, Awaited, Restoration, Restored, Tools, Turn};
use crate::task::{self, OpenTask, Task};

/// Between two tries of a job.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// While RocksDB is behind with compactions, a restoration makes way for the workers.
const MAKE_WAY: Duration = Duration::from_millis(20);

/// A restoration that has heard nothing for this long says what it waits for.
const SILENT_AFTER: Duration = Duration::from_secs(10);

/// A restoration that takes long says this often how far it has come.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A task to restore and open.
#[derive(Clone, Debug)]
pub struct Job {
    pub task: TaskId,
    /// Set by whoever no longer wants it.
    pub cancelled: Arc<AtomicBool>,
}

impl Job {
    pub fn new(task: TaskId) -> Self {
        Self { task, cancelled: Arc::new(AtomicBool::new(false)) }
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Whether both are the same request.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cancelled, &other.cancelled)
    }
}

/// How much a job has to read, as far as that is known before it begins. Those with less go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Extent {
    /// The task has no state.
    Nothing,
    /// There is local state of all its stores.
    Tail,
    /// There is none of some store; or it has failed, and the others go first.
    Much,
}

#[derive(Clone, Debug)]
struct Queued {
    job: Job,
    extent: Extent,
}

/// A job that has ended.
#[derive(Debug)]
pub struct Finished {
    pub job: Job,
    pub outcome: Result<Box<Task>, Failure>,
}

/// Why a task could not be opened, in a way that trying again does not repair.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Restore(#[from] restore::Error),
    #[error(transparent)]
    Open(#[from] task::Error),
}

/// What a restorer is made from. The last two are passed on to each task that it opens.
#[derive(Debug)]
pub struct RestorerSettings {
    /// Shown in the broker's logs.
    pub name: String,
    pub tools: Tools,
    pub view: Arc<View>,
    /// For all row caches of one task.
    pub cache_bytes: usize,
    /// `None` is unlimited.
    pub sync_max_wait: Option<Duration>,
}

/// See the module.
pub struct Restorer {
    name: String,
    tools: Tools,
    view: Arc<View>,
    cache_bytes: usize,
    sync_max_wait: Option<Duration>,
    queue: VecDeque<Queued>,
    current: Option<(Job, Restoration)>,
    /// For as long as there are jobs: nobody needs one that restores nothing.
    fetcher: Option<Box<dyn Fetcher>>,
    /// Of the jobs that are done, until there are no more.
    runs: Vec<RunsGuard>,
    /// On the clock's monotonic time.
    not_before: Duration,
    /// When the current restoration last came on.
    heard_at: Duration,
    /// When the log was last told how far it is.
    told_at: Duration,
}

impl std::fmt::Debug for Restorer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restorer")
            .field("name", &self.name)
            .field("queue", &self.queue)
            .field("current", &self.current.as_ref().map(|(job, _)| job))
            .finish_non_exhaustive()
    }
}

impl Restorer {
    pub fn new(settings: RestorerSettings) -> Self {
        let RestorerSettings { name, tools, view, cache_bytes, sync_max_wait } = settings;
        Self {
            name,
            tools,
            view,
            cache_bytes,
            sync_max_wait,
            queue: VecDeque::new(),
            current: None,
            fetcher: None,
            runs: Vec::new(),
            not_before: Duration::ZERO,
            heard_at: Duration::ZERO,
            told_at: Duration::ZERO,
        }
    }

    pub fn enqueue(&mut self, job: Job) {
        let extent = self.extent(job.task);
        let index = self.queue.iter().position(|queued| queued.extent > extent).unwrap_or(self.queue.len());
        self.queue.insert(index, Queued { job, extent });
    }

    fn extent(&self, task: TaskId) -> Extent {
        let stores = &self.tools.plan.sub_topologies[task.sub_topology.0 as usize].stores;
        // What cannot be read now is found out when its turn comes.
        let known = |&store: &StoreId| {
            let at = StorePartition { store, partition: task.partition };
            self.tools.backend.changelog_position(at).is_ok_and(|position| position.is_some())
        };
        match () {
            () if stores.is_empty() => Extent::Nothing,
            () if stores.iter().all(known) => Extent::Tail,
            () => Extent::Much,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.current.is_none()
    }

    /// Whether its job is put off for a moment.
    pub fn is_waiting(&self) -> bool {
        self.tools.clock.monotonic() < self.not_before
    }

    /// Moves the first job on, waiting up to `wait` for records.
    pub fn turn(&mut self, wait: Duration) -> Option<Finished> {
        self.drop_cancelled();
        let finished = if self.is_idle() || self.is_waiting() { None } else { self.advance(wait) };
        if self.is_idle() {
            self.fetcher = None;
            self.runs.clear();
        }
        finished
    }

    fn advance(&mut self, wait: Duration) -> Option<Finished> {
        match self.step(wait) {
            Ok(None) => None,
            Ok(Some((job, restored))) => {
                let outcome = self.open(job.task, restored).map(Box::new).map_err(Failure::from);
                self.view.clear(Condition::TaskWaiting, &job.task.to_string());
                if outcome.is_ok() {
                    self.view.clear(Condition::TaskFailed, &job.task.to_string());
                }
                Some(Finished { job, outcome })
            }
            Err(error) => self.failed(error),
        }
    }

    fn drop_cancelled(&mut self) {
        self.queue.retain(|queued| !queued.job.is_cancelled());
        if self.current.as_ref().is_some_and(|(job, _)| job.is_cancelled())
            && let Some((job, restoration)) = self.current.take()
            && let Some(fetcher) = &mut self.fetcher
        {
            self.view.clear(Condition::TaskWaiting, &job.task.to_string());
            probe::reached(Mark::RestorationCancelled);
            restoration.abandon(&mut **fetcher);
        }
    }

    /// Begins the first job of the queue where none is under way, or where it has nothing to read. One that is done with
    /// that is returned.
    fn begin_next(&mut self) -> Result<Option<(Job, Restored)>, restore::Error> {
        let Some(Queued { job, extent }) = self.queue.front().cloned() else { return Ok(None) };
        if self.current.is_some() && extent != Extent::Nothing {
            return Ok(None);
        }
        let mut restoration = Restoration::begin(job.task, self.tools.clone())?;
        let unread = restoration.finish_unread()?;
        self.queue.pop_front();
        match unread {
            Some(restored) => Ok(Some((job, restored))),
            None => {
                self.heard_at = self.tools.clock.monotonic();
                self.told_at = self.heard_at;
                self.current = Some((job, restoration));
                Ok(None)
            }
        }
    }

    fn step(&mut self, wait: Duration) -> Result<Option<(Job, Restored)>, restore::Error> {
        if let Some(unread) = self.begin_next()? {
            return Ok(Some(unread));
        }
        let Some((job, mut restoration)) = self.current.take() else { return Ok(None) };
        if self.tools.backend.write_pressure() != WritePressure::None {
            self.not_before = self.tools.clock.monotonic() + MAKE_WAY;
            self.current = Some((job, restoration));
            return Ok(None);
        }
        let turned = match &mut self.fetcher {
            Some(fetcher) => restoration.turn(&mut **fetcher, wait),
            None => match self.tools.log.fetcher_to_the_end(&self.name) {
                Ok(fetcher) => restoration.turn(&mut **self.fetcher.insert(fetcher), wait),
                Err(error) => Err(error.into()),
            },
        };
        match turned {
            Ok(Turn::Done(restored)) => {
                self.show(&job, &restoration);
                self.runs.extend(restoration.into_runs());
                Ok(Some((job, restored)))
            }
            Ok(Turn::More(handled)) => {
                self.show(&job, &restoration);
                self.listen(&job, &restoration, handled);
                self.tell(&job, &restoration);
                self.current = Some((job, restoration));
                Ok(None)
            }
            Err(error) => {
                // What was written has its positions: the next try goes on from there.
                if let Some(fetcher) = &mut self.fetcher {
                    restoration.abandon(&mut **fetcher);
                }
                self.queue.push_front(Queued { job, extent: Extent::Much });
                Err(error)
            }
        }
    }

    fn show(&self, job: &Job, restoration: &Restoration) {
        let progress = restoration.progress();
        let shown = RestoreProgress {
            records: progress.records,
            bytes: progress.bytes,
            total: progress.total,
            done: progress.done,
            remaining: progress.remaining(),
        };
        if !job.is_cancelled() {
            self.view.set_task_state(job.task, TaskState::Restoring(shown));
        }
    }

    fn tell(&mut self, job: &Job, restoration: &Restoration) {
        let now = self.tools.clock.monotonic();
        if now.saturating_sub(self.told_at) < TOLD_EVERY {
            return;
        }
        self.told_at = now;
        let progress = restoration.progress();
        tracing::info!(
            task = %job.task,
            records = progress.records,
            bytes = progress.bytes,
            percent = (progress.done * 100).checked_div(progress.total).unwrap_or(100),
            records_per_second = (progress.records as f64 / progress.elapsed.as_secs_f64()).round(),
            remaining_s = progress.remaining().map(|remaining| remaining.as_secs()),
            "restoring"
        );
    }

    /// Says so when nothing comes for long.
    fn listen(&mut self, job: &Job, restoration: &Restoration, handled: usize) {
        let now = self.tools.clock.monotonic();
        let subject = job.task.to_string();
        if handled > 0 {
            self.heard_at = now;
            self.view.clear(Condition::TaskWaiting, &subject);
            return;
        }
        if now.saturating_sub(self.heard_at) < SILENT_AFTER || job.is_cancelled() {
            return;
        }
        let Some(Awaited { changelog, position, end }) = restoration.waits_for() else { return };
        let message = format!(
            "its restoration has heard nothing from {changelog} for {} s: it has come to offset {position} of {end}. \
             Either its broker does not answer, or a transaction is open there, which Kafka ends after its \
             `transaction.timeout.ms`",
            SILENT_AFTER.as_secs()
        );
        self.view.raise(Condition::TaskWaiting, &subject, &message);
    }

    fn open(&self, id: TaskId, restored: Restored) -> Result<Task, task::Error> {
        Task::open(OpenTask {
            id,
            plan: Arc::clone(&self.tools.plan),
            facts: Arc::clone(&self.tools.facts),
            backend: Arc::clone(&self.tools.backend),
            clock: Arc::clone(&self.tools.clock),
            counters: Arc::clone(&self.tools.counters),
            positions: restored.positions,
            bootstrap_ends: restored.bootstrap_ends,
            cache_bytes: self.cache_bytes,
            sync_max_wait: self.sync_max_wait,
        })
    }

    /// The job stands at the front of the queue. If waiting may help it goes to the back, so that the others go on.
    fn failed(&mut self, error: restore::Error) -> Option<Finished> {
        self.not_before = self.tools.clock.monotonic() + RETRY_AFTER;
        let job = self.queue.front()?.job.clone();
        let subject = job.task.to_string();
        match &error {
            _ if error.is_final() => {
                self.queue.pop_front();
                Some(Finished { job, outcome: Err(error.into()) })
            }
            restore::Error::Log(cause) => {
                if matches!(cause.next(), log::Next::RecreateProducer) {
                    self.fetcher = None;
                }
                self.view.raise(Condition::TaskFailed, &subject, &format!("its state cannot be restored yet: {error}"));
                self.put_behind();
                None
            }
            _ => {
                let help = match &error {
                    restore::Error::Store(error) => error.help_clause(),
                    _ => String::new(),
                };
                let message = format!("its state cannot be restored: {error}{help}");
                self.view.raise(Condition::TaskFailed, &subject, &message);
                self.put_behind();
                None
            }
        }
    }

    /// The others go first.
    fn put_behind(&mut self) {
        self.queue.rotate_left(1);
        if let Some(last) = self.queue.back_mut() {
            last.extent = Extent::Much;
        }
    }
}
