//! An instance on threads: the group's, one per worker and restorer, the observer's.
//!
//! Invariant: nothing that hangs or panics on one of them keeps the process from ending in time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};

use super::start::{Start, Started};
use super::{InstanceSettings, Shutdown};
use crate::clock::SharedClock;
use crate::log::Leave;
use crate::runtime::coordinator::{Coordinator, Fatal};
use crate::runtime::crew::{Crew, ThreadCrew, panic_text};
use crate::runtime::observer::{Finding, Observer};
use crate::runtime::view::{Phase, View};

/// How long the coordinator's thread waits for the group: workers and restorers are heard in between. It is the longer
/// one when nothing has happened for a while.
const GROUP_WAIT: Duration = Duration::from_millis(20);
const GROUP_WAIT_AT_REST: Duration = Duration::from_millis(100);
const AT_REST_AFTER: Duration = Duration::from_secs(2);
/// How long threads may take to end, once they have nothing left to do.
const THREADS_END_WITHIN: Duration = Duration::from_secs(3);
/// Threads that restore.
const RESTORERS: usize = 2;
/// How often it is looked whether the state directory is still there.
const DIRECTORY_CHECK: Duration = Duration::from_secs(2);
/// How often a thread that waits looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReport {
    /// From the request to the end.
    pub took: Duration,
    /// Whether everything was committed and closed within `shutdown_timeout`. If not, what was open is aborted by Kafka and
    /// read again by whoever comes next.
    pub in_time: bool,
}

/// Runs an instance until `shutdown` is requested. Blocks.
///
/// The group's thread is another one, so that nothing that hangs there keeps the process from ending.
///
/// # Errors
/// What a user must act upon: state without its offsets, a foreign state directory, `on_error: fail`, a panic.
pub fn run(settings: InstanceSettings, shutdown: &Shutdown) -> Result<ExitReport, Fatal> {
    let clock = Arc::clone(&settings.clock);
    let view = Arc::clone(&settings.view);
    let timeout = settings.shutdown_timeout;
    let (sender, ended) = bounded(1);
    let life = Life { shutdown: shutdown.clone() };
    let spawned = std::thread::Builder::new().name("group".to_string()).spawn(move || {
        let lived = catch_unwind(AssertUnwindSafe(|| life.run(settings)));
        let outcome = lived.unwrap_or_else(|panic| {
            let message = format!("the group's thread has panicked: {}", panic_text(&*panic));
            Err(Fatal { message, abruptly: true })
        });
        let _nobody_waits = sender.send(outcome);
    });
    if let Err(error) = spawned {
        return Err(no_thread(&error));
    }
    let outcome = wait_for_the_end(&ended, shutdown, &clock, timeout, &view);
    view.set_phase(Phase::Stopped);
    outcome
}

fn wait_for_the_end(
    ended: &Receiver<Result<(), Fatal>>,
    shutdown: &Shutdown,
    clock: &SharedClock,
    timeout: Duration,
    view: &View,
) -> Result<ExitReport, Fatal> {
    let mut requested_at = None;
    loop {
        match ended.recv_timeout(STOP_CHECK) {
            Ok(outcome) => {
                outcome?;
                let now = clock.monotonic();
                let took = now.saturating_sub(requested_at.unwrap_or(now));
                return Ok(ExitReport { took, in_time: true });
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Fatal { message: "the group's thread has gone".to_string(), abruptly: true });
            }
        }
        if shutdown.is_requested() {
            let now = clock.monotonic();
            let took = now.saturating_sub(*requested_at.get_or_insert(now));
            if took >= timeout {
                let tasks: Vec<String> = view.tasks().iter().map(|task| task.id.to_string()).collect();
                tracing::warn!(
                    ?timeout,
                    tasks = tasks.join(" "),
                    reason = view.trouble(),
                    "not everything was closed in time: these tasks are given up as they are; what they had not committed \
                     is aborted by Kafka and processed again by whoever owns it next"
                );
                return Ok(ExitReport { took, in_time: false });
            }
        }
    }
}

fn no_thread(error: &std::io::Error) -> Fatal {
    Fatal { message: format!("a thread could not be started: {error}"), abruptly: true }
}

/// From the first start to the end; several starts where topics change.
struct Life {
    shutdown: Shutdown,
}

/// Why one life between start and stop is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Shutdown,
    Restart,
}

