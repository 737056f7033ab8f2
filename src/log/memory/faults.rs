//! Where the fault simulation strikes, and with what.
//!
//! The source of faults is asked at each [`Step`] of each client, before the step is done unless its name says "after".
//! It runs outside of the log's lock and may call the log; the calls that it makes itself meet no faults. A fault that
//! has no meaning at a step is no fault: the tables below are complete.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::transaction::End;
use crate::ids::{Partition, TopicName, TopicPartition};
use crate::log::Error;

pub type FaultSource = Box<dyn FnMut(FaultPoint<'_>) -> Fault + Send>;

/// A step that some client is about to take.
#[derive(Clone, Copy, Debug)]
pub struct FaultPoint<'a> {
    /// The name given to `MemoryLog::client`.
    pub client: &'a str,
    pub step: Step<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step<'a> {
    /// `Unreachable`, `AnswerLost`.
    Request(Request),
    /// `Unreachable`, `AnswerLost`. The transactional id, or the producer's name where it has none.
    Init(&'a str),
    /// `Unreachable` (a full queue: it is what a client without a broker has), `Delay`, `Refuse`, `Fence`.
    Send { producer: &'a str, topic: &'a TopicName, partition: Partition, key: Option<&'a [u8]> },
    /// The producer delivers what is queued: in `poll`, where `Unreachable` and `Delay` leave it queued, or in `commit`,
    /// where `Unreachable` fails it.
    ProducerPoll(&'a str),
    /// Everything is acknowledged; the offsets are next. `Unreachable`, `Abort`, `StaleGeneration`, `Fence`.
    BeforeOffsets(&'a str),
    /// `Unreachable`, `Abort`, `Fence`.
    AfterOffsets(&'a str),
    /// The request that ends the transaction. With `Commit`: `Unreachable` (unknown, did not happen), `Late` (unknown,
    /// happens before the next `init`), `Abort`, `Fence`, `DelayMarkers`. With `Abort`: `Unreachable`, `Fence`,
    /// `DelayMarkers`.
    BeforeEnd(&'a str, End),
    /// It has happened. `Unreachable` and `AnswerLost`: the client does not learn it.
    AfterEnd(&'a str, End),
    /// One assigned partition is about to be read. `Unreachable` and `Delay` (nothing this time), `Short`, `Duplicate`.
    Fetch { fetcher: &'a str, partition: &'a TopicPartition },
    /// The member serves its group. `Unreachable`, `Delay` (nothing happens), `Expire`, `Rebalance`.
    MemberPoll { group: &'a str, member: &'a str },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Request {
    ClusterId,
    DescribeTopics,
    CreateTopics,
    DeleteTopics,
    DeleteRecords,
    Committed,
    Offsets,
    DescribeGroup,
    DeleteGroup,
    SetOffsets,
    /// A commit of offsets outside of a transaction.
    GroupCommit,
    Join,
    Leave,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    None,
    /// The request does not arrive.
    Unreachable,
    /// The request is served; its answer does not arrive.
    AnswerLost,
    /// The process dies here: nothing that its client does from now on reaches the log. At every step.
    Kill,
    /// The request arrives after the client has given up on it.
    Late,
    /// The broker asks for an abort.
    Abort,
    /// The commit meets another generation than the one it was made for.
    StaleGeneration,
    /// Another producer with the same transactional id runs its `init` first.
    Fence,
    /// The broker refuses this record.
    Refuse,
    /// The answer comes before the control records are written.
    DelayMarkers(MarkerDelay),
    /// Not this time.
    Delay,
    /// At most so many records this time.
    Short(usize),
    /// The last so many records once more, before the next ones.
    Duplicate(usize),
    /// The member's session expires before its heartbeat arrives.
    Expire,
    /// The group rebalances.
    Rebalance,
}

/// Which control records come late. They are written after this time, when `MemoryLog::release_markers` is called, or
/// when the producer goes on (its next transaction and the next `init` wait for them).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MarkerDelay {
    /// The committed offsets are visible while the last stable offsets of the topics stay behind (KAFKA-10167).
    Topics(Duration),
    /// The committed offsets stay pending too.
    TopicsAndOffsets(Duration),
}

impl MarkerDelay {
    pub(super) fn duration(self) -> Duration {
        match self {
            Self::Topics(duration) | Self::TopicsAndOffsets(duration) => duration,
        }
    }
}

/// A simulated process: what is killed at once.
#[derive(Debug)]
pub(super) struct Client {
    pub name: String,
    killed: AtomicBool,
}

impl Client {
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), killed: AtomicBool::new(false) })
    }

    pub fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }
}

pub(super) fn unreachable(client: &Client) -> Error {
    let state = if client.is_killed() { "was killed" } else { "has no connection" };
    Error::Unreachable { reason: format!("client `{}` {state}", client.name) }
}

pub(super) fn answer_lost() -> Error {
    Error::TimedOut { reason: "the answer was lost".to_owned() }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
