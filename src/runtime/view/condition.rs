//! Conditions: what keeps the instance from being ready or makes it less than whole, in words for `/readyz`.
//!
//! Invariant: whoever raises a condition clears it; nothing expires by itself.

use std::collections::BTreeMap;

/// What is wrong, by kind. The code is part of the HTTP interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// No broker answers.
    KafkaUnreachable,
    /// A source or output topic does not exist, or may not be looked at.
    TopicMissing,
    /// Topics exist but do not fit the plan (co-partitioning, cleanup policy, partition count of an internal topic).
    TopicUnfit,
    /// The group has not yet said what this instance owns.
    Joining,
    /// State is being restored.
    Restoring,
    /// The group runs another ownership map (EXACTLY-ONCE rule 8b).
    MapConflict,
    /// A rebalance is running.
    Rebalancing,
    /// A task failed repeatedly (EXACTLY-ONCE rule 20c). The subject is the task.
    TaskParked,
    /// A task could not be opened. The subject is the task.
    TaskFailed,
    /// A restoration hears nothing from the log. The subject is the task.
    TaskWaiting,
    /// Another process uses this instance's id (EXACTLY-ONCE rule 11d).
    InstanceFenced,
    /// A worker waits before it tries again. The subject is the worker.
    WorkerWaiting,
    /// The partition count of a source topic has changed (EXACTLY-ONCE rule 12).
    SourceChanged,
    /// The instance is shutting down.
    Stopping,
}

impl Condition {
    /// Stable: part of the HTTP interface.
    pub fn code(self) -> &'static str {
        match self {
            Self::KafkaUnreachable => "kafka_unreachable",
            Self::TopicMissing => "topic_missing",
            Self::TopicUnfit => "topic_unfit",
            Self::Joining => "joining",
            Self::Restoring => "restoring",
            Self::MapConflict => "map_conflict",
            Self::Rebalancing => "rebalancing",
            Self::TaskParked => "task_parked",
            Self::TaskFailed => "task_failed",
            Self::TaskWaiting => "task_waiting",
            Self::InstanceFenced => "instance_fenced",
            Self::WorkerWaiting => "worker_waiting",
            Self::SourceChanged => "source_changed",
            Self::Stopping => "stopping",
        }
    }
}

impl Condition {
    /// Whether it belongs to the ordinary life of an instance, and is no reason to look.
    pub fn is_ordinary(self) -> bool {
        match self {
            Self::Joining | Self::Restoring | Self::Rebalancing | Self::Stopping => true,
            Self::KafkaUnreachable
            | Self::TopicMissing
            | Self::TopicUnfit
            | Self::MapConflict
            | Self::TaskParked
            | Self::TaskFailed
            | Self::TaskWaiting
            | Self::InstanceFenced
            | Self::WorkerWaiting
            | Self::SourceChanged => false,
        }
    }
}

/// One condition that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub condition: Condition,
    /// The topic, task or worker it is about; empty for the whole instance.
    pub subject: String,
    /// For people: what is wrong and what would help.
    pub message: String,
    /// Microseconds since the epoch.
    pub since: i64,
}

/// The conditions that hold now.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    notes: BTreeMap<(Condition, String), (String, i64)>,
}

/// Whether raising a condition told anything new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    New,
    /// It held already, with other words.
    Reworded,
    Known,
}

impl Conditions {
    pub fn raise(&mut self, condition: Condition, subject: &str, message: &str, now: i64) -> Raised {
        match self.notes.get_mut(&(condition, subject.to_string())) {
            Some((known, _)) if known == message => Raised::Known,
            Some((known, _)) => {
                *known = message.to_string();
                Raised::Reworded
            }
            None => {
                self.notes.insert((condition, subject.to_string()), (message.to_string(), now));
                Raised::New
            }
        }
    }

    /// Whether it held.
    pub fn clear(&mut self, condition: Condition, subject: &str) -> bool {
        self.notes.remove(&(condition, subject.to_string())).is_some()
    }

    /// Clears the subjects of the condition that are not to be kept; returns those that held.
    pub fn retain(&mut self, condition: Condition, keep: impl Fn(&str) -> bool) -> Vec<String> {
        let cleared = self.notes.extract_if(.., |(known, subject), _| *known == condition && !keep(subject));
        cleared.map(|((_, subject), _)| subject).collect()
    }

    pub fn holds(&self, condition: Condition) -> bool {
        self.notes.keys().any(|(known, _)| *known == condition)
    }

    pub fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub fn notes(&self) -> Vec<Note> {
        self.notes
            .iter()
            .map(|((condition, subject), (message, since))| Note {
                condition: *condition,
                subject: subject.clone(),
                message: message.clone(),
                since: *since,
            })
            .collect()
    }
}
