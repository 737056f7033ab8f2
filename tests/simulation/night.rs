//! One schedule: pods come and go, the weather strikes, and in the end everything must be as if nothing had happened.
//!
//! Single-threaded, on a manual clock, from one seed. The code that runs is the product's: `Instance::turn` over the
//! in-process log, with RocksDB (or the memory backend) below.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sidestream::clock::{Clock, ManualClock};
use sidestream::ids::{EventTime, Partition, StoreId, SubTopologyId, TaskId, TopicName, TopicPartition};
use sidestream::log::memory::MemoryLog;
use sidestream::log::{Cleanup, Leave, Log, NewTopic, OutgoingRecord};
use sidestream::metric;
use sidestream::runtime::topics::TopicSettings;
use sidestream::runtime::view::{Condition, TaskState};
use sidestream::runtime::{Instance, InstanceSettings, Lifetime, View, state};
use sidestream::store::budget::{MemoryBudget, StateOnDisk};
use sidestream::store::{SharedBackend, StorePartition};
use sidestream::task::Facts;
use sidestream::task::facts::{output_topics, source_topics};
use sidestream::topology::Plan;

use super::pod::{Copy, Disk, Mortal};
use super::scenario::{self, Given, Input, PARTITIONS, START_MS, Scenario, Version};
use super::verdict::{Outcome, Owner};
use super::weather::{Cluster, Weather, locked};

const GROUP: &str = "app";
const MEMORY_BYTES: u64 = 64 << 20;
/// Turns in a row while the clock stands still: a restoration that waits for time to pass is busy for as long.
const MOST_TURNS: u32 = 40;

/// What kind of schedule it is.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    pub seed: u64,
    /// Every other upheaval is this one.
    pub mostly: Option<Upheaval>,
    pub calm: bool,
    pub tell: bool,
}

/// Upheavals that a test may ask for more of: their place in [`Night::upheaval`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upheaval {
    WeekAway = 14,
    OtherMap = 17,
    LateMarkers = 19,
    BrokerAway = 21,
    CoordinatorAway = 23,
}

/// How a schedule went.
pub struct Report {
    pub outcome: Outcome,
    pub trace: u64,
    pub points: u64,
    pub story: Vec<String>,
    /// What is wrong, beside the outcome's not being the expected one.
    pub problems: Vec<String>,
}

struct Pod {
    number: usize,
    name: String,
    disk: Disk,
    /// An earlier state of the disk, to be put back some day.
    kept: Option<Copy>,
    workers: u32,
    lifetime: Lifetime,
    version: Version,
    /// The version of the last process.
    ran: Version,
    life: Option<Life>,
    lives: u32,
    /// Another process with the id of a pod, which nobody has asked for.
    impostor: bool,
}

struct Life {
    plan: Arc<Plan>,
    client: MemoryLog,
    view: Arc<View>,
    backend: SharedBackend,
    dead: Arc<AtomicBool>,
}

pub struct Night<'a> {
    scenario: &'a Scenario,
    input: Input,
    random: fastrand::Rng,
    mostly: Option<Upheaval>,
    clock: Arc<ManualClock>,
    log: MemoryLog,
    weather: Arc<Weather>,
    cluster: Cluster,
    pods: Vec<Pod>,
    /// Epoch and place of the next record to be written.
    fed: (usize, usize),
    closers: i64,
    /// When the partition that goes idle was last written to, and whether it may have been idle since the epoch began.
    other_written: Duration,
    other_was_idle: bool,
    problems: Vec<String>,
}

impl<'a> Night<'a> {
    pub fn run(scenario: &'a Scenario, course: Course) -> Report {
        let mut night = Self::new(scenario, course);
        if !course.calm {
            night.rage();
        }
        night.calm_down();
        let outcome = night.outcome();
        night.problems.extend(night.weather.fatal());
        // The log holds the weather, which holds the log.
        night.log.set_faults(None);
        for pod in &mut night.pods {
            locked(&night.cluster[pod.number]).take();
            pod.life = None;
        }
        Report {
            outcome,
            trace: night.weather.trace(),
            points: night.weather.points(),
            story: night.weather.story(),
            problems: night.problems,
        }
    }

