//! Topics that were deleted and made again: what is committed, and what is stored, is of the former ones (rules 3b and 3d).

use std::sync::Arc;
use std::time::Duration;

use super::plans::{World, at, describe, totals};
use crate::ids::{EventTime, Offset, Partition, StoreId};
use crate::log::{Cleanup, Log, OffsetCommit, OutgoingRecord};
use crate::runtime::reposition::{self, Edge};
use crate::runtime::reset::{Scope, look, perform};
use crate::runtime::{Instance, Lifetime};
use crate::store::memory::Memory;
use crate::store::{Backend, StorePartition};
use crate::topology::Plan;

const CHANGELOG: &str = "app-totals-changelog";

fn counting() -> Plan {
    totals("n: COUNT(*)", "id")
}

fn feed(world: &World) {
    let value = Some(&br#"{"amount": 1.5, "city": "Rome"}"#[..]);
    let record = OutgoingRecord { key: Some(b"a"), value, timestamp: EventTime(0), headers: &[] };
    world.log.append(&"events".into(), Partition(0), record).unwrap();
}

fn start(world: &World, backend: &Arc<Memory>) -> Instance {
    world.instance_with("a", counting(), backend.clone(), Lifetime::Dynamic).0
}

fn catches_up(world: &World, instance: &mut Instance) {
    world.turn_until(&mut [instance], |instances| {
        let view = instances[0].view();
        view.readiness().ready && view.lag().iter().all(|lag| lag.lag == Some(0))
    });
}

/// A world in which an application has counted and ended, and its local state.
fn counted() -> (World, Arc<Memory>) {
    let world = World::empty();
    world.create("events", 1, Cleanup::Delete);
    feed(&world);
    let backend = Arc::new(Memory::new());
    let mut instance = start(&world, &backend);
    catches_up(&world, &mut instance);
    instance.stop();
    (world, backend)
}

fn delete(world: &World, topic: &str) {
    world.log.delete_topics(&[topic.into()]).unwrap();
}

/// What an instance ends with.
fn end_of(world: &World, instance: &mut Instance) -> String {
    for _ in 0..12_000 {
        if let Err(error) = instance.turn() {
            instance.stop();
            return error.to_string();
        }
        world.clock.advance(Duration::from_millis(10));
    }
    panic!("it did not end within two minutes: {}", describe(instance));
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_changelog_made_anew_while_all_were_down_is_refused_with_and_without_local_state() {
    let (world, backend) = counted();
    delete(&world, CHANGELOG);
    let store = StorePartition { store: StoreId(0), partition: Partition(0) };
    let before = backend.changelog_position(store).unwrap();
    assert!(before.is_some());
    for backend in [&backend, &Arc::new(Memory::new())] {
        let message = end_of(&world, &mut start(&world, backend));
        says(&message, &[CHANGELOG, "`totals`", "deleted and made anew", "`sidestream reset`", "--step"]);
    }
    assert_eq!(backend.changelog_position(store).unwrap(), before, "the local state is left alone");
}

#[test]
fn after_a_reset_of_the_step_its_new_changelog_is_accepted_and_so_is_an_old_offset_that_says_nothing() {
    let (world, _) = counted();
    let nowhere = tempfile::tempdir().unwrap();
    let removal = look(&world.log, &counting(), Scope::Step("totals")).unwrap();
    perform(&world.log, &counting(), nowhere.path(), &removal).unwrap();
    let mut instance = start(&world, &Arc::new(Memory::new()));
    catches_up(&world, &mut instance);
    instance.stop();

    delete(&world, CHANGELOG);
    let unsaid = OffsetCommit { partition: at("events", 0), offset: Offset(1), metadata: "a:8088".to_owned() };
    world.log.set_offsets("app", &[unsaid]).unwrap();
    catches_up(&world, &mut start(&world, &Arc::new(Memory::new())));
}

#[test]
fn a_source_made_anew_is_refused_whether_kafka_has_forgotten_its_offsets_or_not() {
    let (world, backend) = counted();
    let committed = world.log.committed("app", &[at("events", 0)]).unwrap().remove(0).unwrap();
    delete(&world, "events");
    world.create("events", 1, Cleanup::Delete);
    feed(&world);
    feed(&world);
    for backend in [&backend, &Arc::new(Memory::new())] {
        let message = end_of(&world, &mut start(&world, backend));
        says(&message, &["no committed offset", "would count twice", "sidestream reset"]);
    }

    let kept = OffsetCommit { partition: at("events", 0), offset: committed.offset, metadata: committed.metadata };
    world.log.set_offsets("app", &[kept]).unwrap();
    for backend in [&backend, &Arc::new(Memory::new())] {
        let message = end_of(&world, &mut start(&world, backend));
        says(&message, &["events", "deleted and created again", "`sidestream reset --offsets earliest`"]);
    }

    // The offset is within the new topic, and moved all the same.
    let moves = reposition::look(&world.log, &counting(), Edge::Earliest, None).unwrap();
    assert_eq!(moves.iter().map(|at| (at.from, at.to)).collect::<Vec<_>>(), [(Offset(1), Offset(0))]);
    reposition::perform(&world.log, &counting(), &moves).unwrap();
    assert!(reposition::look(&world.log, &counting(), Edge::Earliest, None).unwrap().is_empty());
    let mut instance = start(&world, &backend);
    catches_up(&world, &mut instance);
    let committed = world.log.committed("app", &[at("events", 0)]).unwrap().remove(0).unwrap();
    assert_eq!(committed.offset, Offset(2));
}

#[test]
fn a_topic_that_is_replaced_under_a_running_instance_ends_it() {
    for topic in ["events", CHANGELOG] {
        let (world, backend) = counted();
        let mut instance = start(&world, &backend);
        catches_up(&world, &mut instance);
        delete(&world, topic);
        if topic == CHANGELOG {
            world.create_with(topic, 1, Cleanup::Compact, &[("message.timestamp.type", "LogAppendTime")]);
        } else {
            world.create(topic, 1, Cleanup::Delete);
        }
        says(&end_of(&world, &mut instance), &["sidestream reset"]);
    }
}
