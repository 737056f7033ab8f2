//! The wish to stop: from a signal, or from a command that has done what it was asked for.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::output::Failure;

/// Shared by everybody who has to end when it is asked for.
#[derive(Clone, Debug)]
pub struct Stop {
    /// Dropped when it is time to stop, which all receivers notice.
    going_on: Arc<Mutex<Option<Sender<()>>>>,
    stopped: Receiver<()>,
}

impl Stop {
    pub fn new() -> Self {
        let (going_on, stopped) = bounded(0);
        Self { going_on: Arc::new(Mutex::new(Some(going_on))), stopped }
    }

    /// Stops on SIGTERM or SIGINT in an orderly way; the second signal ends the process at once.
    pub fn on_signals() -> Result<Self, Failure> {
        let stop = Self::new();
        let mut signals = Signals::new([SIGTERM, SIGINT])
            .map_err(|error| Failure::new(format!("signals cannot be listened to: {error}")))?;
        let stopping = stop.clone();
        let listener = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for _signal in signals.forever() {
                if stopping.is_stopped() {
                    tracing::warn!("stopped at once; what was not committed will be read again");
                    std::process::exit(1);
                }
                tracing::warn!("stopping: what is under way is committed; a second signal ends the process at once");
                stopping.stop();
            }
        });
        listener.map_err(|error| Failure::new(format!("no thread can be started: {error}")))?;
        Ok(stop)
    }

    pub fn stop(&self) {
        drop(self.going_on.lock().take());
    }

    pub fn is_stopped(&self) -> bool {
        self.going_on.lock().is_none()
    }

    /// Waits that long or until it is time to stop; whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        matches!(self.stopped.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Stop;

    #[test]
    fn everybody_who_waits_notices_the_stop() {
        let stop = Stop::new();
        assert!(!stop.wait(Duration::ZERO));
        let waiting = stop.clone();
        let waiter = std::thread::spawn(move || waiting.wait(Duration::from_secs(60)));
        stop.stop();
        assert!(waiter.join().unwrap());
        assert!(stop.is_stopped() && stop.wait(Duration::ZERO));
    }
}