impl Life {
    fn run(&self, settings: InstanceSettings) -> Result<(), Fatal> {
        let mut start = Start::new(settings);
        loop {
            let Some(started) = self.start(&mut start)? else { break };
            if self.live(&start, started)? == End::Shutdown {
                break;
            }
            tracing::info!("topics have changed: beginning anew with them as they are now");
            start.again();
        }
        if let Err(error) = start.settings.backend.flush() {
            tracing::warn!(reason = %error, "the state was not flushed; what is missing comes from the changelogs");
        }
        Ok(())
    }

    /// `None` when asked to stop meanwhile.
    fn start(&self, start: &mut Start) -> Result<Option<Started>, Fatal> {
        loop {
            if let Some(started) = start.turn()? {
                return Ok(Some(started));
            }
            let now = start.settings.clock.monotonic();
            if self.shutdown.wait(start.due().saturating_sub(now)) {
                start.settings.view.set_phase(Phase::Stopping);
                return Ok(None);
            }
        }
    }

    fn live(&self, start: &Start, started: Started) -> Result<End, Fatal> {
        let settings = &start.settings;
        let Started { facts, ownership, workers } = started;
        let restorers = (0..RESTORERS).map(|number| start.restorer(number, &facts)).collect();
        let crew = ThreadCrew::start(workers, restorers, Arc::clone(&settings.clock)).map_err(|e| no_thread(&e))?;
        let mut coordinator = start.coordinator(&facts, &ownership, Crew::Threads(crew));
        let watch = Watch::start(start.observer(&facts), &settings.clock)?;
        let lived = self.turn_until_the_end(start, &mut coordinator, &watch);
        watch.stop();
        match lived {
            Ok(end) => {
                if end == End::Shutdown {
                    settings.view.set_phase(Phase::Stopping);
                }
                coordinator.stop(if end == End::Shutdown { settings.on_stop } else { Leave::Now });
                coordinator.stop_crew(THREADS_END_WITHIN);
                Ok(end)
            }
            Err(fatal) => {
                settings.view.set_phase(Phase::Stopping);
                if !fatal.abruptly {
                    coordinator.stop(settings.on_stop);
                    coordinator.stop_crew(THREADS_END_WITHIN);
                }
                Err(fatal)
            }
        }
    }

    fn turn_until_the_end(&self, start: &Start, coordinator: &mut Coordinator, watch: &Watch) -> Result<End, Fatal> {
        let clock = &start.settings.clock;
        let mut last_active = clock.monotonic();
        let mut looked_at = last_active;
        loop {
            if self.shutdown.is_requested() {
                return Ok(End::Shutdown);
            }
            let now = clock.monotonic();
            if now.saturating_sub(looked_at) >= DIRECTORY_CHECK {
                looked_at = now;
                start.check_directory()?;
            }
            let at_rest = now.saturating_sub(last_active) >= AT_REST_AFTER;
            let round = coordinator.turn(if at_rest { GROUP_WAIT_AT_REST } else { GROUP_WAIT })?;
            if round.busy {
                last_active = now;
            }
            let mut restart = round.restart;
            for finding in watch.findings.try_iter() {
                restart |= coordinator.topics_changed(&finding).restart;
            }
            if restart {
                return Ok(End::Restart);
            }
            if !round.busy && !round.waited {
                self.shutdown.wait(GROUP_WAIT);
            }
        }
    }
}

/// The observer on its thread.
struct Watch {
    findings: Receiver<Finding>,
    stop: Shutdown,
}

impl Watch {
    fn start(mut observer: Observer, clock: &SharedClock) -> Result<Self, Fatal> {
        let stop = Shutdown::new();
        let (sender, findings) = unbounded();
        let (stopped, clock) = (stop.clone(), Arc::clone(clock));
        let watching = move || {
            loop {
                let due = observer.due().saturating_sub(clock.monotonic());
                if stopped.wait(due.max(STOP_CHECK)) {
                    return;
                }
                if let Some(finding) = observer.turn() {
                    let _nobody_listens = sender.send(finding);
                }
            }
        };
        let spawned = std::thread::Builder::new().name("observer".to_string()).spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(watching)) {
                // Nothing rests on it but what is shown.
                tracing::error!(reason = panic_text(&*panic), "the observer has panicked");
            }
        });
        spawned.map(|_| Self { findings, stop }).map_err(|error| no_thread(&error))
    }

    fn stop(&self) {
        self.stop.request();
    }
}