    /// The number of the input that a seed runs with.
    pub fn input_of(seed: u64) -> u64 {
        seed % scenario::INPUTS
    }

    fn new(scenario: &'a Scenario, course: Course) -> Self {
        let mut random = fastrand::Rng::with_seed(course.seed ^ 0x5eed);
        let clock = ManualClock::at(START_MS * 1000);
        let log = MemoryLog::for_one_thread(clock.clone(), "simulation");
        let pods = if course.calm { 1 } else { random.usize(2..=4) };
        let cluster: Cluster = Arc::new((0..=pods).map(|_| Mutex::new(None)).collect());
        let weather = Weather::new(course.seed, clock.clone(), log.clone(), Arc::clone(&cluster), course.tell);
        let mut night = Self {
            scenario,
            input: Input::of(Self::input_of(course.seed)),
            random,
            mostly: course.mostly,
            clock,
            log,
            weather,
            cluster,
            pods: Vec::new(),
            fed: (0, 0),
            closers: 0,
            other_written: Duration::ZERO,
            other_was_idle: false,
            problems: Vec::new(),
        };
        night.create_topics();
        for given in night.input.before.clone() {
            night.write(&given);
        }
        let on_disk = !course.calm && course.seed.is_multiple_of(4);
        // The last is no pod of its own, but may come up as another one's double.
        for number in 0..=pods {
            let disk = if on_disk { Disk::rocksdb() } else { night.memory() };
            let lifetime = if night.random.bool() { Lifetime::Static } else { Lifetime::Dynamic };
            let workers = if course.calm { 1 } else { night.random.u32(1..=2) };
            let name = format!("pod-{number}");
            night.pods.push(Pod {
                number,
                name,
                disk,
                kept: None,
                workers,
                lifetime,
                version: Version::First,
                ran: Version::First,
                life: None,
                lives: 0,
                impostor: number == pods,
            });
        }
        night.weather.install();
        night.start(0);
        night
    }

    fn create_topics(&self) {
        let plan = self.scenario.plan(Version::Third);
        let internal: BTreeSet<TopicName> = plan.internal_topics.iter().map(|topic| topic.name.clone()).collect();
        let topics: BTreeSet<TopicName> = source_topics(plan).into_iter().chain(output_topics(plan)).collect();
        for name in topics.difference(&internal) {
            let cleanup = if name.as_str() == "limits" { Cleanup::Compact } else { Cleanup::Delete };
            let partitions = if name.as_str() == "a-few" { 1 } else { PARTITIONS };
            let topic = NewTopic { name: name.clone(), partitions, replication: None, cleanup, config: Vec::new() };
            self.log.create_topic(&topic).unwrap();
        }
    }

    fn memory(&self) -> Disk {
        let plan = self.scenario.plan(Version::Third);
        let partitions = || (0..PARTITIONS).map(Partition);
        let stores = plan.stores.iter().map(|store| store.id);
        let at =
            stores.flat_map(|store: StoreId| partitions().map(move |partition| StorePartition { store, partition }));
        let inputs = source_topics(plan)
            .into_iter()
            .flat_map(|topic| partitions().map(move |partition| TopicPartition { topic: topic.clone(), partition }));
        Disk::memory(at.collect(), inputs.collect())
    }

    fn write(&self, given: &Given) {
        let record = OutgoingRecord {
            key: Some(given.key.as_bytes()),
            value: given.value.as_deref().map(str::as_bytes),
            timestamp: EventTime(given.at),
            headers: &[],
        };
        self.log.append(&given.topic.into(), given.partition, record).unwrap();
    }

    // ---- pods --------------------------------------------------------------------------------------------------------

