//! The Kafka client with nothing around it: what the floor programs run on, and what the benchmark itself writes its
//! input and reads results with.
//!
//! What it is not: careful. Any error ends the process, and nothing here recovers from a rebalance.
#![expect(unsafe_code, reason = "the bare client library, without the product's layers")]

use std::ffi::{CStr, CString, c_char};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka_sys::bindings as sys;

/// The most that one call takes over.
const BATCH: usize = 4096;
const TIMEOUT_MS: i32 = 30_000;
const QUEUE_FULL: i32 = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL as i32;

/// The properties that producers and consumers share with the product's.
const COMMON: &[(&str, &str)] = &[("log_level", "3"), ("retry.backoff.ms", "2"), ("retry.backoff.max.ms", "20")];

struct Client(NonNull<sys::rd_kafka_t>);

impl Client {
    fn new(kind: sys::rd_kafka_type_t, brokers: &str, properties: &[(&str, &str)]) -> Self {
        let mut text = [0 as c_char; 512];
        // SAFETY: all strings are NUL-terminated and live for the calls, the buffer has the stated length, and the
        // configuration belongs to the client once that is made.
        unsafe {
            let conf = sys::rd_kafka_conf_new();
            for (name, value) in [("bootstrap.servers", brokers)].iter().chain(COMMON).chain(properties) {
                let (name, value) = (c_string(name), c_string(value));
                let set = sys::rd_kafka_conf_set(conf, name.as_ptr(), value.as_ptr(), text.as_mut_ptr(), text.len());
                assert!(set as i32 == 0, "{:?}", CStr::from_ptr(text.as_ptr()));
            }
            let raw = sys::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len());
            Self(NonNull::new(raw).unwrap_or_else(|| panic!("{:?}", CStr::from_ptr(text.as_ptr()))))
        }
    }

    fn raw(&self) -> *mut sys::rd_kafka_t {
        self.0.as_ptr()
    }

    fn topic(&self, name: &str) -> Topic {
        let name = c_string(name);
        // SAFETY: the client is alive; a null configuration is the default.
        Topic(unsafe { sys::rd_kafka_topic_new(self.raw(), name.as_ptr(), ptr::null_mut()) })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: ours; handles that depend on it are dropped before it by their owners.
        unsafe { sys::rd_kafka_destroy(self.raw()) };
    }
}

/// Lives no longer than the client that it was asked of.
pub struct Topic(*mut sys::rd_kafka_topic_t);

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: our reference.
        unsafe { sys::rd_kafka_topic_destroy(self.0) };
    }
}

/// A record as the client holds it.
pub struct Message<'a> {
    pub partition: usize,
    pub offset: i64,
    pub timestamp: i64,
    pub key: &'a [u8],
    pub value: &'a [u8],
}

/// Reads committed records, as a member of a group or alone.
pub struct Consumer {
    // In this order.
    _topics: Vec<Topic>,
    queue: Queue,
    client: Client,
    messages: Vec<*mut sys::rd_kafka_message_t>,
}

// SAFETY: client, topics and queue may be used from any thread (rdkafka.h); the buffer is empty between calls.
unsafe impl Send for Consumer {}

struct Queue(*mut sys::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: our reference.
        unsafe { sys::rd_kafka_queue_destroy(self.0) };
    }
}

