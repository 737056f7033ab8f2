//! When a worker commits (EXACTLY-ONCE rule 18, docs/decisions/0006).
//!
//! The lower bound is the greatest of 10 ms, the last commit's duration and half a millisecond per partition that it
//! touched; the upper bound is `commit_interval`; where they conflict the lower wins. Both count from the end of the last
//! commit. Under light load (nothing left to fetch) a commit starts at the lower bound, else at the upper. The lower bound is
//! never more than a second, whatever a commit has waited for: Kafka ends a transaction that is open for 10 s. What has grown
//! to its share of the memory (rule 15c) knows no bounds: the longer it waited, the longer its commit would take, and so on.
//!
//! Where commits are usually short, by a moving average, two things are different:
//! - A commit that took longer does not delay the next one: what has waited for it does not pay for it twice.
//! - Under light load a transaction begins only some time after the one before it was committed. The coordinator answers a
//!   commit before its markers are written, refuses the next transaction's first partitions until they are, and librdkafka
//!   then waits a fixed 20 ms (`rd_kafka_txn_handle_AddPartitionsToTxn`): longer than the whole lower bound.
//!
//! At least once, records are seen when they are sent. Where no state has changed a commit then only moves offsets, and
//! while it waits for the log nothing is processed: it takes place at the upper bound.

use std::time::Duration;

use crate::limits;

const LEAST: Duration = Duration::from_millis(10);
const PER_PARTITION: Duration = Duration::from_micros(500);
const MOST: Duration = Duration::from_secs(limits::TRANSACTION_TIMEOUT.as_secs() / 10);
/// What the coordinator is given to write the markers of a commit: 96 of 100 take less than a millisecond.
const MARKERS: Duration = Duration::from_millis(4);
/// What a transaction's first requests are given, before its commit sends more of them.
const FIRST_REQUESTS: Duration = Duration::from_millis(2);
/// The weight of one commit's duration in the average is the inverse of this.
const REMEMBERED: u32 = 8;

/// See the module. All times are of the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    interval: Duration,
    /// Of the last commit.
    ended: Duration,
    /// How much longer than usual it took, up to the least bound.
    excess: Duration,
    /// None before the first commit.
    usual_duration: Option<Duration>,
    lower: Duration,
}

/// Whether a commit is worth having soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing more is at hand.
    Light,
    /// What has been done is as much as fits.
    Full,
    /// There is more to process at once, or nothing that anybody sees waits for the commit.
    Heavy,
}

impl Pace {
    pub fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, ended: now, excess: Duration::ZERO, usual_duration: None, lower: LEAST.min(interval) }
    }

    /// A commit has ended now; it took `duration` and touched that many partitions.
    pub fn committed(&mut self, now: Duration, duration: Duration, partitions: usize) {
        let duration = duration.min(MOST);
        let usual = self.usual_duration.unwrap_or(duration);
        let touched = PER_PARTITION.saturating_mul(u32::try_from(partitions).unwrap_or(u32::MAX));
        let excess = duration.saturating_sub(usual);
        self.ended = now;
        self.usual_duration = Some((usual * (REMEMBERED - 1) + duration) / REMEMBERED);
        self.excess = if self.is_short() { excess.min(LEAST) } else { Duration::ZERO };
        self.lower = LEAST.max(touched).max(if self.is_short() { Duration::ZERO } else { duration }).min(MOST);
    }

    /// Whether commits usually are.
    fn is_short(&self) -> bool {
        self.usual_duration.is_some_and(|usual| usual < LEAST)
    }

    /// From when on the next transaction may begin.
    pub fn begins_at(&self, load: Load) -> Duration {
        match load {
            Load::Light if self.is_short() => self.ended + MARKERS,
            Load::Light | Load::Full | Load::Heavy => self.ended,
        }
    }

    /// The time for the next commit.
    pub fn due_at(&self, load: Load) -> Duration {
        match load {
            Load::Light => {
                let bound = self.lower.saturating_sub(self.excess);
                (self.ended + bound).max(self.begins_at(load) + FIRST_REQUESTS)
            }
            Load::Full => self.begins_at(load),
            Load::Heavy => self.ended + self.lower.max(self.interval),
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
        pace.committed(ms(1000), ms(30), 2);
        assert!(!pace.is_due(ms(1029), Load::Light));
        assert!(pace.is_due(ms(1030), Load::Light));
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1000), ms(3), 400);
        assert!(!pace.is_due(ms(1199), Load::Heavy), "the lower bound wins over the interval");
        assert!(pace.is_due(ms(1200), Load::Heavy));
    }

    #[test]
    fn what_fills_its_share_of_the_memory_is_committed_at_once() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1000), ms(300), 400);
        assert!(pace.is_due(ms(1000), Load::Full));
    }

    #[test]
    fn after_a_commit_that_hung_the_next_one_comes_well_within_a_transactions_time() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1_000), ms(4), 2);
        // As on a volume that hangs for a minute.
        pace.committed(ms(61_000), ms(60_000), 2);
        assert!(pace.is_due(ms(62_000), Load::Heavy) && pace.is_due(ms(62_000), Load::Light));
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1_000), ms(4), 100_000);
        assert!(pace.is_due(ms(2_000), Load::Heavy));
    }

    #[test]
    fn what_waited_through_one_slow_commit_does_not_wait_the_whole_bound_again() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(1000), ms(4), 2);
        pace.committed(ms(1034), ms(24), 2);
        assert!(!pace.is_due(ms(1039), Load::Light), "the next transaction needs some time of its own");
        assert!(pace.is_due(ms(1040), Load::Light));
    }

    #[test]
    fn a_log_that_stays_slow_is_asked_less_often() {
        let mut pace = Pace::new(ms(100), ms(0));
        pace.committed(ms(0), ms(4), 2);
        for commit in 1..=40 {
            pace.committed(ms(1000 * commit), ms(50), 2);
        }
        assert!(!pace.is_due(ms(40_045), Load::Light));
        assert!(pace.is_due(ms(40_050), Load::Light));
    }

    #[test]
    fn under_light_load_the_next_transaction_begins_when_the_last_ones_markers_are_written() {
        let mut pace = Pace::new(ms(100), ms(0));
        assert_eq!(pace.begins_at(Load::Light), ms(0), "nothing has been committed");
        pace.committed(ms(1000), ms(4), 2);
        assert_eq!(pace.begins_at(Load::Light), ms(1004));
        assert_eq!(pace.begins_at(Load::Heavy), ms(1000), "there is time enough until the commit");
    }
}