    fn start(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        if pod.life.is_some() {
            return;
        }
        pod.lives += 1;
        let plan = Arc::clone(self.scenario.plan(pod.version));
        if !pod.version.agrees_with(pod.ran) {
            // Sidestream refuses state of a source that belongs elsewhere now.
            pod.disk.clear();
            pod.kept = None;
        }
        pod.ran = pod.version;
        let double = if pod.impostor { "double" } else { "" };
        let name = format!("{}.{}{double}", pod.name, pod.lives);
        let client = self.log.client(&name);
        let dead = Arc::new(AtomicBool::new(false));
        let on_disk = if matches!(pod.disk, Disk::RocksDb { .. }) { StateOnDisk::RocksDb } else { StateOnDisk::None };
        let budget = MemoryBudget::split(MEMORY_BYTES, pod.workers, on_disk).unwrap();
        let (directory, inner) = match &pod.disk {
            Disk::RocksDb { current, .. } => {
                let opened = state::open(current, &plan, budget.rocksdb).unwrap();
                (Some(opened.directory), opened.backend)
            }
            Disk::Memory { current, .. } => (None, Arc::clone(current) as SharedBackend),
        };
        let backend: SharedBackend = Arc::new(Mortal {
            inner: Arc::clone(&inner),
            weather: Arc::clone(&self.weather),
            client: client.clone(),
            name: name.clone(),
            dead: Arc::clone(&dead),
        });
        let view = View::new(Arc::clone(&plan), self.clock.clone());
        let instance = Instance::new(InstanceSettings {
            plan: Arc::clone(&plan),
            log: client.shared(),
            backend,
            directory,
            clock: self.clock.clone(),
            view: Arc::clone(&view),
            instance_id: pod.name.clone(),
            membership: pod.lifetime,
            endpoint: format!("{}:8088", pod.name),
            workers: pod.workers as usize,
            budget,
            commit_interval: Duration::from_millis(100),
            sync_max_wait: None,
            topics: TopicSettings::default(),
            on_stop: if pod.lifetime == Lifetime::Static && self.random.bool() { Leave::Stay } else { Leave::Now },
            shutdown_timeout: Duration::from_secs(5),
        });
        let version = pod.version;
        self.weather.born(&name, &dead);
        self.weather.note(|| format!("{name} starts, {version:?}"));
        pod.life = Some(Life { plan, client, view, backend: inner, dead });
        *locked(&self.cluster[number]) = Some(instance);
    }

    /// SIGKILL, or what is left to do after a kill by the weather.
    fn kill(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        let Some(life) = pod.life.take() else { return };
        life.dead.store(true, Ordering::SeqCst);
        life.client.kill();
        let name = &pod.name;
        self.weather.note(|| format!("{name} is gone"));
        let copy = pod.disk.copy();
        locked(&self.cluster[number]).take();
        drop(life);
        pod.disk.put_back(copy);
    }

    /// SIGTERM.
    fn stop(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        let Some(life) = &pod.life else { return };
        let name = &pod.name;
        self.weather.note(|| format!("{name} is asked to stop"));
        if let Some(instance) = locked(&self.cluster[number]).as_mut() {
            instance.stop();
        }
        if life.dead.load(Ordering::SeqCst) {
            self.kill(number);
            return;
        }
        locked(&self.cluster[number]).take();
        pod.life = None;
    }

    /// Turns a pod. Whether there is more to do at once.
    fn turn(&mut self, number: usize) -> bool {
        let turned = locked(&self.cluster[number]).as_mut().map(Instance::turn);
        let busy = match turned {
            None => false,
            Some(Ok(busy)) => busy,
            Some(Err(error)) => {
                if !self.is_dead(number) {
                    self.weather.failed(format!("pod {number}: {error}"));
                }
                false
            }
        };
        self.bury();
        busy
    }

    fn turn_while_busy(&mut self, number: usize) {
        for _ in 0..MOST_TURNS {
            if !self.turn(number) {
                return;
            }
        }
    }

    fn is_dead(&self, number: usize) -> bool {
        self.pods[number].life.as_ref().is_some_and(|life| life.dead.load(Ordering::SeqCst))
    }

