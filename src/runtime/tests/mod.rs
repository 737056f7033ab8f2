//! Instances over the in-process log, turned by hand: start, hand-over, loss, conflict, end.

mod gate;
mod misfits;
mod plans;
mod querying;
mod replaced;
mod resetting;
mod restoring;
mod threads;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clock::SystemClock;
use crate::ids::{EventTime, Offset, Partition, StoreId, TaskId};
use crate::log::memory::faults::{Fault, MarkerDelay, Request, Step};
use crate::log::memory::{End, MemoryLog};
use crate::log::{Cleanup, Log, OutgoingRecord, ProducerSettings};
use crate::runtime::view::{Condition, Owner, Phase, TaskState};
use crate::runtime::{Instance, Lifetime, Shutdown, run};
use crate::store::directory::StateDirectory;
use crate::store::memory::Memory;
use crate::store::{Backend, StorePartition};
use plans::{World, at, plan, plan_over, totals};

fn running(instance: &Instance) -> BTreeSet<TaskId> {
    let tasks = instance.view().tasks();
    tasks.into_iter().filter(|task| task.state == TaskState::Running).map(|task| task.id).collect()
}

fn is_ready(instance: &Instance) -> bool {
    instance.view().readiness().ready
}

#[test]
fn an_instance_alone_opens_every_task_and_is_ready() {
    let world = World::new();
    let (mut instance, _client) = world.instance("a");
    assert!(!is_ready(&instance));
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert_eq!(running(&instance).len(), 8);
    assert!(instance.view().readiness().degraded.is_empty(), "{}", plans::describe(&instance));
}

/// Control records stand at the end of a repartition topic, and are no work.
#[test]
fn at_rest_nothing_lags_behind_a_repartition_topic() {
    let world = World::empty();
    world.create("events", 1, Cleanup::Delete);
    let (mut instance, _) =
        world.instance_with("a", totals("n: COUNT(*)", "city"), Arc::new(Memory::new()), Lifetime::Dynamic);
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    for amount in 0..3 {
        let value = format!(r#"{{"amount": {amount}, "city": "Rome"}}"#);
        let record =
            OutgoingRecord { key: Some(b"a"), value: Some(value.as_bytes()), timestamp: EventTime(0), headers: &[] };
        world.log.append(&"events".into(), Partition(0), record).unwrap();
        world.turn_until(&mut [&mut instance], |instances| {
            let lags = instances[0].view().lag();
            lags.iter()
                .any(|lag| lag.input.topic.as_str() == "app-totals-repartition" && lag.end > Some(Offset(amount)))
        });
        world.turn_until(&mut [&mut instance], |instances| {
            instances[0].view().lag().iter().all(|lag| lag.lag == Some(0))
        });
    }
}

#[test]
fn records_written_are_counted_by_topic_when_their_transaction_ends() {
    let world = World::empty();
    world.create("events", 1, Cleanup::Delete);
    let (mut instance, _) =
        world.instance_with("a", totals("n: COUNT(*)", "city"), Arc::new(Memory::new()), Lifetime::Dynamic);
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    let counters = Arc::clone(&instance.view().counters);
    let written = |topic: &str| counters.counter(&crate::metric::RECORDS_WRITTEN, &[topic]).value();
    let changelog = written("app-totals-changelog");
    for city in ["Rome", "Oslo", "Rome"] {
        let value = format!(r#"{{"amount": 1, "city": "{city}"}}"#);
        let record =
            OutgoingRecord { key: Some(b"a"), value: Some(value.as_bytes()), timestamp: EventTime(0), headers: &[] };
        world.log.append(&"events".into(), Partition(0), record).unwrap();
    }
    world.turn_until(&mut [&mut instance], |_| written("app-totals-changelog") >= changelog + 2);
    assert_eq!(written("app-totals-repartition"), 3);
}

#[test]
fn a_restoration_that_hears_nothing_says_what_it_waits_for() {
    let world = World::new();
    let (mut first, _) = world.instance("a");
    world.turn_until(&mut [&mut first], |instances| is_ready(instances[0]));
    first.stop();
    let mut producer = world.log.producer(&ProducerSettings {
        name: "p".into(),
        transactional_id: Some("p".into()),
        max_message_bytes: 1 << 20,
        batch_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    });
    let producer = producer.as_mut().unwrap();
    producer.init().unwrap();
    producer.begin().unwrap();
    let topic = producer.topic(&"app-accounts-changelog".into()).unwrap();
    let record = OutgoingRecord { key: Some(b"a"), value: None, timestamp: EventTime(0), headers: &[] };
    producer.send(topic, Partition(2), record).unwrap();
    producer.poll(Duration::ZERO);
    world.log.set_faults(Some(Box::new(|point| match point.step {
        Step::BeforeEnd(_, End::Abort) => Fault::DelayMarkers(MarkerDelay::Topics(Duration::from_mins(5))),
        _ => Fault::None,
    })));
    producer.abort().unwrap();
    world.log.set_faults(None);

    let (mut instance, _) = world.instance("b");
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::TaskWaiting));
    let readiness = instance.view().readiness();
    assert!(!readiness.ready);
    let note = readiness.reasons.iter().find(|note| note.condition == Condition::TaskWaiting).unwrap();
    assert!(note.message.contains("app-accounts-changelog-2 for 10 s"), "{}", note.message);
    world.log.release_markers();
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert!(!instance.view().holds(Condition::TaskWaiting));
}

