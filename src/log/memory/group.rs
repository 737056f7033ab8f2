//! The group coordinator: members, generations and committed offsets, after the classic protocol with cooperative
//! rebalances.
//!
//! A rebalance: 1. something starts it; 2. each member joins it when it next serves the group and has acknowledged all
//! that it was told; 3. with the last one, or when a member has kept the others waiting for its `max.poll.interval`, the
//! generation grows and the assignment is made; 4. each member learns it when it next serves the group; 5. one that gave
//! something up starts the next rebalance.
//!
//! Invariants
//! - A commit is accepted only from a member of the group, with the current generation.
//! - A partition is assigned to one member at most, and to another one only after its owner has given it up or was
//!   removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::assignor::{self, Subscriber};
use super::faults::Client;
use super::topic::Topics;
use super::transaction::{End, ProducerId};
use crate::ids::{TopicName, TopicPartition};
use crate::log::{
    CommittedOffset, Error, GroupDescription, GroupMember, GroupMetadata, MembershipSettings, OffsetCommit,
};

#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, GroupState>,
    /// Never starts again: a member of a group that was deleted is no member of its successor.
    next_member: MemberNumber,
}

impl Groups {
    pub fn get(&self, group: &str) -> Option<&GroupState> {
        self.groups.get(group)
    }

    pub fn get_mut(&mut self, group: &str) -> Option<&mut GroupState> {
        self.groups.get_mut(group)
    }

    pub fn join(
        &mut self,
        settings: &MembershipSettings,
        client: &Arc<Client>,
        now: Duration,
        topics: &Topics,
    ) -> (MemberNumber, String) {
        let number = self.next_member;
        self.next_member = MemberNumber(number.0 + 1);
        let id = self.get_or_create(&settings.group).join(number, settings, client, now, topics);
        (number, id)
    }

    pub fn get_or_create(&mut self, group: &str) -> &mut GroupState {
        self.groups.entry(group.to_owned()).or_default()
    }

    pub fn delete(&mut self, group: &str) -> Result<(), Error> {
        if self.get(group).is_some_and(|state| !state.members.is_empty()) {
            return Err(Error::Setting { reason: format!("group `{group}` still has members") });
        }
        self.groups.remove(group);
        Ok(())
    }

    /// Of a group without members, which need not exist.
    pub fn set_offsets(&mut self, group: &str, offsets: &[OffsetCommit]) -> Result<(), Error> {
        let state = self.get_or_create(group);
        if !state.members.is_empty() {
            return Err(Error::StaleGeneration { reason: format!("group `{group}` has members") });
        }
        state.commit(offsets);
        Ok(())
    }

    pub fn end_transaction(&mut self, group: &str, producer: ProducerId, end: End) {
        let Some(state) = self.get_mut(group) else { return };
        let pending = state.pending.remove(&producer).unwrap_or_default();
        if end == End::Commit {
            state.offsets.extend(pending);
        }
    }

    /// Members whose time is over leave. Whether anything happened.
    pub fn tick(&mut self, now: Duration, topics: &Topics) -> bool {
        let mut happened = false;
        for group in self.groups.values_mut() {
            happened |= group.tick(now, topics);
        }
        happened
    }

    /// The heartbeats of this client's members end.
    pub fn client_died(&mut self, client: &Arc<Client>, now: Duration) {
        let members = self.groups.values_mut().flat_map(|group| group.members.values_mut());
        for member in members.filter(|member| Arc::ptr_eq(&member.client, client)) {
            member.silent_since.get_or_insert(now);
        }
    }

    /// The topic's partitions have changed: who subscribes to it must be told.
    pub fn topic_changed(&mut self, topic: &TopicName, now: Duration) {
        for group in self.groups.values_mut() {
            if group.members.values().any(|member| member.topics.contains(topic)) {
                group.start_rebalance(now);
            }
        }
    }

    pub fn topic_deleted(&mut self, topic: &TopicName, now: Duration) {
        self.topic_changed(topic, now);
        for group in self.groups.values_mut() {
            group.offsets.retain(|partition, _| partition.topic != *topic);
            for pending in group.pending.values_mut() {
                pending.retain(|partition, _| partition.topic != *topic);
            }
        }
    }
}

/// A member's number, in the order of joining.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct MemberNumber(u64);

#[derive(Debug, Default)]
pub(super) struct GroupState {
    generation: i32,
    members: BTreeMap<MemberNumber, Member>,
    /// When the rebalance that is under way has started.
    rebalance: Option<Duration>,
    offsets: BTreeMap<TopicPartition, CommittedOffset>,
    /// Offsets of transactions that are not decided.
    pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, CommittedOffset>>,
}

