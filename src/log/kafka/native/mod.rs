//! The safe face of librdkafka: everything `unsafe` of the crate is in this folder and in `message.rs`.
//!
//! What it is: thin wrappers that own what they point to, turn C strings and codes into Rust values, and keep a client
//! alive for as long as anything of it is in use. What it is not: it maps no error to a meaning and holds no state of
//! Sidestream's.
//!
//! Invariants
//! - Whatever belongs to a client (topic handle, queue, message) holds an `Arc` of it, so that the client is destroyed
//!   last.
//! - No Rust panic crosses into C: callbacks only store values and emit log events.

#![expect(unsafe_code, reason = "the FFI boundary")]
#![deny(clippy::undocumented_unsafe_blocks)]

pub mod admin;
pub mod client;
pub mod code;
pub mod consume;
pub mod group;
pub mod partitions;
pub mod produce;
pub mod setback;

use std::ffi::{CString, c_int};
use std::time::Duration;

pub use client::{Client, Kind, Topic};
pub use code::{Code, NativeError};

/// A string for C. A name with a NUL byte in it cannot be any topic's or group's, and is refused.
pub fn c_string(text: &str) -> Result<CString, NativeError> {
    CString::new(text).map_err(|_| NativeError::new(Code::INVALID_ARG, format!("{text:?} contains a NUL byte")))
}

/// Milliseconds for a librdkafka call, rounded up so that a short wait is not a busy loop.
pub fn timeout_ms(wait: Duration) -> c_int {
    c_int::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(c_int::MAX)
}
