//! How restorers give way to workers that wait for a processor (EXACTLY-ONCE rule 5).
//!
//! What it is: a restorer's share of a processor. Its niceness is not enough where processors are scarce: a thread of low
//! priority that runs is left running for some milliseconds when others wake up, and a restorer is ready to run all the
//! time.
//! What it is not: it does not measure the machine. Where processors are idle no worker waits, and nobody pauses; where
//! the kernel does not tell (it is not Linux), neither.
//!
//! The steps
//! 1. Ten times a second a restorer looks how long workers have waited for a processor (`schedstat`).
//! 2. Where one that is at work has waited for longer than it may, the share shrinks; otherwise it grows. One that only
//!    looks for work waits, too, whenever a restorer runs, and loses nothing by it.
//! 3. After each turn the restorer pauses for as long as it takes to be within its share.
//!
//! Invariant: the share does not fall below a least one. A restoration always goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::SharedClock;

/// Between two looks at the workers.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// The part of its time that a worker may wait for a processor.
const TOLERATED: f64 = 0.05;
/// A worker that runs for a smaller part of its time has hardly any work.
const AT_WORK: f64 = 0.1;
const SHRINK: f64 = 0.25;
const GROW: f64 = 1.5;
/// What all restorers together may take, at the least, of all processors.
const LEAST_OF_ALL: f64 = 1.0 / 16.0;
/// The longest pause at a time: who has nothing to read does not wait for longer than this.
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The threads that others give way to.
#[derive(Clone, Debug, Default)]
pub(super) struct Preferred(Arc<Mutex<Vec<PathBuf>>>);

impl Preferred {
    /// Called on the thread itself.
    pub(super) fn add_this_thread(&self) {
        if let Ok(thread) = std::fs::read_link("/proc/thread-self") {
            self.add(Path::new("/proc").join(thread).join("schedstat"));
        }
    }

    fn add(&self, path: PathBuf) {
        self.0.lock().push(path);
    }

    fn times(&self) -> Vec<Times> {
        self.0.lock().iter().map(|path| Times::read(path).unwrap_or_default()).collect()
    }
}

/// Of a thread since it began, in nanoseconds (`/proc/PID/task/TID/schedstat`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    ran: u64,
    waited: u64,
}

impl Times {
    fn read(path: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(path).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_whitespace().map(str::parse);
        Some(Self { ran: fields.next()?.ok()?, waited: fields.next()?.ok()? })
    }

    /// Whether a thread with these times at the end of a stretch, and others at its beginning, was kept from its work.
    fn was_kept_waiting(&self, before: &Self, elapsed: Duration) -> bool {
        let part = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() / elapsed.as_secs_f64();
        part(self.ran.saturating_sub(before.ran)) > AT_WORK
            && part(self.waited.saturating_sub(before.waited)) > TOLERATED
    }
}

/// Of one restorer.
#[derive(Debug)]
pub(super) struct Courtesy {
    preferred: Preferred,
    clock: SharedClock,
    own: PathBuf,
    least: f64,
    /// Of one processor.
    share: f64,
    ran: u64,
    /// At the last look.
    times: Vec<Times>,
    looked_at: Duration,
    /// Not paused for yet.
    owed: Duration,
}

