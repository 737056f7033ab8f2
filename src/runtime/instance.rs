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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, unbounded};
use parking_lot::{Condvar, Mutex};

use crate::clock::SharedClock;
use crate::log::{self, Leave, Next, ProducerSettings, SharedLog};
use crate::runtime::coordinator::{Context, Coordinator, Fatal};
use crate::runtime::crew::{Crew, InlineCrew, ThreadCrew, panic_text};
use crate::runtime::group_map::{client_id, group_instance_id};
use crate::runtime::observer::{Finding, Observer};
use crate::runtime::ownership::Ownership;
use crate::runtime::restorer::{Restorer, RestorerSettings};
use crate::runtime::topics::{Prepared, TopicSettings, prepare};
use crate::runtime::view::{Condition, Identity, Phase, View};
use crate::runtime::worker::{Worker, WorkerSettings};
use crate::store::SharedBackend;
use crate::store::budget::MemoryBudget;
use crate::store::directory::StateDirectory;
use crate::task::Facts;
use crate::task::restore::Tools;
use crate::topology::Plan;
use crate::topology::plan::Guarantee;

/// Between two tries of a step of the start: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long the coordinator's thread waits for the group.
const GROUP_WAIT: Duration = Duration::from_millis(20);
/// How long threads may take to end, once they have nothing left to do.
const THREADS_END_WITHIN: Duration = Duration::from_secs(3);
/// Threads that restore.
const RESTORERS: usize = 2;
/// How often a thread that waits looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(50);

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

// ---- start ---------------------------------------------------------------------------------------------------------

/// The steps of the start, one attempt per turn.
#[derive(Debug)]
struct Start {
    settings: InstanceSettings,
    not_before: Duration,
    back_off: Duration,
    facts: Option<Arc<Facts>>,
    /// Worker numbers whose producers still have to be initialised, and the workers made so far.
    unfenced: Option<Vec<u32>>,
    workers: Vec<Worker>,
    ownership: Arc<Ownership>,
}

/// What the start has led to.
struct Started {
    facts: Arc<Facts>,
    ownership: Arc<Ownership>,
    workers: Vec<Worker>,
}

impl Start {
    fn new(settings: InstanceSettings) -> Self {
        let identity = Identity { instance_id: settings.instance_id.clone(), endpoint: settings.endpoint.clone() };
        settings.view.set_identity(identity);
        settings.view.set_backend(Arc::clone(&settings.backend));
        let ownership = Ownership::new(settings.endpoint.clone());
        Self {
            settings,
            not_before: Duration::ZERO,
            back_off: BACK_OFF.0,
            facts: None,
            unfenced: None,
            workers: Vec::new(),
            ownership,
        }
    }

    /// Begins anew, with what may have changed in the log.
    fn again(&mut self) {
        self.facts = None;
        self.unfenced = None;
        self.workers.clear();
        self.ownership = Ownership::new(self.settings.endpoint.clone());
        self.not_before = Duration::ZERO;
    }

    /// When the next attempt is due.
    fn due(&self) -> Duration {
        self.not_before
    }

    fn turn(&mut self) -> Result<Option<Started>, Fatal> {
        let now = self.settings.clock.monotonic();
        if now < self.not_before {
            return Ok(None);
        }
        let started = self.attempt()?;
        if started.is_some() {
            self.back_off = BACK_OFF.0;
            self.settings.view.clear_all(Condition::KafkaUnreachable);
        } else {
            self.not_before = now + self.back_off;
            self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        }
        Ok(started)
    }

    fn attempt(&mut self) -> Result<Option<Started>, Fatal> {
        let facts = match &self.facts {
            Some(facts) => Arc::clone(facts),
            None => match self.prepare_topics()? {
                Some(facts) => Arc::clone(self.facts.insert(facts)),
                None => return Ok(None),
            },
        };
        if !self.make_workers(&facts)? {
            return Ok(None);
        }
        self.settings.view.set_facts(Arc::clone(&facts));
        Ok(Some(Started { facts, ownership: Arc::clone(&self.ownership), workers: std::mem::take(&mut self.workers) }))
    }

