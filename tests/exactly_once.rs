//! Two instances on a real Kafka, killed again and again: the results must equal a model computed here.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use serde_json::json;

use support::case::{Case, PATIENCE, pause};
use support::{broker, eventually};

const RECORDS: usize = 100_000;

#[test]
fn killed_instances_lose_and_double_nothing() {
    let mut case = Case::new(broker::shared(), "kill");
    let mut instances = [case.start("a"), case.start("b")];
    for instance in &mut instances {
        instance.wait_ready();
    }
    const KILLS_EACH: usize = 5;
    let mut victims: Vec<usize> = [0, 1].repeat(KILLS_EACH);
    case.random.shuffle(&mut victims);
    for victim in victims {
        case.feed(RECORDS / (2 * KILLS_EACH));
        let after = Duration::from_millis(case.random.u64(20..700));
        pause(after);
        instances[victim].kill();
        pause(Duration::from_millis(case.random.u64(0..300)));
        instances[victim].run();
    }
    case.close_windows();
    case.check();

    // Reads from either instance give the same rows.
    for instance in &mut instances {
        instance.wait_ready();
    }
    for (user, (count, sum)) in case.model.totals.iter().take(20) {
        for instance in &instances {
            let row = eventually("an answer over HTTP", PATIENCE, || {
                let (status, body) = instance.json(&format!("/v1/tables/totals/{user}"))?;
                (status == 200).then_some(body)
            });
            assert_eq!(row["row"]["n"], json!(count), "{user}: {row}");
            assert_eq!(row["row"]["total"], json!(sum), "{user}: {row}");
        }
    }

    // After SIGTERM and SIGKILL alike a restart restores only what was not in the local state.
    assert_eq!(instances[0].terminate(), 0);
    instances[1].kill();
    for instance in &mut instances {
        instance.run();
    }
    for instance in &mut instances {
        instance.wait_ready();
    }
    let restored: f64 = instances.iter().map(|instance| instance.metric("sidestream_records_restored_total")).sum();
    assert!(restored < 5_000.0, "{restored} records restored; only the tail was expected");

    // A fresh state directory restores in full, to the same rows.
    for instance in &mut instances {
        instance.kill();
    }
    for id in ["a", "b"] {
        std::fs::remove_dir_all(case.directory.path().join(format!("state-{}-{id}", case.name))).unwrap();
    }
    for instance in &mut instances {
        instance.run();
    }
    for instance in &mut instances {
        instance.wait_ready();
    }
    case.move_on();
    case.feed(1_000);
    case.close_windows();
    case.check();
}

#[test]
fn sigterm_and_scaling_lose_and_double_nothing() {
    let mut case = Case::new(broker::shared(), "scale");
    let mut first = case.start("a");
    first.wait_ready();
    case.feed(RECORDS / 5);
    let mut second = case.start("b");
    case.feed(RECORDS / 5);
    second.wait_ready();
    case.feed(RECORDS / 5);
    assert_eq!(first.terminate(), 0, "{}", first.log_text());
    case.feed(RECORDS / 5);
    first.run();
    case.feed(RECORDS / 5);
    first.wait_ready();
    assert_eq!(second.terminate(), 0, "{}", second.log_text());
    case.close_windows();
    case.check();
}
