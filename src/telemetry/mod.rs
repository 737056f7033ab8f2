//! What an operator sees: structured logs, and metrics for Prometheus.
//!
//! What it is not: it counts nothing itself. Counters live where things happen and are read when somebody asks.
//! `tracing-subscriber` and the OpenTelemetry SDK are named only here.

pub mod logging;
pub mod metrics;
pub mod process;
pub mod samples;