    /// Steps 1 and 2.
    fn prepare_topics(&mut self) -> Result<Option<Arc<Facts>>, Fatal> {
        let settings = &mut self.settings;
        if let Some(directory) = &mut settings.directory {
            let cluster_id = match settings.log.cluster_id() {
                Ok(cluster_id) => cluster_id,
                Err(error) => return self.wait_for(&error).map(|()| None),
            };
            directory.bind_cluster(&cluster_id).map_err(|error| stored_elsewhere(&error))?;
        }
        match prepare(&*settings.log, &settings.plan, settings.topics) {
            Ok(Prepared::Ready(facts)) => {
                let view = &settings.view;
                view.clear_all(Condition::KafkaUnreachable);
                view.clear_all(Condition::TopicMissing);
                view.clear_all(Condition::TopicUnfit);
                Ok(Some(Arc::from(facts)))
            }
            Ok(Prepared::Waiting(obstacles)) => {
                let view = &settings.view;
                view.clear_all(Condition::KafkaUnreachable);
                view.retain(Condition::TopicMissing, |subject| {
                    obstacles.iter().any(|obstacle| obstacle.is_missing() && obstacle.subject() == subject)
                });
                view.retain(Condition::TopicUnfit, |subject| {
                    obstacles.iter().any(|obstacle| !obstacle.is_missing() && obstacle.subject() == subject)
                });
                for obstacle in obstacles {
                    let missing = obstacle.is_missing();
                    let condition = if missing { Condition::TopicMissing } else { Condition::TopicUnfit };
                    view.raise(condition, &obstacle.subject(), &obstacle.to_string());
                }
                Ok(None)
            }
            Err(error) => self.wait_for(&error).map(|()| None),
        }
    }

