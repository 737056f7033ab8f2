//! A plan as a picture: text for terminals, Mermaid for documents, dot for Graphviz.
//!
//! One walk over the plan makes vertices and edges with names that do not depend on indexes; three printers draw them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::plan::{
    Edge, Encoding, Frame, JoinKind, Late, Node, OperatorPlan, Plan, Port, ReaderKind, SinkPlan, StoreKind, SubTopology,
};
use crate::ids::StoreId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFormat {
    Text,
    Mermaid,
    Dot,
}

/// Draws the plan.
pub fn draw(plan: &Plan, format: GraphFormat) -> String {
    match format {
        GraphFormat::Text => text(plan),
        GraphFormat::Mermaid => mermaid(&Graph::of(plan)),
        GraphFormat::Dot => dot(&Graph::of(plan)),
    }
}

// ---- the graph -------------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Topic,
    /// Of our own.
    InternalTopic,
    Operator,
    Store,
}

#[derive(Debug)]
struct Vertex {
    id: String,
    label: String,
    kind: Kind,
    /// Index of the sub-topology that it stands in; topics of the user stand outside.
    inside: Option<usize>,
}

#[derive(Debug, Default)]
struct Graph {
    clusters: Vec<String>,
    vertices: Vec<Vertex>,
    edges: BTreeSet<(String, String)>,
}

impl Graph {
    fn of(plan: &Plan) -> Self {
        let mut graph = Self::default();
        for (index, sub_topology) in plan.sub_topologies.iter().enumerate() {
            graph.clusters.push(format!("task {index}: {}", sub_topology.name));
            graph.sub_topology(plan, index, sub_topology);
        }
        graph
    }

    fn vertex(&mut self, id: String, label: String, kind: Kind, inside: Option<usize>) -> String {
        if !self.vertices.iter().any(|vertex| vertex.id == id) {
            self.vertices.push(Vertex { id: id.clone(), label, kind, inside });
        }
        id
    }

    fn topic(&mut self, name: &str, kind: Kind) -> String {
        self.vertex(format!("topic_{}", word(name)), name.to_owned(), kind, None)
    }

    fn store(&mut self, plan: &Plan, store: StoreId, inside: usize) -> Option<String> {
        let store = plan.stores.get(store.index())?;
        Some(self.vertex(format!("store_{}", word(&store.name)), store.name.to_string(), Kind::Store, Some(inside)))
    }

    fn sub_topology(&mut self, plan: &Plan, index: usize, sub_topology: &SubTopology) {
        let id = |node: &Node| format!("node_{index}_{}", node.id.0);
        for node in &sub_topology.nodes {
            let at = id(node);
            match &node.operator {
                OperatorPlan::Sink(sink) => {
                    self.vertex(at.clone(), operator_label(node), Kind::Operator, Some(index));
                    for rule in &sink.rules {
                        let topic = self.topic(rule.topic.as_str(), Kind::Topic);
                        self.edges.insert((at.clone(), topic));
                    }
                }
                OperatorPlan::Repartition(repartition) => {
                    self.vertex(at.clone(), operator_label(node), Kind::Operator, Some(index));
                    let topic = self.topic(repartition.topic.as_str(), Kind::InternalTopic);
                    self.edges.insert((at, topic));
                }
                operator => {
                    self.vertex(at.clone(), operator_label(node), Kind::Operator, Some(index));
                    if let Some(store) = store_of(operator).and_then(|store| self.store(plan, store, index)) {
                        let reads = matches!(operator, OperatorPlan::StreamTableJoin(_));
                        self.edges.insert(if reads { (store, at.clone()) } else { (at.clone(), store) });
                    }
                    if let OperatorPlan::Aggregate(aggregate) = operator
                        && let Late::To(topic) = &aggregate.late
                    {
                        let topic = self.topic(topic.as_str(), Kind::Topic);
                        self.edges.insert((at, topic));
                    }
                }
            }
        }
        for node in &sub_topology.nodes {
            for edge in node.edges() {
                self.edges.insert((id(node), id(&sub_topology.nodes[edge.to.index()])));
            }
        }
        for source in &sub_topology.sources {
            let kind = if source.repartition.is_some() { Kind::InternalTopic } else { Kind::Topic };
            let topic = self.topic(source.topic.as_str(), kind);
            for reader in &source.readers {
                if let ReaderKind::Table { store } = reader.kind
                    && let Some(store) = self.store(plan, store, index)
                {
                    self.edges.insert((topic.clone(), store));
                }
                for edge in reader.next.iter().filter(|edge| edge.port == Port::Main) {
                    self.edges.insert((topic.clone(), id(&sub_topology.nodes[edge.to.index()])));
                }
            }
        }
    }
}

