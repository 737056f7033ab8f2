//! The workers and restorers as the coordinator sees them: inline, turned by the same thread, or on threads of their own.
//!
//! What it is: commands down, reports up, and one blocking call, [`Crew::close`], that returns when the tasks in question
//! are closed. The two variants behave the same; only who turns them differs.
//! What it is not: it decides nothing.
//!
//! Invariants
//! - A thread that panics or ends unasked is reported once; nobody waits for it afterwards.
//! - `close` of an inline worker is done when it returns, and so is that of a thread.

mod courtesy;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, bounded, unbounded};

use crate::clock::SharedClock;
use crate::ids::TaskId;
use crate::runtime::restorer::{Finished, Job, Restorer};
use crate::runtime::worker::step::{Step, StepCell};
use crate::runtime::worker::{Closing, Stop, Turn, Worker};
use crate::task::Task;
use courtesy::{Courtesy, Preferred};

/// How long a turn of a worker thread waits for records: commands are heard in between. It is the longer one when nothing
/// has happened for a while, so that a process at rest hardly wakes up.
const WORKER_WAIT: Duration = Duration::from_millis(5);
const WORKER_WAIT_AT_REST: Duration = Duration::from_millis(50);
/// When a worker thread is at rest.
const AT_REST_AFTER: Duration = Duration::from_secs(1);
/// How long a worker thread without tasks waits for a command.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// Of restorers, and of their clients' threads: beside a busy worker they get a tenth of its share of a core, and all of one
/// that is idle (`sched(7)`: each step is a factor of 1.25). What else they do for workers is in [`courtesy`].
#[cfg(target_os = "linux")]
const RESTORER_NICENESS: i32 = 10;
/// How long a restorer thread waits for records, or for a job that is put off. One without jobs waits for the next.
const RESTORER_WAIT: Duration = Duration::from_millis(50);

/// How often it is looked whether a thread has ended.
const JOIN_CHECK: Duration = Duration::from_millis(5);

/// What the crew has to say.
#[derive(Debug)]
pub enum Report {
    /// The worker has dropped these; their state is to be restored and they are to be opened anew.
    Reopen {
        worker: usize,
        tasks: Vec<TaskId>,
    },
    Parked {
        task: TaskId,
        reason: String,
    },
    Finished(Box<Finished>),
    /// `on_error: fail`, or a mistake in settings: the process has to end with this message.
    Stopped {
        message: String,
    },
    /// A thread is gone.
    Panicked {
        message: String,
    },
}

/// See the module.
#[derive(Debug)]
pub enum Crew {
    Inline(Box<InlineCrew>),
    Threads(ThreadCrew),
}

impl Crew {
    pub fn workers(&self) -> usize {
        match self {
            Self::Inline(crew) => crew.workers.len(),
            Self::Threads(crew) => crew.workers.len(),
        }
    }

    /// Gives a restored task to a worker.
    pub fn add(&mut self, worker: usize, task: Box<Task>) {
        match self {
            Self::Inline(crew) => crew.workers[worker].add(*task),
            Self::Threads(crew) => crew.workers[worker].send(Command::Add(task)),
        }
    }

    /// Closes tasks, by worker, and returns when all of that is done. A thread that is stuck is waited for: meanwhile
    /// nobody polls the group, and the group takes the partitions away.
    pub fn close(&mut self, tasks: &BTreeMap<usize, Vec<TaskId>>, how: Closing) {
        match self {
            Self::Inline(crew) => {
                for (worker, tasks) in tasks {
                    let turn = crew.workers[*worker].close(tasks, how);
                    crew.report(*worker, turn);
                }
            }
            Self::Threads(crew) => {
                let waiting: Vec<Receiver<()>> = tasks
                    .iter()
                    .map(|(worker, tasks)| {
                        let (done, closed) = bounded(1);
                        crew.workers[*worker].send(Command::Close { tasks: tasks.clone(), how, done });
                        closed
                    })
                    .collect();
                for closed in waiting {
                    // An error: the thread is gone, and its tasks with it. It reports itself.
                    let _gone = closed.recv();
                }
            }
        }
    }

