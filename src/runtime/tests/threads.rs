//! One instance on threads, its coordinator turned by the test: what one thread does while another one hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::gate::GatedLog;
use super::plans::{World, at, totals};
use super::{is_ready, running};
use crate::clock::Clock;
use crate::ids::{EventTime, Offset, Partition, SubTopologyId, TaskId};
use crate::log::{Cleanup, Log, OutgoingRecord};
use crate::runtime::coordinator::{Context, Coordinator};
use crate::runtime::crew::{Crew, ThreadCrew};
use crate::runtime::group_map::client_id;
use crate::runtime::restorer::{Restorer, RestorerSettings};
use crate::runtime::topics::{Prepared, TopicSettings, prepare};
use crate::runtime::view::{Condition, TaskState, View};
use crate::runtime::worker::{Worker, WorkerSettings};
use crate::runtime::{InstanceSettings, Lifetime, Ownership, Shutdown};
use crate::store::memory::Memory;
use crate::store::{SharedBackend, StorePartition};
use crate::task::Facts;
use crate::task::restore::Tools;
use crate::topology::Plan;

const FIRST: TaskId = TaskId { sub_topology: SubTopologyId(0), partition: Partition(0) };
const SECOND: TaskId = TaskId { sub_topology: SubTopologyId(0), partition: Partition(1) };
/// The restorer of odd partitions.
const RESTORER: &str = "restore-1";

/// Counts per key over two partitions, on one worker and two restorers.
struct Threaded<'w> {
    world: &'w World,
    log: Arc<GatedLog>,
    view: Arc<View>,
    ownership: Arc<Ownership>,
    coordinator: Coordinator,
}

fn counts() -> Plan {
    totals("n: COUNT(*)", "id")
}

fn world() -> World {
    let world = World::empty();
    world.create("events", 2, Cleanup::Delete);
    world
}

fn send(world: &World, partition: u32, key: &str) -> Offset {
    let record =
        OutgoingRecord { key: Some(key.as_bytes()), value: Some(b"{}"), timestamp: EventTime(0), headers: &[] };
    world.log.append(&"events".into(), Partition(partition), record).unwrap()
}

impl<'w> Threaded<'w> {
    fn start(world: &'w World, name: &str, backend: SharedBackend) -> Self {
        let client = world.log.client(name);
        let log = Arc::new(GatedLog::new(client.shared(), RESTORER));
        let settings = world.settings(name, counts(), backend, Lifetime::Dynamic, &client);
        let facts: Arc<Facts> = match prepare(&*log, &settings.plan, TopicSettings::default()).unwrap() {
            Prepared::Ready(facts) => Arc::from(facts),
            Prepared::Waiting(obstacles) => panic!("{obstacles:?}"),
        };
        settings.view.set_facts(Arc::clone(&facts));
        settings.view.set_backend(Arc::clone(&settings.backend));
        let ownership = Ownership::new(settings.endpoint.clone());
        let workers = vec![worker(&settings, &log, &facts, &ownership)];
        let restorers = (0..2).map(|number| restorer(number, &settings, &log, &facts)).collect();
        let crew = ThreadCrew::start(workers, restorers, world.clock.clone()).unwrap();
        let context = Context {
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(&facts),
            log: log.clone(),
            clock: world.clock.clone(),
            view: Arc::clone(&settings.view),
            ownership: Arc::clone(&ownership),
            client_id: client_id(name, &facts.map_hash),
            group_instance_id: None,
            seed: 1,
        };
        let coordinator = Coordinator::new(context, Crew::Threads(crew));
        Self { world, log, view: settings.view, ownership, coordinator }
    }

    fn is_running(&self, task: TaskId) -> bool {
        self.view.tasks().iter().any(|seen| seen.id == task && seen.state == TaskState::Running)
    }

    /// `None` also while a transaction that holds it is under way.
    fn committed(&self, partition: u32) -> Option<Offset> {
        let answer = self.world.log.committed("app", &[at("events", partition)]).ok()?.remove(0);
        answer.map(|committed| committed.offset)
    }

