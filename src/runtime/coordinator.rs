//! This instance's part in the group: what it owns, and the life of every task from assignment to close.
//!
//! What it is: the only one that talks to the membership, and the only one that moves tasks between restorers and workers.
//! [`Coordinator::turn`] does one round and never sleeps; both drivers (`runtime::instance`) call it from one thread.
//! What it is not: it runs no records and commits nothing.
//!
//! The life of a task
//! 1. *Assigned* by the group: acknowledged, then the group is described (EXACTLY-ONCE rule 8b). If it runs another map and
//!    this instance owns nothing, it leaves and comes back later; else the task is owned from here on.
//! 2. *Restoring* on a restorer, which opens it; then *running* on the worker with the fewest tasks.
//! 3. A worker that had to drop it gives it back: restoring again.
//! 4. *Revoked*: closed with a commit, released, and only then acknowledged. *Lost*: taken out of the owned set first, so
//!    that no commit can start for it, then dropped, then acknowledged (EXACTLY-ONCE rule 9).
//!
//! Invariants
//! - An event is acknowledged after the workers have done what it asks, never before.
//! - A worker that is stuck keeps this thread from polling, so that the group takes the partitions away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::SharedClock;
use crate::ids::{Offset, SubTopologyId, TaskId, TopicName, TopicPartition};
use crate::limits;
use crate::log::{self, Leave, Membership, MembershipSettings, Next, OwnershipEvent, SharedLog};
use crate::metric;
use crate::probe::{self, Mark, Rule};
use crate::runtime::crew::{Crew, Report};
use crate::runtime::group_map::{Agreement, agreement};
use crate::runtime::observer::Finding;
use crate::runtime::ownership::Ownership;
use crate::runtime::restorer::{Failure, Finished, Job};
use crate::runtime::view::{Condition, Phase, RestoreProgress, TaskState, TaskView, View, restoring};
use crate::runtime::worker::{Closing, Worker};
use crate::store::{StorePartition, sweep};
use crate::task::Facts;
use crate::topology::Plan;

/// After an error of the group's, before it is joined again.
const REJOIN_AFTER: Duration = Duration::from_secs(1);
/// After leaving because of another map: at least and at most (EXACTLY-ONCE rule 8b).
const CONFLICT_BACK_OFF: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// Between two tries to describe the group.
const DESCRIBE_AFTER: Duration = Duration::from_millis(500);
/// Fenced twice within this time: perhaps by another process that uses the id (EXACTLY-ONCE rule 11d).
const FENCED_TWICE_WITHIN: Duration = Duration::from_mins(10);
/// A member that is in no generation for this long, though Kafka answers, has a client that hangs (librdkafka#3437): a
/// rebalance takes no longer than its slowest member may.
const HANGS_AFTER: Duration = limits::MAX_POLL_INTERVAL.saturating_add(limits::SESSION_TIMEOUT);
/// Between two looks at who holds this instance's id: longer than the session of a member that is gone.
const LOOK_AGAIN_AFTER: Duration = limits::SESSION_TIMEOUT.saturating_add(Duration::from_secs(2));
/// A member of the group that was told nothing for this long owns nothing. Every protocol that we know tells; this is for
/// one that does not, so that it does not count as starting for ever.
const SETTLED_AFTER: Duration = Duration::from_secs(30);
/// Between two tries to open a task that could not be opened.
const REOPEN_AFTER: Duration = Duration::from_secs(10);
/// Between two sweeps of state that is not used any more.
const SWEEP_EVERY: Duration = Duration::from_hours(1);
/// An idle task is opened anew after this: its offsets are committed again, before the broker lets them expire, and its
/// local state is known to be up to date (EXACTLY-ONCE rules 4 and 6).
const RENEW_AFTER: Duration = Duration::from_hours(6);
/// A worker that has not turned for so long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(45);

/// What a coordinator works with.
#[derive(Clone, Debug)]
pub struct Context {
    pub plan: Arc<Plan>,
    pub facts: Arc<Facts>,
    pub log: SharedLog,
    pub clock: SharedClock,
    pub view: Arc<View>,
    pub ownership: Arc<Ownership>,
    /// The group's settings of this member.
    pub client_id: String,
    /// `group.instance.id` of a static member.
    pub group_instance_id: Option<String>,
    /// Differs between instances: for back-off times.
    pub seed: u64,
}

