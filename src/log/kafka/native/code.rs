//! librdkafka's error codes and error objects, as Rust values.
//!
//! Not here: what a code means for Sidestream (`log::kafka::error`).
//!
//! Invariant: a code is never held in the bindings' `enum`. A broker that is newer than the client answers with codes
//! that the enum lacks, and such a value would be undefined behaviour; so the functions that return one are declared
//! again here with the integer type that C gives them, and fields of that type are read as integers.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;

use rdkafka_sys::bindings as sys;

/// An error code of the Kafka protocol (positive) or of librdkafka itself (negative).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(pub i32);

macro_rules! codes {
    ($($name:ident = $value:ident),+ $(,)?) => {
        impl Code { $(pub const $name: Self = Self(sys::rd_kafka_resp_err_t::$value as i32);)+ }
    };
}

codes! {
    NONE = RD_KAFKA_RESP_ERR_NO_ERROR,
    // librdkafka's own
    DESTROY = RD_KAFKA_RESP_ERR__DESTROY,
    TRANSPORT = RD_KAFKA_RESP_ERR__TRANSPORT,
    RESOLVE = RD_KAFKA_RESP_ERR__RESOLVE,
    MSG_TIMED_OUT = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT,
    PARTITION_EOF = RD_KAFKA_RESP_ERR__PARTITION_EOF,
    LOCAL_UNKNOWN_PARTITION = RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION,
    LOCAL_UNKNOWN_TOPIC = RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
    ALL_BROKERS_DOWN = RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN,
    INVALID_ARG = RD_KAFKA_RESP_ERR__INVALID_ARG,
    TIMED_OUT = RD_KAFKA_RESP_ERR__TIMED_OUT,
    QUEUE_FULL = RD_KAFKA_RESP_ERR__QUEUE_FULL,
    SSL = RD_KAFKA_RESP_ERR__SSL,
    NOENT = RD_KAFKA_RESP_ERR__NOENT,
    WAIT_COORD = RD_KAFKA_RESP_ERR__WAIT_COORD,
    ASSIGN_PARTITIONS = RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS,
    REVOKE_PARTITIONS = RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS,
    CONFLICT = RD_KAFKA_RESP_ERR__CONFLICT,
    STATE = RD_KAFKA_RESP_ERR__STATE,
    AUTHENTICATION = RD_KAFKA_RESP_ERR__AUTHENTICATION,
    NO_OFFSET = RD_KAFKA_RESP_ERR__NO_OFFSET,
    TIMED_OUT_QUEUE = RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE,
    MAX_POLL_EXCEEDED = RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED,
    PURGE_QUEUE = RD_KAFKA_RESP_ERR__PURGE_QUEUE,
    PURGE_INFLIGHT = RD_KAFKA_RESP_ERR__PURGE_INFLIGHT,
    FATAL = RD_KAFKA_RESP_ERR__FATAL,
    INCONSISTENT = RD_KAFKA_RESP_ERR__INCONSISTENT,
    FENCED = RD_KAFKA_RESP_ERR__FENCED,
    ASSIGNMENT_LOST = RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST,
    AUTO_OFFSET_RESET = RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET,
    // the protocol's
    OFFSET_OUT_OF_RANGE = RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
    INVALID_MSG = RD_KAFKA_RESP_ERR_INVALID_MSG,
    UNKNOWN_TOPIC_OR_PARTITION = RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
    INVALID_MSG_SIZE = RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE,
    LEADER_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE,
    NOT_LEADER_OR_FOLLOWER = RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
    BROKER_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE,
    REQUEST_TIMED_OUT = RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    REPLICA_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_REPLICA_NOT_AVAILABLE,
    MSG_SIZE_TOO_LARGE = RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE,
    NETWORK_EXCEPTION = RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION,
    COORDINATOR_LOAD_IN_PROGRESS = RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS,
    COORDINATOR_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE,
    NOT_COORDINATOR = RD_KAFKA_RESP_ERR_NOT_COORDINATOR,
    INVALID_TOPIC = RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
    RECORD_LIST_TOO_LARGE = RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
    NOT_ENOUGH_REPLICAS = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ILLEGAL_GENERATION = RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION,
    UNKNOWN_MEMBER_ID = RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID,
    REBALANCE_IN_PROGRESS = RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS,
    TOPIC_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    GROUP_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED,
    CLUSTER_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
    INVALID_TIMESTAMP = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP,
    UNSUPPORTED_SASL_MECHANISM = RD_KAFKA_RESP_ERR_UNSUPPORTED_SASL_MECHANISM,
    NOT_CONTROLLER = RD_KAFKA_RESP_ERR_NOT_CONTROLLER,
    TOPIC_ALREADY_EXISTS = RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS,
    POLICY_VIOLATION = RD_KAFKA_RESP_ERR_POLICY_VIOLATION,
    INVALID_PRODUCER_EPOCH = RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    SASL_AUTHENTICATION_FAILED = RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
    KAFKA_STORAGE_ERROR = RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
    NON_EMPTY_GROUP = RD_KAFKA_RESP_ERR_NON_EMPTY_GROUP,
    GROUP_ID_NOT_FOUND = RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND,
    FENCED_LEADER_EPOCH = RD_KAFKA_RESP_ERR_FENCED_LEADER_EPOCH,
    UNKNOWN_LEADER_EPOCH = RD_KAFKA_RESP_ERR_UNKNOWN_LEADER_EPOCH,
    OFFSET_NOT_AVAILABLE = RD_KAFKA_RESP_ERR_OFFSET_NOT_AVAILABLE,
    FENCED_INSTANCE_ID = RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
    INVALID_RECORD = RD_KAFKA_RESP_ERR_INVALID_RECORD,
    UNSTABLE_OFFSET_COMMIT = RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT,
    PRODUCER_FENCED = RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    FENCED_MEMBER_EPOCH = RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH,
    UNRELEASED_INSTANCE_ID = RD_KAFKA_RESP_ERR_UNRELEASED_INSTANCE_ID,
    STALE_MEMBER_EPOCH = RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
}