    /// Turns the coordinator, `step` of the clock at a time, while the other threads have a millisecond of their own.
    fn turn_until(&mut self, what: &str, step: Duration, mut holds: impl FnMut(&Self) -> bool) {
        let never = Shutdown::new();
        for _ in 0..20_000 {
            if holds(self) {
                return;
            }
            self.coordinator.turn(Duration::ZERO).unwrap();
            self.world.clock.advance(step);
            never.wait(Duration::from_millis(1));
        }
        panic!("it never came to this: {what}; {:?} {:?}", self.view.readiness(), self.view.tasks());
    }
}

impl Drop for Threaded<'_> {
    fn drop(&mut self) {
        self.log.fetches.open();
        self.log.sends.open();
        self.coordinator.stop_crew(Duration::from_secs(10));
    }
}

fn worker(settings: &InstanceSettings, log: &Arc<GatedLog>, facts: &Arc<Facts>, ownership: &Arc<Ownership>) -> Worker {
    let settings = WorkerSettings {
        index: 0,
        transactional_id: Some(format!("app-{}-0", settings.instance_id)),
        log: log.clone(),
        plan: Arc::clone(&settings.plan),
        facts: Arc::clone(facts),
        backend: Arc::clone(&settings.backend),
        clock: Arc::clone(&settings.clock),
        ownership: Arc::clone(ownership),
        commit_interval: settings.commit_interval,
        sync_max_wait: settings.sync_max_wait,
        budget: settings.budget,
        view: Arc::clone(&settings.view),
    };
    Worker::new(settings).unwrap()
}

fn restorer(number: usize, settings: &InstanceSettings, log: &Arc<GatedLog>, facts: &Arc<Facts>) -> Restorer {
    let tools = Tools {
        log: log.clone(),
        plan: Arc::clone(&settings.plan),
        facts: Arc::clone(facts),
        backend: Arc::clone(&settings.backend),
        clock: Arc::clone(&settings.clock),
        counters: Arc::clone(&settings.view.counters),
    };
    Restorer::new(RestorerSettings {
        name: format!("restore-{number}"),
        tools,
        view: Arc::clone(&settings.view),
        cache_bytes: 1 << 20,
        sync_max_wait: settings.sync_max_wait,
    })
}

const STEP: Duration = Duration::from_millis(10);

/// EXACTLY-ONCE rule 5: a restoration has threads and clients of its own.
#[test]
fn a_restoration_that_hangs_keeps_nobody_from_committing() {
    let world = world();
    // What there is to restore.
    let (mut before, _) = world.instance_with("before", counts(), Arc::new(Memory::new()), Lifetime::Dynamic);
    send(&world, 0, "a");
    send(&world, 1, "b");
    world.turn_until(&mut [&mut before], |_| {
        [0, 1].iter().all(|partition| {
            let committed = world.log.committed("app", &[at("events", *partition)]).unwrap().remove(0);
            committed.is_some_and(|committed| committed.offset == Offset(1))
        })
    });
    before.stop();

    let mut instance = Threaded::start(&world, "a", Arc::new(Memory::new()));
    instance.log.fetches.close();
    instance.turn_until("one task runs and the other one is being restored", STEP, |instance| {
        instance.is_running(FIRST) && instance.log.fetches.waiting() == 1
    });
    for offset in 1..=20 {
        send(&world, 0, "a");
        instance
            .turn_until("the record is committed", STEP, |instance| instance.committed(0) == Some(Offset(offset + 1)));
        assert!(!instance.is_running(SECOND));
        assert_eq!(instance.log.fetches.waiting(), 1, "the restoration hangs all the while");
    }
    instance.log.fetches.open();
    instance.turn_until("the other task runs", STEP, |instance| instance.is_running(SECOND));
}

