//! Producing and transactions, with acknowledgements counted per partition as they arrive.
//!
//! No delivery reports: they would be queued for the application thread, and librdkafka's commit would wait for it to
//! serve them. Instead an interceptor, which runs on librdkafka's broker threads, stores each acknowledged offset in
//! the partition's [`Acknowledged`] cell, to which the message carries a pointer.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka_sys::bindings as sys;

mod courier;

use courier::Courier;

use super::client::{Client, Kind, Topic};
use super::partitions::PartitionList;
use super::{Code, NativeError, c_string, timeout_ms};
use crate::log::{GroupMetadata, OffsetCommit, OutgoingRecord};
use crate::row::Header;

/// What the broker said about one partition's messages.
#[derive(Debug)]
pub struct Acknowledged {
    /// The highest acknowledged offset + 1, or -1.
    end: AtomicI64,
    /// Bytes of keys and values of messages that are not in the queue any more, delivered or not.
    settled_bytes: AtomicU64,
    /// The first failure's code, or 0.
    failure: AtomicI32,
}

impl Default for Acknowledged {
    fn default() -> Self {
        Self { end: AtomicI64::new(-1), settled_bytes: AtomicU64::new(0), failure: AtomicI32::new(0) }
    }
}

impl Acknowledged {
    pub fn settled_bytes(&self) -> u64 {
        self.settled_bytes.load(Ordering::Acquire)
    }

    pub fn failure(&self) -> Option<Code> {
        let code = Code(self.failure.load(Ordering::Acquire));
        code.is_error().then_some(code)
    }

    /// The highest acknowledged offset + 1 since the last call.
    pub fn take_end(&self) -> Option<i64> {
        let end = self.end.swap(-1, Ordering::AcqRel);
        (end >= 0).then_some(end)
    }

    /// Forgets what happened; bytes stay counted.
    pub fn reset(&self) {
        self.end.store(-1, Ordering::Release);
        self.failure.store(0, Ordering::Release);
    }

    fn settle(&self, code: Code, offset: i64, bytes: usize) {
        // Purged messages belong to an abort: nobody asks what became of them.
        let purged = code == Code::PURGE_QUEUE || code == Code::PURGE_INFLIGHT;
        if !code.is_error() {
            // Without an offset it is a duplicate that the broker had already: the end is then a lower bound.
            if offset >= 0 {
                self.end.fetch_max(offset + 1, Ordering::AcqRel);
            }
        } else if !purged {
            let _first_wins = self.failure.compare_exchange(0, code.0, Ordering::AcqRel, Ordering::Acquire);
        }
        self.settled_bytes.fetch_add(bytes as u64, Ordering::AcqRel);
    }
}

/// Index of an [`Acknowledged`] cell of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell(usize);

/// A topic of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerTopic(usize);

/// A producer client with what its messages point to.
pub struct Producer {
    /// Taken by `drop`.
    held: ManuallyDrop<Box<Held>>,
    /// Made for the first offsets.
    courier: Option<Courier>,
}

/// What ends together.
pub struct Held {
    // In this order: the topic handles keep the client alive, and the client's messages point to the cells. Neither
    // handle nor client is given out but to the courier.
    topics: Vec<Topic>,
    client: Arc<Client>,
    #[expect(clippy::vec_box, reason = "a message in flight points to its cell, which must not move")]
    cells: Vec<Box<Acknowledged>>,
}

impl Held {
    /// Gives up what has not been sent or acknowledged.
    fn purge(&self) {
        let flags = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT | sys::RD_KAFKA_PURGE_F_NON_BLOCKING;
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_purge(self.client.raw(), flags) };
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.held.fmt(f)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after `drop`.
        let held = unsafe { ManuallyDrop::take(&mut self.held) };
        if let Some(courier) = self.courier.take() {
            courier.dismiss(held);
        }
    }
}

/// Why a message was not queued.
#[derive(Debug)]
pub struct NotQueued {
    pub error: NativeError,
    /// The interceptor was told of it, and has counted its bytes as settled.
    pub settled: bool,
}

