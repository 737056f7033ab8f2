//! What strikes whom, and when: the faults of one schedule, drawn from its seed.
//!
//! Every step of every process asks here ([`Weather::strike`]), and every write to local state ([`Weather::strike_state`]).
//! A schedule has a profile: each class of faults is off, rare or frequent in it, so that schedules differ in kind and
//! deep sequences of one fault are reached as well as mixtures.
//!
//! A *pause* is the fault that threads and SIGSTOP would make: in the middle of a step of one process, time passes and the
//! other processes are turned, with faults of their own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sidestream::clock::{Clock, ManualClock};
use sidestream::ids::{Partition, TopicPartition};
use sidestream::log::Log;
use sidestream::log::memory::faults::{Fault, FaultPoint, MarkerDelay, Request, Step};
use sidestream::log::memory::{End, MemoryLog};
use sidestream::runtime::Instance;

use super::scenario;

/// The processes by pod number. One that is being turned is locked.
pub type Cluster = Arc<Vec<Mutex<Option<Instance>>>>;

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Request,
    Init,
    Send,
    Deliver,
    Offsets,
    Commit,
    Abort,
    AfterEnd,
    Fetch,
    Member,
    State,
    StateRead,
    Kill,
    Pause,
}

const CLASSES: usize = Class::Pause as usize + 1;

/// What strikes a write to local state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFault {
    None,
    Refused,
    /// Done, and told as refused.
    Denied,
    /// Some of the rows are there, what counts on them is not.
    Torn,
    KilledBefore,
    KilledAfter,
}

#[expect(clippy::struct_excessive_bools, reason = "each says whether one kind of trouble is on")]
struct Script {
    random: fastrand::Rng,
    /// The chance of a fault per step, by class.
    chances: [f64; CLASSES],
    on: bool,
    /// The dead-letter topic takes nothing.
    letters_refused: bool,
    /// Who decides transactions answers to nothing but commits.
    coordinator_away: bool,
    /// The broker of one partition of `events` is away.
    stalled: bool,
    /// The disk of this pod is full.
    full: Option<String>,
    /// The control records of the next commits come late.
    late: u32,
    pauses: u32,
    /// Of all that has happened.
    trace: u64,
    points: u64,
    /// By client name: told when it is killed.
    lives: BTreeMap<String, Arc<AtomicBool>>,
    story: Option<Vec<String>>,
    /// What ended an instance that nobody had killed.
    fatal: Vec<String>,
}

pub struct Weather {
    script: Mutex<Script>,
    clock: Arc<ManualClock>,
    log: MemoryLog,
    cluster: Cluster,
}

