use std::time::Duration;

use super::scene::{GROUP, Process, Scene, at, offsets};
use crate::log::{Error, Leave, Log, Next, Outcome, OwnershipEvent};

/// Polls in turn until nobody is told anything.
fn settle(processes: &mut [&mut Process]) {
    loop {
        // Each one in each round, whoever was told something.
        let told = processes.iter_mut().filter_map(|process| process.step()).count();
        if told == 0 {
            break;
        }
    }
}

#[test]
fn a_commit_between_a_rebalance_and_its_notice_is_refused_once() {
    let scene = Scene::new();
    let mut a = scene.process("a");
    let mut b = Process::start(&scene.log.client("b"), "b", None);
    a.begin_with(&["refused"]);
    assert_eq!(b.step(), None, "it waits for the other one");
    let revoked = a.step().unwrap();
    assert_eq!(revoked, OwnershipEvent::Revoked(vec![at("input", 1)]));
    // The other one's poll does not complete anything: the second round needs this one.
    assert_eq!(b.step(), Some(OwnershipEvent::Assigned(vec![])));
    a.commit(1).unwrap();
    a.begin_with(&["refused"]);
    // Both join the second round; the last one completes it, and the first has not heard of it.
    assert_eq!(a.step(), None);
    assert_eq!(b.step(), Some(OwnershipEvent::Assigned(vec![at("input", 1)])));
    let failure = a.commit(2).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Rejoin));
    a.producer.abort().unwrap();
    assert_eq!(a.step(), None, "its own partitions are as before");
    assert_eq!(a.generation(), b.generation());
    a.begin_with(&["again"]);
    a.commit(2).unwrap();
    assert_eq!((scene.output().len(), scene.committed()), (2, Some(2)));
}

#[test]
fn a_revocation_that_is_not_acknowledged_holds_the_group_until_its_time_is_over() {
    let scene = Scene::new();
    let mut a = scene.process("a");
    let mut b = Process::start(&scene.log.client("b"), "b", None);
    let revoked = a.membership.poll(Duration::ZERO).unwrap().unwrap();
    assert_eq!(revoked, OwnershipEvent::Revoked(vec![at("input", 1)]));
    for _ in 0..5 {
        scene.advance(9);
        settle(&mut [&mut b]);
        assert_eq!(a.membership.poll(Duration::ZERO).unwrap(), None, "nothing goes on before the acknowledgement");
    }
    assert_eq!(b.owned, []);
    // Kept alive by polls alone: nobody needs it until another rebalance waits for it.
    scene.log.force_rebalance(GROUP);
    for _ in 0..7 {
        scene.advance(9);
        settle(&mut [&mut b]);
        a.membership.poll(Duration::ZERO).unwrap();
    }
    assert_eq!(b.owned, [at("input", 0), at("input", 1)]);
    a.membership.acknowledge(&revoked).unwrap();
    a.owned.remove(1);
    let lost = a.step().unwrap();
    assert_eq!(lost, OwnershipEvent::Lost(vec![at("input", 0)]), "what it still held");
    settle(&mut [&mut a, &mut b]);
    assert_eq!((a.owned.len(), b.owned.len()), (1, 1));
}

#[test]
fn a_dropped_member_keeps_its_partitions_until_its_session_times_out() {
    let scene = Scene::new();
    let a = scene.process("a");
    drop(a);
    let mut b = Process::start(&scene.log.client("b"), "b", None);
    scene.advance(9);
    b.settle();
    assert_eq!((b.owned.len(), b.membership.group().metadata()), (0, None));
    assert_eq!(scene.log.describe_group(GROUP).unwrap().members.len(), 2);
    scene.advance(1);
    b.settle();
    assert_eq!(b.owned.len(), 2);
}

#[test]
fn a_member_that_leaves_is_replaced_at_once() {
    let scene = Scene::new();
    let a = scene.process("a");
    let mut b = Process::start(&scene.log.client("b"), "b", None);
    a.membership.close(Leave::Now).unwrap();
    b.settle();
    assert_eq!(b.owned.len(), 2);
}

#[test]
fn an_expired_member_is_refused_and_then_learns_of_its_loss() {
    let scene = Scene::new();
    let mut a = scene.process("a");
    let metadata = a.membership.group().metadata().unwrap();
    a.begin_with(&["zombie"]);
    assert!(scene.log.expire_member(GROUP, &metadata.member_id));
    assert_eq!(a.commit(1).unwrap_err().error.next(), Next::Rejoin);
    a.producer.abort().unwrap();
    let lost = a.membership.poll(Duration::ZERO).unwrap().unwrap();
    assert_eq!(lost, OwnershipEvent::Lost(vec![at("input", 0), at("input", 1)]));
    assert_eq!(a.membership.group().metadata(), None);
    assert_eq!(a.membership.poll(Duration::ZERO).unwrap(), None, "it joins again only after the acknowledgement");
    a.owned.clear();
    a.membership.acknowledge(&lost).unwrap();
    a.settle();
    assert_eq!(a.owned.len(), 2);
    assert_ne!(a.membership.group().metadata().unwrap().member_id, metadata.member_id);
}