/// The process must end with this message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fatal {
    pub message: String,
    /// Whether threads may be in an unknown state: do not try to close anything.
    pub abruptly: bool,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// Something happened; more may be waiting.
    pub busy: bool,
    /// It has waited for the group; one that has not must not be repeated at once.
    pub waited: bool,
    /// The topics have changed in a way that calls for a new ownership map: stop, and start again.
    pub restart: bool,
}

/// See the module.
pub struct Coordinator {
    context: Context,
    crew: Crew,
    standing: Standing,
    tasks: BTreeMap<TaskId, Place>,
    /// Acknowledged, but the group has not been described yet.
    unchecked: Option<Unchecked>,
    fenced_at: Option<Duration>,
    /// A member in no generation since then, with Kafka within reach.
    adrift_since: Option<Duration>,
    swept_at: Duration,
    renewals: BTreeMap<TaskId, Renewal>,
    random: fastrand::Rng,
}

/// What a task had committed when it was last looked at.
#[derive(Debug)]
struct Renewal {
    looked_at: Duration,
    committed: Vec<Option<Offset>>,
}

impl std::fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Coordinator").field("tasks", &self.tasks).finish_non_exhaustive()
    }
}

enum Standing {
    /// Joins at that time.
    Outside {
        not_before: Duration,
    },
    Member {
        membership: Box<dyn Membership>,
        since: Duration,
        told: bool,
    },
    /// Fenced again: outside until whoever holds this instance's id has gone (docs/decisions/0004).
    Fenced {
        look_at: Duration,
        /// The member that had the id at the last look.
        holder: Option<String>,
    },
    /// On the way out.
    Left,
}

#[derive(Debug)]
enum Place {
    Restoring(Job),
    Running {
        worker: usize,
    },
    /// Tried again at that time; `None`: not before a restart.
    Failed {
        retry_at: Option<Duration>,
    },
}

#[derive(Debug)]
struct Unchecked {
    tasks: Vec<TaskId>,
    not_before: Duration,
}

impl Coordinator {
    pub fn new(context: Context, crew: Crew) -> Self {
        let random = fastrand::Rng::with_seed(context.seed);
        let swept_at = context.clock.monotonic();
        context.view.raise(Condition::Joining, "", "joining the consumer group");
        Self {
            context,
            crew,
            standing: Standing::Outside { not_before: Duration::ZERO },
            tasks: BTreeMap::new(),
            unchecked: None,
            fenced_at: None,
            adrift_since: None,
            swept_at,
            renewals: BTreeMap::new(),
            random,
        }
    }

    /// The tasks that this instance owns.
    pub fn owned(&self) -> Vec<TaskId> {
        self.tasks.keys().copied().collect()
    }

    /// One round: the group, the crew's reports, what is due. Waits up to `wait` for the group.
    pub fn turn(&mut self, wait: Duration) -> Result<Round, Fatal> {
        let mut busy = false;
        let stuck = self.crew.stuck(STUCK_AFTER);
        let alive = stuck.is_none();
        let waited = alive && matches!(self.standing, Standing::Member { .. });
        if let Some((worker, step)) = stuck {
            let message = format!(
                "worker {worker} has been {} for more than {} s and has not come back: this instance gives its partitions up \
                 to the others. If it does not come back by itself, restart it",
                step.words(),
                STUCK_AFTER.as_secs()
            );
            self.context.view.raise(Condition::WorkerWaiting, "", &message);
        } else {
            self.context.view.clear(Condition::WorkerWaiting, "");
            busy |= self.serve_group(wait)?;
        }
        self.renew_hanging_membership();
        busy |= self.check_group();
        busy |= self.crew.turn(Duration::ZERO);
        for report in self.crew.reports() {
            busy = true;
            self.heed(report)?;
        }
        self.retry_failed();
        self.renew_idle();
        self.sweep();
        self.show();
        Ok(Round { busy, waited, restart: false })
    }

    // ---- the group ---------------------------------------------------------------------------------------------------

    fn now(&self) -> Duration {
        self.context.clock.monotonic()
    }

    fn serve_group(&mut self, wait: Duration) -> Result<bool, Fatal> {
        let polled = match &mut self.standing {
            Standing::Left => return Ok(false),
            Standing::Fenced { look_at, .. } => {
                let look_at = *look_at;
                if self.now() >= look_at {
                    self.look_for_holder()?;
                }
                return Ok(false);
            }
            Standing::Outside { not_before } => {
                let not_before = *not_before;
                if self.now() >= not_before {
                    self.join()?;
                }
                return Ok(false);
            }
            Standing::Member { membership, .. } => membership.poll(wait),
        };
        match polled {
            Ok(None) => Ok(false),
            Ok(Some(event)) => {
                self.act_on(&event)?;
                Ok(true)
            }
            Err(error) => {
                self.group_failed(&error)?;
                Ok(false)
            }
        }
    }

