//! Volumes that hang, and that turn read-only under way.

use crate::support::broker;
use crate::support::case::{Case, PATIENCE};
use crate::support::cluster::Instance;
use crate::support::disk::Volume;
use crate::support::eventually;

const NOT_SHOWN: &str = "not shown: a volume on a loop device takes root, mkfs.ext4 and fsfreeze";

/// An instance with its state on a volume of its own, which has processed something.
fn started(name: &str) -> Option<(Case, Volume, Instance)> {
    let mut case = Case::new(broker::shared(), name);
    let volume = Volume::mount(&case.state_directory("a"))?;
    let mut instance = case.start("a");
    instance.wait_ready();
    case.feed(1_000);
    case.close_windows();
    case.check();
    case.move_on();
    Some((case, volume, instance))
}

#[test]
fn a_worker_that_is_stuck_at_a_volume_that_hangs_is_named_and_goes_on_when_it_is_over() {
    let Some((mut case, volume, mut instance)) = started("hanging") else { return eprintln!("{NOT_SHOWN}") };
    let hanging = volume.hang();
    case.feed(1_000);
    // The process answers; what it says takes the time after which a worker counts as stuck, 45 s.
    eventually("the stuck worker in /readyz", PATIENCE, || {
        let (status, body) = instance.get("/readyz")?;
        assert_eq!(status, 200, "{body}");
        body.contains("has been writing committed state to the disk for more than 45 s").then_some(())
    });
    drop(hanging);
    case.close_windows();
    case.check();
    eventually("/readyz is clear", PATIENCE, || instance.is_well().then_some(()));
    assert!(instance.log_text().contains("has not come back"), "{}", instance.log_text());
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_volume_that_turns_read_only_under_way_is_named_and_a_start_on_the_repaired_one_loses_nothing() {
    let Some((mut case, mut volume, mut instance)) = started("broken") else { return eprintln!("{NOT_SHOWN}") };
    volume.turn_read_only();
    case.feed(1_000);
    eventually("the broken volume in /readyz", PATIENCE, || {
        let (status, body) = instance.get("/readyz")?;
        assert_eq!(status, 200, "{body}");
        // The kernel answers with the one or the other, depending on its version and on the call.
        let told = body.contains("mount the volume writable and start again") || body.contains("check the volume");
        (body.contains("task_failed") && told).then_some(())
    });
    case.feed(1_000);
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
    volume.repair();
    instance.run();
    case.close_windows();
    case.check();
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}