#[derive(Debug)]
struct Member {
    id: String,
    client_id: String,
    instance_id: Option<String>,
    topics: BTreeSet<TopicName>,
    session_timeout: Duration,
    max_poll_interval: Duration,
    client: Arc<Client>,
    last_poll: Duration,
    /// No heartbeat since then.
    silent_since: Option<Duration>,
    progress: Progress,
    assignment: BTreeSet<TopicPartition>,
}

/// How far a member has come in the rebalance that is under way.
#[derive(Debug)]
enum Progress {
    /// It has not joined it, or there is none.
    Idle,
    /// It has joined, owning these.
    Joined(BTreeSet<TopicPartition>),
}

/// What a member learns when it serves its group.
#[derive(Debug)]
pub(super) enum Standing {
    /// It is no member any more.
    Removed,
    /// Another process has joined with its instance id.
    Replaced,
    /// There is no news, or it waits for others.
    Unchanged,
    /// The generation that it is in now, and what is assigned to it there.
    Generation(i32, BTreeSet<TopicPartition>),
}

impl GroupState {
    /// A new process joins. A static member takes the place of its predecessor: in a stable group with that one's
    /// subscription, client id and assignment (EXACTLY-ONCE rule 11b).
    fn join(
        &mut self,
        number: MemberNumber,
        settings: &MembershipSettings,
        client: &Arc<Client>,
        now: Duration,
        topics: &Topics,
    ) -> String {
        let mut member = Member {
            id: format!("{}-{:06}", settings.instance_id.as_ref().unwrap_or(&settings.client_id), number.0),
            client_id: settings.client_id.clone(),
            instance_id: settings.instance_id.clone(),
            topics: settings.topics.iter().cloned().collect(),
            session_timeout: settings.session_timeout,
            max_poll_interval: settings.max_poll_interval,
            client: Arc::clone(client),
            last_poll: now,
            silent_since: None,
            progress: Progress::Joined(BTreeSet::new()),
            assignment: BTreeSet::new(),
        };
        let id = member.id.clone();
        let replaced = settings.instance_id.as_ref().and_then(|instance| self.member_of_instance(instance));
        if let Some(old) = replaced.and_then(|number| self.members.remove(&number)) {
            member.client_id = old.client_id;
            member.topics = old.topics;
            member.assignment = old.assignment;
            member.progress = Progress::Idle;
            self.members.insert(number, member);
            // The predecessor may have been asked to give up what now nobody would.
            if self.leaves_partitions_unassigned(topics) {
                self.start_rebalance(now);
            }
            if self.rebalance.is_some() {
                self.rejoin(number, &BTreeSet::new(), topics);
            }
        } else {
            self.members.insert(number, member);
            self.start_rebalance(now);
            self.complete_if_all_joined(topics);
        }
        id
    }

    /// The member serves the group. `owned`: what it holds, once it has acknowledged everything.
    pub fn serve(
        &mut self,
        number: MemberNumber,
        instance_id: Option<&str>,
        known_generation: i32,
        owned: Option<&BTreeSet<TopicPartition>>,
        now: Duration,
        topics: &Topics,
    ) -> Standing {
        let Some(member) = self.members.get_mut(&number) else {
            let replaced = instance_id.is_some_and(|instance| self.member_of_instance(instance).is_some());
            return if replaced { Standing::Replaced } else { Standing::Removed };
        };
        member.last_poll = now;
        let Some(owned) = owned else { return Standing::Unchanged };
        // What it was assigned last, before the next rebalance goes on with it.
        if matches!(member.progress, Progress::Idle) && known_generation != self.generation {
            return self.standing(number);
        }
        if self.rebalance.is_some() {
            self.rejoin(number, owned, topics);
            if self.rebalance.is_none() {
                return self.standing(number);
            }
        }
        Standing::Unchanged
    }

    fn standing(&self, number: MemberNumber) -> Standing {
        let assignment = self.members.get(&number).map(|member| member.assignment.clone()).unwrap_or_default();
        Standing::Generation(self.generation, assignment)
    }

