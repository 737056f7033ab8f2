//! What a worker does about a failure: whom it concerns, and what must happen before the next attempt.
//!
//! What it is not: it does not decide *that* something failed, nor when to commit; `Worker` does.
//!
//! Invariants
//! - After `recover` no transaction is open, and every task that is left stands at its last commit.
//! - A task whose commit may or may not have happened is never kept (rule 13b): a new producer asks the log.

use std::time::Duration;

use super::step::Step;
use super::{Owned, Stop, Turn, Worker, make_producer};
use crate::ids::TaskId;
use crate::log::{self, FetchSlot, Next, Outcome};
use crate::metric;
use crate::operator::Failure;
use crate::probe::{self, Mark, Rule};
use crate::runtime::ownership::NotOwner;
use crate::runtime::view::Condition;
use crate::store;

/// A task that has failed as often as this in a row, with no record to blame, is parked.
const FAILURES_BEFORE_PARKING: u32 = 3;

/// What a failed attempt means for the worker.
pub(super) enum Trouble {
    /// Roll back and go on after a while.
    Replay {
        cause: String,
        wait: Duration,
    },
    /// Roll back; a record is refused.
    Poison {
        cause: String,
    },
    /// A new producer; all tasks must be opened again.
    Renew {
        cause: String,
    },
    /// Roll back; this task cannot go on.
    Park {
        task: TaskId,
        cause: String,
    },
    Stop(Stop),
}

impl Worker {
    /// A position that is gone, or a topic that is, concerns one task only: the others go on (rules 3c and 20c).
    pub(super) fn fetch_failed(&mut self, slot: FetchSlot, error: &log::Error) -> Trouble {
        let Some((task, input)) = self.slots.get(slot.0 as usize).copied().flatten() else { return replay(error) };
        if error.next() == Next::Reposition
            && let Some(owned) = self.tasks.get(&task)
            && let Some((partition, _)) = owned.task.inputs().nth(input)
        {
            let counters = &self.settings.view.counters;
            counters.counter(&metric::RECORDS_OUT_OF_RANGE, &[partition.topic.as_str()]).add(1);
        }
        match error.next() {
            Next::Reposition => Trouble::Park {
                task,
                cause: format!(
                    "{error}: its records were deleted before they were read (the topic's retention is shorter than the \
                     time this application was away or behind). To go on without them and keep the state, stop all \
                     instances and run `sidestream reset --offsets earliest` (or `latest`)"
                ),
            },
            Next::Wait => Trouble::Park { task, cause: error.to_string() },
            _ => replay(error),
        }
    }

    pub(super) fn commit_failed(&mut self, failure: &log::CommitFailure) -> Trouble {
        let cause = failure.error.to_string();
        match (failure.outcome, failure.error.next()) {
            (Outcome::Unknown, _) if probe::is_broken(Rule::UnknownIsAborted) => replay(&failure.error),
            (Outcome::Unknown, _) => {
                probe::reached(Mark::CommitUnknown);
                self.meters.unknown.add(1);
                Trouble::Renew { cause }
            }
            (Outcome::Aborted, Next::RecreateProducer) => {
                probe::reached(Mark::CommitFenced);
                self.meters.aborted.add(1);
                Trouble::Renew { cause }
            }
            (Outcome::Aborted, Next::Poison) => {
                self.meters.aborted.add(1);
                Trouble::Poison { cause }
            }
            (Outcome::Aborted, next) => {
                probe::reached(if next == Next::Rejoin { Mark::CommitStale } else { Mark::CommitAborted });
                self.meters.aborted.add(1);
                replay(&failure.error)
            }
        }
    }

