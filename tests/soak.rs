//! Faults of the cluster and of processes, on three real brokers: the results must equal a model.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::broker::Cluster;
use support::case::{Case, PATIENCE, pause};
use support::eventually;

/// One cluster for all of them, one after another: three JVMs are enough.
#[test]
fn a_cluster_whose_brokers_restart_and_crash_and_a_zombie_lose_and_double_nothing() {
    let mut cluster = Cluster::start();
    let mut case = Case::new(cluster.brokers(), "faults");
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }

    // A rolling restart, orderly, under load.
    for node in &mut cluster.nodes {
        case.feed(3_000);
        node.restart();
    }
    case.feed(3_000);
    case.close_windows();
    case.check();

    // Brokers killed in the middle of transactions.
    for node in &mut cluster.nodes[..2] {
        case.move_on();
        case.feed(3_000);
        pause(Duration::from_millis(case.random.u64(50..400)));
        node.kill9();
        case.feed(1_000);
        node.run();
    }
    case.close_windows();
    case.check();

    // An instance that sleeps past its session, while the other takes its partitions over: what it commits when it
    // wakes up is refused.
    case.move_on();
    case.feed(3_000);
    instances[0].signal("-STOP");
    let other = &instances[1];
    eventually("the other instance owns all tasks", PATIENCE, || {
        (other.metric("sidestream_tasks_owned") >= 8.0).then_some(())
    });
    case.feed(3_000);
    instances[0].signal("-CONT");
    instances[0].wait_ready();
    case.feed(3_000);
    case.close_windows();
    case.check();
    for instance in &mut instances {
        assert!(instance.is_running(), "{}", instance.log_text());
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
}
