//! The graph under construction: readers, nodes and stores with indexes over the whole topology, and regions that grow
//! together into sub-topologies.
//!
//! A region stands for what must run in one task. Every source topic and every repartition topic begins one; what meets
//! in a node unites them (EXACTLY-ONCE rule 7 for topics). Nodes are added after everything that feeds them, so their
//! order is topological.

use std::sync::Arc;

use crate::ids::{StoreId, SubTopologyId, TopicName};
use crate::schema::{Column, Schema};
use crate::topology::diagnostic::Span;
use crate::topology::plan::{
    BackendKind, ChangelogPlan, Node, NodeId, OnError, OperatorPlan, Port, Reader, Shape, Start, StoreKind, StorePlan,
};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region(usize);

/// Where rows come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Producer {
    Reader(usize),
    Node(usize),
    /// Of a windowed aggregate: its groups as their windows close.
    Closed(usize),
}

#[derive(Debug)]
pub struct DraftReader {
    pub topic: TopicName,
    /// Its `next` is filled at the end.
    pub reader: Reader,
    pub start: Start,
    pub bootstrap: bool,
    pub region: Region,
    /// The node that writes the topic, if it is a repartition topic.
    pub repartition: Option<usize>,
    pub next: Vec<(usize, Port)>,
}

#[derive(Debug)]
pub struct DraftNode {
    /// Its `next` is filled at the end.
    pub node: Node,
    pub region: Region,
    pub next: Vec<(usize, Port)>,
    /// Filled into `AggregatePlan::closed` at the end.
    pub closed: Vec<(usize, Port)>,
    pub span: Span,
}

#[derive(Debug, Default)]
pub struct Draft {
    pub readers: Vec<DraftReader>,
    pub nodes: Vec<DraftNode>,
    pub stores: Vec<StorePlan>,
    pub store_regions: Vec<Region>,
    /// Per repartition topic: its name, an explicit partition count, and its writer.
    pub repartitions: Vec<DraftRepartition>,
    parents: Vec<usize>,
}

#[derive(Debug)]
pub struct DraftRepartition {
    pub topic: TopicName,
    pub partitions: Option<u32>,
    pub writer: usize,
    pub reader: usize,
}

/// What a new node needs to be known besides its operator.
#[derive(Debug)]
pub struct NodeShape {
    pub step: Arc<str>,
    pub columns: Vec<Column>,
    pub visible: usize,
    pub key: Vec<usize>,
    pub output: Shape,
    pub on_error: OnError,
    pub span: Span,
}

impl Draft {
    pub fn new_region(&mut self) -> Region {
        self.parents.push(self.parents.len());
        Region(self.parents.len() - 1)
    }

    /// The region that stands for all that it was united with.
    pub fn root(&self, region: Region) -> Region {
        let mut at = region.0;
        while self.parents[at] != at {
            at = self.parents[at];
        }
        Region(at)
    }

    pub fn unite(&mut self, a: Region, b: Region) -> Region {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.parents[high.0] = low.0;
        low
    }

    /// The region of a topic that something else reads already, or a new one.
    pub fn topic_region(&mut self, topic: &TopicName) -> Region {
        match self.readers.iter().find(|reader| reader.topic == *topic) {
            Some(reader) => reader.region,
            None => self.new_region(),
        }
    }

    pub fn add_node(
        &mut self,
        from: &[Producer],
        region: Region,
        operator: OperatorPlan,
        shape: NodeShape,
    ) -> Producer {
        let index = self.nodes.len();
        let node = Node {
            id: NodeId(0),
            step: shape.step,
            operator,
            schema: Schema::new(shape.columns),
            visible: shape.visible,
            key: shape.key,
            output: shape.output,
            on_error: shape.on_error,
            retimed: false,
            next: Vec::new(),
        };
        self.nodes.push(DraftNode { node, region, next: Vec::new(), closed: Vec::new(), span: shape.span });
        for producer in from {
            match producer {
                Producer::Reader(reader) => self.readers[*reader].next.push((index, Port::Main)),
                Producer::Node(node) => self.nodes[*node].next.push((index, Port::Main)),
                Producer::Closed(node) => self.nodes[*node].closed.push((index, Port::Main)),
            }
        }
        Producer::Node(index)
    }

    pub fn add_store(
        &mut self,
        name: &str,
        kind: StoreKind,
        key: Schema,
        value: Schema,
        changelog: ChangelogPlan,
        region: Region,
    ) -> StoreId {
        let id = StoreId(u32::try_from(self.stores.len()).unwrap_or(u32::MAX));
        self.stores.push(StorePlan {
            id,
            name: Arc::from(name),
            kind,
            key,
            value,
            backend: BackendKind::RocksDb,
            changelog,
            sub_topology: SubTopologyId(0),
        });
        self.store_regions.push(region);
        id
    }
}