impl Producer {
    pub fn new(properties: &[(String, String)]) -> Result<Self, NativeError> {
        let client = Client::new(Kind::Producer, properties)?;
        let held = ManuallyDrop::new(Box::new(Held { topics: Vec::new(), client, cells: Vec::new() }));
        Ok(Self { held, courier: None })
    }

    pub fn client(&self) -> &Arc<Client> {
        &self.held.client
    }

    pub fn add_topic(&mut self, name: &str) -> Result<ProducerTopic, NativeError> {
        let topic = Topic::new(&self.held.client, name)?;
        self.held.topics.push(topic);
        Ok(ProducerTopic(self.held.topics.len() - 1))
    }

    /// Forgets the topic that was added last.
    pub fn remove_last_topic(&mut self) {
        self.held.topics.pop();
    }

    /// Asks the cluster.
    pub fn partition_count(&self, topic: ProducerTopic, wait: Duration) -> Result<u32, NativeError> {
        self.held.topics[topic.0].partition_count(wait)
    }

    pub fn add_cell(&mut self) -> Cell {
        self.held.cells.push(Box::default());
        Cell(self.held.cells.len() - 1)
    }

    pub fn cell(&self, cell: Cell) -> &Acknowledged {
        &self.held.cells[cell.0]
    }

    /// Queues a copy of the record.
    pub fn send(
        &self,
        topic: ProducerTopic,
        partition: i32,
        record: &OutgoingRecord<'_>,
        cell: Cell,
    ) -> Result<(), NotQueued> {
        use sys::rd_kafka_vtype_t as Tag;
        let headers = if record.headers.is_empty() {
            None
        } else {
            Some(HeaderList::new(record.headers).map_err(|error| NotQueued { error, settled: false })?)
        };
        let cell: *const Acknowledged = &raw const *self.held.cells[cell.0];
        let memory = |bytes: Option<&[u8]>| sys::rd_kafka_vu_s__bindgen_ty_1 {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(ptr::null_mut(), |bytes| bytes.as_ptr().cast_mut().cast()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let argument = |vtype, u| sys::rd_kafka_vu_t { vtype, u };
        let arguments = [
            argument(
                Tag::RD_KAFKA_VTYPE_RKT,
                sys::rd_kafka_vu_s__bindgen_ty_1 { rkt: self.held.topics[topic.0].raw() },
            ),
            argument(Tag::RD_KAFKA_VTYPE_PARTITION, sys::rd_kafka_vu_s__bindgen_ty_1 { i32_: partition }),
            argument(Tag::RD_KAFKA_VTYPE_MSGFLAGS, sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY }),
            argument(Tag::RD_KAFKA_VTYPE_KEY, memory(record.key)),
            argument(Tag::RD_KAFKA_VTYPE_VALUE, memory(record.value)),
            argument(Tag::RD_KAFKA_VTYPE_TIMESTAMP, sys::rd_kafka_vu_s__bindgen_ty_1 { i64_: timestamp(record) }),
            argument(Tag::RD_KAFKA_VTYPE_OPAQUE, sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: cell.cast_mut().cast() }),
            argument(
                Tag::RD_KAFKA_VTYPE_HEADERS,
                sys::rd_kafka_vu_s__bindgen_ty_1 { headers: headers.as_ref().map_or(ptr::null_mut(), |list| list.0) },
            ),
        ];
        // Null headers are "no headers", but the argument is left out to keep to the documented use.
        let count = if headers.is_some() { arguments.len() } else { arguments.len() - 1 };
        // SAFETY: every pointer is alive for the call; key and value are copied (MSG_F_COPY, and keys always are). The
        // cell is boxed and outlives the client (see `Producer`). Each union is read by the member that its tag names.
        let result =
            unsafe { NativeError::take(sys::rd_kafka_produceva(self.held.client.raw(), arguments.as_ptr(), count)) };
        match result {
            Ok(()) => {
                if let Some(headers) = headers {
                    // The message owns them now.
                    std::mem::forget(headers);
                }
                Ok(())
            }
            Err(error) => {
                // The partitioner's failures come after the message was made, and are told to the interceptor.
                let settled = error.code == Code::LOCAL_UNKNOWN_PARTITION || error.code == Code::LOCAL_UNKNOWN_TOPIC;
                Err(NotQueued { error, settled })
            }
        }
    }

