//! Members, generations and offsets.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::scene::{Answer, STEP, Scene};
use crate::ids::Offset;
use crate::log::{Leave, Next, Outcome, OwnershipEvent, SharedLog};

pub(super) fn offsets_are_committed_outside_of_transactions(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    member.group.commit(&scene.offset(3), &member.metadata()).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(3)));
    assert_eq!(scene.committed(1), None, "the other partition");
}

pub(super) fn an_unknown_group_has_nothing(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    assert_eq!(scene.committed(0), None);
    let described = scene.until("the group is described", || scene.log.describe_group(&scene.group).ok());
    assert_eq!(described.members, []);
    scene.until("an absent group is deleted", || scene.log.delete_group(&scene.group).ok());
    let id = scene.log.cluster_id().unwrap();
    assert!(!id.is_empty());
    assert_eq!(scene.log.cluster_id().unwrap(), id);
}

pub(super) fn a_member_owns_everything_and_is_described(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let joining = scene.joining("client-with-a-hash", None);
    assert_eq!(joining.group.metadata(), None, "no membership before the first assignment");
    drop(joining.membership.close(Leave::Now));
    let member = scene.member("client-with-a-hash", None);
    assert_eq!(member.owned, scene.both());
    let metadata = member.metadata();
    assert_eq!((metadata.group.as_str(), metadata.instance_id), (scene.group.as_str(), None));
    assert!(metadata.generation >= 0);
    let described = scene.until("the group is stable", || {
        scene.log.describe_group(&scene.group).ok().filter(|group| group.stable && group.members.len() == 1)
    });
    let described = &described.members[0];
    assert_eq!(described.client_id, "client-with-a-hash");
    assert_eq!(described.member_id, metadata.member_id);
    assert_eq!(described.instance_id, None);
    assert_eq!(described.assignment.iter().cloned().collect::<BTreeSet<_>>(), scene.both());
}

pub(super) fn a_second_member_gets_what_the_first_has_given_up(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", None);
    let mut two = scene.joining("b", None);
    // Nothing comes to the second one before the first has acknowledged.
    let revoked = scene.until("something is revoked", || {
        assert_eq!(two.step(Answer::Acknowledge).filter(owns_something), None);
        one.step(Answer::Keep)
    });
    let OwnershipEvent::Revoked(partitions) = &revoked else { panic!("not a revocation: {revoked:?}") };
    assert_eq!(partitions.len(), 1, "only what moves is revoked");
    for _ in 0..10 {
        assert_eq!(two.step(Answer::Acknowledge).filter(owns_something), None, "it is not given up yet");
    }
    one.group.commit(&scene.offset(9), &one.metadata()).unwrap();
    one.acknowledge(&revoked);
    scene.share(&mut one, &mut two);
    assert_eq!(two.owned, partitions.iter().cloned().collect());
    assert_eq!(&one.owned | &two.owned, scene.both());
}

pub(super) fn a_member_that_gets_nothing_is_told_so(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", None);
    let mut two = scene.joining("b", None);
    let mut revoked = None;
    let told = scene.until("the second one is told", || {
        // The first one takes part in the rebalance, and does not give anything up.
        if revoked.is_none() {
            revoked = one.step(Answer::Keep);
        }
        two.step(Answer::Acknowledge)
    });
    assert_eq!(told, OwnershipEvent::Assigned(Vec::new()));
}

fn owns_something(event: &OwnershipEvent) -> bool {
    matches!(event, OwnershipEvent::Assigned(partitions) if !partitions.is_empty())
}

pub(super) fn a_member_that_leaves_passes_its_partitions_on(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", None);
    let mut two = scene.joining("b", None);
    scene.share(&mut one, &mut two);
    let group = Arc::clone(&one.group);
    one.membership.close(Leave::Now).unwrap();
    assert_eq!(group.metadata(), None, "who has left has no membership");
    scene.settle(&mut [&mut two], |members| members[0].owned.len() == 2);
}

pub(super) fn a_static_member_returns_to_its_partitions(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", Some("one"));
    let mut two = scene.joining("b", Some("two"));
    scene.share(&mut one, &mut two);
    let (owned, generation) = (two.owned.clone(), two.metadata().generation);
    two.membership.close(Leave::Stay).unwrap();
    let mut two = scene.joining("b", Some("two"));
    scene.settle(&mut [&mut one, &mut two], |members| !members[1].owned.is_empty());
    assert_eq!(two.owned, owned);
    assert_eq!(two.metadata().generation, generation, "nobody else has noticed");
    assert_eq!(one.owned.len(), 1);
    assert_eq!(two.metadata().instance_id.as_deref(), Some(scene.name("two").as_str()));
}

pub(super) fn a_second_process_fences_the_first(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let mut one = scene.member("a", Some("same"));
    let stale = one.metadata();
    let mut two = scene.joining("a", Some("same"));
    scene.settle(&mut [&mut two], |members| members[0].owned.len() == 2);
    let error = scene.until("the first one is fenced", || one.membership.poll(STEP).err());
    assert_eq!(error.next(), Next::Fenced, "{error}");
    let mut producer = scene.producer("p");
    producer.begin().unwrap();
    let failure = producer.commit(&scene.offset(1), &stale).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Fenced), "{failure}");
    producer.abort().unwrap();
    producer.begin().unwrap();
    scene.commit(producer.as_mut(), &mut two, 2).unwrap();
    assert_eq!(scene.committed(0), Some(Offset(2)));
}

pub(super) fn an_empty_group_is_deleted(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    member.group.commit(&scene.offset(3), &member.metadata()).unwrap();
    assert!(scene.log.delete_group(&scene.group).is_err(), "it has a member");
    assert_eq!(scene.committed(0), Some(Offset(3)));
    member.membership.close(Leave::Now).unwrap();
    scene.until("the group is deleted", || scene.log.delete_group(&scene.group).ok());
    assert_eq!(scene.committed(0), None);
}

pub(super) fn the_offsets_of_an_empty_group_are_set(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let member = scene.member("a", None);
    member.group.commit(&scene.offset(3), &member.metadata()).unwrap();
    assert!(scene.log.set_offsets(&scene.group, &scene.offset(7)).is_err(), "it has a member");
    assert_eq!(scene.committed(0), Some(Offset(3)));
    member.membership.close(Leave::Now).unwrap();
    scene.until("the offsets are set", || scene.log.set_offsets(&scene.group, &scene.offset(7)).ok());
    assert_eq!(scene.committed(0), Some(Offset(7)));
}
