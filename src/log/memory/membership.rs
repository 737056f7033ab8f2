//! One member of a group, as its process sees it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::faults::{self, Client, Fault, Request, Step};
use super::group::{MemberNumber, Standing};
use super::state::{Shared, State};
use crate::ids::TopicPartition;
use crate::log::{Error, Group, GroupMetadata, Leave, Membership, MembershipSettings, OffsetCommit, OwnershipEvent};

#[derive(Debug)]
pub(super) struct MemoryMembership {
    shared: Arc<Shared>,
    client: Arc<Client>,
    group: Arc<MemoryGroup>,
    view: View,
}

/// What the process knows.
#[derive(Debug)]
struct View {
    settings: MembershipSettings,
    place: Place,
    /// -1 before the first assignment, as in Kafka.
    generation: i32,
    owned: BTreeSet<TopicPartition>,
    /// Not handed out yet.
    events: VecDeque<OwnershipEvent>,
    /// Handed out, not acknowledged.
    told: Option<OwnershipEvent>,
    /// Something is given up: when that is acknowledged, the others must be able to take it.
    rejoin: bool,
}

#[derive(Debug)]
enum Place {
    /// Removed, and to join again when the loss is acknowledged.
    Outside,
    Member(MemberNumber, String),
    /// Another process has the instance id: for good.
    Fenced,
}

impl MemoryMembership {
    pub fn join(shared: &Arc<Shared>, client: &Arc<Client>, settings: &MembershipSettings) -> Self {
        let mut view = View {
            settings: settings.clone(),
            place: Place::Outside,
            generation: -1,
            owned: BTreeSet::new(),
            events: VecDeque::new(),
            told: None,
            rejoin: false,
        };
        shared.with(|state, now| view.join(state, client, now));
        let group = MemoryGroup { shared: Arc::clone(shared), client: Arc::clone(client), metadata: Mutex::new(None) };
        Self { shared: Arc::clone(shared), client: Arc::clone(client), group: Arc::new(group), view }
    }

    /// The faults of one poll. `Ok(false)`: it does not get through, without anybody's noticing.
    fn draw_fault(&self) -> Result<bool, Error> {
        let member = self.view.member_id().unwrap_or_default().to_owned();
        let group = &self.view.settings.group;
        match self.shared.fault(&self.client, Step::MemberPoll { group, member: &member }) {
            Fault::Unreachable => return Err(faults::unreachable(&self.client)),
            Fault::Delay => return Ok(false),
            Fault::Expire => {
                self.shared.with(|state, now| state.expire_member(group, &member, now));
            }
            Fault::Rebalance => self.shared.with(|state, now| state.force_rebalance(group, now)),
            _ => {}
        }
        Ok(true)
    }
}

impl Membership for MemoryMembership {
    fn poll(&mut self, wait: Duration) -> Result<Option<OwnershipEvent>, Error> {
        if !self.draw_fault()? {
            return Ok(None);
        }
        let (view, client, group) = (&mut self.view, &self.client, &self.group);
        self.shared
            .wait_for(wait, |state, now| {
                let event = view.serve(state, client, now);
                // Under the log's lock: nobody commits with what was true before.
                group.set(view.metadata());
                event.transpose()
            })
            .transpose()
    }

    fn acknowledge(&mut self, event: &OwnershipEvent) -> Result<(), Error> {
        if self.client.is_killed() {
            return Err(faults::unreachable(&self.client));
        }
        if self.view.told.as_ref() != Some(event) {
            return Err(Error::Setting { reason: "an acknowledgement of what the group has not told".to_owned() });
        }
        let view = &mut self.view;
        self.shared.with(|state, now| view.acknowledged(state, now));
        Ok(())
    }

    fn group(&self) -> Arc<dyn Group> {
        Arc::<MemoryGroup>::clone(&self.group)
    }

    fn close(mut self: Box<Self>, leave: Leave) -> Result<(), Error> {
        let fault = self.shared.fault(&self.client, Step::Request(Request::Leave));
        if fault == Fault::Unreachable {
            return Err(faults::unreachable(&self.client));
        }
        self.group.set(None);
        if leave == Leave::Now
            && let Some(number) = self.view.leave()
        {
            let name = &self.view.settings.group;
            self.shared.with(|state, now| state.remove_member(name, number, now));
        }
        if fault == Fault::AnswerLost { Err(faults::answer_lost()) } else { Ok(()) }
    }
}

/// Without `close`, or with `Leave::Stay`: the heartbeats end, and the session times out.
impl Drop for MemoryMembership {
    fn drop(&mut self) {
        self.group.set(None);
        if self.client.is_killed() {
            return;
        }
        if let Some(number) = self.view.leave() {
            let name = &self.view.settings.group;
            self.shared.with(|state, now| {
                if let Some(group) = state.groups.get_mut(name) {
                    group.fall_silent(number, now);
                }
            });
        }
    }
}