/// A first instance makes the topics, and ends; then changes of the table are in the partition's changelog.
fn changed_accounts(world: &World, backend: &Arc<Memory>, changes: &[(u32, usize)]) {
    let (mut first, _) = world.instance_with("a", plan(), backend.clone(), Lifetime::Dynamic);
    world.turn_until(&mut [&mut first], |instances| is_ready(instances[0]));
    first.stop();
    for (partition, count) in changes {
        for number in 0..*count {
            let key = format!("{number}");
            let record =
                OutgoingRecord { key: Some(key.as_bytes()), value: None, timestamp: EventTime(0), headers: &[] };
            world.log.append(&"app-accounts-changelog".into(), Partition(*partition), record).unwrap();
        }
    }
}

/// In the order in which they are opened.
fn opened(world: &World, instance: &mut Instance) -> Vec<TaskId> {
    let mut order: Vec<TaskId> = Vec::new();
    world.turn_until(&mut [instance], |instances| {
        let fresh: Vec<TaskId> = running(instances[0]).into_iter().filter(|task| !order.contains(task)).collect();
        order.extend(fresh);
        is_ready(instances[0])
    });
    order
}

#[test]
fn tasks_without_state_do_not_wait_for_those_that_are_restored() {
    let world = World::new();
    changed_accounts(&world, &Arc::new(Memory::new()), &[(0, 20_000), (1, 10), (2, 10), (3, 10)]);
    let (mut instance, _) = world.instance("b");
    let order = opened(&world, &mut instance);
    let stateless = order.iter().take_while(|task| task.sub_topology.0 == 1).count();
    assert_eq!((stateless, order.len()), (4, 8), "{order:?}");
}

#[test]
fn tasks_that_lack_little_are_restored_before_those_that_lack_everything() {
    let world = World::new();
    let backend = Arc::new(Memory::new());
    changed_accounts(&world, &backend, &[(0, 20_000), (1, 10), (2, 10), (3, 10)]);
    backend.wipe(StorePartition { store: StoreId(0), partition: Partition(0) }).unwrap();
    let (mut instance, _) = world.instance_with("a", plan(), backend, Lifetime::Dynamic);
    let order = opened(&world, &mut instance);
    assert_eq!(order.iter().map(ToString::to_string).next_back().as_deref(), Some("0_0"), "{order:?}");
    assert_eq!(order.len(), 8);
}

#[test]
fn internal_topics_are_made_with_the_partition_counts_of_their_sources() {
    let world = World::new();
    let (mut instance, _client) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert_eq!(world.partitions_of("app-accounts-changelog"), Some(4));
    assert_eq!(world.partitions_of("app.dead-letters"), Some(1));
}

#[test]
fn a_compacted_source_serves_as_changelog_and_no_other_is_made() {
    let world = World::empty();
    world.create("events", 1, Cleanup::Delete);
    world.create("accounts", 1, Cleanup::Compact);
    let (mut instance, _client) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert_eq!(world.partitions_of("app-accounts-changelog"), None);
}