    /// Processes that the weather has killed end here.
    fn bury(&mut self) {
        for number in 0..self.pods.len() {
            if self.is_dead(number) {
                self.kill(number);
            }
        }
    }

    // ---- the bad part ------------------------------------------------------------------------------------------------

    fn rage(&mut self) {
        let wild = *self.random.choice(if self.mostly.is_some() { &[0.3] } else { &[0.02, 0.1, 0.3][..] }).unwrap();
        for _ in 0..3 {
            self.turn(0);
        }
        self.weather.set(true);
        let steps = self.random.u32(60..240);
        for _ in 0..steps {
            if self.random.f64() < wild {
                self.upheaval();
                continue;
            }
            match self.random.u32(..10) {
                0..=5 => {
                    let number = self.random.usize(..self.pods.len());
                    for _ in 0..self.random.u32(1..5) {
                        self.turn(number);
                    }
                }
                6 | 7 => {
                    let most = self.random.usize(1..6);
                    self.feed(most);
                }
                _ => {
                    let millis = *self.random.choice(&[1, 12, 12, 100, 100, 500, 1500]).unwrap();
                    self.clock.advance(Duration::from_millis(millis));
                }
            }
        }
        self.weather.set(false);
    }

    /// Something that happens to the cluster rather than to a request.
    fn upheaval(&mut self) {
        let number = self.random.usize(..self.pods.len());
        let up = self.pods[number].life.is_some();
        let kind = match self.mostly {
            Some(kind) if self.random.bool() => kind as u32,
            // What is asked for more often is rarely reached by who cannot write.
            Some(_) => self.random.u32(..24),
            None => self.random.u32(..26),
        };
        match kind {
            0 | 1 if up => self.kill(number),
            2 if up => self.stop(number),
            0..=7 if !up => self.come_back(number),
            3 => self.log.force_rebalance(GROUP),
            4 | 5 => self.expire(number),
            6 => self.fence(number),
            7 => self.log.release_markers(),
            8 => self.compact(),
            9 => {
                let copy = self.pods[number].disk.copy();
                self.pods[number].kept = Some(copy);
            }
            10 => self.clock.advance(Duration::from_secs(self.random.u64(5..80))),
            11 => self.pass_quiet_time(),
            12 if up => {
                self.pods[number].version = Version::Second;
                self.stop(number);
                self.come_back(number);
            }
            13 => self.all_start(),
            14 if self.random.bool() => self.let_a_week_pass(number),
            15 => self.weather.toggle_dead_letters(),
            23 => self.weather.toggle_coordinator(),
            24 => self.fill_the_disk(number),
            25 => self.weather.fill_disk(None),
            16 => self.start_impostor(),
            17 if up => {
                let version = if self.random.bool() { Version::Third } else { Version::First };
                self.pods[number].version = version;
                self.stop(number);
                self.come_back(number);
            }
            18 if self.random.bool() => self.replace_all(),
            21 | 22 => self.stall(),
            19 | 20 if up => self.hand_over_behind_late_markers(number),
            _ => {
                for number in 0..self.pods.len() {
                    self.turn(number);
                }
            }
        }
    }

    fn come_back(&mut self, number: usize) {
        if self.pods[number].impostor {
            return;
        }
        let fate = self.random.u32(..20);
        let pod = &mut self.pods[number];
        let name = pod.name.clone();
        match fate {
            0..=3 => {
                self.weather.note(|| format!("the disk of {name} is new"));
                pod.disk.clear();
            }
            4..=9 => {
                if let Some(kept) = pod.kept.take() {
                    self.weather.note(|| format!("{name} finds an earlier state of its disk"));
                    pod.disk.put_back(kept);
                }
            }
            _ => {}
        }
        pod.workers = if fate.is_multiple_of(3) { 1 } else { 2 };
        self.start(number);
    }

    fn all_start(&mut self) {
        for number in 0..self.pods.len() {
            if !self.pods[number].impostor {
                self.start(number);
            }
        }
    }

