//! How far the restorations of an instance have come, in words.

use std::fmt::Write;
use std::time::Duration;

use super::RestoreProgress;

/// `restoring` of `owned` tasks are not complete; those that have begun are `under_way`.
pub fn describe(restoring: usize, owned: usize, under_way: impl Iterator<Item = RestoreProgress>) -> String {
    let mut message = format!("{restoring} of {owned} tasks are being restored");
    let (mut begun, mut done, mut total) = (0, 0, 0);
    // They go on side by side: the last one counts.
    let mut remaining = Some(Duration::ZERO);
    for progress in under_way.filter(|progress| progress.total > 0) {
        begun += 1;
        done += progress.done.min(progress.total);
        total += progress.total;
        remaining = remaining.zip(progress.remaining).map(|(longest, this)| longest.max(this));
    }
    if total == 0 {
        return message;
    }
    let _infallible = write!(message, ": {begun} under way, {done} of {total} offsets ({} %)", done * 100 / total);
    if let Some(remaining) = remaining {
        let _infallible = write!(message, ", about {} s to go", remaining.as_secs_f64().ceil());
    }
    if restoring > begun {
        let _infallible = write!(message, "; {} wait for their turn", restoring - begun);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(done: u64, total: u64, remaining: Option<u64>) -> RestoreProgress {
        RestoreProgress { done, total, remaining: remaining.map(Duration::from_secs), ..RestoreProgress::default() }
    }

    #[test]
    fn what_is_under_way_is_summed_up_and_the_longest_says_how_long() {
        let under_way = [progress(10, 100, Some(9)), progress(50, 100, Some(1))];
        assert_eq!(
            describe(3, 8, under_way.into_iter()),
            "3 of 8 tasks are being restored: 2 under way, 60 of 200 offsets (30 %), about 9 s to go; 1 wait for their turn"
        );
    }

    #[test]
    fn what_is_not_known_yet_is_not_said() {
        let unknown = "2 of 2 tasks are being restored";
        assert_eq!(describe(2, 2, std::iter::empty()), unknown);
        assert_eq!(describe(2, 2, [progress(0, 0, None)].into_iter()), unknown);
        let begun = describe(1, 2, [progress(0, 100, None)].into_iter());
        assert_eq!(begun, "1 of 2 tasks are being restored: 1 under way, 0 of 100 offsets (0 %)");
    }
}
