//! A fetched message, owned: the bytes stay in the buffer that they arrived in until this is dropped.

#![expect(unsafe_code, reason = "reads and frees librdkafka's message")]

use std::fmt;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use rdkafka_sys::bindings as sys;

use super::native::Client;
use super::native::code::text;
use crate::row::Header;

/// One record's key, value and headers.
pub struct Message {
    raw: NonNull<sys::rd_kafka_message_t>,
    /// The message refers to its client's partitions; declared last, so that it is let go after the message.
    _client: Arc<Client>,
}

// SAFETY: a message may be read and destroyed on another thread than the one that fetched it: what it shares with its
// client is reference-counted atomically. It is not `Sync`, because headers are parsed in place on first use.
unsafe impl Send for Message {}

impl Message {
    /// # Safety
    /// `raw` is a message without error that was fetched by `client`, and nobody else destroys it.
    pub(super) unsafe fn new(raw: NonNull<sys::rd_kafka_message_t>, client: Arc<Client>) -> Self {
        Self { raw, _client: client }
    }

    pub fn key(&self) -> Option<&[u8]> {
        // SAFETY: the message is alive for as long as `self`, and its key is `key_len` bytes where it is not null.
        unsafe {
            let message = self.raw.as_ref();
            bytes(message.key.cast::<u8>(), message.key_len)
        }
    }

    pub fn value(&self) -> Option<&[u8]> {
        // SAFETY: as for `key`.
        unsafe {
            let message = self.raw.as_ref();
            bytes(message.payload.cast::<u8>(), message.len)
        }
    }

    pub fn headers(&self) -> Vec<Header> {
        let mut headers = ptr::null_mut();
        let mut found = Vec::new();
        if self.surely_has_no_headers() {
            return found;
        }
        // SAFETY: the message is alive. Its headers stay its own; names and values are copied before the next call.
        unsafe {
            let code = sys::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
                return found;
            }
            for index in 0..sys::rd_kafka_header_cnt(headers) {
                let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
                sys::rd_kafka_header_get_all(headers, index, &raw mut name, &raw mut value, &raw mut size);
                let value = bytes(value.cast::<u8>(), size);
                found.push(Header { name: text(name).into_boxed_str(), value: value.map(Box::from) });
            }
        }
        found
    }
}

impl Message {
    /// Most records have no headers, and to learn that by asking costs a buffer and a parser for each.
    ///
    /// A record of format 2, the only one with headers, is `... value length, value, header count, headers`, and
    /// librdkafka hands out the value where it lies (`rd_kafka_msgset_reader_msg_v2`). So the byte after the value is the
    /// header count, a varint.
    fn surely_has_no_headers(&self) -> bool {
        unsafe extern "C" {
            fn rd_kafka_message_leader_epoch(message: *const sys::rd_kafka_message_t) -> i32;
        }
        // SAFETY: the message is alive. Only batches of format 2 have a leader epoch. The value is not empty, so that it
        // lies in the record (librdkafka stands a literal in for an empty one), where at least one byte follows it.
        unsafe {
            let message = self.raw.as_ref();
            if message.payload.is_null() || message.len == 0 || rd_kafka_message_leader_epoch(message) < 0 {
                return false;
            }
            *message.payload.cast::<u8>().add(message.len) == 0
        }
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: ours alone; the client is alive.
        unsafe { sys::rd_kafka_message_destroy(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: Option<&[u8]>| bytes.map(<[u8]>::len);
        write!(f, "Message(key {:?} bytes, value {:?} bytes)", size(self.key()), size(self.value()))
    }
}

/// # Safety
/// `start` is null or the start of `length` bytes that are alive and unchanged for `'a`.
unsafe fn bytes<'a>(start: *const u8, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    (!start.is_null()).then(|| unsafe { slice::from_raw_parts(start, length) })
}
