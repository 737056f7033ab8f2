//! Faults from outside, on a real Kafka: nothing may be lost, doubled or stuck, and whoever looks must be told.
//!
//! Each is short here; `make soak` drives them for hours (`tests/soak.rs`).

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod clock;
mod disk;
mod network;
mod scaling;
mod state;
mod topics;
mod volume;