unsafe extern "C" {
    fn rd_kafka_err2name(code: c_int) -> *const c_char;
    fn rd_kafka_err2str(code: c_int) -> *const c_char;
    fn rd_kafka_last_error() -> c_int;
    fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
}

impl Code {
    /// The code that the calling thread's last failed call left behind.
    pub fn last() -> Self {
        // SAFETY: reads a thread-local; no arguments.
        Self(unsafe { rd_kafka_last_error() })
    }

    pub fn is_error(self) -> bool {
        self != Self::NONE
    }

    /// `Ok` for "no error".
    pub fn check(self) -> Result<(), NativeError> {
        if self.is_error() { Err(NativeError::from_code(self)) } else { Ok(()) }
    }

    pub fn name(self) -> String {
        // SAFETY: takes any integer; the answer is a static or thread-local string that is copied at once.
        unsafe { text(rd_kafka_err2name(self.0)) }
    }

    pub fn description(self) -> String {
        // SAFETY: as for `name`.
        unsafe { text(rd_kafka_err2str(self.0)) }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// What a librdkafka call failed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NativeError {
    pub code: Code,
    /// The client is of no more use.
    pub fatal: bool,
    /// The transaction must be aborted before anything else.
    pub abortable: bool,
    pub text: String,
}

impl NativeError {
    pub fn from_code(code: Code) -> Self {
        Self { code, fatal: code == Code::FATAL, abortable: false, text: code.description() }
    }

    pub fn new(code: Code, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::from_code(code) }
    }

    /// Takes over an error object; null means success.
    ///
    /// # Safety
    /// `error` is null or an error object that nobody else frees.
    pub unsafe fn take(error: *mut sys::rd_kafka_error_t) -> Result<(), Self> {
        // SAFETY: the caller's promise; the object is alive until `rd_kafka_error_destroy` below.
        unsafe {
            let Some(taken) = Self::peek(error) else { return Ok(()) };
            sys::rd_kafka_error_destroy(error);
            Err(taken)
        }
    }

    /// Reads an error object that stays with its owner; `None` for null and for "no error".
    ///
    /// # Safety
    /// `error` is null or a live error object.
    pub unsafe fn peek(error: *const sys::rd_kafka_error_t) -> Option<Self> {
        if error.is_null() {
            return None;
        }
        // SAFETY: not null, and alive by the caller's promise.
        unsafe {
            let code = Code(rd_kafka_error_code(error));
            code.is_error().then(|| Self {
                code,
                fatal: sys::rd_kafka_error_is_fatal(error) != 0,
                abortable: sys::rd_kafka_error_txn_requires_abort(error) != 0,
                text: text(sys::rd_kafka_error_string(error)),
            })
        }
    }
}

impl fmt::Display for NativeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.name())
    }
}

/// Copies a C string; empty for null.
///
/// # Safety
/// `string` is null or a NUL-terminated string that is alive for the call.
pub unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: not null, NUL-terminated and alive by the caller's promise.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn a_code_that_the_client_does_not_know_is_still_a_value() {
        assert!(Code(12_345).is_error());
        assert!(Code(12_345).name().contains("12345"), "{:?}", Code(12_345));
    }

    #[test]
    fn known_codes_have_their_names() {
        assert_eq!(Code::ILLEGAL_GENERATION.name(), "ILLEGAL_GENERATION");
        assert_eq!(Code::TIMED_OUT.name(), "_TIMED_OUT");
    }
}