/// EXACTLY-ONCE rule 11c: heartbeats alone would let it keep what it does not process.
#[test]
fn a_worker_that_is_stuck_loses_its_partitions_to_others() {
    let world = world();
    let mut instance = Threaded::start(&world, "a", Arc::new(Memory::new()));
    instance.turn_until("both tasks run", STEP, |instance| instance.is_running(FIRST) && instance.is_running(SECOND));
    instance.log.sends.close();
    send(&world, 0, "a");
    instance.turn_until("the worker hangs", STEP, |instance| instance.log.sends.waiting() == 1);
    let stuck_at = world.clock.monotonic();
    instance.turn_until("the group takes its partitions away", Duration::from_millis(200), |_| {
        world.log.describe_group("app").unwrap().members.is_empty()
    });
    assert!(instance.view.holds(Condition::WorkerWaiting));
    let took = world.clock.monotonic().saturating_sub(stuck_at);
    assert!(took < Duration::from_mins(2), "{took:?}");

    let (mut other, _) = world.instance_with("b", counts(), Arc::new(Memory::new()), Lifetime::Dynamic);
    world.turn_until(&mut [&mut other], |instances| is_ready(instances[0]) && running(instances[0]).len() == 2);
    world.turn_until(&mut [&mut other], |_| instance.committed(0) == Some(Offset(1)));

    // What the stuck one has in hand is refused when it goes on, and it comes back as an ordinary member.
    instance.log.sends.open();
    send(&world, 0, "a");
    let mut both = |what: &str, holds: &dyn Fn(&Threaded<'_>) -> bool| {
        instance.turn_until(what, STEP, |instance| {
            other.turn().unwrap();
            holds(instance)
        });
    };
    both("both have a task", &|instance| instance.is_running(FIRST) != instance.is_running(SECOND));
    both("everything is committed", &|instance| instance.committed(0) == Some(Offset(2)));
    let changes = world.log.records(&at("app-totals-changelog", 0)).unwrap();
    assert_eq!(changes.len(), 2, "one change per record");
}

/// EXACTLY-ONCE rule 9b, with a worker and a coordinator that act at the same moment: the loss is known to this process
/// while the worker is about to commit.
#[test]
fn a_commit_that_a_loss_has_overtaken_is_not_tried() {
    let world = world();
    let backend: SharedBackend = Arc::new(Memory::new());
    let mut instance = Threaded::start(&world, "a", Arc::clone(&backend));
    instance.turn_until("both tasks run", STEP, |instance| instance.is_running(FIRST) && instance.is_running(SECOND));
    let settled = instance.log.commits.load(Ordering::SeqCst);
    instance.log.sends.close();
    send(&world, 0, "a");
    instance.turn_until("the worker is about to commit", STEP, |instance| instance.log.sends.waiting() == 1);
    let member = world.log.describe_group("app").unwrap().members[0].member_id.clone();
    assert!(world.log.expire_member("app", &member));

    let (ownership, log) = (Arc::clone(&instance.ownership), Arc::clone(&instance.log));
    let epoch = ownership.epoch();
    let coordinator = &mut instance.coordinator;
    let never = Shutdown::new();
    std::thread::scope(|scope| {
        let group = scope.spawn(|| {
            while ownership.epoch() == epoch {
                coordinator.turn(Duration::ZERO).unwrap();
            }
        });
        for _ in 0..20_000 {
            if ownership.epoch() != epoch {
                break;
            }
            never.wait(Duration::from_millis(1));
        }
        // The coordinator waits for the worker now, and the worker goes on to its commit.
        assert_eq!(log.commits.load(Ordering::SeqCst), settled);
        log.sends.open();
        group.join().unwrap();
    });
    assert_eq!(log.commits.load(Ordering::SeqCst), settled, "the broker was not even asked");

    instance.turn_until("the record is committed by the next owner", STEP, |instance| {
        instance.committed(0) == Some(Offset(1))
    });
    let changes = world.log.records(&at("app-totals-changelog", 0)).unwrap();
    assert_eq!(changes.len(), 1);
    let position =
        backend.changelog_position(StorePartition { store: crate::ids::StoreId(0), partition: Partition(0) });
    assert!(position.unwrap().is_some_and(|position| position.offset > Offset::ZERO));
}
