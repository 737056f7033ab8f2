//! The graph cut into sub-topologies: ids, sources, stores, internal topics, and what is decoded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Planner;
use super::draft::Region;
use crate::expression::{Expression, PseudoColumns};
use crate::ids::{StoreId, SubTopologyId, TopicName};
use crate::schema::Schema;
use crate::topology::diagnostic::Code;
use crate::topology::plan::{
    BackendKind, ChangelogPlan, Edge, Fingerprint, InternalTopic, InternalTopicKind, Late, Node, NodeId, OperatorPlan,
    Plan, Port, Reader, ReaderKind, RepartitionSource, Shape, SourcePlan, StoreKind, StorePlan, SubTopology,
};

impl Planner<'_> {
    pub(super) fn finish(&mut self) -> Plan {
        let regions = self.order_regions();
        let id_of = |region: Region| SubTopologyId(index_u32(regions.iter().position(|&at| at == region).unwrap_or(0)));
        self.decide_what_is_used();
        self.decide_who_hears_of_time();

        let name = self.document.name.text.clone();
        let mut stores: Vec<StorePlan> = self.draft.stores.clone();
        for (store, region) in stores.iter_mut().zip(&self.draft.store_regions) {
            store.sub_topology = id_of(self.draft.root(*region));
        }
        let mut sub_topologies = Vec::new();
        for &region in &regions {
            let id = id_of(region);
            let mut sub_topology = self.sub_topology(id, region, &id_of);
            let keeps_state = stores.iter().any(|store| store.sub_topology == id);
            let passes_time_on =
                sub_topology.nodes.iter().any(|node| matches!(node.operator, OperatorPlan::Repartition(_)));
            let is_behind = sub_topology.sources.iter().any(|source| source.repartition.is_some());
            if keeps_state || passes_time_on || is_behind {
                sub_topology.stateful = true;
                stores.push(meta_store(&name, &sub_topology, StoreId(index_u32(stores.len()))));
            }
            sub_topology.stores =
                stores.iter().filter(|store| store.sub_topology == id).map(|store| store.id).collect();
            sub_topologies.push(sub_topology);
        }
        let dead_letters = TopicName::new(format!("{name}.dead-letters"));
        let internal_topics = self.internal_topics(&stores, &dead_letters, &id_of);
        for topic in &internal_topics {
            if topic.name.as_str().len() > LONGEST_TOPIC {
                let message = format!("the internal topic `{}` has a longer name than Kafka allows", topic.name);
                let help = "shorten the topology's name or the step's";
                let span = self.document.name.span.clone();
                self.error(Code::BadName, &span, message, Some(help));
            }
        }
        let mut tables = std::mem::take(&mut self.tables);
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let fingerprint = Fingerprint::of(&sub_topologies, &stores);
        Plan {
            name,
            description: self.document.description.clone(),
            guarantee: self.document.guarantee,
            sub_topologies,
            stores,
            tables,
            internal_topics,
            dead_letters,
            fingerprint,
        }
    }

    /// Regions in which something is read, upstream ones first. A region that would wait for its own watermark is an
    /// error.
    fn order_regions(&mut self) -> Vec<Region> {
        let draft = &self.draft;
        let mut open: Vec<Region> = Vec::new();
        for reader in &draft.readers {
            let is_read = !reader.next.is_empty() || matches!(reader.reader.kind, ReaderKind::Table { .. });
            let root = draft.root(reader.region);
            if is_read && !open.contains(&root) {
                open.push(root);
            }
        }
        let mut upstream: BTreeMap<Region, BTreeSet<Region>> = BTreeMap::new();
        for repartition in &draft.repartitions {
            let from = draft.root(draft.nodes[repartition.writer].region);
            let to = draft.root(draft.readers[repartition.reader].region);
            upstream.entry(to).or_default().insert(from);
        }
        let mut order: Vec<Region> = Vec::new();
        while !open.is_empty() {
            let ready = open.iter().position(|region| {
                upstream.get(region).is_none_or(|upstream| upstream.iter().all(|at| order.contains(at)))
            });
            let Some(ready) = ready else {
                let stuck = draft
                    .repartitions
                    .iter()
                    .find(|repartition| open.contains(&draft.root(draft.readers[repartition.reader].region)));
                if let Some(stuck) = stuck {
                    let span = draft.nodes[stuck.writer].span.clone();
                    let step = draft.nodes[stuck.writer].node.step.clone();
                    let message = format!("repartitioning `{step}` into the task that it comes from");
                    let help = "write the re-keyed stream to a topic of yours, and read that";
                    self.not_supported(&span, &message, Some(help));
                }
                return order;
            };
            order.push(open.remove(ready));
        }
        order
    }

    fn sub_topology(&self, id: SubTopologyId, region: Region, id_of: &dyn Fn(Region) -> SubTopologyId) -> SubTopology {
        let draft = &self.draft;
        let members: Vec<usize> =
            (0..draft.nodes.len()).filter(|&node| draft.root(draft.nodes[node].region) == region).collect();
        let edges = |next: &[(usize, Port)]| -> Vec<Edge> {
            next.iter()
                .filter_map(|(to, port)| {
                    Some(Edge { to: node_id(members.iter().position(|at| at == to)?), port: *port })
                })
                .collect()
        };
        let nodes: Vec<Node> = members
            .iter()
            .enumerate()
            .map(|(index, &at)| {
                let mut node = draft.nodes[at].node.clone();
                node.id = node_id(index);
                node.next = edges(&draft.nodes[at].next);
                if let OperatorPlan::Aggregate(plan) = &mut node.operator {
                    plan.closed = edges(&draft.nodes[at].closed);
                }
                node
            })
            .collect();
        let mut sources: Vec<SourcePlan> = Vec::new();
        for draft_reader in draft.readers.iter().filter(|reader| draft.root(reader.region) == region) {
            if draft_reader.next.is_empty() && !matches!(draft_reader.reader.kind, ReaderKind::Table { .. }) {
                continue;
            }
            let mut reader: Reader = draft_reader.reader.clone();
            reader.next = edges(&draft_reader.next);
            if let Some(source) = sources.iter_mut().find(|source| source.topic == draft_reader.topic) {
                source.bootstrap |= draft_reader.bootstrap;
                source.readers.push(reader);
                continue;
            }
            let repartition = draft_reader
                .repartition
                .map(|writer| RepartitionSource { upstream: id_of(draft.root(draft.nodes[writer].region)) });
            sources.push(SourcePlan {
                topic: draft_reader.topic.clone(),
                readers: vec![reader],
                start: draft_reader.start,
                bootstrap: draft_reader.bootstrap,
                repartition,
            });
        }
        let mut steps: Vec<&str> = Vec::new();
        for node in &nodes {
            if !steps.contains(&&*node.step) {
                steps.push(&node.step);
            }
        }
        if steps.is_empty() {
            steps = sources.iter().flat_map(|source| &source.readers).map(|reader| &*reader.name).collect();
        }
        let name = steps.join(", ");
        SubTopology { id, name, sources, nodes, stores: Vec::new(), stateful: false }
    }

    fn internal_topics(
        &self,
        stores: &[StorePlan],
        dead_letters: &TopicName,
        id_of: &dyn Fn(Region) -> SubTopologyId,
    ) -> Vec<InternalTopic> {
        let draft = &self.draft;
        let mut topics = Vec::new();
        for repartition in &draft.repartitions {
            let region = draft.root(draft.readers[repartition.reader].region);
            let beside_users =
                draft.readers.iter().any(|reader| draft.root(reader.region) == region && reader.repartition.is_none());
            let siblings: Vec<_> = draft
                .repartitions
                .iter()
                .filter(|other| draft.root(draft.readers[other.reader].region) == region)
                .collect();
            let said = siblings.iter().find_map(|sibling| sibling.partitions);
            let first = siblings.first().is_none_or(|sibling| sibling.topic == repartition.topic);
            let like = if beside_users || !first {
                id_of(region)
            } else {
                id_of(draft.root(draft.nodes[repartition.writer].region))
            };
            topics.push(InternalTopic {
                name: repartition.topic.clone(),
                kind: InternalTopicKind::Repartition,
                partitions: said,
                partitions_like: said.is_none().then_some(like),
            });
        }
        for store in stores {
            let (ChangelogPlan::Own(topic) | ChangelogPlan::SourceIfCompacted { own: topic, .. }) = &store.changelog;
            topics.push(InternalTopic {
                name: topic.clone(),
                kind: InternalTopicKind::Changelog,
                partitions: None,
                partitions_like: Some(store.sub_topology),
            });
        }
        topics.push(InternalTopic {
            name: dead_letters.clone(),
            kind: InternalTopicKind::DeadLetters,
            partitions: Some(1),
            partitions_like: None,
        });
        topics
    }

    /// From the last node to the first: which slots of its input each needs, and which pseudo-columns.
    fn decide_what_is_used(&mut self) {
        let draft = &mut self.draft;
        let mut needs: Vec<Need> = vec![Need::default(); draft.nodes.len()];
        let gather = |next: &[(usize, Port)], needs: &[Need]| {
            let mut need = Need::default();
            for (to, _) in next {
                need.merge(&needs[*to]);
            }
            need
        };
        for index in (0..draft.nodes.len()).rev() {
            let node = &draft.nodes[index];
            let mut behind = gather(&node.next, &needs);
            if let Some(repartition) = draft.repartitions.iter().find(|repartition| repartition.writer == index) {
                behind = gather(&draft.readers[repartition.reader].next, &needs);
                behind.pseudo = PseudoColumns::default();
            }
            needs[index] = Need::of(&node.node, behind);
        }
        for reader in &mut draft.readers {
            let mut need = gather(&reader.next, &needs);
            if let Some(timestamp) = &reader.reader.timestamp {
                need.expression(timestamp);
            }
            let all = matches!(reader.reader.kind, ReaderKind::Table { .. });
            reader.reader.used =
                (0..reader.reader.schema.len()).map(|slot| all || need.slots.contains(&slot)).collect();
            reader.reader.pseudo = need.pseudo;
        }
    }

    /// From the last node to the first: see [`Node::retimed`].
    fn decide_who_hears_of_time(&mut self) {
        let draft = &mut self.draft;
        for index in (0..draft.nodes.len()).rev() {
            let behind = match draft.repartitions.iter().find(|repartition| repartition.writer == index) {
                Some(repartition) => &draft.readers[repartition.reader].next,
                None => &draft.nodes[index].next,
            };
            let leads_on = behind.iter().any(|(to, _)| draft.nodes[*to].node.retimed);
            draft.nodes[index].node.retimed = match &draft.nodes[index].node.operator {
                OperatorPlan::Aggregate(plan) if plan.input == Shape::Table => {
                    leads_on || plan.ttl.is_some() || plan.aggregates.goes_by_event_time()
                }
                OperatorPlan::Materialize(plan) => leads_on || !plan.former_key.is_empty(),
                OperatorPlan::Repartition(plan) => leads_on && plan.input == Shape::Table,
                OperatorPlan::Filter(_) | OperatorPlan::Project(_) => leads_on,
                OperatorPlan::Aggregate(_)
                | OperatorPlan::StreamTableJoin(_)
                | OperatorPlan::Over(_)
                | OperatorPlan::ToStream
                | OperatorPlan::Sink(_) => false,
            };
        }
    }
}

