//! A librdkafka client: made from properties, destroyed when nobody uses it any more.
//!
//! Its log lines become `tracing` events, its error events become "the last problem", which explains a time-out.

use std::ffi::{c_char, c_int, c_void};
use std::fmt;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka_sys::bindings as sys;

use super::code::text;
use super::{Code, NativeError, c_string, timeout_ms};

// With the error as an integer (see `code`).
unsafe extern "C" {
    fn rd_kafka_metadata(
        client: *mut sys::rd_kafka_t,
        all_topics: c_int,
        topic: *mut sys::rd_kafka_topic_t,
        answer: *mut *const sys::rd_kafka_metadata,
        timeout_ms: c_int,
    ) -> c_int;
}

/// Long enough for librdkafka's longest message.
pub(super) const ERROR_TEXT_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Fetches, or asks administrative questions.
    Consumer,
    Producer,
    /// Consumer that joins a group: rebalances and errors are events on its queue.
    Member,
}

/// A client with its own threads and connections.
pub struct Client {
    raw: NonNull<sys::rd_kafka_t>,
    destroy_flags: AtomicI32,
    /// Pointed to by the client as its opaque; dropped after it (see `Drop`).
    problem: Box<Problem>,
}

/// The last trouble that the client reported.
#[derive(Debug, Default)]
struct Problem {
    last: Mutex<Option<NativeError>>,
    /// A topic is missing or forbidden; which one is only in the text.
    of_a_topic: AtomicBool,
}

// SAFETY: librdkafka's client handle may be used from any thread, concurrently (rdkafka.h, "thread safety").
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.name())
    }
}

impl Client {
    /// Does not connect; a wrong property is the only error a user can cause.
    pub fn new(kind: Kind, properties: &[(String, String)]) -> Result<Arc<Self>, NativeError> {
        let mut config = Config::new();
        for (name, value) in properties {
            config.set(name, value)?;
        }
        let problem = Box::<Problem>::default();
        // SAFETY: `config.raw` is live; the callbacks have the types that librdkafka expects; the opaque outlives the
        // client because `Client` owns it and frees it after `rd_kafka_destroy_flags`.
        unsafe {
            sys::rd_kafka_conf_set_log_cb(config.raw, Some(on_log));
            sys::rd_kafka_conf_set_opaque(config.raw, ptr::from_ref(&*problem).cast_mut().cast());
            match kind {
                Kind::Member => {
                    sys::rd_kafka_conf_set_events(
                        config.raw,
                        sys::RD_KAFKA_EVENT_REBALANCE | sys::RD_KAFKA_EVENT_ERROR,
                    );
                }
                Kind::Consumer => sys::rd_kafka_conf_set_error_cb(config.raw, Some(on_error)),
                Kind::Producer => {
                    sys::rd_kafka_conf_set_error_cb(config.raw, Some(on_error));
                    super::produce::install_acknowledgements(config.raw)?;
                }
            }
        }
        let native_kind = match kind {
            Kind::Consumer | Kind::Member => sys::rd_kafka_type_t::RD_KAFKA_CONSUMER,
            Kind::Producer => sys::rd_kafka_type_t::RD_KAFKA_PRODUCER,
        };
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: on success the client takes over the configuration (released below); on failure it stays ours and
        // `Config::drop` frees it. The text buffer has the stated length.
        let raw = unsafe { sys::rd_kafka_new(native_kind, config.raw, error.as_mut_ptr(), error.len()) };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: librdkafka NUL-terminates the text.
            return Err(NativeError::new(Code::INVALID_ARG, unsafe { text(error.as_ptr()) }));
        };
        config.release();
        Ok(Arc::new(Self { raw, destroy_flags: AtomicI32::new(0), problem }))
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_t {
        self.raw.as_ptr()
    }

    pub fn name(&self) -> String {
        // SAFETY: the client is alive; the name lives as long as it.
        unsafe { text(sys::rd_kafka_name(self.raw())) }
    }