    fn join(&mut self) -> Result<(), Fatal> {
        // Looked at before as well as after joining: a member that comes and goes makes the others rebalance each time.
        match self.context.log.describe_group(&self.context.plan.name) {
            Ok(description) => {
                let agreement = agreement(&self.context.facts.map_hash, &description);
                if agreement != Agreement::All {
                    self.context.view.raise(Condition::MapConflict, "", &agreement.message());
                    let not_before = self.now() + self.conflict_back_off();
                    self.standing = Standing::Outside { not_before };
                    return Ok(());
                }
            }
            Err(error) if error.next() == Next::Retry => {
                // A coordinator that has just moved; the observer says so if it lasts.
                tracing::debug!(reason = %error, "the group cannot be described yet");
                let not_before = self.now() + DESCRIBE_AFTER;
                self.standing = Standing::Outside { not_before };
                return Ok(());
            }
            Err(error) => return self.group_failed(&error),
        }
        let context = &self.context;
        let settings = MembershipSettings {
            group: context.plan.name.clone(),
            client_id: context.client_id.clone(),
            instance_id: context.group_instance_id.clone(),
            topics: context.facts.representatives(),
            session_timeout: limits::SESSION_TIMEOUT,
            heartbeat_interval: limits::HEARTBEAT_INTERVAL,
            max_poll_interval: limits::MAX_POLL_INTERVAL,
        };
        match context.log.join(&settings) {
            Ok(membership) => {
                context.ownership.joined(membership.group());
                tracing::info!(group = settings.group, static_member = settings.instance_id.is_some(), "joining");
                self.standing = Standing::Member { membership, since: self.now(), told: false };
                Ok(())
            }
            Err(error) => self.group_failed(&error),
        }
    }

    fn act_on(&mut self, event: &OwnershipEvent) -> Result<(), Fatal> {
        let (kind, partitions) = match event {
            OwnershipEvent::Assigned(partitions) => ("assigned", partitions),
            OwnershipEvent::Revoked(partitions) => ("revoked", partitions),
            OwnershipEvent::Lost(partitions) => ("lost", partitions),
        };
        self.context.view.counters.counter(&metric::REBALANCES, &[kind]).add(1);
        let tasks = self.tasks_of(partitions);
        tracing::info!(kind, tasks = %names(&tasks), "ownership changed");
        match event {
            OwnershipEvent::Assigned(_) => {
                let waiting = self.unchecked.take().map(|unchecked| unchecked.tasks).unwrap_or_default();
                let tasks = waiting.into_iter().chain(tasks).collect();
                self.unchecked = Some(Unchecked { tasks, not_before: Duration::ZERO });
            }
            OwnershipEvent::Revoked(_) if probe::is_broken(Rule::RevocationIgnored) => {}
            OwnershipEvent::Lost(_) if probe::is_broken(Rule::LossIgnored) => {}
            OwnershipEvent::Revoked(_) => {
                self.close(&tasks, Closing::Commit);
                self.context.ownership.release(&tasks);
            }
            OwnershipEvent::Lost(_) => {
                self.context.ownership.lose(&tasks);
                self.close(&tasks, Closing::Drop);
            }
        }
        let Standing::Member { membership, told, .. } = &mut self.standing else { return Ok(()) };
        *told = true;
        match membership.acknowledge(event) {
            Ok(()) => Ok(()),
            Err(error) => self.group_failed(&error),
        }
    }

    fn tasks_of(&self, partitions: &[TopicPartition]) -> Vec<TaskId> {
        partitions.iter().filter_map(|partition| self.context.facts.task_of(partition)).collect()
    }

