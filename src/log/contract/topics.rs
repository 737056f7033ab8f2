//! Topics and their records' end.

use std::collections::BTreeSet;

use super::scene::{Scene, at, texts};
use crate::ids::{Offset, TopicName};
use crate::log::{Cleanup, Error, NewTopic, Next, OffsetQuery, SharedLog, Timestamps};

pub(super) fn topics_are_described(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let config = [("max.message.bytes", "4321"), ("delete.retention.ms", "98765")];
    let compacted = scene.topic_with("compacted", 3, Cleanup::Compact, &config);
    let both = scene.topic_with("both", 1, Cleanup::CompactDelete, &[("message.timestamp.type", "LogAppendTime")]);
    let described = scene.log.describe_topics(&[both.clone(), compacted.clone(), scene.input.clone()]).unwrap();
    let described: Vec<_> = described.into_iter().map(Option::unwrap).collect();
    assert_eq!((&described[0].name, described[0].cleanup, described[0].partitions), (&both, Cleanup::CompactDelete, 1));
    assert_eq!((&described[1].name, described[1].cleanup), (&compacted, Cleanup::Compact));
    assert_eq!(described[1].partitions, 3);
    assert_eq!((described[1].max_message_bytes, described[1].delete_retention_ms), (4321, 98_765));
    assert_eq!((described[2].cleanup, described[2].partitions), (Cleanup::Delete, 2));
    assert_eq!((described[2].max_message_bytes, described[2].delete_retention_ms), (1_048_588, 86_400_000));
    let timestamps = described.iter().map(|topic| topic.timestamps);
    let expected = [Timestamps::LogAppendTime, Timestamps::CreateTime, Timestamps::CreateTime];
    assert_eq!(timestamps.collect::<Vec<_>>(), expected);
    assert_eq!(described.iter().map(|topic| &topic.id).collect::<BTreeSet<_>>().len(), 3);
}

pub(super) fn a_wrong_topic_does_not_keep_others_from_being_made(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let new = |name: String, partitions, cleanup| NewTopic {
        name: TopicName::new(name),
        partitions,
        replication: None,
        cleanup,
        config: Vec::new(),
    };
    let topics = [
        new(format!("{prefix}.first"), 3, Cleanup::Compact),
        new(format!("{prefix} a/b"), 1, Cleanup::Delete),
        new(scene.input.to_string(), 1, Cleanup::Delete),
        new(format!("{prefix}.last"), 1, Cleanup::Delete),
    ];
    let created = scene.log.create_topics(&topics).unwrap();
    assert_eq!((&created[0], &created[3]), (&Ok(()), &Ok(())));
    assert_eq!(created[1].as_ref().unwrap_err().next(), Next::Wait);
    assert_eq!(created[2], Err(Error::TopicExists { topic: scene.input.clone() }));
    assert_eq!(created.len(), 4);
    let described = scene.log.describe_topics(&[topics[0].name.clone(), topics[3].name.clone()]).unwrap();
    let described: Vec<_> =
        described.into_iter().map(|topic| topic.map(|topic| (topic.partitions, topic.cleanup))).collect();
    assert_eq!(described, [Some((3, Cleanup::Compact)), Some((1, Cleanup::Delete))], "visible at once");
    let ends = scene.log.offsets(OffsetQuery::End, &[at(&topics[0].name, 2), at(&topics[3].name, 0)]);
    assert_eq!(ends, Ok(vec![Offset::ZERO; 2]), "and led");
    assert_eq!(scene.log.create_topics(&[]), Ok(Vec::new()));
}

pub(super) fn a_topic_made_again_has_another_id(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let topic = scene.topic("topic", 1);
    scene.write(&topic, 0, &["old"]);
    let described = |scene: &Scene| scene.log.describe_topics(std::slice::from_ref(&topic)).unwrap().remove(0);
    let first = described(&scene).unwrap();
    scene.log.delete_topics(std::slice::from_ref(&topic)).unwrap();
    scene.until("it is gone", || described(&scene).is_none().then_some(()));
    // The broker may still be busy with the deletion.
    let again = NewTopic {
        name: topic.clone(),
        partitions: 2,
        replication: None,
        cleanup: Cleanup::Delete,
        config: Vec::new(),
    };
    scene.until("it is there again", || scene.log.create_topic(&again).ok());
    // A broker may still know the old one, and that it does not lead its partition any more.
    let second = scene.until("it is described", || described(&scene).filter(|second| second.id != first.id));
    assert_eq!(second.partitions, 2);
    assert_eq!(scene.end(&topic, 0), Offset::ZERO);
}

pub(super) fn deleted_records_are_out_of_range(log: SharedLog, prefix: &str) {
    let scene = Scene::new(log, prefix);
    let output = scene.topic("output", 1);
    let compacted = scene.topic_with("compacted", 1, Cleanup::Compact, &[]);
    scene.write(&output, 0, &["a", "b", "c"]);
    scene.log.delete_records(&[(at(&output, 0), Offset(2))]).unwrap();
    assert_eq!(scene.log.offsets(OffsetQuery::Start, &[at(&output, 0)]).unwrap(), [Offset(2)]);
    assert_eq!(texts(&scene.read(&output, 0, Offset(2))), ["c"]);
    let mut reader = scene.reader(&output, 0, Offset(1));
    let (_, error) = scene.until("the slot fails", || {
        reader.step();
        reader.failed.pop()
    });
    assert_eq!(error.next(), Next::Reposition, "{error}");
    let error = scene.log.delete_records(&[(at(&compacted, 0), Offset::ZERO)]).unwrap_err();
    assert_eq!(error.next(), Next::Wait, "{error}");
}
