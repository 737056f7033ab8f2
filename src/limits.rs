//! Every bound in one place: what grows has a limit here.

use std::time::Duration;

/// The longest that any request to the log may take before it is an error.
pub const LOG_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Kafka ends a transaction that is open for longer (EXACTLY-ONCE rule 2c).
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Membership (EXACTLY-ONCE rule 11c).
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// `max.message.bytes` of a topic that says nothing else (Kafka's own default).
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
