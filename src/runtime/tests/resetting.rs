//! Beginning anew.

use std::sync::Arc;

use super::plans::{World, plan};
use crate::log::Log;
use crate::runtime::Lifetime;
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
