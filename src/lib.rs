//! Sidestream: a Kafka-native stream-processing sidecar. Start with `ARCHITECTURE.md`.

// L0: words
pub mod clock;
pub mod decimal;
pub mod ids;
pub mod limits;
pub mod metric;
pub mod probe;
pub mod row;
pub mod schema;
pub mod value;
// L1: pure, then stores and logs
pub mod expression;
pub mod format;
pub mod log;
pub mod store;
// L2: plan
pub mod operator;
pub mod topology;
// L3: tasks
pub mod task;
// L4: what runs them
pub mod runtime;
// L5: edges
pub mod cli;
pub mod http;
pub mod settings;
pub mod telemetry;
