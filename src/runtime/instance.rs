//! One instance of an application: its start, its run, its end.
//!
//! What it is: the order of things, in two drivers over the same parts. [`Instance`] is turned by its caller, on one thread
//! and with any clock (`test`, the fault simulation); [`run`] gives every worker and restorer a thread of its own.
//! What it is not: it reads no settings, handles no signals and serves no HTTP; `cli` does, and passes plain values.
//!
//! The start
//! 1. The log is reached, and the state directory found to belong to that cluster.
//! 2. The user's topics are there, Sidestream's own are made and checked (`runtime::topics`).
//! 3. Producers of all worker ids that this directory ever used are initialised, so that a killed predecessor's
//!    transactions are aborted before any offset is read (EXACTLY-ONCE rule 2b).
//! 4. The group is joined (`runtime::coordinator`).
//!
//! Each step is tried again, with back-off, for as long as Kafka or a topic is away; the view says what is waited for.
//!
//! Invariant: an instance ends only because it was told to, or with a [`Fatal`] that a user must act upon.

mod start;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::clock::SharedClock;
use crate::log::{Leave, SharedLog};
use crate::runtime::coordinator::{Coordinator, Fatal};
use crate::runtime::crew::{Crew, InlineCrew};
use crate::runtime::observer::Observer;
use crate::runtime::topics::TopicSettings;
use crate::runtime::view::{Phase, View};
use crate::runtime::worker::Worker;
use crate::store::SharedBackend;
use crate::store::budget::MemoryBudget;
use crate::store::directory::StateDirectory;
use crate::topology::Plan;

use start::Start;
pub use threads::{ExitReport, run};

/// What an instance is made from.
#[derive(Debug)]
pub struct InstanceSettings {
    pub plan: Arc<Plan>,
    pub log: SharedLog,
    pub backend: SharedBackend,
    /// `None` where nothing is kept on disk (`test`, `dev`).
    pub directory: Option<StateDirectory>,
    pub clock: SharedClock,
    pub view: Arc<View>,
    /// Names producers, and in a static membership the member.
    pub instance_id: String,
    pub membership: Lifetime,
    /// HOST:PORT of this instance's HTTP for its peers; empty where there is none.
    pub endpoint: String,
    pub workers: usize,
    pub budget: MemoryBudget,
    pub commit_interval: Duration,
    /// `None` is unlimited.
    pub sync_max_wait: Option<Duration>,
    pub topics: TopicSettings,
    pub on_stop: Leave,
    pub shutdown_timeout: Duration,
}

/// EXACTLY-ONCE rule 11a.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Dynamic,
    Static,
}

impl Lifetime {
    /// What stopping does where no setting says so.
    pub fn on_stop(self) -> Leave {
        match self {
            Self::Dynamic => Leave::Now,
            Self::Static => Leave::Stay,
        }
    }
}

/// Asks an instance to stop, from any thread. Clones are the same request. Not for use inside a signal handler.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<(Mutex<bool>, Condvar)>);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn request(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    pub fn is_requested(&self) -> bool {
        *self.0.0.lock()
    }

    /// Waits for the request, at most for that time. Whether it has come.
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut requested = self.0.0.lock();
        if !*requested {
            self.0.1.wait_for(&mut requested, at_most);
        }
        *requested
    }
}

/// An instance that does nothing but when it is turned.
#[derive(Debug)]
pub struct Instance {
    start: Start,
    running: Option<(Coordinator, Observer)>,
    stopped: bool,
}

impl Instance {
    pub fn new(settings: InstanceSettings) -> Self {
        Self { start: Start::new(settings), running: None, stopped: false }
    }

    pub fn view(&self) -> &Arc<View> {
        &self.start.settings.view
    }

    /// One round of everything, without waiting for anything. `true` while there is more to do at once.
    pub fn turn(&mut self) -> Result<bool, Fatal> {
        if self.stopped {
            return Ok(false);
        }
        let Some((coordinator, observer)) = &mut self.running else {
            let Some(started) = self.start.turn()? else { return Ok(false) };
            let restorer = self.start.restorer(0, &started.facts);
            let crew = Crew::Inline(Box::new(InlineCrew::new(started.workers, restorer)));
            let coordinator = self.start.coordinator(&started.facts, &started.ownership, crew);
            self.running = Some((coordinator, self.start.observer(&started.facts)));
            return Ok(true);
        };
        let mut round = coordinator.turn(Duration::ZERO)?;
        if let Some(finding) = observer.turn() {
            round.restart |= coordinator.topics_changed(&finding).restart;
        }
        if round.restart {
            coordinator.stop(Leave::Now);
            self.running = None;
            self.start.again();
        }
        Ok(round.busy)
    }

    /// The workers, for tests that look into them.
    pub fn workers(&mut self) -> &mut [Worker] {
        match &mut self.running {
            Some((coordinator, _)) => coordinator.inline_workers(),
            None => &mut [],
        }
    }

    /// Commits, closes, and leaves the group as `on_stop` says.
    pub fn stop(&mut self) {
        self.start.settings.view.set_phase(Phase::Stopping);
        if let Some((mut coordinator, _)) = self.running.take() {
            coordinator.stop(self.start.settings.on_stop);
        }
        self.stopped = true;
        self.start.settings.view.set_phase(Phase::Stopped);
    }
}
