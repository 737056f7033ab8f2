//! Records that did not come through, told in the log: at once, and then not more often than [`TELL_EVERY`].
//!
//! What it is: per step, fate and reason, how many there were since the last line and where the last one stood. Each is
//! counted by a metric as well; the line is for whoever reads the log of an incident.
//! What it is not: it keeps no record; dead letters do.
//!
//! Invariant: every record noted is in the count of exactly one line, at the latest when [`Losses::tell`] is next called
//! after [`TELL_EVERY`].

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

/// Between two lines about the same.
pub const TELL_EVERY: Duration = Duration::from_secs(10);

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    DeadLettered,
    /// `on_error: skip`.
    Skipped,
    /// Its window had closed, and no `late` topic takes it.
    DroppedLate,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub fate: Fate,
    /// The step or source.
    pub step: String,
    /// Why, for machines.
    pub code: &'static str,
    /// Records since the last line.
    pub records: u64,
    /// Where the last of them stood: topic, partition and offset.
    pub last: String,
    /// Why the last of them was rejected.
    pub reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Losses {
    kinds: Mutex<BTreeMap<(String, Fate, &'static str), Untold>>,
}

#[derive(Debug, Default)]
struct Untold {
    /// On the monotonic clock.
    told_at: Option<Duration>,
    records: u64,
    last: String,
    reason: String,
}

impl Losses {
    /// Takes note of a record, and tells of it if it is time.
    pub fn note(&self, now: Duration, fate: Fate, step: &str, code: &'static str, last: String, reason: &str) {
        if let Some(line) = self.take(now, fate, step, code, last, reason) {
            line.write();
        }
    }

    /// Tells of what has been left untold for long enough.
    pub fn tell(&self, now: Duration) {
        for line in self.due(now) {
            line.write();
        }
    }

    fn take(
        &self,
        now: Duration,
        fate: Fate,
        step: &str,
        code: &'static str,
        last: String,
        reason: &str,
    ) -> Option<Line> {
        let mut kinds = self.kinds.lock();
        let untold = kinds.entry((step.to_owned(), fate, code)).or_default();
        untold.records += 1;
        untold.last = last;
        reason.clone_into(&mut untold.reason);
        untold.line(now, step, fate, code)
    }

    fn due(&self, now: Duration) -> Vec<Line> {
        let mut kinds = self.kinds.lock();
        kinds.iter_mut().filter_map(|((step, fate, code), untold)| untold.line(now, step, *fate, code)).collect()
    }
}

impl Untold {
    fn line(&mut self, now: Duration, step: &str, fate: Fate, code: &'static str) -> Option<Line> {
        let is_early = self.told_at.is_some_and(|told| now.saturating_sub(told) < TELL_EVERY);
        if self.records == 0 || is_early {
            return None;
        }
        self.told_at = Some(now);
        Some(Line {
            fate,
            step: step.to_owned(),
            code,
            records: std::mem::take(&mut self.records),
            last: std::mem::take(&mut self.last),
            reason: std::mem::take(&mut self.reason),
        })
    }
}

impl Line {
    fn write(&self) {
        let Self { fate, step, code, records, last, reason } = self;
        match fate {
            Fate::DeadLettered => tracing::warn!(step, code, records, last, reason, "records dead-lettered"),
            Fate::Skipped => tracing::warn!(step, code, records, last, reason, "records skipped"),
            Fate::DroppedLate => tracing::warn!(step, code, records, last, reason, "late records dropped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Fate, Line, Losses, TELL_EVERY};

    fn bad(losses: &Losses, millis: u64, step: &str, offset: u64) -> Option<Line> {
        let now = Duration::from_millis(millis);
        losses.take(now, Fate::DeadLettered, step, "undecodable", format!("orders-0 at offset {offset}"), "no JSON")
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_together_after_a_while() {
        let losses = Losses::default();
        let first = bad(&losses, 0, "orders", 1).unwrap();
        assert_eq!((first.records, first.last.as_str()), (1, "orders-0 at offset 1"));
        assert_eq!(bad(&losses, 1, "orders", 2), None);
        assert_eq!(bad(&losses, 9_999, "orders", 3), None);
        let line = bad(&losses, 10_000, "orders", 4).unwrap();
        let expected = Line {
            fate: Fate::DeadLettered,
            step: "orders".to_owned(),
            code: "undecodable",
            records: 3,
            last: "orders-0 at offset 4".to_owned(),
            reason: "no JSON".to_owned(),
        };
        assert_eq!(line, expected);
        assert_eq!(bad(&losses, 19_999, "orders", 5), None);
    }

    #[test]
    fn what_came_last_is_told_though_nothing_follows_and_only_once() {
        let losses = Losses::default();
        bad(&losses, 0, "orders", 1).unwrap();
        assert_eq!(bad(&losses, 1, "orders", 2), None);
        assert!(losses.due(Duration::from_secs(9)).is_empty());
        let due = losses.due(TELL_EVERY);
        assert_eq!((due.len(), due[0].records), (1, 1));
        assert!(losses.due(3 * TELL_EVERY).is_empty());
    }

    #[test]
    fn each_step_fate_and_reason_has_lines_of_its_own() {
        let losses = Losses::default();
        assert!(bad(&losses, 0, "orders", 1).is_some());
        assert!(bad(&losses, 0, "payments", 1).is_some());
        let late = losses.take(Duration::ZERO, Fate::DroppedLate, "orders", "late", String::new(), "");
        assert!(late.is_some());
        let skipped = losses.take(Duration::ZERO, Fate::Skipped, "orders", "undecodable", String::new(), "");
        assert!(skipped.is_some());
    }
}
