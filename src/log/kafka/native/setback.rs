//! What to do when the host's clock is set back.
//!
//! librdkafka waits until a time of the wall clock (`rd_timeout_init_timespec` in its rdtime.h). Where the clock is set back
//! meanwhile, a wait lasts longer by as much: a group member sends no heartbeat, and a worker waits for records although it
//! has something to commit. Waits that begin later are as long as they should be, so it is enough to end those under way.
//!
//! What it is not: complete. A client that has nothing to do with a group, and no queue that is waited for, catches up with
//! its next request.

use std::sync::{Arc, Once, Weak};
use std::time::Duration;

use crossbeam_channel::tick;
use parking_lot::Mutex;

use crate::clock::SystemClock;

/// How often the two clocks are compared.
const INTERVAL: Duration = Duration::from_millis(500);
/// Clocks that are kept in step by small corrections differ by less.
const TOLERANCE: Duration = Duration::from_millis(250);

/// Something that waits in librdkafka.
pub trait Waits: Send + Sync {
    /// Ends the waits that are under way.
    fn wake(&self);
}

static WAITING: Mutex<Vec<Weak<dyn Waits>>> = Mutex::new(Vec::new());

/// From now on it is woken when the clock has been set back.
pub fn watch<W: Waits + 'static>(waits: &Arc<W>) {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Without the thread all is as well as the clock.
        let _not_watched = std::thread::Builder::new().name("clock".to_owned()).spawn(compare_clocks);
    });
    let mut waiting = WAITING.lock();
    waiting.retain(|waits| waits.strong_count() > 0);
    let waits: Weak<W> = Arc::downgrade(waits);
    waiting.push(waits);
}

fn compare_clocks() {
    let clock = SystemClock::shared();
    let ahead = || i128::from(clock.wall_micros()) - clock.monotonic().as_micros().cast_signed();
    let mut before = ahead();
    for _ in tick(INTERVAL) {
        let now = ahead();
        let set_back = Duration::from_micros(u64::try_from(before - now).unwrap_or(0));
        if set_back > TOLERANCE {
            tracing::warn!(seconds = set_back.as_secs_f64(), "the host's clock was set back");
            // Not under the lock: what is woken may be dropped here.
            let waiting: Vec<_> = WAITING.lock().iter().filter_map(Weak::upgrade).collect();
            for waits in waiting {
                waits.wake();
            }
        }
        before = now;
    }
}
