//! Faults on a real Kafka that are not part of `make test`: `make soak` runs them.
//!
//! A broker that is stopped and started under load passes most of the time and fails the rest: now and then a partition
//! of the output keeps an open transaction that no marker ends, and read-committed readers stand still before it. The
//! cause is not known yet; until it is, this test must not be taken for a proof.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use support::broker::Broker;
use support::eventually;
use support::shop::{PATIENCE, Shop, send};

#[test]
fn a_broker_that_restarts_under_load_loses_and_doubles_nothing() {
    let mut broker = Broker::start();
    let shop = Shop::new(broker.brokers());
    shop.create_topics();
    let mut instance = shop.start(&shop.topology(""));
    instance.wait_ready();
    let mut feeder = shop.feeder();
    send(&mut feeder, 0..30_000);
    feeder.flush();
    eventually("some copies", PATIENCE, || (!shop.copies().is_empty()).then_some(()));
    broker.stop();
    eventually("the loss of Kafka in /readyz", PATIENCE, || {
        let (_, body) = instance.json("/readyz")?;
        body.to_string().contains("kafka_unreachable").then_some(())
    });
    assert!(instance.is_running(), "{}", instance.log_text());
    assert!(instance.log_text().contains("condition=\"kafka_unreachable\""), "{}", instance.log_text());
    broker.run();
    let mut feeder = shop.feeder();
    send(&mut feeder, 30_000..31_000);
    feeder.flush();
    let copies = eventually("all copies", PATIENCE, || {
        let copies = shop.copies();
        (copies.len() >= 31_000).then_some(copies)
    });
    assert_eq!(copies.len(), 31_000, "copied twice");
    assert_eq!(copies.into_iter().collect::<BTreeSet<_>>(), (0..31_000).collect());
    eventually("all counts", PATIENCE, || (shop.counted() == 31_000).then_some(()));
    let lines = instance.log_text().lines().count();
    assert!(lines < 100, "an outage is told in {lines} lines");
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