    /// Queues a job; the same task always goes to the same restorer.
    pub fn restore(&mut self, job: Job) {
        match self {
            Self::Inline(crew) => crew.restorer.enqueue(job),
            Self::Threads(crew) => {
                let index = (job.task.partition.0 as usize) % crew.restorers.len();
                crew.restorers[index].send(job);
            }
        }
    }

    pub fn reports(&mut self) -> Vec<Report> {
        match self {
            Self::Inline(crew) => std::mem::take(&mut crew.reports),
            Self::Threads(crew) => crew.reports.try_iter().collect(),
        }
    }

    /// One round of an inline crew; threads turn themselves. Whether there was anything to do.
    pub fn turn(&mut self, wait: Duration) -> bool {
        match self {
            Self::Inline(crew) => crew.turn(wait),
            Self::Threads(_) => false,
        }
    }

    /// A worker thread that has not turned within that time, and what it is doing.
    pub fn stuck(&self, within: Duration) -> Option<(usize, Step)> {
        match self {
            Self::Inline(_) => None,
            Self::Threads(crew) => {
                let now = millis(crew.clock.monotonic());
                let turned = |worker: &WorkerThread| worker.last_turn.load(Ordering::Relaxed);
                let (index, worker) = crew.workers.iter().enumerate().min_by_key(|(_, worker)| turned(worker))?;
                (now.saturating_sub(turned(worker)) > millis(within)).then(|| (index, worker.step.get()))
            }
        }
    }

    /// Ends all threads that answer within the time given, and names the others. What they ran must have been closed before.
    pub fn stop(&mut self, timeout: Duration) -> Vec<String> {
        match self {
            Self::Inline(_) => Vec::new(),
            Self::Threads(crew) => crew.stop(timeout),
        }
    }
}

// ---- inline --------------------------------------------------------------------------------------------------------

/// All workers and one restorer, turned by the caller.
#[derive(Debug)]
pub struct InlineCrew {
    pub workers: Vec<Worker>,
    pub restorer: Restorer,
    reports: Vec<Report>,
}

impl InlineCrew {
    pub fn new(workers: Vec<Worker>, restorer: Restorer) -> Self {
        Self { workers, restorer, reports: Vec::new() }
    }

    fn turn(&mut self, wait: Duration) -> bool {
        let mut busy = false;
        for index in 0..self.workers.len() {
            let turned = self.workers[index].turn(wait);
            busy |= turned.as_ref().is_ok_and(|turn| turn.busy);
            match turned {
                Ok(turn) => self.report(index, turn),
                Err(Stop { message }) => self.reports.push(Report::Stopped { message }),
            }
        }
        busy |= !self.restorer.is_idle() && !self.restorer.is_waiting();
        if let Some(finished) = self.restorer.turn(wait) {
            self.reports.push(Report::Finished(Box::new(finished)));
        }
        busy
    }

    fn report(&mut self, worker: usize, turn: Turn) {
        self.reports.extend(reports_of(worker, turn));
    }
}

fn reports_of(worker: usize, turn: Turn) -> Vec<Report> {
    let mut reports: Vec<Report> =
        turn.parked.into_iter().map(|(task, reason)| Report::Parked { task, reason }).collect();
    if !turn.reopen.is_empty() {
        reports.push(Report::Reopen { worker, tasks: turn.reopen });
    }
    reports
}

// ---- threads -------------------------------------------------------------------------------------------------------

enum Command {
    Add(Box<Task>),
    Close { tasks: Vec<TaskId>, how: Closing, done: Sender<()> },
}

/// One OS thread per worker and per restorer.
#[derive(Debug)]
pub struct ThreadCrew {
    clock: SharedClock,
    workers: Vec<WorkerThread>,
    restorers: Vec<RestorerThread>,
    reports: Receiver<Report>,
    stopping: Arc<AtomicBool>,
}

#[derive(Debug)]
struct WorkerThread {
    commands: Sender<Command>,
    /// Milliseconds of the clock's monotonic time.
    last_turn: Arc<AtomicU64>,
    step: Arc<StepCell>,
    handle: Option<JoinHandle<()>>,
}

impl WorkerThread {
    fn send(&self, command: Command) {
        // An error: the thread is gone and has reported it.
        let _gone = self.commands.send(command);
    }
}