    /// A deployment of another ownership map: all stop, then all start.
    fn replace_all(&mut self) {
        let version = *self.random.choice(&[Version::First, Version::Second, Version::Third]).unwrap();
        self.run_everywhere(version);
    }

    fn run_everywhere(&mut self, version: Version) {
        for number in 0..self.pods.len() {
            self.stop(number);
            self.pods[number].version = version;
        }
        self.all_start();
    }

    /// A pod is away for so long that the changelogs forget deletions. The others go on before.
    fn let_a_week_pass(&mut self, number: usize) {
        self.kill(number);
        self.feed(60);
        for turn in 0..12 {
            // Windows that expire are deletions.
            if turn == 6 && self.fed.1 == self.input.epochs[self.fed.0].len() && self.may_close_epoch() {
                self.close_epoch();
            }
            self.clock.advance(Duration::from_secs(3));
            for number in 0..self.pods.len() {
                self.turn(number);
            }
        }
        self.compact();
        self.clock.advance(Duration::from_secs(8 * 86_400));
        self.compact();
        self.weather.note(|| "a week has passed".to_owned());
        if !self.pods[number].impostor {
            self.start(number);
        }
    }

    /// One broker is away for so long that its partition would be taken for idle, and the others' time goes on.
    fn stall(&mut self) {
        self.feed(10);
        for _ in 0..2 {
            self.turn_all_after(Duration::from_millis(500));
        }
        self.weather.stall(true);
        self.feed(60);
        for _ in 0..4 {
            self.turn_all_after(Duration::from_secs(45));
        }
        if self.fed.1 == self.input.epochs[self.fed.0].len() && self.may_close_epoch() {
            self.close_epoch();
        }
        for _ in 0..6 {
            self.turn_all_after(Duration::from_secs(1));
        }
        self.weather.stall(false);
    }

    /// A pod's disk is full, for a while: what it commits is not written, and what it restores neither.
    fn fill_the_disk(&mut self, number: usize) {
        self.weather.note(|| format!("the disk of pod {number} is full"));
        self.weather.fill_disk(Some(&self.pods[number].name));
        for _ in 0..4 {
            self.feed(6);
            self.turn_all_after(Duration::from_millis(600));
        }
        if self.random.bool() {
            self.weather.fill_disk(None);
        }
    }

    fn turn_all_after(&mut self, time: Duration) {
        self.clock.advance(time);
        for number in 0..self.pods.len() {
            self.turn(number);
        }
    }

    /// What a pod has just committed is not visible yet when the others restore it.
    fn hand_over_behind_late_markers(&mut self, number: usize) {
        self.feed(6);
        self.weather.delay_markers(2);
        for _ in 0..2 {
            self.turn(number);
            self.clock.advance(Duration::from_millis(12));
        }
        self.weather.delay_markers(0);
        self.expire(number);
        for _ in 0..3 {
            for other in (0..self.pods.len()).filter(|other| *other != number) {
                self.turn(other);
                self.turn(other);
            }
            self.clock.advance(Duration::from_millis(12));
        }
    }

    fn start_impostor(&mut self) {
        let number = self.pods.len() - 1;
        let model = self.random.usize(..number);
        if self.pods[number].life.is_some() || self.pods[model].lifetime == Lifetime::Dynamic {
            return;
        }
        let (name, version) = (self.pods[model].name.clone(), self.pods[model].version);
        let pod = &mut self.pods[number];
        (pod.name, pod.version, pod.lifetime) = (name, version, Lifetime::Static);
        pod.disk.clear();
        self.start(number);
    }

    /// The session of its member ends, without its knowing.
    fn expire(&mut self, number: usize) {
        let prefix = format!("{}.", self.pods[number].name);
        let Ok(group) = self.log.describe_group(GROUP) else { return };
        for member in group.members.iter().filter(|member| member.client_id.starts_with(&prefix)) {
            self.log.expire_member(GROUP, &member.member_id);
        }
    }

    /// Another process has used its transactional id.
    fn fence(&mut self, number: usize) {
        let worker = self.random.u32(..2);
        self.log.fence(&format!("{GROUP}-{}-{worker}", self.pods[number].name));
    }

