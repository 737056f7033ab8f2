//! Beginning anew.

use std::sync::Arc;

use super::plans::{World, at, plan};
use crate::ids::{EventTime, Offset, Partition};
use crate::log::{Log, OffsetCommit, OutgoingRecord};
use crate::runtime::Lifetime;
use crate::runtime::reposition::{self, Edge};
use crate::runtime::reset::{Error, Scope, look, perform};
use crate::store::directory::{self, StateDirectory};
use crate::store::memory::Memory;

#[test]
fn a_reset_waits_for_all_instances_to_stop_and_then_removes_what_is_the_applications() {
    let world = World::new();
    let state = tempfile::tempdir().unwrap();
    drop(StateDirectory::open(state.path(), "app").unwrap());
    let (mut instance, _) = world.instance_with("a", plan(), Arc::new(Memory::new()), Lifetime::Dynamic);
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().readiness().ready);
    let refused = look(&world.log, &plan(), Scope::Application).unwrap_err();
    assert!(matches!(refused, Error::Running { members: 1 }), "{refused}");
    instance.stop();

    let removal = look(&world.log, &plan(), Scope::Application).unwrap();
    assert_eq!(removal.group.as_deref(), Some("app"));
    assert_eq!(removal.topics.len(), 2);
    perform(&world.log, &plan(), state.path(), &removal).unwrap();
    assert_eq!(world.partitions_of("app-accounts-changelog"), None);
    assert_eq!(world.partitions_of("accounts"), Some(4));
    let offsets = world.log.committed("app", &[super::plans::at("accounts", 0)]).unwrap();
    assert_eq!(offsets, [None]);
    assert!(directory::peek(state.path()).unwrap().is_none());
}

#[test]
fn a_step_is_reset_alone_and_an_unknown_one_is_an_error_that_names_the_others() {
    let world = World::new();
    let (mut instance, _) = world.instance("a");
    world.turn_until(&mut [&mut instance], |instances| instances[0].view().readiness().ready);
    instance.stop();
    let removal = look(&world.log, &plan(), Scope::Step("accounts")).unwrap();
    assert_eq!((removal.group, removal.stores), (None, vec!["accounts".to_string()]));
    assert_eq!(removal.topics, ["app-accounts-changelog".into()]);
    let error = look(&world.log, &plan(), Scope::Step("acounts")).unwrap_err().to_string();
    assert_eq!(error, "no step or table `acounts` keeps state; those that do: accounts");
}

#[test]
fn only_offsets_that_are_out_of_range_are_moved() {
    let world = World::new();
    let record = || OutgoingRecord { key: Some(b"a"), value: Some(b"{}"), timestamp: EventTime(0), headers: &[] };
    for partition in [0, 0, 0, 1, 1] {
        world.log.append(&"events".into(), Partition(partition), record()).unwrap();
    }
    let committed = |partition: u32, offset: i64| OffsetCommit {
        partition: at("events", partition),
        offset: Offset(offset),
        metadata: ";bootstrap=9".into(),
    };
    world.log.set_offsets("app", &[committed(0, 1), committed(1, 1), committed(2, 5)]).unwrap();
    world.log.delete_records(&[(at("events", 0), Offset(2))]).unwrap();
    let moves = |edge, source| reposition::look(&world.log, &plan(), edge, source).unwrap();
    let told = |edge| moves(edge, None).into_iter().map(|at| (at.input, at.from, at.to)).collect::<Vec<_>>();
    assert_eq!(
        told(Edge::Earliest),
        [(at("events", 0), Offset(1), Offset(2)), (at("events", 2), Offset(5), Offset(0)),]
    );
    assert_eq!(told(Edge::Latest)[0], (at("events", 0), Offset(1), Offset(3)));
    assert!(moves(Edge::Earliest, Some("accounts")).is_empty());
    let error = reposition::look(&world.log, &plan(), Edge::Earliest, Some("event")).unwrap_err().to_string();
    assert!(error.contains("`event`") && error.contains("events"), "{error}");

    reposition::perform(&world.log, &plan(), &moves(Edge::Earliest, Some("events"))).unwrap();
    assert!(moves(Edge::Earliest, None).is_empty());
    let inputs = [at("events", 0), at("events", 1)];
    let offsets = world.log.committed("app", &inputs).unwrap();
    let offsets: Vec<_> = offsets.into_iter().flatten().map(|at| (at.offset, at.metadata)).collect();
    assert_eq!(offsets, [(Offset(2), ";bootstrap=9".to_owned()), (Offset(1), ";bootstrap=9".to_owned())]);
}
