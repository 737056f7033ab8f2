//! Restorations over the in-process log: what is read, what is trusted, and where it stops.

use std::sync::Arc;
use std::time::Duration;

use super::plans::{NOW_MICROS, World, at, plan};
use crate::clock::Clock;
use crate::ids::{EventTime, Offset, Partition, StoreId, SubTopologyId, TaskId};
use crate::log::memory::faults::{Fault, MarkerDelay, Step};
use crate::log::memory::{End, MemoryLog};
use crate::log::{
    Cleanup, GroupMetadata, Log, MembershipSettings, OffsetCommit, OutgoingRecord, OwnershipEvent, Producer,
    ProducerSettings,
};
use crate::metric::{self, Counters};
use crate::runtime::topics::{Prepared, TopicSettings, prepare};
use crate::store::memory::Memory;
use crate::store::{Backend, ChangelogPosition, Run, StorePartition, WriteBatch};
use crate::task::Facts;
use crate::task::restore::{ChangelogNow, Decision, Distrust, Error, Restoration, Restored, Tools, Turn, decide};

const STORE: StorePartition = StorePartition { store: StoreId(0), partition: Partition(0) };
const TASK: TaskId = TaskId { sub_topology: SubTopologyId(0), partition: Partition(0) };
const DAY: i64 = 86_400_000_000;

// ---- the decision --------------------------------------------------------------------------------------------------

fn local(offset: i64) -> ChangelogPosition {
    ChangelogPosition { topic_id: "T".into(), offset: Offset(offset), written_at: NOW_MICROS }
}

fn changelog() -> ChangelogNow<'static> {
    ChangelogNow { topic_id: "T", start: Offset(10), end: Offset(20), delete_retention_ms: 7 * 86_400_000 }
}

#[test]
fn local_state_is_trusted_within_the_changelog_and_the_retention_of_deletions() {
    let full = |why| Decision::Full { from: Offset(10), why };
    let of = |position: &ChangelogPosition, now| decide(Some(position), changelog(), now);
    assert_eq!(decide(None, changelog(), NOW_MICROS), full(Distrust::Nothing));
    assert_eq!(of(&local(20), NOW_MICROS), Decision::UpToDate);
    assert_eq!(of(&local(15), NOW_MICROS), Decision::Tail { from: Offset(15) });
    assert_eq!(of(&local(10), NOW_MICROS), Decision::Tail { from: Offset(10) });
    assert_eq!(of(&local(9), NOW_MICROS), full(Distrust::BeforeStart));
    assert_eq!(of(&local(21), NOW_MICROS), full(Distrust::BeyondEnd));
    assert_eq!(of(&local(15), NOW_MICROS + 3 * DAY), Decision::Tail { from: Offset(15) });
    assert_eq!(of(&local(15), NOW_MICROS + 4 * DAY), full(Distrust::TooOld));
    let other = ChangelogPosition { topic_id: "U".into(), ..local(15) };
    assert_eq!(of(&other, NOW_MICROS), full(Distrust::AnotherTopic));
}

// ---- the state machine ---------------------------------------------------------------------------------------------

struct Bench {
    world: World,
    backend: Arc<Memory>,
    facts: Arc<Facts>,
    counters: Arc<Counters>,
}

impl Bench {
    fn new(accounts: Cleanup) -> Self {
        let world = World::empty();
        world.create("events", 1, Cleanup::Delete);
        world.create("accounts", 1, accounts);
        let facts = match prepare(&world.log, &plan(), TopicSettings::default()).unwrap() {
            Prepared::Ready(facts) => Arc::from(facts),
            Prepared::Waiting(obstacles) => panic!("{obstacles:?}"),
        };
        Self { world, backend: Arc::new(Memory::new()), facts, counters: Counters::shared() }
    }

    fn tools(&self) -> Tools {
        Tools {
            log: self.world.log.shared(),
            plan: Arc::new(plan()),
            facts: Arc::clone(&self.facts),
            backend: self.backend.clone(),
            clock: self.world.clock.clone(),
            counters: Arc::clone(&self.counters),
        }
    }

    fn begin(&self) -> Result<Restoration, Error> {
        Restoration::begin(TASK, self.tools())
    }

