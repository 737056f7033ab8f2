//! What several integration tests need.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::cast_possible_truncation, clippy::print_stderr, clippy::expect_used, clippy::panic, reason = "tests")]

pub mod broker;
pub mod case;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod process;
pub mod proxy;
pub mod reader;
pub mod shop;
pub mod watchdog;

use std::time::{Duration, Instant};

/// Asks again and again until there is an answer.
///
/// # Panics
/// When there is none within `limit`.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "a test polls with a deadline")]
pub fn eventually<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks again and again for a time.
#[expect(clippy::disallowed_methods, reason = "a test that nothing happens takes its time")]
pub fn holds_for(time: Duration, mut check: impl FnMut()) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        check();
        std::thread::sleep(Duration::from_millis(50));
    }
}
