//! What the fault simulation sees of this code beside its results, and how it is shown to see anything.
//!
//! - A [`Mark`] stands in each branch that only a rare sequence of faults reaches. The simulation asserts that all of them
//!   were reached over a run, so that a schedule generator that has gone blind fails.
//! - A [`Rule`] stands where the code keeps one of the rules that make it exactly once. A test breaks one and asserts that
//!   the simulation notices.
//!
//! What it is not: a part of the product. Without debug assertions, as in every release build, marks are nothing and no
//! rule can be broken; no setting and no command reaches this module.
//!
//! Both are kept per thread: a simulated schedule runs on one, and others run beside it.

/// A branch that is rarely taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Nobody knows whether the transaction was committed.
    CommitUnknown,
    CommitAborted,
    /// Another generation than that of the commit.
    CommitStale,
    CommitFenced,
    CommittedOnRevocation,
    AbortFailed,
    /// The producer is gone and a new one cannot be made yet.
    ProducerMissing,
    /// A task is lost while its records are in the open transaction.
    LostInTransaction,
    /// Committed, but local state could not be written.
    StateNotWritten,
    /// Local state could not be read in the middle of processing.
    StateNotRead,
    RecordRefused,
    RecordSetAside,
    TaskParked,
    DuplicateDropped,
    RestoredTail,
    RestoredInFull,
    /// There was local state, and it was wiped.
    Distrusted,
    /// The changelog's last stable offset hides what was committed: its control records are late.
    MarkerLate,
    RestorationCancelled,
    PartitionIdle,
    WatermarkSent,
    MapConflict,
    InstanceFenced,
}

impl Mark {
    pub const ALL: [Self; 23] = [
        Self::CommitUnknown,
        Self::CommitAborted,
        Self::CommitStale,
        Self::CommitFenced,
        Self::CommittedOnRevocation,
        Self::AbortFailed,
        Self::ProducerMissing,
        Self::LostInTransaction,
        Self::StateNotWritten,
        Self::StateNotRead,
        Self::RecordRefused,
        Self::RecordSetAside,
        Self::TaskParked,
        Self::DuplicateDropped,
        Self::RestoredTail,
        Self::RestoredInFull,
        Self::Distrusted,
        Self::MarkerLate,
        Self::RestorationCancelled,
        Self::PartitionIdle,
        Self::WatermarkSent,
        Self::MapConflict,
        Self::InstanceFenced,
    ];
}

/// What a test may break: the rule is named by what happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A restoration ends at the first end of partition, although the high watermark lies beyond it.
    RestoreStopsAtFirstEnd,
    /// Old local state is built upon, although deletions may have gone from the changelog.
    OldStateTrusted,
    /// A full restoration begins on top of what is there.
    NothingWiped,
    /// Tasks that are lost go on.
    LossIgnored,
    /// Tasks that are revoked go on, and the revocation is acknowledged.
    RevocationIgnored,
    /// What a lost task wrote stays in the transaction of the others.
    LostTaskStaysInTransaction,
    /// Another ownership map in the group is of no interest.
    OtherMapsIgnored,
    /// The transaction has the offsets of one of its tasks only.
    OffsetsOfOneTask,
    /// The offsets are those of what was fetched, not of what was processed.
    FetchedIsCommitted,
    /// After an abort the cache stays as it is.
    RollbackKeepsRows,
    /// After an abort the task goes on where it was.
    RollbackKeepsPosition,
    /// After an abort the task's time stays as it is.
    RollbackKeepsTime,
    /// Closing commits through a producer that was given up.
    GivenUpProducerCommits,
    /// An unknown commit is replayed from remembered offsets.
    UnknownIsAborted,
    /// An unknown commit is taken for a success.
    UnknownIsCommitted,
    /// Local state is written before the commit.
    StateBeforeCommit,
    /// Local state is not written after the commit.
    StateNeverWritten,
    /// Local state that could not be written is taken for written.
    StateRefusalIgnored,
    /// The position beside the rows is ahead of them.
    PositionTooHigh,
    /// Tables are flushed before those that feed them.
    FlushedUpstreamLast,
    /// A cached row forgets what it was at the last commit.
    ImageForgotten,
    /// Time state is not read when a task is opened.
    TimeForgotten,
    /// A source partition goes idle whose fetches bring nothing, whether there is something or not.
    IdleWhileUnread,
    /// An upstream task that has not reported does not hold the watermark.
    UnheardUpstreamIgnored,
    /// A refused record is never set aside.
    PoisonReplayed,
    /// A table whose topic is its changelog is restored beyond what was processed.
    SourceRestoredToEnd,
    /// A record that is fetched twice is processed twice.
    DuplicateTaken,
}

impl Rule {
    pub const ALL: [Self; 27] = [
        Self::RestoreStopsAtFirstEnd,
        Self::OldStateTrusted,
        Self::NothingWiped,
        Self::LossIgnored,
        Self::RevocationIgnored,
        Self::LostTaskStaysInTransaction,
        Self::OtherMapsIgnored,
        Self::OffsetsOfOneTask,
        Self::FetchedIsCommitted,
        Self::RollbackKeepsRows,
        Self::RollbackKeepsPosition,
        Self::RollbackKeepsTime,
        Self::GivenUpProducerCommits,
        Self::UnknownIsAborted,
        Self::UnknownIsCommitted,
        Self::StateBeforeCommit,
        Self::StateNeverWritten,
        Self::PositionTooHigh,
        Self::FlushedUpstreamLast,
        Self::ImageForgotten,
        Self::TimeForgotten,
        Self::IdleWhileUnread,
        Self::UnheardUpstreamIgnored,
        Self::PoisonReplayed,
        Self::SourceRestoredToEnd,
        Self::DuplicateTaken,
        Self::StateRefusalIgnored,
    ];
}

#[cfg(debug_assertions)]
mod kept {
    use std::cell::Cell;

    use super::{Mark, Rule};

    thread_local! {
        static REACHED: Cell<u64> = const { Cell::new(0) };
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    /// This branch is taken.
    pub fn reached(mark: Mark) {
        REACHED.set(REACHED.get() | 1 << mark as u32);
    }

    /// Whether a test has broken this rule.
    pub fn is_broken(rule: Rule) -> bool {
        BROKEN.get() == Some(rule)
    }

    /// The marks that this thread has reached since the last call.
    pub fn take_reached() -> Vec<Mark> {
        let reached = REACHED.take();
        Mark::ALL.into_iter().filter(|mark| reached & (1 << *mark as u32) != 0).collect()
    }

    /// From now on, on this thread: a rule is broken, or none.
    pub fn break_rule(rule: Option<Rule>) {
        BROKEN.set(rule);
    }
}

#[cfg(not(debug_assertions))]
mod kept {
    use super::{Mark, Rule};

    pub fn reached(_: Mark) {}

    pub const fn is_broken(_: Rule) -> bool {
        false
    }
}

pub use kept::*;