    fn rejoin(&mut self, number: MemberNumber, owned: &BTreeSet<TopicPartition>, topics: &Topics) {
        if let Some(member) = self.members.get_mut(&number) {
            if matches!(member.progress, Progress::Idle) {
                member.progress = Progress::Joined(owned.clone());
            }
            self.complete_if_all_joined(topics);
        }
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn start_rebalance(&mut self, now: Duration) {
        self.rebalance.get_or_insert(now);
    }

    fn complete_if_all_joined(&mut self, topics: &Topics) {
        if self.rebalance.is_none() {
            return;
        }
        if self.members.values().any(|member| matches!(member.progress, Progress::Idle)) {
            return;
        }
        self.rebalance = None;
        self.generation += 1;
        let none = BTreeSet::new();
        let subscribers: Vec<Subscriber<'_>> = self
            .members
            .values()
            .map(|member| Subscriber {
                topics: &member.topics,
                owned: match &member.progress {
                    Progress::Joined(owned) => owned,
                    Progress::Idle => &none,
                },
            })
            .collect();
        let assignments = assignor::assign(&subscribers, |topic| topics.partition_count(topic));
        for (member, assignment) in self.members.values_mut().zip(assignments) {
            member.assignment = assignment;
            member.progress = Progress::Idle;
        }
    }

    fn leaves_partitions_unassigned(&self, topics: &Topics) -> bool {
        let subscribed: BTreeSet<&TopicName> = self.members.values().flat_map(|member| &member.topics).collect();
        let all: usize = subscribed.into_iter().map(|topic| topics.partition_count(topic) as usize).sum();
        let assigned: usize = self.members.values().map(|member| member.assignment.len()).sum();
        assigned < all
    }

    fn tick(&mut self, now: Duration, topics: &Topics) -> bool {
        let waiting_since = self.rebalance;
        let over = |member: &Member| {
            let past = |since: Duration, limit: Duration| now.saturating_sub(since) >= limit;
            member.silent_since.is_some_and(|since| past(since, member.session_timeout))
                || past(member.last_poll, member.max_poll_interval)
                || (matches!(member.progress, Progress::Idle)
                    && waiting_since.is_some_and(|since| past(since, member.max_poll_interval)))
        };
        let gone: Vec<MemberNumber> =
            self.members.iter().filter(|(_, member)| over(member)).map(|(number, _)| *number).collect();
        for number in &gone {
            self.remove(*number, now, topics);
        }
        !gone.is_empty()
    }

    /// The member leaves, or is made to. Whether it was one.
    pub fn remove(&mut self, number: MemberNumber, now: Duration, topics: &Topics) -> bool {
        if self.members.remove(&number).is_none() {
            return false;
        }
        self.start_rebalance(now);
        self.complete_if_all_joined(topics);
        true
    }

    pub fn remove_id(&mut self, member_id: &str, now: Duration, topics: &Topics) -> bool {
        let number = self.members.iter().find(|(_, member)| member.id == member_id).map(|(number, _)| *number);
        number.is_some_and(|number| self.remove(number, now, topics))
    }

    /// No heartbeat comes from this member any more.
    pub fn fall_silent(&mut self, number: MemberNumber, now: Duration) {
        if let Some(member) = self.members.get_mut(&number) {
            member.silent_since.get_or_insert(now);
        }
    }

    fn member_of_instance(&self, instance_id: &str) -> Option<MemberNumber> {
        let same = |member: &Member| member.instance_id.as_deref() == Some(instance_id);
        self.members.iter().find(|(_, member)| same(member)).map(|(number, _)| *number)
    }

    pub fn describe(&self) -> GroupDescription {
        let members = self.members.values().map(|member| GroupMember {
            member_id: member.id.clone(),
            client_id: member.client_id.clone(),
            instance_id: member.instance_id.clone(),
            assignment: member.assignment.iter().cloned().collect(),
        });
        GroupDescription { members: members.collect(), stable: self.rebalance.is_none() && !self.members.is_empty() }
    }

    // ---- offsets -------------------------------------------------------------------------------------------------

    /// Whether the group would take a commit with this metadata.
    pub fn check(&self, metadata: &GroupMetadata) -> Result<(), Error> {
        let stale = |reason: String| Err(Error::StaleGeneration { reason });
        if let Some(instance) = &metadata.instance_id
            && let Some(member) = self.member_of_instance(instance).and_then(|number| self.members.get(&number))
            && member.id != metadata.member_id
        {
            return Err(Error::InstanceFenced { reason: format!("`{}` uses `{instance}` now", member.id) });
        }
        if !self.members.values().any(|member| member.id == metadata.member_id) {
            return stale(format!("`{}` is no member", metadata.member_id));
        }
        if metadata.generation != self.generation {
            return stale(format!("the generation is {}, not {}", self.generation, metadata.generation));
        }
        Ok(())
    }

    /// `None` in the inner place where nothing is committed. Fails while a transaction has yet to decide.
    pub fn committed(&self, partition: &TopicPartition) -> Result<Option<CommittedOffset>, Error> {
        if self.pending.values().any(|pending| pending.contains_key(partition)) {
            return Err(Error::OffsetsPending { partitions: vec![partition.clone()] });
        }
        Ok(self.offsets.get(partition).cloned())
    }

    pub fn commit(&mut self, offsets: &[OffsetCommit]) {
        self.offsets.extend(offsets.iter().map(entry));
    }

    pub fn commit_pending(&mut self, producer: ProducerId, offsets: &[OffsetCommit]) {
        self.pending.entry(producer).or_default().extend(offsets.iter().map(entry));
    }
}

fn entry(commit: &OffsetCommit) -> (TopicPartition, CommittedOffset) {
    (commit.partition.clone(), CommittedOffset { offset: commit.offset, metadata: commit.metadata.clone() })
}