    /// Serves error callbacks (and, for a producer, the network) for up to `wait`.
    pub fn poll(&self, wait: Duration) {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_poll(self.raw(), timeout_ms(wait)) };
    }

    /// The last trouble that was reported, if nothing has succeeded since: the reason behind a time-out.
    pub fn problem(&self) -> Option<NativeError> {
        self.poll(Duration::ZERO);
        self.problem.last.lock().clone()
    }

    /// To be called after a success: what was wrong before does not explain what comes.
    pub fn forget_problem(&self) {
        *self.problem.last.lock() = None;
    }

    pub fn record_problem(&self, error: NativeError) {
        self.problem.record(error);
    }

    /// Whether some topic was found missing or forbidden since the last call. librdkafka says so without naming the
    /// partition that was started (RD_KAFKA_OP_ERR of rd_kafka_toppar_enq_error).
    pub fn take_topic_problem(&self) -> bool {
        self.problem.of_a_topic.swap(false, Ordering::AcqRel)
    }

    /// The error that ended the client for good.
    pub fn fatal_error(&self) -> Option<NativeError> {
        unsafe extern "C" {
            fn rd_kafka_fatal_error(client: *mut sys::rd_kafka_t, text: *mut c_char, size: usize) -> c_int;
        }
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: the client is alive and the buffer has the stated length.
        let code = Code(unsafe { rd_kafka_fatal_error(self.raw(), error.as_mut_ptr(), error.len()) });
        // SAFETY: librdkafka NUL-terminates the text.
        code.is_error().then(|| NativeError { fatal: true, ..NativeError::new(code, unsafe { text(error.as_ptr()) }) })
    }

    /// The cluster's id, or `None` if no broker told it in time.
    ///
    /// librdkafka looks and then waits, and does not hear of what arrives in between: so it is asked step by step.
    pub fn cluster_id(&self, wait: Duration) -> Option<String> {
        let mut waited = Duration::ZERO;
        loop {
            let step = CLUSTER_ID_STEP.min(wait.saturating_sub(waited));
            // SAFETY: the client is alive; the returned string is ours to free with librdkafka's allocator.
            let id = unsafe {
                let id = sys::rd_kafka_clusterid(self.raw(), timeout_ms(step));
                let copied = (!id.is_null()).then(|| text(id));
                sys::rd_kafka_mem_free(self.raw(), id.cast());
                copied
            };
            waited += step;
            if id.is_some() || waited >= wait {
                return id;
            }
        }
    }

    /// Whether a broker answers within this time. What was wrong before is then forgotten.
    pub fn is_answered(&self, wait: Duration) -> bool {
        let mut answer = ptr::null();
        // SAFETY: the client is alive, no topic is named; `answer` is written before a success is returned.
        let code = unsafe { rd_kafka_metadata(self.raw(), 0, ptr::null_mut(), &raw mut answer, timeout_ms(wait)) };
        let answered = Code(code).check().is_ok();
        if answered {
            // SAFETY: a live metadata object, destroyed once.
            unsafe { sys::rd_kafka_metadata_destroy(answer) };
            self.forget_problem();
        }
        answered
    }

    /// Destroy without leaving the group.
    pub fn leave_silently(&self) {
        self.destroy_flags.store(sys::RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE, Ordering::Relaxed);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: everything that belongs to the client holds an `Arc` of it, so nothing does any more. The threads
        // that run its callbacks have ended when this returns; `problem` is dropped only then.
        unsafe { sys::rd_kafka_destroy_flags(self.raw(), self.destroy_flags.load(Ordering::Relaxed)) };
    }
}

impl Problem {
    /// "All brokers down" follows every other trouble and explains none: it does not replace one.
    fn record(&self, error: NativeError) {
        if concerns_a_topic(error.code) {
            self.of_a_topic.store(true, Ordering::Release);
            return;
        }
        let mut last = self.last.lock();
        if error.code != Code::ALL_BROKERS_DOWN || last.is_none() {
            *last = Some(error);
        }
    }
}

fn concerns_a_topic(code: Code) -> bool {
    matches!(
        code,
        Code::UNKNOWN_TOPIC_OR_PARTITION
            | Code::LOCAL_UNKNOWN_TOPIC
            | Code::LOCAL_UNKNOWN_PARTITION
            | Code::TOPIC_AUTHORIZATION_FAILED
            | Code::INVALID_TOPIC
    )
}

/// A handle to a topic within one client.
pub struct Topic {
    raw: NonNull<sys::rd_kafka_topic_t>,
    client: Arc<Client>,
}

// SAFETY: topic handles are reference-counted and may be used from any thread (rdkafka.h).
unsafe impl Send for Topic {}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Topic({:#x})", self.id().0)
    }
}

/// Identifies a topic handle within its client, for as long as the handle lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopicKey(pub(super) usize);

impl Topic {
    pub fn new(client: &Arc<Client>, name: &str) -> Result<Self, NativeError> {
        let name = c_string(name)?;
        // SAFETY: the client is alive, the name is NUL-terminated; a null configuration means the default.
        let raw = unsafe { sys::rd_kafka_topic_new(client.raw(), name.as_ptr(), ptr::null_mut()) };
        let raw = NonNull::new(raw).ok_or_else(|| NativeError::from_code(Code::last()))?;
        Ok(Self { raw, client: Arc::clone(client) })
    }

