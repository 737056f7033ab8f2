//! The whole log behind one lock, and who waits for it to change.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::faults::{Client, Fault, FaultPoint, FaultSource, Step};
use super::group::{Groups, MemberNumber, Standing};
use super::topic::{StoredRecord, Topics};
use super::transaction::{Identity, Participants, Transactions};
use crate::clock::SharedClock;
use crate::ids::{Offset, Partition, TopicName, TopicPartition};
use crate::log::{Error, GroupMetadata, MembershipSettings, OffsetCommit, OutgoingRecord};

/// A wait looks at the clock at least this often, since sessions and transactions end by time alone.
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// What a `fetch` or `poll` with a wait does while there is nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Waiting {
    Blocks,
    EndsAtOnce,
}

pub(super) struct Shared {
    pub clock: SharedClock,
    waiting: Waiting,
    state: Mutex<State>,
    changed: Condvar,
    faults: Mutex<Option<FaultSource>>,
    /// Whether there is a source of faults: spares the hot path a lock.
    has_faults: AtomicBool,
}

#[derive(Debug)]
pub(super) struct State {
    pub cluster_id: String,
    pub topics: Topics,
    pub groups: Groups,
    transactions: Transactions,
    /// Grows with everything that somebody may wait for.
    version: u64,
    waiting: usize,
}

impl Shared {
    pub fn new(clock: SharedClock, cluster_id: String, waiting: Waiting) -> Self {
        let state = State {
            cluster_id,
            topics: Topics::default(),
            groups: Groups::default(),
            transactions: Transactions::default(),
            version: 0,
            waiting: 0,
        };
        Self {
            clock,
            waiting,
            state: Mutex::new(state),
            changed: Condvar::new(),
            faults: Mutex::new(None),
            has_faults: AtomicBool::new(false),
        }
    }

    /// Serves one request at the clock's time.
    pub fn with<R>(&self, serve: impl FnOnce(&mut State, Duration) -> R) -> R {
        let now = self.clock.monotonic();
        self.with_timeless(|state| {
            state.tick(now);
            serve(state, now)
        })
    }

    /// Serves a request that time has no part in. Spares the hot path a look at the clock.
    pub fn with_timeless<R>(&self, serve: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let before = state.version;
        let answer = serve(&mut state);
        let wake = state.version != before && state.waiting > 0;
        drop(state);
        if wake {
            self.changed.notify_all();
        }
        answer
    }

    /// Serves a request again and again until there is an answer, for up to `wait`. With no wait it never blocks.
    pub fn wait_for<R>(&self, wait: Duration, mut serve: impl FnMut(&mut State, Duration) -> Option<R>) -> Option<R> {
        let start = self.clock.monotonic();
        // A manual clock stands still meanwhile: naps count then.
        let mut napped = Duration::ZERO;
        loop {
            let answer = self.with(&mut serve);
            let waited = napped.max(self.clock.monotonic().saturating_sub(start));
            if answer.is_some() || waited >= wait || self.waiting == Waiting::EndsAtOnce {
                return answer;
            }
            let nap = LONGEST_NAP.min(wait.saturating_sub(waited));
            let mut state = self.lock();
            let seen = state.version;
            state.waiting += 1;
            let (mut state, slept) = self
                .changed
                .wait_timeout_while(state, nap, |state| state.version == seen)
                .unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
            if slept.timed_out() {
                napped += nap;
            }
        }
    }

    pub fn kill(&self, client: &Arc<Client>) {
        client.kill();
        self.with(|state, now| state.groups.client_died(client, now));
    }