    /// Messages that are not settled.
    pub fn queued(&self) -> usize {
        // SAFETY: the client is alive.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.held.client.raw()) }).unwrap_or(0)
    }

    /// Sends what waits for company, and serves the network for up to `wait`.
    pub fn flush(&self, wait: Duration) {
        // SAFETY: the client is alive. Its answer (all flushed or timed out) is what `queued` says.
        unsafe { sys::rd_kafka_flush(self.held.client.raw(), timeout_ms(wait)) };
    }

    pub fn init_transactions(&self, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: the client is alive; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_init_transactions(self.held.client.raw(), timeout_ms(wait))) }
    }

    pub fn begin_transaction(&self) -> Result<(), NativeError> {
        // SAFETY: the client is alive; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_begin_transaction(self.held.client.raw())) }
    }

    /// What has gone wrong with the open transaction. Needs no broker.
    pub fn transaction_error(&self) -> Option<NativeError> {
        // To begin again is refused with "wrong state" while all is well, else with the error that broke the
        // transaction (rd_kafka_txn_require_states0); it changes nothing.
        self.begin_transaction().err().filter(|error| error.fatal || error.abortable)
    }

    /// Waits little longer than that, and leaves a producer of no more use if it was in vain.
    pub fn send_offsets(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
        wait: Duration,
    ) -> Result<(), NativeError> {
        let courier = match &mut self.courier {
            Some(courier) => courier,
            none => none.insert(Courier::new(Arc::clone(&self.held.client))?),
        };
        courier.send_offsets(offsets, group, wait)
    }

    pub fn commit_transaction(&self, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: the client is alive; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_commit_transaction(self.held.client.raw(), timeout_ms(wait))) }
    }

    pub fn abort_transaction(&self, wait: Duration) -> Result<(), NativeError> {
        // SAFETY: the client is alive; the error object is ours.
        unsafe { NativeError::take(sys::rd_kafka_abort_transaction(self.held.client.raw(), timeout_ms(wait))) }
    }
}

fn send_offsets(
    client: &Client,
    offsets: &[OffsetCommit],
    group: &GroupMetadata,
    wait: Duration,
) -> Result<(), NativeError> {
    let list = PartitionList::commit(client, offsets)?;
    let (name, member) = (c_string(&group.group)?, c_string(&group.member_id)?);
    let instance = group.instance_id.as_deref().map(c_string).transpose()?;
    let instance = instance.as_ref().map_or(ptr::null(), |instance| instance.as_ptr());
    // SAFETY: all strings are alive for the call that copies them; the metadata object is ours and is freed after
    // its use; list and client are alive.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata_new_with_genid(
            name.as_ptr(),
            group.generation,
            member.as_ptr(),
            instance,
        );
        let client = client.raw();
        let error = sys::rd_kafka_send_offsets_to_transaction(client, list.raw(), metadata, timeout_ms(wait));
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        NativeError::take(error)
    }
}

/// librdkafka takes 0 for "now": the one instant that cannot be said is moved by a millisecond.
fn timestamp(record: &OutgoingRecord<'_>) -> i64 {
    if record.timestamp.0 == 0 { 1 } else { record.timestamp.0 }
}

/// Headers of a message that is not queued yet.
struct HeaderList(*mut sys::rd_kafka_headers_t);

