//! State directories that are full, read-only, or deleted.

use crate::support::broker;
use crate::support::case::{Case, PATIENCE};
use crate::support::disk::Disk;
use crate::support::eventually;

#[test]
fn a_full_disk_is_named_and_waited_for_and_nothing_is_lost() {
    let mut case = Case::new(broker::shared(), "full");
    let Some(disk) = Disk::mount(&case.state_directory("a"), "size=48m") else {
        return eprintln!("not shown: mounting a file system takes root");
    };
    let mut instance = case.start_with("a", &["--memory", "128MB"]);
    instance.wait_ready();
    case.feed(1_000);
    case.close_windows();
    case.check();
    case.move_on();
    disk.fill();
    // RocksDB has reserved some space ahead.
    eventually("the full disk in /readyz", PATIENCE, || {
        case.feed(5_000);
        case.look();
        let (status, body) = instance.get("/readyz")?;
        assert_eq!(status, 200, "{body}");
        (body.contains("No space left on device") && body.contains("make room on the volume")).then_some(())
    });
    case.feed(1_000);
    disk.free();
    case.feed(1_000);
    case.close_windows();
    case.check();
    eventually("/readyz is clear", PATIENCE, || instance.is_well().then_some(()));
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_process_whose_state_directory_is_deleted_ends_and_says_so_and_the_next_one_restores() {
    let mut case = Case::new(broker::shared(), "deleted");
    let mut instance = case.start("a");
    instance.wait_ready();
    case.feed(5_000);
    // At once, as far as the process can see.
    let away = case.directory.path().join("deleted");
    std::fs::rename(case.state_directory("a"), &away).unwrap();
    std::fs::remove_dir_all(away).unwrap();
    case.feed(1_000);
    assert_eq!(instance.wait_for_exit(), 1);
    let log = instance.log_text();
    let state = case.state_directory("a").display().to_string();
    let told = log.lines().any(|line| line.contains(&state) && line.contains("was deleted or replaced"));
    assert!(told, "{log}");
    instance.run();
    case.feed(1_000);
    case.close_windows();
    case.check();
    assert_eq!(instance.terminate(), 0, "{}", instance.log_text());
}

#[test]
fn a_read_only_state_directory_is_refused_with_what_to_do() {
    let case = Case::new(broker::shared(), "read_only");
    let Some(_disk) = Disk::mount(&case.state_directory("a"), "ro,size=8m") else {
        return eprintln!("not shown: mounting a file system takes root");
    };
    let mut instance = case.start("a");
    assert_eq!(instance.wait_for_exit(), 1);
    let log = instance.log_text();
    assert!(log.contains("Read-only file system") && log.contains("--state-dir"), "{log}");
}
