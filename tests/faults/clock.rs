//! A host whose wall clock is set, forward and back, while Kafka's and everybody else's goes on; and events of the future.

use std::time::Duration;

use crate::support::broker;
use crate::support::case::{Case, PATIENCE};
use crate::support::clock::Clock;
use crate::support::{eventually, holds_for};

#[test]
fn a_wall_clock_that_jumps_changes_no_result_and_holds_nothing_up() {
    let Some(clock) = Clock::new() else { return eprintln!("not shown: preloading a clock takes Linux") };
    let mut case = Case::new(broker::shared(), "clock");
    let mut instance = case.instance("a", &[]).with_environment(clock.environment());
    instance.run();
    instance.wait_ready();
    case.feed(1_000);
    case.close_windows();
    case.check();
    case.move_on();
    eventually("/readyz is clear", PATIENCE, || instance.is_well().then_some(()));
    for hours in [3, -30, 24 * 400, 0] {
        clock.set_hours(hours);
        if hours < 0 {
            // Longer than the group waits for a heartbeat.
            holds_for(Duration::from_secs(12), || assert!(instance.is_well(), "{:?}", instance.get("/readyz")));
        }
        case.feed(1_000);
        case.close_windows();
        case.check();
        case.move_on();
        assert!(!instance.log_text().contains("kind=\"lost\""), "{}", instance.log_text());
    }
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

/// Kafka refuses records that are more than an hour ahead of its clock, as their producer has it. Between steps there is no
/// such limit.
#[test]
fn events_of_the_future_pass_repartition_topics() {
    const IN_2100: i64 = 4_102_444_800_000;
    let times_of_kafka = [("message.timestamp.type", "LogAppendTime")];
    let mut case = Case::with_topics(broker::shared(), "future", &times_of_kafka);
    case.move_on_to(IN_2100);
    let mut instance = case.start("a");
    case.feed(1_000);
    case.close_windows();
    case.check();
    assert!(!instance.log_text().contains("dead-lettered"), "{}", instance.log_text());
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