#[derive(Debug)]
struct RestorerThread {
    jobs: Sender<Job>,
    handle: Option<JoinHandle<()>>,
}

impl RestorerThread {
    fn send(&self, job: Job) {
        let _gone = self.jobs.send(job);
    }
}

impl ThreadCrew {
    /// Starts the threads. An error is the operating system's.
    pub fn start(workers: Vec<Worker>, restorers: Vec<Restorer>, clock: SharedClock) -> std::io::Result<Self> {
        debug_assert!(!restorers.is_empty(), "somebody restores");
        let (reporter, reports) = unbounded();
        let stopping = Arc::new(AtomicBool::new(false));
        let preferred = Preferred::default();
        let mut crew =
            Self { clock: Arc::clone(&clock), workers: Vec::new(), restorers: Vec::new(), reports, stopping };
        for (index, worker) in workers.into_iter().enumerate() {
            let (commands, inbox) = unbounded();
            let step = worker.step();
            let last_turn = Arc::new(AtomicU64::new(millis(clock.monotonic())));
            let thread = WorkerLoop {
                index,
                worker,
                tasks: 0,
                inbox,
                reporter: reporter.clone(),
                last_turn: Arc::clone(&last_turn),
                clock: Arc::clone(&clock),
                stopping: Arc::clone(&crew.stopping),
                preferred: preferred.clone(),
            };
            let handle = spawn(format!("worker-{index}"), reporter.clone(), move || thread.run())?;
            crew.workers.push(WorkerThread { commands, last_turn, step, handle: Some(handle) });
        }
        let count = restorers.len();
        for (index, restorer) in restorers.into_iter().enumerate() {
            let (jobs, inbox) = unbounded();
            let (reporter_of_loop, stopping) = (reporter.clone(), Arc::clone(&crew.stopping));
            let (preferred, clock) = (preferred.clone(), Arc::clone(&clock));
            let handle = spawn(format!("restorer-{index}"), reporter.clone(), move || {
                let courtesy = Courtesy::new(preferred, clock, count);
                run_restorer(restorer, courtesy, &inbox, &reporter_of_loop, &stopping);
            })?;
            crew.restorers.push(RestorerThread { jobs, handle: Some(handle) });
        }
        Ok(crew)
    }

    fn stop(&mut self, timeout: Duration) -> Vec<String> {
        self.stopping.store(true, Ordering::SeqCst);
        let workers = self.workers.iter_mut().filter_map(|worker| worker.handle.take());
        for restorer in &mut self.restorers {
            // Wakes it where it waits for a job: none can come any more.
            restorer.jobs = unbounded().0;
        }
        let restorers = self.restorers.iter_mut().filter_map(|restorer| restorer.handle.take());
        join(workers.chain(restorers).collect(), timeout)
    }
}

/// Waits for threads to end, and returns the names of those that have not: they keep nobody from ending the process.
fn join(mut handles: Vec<JoinHandle<()>>, timeout: Duration) -> Vec<String> {
    let deadline = after(timeout);
    loop {
        for handle in handles.extract_if(.., |handle| handle.is_finished()) {
            // A panic was reported by the thread itself.
            let _panicked = handle.join();
        }
        if handles.is_empty() || deadline.try_recv().is_ok() {
            break;
        }
        let _tick = after(JOIN_CHECK).recv();
    }
    handles.iter().map(|handle| handle.thread().name().unwrap_or_default().to_string()).collect()
}

/// Runs `body` on a thread of that name; a panic becomes a report.
fn spawn(
    name: String,
    reporter: Sender<Report>,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(body)) {
            let text = panic_text(&*panic);
            let _nobody_listens = reporter.send(Report::Panicked { message: format!("{name} has panicked: {text}") });
        }
    })
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_string())
}

struct WorkerLoop {
    index: usize,
    worker: Worker,
    tasks: usize,
    inbox: Receiver<Command>,
    reporter: Sender<Report>,
    last_turn: Arc<AtomicU64>,
    clock: SharedClock,
    stopping: Arc<AtomicBool>,
    preferred: Preferred,
}