    fn compact(&mut self) {
        for store in &self.scenario.plan(Version::First).stores {
            // The topic is there once an instance has started.
            let _absent = self.log.compact(&TopicName::new(format!("{GROUP}-{}-changelog", store.name)));
        }
    }

    /// Long enough for partitions to go idle, in steps that everybody takes part in.
    fn pass_quiet_time(&mut self) {
        if self.fed.1 == self.input.epochs[self.fed.0].len() && self.may_close_epoch() {
            self.close_epoch();
        }
        for _ in 0..5 {
            self.clock.advance(Duration::from_secs(45));
            for number in 0..self.pods.len() {
                self.turn(number);
            }
        }
    }

    // ---- input -------------------------------------------------------------------------------------------------------

    /// Writes up to so many records. The next epoch begins only when one partition has been told of the gap.
    fn feed(&mut self, most: usize) {
        for _ in 0..most {
            let (epoch, place) = self.fed;
            if let Some(given) = self.input.epochs[epoch].get(place) {
                self.write(given);
                self.fed.1 += 1;
                if given.partition != Partition(0) {
                    let now = self.clock.monotonic();
                    self.other_was_idle |= now.saturating_sub(self.other_written) >= scenario::IDLE_TIMEOUT;
                    self.other_written = now;
                }
            } else if epoch + 1 < self.input.epochs.len() && self.closers > 0 {
                self.fed = (epoch + 1, 0);
                self.closers = 0;
                self.other_was_idle = true;
            }
        }
    }

    /// See `scenario`: whether all that the other partition has cannot be late after this.
    fn may_close_epoch(&self) -> bool {
        let other = TopicPartition::new("events", Partition(1));
        let end = self.log.high_watermark(&other).unwrap();
        let committed = self.log.committed(GROUP, &[other]);
        let committed = committed.ok().and_then(|mut offsets| offsets.remove(0));
        !self.other_was_idle || committed.is_some_and(|committed| committed.offset >= end)
    }

    fn close_epoch(&mut self) {
        self.closers += 1;
        let lives = self.pods.iter().filter_map(|pod| pod.life.as_ref());
        let marks: Vec<_> =
            lives.flat_map(|life| life.view.tasks()).map(|task| (task.id.to_string(), task.watermark)).collect();
        self.weather.note(|| format!("epoch {} closes; watermarks {marks:?}", self.fed.0));
        self.write(&scenario::closer(self.fed.0, self.closers));
    }

    // ---- the end -----------------------------------------------------------------------------------------------------

    fn calm_down(&mut self) {
        self.log.release_markers();
        self.bury();
        self.kill(self.pods.len() - 1);
        let version = self.pods[0].version;
        if self.pods.iter().all(|pod| pod.impostor || pod.version.agrees_with(version)) {
            self.all_start();
        } else {
            self.run_everywhere(version);
        }
        loop {
            let left = self.input.epochs[self.fed.0].len() - self.fed.1;
            self.feed(left);
            if !self.settle() {
                return;
            }
            // Everybody is idle; then one partition is told of the gap, and the windows of both close.
            // Long steps are quick, but end sessions; where the rebalances that follow do not come to rest, short ones do not.
            for step in [45, 45, 45, 5, 5, 5].map(Duration::from_secs) {
                let before = self.stirrings();
                self.pass_idle_time(step);
                if self.settle() && self.stirrings() == before {
                    break;
                }
            }
            self.close_epoch();
            if !self.settle() {
                return;
            }
            if self.fed.0 + 1 == self.input.epochs.len() {
                return;
            }
            self.feed(1);
        }
    }

    /// Counts what makes a partition active anew: its task is opened.
    fn stirrings(&self) -> u64 {
        let lives = self.pods.iter().filter_map(|pod| pod.life.as_ref());
        lives.map(|life| life.view.counters.total(&metric::RESTORATIONS)).sum()
    }