    /// The membership itself has failed, or the log behind it.
    fn group_failed(&mut self, error: &log::Error) -> Result<(), Fatal> {
        let now = self.now();
        match error.next() {
            Next::Retry | Next::Wait => {
                let condition = Condition::KafkaUnreachable;
                self.context.view.raise(condition, "", &error.to_string());
                if let Standing::Outside { not_before } = &mut self.standing {
                    *not_before = now + REJOIN_AFTER;
                }
                Ok(())
            }
            Next::Fenced => {
                self.give_up_membership();
                let again = self.fenced_at.is_some_and(|at| now.saturating_sub(at) < FENCED_TWICE_WITHIN);
                self.fenced_at = Some(now);
                if again {
                    probe::reached(Mark::InstanceFenced);
                    self.standing = Standing::Fenced { look_at: now, holder: None };
                }
                Ok(())
            }
            Next::Stop => Err(Fatal { message: error.to_string(), abruptly: false }),
            Next::Rejoin | Next::RecreateProducer | Next::Reposition | Next::Poison => {
                tracing::warn!(reason = %error, "the group membership has failed and begins anew");
                self.give_up_membership();
                Ok(())
            }
        }
    }

    /// Whether another process uses this instance's id, or this one has fenced itself: librdkafka rejoins after a session
    /// time-out while requests of its earlier membership are still on their way (librdkafka#3437). A member that holds
    /// the id for longer than a session without this process is another process.
    fn look_for_holder(&mut self) -> Result<(), Fatal> {
        let now = self.now();
        let description = match self.context.log.describe_group(&self.context.plan.name) {
            Ok(description) => description,
            Err(error) => {
                if let Standing::Fenced { look_at, .. } = &mut self.standing {
                    *look_at = now + REJOIN_AFTER;
                }
                return self.group_failed(&error);
            }
        };
        let ours = &self.context.group_instance_id;
        let found = description.members.into_iter().find(|member| &member.instance_id == ours);
        let found = found.map(|member| member.member_id);
        let Standing::Fenced { look_at, holder } = &mut self.standing else { return Ok(()) };
        if found.is_none() {
            self.context.view.clear(Condition::InstanceFenced, "");
            self.standing = Standing::Outside { not_before: now };
            return Ok(());
        }
        if *holder == found {
            self.context.view.raise(
                Condition::InstanceFenced,
                "",
                "another process uses this instance id: give each instance its own; this one joins when the other has gone",
            );
        }
        *holder = found;
        *look_at = now + LOOK_AGAIN_AFTER;
        Ok(())
    }

    fn renew_hanging_membership(&mut self) {
        let adrift = matches!(self.standing, Standing::Member { .. })
            && !self.context.ownership.is_member()
            && !self.context.view.holds(Condition::KafkaUnreachable);
        if !adrift {
            self.adrift_since = None;
            return;
        }
        let now = self.now();
        let since = *self.adrift_since.get_or_insert(now);
        if now.saturating_sub(since) >= HANGS_AFTER {
            tracing::warn!(waited = ?HANGS_AFTER, "the group does not let this member in; it joins anew with another client");
            self.adrift_since = None;
            self.give_up_membership();
        }
    }