impl View {
    fn join(&mut self, state: &mut State, client: &Arc<Client>, now: Duration) {
        let (number, id) = state.join_group(&self.settings, client, now);
        self.place = Place::Member(number, id);
    }

    /// Forgets the membership, and all that was to be told about it.
    fn leave(&mut self) -> Option<MemberNumber> {
        self.generation = -1;
        self.events.clear();
        self.rejoin = false;
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Member(number, _) => Some(number),
            Place::Outside | Place::Fenced => None,
        }
    }

    fn member_id(&self) -> Option<&str> {
        match &self.place {
            Place::Member(_, id) => Some(id),
            Place::Outside | Place::Fenced => None,
        }
    }

    fn metadata(&self) -> Option<GroupMetadata> {
        let member_id = self.member_id()?;
        (self.generation >= 0).then(|| GroupMetadata {
            group: self.settings.group.clone(),
            generation: self.generation,
            member_id: member_id.to_owned(),
            instance_id: self.settings.instance_id.clone(),
        })
    }

    /// One exchange with the group, and the next thing to tell.
    fn serve(
        &mut self,
        state: &mut State,
        client: &Arc<Client>,
        now: Duration,
    ) -> Result<Option<OwnershipEvent>, Error> {
        if matches!(self.place, Place::Outside) && self.told.is_none() && self.owned.is_empty() {
            self.join(state, client, now);
        }
        self.listen(state, now)?;
        if self.told.is_some() {
            return Ok(None);
        }
        let event = match self.place {
            // With nothing to lose it joins again with the next poll.
            Place::Outside if self.owned.is_empty() => None,
            Place::Outside => Some(OwnershipEvent::Lost(std::mem::take(&mut self.owned).into_iter().collect())),
            Place::Member(..) | Place::Fenced => self.events.pop_front(),
        };
        if let Some(OwnershipEvent::Assigned(partitions)) = &event {
            self.owned.extend(partitions.iter().cloned());
        }
        self.told.clone_from(&event);
        Ok(event)
    }

    /// What the group has to say to this member.
    fn listen(&mut self, state: &mut State, now: Duration) -> Result<(), Error> {
        let instance = self.settings.instance_id.as_deref();
        let fenced = || Error::InstanceFenced { reason: format!("`{}` was taken over", instance.unwrap_or_default()) };
        let number = match &self.place {
            Place::Member(number, _) => *number,
            Place::Outside => return Ok(()),
            Place::Fenced => return Err(fenced()),
        };
        let ready = self.told.is_none() && self.events.is_empty() && !self.rejoin;
        let owned = ready.then_some(&self.owned);
        match state.serve_member(&self.settings.group, number, instance, self.generation, owned, now) {
            Standing::Replaced => {
                let error = fenced();
                self.leave();
                self.place = Place::Fenced;
                return Err(error);
            }
            Standing::Removed => drop(self.leave()),
            Standing::Unchanged => {}
            Standing::Generation(generation, assignment) => self.learn(generation, assignment),
        }
        Ok(())
    }

    /// First what is given up, then what comes.
    fn learn(&mut self, generation: i32, assignment: BTreeSet<TopicPartition>) {
        let first = self.generation < 0;
        self.generation = generation;
        let revoked: Vec<_> = self.owned.difference(&assignment).cloned().collect();
        let assigned: Vec<_> = assignment.difference(&self.owned).cloned().collect();
        if !revoked.is_empty() {
            self.rejoin = true;
            self.events.push_back(OwnershipEvent::Revoked(revoked));
        }
        if !assigned.is_empty() || first {
            self.events.push_back(OwnershipEvent::Assigned(assigned));
        }
    }

    fn acknowledged(&mut self, state: &mut State, now: Duration) {
        if let Some(OwnershipEvent::Revoked(partitions)) = self.told.take() {
            for partition in &partitions {
                self.owned.remove(partition);
            }
        }
        if self.rejoin && self.events.is_empty() {
            self.rejoin = false;
            state.force_rebalance(&self.settings.group, now);
        }
        state.changed();
    }
}

/// The group for other threads.
#[derive(Debug)]
struct MemoryGroup {
    shared: Arc<Shared>,
    client: Arc<Client>,
    metadata: Mutex<Option<GroupMetadata>>,
}

impl MemoryGroup {
    fn set(&self, metadata: Option<GroupMetadata>) {
        let mut known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != metadata {
            *known = metadata;
        }
    }
}

impl Group for MemoryGroup {
    fn metadata(&self) -> Option<GroupMetadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn commit(&self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error> {
        let fault = self.shared.fault(&self.client, Step::Request(Request::GroupCommit));
        if fault == Fault::Unreachable {
            return Err(faults::unreachable(&self.client));
        }
        self.shared.with(|state, _| state.commit_offsets(offsets, metadata))?;
        if fault == Fault::AnswerLost { Err(faults::answer_lost()) } else { Ok(()) }
    }
}