impl Consumer {
    /// Joins the group; its new offsets begin at the start of the topic.
    pub fn member(brokers: &str, group: &str, topic: &str) -> Self {
        let properties = [
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("fetch.queue.backoff.ms", "10"),
            ("queued.max.messages.kbytes", "16384"),
        ];
        let client = Client::new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, brokers, &properties);
        let topic = c_string(topic);
        // SAFETY: client, list and name are alive; the list is copied by `subscribe` and destroyed once.
        unsafe {
            assert!(sys::rd_kafka_poll_set_consumer(client.raw()) as i32 == 0);
            let topics = sys::rd_kafka_topic_partition_list_new(1);
            sys::rd_kafka_topic_partition_list_add(topics, topic.as_ptr(), -1);
            assert!(sys::rd_kafka_subscribe(client.raw(), topics) as i32 == 0);
            sys::rd_kafka_topic_partition_list_destroy(topics);
            let queue = Queue(sys::rd_kafka_queue_get_consumer(client.raw()));
            Self { _topics: Vec::new(), queue, client, messages: Vec::with_capacity(BATCH) }
        }
    }

    /// Reads all partitions of a topic from their start.
    pub fn reader(brokers: &str, topic: &str, partitions: i32) -> Self {
        let properties = [
            ("isolation.level", "read_committed"),
            ("topic.metadata.refresh.fast.interval.ms", "20"),
            ("fetch.queue.backoff.ms", "1"),
        ];
        let client = Client::new(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, brokers, &properties);
        let topic = client.topic(topic);
        // SAFETY: client, topic and queue are alive.
        let queue = unsafe { Queue(sys::rd_kafka_queue_new(client.raw())) };
        for partition in 0..partitions {
            let from = i64::from(sys::RD_KAFKA_OFFSET_BEGINNING);
            // SAFETY: as above.
            let started = unsafe { sys::rd_kafka_consume_start_queue(topic.0, partition, from, queue.0) };
            assert_eq!(started, 0);
        }
        Self { _topics: vec![topic], queue, client, messages: Vec::with_capacity(BATCH) }
    }

    /// Waits until `limit` records are there or the time is over, and hands over those that are.
    pub fn take(&mut self, limit: usize, wait: Duration, mut each: impl FnMut(Message<'_>)) -> usize {
        let wait = i32::try_from(wait.as_millis()).unwrap();
        // SAFETY: the queue is alive; the buffer has room for `BATCH` pointers, of which as many as are returned are
        // written, each a message that is ours from then on and is destroyed once below.
        unsafe {
            let buffer = self.messages.as_mut_ptr();
            let count = sys::rd_kafka_consume_batch_queue(self.queue.0, wait, buffer, limit.min(BATCH));
            self.messages.set_len(usize::try_from(count).unwrap());
        }
        let mut taken = 0;
        for message in self.messages.drain(..) {
            // SAFETY: as above. The error is read as a number, since it may be one that the enum does not know.
            unsafe {
                let code = (&raw const (*message).err).cast::<i32>().read();
                if code == 0 {
                    taken += 1;
                    each(Message {
                        partition: usize::try_from((*message).partition).unwrap(),
                        offset: (*message).offset,
                        timestamp: sys::rd_kafka_message_timestamp(message, ptr::null_mut()),
                        key: bytes((*message).key.cast(), (*message).key_len),
                        value: bytes((*message).payload.cast(), (*message).len),
                    });
                } else {
                    let reason = CStr::from_ptr(sys::rd_kafka_message_errstr(message));
                    eprintln!("consumer: {code} {}", reason.to_string_lossy());
                }
                sys::rd_kafka_message_destroy(message);
            }
        }
        taken
    }
}

/// A producer with transactions or, without an id, an idempotent one.
pub struct Producer {
    client: Client,
}

impl Producer {
    pub fn transactional(brokers: &str, id: &str) -> Self {
        let producer = Self::new(brokers, &[("transactional.id", id), ("linger.ms", "5")]);
        // SAFETY: the client is alive.
        check(unsafe { sys::rd_kafka_init_transactions(producer.client.raw(), TIMEOUT_MS) });
        producer
    }

    pub fn plain(brokers: &str, linger_ms: &str) -> Self {
        Self::new(brokers, &[("enable.idempotence", "true"), ("linger.ms", linger_ms)])
    }

    fn new(brokers: &str, more: &[(&str, &str)]) -> Self {
        let mut properties = vec![("queue.buffering.max.messages", "500000"), ("queue.buffering.max.kbytes", "131072")];
        properties.extend(more);
        Self { client: Client::new(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, brokers, &properties) }
    }

    /// To be dropped before the producer.
    pub fn topic(&self, name: &str) -> Topic {
        self.client.topic(name)
    }

    pub fn begin(&self) {
        // SAFETY: the client is alive.
        check(unsafe { sys::rd_kafka_begin_transaction(self.client.raw()) });
    }