    /// Drops everything and joins again a little later.
    fn give_up_membership(&mut self) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        self.context.ownership.left();
        self.close(&tasks, Closing::Drop);
        self.unchecked = None;
        self.context.view.raise(Condition::Joining, "", "joining the consumer group again");
        self.standing = Standing::Outside { not_before: self.now() + REJOIN_AFTER };
    }

    /// Rule 8b: looks at the others' maps before new tasks are opened.
    fn check_group(&mut self) -> bool {
        let now = self.now();
        let Some(unchecked) = &mut self.unchecked else { return false };
        if now < unchecked.not_before {
            return false;
        }
        let described = self.context.log.describe_group(&self.context.plan.name);
        let agreement = match described {
            Ok(description) => agreement(&self.context.facts.map_hash, &description),
            Err(error) => {
                let message = format!("the group cannot be described, so no task is opened yet: {error}");
                self.context.view.raise(Condition::Joining, "group", &message);
                unchecked.not_before = now + DESCRIBE_AFTER;
                return false;
            }
        };
        self.context.view.clear(Condition::Joining, "group");
        match agreement {
            Agreement::All => self.context.view.clear(Condition::MapConflict, ""),
            Agreement::Conflict { .. } => {
                self.context.view.raise(Condition::MapConflict, "", &agreement.message());
            }
        }
        if agreement != Agreement::All && self.tasks.is_empty() {
            self.leave_for_a_while();
            return true;
        }
        let tasks = self.unchecked.take().map(|unchecked| unchecked.tasks).unwrap_or_default();
        self.context.ownership.acquire(&tasks);
        for task in tasks {
            self.restore(task);
        }
        true
    }

    fn conflict_back_off(&mut self) -> Duration {
        let (least, most) = CONFLICT_BACK_OFF;
        Duration::from_millis(self.random.u64(millis(least)..=millis(most)))
    }

    fn leave_for_a_while(&mut self) {
        self.unchecked = None;
        self.context.ownership.left();
        // A static member's partitions move on only when its session has ended.
        let session = if self.context.group_instance_id.is_some() { limits::SESSION_TIMEOUT } else { Duration::ZERO };
        let not_before = self.now() + session + self.conflict_back_off();
        let left = std::mem::replace(&mut self.standing, Standing::Outside { not_before });
        if let Standing::Member { membership, .. } = left
            && let Err(error) = membership.close(Leave::Now)
        {
            tracing::debug!(reason = %error, "leaving the group was not answered");
        }
    }

    // ---- tasks -------------------------------------------------------------------------------------------------------

    fn restore(&mut self, task: TaskId) {
        let job = Job::new(task);
        self.context.view.clear(Condition::TaskParked, &task.to_string());
        let state = TaskState::Restoring(RestoreProgress::default());
        self.context.view.set_task(TaskView { id: task, state, worker: None, watermark: None });
        if let Some(Place::Restoring(earlier)) = self.tasks.insert(task, Place::Restoring(job.clone())) {
            earlier.cancel();
        }
        self.crew.restore(job);
    }

    /// Takes tasks off their workers and restorers. Returns when that is done.
    fn close(&mut self, tasks: &[TaskId], how: Closing) {
        let mut running: BTreeMap<usize, Vec<TaskId>> = BTreeMap::new();
        if how == Closing::Drop {
            // After a loss every worker looks at the epoch again, also those without a lost task.
            running = (0..self.crew.workers()).map(|worker| (worker, Vec::new())).collect();
        }
        for task in tasks {
            match self.tasks.remove(task) {
                Some(Place::Restoring(job)) => job.cancel(),
                Some(Place::Running { worker }) => running.entry(worker).or_default().push(*task),
                Some(Place::Failed { .. }) | None => {}
            }
            if let Some(unchecked) = &mut self.unchecked {
                unchecked.tasks.retain(|waiting| waiting != task);
            }
        }
        if !running.is_empty() {
            self.crew.close(&running, how);
        }
        for task in tasks {
            self.context.view.remove_task(*task);
        }
    }

    fn heed(&mut self, report: Report) -> Result<(), Fatal> {
        match report {
            Report::Reopen { worker, tasks } => {
                for task in tasks {
                    if matches!(self.tasks.get(&task), Some(Place::Running { worker: on }) if *on == worker) {
                        self.restore(task);
                    }
                }
                Ok(())
            }
            Report::Parked { task, reason } => {
                if self.tasks.contains_key(&task) {
                    self.context.view.set_task_state(task, TaskState::Parked(reason.clone()));
                    self.context.view.raise(Condition::TaskParked, &task.to_string(), &reason);
                }
                Ok(())
            }
            Report::Finished(finished) => self.finished(*finished),
            Report::Stopped { message } => Err(Fatal { message, abruptly: false }),
            Report::Panicked { message } => Err(Fatal { message, abruptly: true }),
        }
    }

    fn finished(&mut self, Finished { job, outcome }: Finished) -> Result<(), Fatal> {
        let task = job.task;
        // Revoked meanwhile, or asked for again.
        if !matches!(self.tasks.get(&task), Some(Place::Restoring(wanted)) if wanted.is(&job)) {
            return Ok(());
        }
        match outcome {
            Ok(opened) => {
                let worker = self.least_loaded();
                self.tasks.insert(task, Place::Running { worker });
                self.context.view.set_task(TaskView {
                    id: task,
                    state: TaskState::Running,
                    worker: Some(worker),
                    watermark: None,
                });
                tracing::info!(task = %task, worker, "task opened");
                self.crew.add(worker, opened);
                Ok(())
            }
            Err(Failure::Restore(error)) if error.is_final() => {
                Err(Fatal { message: error.to_string(), abruptly: false })
            }
            Err(failure) => {
                let retry_at = Some(self.now() + REOPEN_AFTER);
                self.fail(task, &failure.to_string(), retry_at);
                Ok(())
            }
        }
    }

    fn fail(&mut self, task: TaskId, reason: &str, retry_at: Option<Duration>) {
        self.tasks.insert(task, Place::Failed { retry_at });
        self.context.view.set_task_state(task, TaskState::Failed(reason.to_string()));
        self.context.view.raise(Condition::TaskFailed, &task.to_string(), reason);
    }

    fn least_loaded(&self) -> usize {
        let mut load = vec![0_usize; self.crew.workers()];
        for place in self.tasks.values() {
            if let Place::Running { worker } = place {
                load[*worker] += 1;
            }
        }
        load.iter().enumerate().min_by_key(|(_, tasks)| **tasks).map_or(0, |(worker, _)| worker)
    }

    fn retry_failed(&mut self) {
        let now = self.now();
        let due = |place: &Place| matches!(place, Place::Failed { retry_at: Some(at) } if *at <= now);
        let tasks: Vec<TaskId> = self.tasks.iter().filter(|(_, place)| due(place)).map(|(task, _)| *task).collect();
        for task in tasks {
            self.restore(task);
        }
    }

    /// Opens tasks anew that have committed nothing for long.
    fn renew_idle(&mut self) {
        let now = self.now();
        let running: Vec<(TaskId, usize)> = self
            .tasks
            .iter()
            .filter_map(|(task, place)| match place {
                Place::Running { worker } => Some((*task, *worker)),
                Place::Restoring(_) | Place::Failed { .. } => None,
            })
            .collect();
        self.renewals.retain(|task, _| self.tasks.contains_key(task));
        for (task, worker) in running {
            let due =
                self.renewals.get(&task).is_none_or(|renewal| now.saturating_sub(renewal.looked_at) >= RENEW_AFTER);
            if !due {
                continue;
            }
            let lags = self.context.view.lag();
            let committed: Vec<Option<Offset>> =
                lags.iter().filter(|lag| lag.task == task).map(|lag| lag.committed).collect();
            let before = self.renewals.insert(task, Renewal { looked_at: now, committed: committed.clone() });
            if before.is_some_and(|before| before.committed == committed) {
                tracing::debug!(task = %task, "idle task opened anew");
                self.crew.close(&BTreeMap::from([(worker, vec![task])]), Closing::Commit);
                self.restore(task);
            }
        }
    }

    /// Rule 4: what is no longer trusted is only disk space.
    fn sweep(&mut self) {
        let now = self.now();
        if now.saturating_sub(self.swept_at) < SWEEP_EVERY {
            return;
        }
        self.swept_at = now;
        let Some(backend) = self.context.view.backend() else { return };
        let facts = Arc::clone(&self.context.facts);
        let used: BTreeSet<TaskId> = self.tasks.keys().copied().collect();
        for store in &self.context.plan.stores {
            let in_use = |at: StorePartition| {
                used.contains(&TaskId { sub_topology: store.sub_topology, partition: at.partition })
            };
            let millis = u64::try_from(facts.changelog(store.id).delete_retention_ms).unwrap_or(0);
            let keep = Duration::from_millis(millis / 2);
            let wall = self.context.clock.wall_micros();
            match sweep::sweep(&*backend, &[store.id], wall, keep, &in_use) {
                Ok(swept) if swept.is_empty() => {}
                Ok(swept) => tracing::info!(store = &*store.name, partitions = swept.len(), "unused state removed"),
                Err(error) => tracing::warn!(store = &*store.name, reason = %error, "unused state was not removed"),
            }
        }
    }

    // ---- what is shown -----------------------------------------------------------------------------------------------

    fn show(&mut self) {
        let view = &self.context.view;
        let restoring = self.tasks.values().filter(|place| matches!(place, Place::Restoring(_))).count();
        if restoring == 0 {
            view.clear(Condition::Restoring, "");
        } else {
            let tasks = view.tasks();
            let under_way = tasks.iter().filter_map(|task| match task.state {
                TaskState::Restoring(progress) => Some(progress),
                TaskState::Running | TaskState::Parked(_) | TaskState::Failed(_) => None,
            });
            let message = restoring::describe(restoring, self.tasks.len(), under_way);
            view.raise(Condition::Restoring, "", &message);
        }
        for worker in 0..self.crew.workers() {
            // What it waited for went away with its tasks.
            if !self.tasks.values().any(|place| matches!(place, Place::Running { worker: on } if *on == worker)) {
                view.clear(Condition::WorkerWaiting, &format!("worker {worker}"));
            }
        }
        let now = self.now();
        let settled = match &self.standing {
            Standing::Member { since, told, .. } => {
                let silent = now.saturating_sub(*since) >= SETTLED_AFTER;
                self.unchecked.is_none() && (*told || silent) && self.context.ownership.is_member()
            }
            Standing::Outside { .. } | Standing::Fenced { .. } | Standing::Left => false,
        };
        if settled {
            view.clear(Condition::Joining, "");
        }
        // One that is kept out by the others is as ready as it can be: a rolling update must go on to replace them.
        let kept_out = view.holds(Condition::MapConflict) || view.holds(Condition::InstanceFenced);
        // A task that could not be opened yet is no more ready than one that is being restored.
        let open = self.tasks.values().all(|place| matches!(place, Place::Running { .. }));
        if view.phase() == Phase::Starting && ((settled && open) || kept_out) {
            tracing::info!(tasks = self.tasks.len(), "ready");
            view.set_phase(Phase::Running);
        }
    }

    // ---- changed topics and the end ----------------------------------------------------------------------------------

    pub fn topics_changed(&mut self, finding: &Finding) -> Round {
        match finding {
            Finding::SourcesChanged(topics) => self.sources_changed(topics),
            // Which partition a key goes to is learnt at the start.
            Finding::OutputsChanged | Finding::TopicsReplaced => Round { busy: true, waited: false, restart: true },
        }
    }

    /// The partition counts of these source topics are not what they were (EXACTLY-ONCE rule 12). A stateful sub-topology
    /// that reads one stops; if only stateless ones do, the instance is to begin anew with a new map.
    fn sources_changed(&mut self, topics: &[TopicName]) -> Round {
        let reads =
            |sub: &&crate::topology::plan::SubTopology| sub.sources.iter().any(|source| topics.contains(&source.topic));
        let affected: Vec<(SubTopologyId, bool)> =
            self.context.plan.sub_topologies.iter().filter(reads).map(|sub| (sub.id, sub.stateful)).collect();
        if affected.iter().all(|(_, stateful)| !stateful) {
            return Round { busy: true, waited: false, restart: !affected.is_empty() };
        }
        for topic in topics {
            self.context.view.raise(
                Condition::SourceChanged,
                topic.as_str(),
                "its partition count has changed, so keys are now in other partitions than their state: stateful steps \
                 that read it have stopped; move to a topic with the new count, or `sidestream reset` the application",
            );
        }
        for (sub_topology, _) in affected.into_iter().filter(|(_, stateful)| *stateful) {
            let tasks: Vec<TaskId> =
                self.tasks.keys().filter(|task| task.sub_topology == sub_topology).copied().collect();
            let running: Vec<TaskId> =
                tasks.iter().filter(|task| !matches!(self.tasks[task], Place::Failed { .. })).copied().collect();
            self.close(&running, Closing::Commit);
            for task in running {
                let state = TaskState::Failed(String::new());
                self.context.view.set_task(TaskView { id: task, state, worker: None, watermark: None });
                self.fail(task, "the partition count of a source topic has changed", None);
            }
        }
        Round { busy: true, waited: false, restart: false }
    }

    /// Commits and closes everything and ends the membership. The crew is left without tasks.
    pub fn stop(&mut self, leave: Leave) {
        let tasks: Vec<TaskId> = self.tasks.keys().copied().collect();
        self.close(&tasks, Closing::Commit);
        self.unchecked = None;
        let standing = std::mem::replace(&mut self.standing, Standing::Left);
        self.context.ownership.left();
        if let Standing::Member { membership, .. } = standing
            && let Err(error) = membership.close(leave)
        {
            tracing::warn!(reason = %error, "leaving the group was not answered");
        }
    }

    /// The workers of an inline crew; none where they are on threads.
    pub fn inline_workers(&mut self) -> &mut [Worker] {
        match &mut self.crew {
            Crew::Inline(crew) => &mut crew.workers,
            Crew::Threads(_) => &mut [],
        }
    }

    /// Ends the crew's threads.
    pub fn stop_crew(&mut self, timeout: Duration) {
        let left = self.crew.stop(timeout);
        if !left.is_empty() {
            tracing::warn!(
                threads = left.join(","),
                waited_ms = millis(timeout),
                reason = self.context.view.trouble(),
                "threads are left behind in calls that have had no answer; what they had not committed is aborted by Kafka \
                 and processed again by whoever owns it next"
            );
        }
    }
}

fn names(tasks: &[TaskId]) -> String {
    tasks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