impl Courtesy {
    /// For the thread that calls it, one of so many restorers.
    pub(super) fn new(preferred: Preferred, clock: SharedClock, restorers: usize) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let least = (processors as f64 * LEAST_OF_ALL / restorers.max(1) as f64).min(1.0);
        Self::with(preferred, clock, PathBuf::from("/proc/thread-self/schedstat"), least)
    }

    fn with(preferred: Preferred, clock: SharedClock, own: PathBuf, least: f64) -> Self {
        let ran = Times::read(&own).map_or(0, |times| times.ran);
        let (times, looked_at) = (preferred.times(), clock.monotonic());
        Self { preferred, clock, own, least, share: 1.0, ran, times, looked_at, owed: Duration::ZERO }
    }

    /// How long to pause now, after a turn.
    pub(super) fn pause(&mut self) -> Duration {
        let now = self.clock.monotonic();
        let elapsed = now.saturating_sub(self.looked_at);
        if elapsed >= LOOK_INTERVAL {
            self.looked_at = now;
            self.look(elapsed);
        }
        let Some(times) = Times::read(&self.own) else { return Duration::ZERO };
        let ran = times.ran.saturating_sub(self.ran);
        self.ran = times.ran;
        if self.share >= 1.0 {
            self.owed = Duration::ZERO;
            return Duration::ZERO;
        }
        self.owed += Duration::from_nanos(ran).mul_f64((1.0 - self.share) / self.share);
        let pause = self.owed.min(LONGEST_PAUSE);
        self.owed -= pause;
        pause
    }

    fn look(&mut self, elapsed: Duration) {
        let times = self.preferred.times();
        let waits = times.iter().zip(&self.times).any(|(now, before)| now.was_kept_waiting(before, elapsed));
        self.share = if waits { (self.share * SHRINK).max(self.least) } else { (self.share * GROW).min(1.0) };
        self.times = times;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::write;

    use tempfile::{TempDir, tempdir};

    use super::*;
    use crate::clock::ManualClock;

    const LEAST: f64 = 0.1;

    struct Scene {
        directory: TempDir,
        clock: Arc<ManualClock>,
        courtesy: Courtesy,
        ran: u64,
        worker: Times,
    }

    impl Scene {
        fn new() -> Self {
            let directory = tempdir().unwrap();
            let (own, worker) = (directory.path().join("own"), directory.path().join("worker"));
            write(&own, "0 0 0\n").unwrap();
            write(&worker, "0 0 0\n").unwrap();
            let preferred = Preferred::default();
            preferred.add(worker);
            let clock = ManualClock::at(0);
            let courtesy = Courtesy::with(preferred, clock.clone(), own, LEAST);
            Self { directory, clock, courtesy, ran: 0, worker: Times::default() }
        }

        /// A turn of ten milliseconds, and the time to the next look, of which the worker runs and waits so many.
        fn turn(&mut self, ran_ms: u64, waited_ms: u64) -> Duration {
            self.ran += 10_000_000;
            self.worker.ran += ran_ms * 1_000_000;
            self.worker.waited += waited_ms * 1_000_000;
            write(self.directory.path().join("own"), format!("{} 0 1\n", self.ran)).unwrap();
            write(self.directory.path().join("worker"), format!("{} {} 1\n", self.worker.ran, self.worker.waited))
                .unwrap();
            self.clock.advance(LOOK_INTERVAL);
            self.courtesy.pause()
        }
    }

    #[test]
    fn a_restorer_keeps_to_its_least_share_while_a_worker_waits_and_gets_all_back_afterwards() {
        let mut scene = Scene::new();
        assert_eq!(scene.turn(90, 0), Duration::ZERO);
        assert_eq!(scene.turn(90, 4), Duration::ZERO, "as long as it may");
        let pauses: Vec<Duration> = (0..5).map(|_| scene.turn(70, 20)).collect();
        assert_eq!(pauses[0], Duration::from_millis(30), "a quarter");
        assert_eq!(pauses[4], Duration::from_millis(90), "a tenth, and no less");
        let until_free = (0..20).take_while(|_| scene.turn(90, 0) > Duration::ZERO).count();
        assert!(until_free < 10, "{until_free}");
    }

    #[test]
    fn a_worker_without_work_keeps_nobody_from_restoring() {
        let mut scene = Scene::new();
        assert!((0..5).all(|_| scene.turn(2, 30).is_zero()));
    }

    #[test]
    fn a_long_turn_is_paid_for_in_parts() {
        let mut scene = Scene::new();
        for _ in 0..4 {
            scene.turn(50, 50);
        }
        scene.ran += 90_000_000;
        assert_eq!(scene.turn(50, 50), LONGEST_PAUSE, "900 ms are owed for 100");
        let next = scene.turn(50, 50);
        assert_eq!(next, LONGEST_PAUSE);
    }

    #[test]
    fn nobody_pauses_where_the_kernel_does_not_tell() {
        let preferred = Preferred::default();
        preferred.add(PathBuf::from("/nowhere/worker"));
        let clock = ManualClock::at(0);
        let mut courtesy = Courtesy::with(preferred, clock.clone(), PathBuf::from("/nowhere/own"), LEAST);
        for _ in 0..3 {
            clock.advance(LOOK_INTERVAL);
            assert_eq!(courtesy.pause(), Duration::ZERO);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_threads_times_are_read() {
        let preferred = Preferred::default();
        preferred.add_this_thread();
        let path = preferred.0.lock()[0].clone();
        // The kernel counts when a thread makes way for another, or at a tick.
        let counted = (0..1_000_000).any(|_| {
            std::thread::yield_now();
            Times::read(&path).unwrap().ran > 0
        });
        assert!(counted, "{}", path.display());
        assert_eq!(Times::parse("1 2 3\n"), Some(Times { ran: 1, waited: 2 }));
        assert_eq!(Times::parse("1 x"), None);
    }
}
