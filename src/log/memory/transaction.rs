//! The transaction coordinator: producer epochs, open transactions, and control records that may come late.
//!
//! Invariants
//! - A producer writes and commits only with the newest epoch of its transactional id.
//! - A transaction's offsets and records are decided by the same end; records become visible with their control record,
//!   which can be later than the answer to the commit (KAFKA-10167).
//! - No transaction of a producer begins before the control records of its previous one are written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::faults::MarkerDelay;
use super::group::Groups;
use super::topic::{PartitionIndex, Topics};
use crate::limits;
use crate::log::Error;

/// Kafka's producer id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct ProducerId(usize);

/// What a producer got from its `init`, and shows with each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    pub producer: ProducerId,
    epoch: u64,
}

/// How a transaction ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Commit,
    Abort,
}

#[derive(Debug, Default)]
pub(super) struct Transactions {
    /// One per transactional id; the index is the producer id.
    coordinators: Vec<Coordinator>,
    by_id: BTreeMap<String, ProducerId>,
    late_markers: Vec<LateMarkers>,
}

#[derive(Debug)]
struct Coordinator {
    epoch: u64,
    open: Option<OpenTransaction>,
    /// A commit request that is still on its way: it arrives before the next `init` does.
    commit_on_its_way: bool,
}

#[derive(Debug)]
struct OpenTransaction {
    since: Duration,
    partitions: BTreeSet<PartitionIndex>,
    groups: BTreeSet<String>,
}

/// Control records of an ended transaction that are not written yet.
#[derive(Debug)]
struct LateMarkers {
    producer: ProducerId,
    end: End,
    due: Duration,
    partitions: BTreeSet<PartitionIndex>,
    groups: BTreeSet<String>,
}

/// What the end of a transaction acts upon.
pub(super) struct Participants<'a> {
    pub topics: &'a mut Topics,
    pub groups: &'a mut Groups,
}

impl Transactions {
    /// Fences earlier producers with this id and resolves their open transaction.
    pub fn init(&mut self, transactional_id: &str, now: Duration, on: &mut Participants<'_>) -> Identity {
        let Some(producer) = self.by_id.get(transactional_id).copied() else {
            let producer = ProducerId(self.coordinators.len());
            self.coordinators.push(Coordinator { epoch: 0, open: None, commit_on_its_way: false });
            self.by_id.insert(transactional_id.to_owned(), producer);
            return Identity { producer, epoch: 0 };
        };
        if self.coordinators[producer.0].commit_on_its_way {
            self.end(producer, End::Commit, None, now, on);
        }
        self.write_late_markers(on, |markers| markers.producer == producer);
        self.fence(producer, now, on);
        Identity { producer, epoch: self.coordinators[producer.0].epoch }
    }

    /// What another producer's `init` does to this transactional id. Nothing where it is not known.
    pub fn fence_id(&mut self, transactional_id: &str, now: Duration, on: &mut Participants<'_>) {
        if let Some(producer) = self.by_id.get(transactional_id).copied() {
            self.fence(producer, now, on);
        }
    }

    fn fence(&mut self, producer: ProducerId, now: Duration, on: &mut Participants<'_>) {
        self.end(producer, End::Abort, None, now, on);
        self.coordinators[producer.0].epoch += 1;
    }

    pub fn check(&self, identity: Identity) -> Result<(), Error> {
        if self.coordinators[identity.producer.0].epoch == identity.epoch {
            return Ok(());
        }
        Err(Error::ProducerFenced {
            reason: "there is a newer producer epoch, or the transaction timed out".to_owned(),
        })
    }

    /// The producer is about to write its first record, or offset, of a transaction. The client waits for the control
    /// records of the previous one (CONCURRENT_TRANSACTIONS).
    pub fn open(&mut self, producer: ProducerId, now: Duration, on: &mut Participants<'_>) {
        if self.is_open(producer) {
            return;
        }
        self.write_late_markers(on, |markers| markers.producer == producer);
        let partitions = BTreeSet::new();
        self.coordinators[producer.0].open = Some(OpenTransaction { since: now, partitions, groups: BTreeSet::new() });
    }

    pub fn is_open(&self, producer: ProducerId) -> bool {
        self.coordinators[producer.0].open.is_some()
    }

    pub fn add_partition(&mut self, producer: ProducerId, partition: PartitionIndex) {
        if let Some(open) = &mut self.coordinators[producer.0].open {
            open.partitions.insert(partition);
        }
    }

    pub fn add_group(&mut self, producer: ProducerId, group: &str) {
        if let Some(open) = &mut self.coordinators[producer.0].open {
            open.groups.insert(group.to_owned());
        }
    }

    /// The client gives up on its commit request, which is still on its way.
    pub fn commit_later(&mut self, producer: ProducerId) {
        self.coordinators[producer.0].commit_on_its_way = true;
    }

    /// Ends the open transaction, if there is one.
    pub fn end(
        &mut self,
        producer: ProducerId,
        end: End,
        delay: Option<MarkerDelay>,
        now: Duration,
        on: &mut Participants<'_>,
    ) {
        let coordinator = &mut self.coordinators[producer.0];
        coordinator.commit_on_its_way = false;
        let Some(OpenTransaction { partitions, groups, .. }) = coordinator.open.take() else { return };
        let mut now_written = LateMarkers { producer, end, due: now, partitions, groups };
        if let Some(delay) = delay {
            let partitions = std::mem::take(&mut now_written.partitions);
            let groups = match delay {
                MarkerDelay::Topics(_) => BTreeSet::new(),
                MarkerDelay::TopicsAndOffsets(_) => std::mem::take(&mut now_written.groups),
            };
            let due = now.saturating_add(delay.duration());
            self.late_markers.push(LateMarkers { producer, end, due, partitions, groups });
        }
        write_markers(&now_written, on);
    }

    /// Whether something was written.
    pub fn release_markers(&mut self, on: &mut Participants<'_>) -> bool {
        self.write_late_markers(on, |_| true)
    }

    /// What time has decided: late control records are written, transactions that are open for too long aborted.
    /// Whether anything happened.
    pub fn tick(&mut self, now: Duration, on: &mut Participants<'_>) -> bool {
        let mut happened = !self.late_markers.is_empty() && self.write_late_markers(on, |markers| markers.due <= now);
        for index in 0..self.coordinators.len() {
            let open = self.coordinators[index].open.as_ref();
            if open.is_some_and(|open| now.saturating_sub(open.since) >= limits::TRANSACTION_TIMEOUT) {
                self.fence(ProducerId(index), now, on);
                happened = true;
            }
        }
        happened
    }

    fn write_late_markers(&mut self, on: &mut Participants<'_>, chosen: impl Fn(&LateMarkers) -> bool) -> bool {
        let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.late_markers).into_iter().partition(chosen);
        self.late_markers = later;
        for markers in &due {
            write_markers(markers, on);
        }
        !due.is_empty()
    }
}

fn write_markers(markers: &LateMarkers, on: &mut Participants<'_>) {
    for partition in &markers.partitions {
        // The topic may have been deleted meanwhile.
        if let Some(log) = on.topics.partition_mut(*partition) {
            log.end_transaction(markers.producer, markers.end);
        }
    }
    for group in &markers.groups {
        on.groups.end_transaction(group, markers.producer, markers.end);
    }
}