impl WorkerLoop {
    fn run(mut self) {
        self.preferred.add_this_thread();
        let mut wait_for_command = false;
        let mut last_active = self.clock.monotonic();
        while !self.stopping.load(Ordering::Relaxed) {
            let began = self.clock.monotonic();
            self.last_turn.store(millis(began), Ordering::Relaxed);
            if self.tasks == 0 || wait_for_command {
                let wait = if self.tasks == 0 { IDLE_WAIT } else { WORKER_WAIT };
                match self.inbox.recv_timeout(wait) {
                    Ok(command) => self.obey(command),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
            loop {
                match self.inbox.try_recv() {
                    Ok(command) => self.obey(command),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
            let at_rest = began.saturating_sub(last_active) >= AT_REST_AFTER;
            match self.worker.turn(if at_rest { WORKER_WAIT_AT_REST } else { WORKER_WAIT }) {
                Ok(turn) => {
                    if !turn.at_rest || self.tasks == 0 {
                        last_active = began;
                    }
                    // A turn that did nothing and did not wait either stands before a closed door: do not spin.
                    let waited = self.clock.monotonic().saturating_sub(began);
                    wait_for_command = !turn.busy && waited < Duration::from_millis(1);
                    self.report(turn);
                }
                Err(Stop { message }) => {
                    let _nobody_listens = self.reporter.send(Report::Stopped { message });
                    self.wait_for_the_end();
                    return;
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(task) => {
                self.tasks += 1;
                self.worker.add(*task);
            }
            Command::Close { tasks, how, done } => {
                self.tasks = self.tasks.saturating_sub(tasks.len());
                let turn = self.worker.close(&tasks, how);
                self.report(turn);
                let _nobody_waits = done.send(());
            }
        }
    }

    fn report(&mut self, turn: Turn) {
        self.tasks = self.tasks.saturating_sub(turn.reopen.len());
        for report in reports_of(self.index, turn) {
            let _nobody_listens = self.reporter.send(report);
        }
    }

    /// The worker has given up: nothing more is run, but whoever closes tasks is answered.
    fn wait_for_the_end(&mut self) {
        while !self.stopping.load(Ordering::Relaxed) {
            self.last_turn.store(millis(self.clock.monotonic()), Ordering::Relaxed);
            match self.inbox.recv_timeout(IDLE_WAIT) {
                Ok(Command::Close { done, .. }) => {
                    let _nobody_waits = done.send(());
                }
                Ok(Command::Add(_)) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn run_restorer(
    mut restorer: Restorer,
    mut courtesy: Courtesy,
    inbox: &Receiver<Job>,
    reporter: &Sender<Report>,
    stopping: &AtomicBool,
) {
    make_way();
    let mut pause = Duration::ZERO;
    while !stopping.load(Ordering::Relaxed) {
        if restorer.is_idle() {
            // An error: it is to stop.
            let Ok(job) = inbox.recv() else { return };
            restorer.enqueue(job);
        } else if restorer.is_waiting() || !pause.is_zero() {
            let wait = if restorer.is_waiting() { RESTORER_WAIT } else { pause };
            match inbox.recv_timeout(wait) {
                Ok(job) => restorer.enqueue(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        for job in inbox.try_iter() {
            restorer.enqueue(job);
        }
        if let Some(finished) = restorer.turn(RESTORER_WAIT) {
            let _nobody_listens = reporter.send(Report::Finished(Box::new(finished)));
        }
        pause = courtesy.pause();
    }
}

/// Lets the workers go first. On Linux a niceness is a thread's own, and what it starts inherits it.
fn make_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(RESTORER_NICENESS) {
        tracing::debug!(%error, "restorations compete with processing on equal terms");
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::join;

    #[test]
    fn threads_that_do_not_end_are_named_and_the_others_are_not_waited_for_behind_them() {
        let (stuck, blocked) = bounded::<()>(0);
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_string()).spawn(body).unwrap()
        };
        let handles = vec![
            spawn(
                "worker-0",
                Box::new(move || {
                    let _released = blocked.recv();
                }),
            ),
            spawn("worker-1", Box::new(|| {})),
            spawn("restorer-0", Box::new(|| {})),
        ];
        assert_eq!(join(handles, Duration::from_secs(2)), ["worker-0"]);
        drop(stuck);
    }
}
