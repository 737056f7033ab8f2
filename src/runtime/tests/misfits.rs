//! State that another version of the topology wrote, on a machine that has only the changelogs of it.

use std::sync::Arc;
use std::time::Duration;

use super::plans::{World, describe, totals};
use crate::ids::{EventTime, Partition};
use crate::log::memory::MemoryLog;
use crate::log::{Cleanup, OutgoingRecord};
use crate::runtime::reset::{Scope, look, perform};
use crate::runtime::view::Condition;
use crate::runtime::{Instance, Lifetime};
use crate::store::memory::Memory;
use crate::topology::Plan;

fn start(world: &World, plan: Plan) -> (Instance, MemoryLog) {
    world.instance_with("a", plan, Arc::new(Memory::new()), Lifetime::Dynamic)
}

/// A world in which an application has counted something and ended.
fn world_of(plan: Plan) -> World {
    let world = World::empty();
    world.create("events", 1, Cleanup::Delete);
    let record = OutgoingRecord {
        key: Some(b"a"),
        value: Some(br#"{"amount": 1.5, "city": "Rome"}"#),
        timestamp: EventTime(0),
        headers: &[],
    };
    world.log.append(&"events".into(), Partition(0), record).unwrap();
    let (mut instance, _client) = start(&world, plan);
    world.turn_until(&mut [&mut instance], |instances| {
        instances[0].view().readiness().ready && instances[0].view().lag().iter().all(|lag| lag.lag == Some(0))
    });
    instance.stop();
    world
}

fn refuses(world: &World, plan: Plan, parts: &[&str]) {
    let (mut instance, _client) = start(world, plan);
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().holds(Condition::TaskFailed));
    // It stays so, through the attempts that follow.
    for _ in 0..3_000 {
        instance.turn().unwrap();
        world.clock.advance(Duration::from_millis(10));
        assert!(!instance.view().readiness().ready, "{}", describe(&instance));
    }
    let readiness = instance.view().readiness();
    let note = readiness.reasons.iter().find(|note| note.condition == Condition::TaskFailed);
    let note = note.unwrap_or_else(|| panic!("{readiness:?}"));
    for part in parts {
        assert!(note.message.contains(part), "{part} in {}", note.message);
    }
    instance.stop();
}

#[test]
fn a_replaced_column_in_the_changelog_keeps_a_new_machine_from_being_ready() {
    let world = world_of(totals("x: SUM(amount)", "id"));
    let parts = ["column `x` ", "sidestream reset --step totals"];
    refuses(&world, totals("x: MAX(city)", "id"), &parts);
}

#[test]
fn another_aggregate_under_the_same_name_in_the_changelog_keeps_a_new_machine_from_being_ready() {
    let world = world_of(totals("x: MIN(amount)", "id"));
    refuses(&world, totals("x: MAX(amount)", "id"), &["column `x` holds a MIN and would be read as a MAX"]);
}

#[test]
fn another_type_under_the_same_aggregate_in_the_changelog_keeps_a_new_machine_from_being_ready() {
    let world = world_of(totals("x: MAX(amount)", "id"));
    refuses(&world, totals("x: MAX(city)", "id"), &["column `x` is stored as DOUBLE and cannot be read as STRING"]);
}

#[test]
fn another_key_in_the_changelog_keeps_a_new_machine_from_being_ready() {
    let world = world_of(totals("x: SUM(amount)", "id"));
    refuses(&world, totals("x: SUM(amount)", "city"), &["had another key", "sidestream reset --step totals"]);
}

#[test]
fn after_the_reset_of_the_step_the_same_change_is_accepted() {
    let world = world_of(totals("x: SUM(amount)", "id"));
    let changed = totals("x: MAX(city)", "id");
    let nowhere = tempfile::tempdir().unwrap();
    let removal = look(&world.log, &changed, Scope::Step("totals")).unwrap();
    perform(&world.log, &changed, nowhere.path(), &removal).unwrap();
    let (mut instance, _client) = start(&world, changed);
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().readiness().ready);
    assert!(instance.view().readiness().degraded.is_empty(), "{}", describe(&instance));
}
