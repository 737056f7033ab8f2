//! Instances that come and go under load, and a rolling restart that moves nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::support::broker;
use crate::support::case::{Case, PATIENCE};
use crate::support::cluster::Instance;
use crate::support::eventually;

/// Both sub-topologies of the case have four partitions.
const TASKS: usize = 8;

#[test]
fn one_instance_becomes_three_and_one_again_under_load() {
    let mut case = Case::new(broker::shared(), "scaling");
    let mut first = case.start("a");
    first.wait_ready();
    case.feed(3_000);
    let mut others = [case.start("b"), case.start("c")];
    case.feed(3_000);
    eventually("every instance has a share", PATIENCE, || {
        case.feed(200);
        let [b, c] = &others;
        [&first, b, c].into_iter().all(|instance| !tasks(instance).is_empty()).then_some(())
    });
    for instance in &mut others {
        case.feed(1_000);
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
    case.feed(1_000);
    eventually("the first has them all again", PATIENCE, || {
        case.feed(200);
        (tasks(&first).len() == TASKS).then_some(())
    });
    case.close_windows();
    case.check();
    assert_eq!(first.terminate(), 0, "{}", first.log_text());
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test that measures")]
fn a_rolling_restart_of_three_static_instances_moves_nothing() {
    let mut case = Case::new(broker::shared(), "rolling");
    let mut instances = ["a", "b", "c"].map(|id| case.start(id));
    for instance in &mut instances {
        instance.wait_ready();
    }
    eventually("the tasks are shared out", PATIENCE, || {
        let shares = instances.each_ref().map(|instance| tasks(instance).len());
        (shares.iter().sum::<usize>() == TASKS && shares.iter().all(|share| *share >= 2)).then_some(())
    });
    for restarted in 0..instances.len() {
        // A machine that is too slow for the session's ten seconds shows nothing: try again.
        let kept = (0..5).any(|_| {
            case.feed(1_000);
            let before = instances.each_ref().map(|instance| (tasks(instance), changes(instance)));
            let began = Instant::now();
            assert_eq!(instances[restarted].terminate(), 0, "{}", instances[restarted].log_text());
            instances[restarted].run();
            instances[restarted].wait_ready();
            let took = began.elapsed();
            case.feed(1_000);
            eventually("the tasks are owned again", PATIENCE, || {
                let owned = instances.each_ref().map(|instance| tasks(instance).len());
                (owned.iter().sum::<usize>() == TASKS).then_some(())
            });
            if took > Duration::from_secs(7) {
                eprintln!("a restart took {took:?}");
                return false;
            }
            for (number, instance) in instances.iter().enumerate() {
                assert_eq!(tasks(instance), before[number].0, "{}", instance.log_text());
                if number != restarted {
                    assert_eq!(changes(instance), before[number].1, "{}", instance.log_text());
                }
            }
            // Its own state was there.
            let restored = instances[restarted].metric("sidestream_restore_records_total");
            assert!(restored < 100.0, "{restored} records restored");
            true
        });
        assert!(kept, "no restart within the session time-out");
    }
    case.close_windows();
    case.check();
    for instance in &mut instances {
        assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    }
}

/// Those that an instance runs.
fn tasks(instance: &Instance) -> BTreeSet<String> {
    let Some((200, info)) = instance.json("/v1/info") else { return BTreeSet::new() };
    let running = |task: &&serde_json::Value| task["state"] == "running";
    let tasks = info["tasks"].as_array().unwrap().iter();
    tasks.filter(running).map(|task| task["task"].as_str().unwrap().to_owned()).collect()
}

/// How often the ownership of an instance has changed.
fn changes(instance: &Instance) -> usize {
    instance.log_text().lines().filter(|line| line.contains("ownership changed")).count()
}
