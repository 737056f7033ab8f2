//! Connections that are cut, refused, delayed and swallowed, and processes killed at named points of the protocol.

use std::time::Duration;

use crate::support::broker::Broker;
use crate::support::case::{Case, PATIENCE, pause};
use crate::support::eventually;
use crate::support::proxy::{Point, Request};

/// Where a commit can be interrupted, as Kafka sees it.
const POINTS: [Point; 6] = [
    Point::Before(Request::Produce),
    Point::After(Request::Produce),
    Point::Before(Request::CommitOffsets),
    Point::After(Request::CommitOffsets),
    Point::Before(Request::EndTransaction),
    Point::After(Request::EndTransaction),
];

#[test]
fn connections_that_are_cut_delayed_and_swallowed_lose_and_double_nothing() {
    let broker = Broker::start_proxied();
    let proxy = broker.proxy();
    let mut case = Case::new(broker.brokers(), "network");
    case.entrance = broker.proxied_brokers();
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }

    for _ in 0..5 {
        case.feed(2_000);
        pause(Duration::from_millis(case.random.u64(0..300)));
        proxy.cut();
    }
    proxy.delay(Duration::from_millis(20));
    case.feed(2_000);
    case.close_windows();
    case.check();
    proxy.heal();

    // In the middle of a commit: what became of it nobody knows.
    for point in POINTS {
        case.move_on();
        proxy.trap(point);
        case.feed(1_000);
        proxy.wait_until_trapped();
        proxy.cut();
        case.close_windows();
        case.check();
    }

    // As a network that drops everything, for longer than a session: the members are lost, and come back.
    case.move_on();
    case.feed(2_000);
    proxy.swallow();
    let instance = &instances[0];
    eventually("the loss of Kafka in /readyz", PATIENCE, || {
        let (_, body) = instance.json("/readyz")?;
        body.to_string().contains("kafka_unreachable").then_some(())
    });
    case.feed(2_000);
    proxy.heal();
    case.close_windows();
    case.check();

    for instance in &mut instances {
        assert!(instance.is_running(), "{}", instance.log_text());
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
}

#[test]
fn a_process_killed_at_any_point_of_a_commit_loses_and_doubles_nothing() {
    let broker = Broker::start_proxied();
    let proxy = broker.proxy();
    let mut case = Case::new(broker.brokers(), "points");
    case.entrance = broker.proxied_brokers();
    let mut instance = case.start("a");
    instance.wait_ready();
    for point in POINTS {
        case.move_on();
        proxy.trap(point);
        case.feed(1_000);
        proxy.wait_until_trapped();
        instance.kill();
        proxy.cut();
        instance.run();
        case.close_windows();
        case.check();
    }
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn the_client_that_is_a_member_of_the_group_fetches_nothing() {
    let broker = Broker::start_proxied();
    let mut case = Case::new(broker.brokers(), "member");
    case.entrance = broker.proxied_brokers();
    // There is something to fetch from the first moment on, and each partition is assigned several times.
    case.feed(5_000);
    let mut instance = case.start("a");
    instance.wait_ready();
    let mut other = case.start("b");
    other.wait_ready();
    case.feed(5_000);
    case.close_windows();
    case.check();
    let proxy = broker.proxy();
    let members = eventually("both were members for a while", PATIENCE, || {
        let heartbeats = proxy.requests(Request::Heartbeat);
        (heartbeats.len() == 2 && heartbeats.values().all(|count| *count >= 3)).then_some(heartbeats)
    });
    assert_eq!(other.terminate(), 0, "{}", other.log_text());
    assert!(!proxy.requests(Request::Fetch).is_empty(), "the workers fetch");
    for kind in [Request::Fetch, Request::FetchOffsets] {
        let mut requests = proxy.requests(kind);
        requests.retain(|client, _| members.contains_key(client));
        assert!(requests.is_empty(), "{kind:?}: {requests:?}");
    }
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