fn store_of(operator: &OperatorPlan) -> Option<StoreId> {
    match operator {
        OperatorPlan::StreamTableJoin(join) => Some(join.store),
        OperatorPlan::Materialize(materialize) => Some(materialize.store),
        OperatorPlan::Aggregate(aggregate) => Some(aggregate.store),
        OperatorPlan::Over(over) => Some(over.store),
        OperatorPlan::Filter(_)
        | OperatorPlan::Project(_)
        | OperatorPlan::ToStream
        | OperatorPlan::Repartition(_)
        | OperatorPlan::Sink(_) => None,
    }
}

fn operator_label(node: &Node) -> String {
    let what = match &node.operator {
        OperatorPlan::Filter(_) => "filter",
        OperatorPlan::Project(_) => "project",
        OperatorPlan::StreamTableJoin(join) => match join.kind {
            JoinKind::Inner => "join",
            JoinKind::Left => "left join",
        },
        OperatorPlan::Materialize(_) => "table",
        OperatorPlan::Aggregate(aggregate) if aggregate.window.is_some() => "tumbling aggregate",
        OperatorPlan::Aggregate(_) => "aggregate",
        OperatorPlan::Over(_) => "over",
        OperatorPlan::ToStream => "changes",
        OperatorPlan::Repartition(_) => "repartition",
        OperatorPlan::Sink(_) => "to",
    };
    format!("{} {what}", node.step)
}