#[test]
fn a_missing_topic_is_named_and_waited_for() {
    let world = World::empty();
    world.create("accounts", 1, Cleanup::Delete);
    let (mut instance, _client) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::TopicMissing));
    let readiness = instance.view().readiness();
    assert!(!readiness.ready);
    assert_eq!(readiness.reasons[0].message, "source topic `events` does not exist; waiting for it");
    world.create("events", 1, Cleanup::Delete);
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert!(!instance.view().holds(Condition::TopicMissing));
}

#[test]
fn an_internal_topic_that_does_not_fit_is_named_with_what_to_do() {
    for (cleanup, expected) in [(Cleanup::Delete, "compact"), (Cleanup::Compact, "LogAppendTime")] {
        let world = World::new();
        world.create("app-accounts-changelog", 4, cleanup);
        let (mut instance, _client) = world.instance("a");
        world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::TopicUnfit));
        let readiness = instance.view().readiness();
        assert!(!readiness.ready);
        let message = &readiness.reasons[0].message;
        assert!(message.contains("app-accounts-changelog") && message.contains(expected), "{message}");
    }
}

#[test]
fn a_second_instance_takes_its_share_and_a_leaving_one_gives_everything_back() {
    let world = World::new();
    let (mut first, _) = world.instance("a");
    world.turn_until(&mut [&mut first], |instances| is_ready(instances[0]));
    let (mut second, _) = world.instance("b");
    world.turn_until(&mut [&mut first, &mut second], |instances| {
        is_ready(instances[1]) && running(instances[0]).len() == 4 && running(instances[1]).len() == 4
    });
    assert!(running(&first).is_disjoint(&running(&second)));
    // Both know who answers for what.
    let theirs = *running(&second).first().unwrap();
    world.turn_until(&mut [&mut first, &mut second], |instances| {
        instances[0].view().owner(theirs) == Owner::Remote("b:8088".into())
    });
    assert_eq!(first.view().peers(), ["b:8088"]);

    first.stop();
    assert_eq!(first.view().phase(), Phase::Stopped);
    world.turn_until(&mut [&mut second], |instances| running(instances[0]).len() == 8);
}

#[test]
fn a_killed_instance_is_replaced_after_its_session() {
    let world = World::new();
    let (mut first, first_client) = world.instance("a");
    let (mut second, _) = world.instance("b");
    world.turn_until(&mut [&mut first, &mut second], |instances| {
        running(instances[0]).len() == 4 && running(instances[1]).len() == 4
    });
    first_client.kill();
    drop(first);
    world.turn_until(&mut [&mut second], |instances| running(instances[0]).len() == 8);
}

#[test]
fn after_a_lost_session_the_tasks_are_opened_anew() {
    let world = World::new();
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 8);
    let member = world.log.describe_group("app").unwrap().members[0].member_id.clone();
    assert!(world.log.expire_member("app", &member));
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).is_empty());
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 8);
}

/// Only the representative is subscribed to: of the other input the broker would forget an offset that is not committed.
#[test]
fn a_task_commits_the_offsets_of_all_its_inputs_when_it_opens() {
    let world = World::new();
    let text = "version: 1\nname: app\nstreams:\n  events: {topic: events, key: {name: id, type: STRING}, columns: {}}\n  \
                accounts: {topic: accounts, key: {name: id, type: STRING}, columns: {}}\nsteps:\n  totals: {from: \
                [events, accounts], group_by: id, aggregate: {n: COUNT(*)}, ttl: none}\n";
    let plan = crate::topology::load_text("app.yaml", text, None, &|_| None).unwrap().plan;
    let (mut instance, _) = world.instance_with("a", plan, Arc::new(Memory::new()), Lifetime::Dynamic);
    let inputs: Vec<_> =
        ["accounts", "events"].iter().flat_map(|topic| (0..4).map(|partition| at(topic, partition))).collect();
    world.turn_until(&mut [&mut instance], |_| {
        world
            .log
            .committed("app", &inputs)
            .unwrap()
            .iter()
            .all(|committed| committed.as_ref().is_some_and(|committed| committed.offset == Offset::ZERO))
    });
}