    /// Queues a copy, and waits where the queue is full.
    pub fn send(&self, topic: &Topic, partition: usize, key: &[u8], value: &[u8], timestamp: i64) {
        use sys::rd_kafka_vtype_t as Tag;
        use sys::{rd_kafka_vu_s__bindgen_ty_1 as Value, rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 as Memory};
        let argument = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let memory = |bytes: &[u8]| Value { mem: Memory { ptr: bytes.as_ptr().cast_mut().cast(), size: bytes.len() } };
        let arguments = [
            argument(Tag::RD_KAFKA_VTYPE_RKT, Value { rkt: topic.0 }),
            argument(Tag::RD_KAFKA_VTYPE_PARTITION, Value { i32_: i32::try_from(partition).unwrap() }),
            argument(Tag::RD_KAFKA_VTYPE_MSGFLAGS, Value { i: sys::RD_KAFKA_MSG_F_COPY }),
            argument(Tag::RD_KAFKA_VTYPE_KEY, memory(key)),
            argument(Tag::RD_KAFKA_VTYPE_VALUE, memory(value)),
            argument(Tag::RD_KAFKA_VTYPE_TIMESTAMP, Value { i64_: timestamp }),
        ];
        loop {
            // SAFETY: client and topic are alive, each value is what its tag says, and the bytes are copied.
            unsafe {
                let error = sys::rd_kafka_produceva(self.client.raw(), arguments.as_ptr(), arguments.len());
                if error.is_null() {
                    return;
                }
                if sys::rd_kafka_error_code(error) as i32 != QUEUE_FULL {
                    check(error);
                }
                sys::rd_kafka_error_destroy(error);
                sys::rd_kafka_poll(self.client.raw(), 1);
            }
        }
    }

    /// Waits until the broker has everything. In short steps: nobody is woken when the last acknowledgement arrives.
    pub fn flush(&self) {
        // SAFETY: the client is alive.
        while unsafe { sys::rd_kafka_outq_len(self.client.raw()) } > 0 {
            // SAFETY: as above.
            unsafe { sys::rd_kafka_flush(self.client.raw(), 1) };
        }
    }

    /// Commits what was sent, and the member's offsets with it. `positions`: the next offset per partition.
    pub fn commit(&self, topic: &str, positions: &[i64], member: &Consumer) {
        let topic = c_string(topic);
        // SAFETY: clients and name are alive; list and metadata are ours and destroyed once.
        unsafe {
            let offsets = sys::rd_kafka_topic_partition_list_new(4);
            for (partition, position) in positions.iter().enumerate().filter(|(_, position)| **position >= 0) {
                let partition = i32::try_from(partition).unwrap();
                (*sys::rd_kafka_topic_partition_list_add(offsets, topic.as_ptr(), partition)).offset = *position;
            }
            let group = sys::rd_kafka_consumer_group_metadata(member.client.raw());
            // What lingers goes out while the offsets are on their way.
            sys::rd_kafka_flush(self.client.raw(), 0);
            check(sys::rd_kafka_send_offsets_to_transaction(self.client.raw(), offsets, group, TIMEOUT_MS));
            sys::rd_kafka_consumer_group_metadata_destroy(group);
            sys::rd_kafka_topic_partition_list_destroy(offsets);
            self.flush();
            check(sys::rd_kafka_commit_transaction(self.client.raw(), TIMEOUT_MS));
        }
    }
}

fn check(error: *mut sys::rd_kafka_error_t) {
    // SAFETY: where it is not null it is an error object, alive; the process ends here.
    assert!(error.is_null(), "{:?}", unsafe { CStr::from_ptr(sys::rd_kafka_error_string(error)) });
}

fn c_string(text: &str) -> CString {
    CString::new(text).unwrap()
}

/// # Safety
/// `start` is null or points to `length` bytes that live as long as the result is used.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> &'a [u8] {
    // SAFETY: as the caller says.
    if start.is_null() { &[] } else { unsafe { std::slice::from_raw_parts(start, length) } }
}
