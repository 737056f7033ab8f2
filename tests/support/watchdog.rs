//! Fails a test whose application stands still: committed offsets that do not move while input waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sidestream::ids::{Offset, Partition, TopicName, TopicPartition};
use sidestream::log::{Log, OffsetQuery};

use super::case::pause;
use super::cluster::Kafka;

/// Longer than any fault that a test drives takes to be overcome: a session and a transaction time out (20 s), a client
/// that hangs is replaced (70 s; docs/operations.md).
const STANDS_STILL_AFTER: Duration = Duration::from_secs(100);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module. Looks from a thread of its own while it lives.
pub struct Watchdog {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ended: AtomicBool,
    /// Nobody is there to process anything.
    resting: AtomicBool,
    alarm: Mutex<Option<String>>,
}

impl Watchdog {
    pub fn start(kafka: &Kafka, group: &str, topic: &str, partitions: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let inputs = (0..partitions).map(|number| TopicPartition::new(TopicName::new(topic), Partition(number)));
        let watch = Watch {
            log: Arc::clone(&kafka.log) as Arc<dyn Log>,
            group: group.to_owned(),
            inputs: inputs.collect(),
            shared: Arc::clone(&shared),
        };
        std::thread::spawn(move || watch.run());
        Self { shared }
    }

    /// # Panics
    /// When the application has stood still.
    #[track_caller]
    pub fn check(&self) {
        if let Some(alarm) = &*self.shared.alarm.lock().unwrap() {
            panic!("{alarm}");
        }
    }

    /// Nothing is expected to move, until it is told otherwise.
    pub fn rest(&self, resting: bool) {
        self.shared.resting.store(resting, Ordering::SeqCst);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
    }
}

struct Watch {
    log: Arc<dyn Log>,
    group: String,
    inputs: Vec<TopicPartition>,
    shared: Arc<Shared>,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "a test's clock")]
    fn run(self) {
        let mut moved = vec![Instant::now(); self.inputs.len()];
        let mut before: Vec<Option<Offset>> = vec![None; self.inputs.len()];
        while !self.shared.ended.load(Ordering::SeqCst) {
            pause(LOOK_EVERY);
            let now = Instant::now();
            let Ok(ends) = self.log.offsets(OffsetQuery::End, &self.inputs) else {
                // Without Kafka nothing can move.
                moved.fill(now);
                continue;
            };
            // Offsets that an open transaction holds back have not moved.
            let committed = self.log.committed(&self.group, &self.inputs).ok();
            for (number, end) in ends.into_iter().enumerate() {
                let committed = match &committed {
                    Some(committed) => committed[number].as_ref().map(|committed| committed.offset),
                    None => before[number],
                };
                let waits = committed.unwrap_or(Offset::ZERO) < end;
                if committed != before[number] || !waits || self.shared.resting.load(Ordering::SeqCst) {
                    moved[number] = now;
                    before[number] = committed;
                }
                if now.duration_since(moved[number]) > STANDS_STILL_AFTER {
                    let alarm = format!(
                        "the committed offset of {} has stood still at {committed:?} for {STANDS_STILL_AFTER:?} while its \
                         end is {end:?}",
                        self.inputs[number]
                    );
                    eprintln!("{alarm}");
                    *self.shared.alarm.lock().unwrap() = Some(alarm);
                    return;
                }
            }
        }
    }
}
