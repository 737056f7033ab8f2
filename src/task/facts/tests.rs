use std::sync::Arc;
use std::time::Duration;

use super::{Facts, IdMark, OffsetMetadata, Unfit};
use crate::expression::PseudoColumns;
use crate::format::Format;
use crate::ids::{Offset, Partition, StoreId, SubTopologyId, TaskId, TopicPartition};
use crate::log::{Cleanup, Timestamps, TopicDescription};
use crate::schema::Schema;
use crate::topology::Plan;
use crate::topology::plan::{
    Edge, Emit, Encoding, Fingerprint, Guarantee, JoinKind, MaterializePlan, Node, NodeId, OnError, OperatorPlan, Port,
    Reader, ReaderKind, Shape, SourcePlan, Start, StreamTableJoinPlan, SubTopology, WatermarkPlan,
};

fn source(topic: &str, kind: ReaderKind, to: Option<u32>) -> SourcePlan {
    SourcePlan {
        topic: topic.into(),
        readers: vec![Reader {
            name: topic.into(),
            encoding: Encoding::Declared { key: Format::String, value: Format::Json },
            schema: Schema::empty(),
            visible: 0,
            key: Vec::new(),
            used: Vec::new(),
            pseudo: PseudoColumns::default(),
            timestamp: None,
            watermark: WatermarkPlan { delay: Duration::ZERO, idle_timeout: Duration::ZERO, max_ahead: None },
            on_error: OnError::Skip,
            kind,
            next: to.map(|to| Edge { to: NodeId(to), port: Port::Main }).into_iter().collect(),
        }],
        start: Start::Earliest,
        bootstrap: false,
        repartition: None,
    }
}

fn node(id: u32, step: &str, operator: OperatorPlan) -> Node {
    Node {
        id: NodeId(id),
        step: Arc::from(step),
        operator,
        schema: Schema::empty(),
        visible: 0,
        key: Vec::new(),
        output: Shape::Stream,
        retimed: false,
        on_error: OnError::Skip,
        next: Vec::new(),
    }
}

fn plan(sources: Vec<SourcePlan>, nodes: Vec<Node>) -> Plan {
    Plan {
        name: "app".into(),
        description: None,
        guarantee: Guarantee::ExactlyOnce,
        sub_topologies: vec![SubTopology {
            id: SubTopologyId(0),
            name: "all".into(),
            sources,
            nodes,
            stores: Vec::new(),
            stateful: true,
        }],
        stores: Vec::new(),
        tables: Vec::new(),
        internal_topics: Vec::new(),
        dead_letters: "app.dead-letters".into(),
        fingerprint: Fingerprint::default(),
    }
}

fn learn(plan: &Plan, topics: &[(&str, u32)]) -> Result<Facts, Vec<Unfit>> {
    let described = topics.iter().chain(&[("app.dead-letters", 1)]).map(|(name, partitions)| TopicDescription {
        name: (*name).into(),
        id: (*name).to_string(),
        partitions: *partitions,
        cleanup: Cleanup::Delete,
        max_message_bytes: 1,
        delete_retention_ms: 1,
        timestamps: Timestamps::LogAppendTime,
    });
    Facts::learn(plan, "cluster".into(), described)
}

#[test]
fn the_representative_is_the_first_by_name_of_those_with_most_partitions() {
    let streams = ["c", "a", "b"].map(|topic| source(topic, ReaderKind::Stream, None)).to_vec();
    let facts = learn(&plan(streams.clone(), Vec::new()), &[("a", 2), ("b", 4), ("c", 4)]).unwrap();
    assert_eq!(facts.representative(SubTopologyId(0)).as_str(), "b");
    assert_eq!(facts.tasks(SubTopologyId(0)), 4);
    let task = TaskId { sub_topology: SubTopologyId(0), partition: Partition(3) };
    let inputs = facts.inputs(&plan(streams, Vec::new()), task);
    assert_eq!(
        inputs,
        [Some(TopicPartition::new("c", Partition(3))), None, Some(TopicPartition::new("b", Partition(3)))]
    );
    assert_eq!(facts.task_of(&TopicPartition::new("b", Partition(3))), Some(task));
    assert_eq!(facts.task_of(&TopicPartition::new("b", Partition(4))), None);
    assert_eq!(facts.task_of(&TopicPartition::new("c", Partition(3))), None);
}

#[test]
fn the_map_changes_with_partition_counts_and_sources_and_with_nothing_else() {
    let of = |sources: &[&str], topics: &[(&str, u32)]| {
        let sources = sources.iter().map(|topic| source(topic, ReaderKind::Stream, None)).collect();
        learn(&plan(sources, Vec::new()), topics).unwrap().map_hash
    };
    let map = of(&["a", "b"], &[("a", 2), ("b", 2)]);
    assert_eq!(map, of(&["b", "a"], &[("b", 2), ("a", 2), ("unrelated", 9)]));
    assert_ne!(map, of(&["a", "b"], &[("a", 2), ("b", 3)]));
    assert_ne!(map, of(&["a"], &[("a", 2), ("b", 2)]));
}

