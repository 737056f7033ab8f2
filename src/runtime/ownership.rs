//! Which tasks this process may commit for, and under which membership (EXACTLY-ONCE rules 9 and 10).
//!
//! What it is: the owned set, the ownership epoch and the way to the group's metadata, under one lock. The coordinator
//! writes it on ownership events, workers read it for every commit.
//! What it is not: it does not talk to the group itself and does not know where a task runs.
//!
//! How a loss cannot be overtaken by a commit
//! 1. A commit holds the lock shared from reading the owned set and the metadata until the broker has answered.
//! 2. The coordinator takes tasks out under the exclusive lock *before* it acknowledges the event to the group; only
//!    after the acknowledgement can the group reach a generation in which somebody else owns them.
//! 3. A loss also raises the epoch, so that a worker which has not yet heard of it cannot commit for a task that has come
//!    back meanwhile.
//!
//! Why it does not deadlock: the coordinator never waits for a worker while it holds the lock, and a worker never waits
//! for the coordinator while it commits. `epoch` takes no lock, so it may be read inside a commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::ids::TaskId;
use crate::log::{Group, GroupMetadata};

/// See the module.
#[derive(Debug)]
pub struct Ownership {
    /// HOST:PORT that goes into the representative's offset metadata (EXACTLY-ONCE rule 6).
    endpoint: String,
    epoch: AtomicU64,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    owned: BTreeSet<TaskId>,
    group: Option<Arc<dyn Group>>,
}

/// Why a commit must not be tried. The worker rolls its transaction back and goes on; the coordinator closes the tasks
/// that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOwner {
    /// Ownership was lost since the worker last looked; it has not been told yet.
    #[error("ownership was lost since")]
    EpochPassed,
    #[error("task {0} is not owned any more")]
    NotOwned(TaskId),
    /// EXACTLY-ONCE rule 10b.
    #[error("there is no valid membership in the group now")]
    NoMembership,
}

impl Ownership {
    pub fn new(endpoint: String) -> Arc<Self> {
        Arc::new(Self { endpoint, epoch: AtomicU64::new(0), state: RwLock::default() })
    }

    // ---- for workers -------------------------------------------------------------------------------------------------

    /// How often ownership was lost so far. A worker reads it when it has dropped what was lost, and passes what it read
    /// to [`Ownership::for_commit`].
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Runs `f` with the group's metadata as it is now, if every one of the tasks is owned and the epoch is `epoch_seen`.
    ///
    /// The owned set cannot change while `f` runs. `f` must not wait for the coordinator.
    pub fn for_commit<R>(
        &self,
        tasks: &[TaskId],
        epoch_seen: u64,
        f: impl FnOnce(&GroupMetadata) -> R,
    ) -> Result<R, NotOwner> {
        let state = self.state.read();
        if self.epoch() != epoch_seen {
            return Err(NotOwner::EpochPassed);
        }
        if let Some(&task) = tasks.iter().find(|task| !state.owned.contains(task)) {
            return Err(NotOwner::NotOwned(task));
        }
        let metadata = state.group.as_ref().and_then(|group| group.metadata());
        match metadata {
            Some(metadata) if metadata.generation >= 0 && !metadata.member_id.is_empty() => Ok(f(&metadata)),
            Some(_) | None => Err(NotOwner::NoMembership),
        }
    }

    /// What goes into the offset metadata of a task's representative partition; of its other inputs it is empty.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    // ---- for the coordinator -----------------------------------------------------------------------------------------

    /// A new membership, which owns nothing yet.
    pub fn joined(&self, group: Arc<dyn Group>) {
        let mut state = self.state.write();
        debug_assert!(state.owned.is_empty(), "a new membership begins with nothing");
        state.owned.clear();
        state.group = Some(group);
    }

    pub fn acquire(&self, tasks: &[TaskId]) {
        self.state.write().owned.extend(tasks);
    }

    /// After the workers have committed and closed them, before the revocation is acknowledged.
    pub fn release(&self, tasks: &[TaskId]) {
        let mut state = self.state.write();
        for task in tasks {
            state.owned.remove(task);
        }
    }