    fn change(&self, key: &str, value: Option<&str>) {
        append(&self.world.log, "app-accounts-changelog", key, value);
    }

    fn restore(&self) -> Restored {
        let mut restoration = self.begin().unwrap();
        let mut fetcher = self.world.log.fetcher("restore").unwrap();
        for _ in 0..100 {
            if let Turn::Done(restored) = restoration.turn(&mut *fetcher, Duration::ZERO).unwrap() {
                return restored;
            }
        }
        panic!("it did not end: {restoration:?}");
    }

    fn value(&self, key: &str) -> Option<String> {
        let mut found = None;
        let mut keep = |value: Option<&[u8]>| found = value.map(|value| String::from_utf8(value.to_vec()).unwrap());
        self.backend.get(STORE, key.as_bytes(), &mut keep).unwrap();
        found
    }

    fn restored(&self, extent: &str) -> u64 {
        self.counters.counter(&metric::RECORDS_RESTORED, &["accounts", extent]).value()
    }

    fn position(&self) -> Option<ChangelogPosition> {
        self.backend.changelog_position(STORE).unwrap()
    }
}

fn append(log: &MemoryLog, topic: &str, key: &str, value: Option<&str>) -> Offset {
    let record = OutgoingRecord {
        key: Some(key.as_bytes()),
        value: value.map(str::as_bytes),
        timestamp: EventTime(NOW_MICROS / 1000),
        headers: &[],
    };
    log.append(&topic.into(), Partition(0), record).unwrap()
}

#[test]
fn a_fresh_machine_restores_in_full_and_the_next_time_only_the_tail() {
    let bench = Bench::new(Cleanup::Delete);
    for (key, value) in [("a", Some("1")), ("b", Some("2")), ("a", Some("3")), ("b", None)] {
        bench.change(key, value);
    }
    bench.restore();
    assert_eq!((bench.value("a").as_deref(), bench.value("b")), (Some("3"), None));
    assert_eq!((bench.restored("full"), bench.restored("tail")), (4, 0));

    bench.change("c", Some("4"));
    bench.restore();
    assert_eq!(bench.value("c").as_deref(), Some("4"));
    assert_eq!((bench.restored("full"), bench.restored("tail")), (4, 1));

    bench.restore();
    assert_eq!((bench.restored("full"), bench.restored("tail")), (4, 1));
    assert_eq!(bench.position().unwrap().offset, Offset(5));
}

/// Others go first where they have to, and the memory for it stays small.
#[test]
fn a_turn_takes_a_bounded_share_of_large_records_and_many_small_ones() {
    const KIB: u64 = 1024;
    let bench = Bench::new(Cleanup::Delete);
    let large = "x".repeat(256 * 1024);
    for number in 0..64 {
        bench.change(&format!("{number}"), Some(&large));
    }
    let shares = |bench: &Bench| {
        let mut restoration = bench.begin().unwrap();
        let mut fetcher = bench.world.log.fetcher("restore").unwrap();
        let (mut shares, mut before) = (Vec::new(), 0);
        for _ in 0..100 {
            let done = matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::Done(_));
            let progress = restoration.progress();
            shares.push((progress.records, progress.bytes - before));
            before = progress.bytes;
            if done {
                return shares;
            }
        }
        panic!("it did not end: {shares:?}");
    };
    let first = shares(&bench);
    assert!(first[0].1 <= 5 * 1024 * KIB, "before any record has been seen: {first:?}");
    assert!(first[1..].iter().all(|(_, bytes)| *bytes <= 1280 * KIB), "{first:?}");
    assert_eq!(bench.restored("full"), 64);

    for number in 0..4_000 {
        bench.change(&format!("small {number}"), Some("x"));
    }
    let second = shares(&bench);
    assert_eq!(second[0].0, 4_000, "{second:?}");
}