/// The broker lets offsets of idle inputs expire, and tombstones vanish: an idle task says that it is there.
#[test]
fn an_idle_task_is_opened_anew_every_few_hours() {
    let world = World::new();
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 8);
    let finished = |instance: &Instance| instance.view().counters.total(&crate::metric::RESTORATIONS);
    let commits = |instance: &Instance| instance.view().counters.total(&crate::metric::COMMITS);
    world.turn_until(&mut [&mut instance], |instances| commits(instances[0]) > 0);
    let (before, committed) = (finished(&instance), commits(&instance));
    for _ in 0..13 * 3600 / 4 {
        world.clock.advance(Duration::from_secs(4));
        instance.turn().unwrap();
    }
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 8);
    assert!(finished(&instance) >= before + 4, "{} after {before}", finished(&instance));
    world.turn_until(&mut [&mut instance], |instances| commits(instances[0]) > committed);
}

/// EXACTLY-ONCE rule 2b.
#[test]
fn a_start_with_fewer_workers_ends_all_former_transactions_before_it_reads_offsets() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    StateDirectory::open(folder.path(), "app").unwrap().use_workers(3).unwrap();
    let steps: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&steps);
    world.log.set_faults(Some(Box::new(move |point| {
        match point.step {
            Step::Init(id) => seen.lock().push(format!("init {id}")),
            Step::Request(Request::Committed) => seen.lock().push("offsets".to_owned()),
            _ => {}
        }
        Fault::None
    })));
    let mut settings = world.settings("a", plan(), Arc::new(Memory::new()), Lifetime::Dynamic, &world.log);
    settings.directory = Some(StateDirectory::open(folder.path(), "app").unwrap());
    settings.workers = 1;
    let mut instance = Instance::new(settings);
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    let steps = steps.lock();
    let first_read = steps.iter().position(|step| step == "offsets").unwrap();
    let mut before: Vec<&str> = steps[..first_read].iter().map(String::as_str).collect();
    before.sort_unstable();
    assert_eq!(before, ["init app-a-0", "init app-a-1", "init app-a-2"]);
}

/// EXACTLY-ONCE rule 15c: while more waits to be read, nothing but the bytes of dirty rows calls for a commit here.
#[test]
fn a_transaction_is_cut_when_dirty_rows_have_grown_to_their_share() {
    const RECORDS: usize = 20_000;
    let commits_under_way = |dirty_rows_per_worker| {
        let world = World::empty();
        world.create("events", 1, Cleanup::Delete);
        let plan = totals("n: COUNT(*)", "id");
        let mut settings = world.settings("a", plan, Arc::new(Memory::new()), Lifetime::Dynamic, &world.log);
        settings.commit_interval = Duration::from_hours(1);
        settings.budget.dirty_rows_per_worker = dirty_rows_per_worker;
        let mut instance = Instance::new(settings);
        world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
        for number in 0..RECORDS {
            let key = format!("key {number}");
            let record =
                OutgoingRecord { key: Some(key.as_bytes()), value: Some(b"{}"), timestamp: EventTime(0), headers: &[] };
            world.log.append(&"events".into(), Partition(0), record).unwrap();
        }
        let mut commits = Vec::new();
        world.turn_until(&mut [&mut instance], |_| {
            let committed = world.log.committed("app", &[at("events", 0)]).unwrap().remove(0);
            let committed = committed.map_or(0, |committed| usize::try_from(committed.offset.0).unwrap());
            if commits.last() != Some(&committed) {
                commits.push(committed);
            }
            committed == RECORDS
        });
        commits
    };
    assert_eq!(commits_under_way(256 << 20), [0, RECORDS]);
    let cut = commits_under_way(1 << 20);
    assert!(cut.len() > 3, "{cut:?}");
    assert!(cut.windows(2).all(|two| two[1] - two[0] < RECORDS / 2), "{cut:?}");
}

