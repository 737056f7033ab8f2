//! A host whose wall clock is set, forward and back, while Kafka's and everybody else's goes on.

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
    let clear = || instance.get("/readyz").unwrap().1 == r#"{"ready":true,"degraded":[]}"#;
    eventually("/readyz is clear", PATIENCE, || clear().then_some(()));
    for hours in [3, -30, 24 * 400, 0] {
        clock.set_hours(hours);
        if hours < 0 {
            // Longer than the group waits for a heartbeat.
            holds_for(Duration::from_secs(12), || assert!(clear(), "{:?}", instance.get("/readyz")));
        }
        case.feed(1_000);
        case.close_windows();
        case.check();
        case.move_on();
        assert!(!instance.log_text().contains("kind=\"lost\""), "{}", instance.log_text());
    }
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
