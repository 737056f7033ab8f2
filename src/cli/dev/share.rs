//! Who is shown: the lines per second that a person can follow, in equal shares, so that a rare topic is seen among busy
//! ones.

use std::time::Duration;

/// Lines per second over all topics; no topic has less than one.
pub const LINES_PER_SECOND: u32 = 12;

/// The share of one topic.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    per_second: u32,
    second: u64,
    shown: u32,
}

impl Share {
    /// Of one topic among so many.
    pub fn among(topics: usize) -> Self {
        let topics = u32::try_from(topics).unwrap_or(u32::MAX).max(1);
        Self { per_second: (LINES_PER_SECOND / topics).max(1), second: 0, shown: 0 }
    }

    /// Whether a record of the topic is shown at this moment.
    pub fn take(&mut self, now: Duration) -> bool {
        if self.second != now.as_secs() {
            (self.second, self.shown) = (now.as_secs(), 0);
        }
        let free = self.shown < self.per_second;
        self.shown += u32::from(free);
        free
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LINES_PER_SECOND, Share};

    #[test]
    fn a_rare_topic_is_shown_after_busy_ones_have_used_up_their_shares() {
        let mut topics = [Share::among(3); 3];
        let now = Duration::from_millis(5_100);
        let shown: Vec<usize> = (0..2).map(|busy| (0..1_000).filter(|_| topics[busy].take(now)).count()).collect();
        assert_eq!(shown, [4, 4]);
        assert!(topics[2].take(now));
    }

    #[test]
    fn every_second_has_the_same_number_of_lines() {
        let mut topic = Share::among(1);
        for second in 1..4 {
            let shown = (0..100).filter(|at| topic.take(Duration::from_millis(second * 1_000 + at * 9))).count();
            assert_eq!(shown, LINES_PER_SECOND as usize);
        }
    }

    #[test]
    fn more_topics_than_lines_have_a_line_each() {
        let mut topic = Share::among(100);
        assert_eq!([0, 10, 1_000].map(|at| topic.take(Duration::from_millis(at))), [true, false, true]);
    }
}