#[test]
fn a_member_that_is_not_polled_leaves_the_group() {
    let scene = Scene::new();
    let mut a = scene.process("a");
    scene.advance(59);
    assert_eq!(a.step(), None);
    scene.advance(60);
    assert!(matches!(a.step(), Some(OwnershipEvent::Lost(partitions)) if partitions.len() == 2));
}

#[test]
fn a_static_member_that_restarts_in_time_gets_its_partitions_without_a_rebalance() {
    let scene = Scene::new();
    let mut a = Process::start(&scene.log.client("a"), "a-old", Some("a"));
    let mut b = Process::start(&scene.log.client("b"), "b", Some("b"));
    settle(&mut [&mut a, &mut b]);
    let (owned, generation) = (a.owned.clone(), b.generation());
    assert_eq!(owned.len(), 1);
    a.log.kill();
    drop(a);
    scene.advance(9);
    let mut a = Process::start(&scene.log.client("a"), "a-new", Some("a"));
    settle(&mut [&mut a, &mut b]);
    assert_eq!((&a.owned, a.generation(), b.generation()), (&owned, generation, generation));
    let clients: Vec<_> = scene.log.describe_group(GROUP).unwrap().members.into_iter().map(|m| m.client_id).collect();
    assert_eq!(clients, ["b", "a-old"], "a static rejoin in a stable group keeps the old client id");
}

#[test]
fn a_static_member_that_restarts_while_it_should_give_something_up_orphans_nothing() {
    let scene = Scene::new();
    let mut a = Process::start(&scene.log.client("a"), "a", Some("a"));
    a.settle();
    let mut b = Process::start(&scene.log.client("b"), "b", Some("b"));
    assert_eq!(a.membership.poll(Duration::ZERO).unwrap(), Some(OwnershipEvent::Revoked(vec![at("input", 1)])));
    a.log.kill();
    let mut a = Process::start(&scene.log.client("a"), "a", Some("a"));
    settle(&mut [&mut a, &mut b]);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((a.owned.len(), b.owned.len()), (1, 1));
    assert_ne!(a.owned, b.owned);
}

#[test]
fn a_replaced_static_member_stays_fenced() {
    let scene = Scene::new();
    let mut old = Process::start(&scene.log.client("old"), "p", Some("same"));
    old.settle();
    let stale = old.membership.group().metadata().unwrap();
    let mut new = Process::start(&scene.log.client("new"), "p2", Some("same"));
    for _ in 0..2 {
        let error = old.membership.poll(Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::InstanceFenced { .. }));
    }
    let error = old.membership.group().commit(&offsets(1), &stale).unwrap_err();
    assert!(matches!(error, Error::InstanceFenced { .. }));
    new.settle();
    assert_eq!(new.owned.len(), 2);
}

#[test]
fn a_member_of_a_deleted_group_is_no_member_of_its_successor() {
    let scene = Scene::new();
    let zombie = scene.process("a");
    let stale = zombie.membership.group().metadata().unwrap();
    assert!(scene.log.expire_member(GROUP, &stale.member_id));
    scene.log.delete_group(GROUP).unwrap();
    let successor = scene.process("a");
    assert_eq!(successor.generation(), stale.generation);
    let error = zombie.membership.group().commit(&offsets(1), &stale).unwrap_err();
    assert_eq!(error.next(), Next::Rejoin);
}

#[test]
fn more_partitions_are_shared_out() {
    let scene = Scene::new();
    let mut a = scene.process("a");
    scene.log.grow_topic(&"input".into(), 3).unwrap();
    assert_eq!(a.step(), Some(OwnershipEvent::Assigned(vec![at("input", 2)])));
}

#[test]
fn many_members_come_and_go_and_the_partitions_stay_in_one_hand_each() {
    let scene = Scene::new();
    scene.log.grow_topic(&"input".into(), 12).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut processes: Vec<Process> = Vec::new();
    for round in 0..400 {
        match random.u32(0..12) {
            0 if processes.len() < 5 => {
                let name = format!("p{round}");
                processes.push(Process::start(&scene.log.client(&name), &name, None));
            }
            1 if !processes.is_empty() => {
                let process = processes.swap_remove(random.usize(0..processes.len()));
                process.membership.close(Leave::Now).unwrap();
            }
            2 if !processes.is_empty() => processes.swap_remove(random.usize(0..processes.len())).log.kill(),
            3 => scene.log.force_rebalance(GROUP),
            4 => scene.advance(random.u64(0..4)),
            _ if !processes.is_empty() => {
                let index = random.usize(0..processes.len());
                processes[index].step();
            }
            _ => {}
        }
        let live: Vec<_> = processes
            .iter()
            .filter(|process| process.membership.group().metadata().is_some())
            .flat_map(|process| &process.owned)
            .collect();
        let mut distinct = live.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(live.len(), distinct.len(), "round {round}: a partition has two owners");
    }
    processes.push(Process::start(&scene.log.client("last"), "last", None));
    for _ in 0..20 {
        scene.advance(4);
        settle(&mut processes.iter_mut().collect::<Vec<_>>());
    }
    let mut counts: Vec<_> = processes.iter().map(|process| process.owned.len()).collect();
    counts.sort_unstable();
    assert_eq!(counts.iter().sum::<usize>(), 12);
    assert!(counts[counts.len() - 1] - counts[0] <= 1, "balanced: {counts:?}");
}