    pub fn set_faults(&self, source: Option<FaultSource>) {
        self.has_faults.store(source.is_some(), Ordering::SeqCst);
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// What strikes this client at this step. A killed client reaches nothing.
    pub fn fault(&self, client: &Arc<Client>, step: Step<'_>) -> Fault {
        if client.is_killed() {
            return Fault::Unreachable;
        }
        if !self.has_faults.load(Ordering::Relaxed) {
            return Fault::None;
        }
        let slot = || self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out while it is asked, so that it may use the log itself.
        let Some(mut source) = slot().take() else { return Fault::None };
        let fault = source(FaultPoint { client: &client.name, step });
        if self.has_faults.load(Ordering::SeqCst) {
            slot().get_or_insert(source);
        }
        match fault {
            Fault::Kill => {
                self.kill(client);
                Fault::Unreachable
            }
            // Its source may have killed it by hand.
            _ if client.is_killed() => Fault::Unreachable,
            fault => fault,
        }
    }

    pub fn has_faults(&self) -> bool {
        self.has_faults.load(Ordering::Relaxed)
    }

    /// A panic under the lock is a mistake in here that a test shows; the other clients go on.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl State {
    /// Something that somebody may wait for has happened.
    pub fn changed(&mut self) {
        self.version += 1;
    }

    pub fn transactions(&mut self) -> (&mut Transactions, Participants<'_>) {
        (&mut self.transactions, Participants { topics: &mut self.topics, groups: &mut self.groups })
    }

    /// Before each record of a transaction. Only the first one looks at the clock.
    pub fn open_transaction(&mut self, identity: Identity, clock: &SharedClock) -> Result<(), Error> {
        self.transactions.check(identity)?;
        if !self.transactions.is_open(identity.producer) {
            let (transactions, mut participants) = self.transactions();
            transactions.open(identity.producer, clock.monotonic(), &mut participants);
            self.changed();
        }
        Ok(())
    }

    pub fn append(
        &mut self,
        topic: &TopicName,
        partition: Partition,
        record: OutgoingRecord<'_>,
        clock: &SharedClock,
    ) -> Result<Offset, Error> {
        let named = self.topics.named_mut(topic)?;
        named.accepts(&record)?;
        let record = named.stamped(record, &**clock);
        let log = named.partition_mut(partition).ok_or_else(|| no_partition(topic, partition))?;
        let (offset, _) = log.append(StoredRecord::copy_of(record, Offset::ZERO), None);
        self.changed();
        Ok(offset)
    }

    pub fn join_group(
        &mut self,
        settings: &MembershipSettings,
        client: &Arc<Client>,
        now: Duration,
    ) -> (MemberNumber, String) {
        let joined = self.groups.join(settings, client, now, &self.topics);
        self.changed();
        joined
    }

    pub fn serve_member(
        &mut self,
        group: &str,
        number: MemberNumber,
        instance_id: Option<&str>,
        known_generation: i32,
        owned: Option<&BTreeSet<TopicPartition>>,
        now: Duration,
    ) -> Standing {
        let Some(state) = self.groups.get_mut(group) else { return Standing::Removed };
        let before = state.generation();
        let standing = state.serve(number, instance_id, known_generation, owned, now, &self.topics);
        if state.generation() != before {
            self.changed();
        }
        standing
    }

    pub fn remove_member(&mut self, group: &str, number: MemberNumber, now: Duration) {
        let topics = &self.topics;
        if self.groups.get_mut(group).is_some_and(|group| group.remove(number, now, topics)) {
            self.changed();
        }
    }

    /// Offsets outside of any transaction, fenced by the group.
    pub fn commit_offsets(&mut self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error> {
        self.check_offsets(offsets, metadata)?;
        self.groups.get_or_create(&metadata.group).commit(offsets);
        self.changed();
        Ok(())
    }

    /// Offsets that the transaction's end decides on, fenced by the group.
    pub fn add_offsets(
        &mut self,
        identity: Identity,
        offsets: &[OffsetCommit],
        metadata: &GroupMetadata,
        now: Duration,
    ) -> Result<(), Error> {
        self.transactions.check(identity)?;
        self.check_offsets(offsets, metadata)?;
        let (transactions, mut participants) = self.transactions();
        transactions.open(identity.producer, now, &mut participants);
        transactions.add_group(identity.producer, &metadata.group);
        self.groups.get_or_create(&metadata.group).commit_pending(identity.producer, offsets);
        Ok(())
    }

    fn check_offsets(&self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error> {
        let absent = || Error::StaleGeneration { reason: format!("there is no group `{}`", metadata.group) };
        self.groups.get(&metadata.group).ok_or_else(absent)?.check(metadata)?;
        offsets.iter().try_for_each(|commit| self.topics.partition(&commit.partition).map(drop))
    }

    pub fn expire_member(&mut self, group: &str, member_id: &str, now: Duration) -> bool {
        let topics = &self.topics;
        let expired = self.groups.get_mut(group).is_some_and(|group| group.remove_id(member_id, now, topics));
        if expired {
            self.changed();
        }
        expired
    }

    pub fn force_rebalance(&mut self, group: &str, now: Duration) {
        if let Some(group) = self.groups.get_mut(group) {
            group.start_rebalance(now);
            self.changed();
        }
    }

    /// What time alone decides.
    fn tick(&mut self, now: Duration) {
        let mut happened = self.groups.tick(now, &self.topics);
        let (transactions, mut participants) = self.transactions();
        happened |= transactions.tick(now, &mut participants);
        if happened {
            self.changed();
        }
    }
}

pub(super) fn no_partition(topic: &TopicName, partition: Partition) -> Error {
    Error::RecordRefused { topic: topic.clone(), reason: format!("it has no partition {partition}") }
}