    pub(super) fn raw(&self) -> *mut sys::rd_kafka_topic_t {
        self.raw.as_ptr()
    }

    pub fn id(&self) -> TopicKey {
        TopicKey(self.raw.as_ptr() as usize)
    }

    /// Asks the cluster how many partitions the topic has.
    pub fn partition_count(&self, wait: Duration) -> Result<u32, NativeError> {
        let mut answer = ptr::null();
        // SAFETY: client and topic are alive; `answer` is written before a success is returned.
        Code(unsafe { rd_kafka_metadata(self.client.raw(), 0, self.raw(), &raw mut answer, timeout_ms(wait)) })
            .check()?;
        // SAFETY: the answer is a live metadata object with `topic_cnt` topics until it is destroyed below. The error
        // field is read as an integer (see `code`).
        unsafe {
            let counted = if (*answer).topic_cnt > 0 {
                let topic = (*answer).topics;
                let code = Code((&raw const (*topic).err).cast::<i32>().read());
                code.check().map(|()| u32::try_from((*topic).partition_cnt).unwrap_or(0))
            } else {
                Err(NativeError::from_code(Code::UNKNOWN_TOPIC_OR_PARTITION))
            };
            sys::rd_kafka_metadata_destroy(answer);
            counted
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        // SAFETY: ours, and its client is alive through `self.client`.
        unsafe { sys::rd_kafka_topic_destroy(self.raw()) };
    }
}

struct Config {
    raw: *mut sys::rd_kafka_conf_t,
}

impl Config {
    fn new() -> Self {
        // SAFETY: no arguments; never null.
        Self { raw: unsafe { sys::rd_kafka_conf_new() } }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), NativeError> {
        unsafe extern "C" {
            fn rd_kafka_conf_set(
                conf: *mut sys::rd_kafka_conf_t,
                name: *const c_char,
                value: *const c_char,
                text: *mut c_char,
                size: usize,
            ) -> c_int;
        }
        let (name, value) = (c_string(name)?, c_string(value)?);
        let mut error = [0 as c_char; ERROR_TEXT_BYTES];
        // SAFETY: all pointers are live for the call, and the buffer has the stated length.
        let result =
            unsafe { rd_kafka_conf_set(self.raw, name.as_ptr(), value.as_ptr(), error.as_mut_ptr(), error.len()) };
        if result == sys::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK as c_int {
            return Ok(());
        }
        // SAFETY: librdkafka NUL-terminates the text.
        Err(NativeError::new(Code::INVALID_ARG, unsafe { text(error.as_ptr()) }))
    }

    /// The client owns it now.
    fn release(mut self) {
        self.raw = ptr::null_mut();
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        if !self.raw.is_null() {
            // SAFETY: ours, since it was not released.
            unsafe { sys::rd_kafka_conf_destroy(self.raw) };
        }
    }
}

/// How long one look for the cluster's id lasts.
const CLUSTER_ID_STEP: Duration = Duration::from_millis(5);
/// The library's own lines can be asked for, and are silent otherwise: `telemetry::logging`.
const LOG_TARGET: &str = "librdkafka";

/// Called from librdkafka's threads.
unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    line: *const c_char,
) {
    // SAFETY: librdkafka passes live, NUL-terminated strings; the client is null before it is fully made.
    let (name, facility, line) = unsafe {
        let name = if client.is_null() { String::new() } else { text(sys::rd_kafka_name(client)) };
        (name, text(facility), text(line))
    };
    // syslog's levels: 4 is a warning, 5 to 7 are notice, info and debug. CONFWARN says that a producer does not use a
    // consumer's property: the user gives one set for both.
    if level <= 4 && facility != "CONFWARN" {
        tracing::warn!(target: LOG_TARGET, client = name, facility, detail = line, "Kafka client");
    } else {
        tracing::debug!(target: LOG_TARGET, client = name, facility, detail = line, "Kafka client");
    }
}

/// Called from whichever thread polls the client.
unsafe extern "C" fn on_error(client: *mut sys::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: librdkafka passes its live client and a NUL-terminated reason; the opaque is the `Problem` that was set
    // in `Client::new`, alive until after the client is destroyed.
    let (name, reason, problem) =
        unsafe { (text(sys::rd_kafka_name(client)), text(reason), &*opaque.cast::<Problem>()) };
    tracing::debug!(client = name, code = ?Code(code), detail = reason, "Kafka client reports a problem");
    problem.record(NativeError::new(Code(code), reason));
}