/// EXACTLY-ONCE rule 3c: what followed the state is gone, so nothing can be built upon it.
#[test]
fn a_changelog_that_goes_out_of_range_under_a_restoration_is_restored_from_its_new_start() {
    let bench = Bench::new(Cleanup::Delete);
    bench.change("old", Some("x"));
    bench.restore();
    let large = "x".repeat(256 * 1024);
    for number in 0..64 {
        bench.change(&format!("{number}"), Some(&large));
    }
    let mut restoration = bench.begin().unwrap();
    let mut fetcher = bench.world.log.fetcher("restore").unwrap();
    assert!(matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::More(_)));
    assert!(bench.value("0").is_some());
    bench.world.log.trim(&"app-accounts-changelog".into(), 4).unwrap();
    let done = (0..100).any(|_| matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::Done(_)));
    assert!(done, "{restoration:?}");
    let left: Vec<String> = (0..64).map(|number| number.to_string()).filter(|key| bench.value(key).is_some()).collect();
    assert_eq!(left, ["60", "61", "62", "63"]);
    assert_eq!(bench.value("old"), None);
    assert_eq!(bench.position().unwrap().offset, Offset(65));
    assert_eq!(bench.restored("full"), 1 + 4);
}

#[test]
fn rows_without_a_position_are_wiped() {
    let bench = Bench::new(Cleanup::Delete);
    let mut stray = Run::default();
    stray.push(b"stray", Some(b"x"));
    bench.backend.write(WriteBatch { rows: vec![(STORE, stray)], ..WriteBatch::default() }).unwrap();
    bench.restore();
    assert_eq!(bench.value("stray"), None);
}

#[test]
fn a_changelog_made_anew_under_the_same_name_is_not_taken_for_the_old_one() {
    let bench = Bench::new(Cleanup::Delete);
    bench.change("a", Some("1"));
    bench.restore();
    let position = ChangelogPosition { topic_id: "another".into(), ..bench.position().unwrap() };
    bench.backend.write(WriteBatch { positions: vec![(STORE, position)], ..WriteBatch::default() }).unwrap();
    bench.restore();
    assert_eq!(bench.restored("full"), 2);
    assert_eq!(bench.value("a").as_deref(), Some("1"));
}

#[test]
fn a_tail_that_is_cut_off_keeps_the_age_of_the_state_beneath() {
    let bench = Bench::new(Cleanup::Delete);
    bench.change("a", Some("1"));
    bench.restore();
    let written_at = bench.position().unwrap().written_at;
    bench.world.clock.advance(Duration::from_hours(24));
    bench.change("a", Some("2"));
    // The marker of another producer's transaction is missing, so that the end is not reached.
    let mut producer = transactional(&bench.world.log);
    let topic = producer.topic(&"app-accounts-changelog".into()).unwrap();
    producer.begin().unwrap();
    let open = OutgoingRecord { key: Some(b"b"), value: Some(b"x"), timestamp: EventTime(0), headers: &[] };
    producer.send(topic, Partition(0), open).unwrap();
    producer.poll(Duration::ZERO);
    let mut restoration = bench.begin().unwrap();
    let mut fetcher = bench.world.log.fetcher("restore").unwrap();
    for _ in 0..5 {
        assert!(matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::More(_)));
    }
    assert_eq!(bench.value("a").as_deref(), Some("2"));
    assert_eq!(
        bench.position().unwrap(),
        ChangelogPosition { offset: Offset(2), written_at, ..bench.position().unwrap() }
    );
    // Once it is decided, the end is reached, and with it the age renewed.
    producer.abort().unwrap();
    let done = (0..100).any(|_| matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::Done(_)));
    assert!(done);
    assert_eq!(bench.value("b"), None);
    assert_eq!(bench.position().unwrap().written_at, bench.world.clock.wall_micros());
}

fn transactional(log: &MemoryLog) -> Box<dyn Producer> {
    let settings = ProducerSettings {
        name: "p".into(),
        transactional_id: Some("p".into()),
        max_message_bytes: 1 << 20,
        batch_bytes: 1 << 20,
        queue_bytes: 1 << 20,
    };
    let mut producer = log.producer(&settings).unwrap();
    producer.init().unwrap();
    producer
}