impl Weather {
    /// Begins in fair weather.
    pub fn new(seed: u64, clock: Arc<ManualClock>, log: MemoryLog, cluster: Cluster, tell: bool) -> Arc<Self> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut chances = [0.0; CLASSES];
        for (class, chance) in chances.iter_mut().enumerate() {
            let scale = match class {
                c if c == Class::Send as usize => 0.02,
                c if c == Class::Fetch as usize => 2.0,
                c if c == Class::Member as usize => 1.5,
                c if c == Class::StateRead as usize => 0.02,
                c if c == Class::Kill as usize => 0.01,
                c if c == Class::Pause as usize => 0.02,
                _ => 1.0,
            };
            *chance = scale * *random.choice(&[0.0, 0.0, 0.01, 0.05, 0.2]).unwrap();
        }
        let script = Script {
            random,
            chances,
            on: false,
            letters_refused: false,
            coordinator_away: false,
            stalled: false,
            full: None,
            late: 0,
            pauses: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            points: 0,
            lives: BTreeMap::new(),
            story: tell.then(Vec::new),
            fatal: Vec::new(),
        };
        Arc::new(Self { script: Mutex::new(script), clock, log, cluster })
    }

    /// Makes the log ask here.
    pub fn install(self: &Arc<Self>) {
        let weather = Arc::clone(self);
        self.log.set_faults(Some(Box::new(move |point| weather.strike(point))));
    }

    pub fn set(&self, on: bool) {
        let mut script = locked(&self.script);
        script.on = on;
        script.letters_refused = false;
        script.stalled = false;
        script.coordinator_away = false;
        script.full = None;
    }

    /// From now on nothing can be written to the state of this pod, and of no other; `None`: there is room everywhere.
    pub fn fill_disk(&self, pod: Option<&str>) {
        locked(&self.script).full = pod.map(|pod| format!("{pod}."));
    }

    pub fn toggle_coordinator(&self) {
        let mut script = locked(&self.script);
        script.coordinator_away = !script.coordinator_away;
    }

    pub fn stall(&self, stalled: bool) {
        locked(&self.script).stalled = stalled;
    }

    pub fn delay_markers(&self, commits: u32) {
        locked(&self.script).late = commits;
    }

    pub fn toggle_dead_letters(&self) {
        let mut script = locked(&self.script);
        script.letters_refused = !script.letters_refused;
    }

    /// Another process; `dead` becomes true when it is killed.
    pub fn born(&self, client: &str, dead: &Arc<AtomicBool>) {
        locked(&self.script).lives.insert(client.to_owned(), Arc::clone(dead));
    }

    /// Takes note of something that happened.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let mut script = locked(&self.script);
        let text = what();
        script.mix(text.as_bytes());
        script.tell(&self.clock, || text);
    }

    pub fn failed(&self, what: String) {
        locked(&self.script).fatal.push(what);
    }

    pub fn fatal(&self) -> Vec<String> {
        locked(&self.script).fatal.clone()
    }

    pub fn trace(&self) -> u64 {
        locked(&self.script).trace
    }

    pub fn points(&self) -> u64 {
        locked(&self.script).points
    }

    pub fn story(&self) -> Vec<String> {
        locked(&self.script).story.clone().unwrap_or_default()
    }

    // ---- the log -----------------------------------------------------------------------------------------------------

    fn strike(self: &Arc<Self>, point: FaultPoint<'_>) -> Fault {
        if let Step::Send { topic, key: Some(key), .. } = point.step
            && topic.as_str() == "recent"
            && key == scenario::POISON.as_bytes()
        {
            return Fault::Refuse;
        }
        let mut script = locked(&self.script);
        script.points += 1;
        script.mix_point(&point);
        // Without a name it is the simulation itself that asks.
        if !script.on || point.client.is_empty() {
            return Fault::None;
        }
        if let Step::Send { topic, .. } = point.step
            && script.letters_refused
            && topic.as_str().ends_with(".dead-letters")
        {
            return Fault::Refuse;
        }
        if script.coordinator_away && matches!(point.step, Step::Init(_) | Step::BeforeEnd(_, End::Abort)) {
            return Fault::Unreachable;
        }
        if let Step::Fetch { partition, .. } = point.step
            && script.stalled
            && *partition == TopicPartition::new("events", Partition(1))
        {
            return Fault::Delay;
        }
        if script.strikes(Class::Kill) {
            script.kill(point.client);
            script.tell(&self.clock, || format!("{} is killed at {:?}", point.client, point.step));
            return Fault::Kill;
        }
        let can_pause = !matches!(point.step, Step::Send { .. } | Step::Fetch { .. } | Step::MemberPoll { .. });
        if can_pause && script.pauses == 0 && script.strikes(Class::Pause) {
            script.pauses += 1;
            let steps = script.random.u32(1..12);
            let each = Duration::from_millis(*script.random.choice(&[10, 200, 1500, 6000]).unwrap());
            script.tell(&self.clock, || {
                format!("{} stands still at {:?} for {steps} x {each:?}", point.client, point.step)
            });
            drop(script);
            self.pass_time_without(point.client, steps, each);
            script = locked(&self.script);
            script.pauses -= 1;
        }
        let fault = script.fault_at(point.step);
        if fault != Fault::None {
            script.mix(format!("{fault:?}").as_bytes());
            script.tell(&self.clock, || format!("{}: {fault:?} at {:?}", point.client, point.step));
        }
        fault
    }

    /// The process that is in the middle of a step stands still while the others go on.
    fn pass_time_without(self: &Arc<Self>, client: &str, steps: u32, each: Duration) {
        // The log has taken the source of faults out while it is asked: the others meet faults too.
        self.install();
        let before = self.clock.monotonic();
        for _ in 0..steps {
            self.clock.advance(each);
            for (number, pod) in self.cluster.iter().enumerate() {
                let Ok(mut pod) = pod.try_lock() else { continue };
                let Some(instance) = pod.as_mut() else { continue };
                if let Err(error) = instance.turn() {
                    self.failed(format!("pod {number}: {error}"));
                }
            }
            // Its heartbeats do not arrive either.
            if self.clock.monotonic().saturating_sub(before) >= sidestream::limits::SESSION_TIMEOUT {
                self.expire(client);
            }
        }
    }

    fn expire(&self, client: &str) {
        let prefix = format!("{}.", client.split('.').next().unwrap_or(client));
        if let Ok(group) = self.log.describe_group("app") {
            for member in group.members.iter().filter(|member| member.client_id.starts_with(&prefix)) {
                self.log.expire_member("app", &member.member_id);
            }
        }
    }

    // ---- local state -------------------------------------------------------------------------------------------------

    pub fn strike_state(&self, client: &str) -> StateFault {
        let mut script = locked(&self.script);
        script.points += 1;
        if !script.on {
            return StateFault::None;
        }
        let is_full = script.full.as_ref().is_some_and(|full| client.starts_with(full));
        let fault = if is_full {
            StateFault::Refused
        } else if script.strikes(Class::State) {
            let faults = [StateFault::Refused, StateFault::Refused, StateFault::Denied, StateFault::Torn];
            *script.random.choice(&faults).unwrap_or(&StateFault::Refused)
        } else if script.strikes(Class::Kill) {
            if script.random.bool() { StateFault::KilledBefore } else { StateFault::KilledAfter }
        } else {
            return StateFault::None;
        };
        script.mix(format!("{fault:?}").as_bytes());
        script.tell(&self.clock, || format!("{client}: {fault:?} at a write to its state"));
        fault
    }

    /// Whether a look at local state fails.
    pub fn strike_read(&self, client: &str) -> bool {
        let mut script = locked(&self.script);
        if !script.on || !script.strikes(Class::StateRead) {
            return false;
        }
        script.mix(b"unread");
        script.tell(&self.clock, || format!("{client}: a read of its state fails"));
        true
    }

    pub fn kill(&self, client: &str) {
        locked(&self.script).kill(client);
    }
}