fn word(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

fn mermaid(graph: &Graph) -> String {
    let mut out = String::from("flowchart LR\n");
    let line = |vertex: &Vertex| {
        let label = vertex.label.replace('"', "'");
        match vertex.kind {
            Kind::Topic => format!("{}([\"{label}\"])", vertex.id),
            Kind::InternalTopic => format!("{}([\"{label}\"]):::internal", vertex.id),
            Kind::Operator => format!("{}[\"{label}\"]", vertex.id),
            Kind::Store => format!("{}[(\"{label}\")]", vertex.id),
        }
    };
    for vertex in graph.vertices.iter().filter(|vertex| vertex.inside.is_none()) {
        let _ = writeln!(out, "  {}", line(vertex));
    }
    for (index, cluster) in graph.clusters.iter().enumerate() {
        let _ = writeln!(out, "  subgraph task_{index} [\"{cluster}\"]");
        for vertex in graph.vertices.iter().filter(|vertex| vertex.inside == Some(index)) {
            let _ = writeln!(out, "    {}", line(vertex));
        }
        out.push_str("  end\n");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(out, "  {from} --> {to}");
    }
    out.push_str("  classDef internal stroke-dasharray: 4\n");
    out
}

fn dot(graph: &Graph) -> String {
    let mut out = String::from("digraph topology {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    let line = |vertex: &Vertex| {
        let shape = match vertex.kind {
            Kind::Topic => "shape=oval",
            Kind::InternalTopic => "shape=oval style=dashed",
            Kind::Operator => "shape=box",
            Kind::Store => "shape=cylinder",
        };
        format!("{} [label=\"{}\" {shape}];", vertex.id, vertex.label.replace('"', "\\\""))
    };
    for vertex in graph.vertices.iter().filter(|vertex| vertex.inside.is_none()) {
        let _ = writeln!(out, "  {}", line(vertex));
    }
    for (index, cluster) in graph.clusters.iter().enumerate() {
        let _ = writeln!(out, "  subgraph cluster_{index} {{\n    label=\"{cluster}\";");
        for vertex in graph.vertices.iter().filter(|vertex| vertex.inside == Some(index)) {
            let _ = writeln!(out, "    {}", line(vertex));
        }
        out.push_str("  }\n");
    }
    for (from, to) in &graph.edges {
        let _ = writeln!(out, "  {from} -> {to};");
    }
    out.push_str("}\n");
    out
}

// ---- text ------------------------------------------------------------------------------------------------------------

/// Everything that a reader of a plan may ask: topics, columns that are decoded, operators, stores, outputs.
fn text(plan: &Plan) -> String {
    let mut out = format!("{}\n", plan.name);
    for (index, sub_topology) in plan.sub_topologies.iter().enumerate() {
        let state = if sub_topology.stateful { "stateful" } else { "stateless" };
        let _ = writeln!(out, "\ntask {index} ({state}): {}", sub_topology.name);
        for source in &sub_topology.sources {
            let _ = match &source.repartition {
                Some(repartition) => {
                    writeln!(out, "  from {}, written by task {}", source.topic, repartition.upstream.0)
                }
                None => writeln!(out, "  from {}", source.topic),
            };
            for reader in &source.readers {
                let columns = reader.schema.columns();
                let used: Vec<&str> = columns
                    .iter()
                    .zip(&reader.used)
                    .filter(|(_, used)| **used)
                    .map(|(column, _)| &*column.name)
                    .collect();
                let key: Vec<&str> = reader.key.iter().map(|&slot| &*columns[slot].name).collect();
                let kind = match reader.kind {
                    ReaderKind::Stream => "stream".to_owned(),
                    ReaderKind::Table { store } => format!("table, kept in {}", store_name(plan, store)),
                    ReaderKind::TableChanges => "changes of a table".to_owned(),
                };
                let format = match reader.encoding {
                    Encoding::Declared { key, value } => format!(", key {}, value {}", key.name(), value.name()),
                    Encoding::Internal => String::new(),
                };
                let _ = writeln!(out, "    {} ({kind}{format}) by {}", reader.name, listed(&key));
                let _ = writeln!(out, "      reads {}", listed(&used));
                arrows(&mut out, "      ", &reader.next);
            }
        }
        for node in &sub_topology.nodes {
            let _ = writeln!(out, "  [{}] {} {}", node.id.0, node.step, describe(plan, node));
            let key: Vec<&str> = node.key.iter().map(|&slot| &*node.schema.columns()[slot].name).collect();
            if !matches!(node.operator, OperatorPlan::Sink(_) | OperatorPlan::Repartition(_)) {
                let columns: Vec<&str> = node.schema.columns()[..node.visible].iter().map(|c| &*c.name).collect();
                let hidden: Vec<&str> = node.schema.columns()[node.visible..].iter().map(|c| &*c.name).collect();
                let hidden = if hidden.is_empty() { String::new() } else { format!(" (and {})", hidden.join(", ")) };
                let _ = writeln!(out, "      gives {}{hidden} by {}", listed(&columns), listed(&key));
            }
            arrows(&mut out, "      ", &node.next);
            if let OperatorPlan::Aggregate(aggregate) = &node.operator {
                arrows(&mut out, "      closed windows ", &aggregate.closed);
            }
        }
    }
    if !plan.tables.is_empty() {
        out.push_str("\ntables\n");
    }
    for table in &plan.tables {
        let key: Vec<String> = table.key.columns().iter().map(ToString::to_string).collect();
        let hidden = if table.queryable { "" } else { ", not queryable" };
        let view = if table.view.len() > 1 { ", computed on reading" } else { "" };
        let _ = writeln!(
            out,
            "  {} by {} in {}{view}{hidden}",
            table.name,
            if key.is_empty() { "nothing".to_owned() } else { key.join(", ") },
            store_name(plan, table.store)
        );
    }
    out.push_str("\nstores\n");
    for store in &plan.stores {
        let kind = match store.kind {
            StoreKind::KeyValue => "table",
            StoreKind::Window => "windows",
            StoreKind::List => "records",
            StoreKind::Meta => "time",
        };
        let columns: Vec<String> =
            store.key.columns().iter().chain(store.value.columns()).map(ToString::to_string).collect();
        let columns = if columns.is_empty() { String::new() } else { format!(": {}", columns.join(", ")) };
        let _ = writeln!(out, "  {} ({kind}, task {}){columns}", store.name, store.sub_topology.0);
    }
    out.push_str("\ninternal topics\n");
    for topic in &plan.internal_topics {
        let partitions = match (topic.partitions, topic.partitions_like) {
            (Some(1), _) => "1 partition".to_owned(),
            (Some(count), _) => format!("{count} partitions"),
            (None, Some(like)) => format!("as many partitions as task {}", like.0),
            (None, None) => "1 partition".to_owned(),
        };
        let _ = writeln!(out, "  {} ({partitions})", topic.name);
    }
    out
}

fn store_name(plan: &Plan, store: StoreId) -> &str {
    plan.stores.get(store.index()).map_or("?", |store| &store.name)
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn arrows(out: &mut String, indent: &str, next: &[Edge]) {
    if !next.is_empty() {
        let to: Vec<String> = next.iter().map(|edge| format!("[{}]", edge.to.0)).collect();
        let _ = writeln!(out, "{indent}-> {}", to.join(" "));
    }
}

fn describe(plan: &Plan, node: &Node) -> String {
    match &node.operator {
        OperatorPlan::Filter(condition) => format!("filter {}", one_line(&condition.text)),
        OperatorPlan::Project(_) => "project".to_owned(),
        OperatorPlan::StreamTableJoin(join) => {
            let key: Vec<&str> = join.key.iter().map(|expression| &*expression.text).collect();
            let kind = if join.kind == JoinKind::Left { "left join" } else { "join" };
            let condition = join.condition.as_ref().map(|condition| format!(" if {}", one_line(&condition.text)));
            format!("{kind} {} on {}{}", store_name(plan, join.store), listed(&key), condition.unwrap_or_default())
        }
        OperatorPlan::Materialize(plan_of) => {
            let latest = plan_of.latest.as_ref().map(|latest| format!(", latest {}", one_line(&latest.text)));
            format!("table {}{}", store_name(plan, plan_of.store), latest.unwrap_or_default())
        }
        OperatorPlan::Aggregate(aggregate) => {
            let window =
                aggregate.window.map(|window| format!(", tumbling {} ms + {} ms", window.size_ms, window.grace_ms));
            let late = match &aggregate.late {
                Late::Drop => String::new(),
                Late::To(topic) => format!(", late to {topic}"),
            };
            let emit = format!("{:?}", aggregate.emit).to_lowercase();
            format!("aggregate {}{}, emit {emit}{late}", store_name(plan, aggregate.store), window.unwrap_or_default())
        }
        OperatorPlan::Over(over) => {
            let frames: Vec<String> = over
                .specs
                .iter()
                .map(|spec| match spec.frame {
                    Frame::Range { ms } => format!("range {ms} ms"),
                    Frame::Rows { n } => format!("rows {n}"),
                    Frame::Unbounded => "unbounded".to_owned(),
                })
                .collect();
            format!("over {} ({})", store_name(plan, over.store), frames.join(", "))
        }
        OperatorPlan::ToStream => "changes".to_owned(),
        OperatorPlan::Repartition(repartition) => {
            let key: Vec<String> = repartition.key_schema.columns().iter().map(ToString::to_string).collect();
            let key: Vec<&str> = key.iter().map(String::as_str).collect();
            format!("repartition to {} by {} as {}", repartition.topic, listed(&key), repartition.key_format.name())
        }
        OperatorPlan::Sink(sink) => describe_sink(sink),
    }
}

fn describe_sink(sink: &SinkPlan) -> String {
    let rules: Vec<String> = sink
        .rules
        .iter()
        .map(|rule| {
            let key: Vec<&str> = rule.key_schema.columns().iter().map(|column| &*column.name).collect();
            let value: Vec<&str> = rule.value_schema.columns().iter().map(|column| &*column.name).collect();
            let when = match &rule.condition {
                Some(condition) => format!(" where {}", one_line(&condition.text)),
                None if rule.otherwise => " otherwise".to_owned(),
                None => String::new(),
            };
            let passed = if rule.key_passthrough { ", passed through" } else { "" };
            let append = if rule.append_only { ", append-only" } else { "" };
            format!(
                "to {}{when}\n        key {} ({}{passed}), value {} ({}){append}",
                rule.topic,
                listed(&key),
                rule.key_format.name(),
                listed(&value),
                rule.value_format.name(),
            )
        })
        .collect();
    rules.join("\n      ")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
