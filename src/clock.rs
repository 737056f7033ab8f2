//! The clock seam: the one way to learn the time. Tests replace it with [`ManualClock`].
//!
//! Invariant: `monotonic` never goes back, whatever the wall clock does; durations and timeouts use it alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// An implementer owes: `monotonic` starts anywhere, never decreases, and is the same for all threads.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Microseconds since 1970-01-01T00:00:00Z. May jump.
    fn wall_micros(&self) -> i64;
    /// Time since an arbitrary start.
    fn monotonic(&self) -> Duration;
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everybody else asks")]
    fn wall_micros(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX)
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that moves only when told.
#[derive(Debug)]
pub struct ManualClock {
    wall_micros: AtomicI64,
    monotonic_micros: AtomicU64,
}

impl ManualClock {
    pub fn at(wall_micros: i64) -> Arc<Self> {
        Arc::new(Self { wall_micros: AtomicI64::new(wall_micros), monotonic_micros: AtomicU64::new(0) })
    }

    /// Moves the wall clock on to this time, if it is later; no time passes by that.
    pub fn advance_wall_to(&self, wall_micros: i64) {
        self.wall_micros.fetch_max(wall_micros, Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back, as somebody who corrects it; no time passes by that.
    pub fn jump_wall(&self, by_micros: i64) {
        self.wall_micros.fetch_add(by_micros, Ordering::SeqCst);
    }

    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.monotonic_micros.fetch_add(micros, Ordering::SeqCst);
        self.wall_micros.fetch_add(i64::try_from(micros).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_micros(&self) -> i64 {
        self.wall_micros.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.monotonic_micros.load(Ordering::SeqCst))
    }
}
