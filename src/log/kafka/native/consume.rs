//! Fetching assigned partitions through one queue, in batches, without a consumer group.
//!
//! librdkafka's "simple consumer": `consume_start_queue`/`consume_stop` per partition. It needs no group, no
//! coordinator and no rebalance state, and each start and stop raises the partition's version, so that the queue drops
//! what was fetched before it (`rd_kafka_op_version_outdated` in rdkafka_queue.c).

use std::ffi::{c_char, c_int};
use std::fmt;
use std::ops::RangeInclusive;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys::bindings as sys;

use super::client::{Client, Topic, TopicKey};
use super::code::text;
use super::partitions::PartitionList;
use super::setback::{self, Waits};
use super::{Code, NativeError, c_string, timeout_ms};
use crate::ids::TopicPartition;
use crate::log::kafka::message::Message;

/// The most that one native call takes over.
const BATCH: usize = 4096;

pub struct Consumer {
    client: Arc<Client>,
    queue: Arc<Queue>,
    /// Empty between calls.
    scratch: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: the queue may be used from any thread, and `scratch` is empty between calls.
unsafe impl Send for Consumer {}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

/// What came out of the queue, for a partition of the topic with this key.
#[derive(Debug)]
pub enum Delivery {
    Record {
        topic: TopicKey,
        partition: i32,
        offset: i64,
        timestamp: i64,
        message: Message,
    },
    /// The position that the reader has reached is the last stable offset.
    End {
        topic: TopicKey,
        partition: i32,
        offset: i64,
    },
    Failed {
        topic: TopicKey,
        partition: i32,
        offset: i64,
        error: NativeError,
    },
}

impl Consumer {
    pub fn new(client: Arc<Client>) -> Self {
        let queue = Queue::new(&client).watched();
        Self { client, queue, scratch: Vec::with_capacity(BATCH) }
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// Begins to fetch at the offset. The partition must not be started already.
    pub fn start(&self, topic: &Topic, partition: i32, offset: i64) -> Result<(), NativeError> {
        // SAFETY: topic and queue are alive and of the same client.
        let result = unsafe { sys::rd_kafka_consume_start_queue(topic.raw(), partition, offset, self.queue.raw()) };
        if result == 0 { Ok(()) } else { Err(NativeError::from_code(Code::last())) }
    }

    /// Ends fetching; returns when the client's own thread has done so. Needs no broker.
    pub fn stop(&self, topic: &Topic, partition: i32) -> Result<(), NativeError> {
        // SAFETY: the topic is alive.
        let result = unsafe { sys::rd_kafka_consume_stop(topic.raw(), partition) };
        if result == 0 { Ok(()) } else { Err(NativeError::from_code(Code::last())) }
    }

    /// Stops fetching ahead; what is in the queue is dropped, and fetched again from the last record taken after
    /// `resume`.
    pub fn pause(&self, partition: &TopicPartition) -> Result<(), NativeError> {
        pause(&self.client, std::slice::from_ref(partition))
    }

    pub fn resume(&self, partition: &TopicPartition) -> Result<(), NativeError> {
        unsafe extern "C" {
            fn rd_kafka_resume_partitions(
                client: *mut sys::rd_kafka_t,
                partitions: *mut sys::rd_kafka_topic_partition_list_t,
            ) -> c_int;
        }
        let list = PartitionList::new([partition], |_| None)?;
        // SAFETY: client and list are alive.
        Code(unsafe { rd_kafka_resume_partitions(self.client.raw(), list.raw()) }).check()?;
        list.entries().iter().try_for_each(|entry| entry.code.check())
    }

    /// The offsets at which reading can go on: from the first record's to the end, or to the first open transaction's for
    /// a client that reads committed records. Asks the cluster.
    pub fn range(&self, partition: &TopicPartition, wait: Duration) -> Result<RangeInclusive<i64>, NativeError> {
        unsafe extern "C" {
            fn rd_kafka_query_watermark_offsets(
                client: *mut sys::rd_kafka_t,
                topic: *const c_char,
                partition: i32,
                low: *mut i64,
                high: *mut i64,
                timeout_ms: c_int,
            ) -> c_int;
        }
        let topic = c_string(partition.topic.as_str())?;
        let (mut low, mut high) = (0, 0);
        // SAFETY: client, name and both results are alive.
        Code(unsafe {
            rd_kafka_query_watermark_offsets(
                self.client.raw(),
                topic.as_ptr(),
                partition.partition.as_i32(),
                &raw mut low,
                &raw mut high,
                timeout_ms(wait),
            )
        })
        .check()?;
        Ok(low..=high)
    }

    /// Hands over at most `limit` deliveries, in the queue's order, waiting up to `wait` for the first.
    ///
    /// librdkafka waits for a full batch: so one message is awaited, and the rest is taken without waiting.
    pub fn take(&mut self, limit: usize, wait: Duration, mut each: impl FnMut(Delivery)) -> usize {
        let mut taken = 0;
        if !wait.is_zero() && limit > 0 {
            taken = self.take_batch(1, wait, &mut each);
            if taken == 0 {
                return 0;
            }
        }
        while taken < limit {
            let wanted = (limit - taken).min(BATCH);
            let got = self.take_batch(wanted, Duration::ZERO, &mut each);
            taken += got;
            if got < wanted {
                break;
            }
        }
        taken
    }

    fn take_batch(&mut self, limit: usize, wait: Duration, each: &mut impl FnMut(Delivery)) -> usize {
        let limit = limit.min(BATCH);
        // SAFETY: the queue is alive; `scratch` has room for `BATCH` pointers, of which librdkafka writes as many as it
        // returns, each a message that is ours from then on.
        unsafe {
            let count =
                sys::rd_kafka_consume_batch_queue(self.queue.raw(), timeout_ms(wait), self.scratch.as_mut_ptr(), limit);
            self.scratch.set_len(usize::try_from(count).unwrap_or(0));
        }
        let taken = self.scratch.len();
        for message in self.scratch.drain(..) {
            // SAFETY: a message that was just handed to us by this client's queue.
            if let Some(delivery) = unsafe { delivery(message, &self.client) } {
                each(delivery);
            }
        }
        taken
    }
}

/// Pauses partitions of any consumer.
pub(super) fn pause(client: &Client, partitions: &[TopicPartition]) -> Result<(), NativeError> {
    unsafe extern "C" {
        fn rd_kafka_pause_partitions(
            client: *mut sys::rd_kafka_t,
            partitions: *mut sys::rd_kafka_topic_partition_list_t,
        ) -> c_int;
    }
    let list = PartitionList::new(partitions, |_| None)?;
    // SAFETY: client and list are alive.
    Code(unsafe { rd_kafka_pause_partitions(client.raw(), list.raw()) }).check()?;
    list.entries().iter().try_for_each(|entry| entry.code.check())
}

/// Takes over one message. `None` for an event that concerns no partition.
///
/// # Safety
/// `message` is a live message of `client` that nobody else destroys.
unsafe fn delivery(message: *mut sys::rd_kafka_message_t, client: &Arc<Client>) -> Option<Delivery> {
    unsafe extern "C" {
        fn rd_kafka_message_errstr(message: *const sys::rd_kafka_message_t) -> *const c_char;
    }
    let message = NonNull::new(message)?;
    // SAFETY: alive until destroyed below or by the `Message`. The error field is read as an integer (see `code`).
    unsafe {
        let raw = message.as_ptr();
        let code = Code((&raw const (*raw).err).cast::<i32>().read());
        let (topic, partition, offset) = (TopicKey((*raw).rkt as usize), (*raw).partition, (*raw).offset);
        if !code.is_error() {
            let timestamp = sys::rd_kafka_message_timestamp(raw, ptr::null_mut());
            let message = Message::new(message, Arc::clone(client));
            return Some(Delivery::Record { topic, partition, offset, timestamp, message });
        }
        let error = (code != Code::PARTITION_EOF).then(|| NativeError::new(code, text(rd_kafka_message_errstr(raw))));
        sys::rd_kafka_message_destroy(raw);
        match error {
            None => Some(Delivery::End { topic, partition, offset }),
            Some(error) if topic == TopicKey(0) => {
                client.record_problem(error);
                None
            }
            Some(error) => Some(Delivery::Failed { topic, partition, offset, error }),
        }
    }
}

/// A queue of one client's events.
pub(super) struct Queue {
    raw: NonNull<sys::rd_kafka_queue_t>,
    _client: Arc<Client>,
}

// SAFETY: queues are locked inside and may be used from any thread (rdkafka.h).
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    pub(super) fn new(client: &Arc<Client>) -> Self {
        // SAFETY: the client is alive; never null.
        Self::owning(unsafe { sys::rd_kafka_queue_new(client.raw()) }, client)
    }

    /// The queue that a group member's events arrive in.
    pub(super) fn of_member(client: &Arc<Client>) -> Self {
        // SAFETY: the client is alive and has a group, so that the queue exists.
        Self::owning(unsafe { sys::rd_kafka_queue_get_consumer(client.raw()) }, client)
    }

    fn owning(raw: *mut sys::rd_kafka_queue_t, client: &Arc<Client>) -> Self {
        Self { raw: NonNull::new(raw).unwrap_or(NonNull::dangling()), _client: Arc::clone(client) }
    }

    /// A wait for it ends, with nothing, when the clock is set back.
    pub(super) fn watched(self) -> Arc<Self> {
        let queue = Arc::new(self);
        setback::watch(&queue);
        queue
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_queue_t {
        self.raw.as_ptr()
    }
}

impl Waits for Queue {
    fn wake(&self) {
        // SAFETY: the queue is alive.
        unsafe { sys::rd_kafka_queue_yield(self.raw()) };
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: our reference to the queue, of a client that is alive.
        unsafe { sys::rd_kafka_queue_destroy(self.raw()) };
    }
}