    pub(super) fn recover(&mut self, trouble: Trouble, turn: &mut Turn) -> Result<(), Stop> {
        let worker = self.settings.index;
        match trouble {
            Trouble::Replay { cause, wait } => {
                if self.settings.view.raise(Condition::WorkerWaiting, &self.subject(), &cause) {
                    tracing::info!(worker, reason = cause, "rolled back; replaying from the last commit");
                } else {
                    tracing::debug!(worker, reason = cause, "rolled back again");
                }
                self.pause_until = self.now() + wait;
                self.abort_and_rollback(turn);
            }
            Trouble::Poison { cause } => {
                probe::reached(Mark::RecordRefused);
                tracing::warn!(worker, reason = cause, "a record was refused; replaying one by one to find it");
                self.find_poison(&cause);
                self.abort_and_rollback(turn);
                self.park_failing(&cause, turn);
            }
            Trouble::Park { task, cause } => {
                // The coordinator tells it, with the condition that it raises.
                tracing::debug!(worker, task = %task, reason = cause, "the task is parked");
                if let Some(owned) = self.tasks.get_mut(&task) {
                    owned.failures = FAILURES_BEFORE_PARKING;
                }
                self.abort_and_rollback(turn);
                self.park_failing(&cause, turn);
            }
            Trouble::Renew { cause } => {
                tracing::warn!(worker, reason = cause, "new producer; the tasks are opened again");
                self.renew(&cause, turn);
            }
            Trouble::Stop(stop) => {
                self.abort_and_rollback(turn);
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Narrows down which record it is that the log refuses, or marks it when it stands alone. Where no record is to
    /// blame, the task has failed.
    fn find_poison(&mut self, cause: &str) {
        let mut processed: Vec<&mut Owned> =
            self.tasks.values_mut().filter(|owned| owned.task.processed_since_commit() > 0).collect();
        match &mut processed[..] {
            [] => {
                if let Some(owned) = self.committing.and_then(|task| self.tasks.get_mut(&task)) {
                    owned.failures += 1;
                }
            }
            [owned] if owned.task.processed_since_commit() == 1 => match owned.task.last_processed() {
                // Its dead letter is refused as well, or what is refused came without a record.
                Some(record) if owned.poisoned == Some(record) => owned.failures += 1,
                Some(record) => {
                    owned.poisoned = Some(record);
                    if !probe::is_broken(Rule::PoisonReplayed) {
                        probe::reached(Mark::RecordSetAside);
                        owned.task.set_poison(record.0, record.1, cause.to_owned());
                    }
                }
                None => owned.failures += 1,
            },
            several => {
                for owned in several {
                    for (input, (partition, _)) in owned.task.inputs().enumerate() {
                        self.cautious.insert(partition.clone(), owned.task.position(input));
                    }
                }
            }
        }
        if self.cautious.is_empty() && self.committing.is_none() {
            // Nothing was processed and nobody is known to have written: let time pass for, and commit, one task after the
            // other to find who it is. Each is done with its next commit, whether it gets another record or not.
            for owned in self.tasks.values() {
                for (input, (partition, _)) in owned.task.inputs().enumerate() {
                    self.cautious.insert(partition.clone(), owned.task.position(input));
                }
            }
        }
    }

    fn park_failing(&mut self, cause: &str, turn: &mut Turn) {
        for (id, owned) in &mut self.tasks {
            if owned.failures >= FAILURES_BEFORE_PARKING && !owned.parked {
                probe::reached(Mark::TaskParked);
                owned.parked = true;
                turn.parked.push((*id, cause.to_owned()));
                for (partition, _) in owned.task.inputs() {
                    self.cautious.remove(partition);
                }
                for slot in &owned.slots {
                    if let Err(error) = self.fetcher.pause(*slot) {
                        tracing::debug!(task = %id, %error, "pause failed; its records stay queued");
                    }
                }
            }
        }
    }

    /// Ends the transaction and takes every task back to its last commit.
    pub(super) fn abort_and_rollback(&mut self, turn: &mut Turn) {
        if self.outbox.in_transaction() {
            self.step.set(Step::Aborting);
            match self.outbox.producer().abort() {
                Ok(()) => self.outbox.ended(),
                Err(error) => {
                    probe::reached(Mark::AbortFailed);
                    tracing::warn!(worker = self.settings.index, %error, "abort failed");
                    self.renew(&error.to_string(), turn);
                    return;
                }
            }
        }
        let mut failed = None;
        for owned in self.tasks.values_mut() {
            owned.task.rollback();
            for ((partition, offset), slot) in owned.task.inputs().zip(&owned.slots) {
                if let Err(error) = self.fetcher.assign(*slot, partition, offset) {
                    failed = Some(error);
                }
            }
            for (slot, paused) in owned.slots.iter().zip(&mut owned.paused) {
                if std::mem::take(paused)
                    && !owned.parked
                    && let Err(error) = self.fetcher.resume(*slot)
                {
                    failed = Some(error);
                }
            }
        }
        self.oldest_uncommitted = None;
        if let Some(error) = failed {
            self.renew(&error.to_string(), turn);
        }
    }

    /// A new producer with the same id; the tasks go back to be restored, since what became of their last commit is
    /// only known to the log (rule 13b).
    fn renew(&mut self, cause: &str, turn: &mut Turn) {
        self.meters.recreated.add(1);
        self.settings.view.raise(Condition::WorkerWaiting, &self.subject(), cause);
        let ids: Vec<TaskId> = self.tasks.keys().copied().collect();
        for id in ids {
            // A parked task stays so until it is assigned anew.
            if self.remove(id).is_some_and(|owned| !owned.parked) {
                turn.reopen.push(id);
            }
        }
        self.oldest_uncommitted = None;
        self.cautious.clear();
        self.step.set(Step::MakingProducer);
        match make_producer(&self.settings) {
            Ok(producer) => self.outbox.replace_producer(producer),
            Err(error) => {
                probe::reached(Mark::ProducerMissing);
                self.needs_producer = true;
                tracing::warn!(worker = self.settings.index, %error, "no new producer yet");
            }
        }
    }
}

pub(super) fn trouble(failure: Failure) -> Trouble {
    match failure {
        Failure::Log(error) => log_trouble(error),
        Failure::Store(error) => {
            probe::reached(Mark::StateNotRead);
            not_stored(&error)
        }
        Failure::Stop { message } => Trouble::Stop(Stop { message }),
        Failure::Record(error) => Trouble::Poison { cause: error.to_string() },
    }
}

/// The local state refuses what is committed, or cannot be read: it is restored, as soon as it can be written again.
pub(super) fn not_stored(error: &store::Error) -> Trouble {
    Trouble::Renew { cause: format!("{error}{}", error.help_clause()) }
}

pub(super) fn log_trouble(error: log::Error) -> Trouble {
    match error.next() {
        Next::RecreateProducer => Trouble::Renew { cause: error.to_string() },
        Next::Poison => Trouble::Poison { cause: error.to_string() },
        Next::Stop => Trouble::Stop(Stop { message: error.to_string() }),
        Next::Retry | Next::Wait | Next::Rejoin | Next::Fenced | Next::Reposition => replay(&error),
    }
}

/// How long to wait before a replay.
pub(super) fn replay(error: &log::Error) -> Trouble {
    let wait = match error.next() {
        Next::Rejoin => Duration::from_millis(50),
        Next::Retry => Duration::from_millis(250),
        _ => Duration::from_secs(1),
    };
    Trouble::Replay { cause: error.to_string(), wait }
}

pub(super) fn not_owned(not_owner: NotOwner) -> Trouble {
    Trouble::Replay { cause: not_owner.to_string(), wait: Duration::from_millis(20) }
}