    /// Step 3. Goes on where it was cut off.
    fn make_workers(&mut self, facts: &Arc<Facts>) -> Result<bool, Fatal> {
        let count = self.settings.workers.max(1);
        if self.unfenced.is_none() {
            let all = match &mut self.settings.directory {
                Some(directory) => directory
                    .use_workers(u32::try_from(count).unwrap_or(u32::MAX))
                    .map_err(|error| stored_elsewhere(&error))?,
                None => (0..u32::try_from(count).unwrap_or(u32::MAX)).collect(),
            };
            // Those that have no worker any more only need their transactions ended.
            self.unfenced = Some(all.into_iter().filter(|number| *number as usize >= count).collect());
        }
        while let Some(number) = self.unfenced.as_ref().and_then(|numbers| numbers.first().copied()) {
            if let Err(error) = self.end_transactions_of(number) {
                self.wait_for(&error)?;
                return Ok(false);
            }
            if let Some(numbers) = &mut self.unfenced {
                numbers.remove(0);
            }
        }
        while self.workers.len() < count {
            match Worker::new(self.worker_settings(self.workers.len(), facts)) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    self.wait_for(&error)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn end_transactions_of(&self, number: u32) -> Result<(), log::Error> {
        let Some(transactional_id) = self.transactional_id(number as usize) else { return Ok(()) };
        let settings = ProducerSettings {
            name: transactional_id.clone(),
            transactional_id: Some(transactional_id),
            max_message_bytes: crate::limits::DEFAULT_MAX_MESSAGE_BYTES,
            queue_bytes: 1 << 20,
        };
        self.settings.log.producer(&settings)?.init()
    }

    /// Rule 2a.
    fn transactional_id(&self, worker: usize) -> Option<String> {
        match self.settings.plan.guarantee {
            Guarantee::ExactlyOnce => {
                Some(format!("{}-{}-{worker}", self.settings.plan.name, self.settings.instance_id))
            }
            Guarantee::AtLeastOnce => None,
        }
    }

    fn worker_settings(&self, index: usize, facts: &Arc<Facts>) -> WorkerSettings {
        let settings = &self.settings;
        WorkerSettings {
            index,
            transactional_id: self.transactional_id(index),
            log: Arc::clone(&settings.log),
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            backend: Arc::clone(&settings.backend),
            clock: Arc::clone(&settings.clock),
            ownership: Arc::clone(&self.ownership),
            commit_interval: settings.commit_interval,
            sync_max_wait: settings.sync_max_wait,
            budget: settings.budget,
            view: Arc::clone(&settings.view),
        }
    }

    /// Says why the start waits. An error that waiting cannot repair ends it.
    fn wait_for(&self, error: &log::Error) -> Result<(), Fatal> {
        match error.next() {
            Next::Stop => Err(Fatal { message: error.to_string(), abruptly: false }),
            Next::Retry
            | Next::Wait
            | Next::Rejoin
            | Next::RecreateProducer
            | Next::Fenced
            | Next::Reposition
            | Next::Poison => {
                self.settings.view.raise(Condition::KafkaUnreachable, "", &error.to_string());
                Ok(())
            }
        }
    }

    fn tools(&self, facts: &Arc<Facts>) -> Tools {
        let settings = &self.settings;
        Tools {
            log: Arc::clone(&settings.log),
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            backend: Arc::clone(&settings.backend),
            clock: Arc::clone(&settings.clock),
            counters: Arc::clone(&settings.view.counters),
        }
    }

    fn restorer(&self, number: usize, facts: &Arc<Facts>) -> Restorer {
        let settings = &self.settings;
        Restorer::new(RestorerSettings {
            name: format!("{}-restore-{number}", settings.instance_id),
            tools: self.tools(facts),
            view: Arc::clone(&settings.view),
            cache_bytes: cache_bytes_per_task(settings, facts),
            sync_max_wait: settings.sync_max_wait,
        })
    }

    fn coordinator(&self, facts: &Arc<Facts>, ownership: &Arc<Ownership>, crew: Crew) -> Coordinator {
        let settings = &self.settings;
        let group_instance_id = match settings.membership {
            Lifetime::Dynamic => None,
            Lifetime::Static => Some(group_instance_id(&settings.instance_id, &facts.map_hash, &settings.endpoint)),
        };
        let context = Context {
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            log: Arc::clone(&settings.log),
            clock: Arc::clone(&settings.clock),
            view: Arc::clone(&settings.view),
            ownership: Arc::clone(ownership),
            client_id: client_id(&settings.instance_id, &facts.map_hash),
            group_instance_id,
            seed: xxhash_rust::xxh3::xxh3_64(settings.instance_id.as_bytes()),
        };
        Coordinator::new(context, crew)
    }

    fn observer(&self, facts: &Arc<Facts>) -> Observer {
        let settings = &self.settings;
        Observer::new(
            Arc::clone(&settings.log),
            Arc::clone(&settings.plan),
            Arc::clone(facts),
            Arc::clone(&settings.clock),
            Arc::clone(&settings.view),
        )
    }
}

/// The row caches of all workers, shared out over the tasks that one instance may come to own.
fn cache_bytes_per_task(settings: &InstanceSettings, facts: &Facts) -> usize {
    let stateful = settings.plan.sub_topologies.iter().filter(|sub| !sub.stores.is_empty());
    let tasks: u64 = stateful.map(|sub| u64::from(facts.tasks(sub.id))).sum();
    let total = settings.budget.row_cache_per_worker * settings.workers.max(1) as u64;
    usize::try_from(total / tasks.max(1)).unwrap_or(usize::MAX)
}

fn stored_elsewhere(error: &crate::store::Error) -> Fatal {
    let help = error.help().map(|help| format!("; {help}")).unwrap_or_default();
    Fatal { message: format!("{error}{help}"), abruptly: false }
}

// ---- on the caller's thread ----------------------------------------------------------------------------------------

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
        if let Some(Finding::SourcesChanged(topics)) = observer.turn() {
            round.restart |= coordinator.sources_changed(&topics).restart;
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

// ---- on threads ----------------------------------------------------------------------------------------------------

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
    let outcome = wait_for_the_end(&ended, shutdown, &clock, timeout);
    view.set_phase(Phase::Stopped);
    outcome
}

fn wait_for_the_end(
    ended: &Receiver<Result<(), Fatal>>,
    shutdown: &Shutdown,
    clock: &SharedClock,
    timeout: Duration,
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
                tracing::warn!(?timeout, "not everything was closed in time");
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
            tracing::info!("source topics have changed: beginning anew with another ownership map");
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
        let lived = self.turn_until_the_end(&mut coordinator, &watch);
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

    fn turn_until_the_end(&self, coordinator: &mut Coordinator, watch: &Watch) -> Result<End, Fatal> {
        loop {
            if self.shutdown.is_requested() {
                return Ok(End::Shutdown);
            }
            let round = coordinator.turn(GROUP_WAIT)?;
            let mut restart = round.restart;
            for Finding::SourcesChanged(topics) in watch.findings.try_iter() {
                restart |= coordinator.sources_changed(&topics).restart;
            }
            if restart {
                return Ok(End::Restart);
            }
            // Outside of the group a turn does not wait by itself.
            if !round.busy && !coordinator.is_member() {
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