    /// Before the workers are told of a loss.
    pub fn lose(&self, tasks: &[TaskId]) {
        let mut state = self.state.write();
        for task in tasks {
            state.owned.remove(task);
        }
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// The membership is over.
    pub fn left(&self) {
        let mut state = self.state.write();
        state.owned.clear();
        state.group = None;
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn owns(&self, task: TaskId) -> bool {
        self.state.read().owned.contains(&task)
    }

    pub fn owned(&self) -> Vec<TaskId> {
        self.state.read().owned.iter().copied().collect()
    }

    pub fn is_member(&self) -> bool {
        self.state.read().group.as_ref().is_some_and(|group| group.metadata().is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::{NotOwner, Ownership};
    use crate::ids::{Partition, SubTopologyId, TaskId};
    use crate::log::{Error, Group, GroupMetadata, OffsetCommit};

    #[derive(Debug)]
    struct FixedGroup(Mutex<Option<GroupMetadata>>);

    impl Group for FixedGroup {
        fn metadata(&self) -> Option<GroupMetadata> {
            self.0.lock().clone()
        }

        fn commit(&self, _: &[OffsetCommit], _: &GroupMetadata) -> Result<(), Error> {
            Ok(())
        }
    }

    fn metadata(generation: i32, member: &str) -> GroupMetadata {
        GroupMetadata { group: "g".into(), generation, member_id: member.into(), instance_id: None }
    }

    fn task(partition: u32) -> TaskId {
        TaskId { sub_topology: SubTopologyId(0), partition: Partition(partition) }
    }

    fn joined(generation: i32, member: &str) -> (Arc<Ownership>, Arc<FixedGroup>) {
        let ownership = Ownership::new("host:1".into());
        let group = Arc::new(FixedGroup(Mutex::new(Some(metadata(generation, member)))));
        ownership.joined(group.clone());
        (ownership, group)
    }

    #[test]
    fn a_commit_reads_the_generation_fresh() {
        let (ownership, group) = joined(3, "m");
        ownership.acquire(&[task(0)]);
        let seen = ownership.epoch();
        assert_eq!(ownership.for_commit(&[task(0)], seen, |metadata| metadata.generation), Ok(3));
        *group.0.lock() = Some(metadata(4, "m"));
        assert_eq!(ownership.for_commit(&[task(0)], seen, |metadata| metadata.generation), Ok(4));
    }

    #[test]
    fn a_commit_for_a_task_that_is_gone_is_refused() {
        let (ownership, _group) = joined(3, "m");
        ownership.acquire(&[task(0), task(1)]);
        ownership.release(&[task(1)]);
        let refused = ownership.for_commit(&[task(0), task(1)], ownership.epoch(), |_| ());
        assert_eq!(refused, Err(NotOwner::NotOwned(task(1))));
    }

    #[test]
    fn a_worker_that_missed_a_loss_cannot_commit_even_when_the_task_has_come_back() {
        let (ownership, _group) = joined(3, "m");
        ownership.acquire(&[task(0)]);
        let seen = ownership.epoch();
        ownership.lose(&[task(0)]);
        ownership.acquire(&[task(0)]);
        assert_eq!(ownership.for_commit(&[task(0)], seen, |_| ()), Err(NotOwner::EpochPassed));
        assert_eq!(ownership.for_commit(&[task(0)], ownership.epoch(), |_| ()), Ok(()));
    }

    #[test]
    fn a_commit_without_a_valid_membership_is_refused() {
        for (generation, member) in [(-1, "m"), (3, "")] {
            let (ownership, _group) = joined(generation, member);
            ownership.acquire(&[task(0)]);
            assert_eq!(ownership.for_commit(&[task(0)], ownership.epoch(), |_| ()), Err(NotOwner::NoMembership));
        }
        let (ownership, _group) = joined(3, "m");
        ownership.acquire(&[task(0)]);
        ownership.left();
        assert_eq!(ownership.for_commit(&[task(0)], ownership.epoch(), |_| ()), Err(NotOwner::NotOwned(task(0))));
    }
}