impl Script {
    fn strikes(&mut self, class: Class) -> bool {
        let chance = self.chances[class as usize];
        chance > 0.0 && self.random.f64() < chance
    }

    fn kill(&mut self, client: &str) {
        if let Some(dead) = self.lives.get(client) {
            dead.store(true, Ordering::SeqCst);
        }
    }

    fn one_of(&mut self, class: Class, faults: &[Fault]) -> Fault {
        if self.strikes(class) { *self.random.choice(faults).unwrap_or(&Fault::None) } else { Fault::None }
    }

    fn fault_at(&mut self, step: Step<'_>) -> Fault {
        use Fault::{Abort, AnswerLost, Delay, Expire, Fence, Late, Rebalance, StaleGeneration, Unreachable};
        let markers = Duration::from_millis(*self.random.choice(&[20, 500, 5_000, 30_000]).unwrap_or(&0));
        let delayed = [
            Fault::DelayMarkers(MarkerDelay::Topics(markers)),
            Fault::DelayMarkers(MarkerDelay::TopicsAndOffsets(markers)),
        ];
        let count = self.random.usize(1..4);
        if self.late > 0 && matches!(step, Step::BeforeEnd(_, End::Commit)) {
            self.late -= 1;
            return Fault::DelayMarkers(MarkerDelay::Topics(Duration::from_secs(30)));
        }
        match step {
            // A process that leaves is about to end: nothing of interest can be lost.
            Step::Request(Request::ClusterId) => Fault::None,
            Step::Request(_) => self.one_of(Class::Request, &[Unreachable, AnswerLost]),
            Step::Init(_) => self.one_of(Class::Init, &[Unreachable, AnswerLost]),
            Step::Send { .. } => self.one_of(Class::Send, &[Delay, Unreachable, Fence]),
            Step::ProducerPoll(_) => self.one_of(Class::Deliver, &[Unreachable, Delay]),
            Step::BeforeOffsets(_) => self.one_of(Class::Offsets, &[Unreachable, Abort, StaleGeneration, Fence]),
            Step::AfterOffsets(_) => self.one_of(Class::Offsets, &[Unreachable, Abort, Fence]),
            Step::BeforeEnd(_, End::Commit) => self.one_of(
                Class::Commit,
                &[Unreachable, Late, Abort, Fence, delayed[0], delayed[0], delayed[1], delayed[1]],
            ),
            Step::BeforeEnd(_, End::Abort) => self.one_of(Class::Abort, &[Unreachable, Fence, delayed[0], delayed[1]]),
            Step::AfterEnd(..) => self.one_of(Class::AfterEnd, &[AnswerLost]),
            Step::Fetch { .. } => {
                self.one_of(Class::Fetch, &[Delay, Fault::Short(count), Fault::Short(count), Fault::Duplicate(count)])
            }
            Step::MemberPoll { .. } => {
                self.one_of(Class::Member, &[Delay, Delay, Delay, Delay, Unreachable, Rebalance, Expire])
            }
        }
    }

    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn mix_point(&mut self, point: &FaultPoint<'_>) {
        self.mix(point.client.as_bytes());
        let (code, name): (u8, &str) = match point.step {
            Step::Request(request) => (request as u8, ""),
            Step::Init(id) => (20, id),
            Step::Send { topic, .. } => (21, topic.as_str()),
            Step::ProducerPoll(id) => (22, id),
            Step::BeforeOffsets(id) => (23, id),
            Step::AfterOffsets(id) => (24, id),
            Step::BeforeEnd(id, End::Commit) => (25, id),
            Step::BeforeEnd(id, End::Abort) => (26, id),
            Step::AfterEnd(id, End::Commit) => (27, id),
            Step::AfterEnd(id, End::Abort) => (28, id),
            Step::Fetch { partition, .. } => (29, partition.topic.as_str()),
            Step::MemberPoll { member, .. } => (30, member),
        };
        self.mix(&[code]);
        self.mix(name.as_bytes());
    }

    fn tell(&mut self, clock: &ManualClock, what: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let mut line = format!("{:>9.3} ", clock.monotonic().as_secs_f64());
            let _infallible = write!(line, "{}", what());
            story.push(line);
        }
    }
}