#[test]
fn topics_that_meet_in_a_join_must_be_co_partitioned_and_are_named_if_not() {
    let join = OperatorPlan::StreamTableJoin(StreamTableJoinPlan {
        kind: JoinKind::Inner,
        store: StoreId(0),
        key: Vec::new(),
        condition: None,
        view: Vec::new(),
        table_columns: 0,
    });
    let joined = plan(
        vec![
            source("orders", ReaderKind::Stream, Some(0)),
            source("accounts", ReaderKind::Table { store: StoreId(0) }, None),
        ],
        vec![node(0, "enriched", join)],
    );
    assert!(learn(&joined, &[("orders", 4), ("accounts", 4)]).is_ok());
    let unfit = learn(&joined, &[("orders", 4), ("accounts", 6)]).unwrap_err();
    assert_eq!(unfit.len(), 1);
    let text = unfit[0].to_string();
    assert!(text.starts_with("step `enriched` needs topics with equally many partitions"), "{text}");
    assert!(text.contains("`accounts` has 6 and `orders` has 4"), "{text}");
}

#[test]
fn a_table_of_a_union_needs_equal_counts_and_a_mere_union_does_not() {
    let both = |to| vec![source("a", ReaderKind::Stream, to), source("b", ReaderKind::Stream, to)];
    let keep = MaterializePlan {
        store: StoreId(0),
        key: Vec::new(),
        latest: None,
        former_key: Vec::new(),
        emit: Emit::Each,
        ttl: None,
    };
    let topics = [("a", 1), ("b", 2)];
    let table = plan(both(Some(0)), vec![node(0, "latest", OperatorPlan::Materialize(keep))]);
    assert!(matches!(&learn(&table, &topics).unwrap_err()[..], [Unfit::NotCoPartitioned { .. }]));
    let union = plan(both(Some(0)), vec![node(0, "all", OperatorPlan::Project(Vec::new()))]);
    assert!(learn(&union, &topics).is_ok());
}

#[test]
fn offset_metadata_is_read_as_it_was_written() {
    let endpoint = || Some("host:8088".to_string());
    let (topic, changelogs) = (Some(IdMark::of("id")), vec![("s", "1"), ("t", "2")]);
    let changelogs: Vec<_> = changelogs.into_iter().map(|(store, id)| (IdMark::of(store), IdMark::of(id))).collect();
    let empty = OffsetMetadata::default;
    for (metadata, text) in [
        (empty(), ""),
        (OffsetMetadata { endpoint: endpoint(), ..empty() }, "host:8088"),
        (OffsetMetadata { endpoint: endpoint(), bootstrap_end: Some(Offset(7)), ..empty() }, "host:8088;bootstrap=7"),
        (OffsetMetadata { bootstrap_end: Some(Offset(7)), ..empty() }, ";bootstrap=7"),
        (OffsetMetadata { topic, ..empty() }, ";topic=8653ba83"),
        (
            OffsetMetadata { endpoint: endpoint(), bootstrap_end: Some(Offset(7)), topic, changelogs },
            "host:8088;bootstrap=7;topic=8653ba83;state=4ff6be138f98f158,f0acf92d2f5da314",
        ),
    ] {
        assert_eq!(metadata.to_string(), text);
        assert_eq!(OffsetMetadata::parse(text), metadata);
    }
    let later = OffsetMetadata::parse("host:8088;bootstrap=x;colour=red;;state=1,zz,;topic=-");
    assert_eq!(later, OffsetMetadata { endpoint: endpoint(), ..empty() });
}

#[test]
fn a_topic_of_the_same_name_is_told_from_the_former_one_by_its_id() {
    let metadata = OffsetMetadata {
        topic: Some(IdMark::of("old")),
        changelogs: vec![(IdMark::of("totals"), IdMark::of("old"))],
        ..OffsetMetadata::default()
    };
    assert!(metadata.is_of_another_topic("new") && !metadata.is_of_another_topic("old"));
    assert!(metadata.had_another_changelog("totals", "new") && !metadata.had_another_changelog("totals", "old"));
    // A step that has come since, and offsets of a version that did not say so.
    assert!(!metadata.had_another_changelog("counts", "new"));
    assert!(!OffsetMetadata::default().is_of_another_topic("new"));
    assert!(!OffsetMetadata::default().had_another_changelog("totals", "new"));
}

#[test]
fn a_topic_that_nobody_described_is_named() {
    let unfit = learn(&plan(vec![source("a", ReaderKind::Stream, None)], Vec::new()), &[]).unwrap_err();
    assert_eq!(unfit, [Unfit::Unknown { topic: "a".into() }]);
}
