use std::time::Duration;

use super::scene::{GROUP, Process, Scene, at, text};
use crate::ids::Partition;
use crate::log::memory::End;
use crate::log::memory::faults::{Fault, MarkerDelay, Request, Step};
use crate::log::{Error, Log, Next, Outcome, OwnershipEvent, SendFailure};

const MINUTE: Duration = Duration::from_mins(1);

fn before_commit(step: Step<'_>) -> bool {
    matches!(step, Step::BeforeEnd(_, End::Commit))
}

fn after_commit(step: Step<'_>) -> bool {
    matches!(step, Step::AfterEnd(_, End::Commit))
}

/// Another producer with the id of process `a`, after its `init`.
fn successor(scene: &Scene) {
    super::scene::producer(&scene.log, "a");
}

#[test]
fn control_records_that_come_late_hide_the_records_and_not_the_offsets() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    scene.strike(before_commit, Fault::DelayMarkers(MarkerDelay::Topics(MINUTE)));
    process.begin_with(&["one"]);
    process.commit(1).unwrap();
    assert_eq!(scene.committed(), Some(1));
    assert_eq!((scene.end(), scene.stable()), (1, 0), "the last stable offset hides that very commit");
    assert_eq!(scene.reader(0).fetch(), ["<0>"]);
    scene.log.release_markers();
    assert_eq!((scene.end(), scene.stable()), (2, 2));
    assert_eq!(scene.reader(0).fetch(), ["one", "<2>"]);
}

#[test]
fn late_control_records_are_written_after_their_time_or_before_the_producer_goes_on() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    let delay = Fault::DelayMarkers(MarkerDelay::TopicsAndOffsets(Duration::from_secs(5)));
    scene.strike(before_commit, delay);
    process.begin_with(&["one"]);
    process.commit(1).unwrap();
    let error = scene.log.committed(GROUP, &[at("input", 0)]).unwrap_err();
    assert_eq!(error.next(), Next::Retry, "the offset is pending");
    assert_eq!(scene.log.committed(GROUP, &[at("input", 1)]).unwrap(), [None], "the other partition's is not");
    scene.advance(5);
    assert_eq!((scene.committed(), scene.stable()), (Some(1), 2));

    scene.strike(before_commit, delay);
    process.begin_with(&["two"]);
    process.commit(2).unwrap();
    process.begin_with(&["three"]);
    assert_eq!((scene.committed(), scene.output().len()), (Some(2), 2));
    process.commit(3).unwrap();

    scene.strike(before_commit, delay);
    process.begin_with(&["four"]);
    process.commit(4).unwrap();
    successor(&scene);
    assert_eq!((scene.committed(), scene.output().len()), (Some(4), 4));
}

#[test]
fn an_unknown_commit_has_happened_or_not() {
    for (strike, fault, happened) in [
        (before_commit as fn(Step<'_>) -> bool, Fault::Unreachable, false),
        (before_commit, Fault::Late, true),
        (after_commit, Fault::AnswerLost, true),
        (after_commit, Fault::Unreachable, true),
    ] {
        let scene = Scene::new();
        let mut process = scene.process("a");
        scene.strike(strike, fault);
        process.begin_with(&["one"]);
        let failure = process.commit(1).unwrap_err();
        assert_eq!(failure.outcome, Outcome::Unknown, "{fault:?}");
        if fault == Fault::Late {
            assert_eq!(scene.output().len(), 0, "it is still on its way");
        }
        successor(&scene);
        let expected = if happened { (Some(1), 1) } else { (None, 0) };
        assert_eq!((scene.committed(), scene.output().len()), expected, "{fault:?}");
    }
}

#[test]
fn a_commit_that_is_aborted_can_be_made_again() {
    let points: [fn(Step<'_>) -> bool; 3] =
        [|step| matches!(step, Step::BeforeOffsets(_)), |step| matches!(step, Step::AfterOffsets(_)), before_commit];
    for point in points {
        let scene = Scene::new();
        let mut process = scene.process("a");
        scene.strike(point, Fault::Abort);
        process.begin_with(&["one"]);
        let failure = process.commit(1).unwrap_err();
        assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Retry));
        process.producer.abort().unwrap();
        assert_eq!((scene.committed(), scene.output().len()), (None, 0));
        process.begin_with(&["one"]);
        process.commit(1).unwrap();
        assert_eq!((scene.committed(), scene.output().len()), (Some(1), 1));
    }
}

#[test]
fn a_producer_is_fenced_at_any_step() {
    let points: [fn(Step<'_>) -> bool; 4] = [
        |step| matches!(step, Step::Send { .. }),
        |step| matches!(step, Step::BeforeOffsets(_)),
        |step| matches!(step, Step::AfterOffsets(_)),
        before_commit,
    ];
    for point in points {
        let scene = Scene::new();
        let mut process = scene.process("a");
        scene.strike(point, Fault::Fence);
        process.begin_with(&["one"]);
        let failure = process.commit(1).unwrap_err();
        assert_eq!(failure.error.next(), Next::RecreateProducer);
        assert_eq!((scene.committed(), scene.output().len()), (None, 0));
    }
}

#[test]
fn a_generation_can_grow_stale_under_a_commit() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    scene.strike(|step| matches!(step, Step::BeforeOffsets(_)), Fault::StaleGeneration);
    process.begin_with(&["one"]);
    let failure = process.commit(1).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Rejoin));
}

