//! Every bound in one place: what grows has a limit here.

use std::time::Duration;

/// The longest that any request to the log may take before it is an error.
pub const LOG_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Kafka ends a transaction that is open for longer (EXACTLY-ONCE rule 2c).
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a transaction is waited for, over a coordinator's restart or move. Longer than any answer takes, since a
/// commit that is given up costs a new producer; short enough for a worker to be seen alive in an outage.
pub const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Membership (EXACTLY-ONCE rule 11c).
pub const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
pub const MAX_POLL_INTERVAL: Duration = Duration::from_secs(60);
/// `max.message.bytes` of a topic that says nothing else (Kafka's own default).
pub const DEFAULT_MAX_MESSAGE_BYTES: usize = 1_048_588;
/// How many bytes a fetcher's client may hold that nobody has asked for yet.
pub const FETCH_QUEUE_BYTES: usize = 16 << 20;
/// How many records a fetcher's client fetches ahead; each costs it about 500 bytes beside its own.
pub const FETCH_QUEUE_RECORDS: usize = 20_000;
/// How much of a paused partition a fetcher holds back before the client stops fetching it.
pub const FETCH_HELD_BYTES: usize = 4 << 20;
/// What a held record costs beside its bytes.
pub const FETCH_RECORD_OVERHEAD_BYTES: usize = 512;
/// Kafka's default `delete.retention.ms`: one day.
pub const DEFAULT_DELETE_RETENTION_MS: i64 = 86_400_000;