    fn pass_idle_time(&mut self, step: Duration) {
        let until = self.clock.monotonic() + scenario::IDLE_TIMEOUT + Duration::from_secs(45);
        while self.clock.monotonic() < until {
            self.clock.advance(step);
            for number in 0..self.pods.len() {
                self.turn_while_busy(number);
            }
        }
    }

    /// Turns everything until all that was written is committed, and nothing more happens.
    fn settle(&mut self) -> bool {
        let mut quiet = 0;
        for round in 0..600 {
            for number in 0..self.pods.len() {
                self.turn_while_busy(number);
            }
            quiet = if self.is_settled() { quiet + 1 } else { 0 };
            if quiet > 4 {
                return true;
            }
            if round % 60 == 30 {
                self.restart_the_stuck();
            }
            self.clock.advance(Duration::from_millis(600));
        }
        let trouble = self.trouble();
        self.problems.push(format!("it does not come to rest: {trouble}"));
        false
    }

    /// What an operator does about what says that it waits for one.
    fn restart_the_stuck(&mut self) {
        for number in 0..self.pods.len() {
            let stuck = self.pods[number].life.as_ref().is_some_and(|life| {
                life.view.holds(Condition::TaskParked) || life.view.holds(Condition::InstanceFenced)
            });
            if stuck {
                self.stop(number);
                self.start(number);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let lives: Vec<&Life> = self.pods.iter().filter_map(|pod| pod.life.as_ref()).collect();
        let tasks: Vec<_> = lives.iter().flat_map(|life| life.view.tasks()).collect();
        let Some(facts) = lives.first().and_then(|life| life.view.facts()) else { return false };
        let expected: u32 =
            (0..facts.sub_topologies.len()).map(|sub| facts.tasks(SubTopologyId(u32::try_from(sub).unwrap()))).sum();
        tasks.len() == expected as usize
            && tasks.iter().all(|task| task.state == TaskState::Running)
            && self.lag(&lives[0].plan, &facts).is_empty()
    }

    /// The inputs with committed records that are not committed as read.
    fn lag(&self, plan: &Plan, facts: &Facts) -> Vec<String> {
        let mut behind = Vec::new();
        for sub in &plan.sub_topologies {
            for partition in (0..facts.tasks(sub.id)).map(Partition) {
                let inputs: Vec<TopicPartition> =
                    facts.inputs(plan, TaskId { sub_topology: sub.id, partition }).into_iter().flatten().collect();
                let committed = match self.log.committed(GROUP, &inputs) {
                    Ok(committed) => committed,
                    Err(error) => return vec![error.to_string()],
                };
                for (input, committed) in inputs.iter().zip(committed) {
                    let records = self.log.records(input).unwrap();
                    let Some(last) = records.last() else { continue };
                    if committed.is_none_or(|committed| committed.offset <= last.offset) {
                        behind.push(input.to_string());
                    }
                }
            }
        }
        behind
    }

    fn trouble(&self) -> String {
        let mut words = Vec::new();
        for pod in &self.pods {
            let Some(life) = &pod.life else { continue };
            let readiness = life.view.readiness();
            let notes = readiness.reasons.into_iter().chain(readiness.degraded).map(|note| note.message);
            words.push(format!("{}: {:?} {:?}", pod.name, notes.collect::<Vec<_>>(), life.view.tasks()));
        }
        if let Some(life) = self.pods.iter().find_map(|pod| pod.life.as_ref())
            && let Some(facts) = life.view.facts()
        {
            words.insert(0, format!("behind: {:?}", self.lag(&life.plan, &facts)));
        }
        words.join("; ")
    }

    fn outcome(&mut self) -> Outcome {
        let lives = self.pods.iter().filter_map(|pod| pod.life.as_ref());
        let owners: Vec<Owner> = lives
            .map(|life| Owner {
                plan: Arc::clone(&life.plan),
                view: Arc::clone(&life.view),
                backend: Arc::clone(&life.backend),
            })
            .collect();
        Outcome::of(&self.log, &owners)
    }
}