/// What a node needs of its input rows.
#[derive(Clone, Debug, Default)]
struct Need {
    slots: BTreeSet<usize>,
    pseudo: PseudoColumns,
}

impl Need {
    fn merge(&mut self, other: &Self) {
        self.slots.extend(&other.slots);
        self.pseudo(other.pseudo);
    }

    fn pseudo(&mut self, other: PseudoColumns) {
        self.pseudo.key |= other.key;
        self.pseudo.headers |= other.headers;
        self.pseudo.record |= other.record;
    }

    fn expression(&mut self, expression: &Expression) {
        self.slots.extend(&expression.slots);
        self.pseudo(expression.pseudo);
    }

    fn expressions<'e>(&mut self, expressions: impl IntoIterator<Item = &'e Expression>) {
        expressions.into_iter().for_each(|expression| self.expression(expression));
    }

    /// Of the input of a node whose output must have what is needed behind it.
    fn of(node: &Node, behind: Self) -> Self {
        let mut need = Self::default();
        let before = |width: usize, slots: &BTreeSet<usize>| slots.range(..width).copied().collect::<Vec<usize>>();
        match &node.operator {
            OperatorPlan::Filter(condition) => {
                need = behind;
                need.expression(condition);
            }
            OperatorPlan::Project(expressions) => {
                need.pseudo = behind.pseudo;
                for (slot, expression) in expressions.iter().enumerate() {
                    // A computation may fail, and then the record does, whether its result is read or not.
                    if behind.slots.contains(&slot) || expression.as_column().is_none() {
                        need.expression(expression);
                    }
                }
            }
            OperatorPlan::StreamTableJoin(join) => {
                let width = node.schema.len() - join.table_columns;
                need.slots.extend(before(width, &behind.slots));
                need.pseudo = behind.pseudo;
                need.expressions(&join.key);
                if let Some(condition) = &join.condition {
                    need.slots.extend(before(width, &condition.slots));
                    need.pseudo(condition.pseudo);
                }
                for operator in &join.view {
                    match operator {
                        OperatorPlan::Filter(condition) => need.pseudo(condition.pseudo),
                        OperatorPlan::Project(expressions) => {
                            for expression in expressions {
                                need.pseudo(expression.pseudo);
                            }
                        }
                        _ => {}
                    }
                }
            }
            OperatorPlan::Materialize(plan) => {
                need.slots.extend(0..node.schema.len());
                need.expressions(&plan.latest);
            }
            OperatorPlan::Aggregate(plan) => {
                need.expressions(&plan.group);
                need.expressions(plan.aggregates.expressions());
                if matches!(plan.late, Late::To(_)) {
                    need.slots.extend(0..LATE_COLUMNS);
                    need.pseudo.headers = true;
                }
            }
            OperatorPlan::Over(plan) => {
                let results: usize = plan.specs.iter().map(|spec| spec.set.columns().len()).sum();
                need.slots.extend(before(node.schema.len() - results, &behind.slots));
                need.pseudo = behind.pseudo;
                need.expressions(&plan.by);
                need.expressions(&plan.kept);
            }
            OperatorPlan::ToStream => {
                let operation = node.visible.saturating_sub(1);
                let input = behind.slots.iter().filter(|&&slot| slot != operation);
                need.slots.extend(input.map(|&slot| if slot > operation { slot - 1 } else { slot }));
                need.pseudo = behind.pseudo;
            }
            OperatorPlan::Repartition(plan) => {
                need = behind;
                need.expressions(&plan.key);
            }
            OperatorPlan::Sink(sink) => {
                for rule in &sink.rules {
                    need.expressions(&rule.condition);
                    need.expressions(&rule.value);
                    need.expressions(rule.headers.iter().map(|(_, expression)| expression));
                    need.pseudo.headers |= rule.pass_headers;
                    if rule.key_passthrough {
                        need.pseudo.key = true;
                    } else {
                        need.expressions(&rule.key);
                    }
                }
            }
        }
        need
    }
}

/// Kafka's limit for the name of a topic.
const LONGEST_TOPIC: usize = 249;

/// A late record goes out as its whole row; slots beyond the row's width mean nothing.
const LATE_COLUMNS: usize = 1024;

fn meta_store(application: &str, sub_topology: &SubTopology, id: StoreId) -> StorePlan {
    // Steps come and go; the topics that a task reads are the last thing to change.
    let smallest = sub_topology.sources.iter().map(|source| &source.topic).min();
    let topic = smallest.map_or("", |topic| topic.as_str());
    let own = topic.strip_prefix(application).map_or(topic, |rest| rest.trim_start_matches('-'));
    let name = if own.is_empty() { format!("{topic}-meta") } else { format!("{own}-meta") };
    let changelog = TopicName::new(format!("{application}-{name}-changelog"));
    StorePlan {
        id,
        name: Arc::from(name),
        kind: StoreKind::Meta,
        key: Schema::empty(),
        value: Schema::empty(),
        backend: BackendKind::RocksDb,
        changelog: ChangelogPlan::Own(changelog),
        sub_topology: sub_topology.id,
    }
}

fn node_id(index: usize) -> NodeId {
    NodeId(index_u32(index))
}

/// A plan never has anything near 2^32 of anything.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