/// KAFKA-10167: the offsets of a commit are visible, its rows in the changelog not yet.
#[test]
fn a_commit_whose_markers_are_late_is_waited_for() {
    let bench = Bench::new(Cleanup::Delete);
    append(&bench.world.log, "accounts", "a", Some("{}"));
    let group = member(&bench.world);
    bench.world.log.set_faults(Some(Box::new(|point| match point.step {
        Step::BeforeEnd(_, End::Commit) => Fault::DelayMarkers(MarkerDelay::Topics(Duration::from_secs(3))),
        _ => Fault::None,
    })));
    let mut producer = transactional(&bench.world.log);
    let topic = producer.topic(&"app-accounts-changelog".into()).unwrap();
    producer.begin().unwrap();
    let row = OutgoingRecord { key: Some(b"a"), value: Some(b"1"), timestamp: EventTime(0), headers: &[] };
    producer.send(topic, Partition(0), row).unwrap();
    let offsets = [OffsetCommit { partition: at("accounts", 0), offset: Offset(1), metadata: String::new() }];
    producer.commit(&offsets, &group).unwrap();

    let mut restoration = bench.begin().unwrap();
    let mut fetcher = bench.world.log.fetcher("restore").unwrap();
    for _ in 0..10 {
        assert!(matches!(restoration.turn(&mut *fetcher, Duration::ZERO).unwrap(), Turn::More(_)));
    }
    bench.world.log.release_markers();
    let restored = (0..100).find_map(|_| match restoration.turn(&mut *fetcher, Duration::ZERO).unwrap() {
        Turn::Done(restored) => Some(restored),
        Turn::More(_) => None,
    });
    assert_eq!(restored.unwrap().positions, [Offset(1)]);
    assert_eq!(bench.value("a").as_deref(), Some("1"));
}

/// A member of the group, for its metadata.
fn member(world: &World) -> GroupMetadata {
    let settings = MembershipSettings {
        group: "app".into(),
        client_id: "m".into(),
        instance_id: None,
        topics: vec!["accounts".into()],
        session_timeout: Duration::from_mins(10),
        heartbeat_interval: Duration::from_secs(1),
        max_poll_interval: Duration::from_mins(10),
    };
    let mut membership = world.log.join(&settings).unwrap();
    for _ in 0..100 {
        if let Some(event @ OwnershipEvent::Assigned(_)) = membership.poll(Duration::ZERO).unwrap() {
            membership.acknowledge(&event).unwrap();
            let metadata = membership.group().metadata().unwrap();
            // It stays a member for as long as the session lasts.
            return metadata;
        }
        world.clock.advance(Duration::from_millis(100));
    }
    panic!("the group did not assign anything");
}

#[test]
fn an_input_without_offset_starts_where_its_source_says_unless_state_knows_better() {
    let bench = Bench::new(Cleanup::Delete);
    append(&bench.world.log, "accounts", "a", Some("{}"));
    assert_eq!(bench.restore().positions, [Offset(0)]);
    let inputs = vec![(at("accounts", 0), Offset(1))];
    bench.backend.write(WriteBatch { inputs, ..WriteBatch::default() }).unwrap();
    let error = bench.begin().unwrap_err();
    assert!(matches!(&error, Error::StateWithoutOffset { recorded: Offset(1), .. }), "{error}");
    assert!(error.to_string().contains("sidestream reset"), "{error}");
}

#[test]
fn a_source_that_serves_as_changelog_is_restored_to_the_committed_offset_only() {
    let bench = Bench::new(Cleanup::Compact);
    assert!(bench.facts.changelog(StoreId(0)).is_source);
    for (key, value) in [("a", "{\"name\": \"x\"}"), ("b", "{\"name\": \"y\"}"), ("c", "{\"name\": \"z\"}")] {
        append(&bench.world.log, "accounts", key, Some(value));
    }
    // A new application: all of it is input.
    assert_eq!(bench.restore().positions, [Offset(0)]);
    assert_eq!(bench.restored("full"), 0);

    let group = member(&bench.world);
    let mut producer = transactional(&bench.world.log);
    producer.begin().unwrap();
    let offsets = [OffsetCommit { partition: at("accounts", 0), offset: Offset(2), metadata: ";bootstrap=3".into() }];
    producer.commit(&offsets, &group).unwrap();
    let restored = bench.restore();
    assert_eq!(restored.positions, [Offset(2)]);
    // The first reading of a table is remembered until it is over.
    assert_eq!(restored.bootstrap_ends, [Some(Offset(3))]);
    assert_eq!(bench.position().unwrap().offset, Offset(2));
    assert_eq!(bench.restored("full") + bench.restored("tail"), 2);
}