impl HeaderList {
    fn new(headers: &[Header]) -> Result<Self, NativeError> {
        unsafe extern "C" {
            fn rd_kafka_header_add(
                headers: *mut sys::rd_kafka_headers_t,
                name: *const c_char,
                name_size: isize,
                value: *const c_void,
                value_size: isize,
            ) -> c_int;
        }
        // SAFETY: no preconditions; never null.
        let list = Self(unsafe { sys::rd_kafka_headers_new(headers.len()) });
        for header in headers {
            let (value, size) = match &header.value {
                Some(value) => (value.as_ptr().cast(), value.len()),
                None => (ptr::null(), 0),
            };
            // SAFETY: the list is ours; name and value have the sizes stated and are copied. A slice's length fits.
            let code = unsafe {
                rd_kafka_header_add(
                    list.0,
                    header.name.as_ptr().cast(),
                    header.name.len().cast_signed(),
                    value,
                    size.cast_signed(),
                )
            };
            Code(code).check()?;
        }
        Ok(list)
    }
}

impl Drop for HeaderList {
    fn drop(&mut self) {
        // SAFETY: ours: a list that a message took over is forgotten instead.
        unsafe { sys::rd_kafka_headers_destroy(self.0) };
    }
}

/// Makes the client of this configuration tell its acknowledgements.
///
/// # Safety
/// `config` is a live configuration.
pub(super) unsafe fn install_acknowledgements(config: *mut sys::rd_kafka_conf_t) -> Result<(), NativeError> {
    unsafe extern "C" {
        fn rd_kafka_conf_interceptor_add_on_new(
            config: *mut sys::rd_kafka_conf_t,
            name: *const c_char,
            on_new: sys::rd_kafka_interceptor_f_on_new_t,
            opaque: *mut c_void,
        ) -> c_int;
    }
    // SAFETY: the configuration is live, name and callback are static.
    Code(unsafe { rd_kafka_conf_interceptor_add_on_new(config, INTERCEPTOR.as_ptr(), Some(on_new), ptr::null_mut()) })
        .check()
}

const INTERCEPTOR: &std::ffi::CStr = c"acknowledgements";

unsafe extern "C" fn on_new(
    client: *mut sys::rd_kafka_t,
    _config: *const sys::rd_kafka_conf_t,
    _opaque: *mut c_void,
    _text: *mut c_char,
    _size: usize,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: called by `rd_kafka_new` with the client in the making, the one place where this may be added.
    unsafe {
        sys::rd_kafka_interceptor_add_on_acknowledgement(
            client,
            INTERCEPTOR.as_ptr(),
            Some(on_acknowledgement),
            ptr::null_mut(),
        )
    }
}

/// Called for every message that leaves the queue, on librdkafka's broker threads.
unsafe extern "C" fn on_acknowledgement(
    _client: *mut sys::rd_kafka_t,
    message: *mut sys::rd_kafka_message_t,
    _opaque: *mut c_void,
) -> sys::rd_kafka_resp_err_t {
    // SAFETY: librdkafka passes a live message. Its opaque is the cell that `send` gave, which outlives the client. The
    // error field is read as an integer (see `code`).
    unsafe {
        if let Some(cell) = (*message)._private.cast::<Acknowledged>().as_ref() {
            let code = Code((&raw const (*message).err).cast::<i32>().read());
            cell.settle(code, (*message).offset, (*message).len + (*message).key_len);
        }
    }
    sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
}

#[cfg(test)]
mod tests {
    use super::{Acknowledged, Code};

    #[test]
    fn the_highest_acknowledged_offset_is_kept_whatever_the_order() {
        let cell = Acknowledged::default();
        for offset in [4, 9, 7] {
            cell.settle(Code::NONE, offset, 10);
        }
        assert_eq!((cell.take_end(), cell.take_end(), cell.settled_bytes()), (Some(10), None, 30));
    }

    #[test]
    fn the_first_failure_is_kept_and_a_purge_is_none() {
        let cell = Acknowledged::default();
        cell.settle(Code::PURGE_QUEUE, -1, 1);
        assert_eq!(cell.failure(), None);
        cell.settle(Code::MSG_SIZE_TOO_LARGE, -1, 1);
        cell.settle(Code::INVALID_RECORD, -1, 1);
        assert_eq!(cell.failure(), Some(Code::MSG_SIZE_TOO_LARGE));
        cell.reset();
        assert_eq!((cell.failure(), cell.settled_bytes()), (None, 3));
    }
}
