//! A group member: rebalances as events, answered explicitly.

use std::ffi::{CStr, c_int};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::bindings as sys;

use super::client::{Client, Kind};
use super::code::text;
use super::consume::{Queue, pause};
use super::partitions::{self, Entry, PartitionList};
use super::{Code, NativeError, timeout_ms};
use crate::ids::TopicPartition;
use crate::log::{GroupMetadata, OffsetCommit};

pub struct Member {
    client: Arc<Client>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
pub enum MemberEvent {
    /// To be answered with `assign`.
    Assigned(Vec<TopicPartition>),
    /// To be answered with `unassign`.
    Revoked {
        partitions: Vec<TopicPartition>,
        lost: bool,
    },
    Error(NativeError),
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

unsafe extern "C" {
    fn rd_kafka_poll_set_consumer(client: *mut sys::rd_kafka_t) -> c_int;
    fn rd_kafka_subscribe(client: *mut sys::rd_kafka_t, topics: *const sys::rd_kafka_topic_partition_list_t) -> c_int;
    fn rd_kafka_consumer_close(client: *mut sys::rd_kafka_t) -> c_int;
    fn rd_kafka_event_error(event: *mut sys::rd_kafka_event_t) -> c_int;
}

impl Member {
    /// Begins to join; `poll` does the rest.
    pub fn join<'a>(
        properties: &[(String, String)],
        topics: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NativeError> {
        let client = Client::new(Kind::Member, properties)?;
        // SAFETY: the client is alive. All of its events then arrive in the member's queue.
        Code(unsafe { rd_kafka_poll_set_consumer(client.raw()) }).check()?;
        let topics = PartitionList::topics(topics)?;
        // SAFETY: client and list are alive; the list is copied.
        Code(unsafe { rd_kafka_subscribe(client.raw(), topics.raw()) }).check()?;
        let queue = Queue::of_member(&client).watched();
        Ok(Self { client, queue })
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The next event, waiting up to `wait`. Counts as a poll for `max.poll.interval.ms`.
    pub fn poll(&self, wait: Duration) -> Option<MemberEvent> {
        // SAFETY: the queue is alive; the event, if any, is ours until destroyed, and what is read of it is copied.
        let event = unsafe { Event::take(sys::rd_kafka_queue_poll(self.queue.raw(), timeout_ms(wait))) }?;
        match event.kind() {
            sys::RD_KAFKA_EVENT_REBALANCE => Some(self.rebalance(&event)),
            sys::RD_KAFKA_EVENT_ERROR => Some(MemberEvent::Error(self.explained(event.error()))),
            // The member fetches nothing; whatever else arrives (an end of partition) concerns nobody.
            _ => None,
        }
    }

    fn rebalance(&self, event: &Event) -> MemberEvent {
        let partitions = event.partitions().into_iter().map(|entry| entry.partition).collect();
        if event.error().code == Code::ASSIGN_PARTITIONS {
            return MemberEvent::Assigned(partitions);
        }
        // SAFETY: the client is alive.
        let lost = unsafe { sys::rd_kafka_assignment_lost(self.client.raw()) } != 0;
        MemberEvent::Revoked { partitions, lost }
    }

    /// A fatal error arrives as "fatal"; what it was is kept by the client.
    fn explained(&self, error: NativeError) -> NativeError {
        if error.code == Code::FATAL { self.client.fatal_error().unwrap_or(error) } else { error }
    }

    /// Takes the partitions, at an explicit offset and paused: nothing is looked up and nothing is fetched.
    pub fn assign(&self, partitions: &[TopicPartition]) -> Result<(), NativeError> {
        let list = PartitionList::new(partitions, |_| Some(0))?;
        // SAFETY: client and list are alive; the list is copied; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_incremental_assign(self.client.raw(), list.raw()))? };
        if partitions.is_empty() { Ok(()) } else { pause(&self.client, partitions) }
    }

    pub fn unassign(&self, partitions: &[TopicPartition]) -> Result<(), NativeError> {
        let list = PartitionList::new(partitions, |_| None)?;
        // SAFETY: client and list are alive; the list is copied; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_incremental_unassign(self.client.raw(), list.raw())) }
    }

    /// Leaves the group (a dynamic member) and stops heartbeats.
    pub fn close(&self) -> Result<(), NativeError> {
        // SAFETY: the client is alive. An open rebalance is answered by librdkafka itself.
        Code(unsafe { rd_kafka_consumer_close(self.client.raw()) }).check()
    }
}

/// The member's identity in the group, as librdkafka has it now.
pub fn metadata(client: &Client) -> Option<GroupMetadata> {
    // SAFETY: the client is alive; the object is ours, and what is read of it is copied before it is freed.
    unsafe {
        let raw = sys::rd_kafka_consumer_group_metadata(client.raw());
        if raw.is_null() {
            return None;
        }
        let instance = sys::rd_kafka_consumer_group_metadata_group_instance_id(raw);
        let metadata = GroupMetadata {
            group: text(sys::rd_kafka_consumer_group_metadata_group_id(raw)),
            generation: sys::rd_kafka_consumer_group_metadata_generation_id(raw),
            member_id: text(sys::rd_kafka_consumer_group_metadata_member_id(raw)),
            instance_id: (!instance.is_null()).then(|| text(instance)),
        };
        sys::rd_kafka_consumer_group_metadata_destroy(raw);
        Some(metadata)
    }
}

/// Commits offsets with the client's present generation, and waits for the answer.
pub fn commit(client: &Arc<Client>, offsets: &[OffsetCommit], wait: Duration) -> Result<(), NativeError> {
    unsafe extern "C" {
        fn rd_kafka_commit_queue(
            client: *mut sys::rd_kafka_t,
            offsets: *const sys::rd_kafka_topic_partition_list_t,
            queue: *mut sys::rd_kafka_queue_t,
            callback: *const std::ffi::c_void,
            opaque: *mut std::ffi::c_void,
        ) -> c_int;
    }
    let list = PartitionList::commit(client, offsets)?;
    let answers = Queue::new(client);
    // SAFETY: client, list (copied) and queue are alive; no callback, so that the answer is an event.
    Code(unsafe { rd_kafka_commit_queue(client.raw(), list.raw(), answers.raw(), ptr::null(), ptr::null_mut()) })
        .check()?;
    // SAFETY: the queue is alive; the event, if any, is ours.
    let Some(event) = (unsafe { Event::take(sys::rd_kafka_queue_poll(answers.raw(), timeout_ms(wait))) }) else {
        return Err(NativeError::new(Code::TIMED_OUT, "the offset commit was not answered"));
    };
    let error = event.error();
    if error.code.is_error() {
        return Err(error);
    }
    event.partitions().iter().try_for_each(|entry| entry.code.check())
}

/// The group's committed offsets; waits for pending transactional ones where the client reads committed.
pub fn committed(client: &Client, partitions: &[TopicPartition], wait: Duration) -> Result<Vec<Entry>, NativeError> {
    unsafe extern "C" {
        fn rd_kafka_committed(
            client: *mut sys::rd_kafka_t,
            partitions: *mut sys::rd_kafka_topic_partition_list_t,
            timeout_ms: c_int,
        ) -> c_int;
    }
    let list = PartitionList::new(partitions, |_| None)?;
    // SAFETY: client and list are alive.
    Code(unsafe { rd_kafka_committed(client.raw(), list.raw(), timeout_ms(wait)) }).check()?;
    Ok(list.entries())
}

/// An event, ours.
pub(super) struct Event(NonNull<sys::rd_kafka_event_t>);

impl Event {
    /// # Safety
    /// `raw` is null or an event that nobody else destroys.
    pub(super) unsafe fn take(raw: *mut sys::rd_kafka_event_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_event_t {
        self.0.as_ptr()
    }

    pub(super) fn kind(&self) -> c_int {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_type(self.raw()) }
    }

    /// Code `NONE` where there is none.
    pub(super) fn error(&self) -> NativeError {
        // SAFETY: the event is alive; the text is its own or static, and copied.
        unsafe {
            let code = Code(rd_kafka_event_error(self.raw()));
            let error = sys::rd_kafka_event_error_string(self.raw());
            let described =
                if error.is_null() { String::new() } else { CStr::from_ptr(error).to_string_lossy().into_owned() };
            if described.is_empty() { NativeError::from_code(code) } else { NativeError::new(code, described) }
        }
    }

    pub(super) fn partitions(&self) -> Vec<Entry> {
        // SAFETY: the list belongs to the event, which is alive and ours alone.
        unsafe { partitions::read(sys::rd_kafka_event_topic_partition_list(self.raw())) }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { sys::rd_kafka_event_destroy(self.raw()) };
    }
}
