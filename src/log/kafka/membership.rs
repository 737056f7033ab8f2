//! This process's place in the consumer group. Fetches nothing.
//!
//! Invariant: the group's metadata is read from librdkafka for every commit and kept nowhere.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::error::{Subject, translate};
use super::native::group::{self, Member, MemberEvent};
use super::native::setback::{self, Waits};
use super::native::{Client, Code};
use crate::limits;
use crate::log::{Error, Group, GroupMetadata, Leave, Membership, OffsetCommit, OwnershipEvent};

#[derive(Debug)]
pub struct KafkaMembership {
    member: Member,
    group: Arc<KafkaGroup>,
    lifetime: Lifetime,
    /// Whether any assignment has been passed on.
    told: bool,
}

/// Whether the group knows the member by an id of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Dynamic,
    Static,
}

impl KafkaMembership {
    pub fn new(member: Member, lifetime: Lifetime) -> Self {
        let group = Arc::new(KafkaGroup { client: Arc::clone(member.client()), left: AtomicBool::new(false) });
        setback::watch(&group);
        Self { member, group, lifetime, told: false }
    }

    pub fn handle(&self) -> Weak<KafkaGroup> {
        Arc::downgrade(&self.group)
    }

    fn event(&mut self, event: MemberEvent) -> Result<Option<OwnershipEvent>, Error> {
        match event {
            // The cooperative protocol ends every rebalance with an assignment, an empty one included. Only the first
            // tells anything: that the group has been joined.
            MemberEvent::Assigned(partitions) if partitions.is_empty() && self.told => {
                self.acknowledge_native(self.member.assign(&[]))?;
                Ok(None)
            }
            MemberEvent::Revoked { partitions, .. } if partitions.is_empty() => {
                self.acknowledge_native(self.member.unassign(&[]))?;
                Ok(None)
            }
            MemberEvent::Assigned(partitions) => {
                self.told = true;
                Ok(Some(OwnershipEvent::Assigned(partitions)))
            }
            MemberEvent::Revoked { partitions, lost: true } => Ok(Some(OwnershipEvent::Lost(partitions))),
            MemberEvent::Revoked { partitions, lost: false } => Ok(Some(OwnershipEvent::Revoked(partitions))),
            MemberEvent::Error(error) => match error.code {
                // Of the one fetch that may have started before its partition was paused.
                Code::AUTO_OFFSET_RESET | Code::PARTITION_EOF => Ok(None),
                // The loss of the partitions follows as an event.
                Code::MAX_POLL_EXCEEDED => Ok(None),
                _ => Err(translate(&error, Subject::Cluster, None)),
            },
        }
    }

    fn acknowledge_native(&self, result: Result<(), super::native::NativeError>) -> Result<(), Error> {
        result.map_err(|error| {
            let error = self.member.client().fatal_error().unwrap_or(error);
            translate(&error, Subject::Cluster, None)
        })
    }
}

impl Membership for KafkaMembership {
    fn poll(&mut self, wait: Duration) -> Result<Option<OwnershipEvent>, Error> {
        let Some(event) = self.member.poll(wait) else { return Ok(None) };
        self.event(event)
    }

    fn acknowledge(&mut self, event: &OwnershipEvent) -> Result<(), Error> {
        self.acknowledge_native(match event {
            OwnershipEvent::Assigned(partitions) => self.member.assign(partitions),
            OwnershipEvent::Revoked(partitions) | OwnershipEvent::Lost(partitions) => self.member.unassign(partitions),
        })
    }

    fn group(&self) -> Arc<dyn Group> {
        Arc::clone(&self.group) as Arc<dyn Group>
    }

    /// A static member is never taken out of the group by the classic protocol's client (librdkafka sends no LeaveGroup
    /// for it, KIP-345): its partitions move when the session times out, whatever `leave` says.
    fn close(self: Box<Self>, leave: Leave) -> Result<(), Error> {
        self.group.left.store(true, Ordering::Release);
        if leave == Leave::Stay && self.lifetime == Lifetime::Dynamic {
            self.member.client().leave_silently();
            return Ok(());
        }
        self.member.close().map_err(|error| translate(&error, Subject::Cluster, None))
    }
}

impl Waits for KafkaGroup {
    /// The thread that sends heartbeats is asked something.
    fn wake(&self) {
        self.metadata();
    }
}

pub struct KafkaGroup {
    client: Arc<Client>,
    left: AtomicBool,
}

impl fmt::Debug for KafkaGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KafkaGroup({:?})", self.metadata())
    }
}

impl Group for KafkaGroup {
    fn metadata(&self) -> Option<GroupMetadata> {
        if self.left.load(Ordering::Acquire) {
            return None;
        }
        group::metadata(&self.client).filter(|metadata| metadata.generation >= 0 && !metadata.member_id.is_empty())
    }

    fn commit(&self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error> {
        // librdkafka commits with the generation it has; one that was read earlier must be that one.
        if self.metadata().as_ref() != Some(metadata) {
            let reason = format!("generation {} of {} has passed", metadata.generation, metadata.group);
            return Err(Error::StaleGeneration { reason });
        }
        group::commit(&self.client, offsets, limits::LOG_REQUEST_TIMEOUT).map_err(|error| {
            let error = self.client.fatal_error().unwrap_or(error);
            translate(&error, Subject::Cluster, None)
        })
    }
}

/// The memberships of this process: a producer without transactions commits offsets through the one that the metadata
/// names, since librdkafka commits them only as a member.
#[derive(Debug, Default)]
pub struct Memberships {
    groups: Mutex<Vec<Weak<KafkaGroup>>>,
}

impl Memberships {
    pub fn add(&self, group: Weak<KafkaGroup>) {
        let mut groups = self.groups.lock();
        groups.retain(|group| group.strong_count() > 0);
        groups.push(group);
    }

    pub fn commit(&self, offsets: &[OffsetCommit], metadata: &GroupMetadata) -> Result<(), Error> {
        let groups: Vec<Arc<KafkaGroup>> = self.groups.lock().iter().filter_map(Weak::upgrade).collect();
        let Some(group) = groups.iter().find(|group| group.metadata().as_ref() == Some(metadata)) else {
            let reason = format!("generation {} of {} has passed", metadata.generation, metadata.group);
            return Err(Error::StaleGeneration { reason });
        };
        group.commit(offsets, metadata)
    }
}