#[test]
fn an_instance_with_another_map_stays_out_while_the_old_one_runs() {
    let world = World::new();
    world.create("more", 4, Cleanup::Delete);
    let (mut old, _) = world.instance("old");
    world.turn_until(&mut [&mut old], |instances| is_ready(instances[0]));
    let (mut new, _) =
        world.instance_with("new", plan_over(&["events", "more"]), Arc::new(Memory::new()), Lifetime::Dynamic);
    world.turn_until(&mut [&mut old, &mut new], |instances| instances[1].view().holds(Condition::MapConflict));
    world.turn_until(&mut [&mut old, &mut new], |instances| {
        running(instances[0]).len() == 8 && running(instances[1]).is_empty()
    });
    let readiness = new.view().readiness();
    assert!(readiness.ready);
    let conflict = readiness.degraded.iter().find(|note| note.condition == Condition::MapConflict).unwrap();
    assert!(conflict.message.contains("old.map-"), "{}", conflict.message);

    old.stop();
    world.turn_until(&mut [&mut new], |instances| running(instances[0]).len() == 12);
    assert!(is_ready(&new));
    world.turn_until(&mut [&mut new], |instances| !instances[0].view().holds(Condition::MapConflict));
}

#[test]
fn two_processes_with_one_instance_id_end_with_one_that_says_so() {
    let world = World::new();
    let backend = || Arc::new(Memory::new());
    let (mut first, _) = world.instance_with("pod-0", plan(), backend(), Lifetime::Static);
    world.turn_until(&mut [&mut first], |instances| is_ready(instances[0]));
    let (mut second, _) = world.instance_with("pod-0", plan(), backend(), Lifetime::Static);
    world.turn_until(&mut [&mut first, &mut second], |instances| {
        instances.iter().any(|instance| instance.view().holds(Condition::InstanceFenced))
    });
    let fenced = [&first, &second].into_iter().find(|instance| instance.view().holds(Condition::InstanceFenced));
    assert!(running(fenced.unwrap()).is_empty());
    world.turn_until(&mut [&mut first, &mut second], |instances| {
        instances.iter().any(|instance| running(instance).len() == 8)
    });
}

#[test]
fn kafka_away_at_the_start_is_waited_for_and_said() {
    let world = World::new();
    world.log.set_faults(Some(Box::new(|point| match point.step {
        Step::Request(_) => Fault::Unreachable,
        _ => Fault::None,
    })));
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::KafkaUnreachable));
    assert!(!is_ready(&instance));
    world.log.set_faults(None);
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    assert!(!instance.view().holds(Condition::KafkaUnreachable));
}

#[test]
fn a_grown_source_of_a_stateful_step_stops_that_step_and_says_so() {
    let world = World::new();
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    world.log.grow_topic(&"accounts".into(), 6).unwrap();
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::SourceChanged));
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 4);
}

#[test]
fn a_grown_source_of_a_stateless_step_is_taken_in() {
    let world = World::new();
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| is_ready(instances[0]));
    world.log.grow_topic(&"events".into(), 6).unwrap();
    world.turn_until(&mut [&mut instance], |instances| running(instances[0]).len() == 10);
}

/// On threads, with the machine's clock.
#[test]
fn a_threaded_instance_starts_runs_and_stops_in_time() {
    let clock = SystemClock::shared();
    let log = MemoryLog::new(clock.clone());
    let world = World::empty();
    for topic in ["events", "accounts"] {
        let topic = crate::log::NewTopic {
            name: topic.into(),
            partitions: 4,
            replication: None,
            cleanup: Cleanup::Delete,
            config: Vec::new(),
        };
        log.create_topic(&topic).unwrap();
    }
    let mut settings = world.settings("a", plan(), Arc::new(Memory::new()), Lifetime::Dynamic, &log);
    settings.clock = clock.clone();
    settings.view = crate::runtime::View::new(Arc::clone(&settings.plan), clock.clone());
    let view = Arc::clone(&settings.view);
    let shutdown = Shutdown::new();
    let stopper = shutdown.clone();
    let thread = std::thread::spawn(move || run(settings, &stopper));
    let deadline = clock.monotonic() + Duration::from_secs(30);
    while !(view.readiness().ready && view.tasks().len() == 8) {
        assert!(clock.monotonic() < deadline, "{:?}", view.readiness());
        assert!(!shutdown.wait(Duration::from_millis(5)));
    }
    shutdown.request();
    let report = thread.join().unwrap().unwrap();
    assert!(report.in_time, "{report:?}");
    assert_eq!(view.phase(), Phase::Stopped);
    assert!(log.describe_group("app").unwrap().members.is_empty());
}
