use super::scene::{Process, Scene, at, text};
use crate::ids::{Offset, Partition};
use crate::log::{Cleanup, Error, Log, Next, Outcome};

#[test]
fn a_dropped_producer_leaves_its_transaction_open_until_the_next_init() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&["lost"]);
    drop(process.producer);
    scene.log.append(&"output".into(), Partition(0), text("other")).unwrap();
    assert_eq!((scene.end(), scene.stable(), scene.output().len()), (2, 0, 0));
    super::scene::producer(&scene.log, "a");
    assert_eq!((scene.end(), scene.stable()), (3, 3), "the abort has written its control record");
    assert_eq!(scene.output(), ["other"]);
}

#[test]
fn a_transaction_that_is_open_for_too_long_is_aborted_and_its_producer_fenced() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&["late"]);
    scene.advance(9);
    assert_eq!(scene.stable(), 0);
    scene.advance(1);
    assert_eq!(scene.stable(), 2);
    let failure = process.commit(1).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::RecreateProducer));
    assert_eq!((scene.output().len(), scene.committed()), (0, None));
}

#[test]
fn a_transaction_without_a_record_does_not_time_out() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&[]);
    scene.advance(11);
    process.commit(1).unwrap();
    assert_eq!(scene.committed(), Some(1));
}

#[test]
fn the_records_of_other_transactions_survive_an_abort_between_them() {
    let scene = Scene::new();
    let (mut a, mut b) = (scene.process("a"), super::scene::producer(&scene.log, "b"));
    let topic = b.topic(&"output".into()).unwrap();
    b.begin().unwrap();
    a.begin_with(&["a1"]);
    b.send(topic, Partition(0), text("b1")).unwrap();
    a.begin_again(&["a2"]);
    b.send(topic, Partition(0), text("b2")).unwrap();
    b.abort().unwrap();
    a.commit(1).unwrap();
    assert_eq!(scene.output(), ["a1", "a2"]);
    assert_eq!(scene.end(), 6, "four records and two control records");
}

impl Process {
    fn begin_again(&mut self, values: &[&str]) {
        let topic = self.producer.topic(&"output".into()).unwrap();
        for value in values {
            self.producer.send(topic, Partition(0), text(value)).unwrap();
        }
    }
}

#[test]
fn a_record_that_the_topic_refuses_fails_the_commit_and_nothing_else() {
    let scene = Scene::new();
    scene.topic("compacted", 1, Cleanup::Compact);
    let mut process = scene.process("a");
    process.begin_with(&["with it"]);
    let topic = process.producer.topic(&"compacted".into()).unwrap();
    let without_key = crate::log::OutgoingRecord { key: None, ..text("x") };
    process.producer.send(topic, Partition(0), without_key).unwrap();
    let failure = process.commit(1).unwrap_err();
    assert_eq!((failure.outcome, failure.error.next()), (Outcome::Aborted, Next::Poison));
    process.producer.abort().unwrap();
    process.begin_with(&["after"]);
    process.commit(2).unwrap();
    assert_eq!(scene.output(), ["after"]);
}

#[test]
fn a_send_to_a_missing_topic_or_partition_is_refused() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&[]);
    let missing = process.producer.topic(&"missing".into()).unwrap();
    let refused = process.producer.send(missing, Partition(0), text("x")).unwrap_err();
    assert_eq!(refused, Error::TopicMissing { topic: "missing".into() }.into());
    let output = process.producer.topic(&"output".into()).unwrap();
    process.producer.send(output, Partition(7), text("x")).unwrap();
    assert_eq!(process.commit(1).unwrap_err().error.next(), Next::Poison);
}

#[test]
fn a_producer_finds_a_topic_that_was_made_again() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&["old"]);
    process.commit(1).unwrap();
    let mut reader = scene.reader(0);
    assert_eq!(reader.fetch(), ["old", "<2>"]);
    scene.log.delete_topics(&["output".into()]).unwrap();
    scene.topic("output", 1, Cleanup::Delete);
    process.begin_with(&["new"]);
    process.commit(2).unwrap();
    assert_eq!(scene.output(), ["new"]);
    assert_eq!(reader.fetch(), ["topic `output` does not exist"], "it was another topic");
    assert_eq!(reader.fetch(), Vec::<String>::new());
}

#[test]
fn a_deleted_topic_takes_its_committed_offsets_along() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&[]);
    process.commit(1).unwrap();
    scene.log.delete_topics(&["input".into()]).unwrap();
    assert_eq!(scene.committed(), None);
    process.settle();
    assert_eq!(process.owned, []);
}

#[test]
fn trimming_keeps_the_last_committed_records() {
    let scene = Scene::new();
    let mut process = scene.process("a");
    process.begin_with(&["1", "2", "3"]);
    process.commit(1).unwrap();
    process.begin_with(&["open"]);
    scene.log.trim(&"output".into(), 2).unwrap();
    assert_eq!(scene.output(), ["2", "3"]);
    scene.log.trim(&"output".into(), 0).unwrap();
    process.commit(2).unwrap();
    assert_eq!(scene.output(), ["open"]);
    let start = scene.log.offsets(crate::log::OffsetQuery::Start, &[at("output", 0)]).unwrap();
    assert_eq!(start, [Offset(4)]);
}
