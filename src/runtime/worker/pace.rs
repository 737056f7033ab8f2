//! When a worker commits (EXACTLY-ONCE rule 18).
//!
//! Counted from the end of the last commit. The lower bound is the greatest of 10 ms, the last commit's duration and
//! half a millisecond per partition that it touched; the upper bound is `commit_interval`; where they conflict the lower
//! wins. Under light load (nothing left to fetch) a commit starts at the lower bound, else at the upper.
//!
//! At least once, records are seen when they are sent. Where no state has changed a commit then only moves offsets, and
//! while it waits for the log nothing is processed: it takes place at the upper bound.

use std::time::Duration;

const LEAST: Duration = Duration::from_millis(10);
const PER_PARTITION: Duration = Duration::from_micros(500);

/// See the module. All times are of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    ended: Duration,
    lower: Duration,
}

/// Whether a commit is worth having soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing more is at hand, or what has been done is as much as fits.
    Light,
    /// There is more to process at once, or nothing that anybody sees waits for the commit.
    Heavy,
}

impl Pace {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, ended: now, lower: LEAST.min(interval) }
    }

    /// A commit has ended now; it took `duration` and touched that many partitions.
    pub fn committed(&mut self, now: Duration, duration: Duration, partitions: usize) {
        let touched = PER_PARTITION.saturating_mul(u32::try_from(partitions).unwrap_or(u32::MAX));
        self.ended = now;
        self.lower = LEAST.max(duration).max(touched);
    }

    /// The time for the next commit.
    pub fn due_at(&self, load: Load) -> Duration {
        self.ended
            + match load {
                Load::Light => self.lower,
                Load::Heavy => self.lower.max(self.interval),
            }
    }

    pub fn is_due(&self, now: Duration, load: Load) -> bool {
        now >= self.due_at(load)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn light_load_commits_at_the_lower_bound_and_heavy_load_at_the_upper() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1000), ms(4), 2);
        assert!(!pace.is_due(ms(1009), Load::Light));
        assert!(pace.is_due(ms(1010), Load::Light));
        assert!(!pace.is_due(ms(1099), Load::Heavy));
        assert!(pace.is_due(ms(1100), Load::Heavy));
    }

    #[test]
    fn slow_commits_and_many_partitions_are_given_time() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(0), ms(30), 2);
        assert!(!pace.is_due(ms(29), Load::Light));
        pace.committed(ms(0), ms(3), 400);
        assert!(!pace.is_due(ms(199), Load::Heavy), "the lower bound wins over the interval");
        assert!(pace.is_due(ms(200), Load::Heavy));
    }
}