#[test]
fn a_killed_process_reaches_nothing_from_that_step_on() {
    for (point, happened) in [(before_commit as fn(Step<'_>) -> bool, false), (after_commit, true)] {
        let scene = Scene::new();
        let mut process = scene.process("a");
        scene.strike(point, Fault::Kill);
        process.begin_with(&["one"]);
        assert_eq!(process.commit(1).unwrap_err().outcome, Outcome::Unknown);
        assert!(process.producer.init().is_err());
        assert!(process.membership.poll(Duration::ZERO).is_err());
        assert!(process.log.committed(GROUP, &[at("input", 0)]).is_err());
        let mut fetcher = process.log.fetcher("reader").unwrap();
        assert!(fetcher.fetch(&mut Vec::new(), 1, Duration::ZERO).is_err());
        drop(process);
        assert_eq!(scene.stable(), if happened { 2 } else { 0 }, "its transaction is left as it was");
        scene.advance(10);
        assert_eq!(scene.log.describe_group(GROUP).unwrap().members, [], "its session has timed out");
        let mut again = Process::start(&scene.log.client("a"), "a", None);
        again.settle();
        assert_eq!(again.owned.len(), 2);
        assert_eq!(scene.output().len(), usize::from(happened));
    }
}

#[test]
fn acknowledgements_that_are_delayed_fill_the_queue() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    scene.strike(|step| matches!(step, Step::Send { .. }), Fault::Delay);
    process.begin_with(&["1", "2"]);
    assert_eq!(scene.end(), 0, "what comes behind a delayed record waits with it");
    assert!(process.producer.queued_bytes() > 0);
    let topic = process.producer.topic(&"output".into()).unwrap();
    let full = process.producer.send(topic, Partition(0), text("3")).unwrap_err();
    assert_eq!(full, SendFailure::QueueFull);
    process.producer.poll(Duration::ZERO);
    assert_eq!((scene.end(), process.producer.queued_bytes()), (2, 0));
    process.producer.send(topic, Partition(0), text("3")).unwrap();
    assert_eq!(process.commit(1).unwrap().ends[0].1.0, 3);
    assert_eq!(scene.output(), ["1", "2", "3"]);
}

#[test]
fn a_commit_waits_for_delayed_acknowledgements_or_fails() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    scene.strike(|step| matches!(step, Step::Send { .. }), Fault::Delay);
    process.begin_with(&["1"]);
    process.commit(1).unwrap();
    assert_eq!(scene.output(), ["1"]);
    scene.log.set_faults(Some(Box::new(|point| match point.step {
        Step::Send { .. } => Fault::Delay,
        Step::ProducerPoll(_) => Fault::Unreachable,
        _ => Fault::None,
    })));
    process.begin_with(&["2"]);
    let failure = process.commit(2).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Retry));
    scene.log.set_faults(None);
    process.producer.abort().unwrap();
    process.begin_with(&["3"]);
    process.commit(2).unwrap();
    assert_eq!(scene.output(), ["1", "3"]);
}

#[test]
fn fetches_are_short_delayed_or_doubled() {
    let scene = Scene::new();
    for value in ["1", "2", "3", "4"] {
        scene.log.append(&"output".into(), Partition(0), text(value)).unwrap();
    }
    let fetch = |step: Step<'_>| matches!(step, Step::Fetch { .. });
    let mut reader = scene.reader(0);
    scene.strike(fetch, Fault::Delay);
    assert_eq!(reader.fetch(), Vec::<String>::new());
    scene.strike(fetch, Fault::Short(2));
    assert_eq!(reader.fetch(), ["1", "2"]);
    scene.strike(fetch, Fault::Duplicate(1));
    assert_eq!(reader.fetch(), ["2", "3", "4", "<4>"]);
    scene.strike(fetch, Fault::Unreachable);
    assert_eq!(reader.fetch(), Vec::<String>::new());
    assert_eq!(reader.fetch(), Vec::<String>::new(), "the end was told");
}

#[test]
fn requests_fail_with_and_without_effect() {
    let scene = Scene::new();
    let process = scene.process("a");
    let metadata = process.membership.group().metadata().unwrap();
    let group_commit = |step: Step<'_>| step == Step::Request(Request::GroupCommit);
    for (fault, expected) in [(Fault::Unreachable, None), (Fault::AnswerLost, Some(7))] {
        scene.strike(group_commit, fault);
        let answer = process.membership.group().commit(&super::scene::offsets(7), &metadata);
        assert_eq!(answer.unwrap_err().next(), Next::Retry);
        assert_eq!(scene.committed(), expected);
    }
    scene.strike(|step| step == Step::Request(Request::Committed), Fault::Unreachable);
    let error = scene.log.committed(GROUP, &[at("input", 0)]).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    scene.strike(|step| matches!(step, Step::Init("b")), Fault::Unreachable);
    assert_eq!(scene.committed(), Some(7));
}

#[test]
fn sessions_expire_and_groups_rebalance_on_demand() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    let poll = |step: Step<'_>| matches!(step, Step::MemberPoll { .. });
    let generation = process.generation();
    scene.strike(poll, Fault::Rebalance);
    assert_eq!(process.step(), None);
    assert_eq!(process.generation(), generation + 1);
    scene.strike(poll, Fault::Expire);
    assert!(matches!(process.step(), Some(OwnershipEvent::Lost(lost)) if lost.len() == 2));
    process.settle();
    assert_eq!(process.owned.len(), 2);
}

#[test]
fn a_fault_source_may_use_the_log() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    let log = scene.log.clone();
    scene.log.set_faults(Some(Box::new(move |point| {
        if before_commit(point.step) {
            log.append(&"output".into(), Partition(0), text("from the source")).unwrap();
        }
        Fault::None
    })));
    process.begin_with(&["one"]);
    process.commit(1).unwrap();
    assert_eq!(scene.output(), ["one", "from the source"]);
    assert_eq!(scene.end(), 3);
}
