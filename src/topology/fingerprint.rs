//! The plan in lines that say what existing state depends on, and what a change of them would misread.
//!
//! What it is: text on purpose, since it is kept in state directories and changelogs and read by later versions.
//! What it is not: it says nothing about the columns of stored rows; their layouts do (`store::row`), because columns may
//! come, go and be widened.
//!
//! A line is a *subject* (`store NAME`, `aggregate STORE.COLUMN`, `source TOPIC`, ...) and what is said about it. A subject
//! that is gone or new harms nothing: that state is not read, or there is none.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::{OperatorPlan, StoreKind, StorePlan, SubTopology, WindowPlan};
use crate::schema::Schema;

/// What must not change under existing state: one line per store, aggregate, source and internal topic, sorted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Fingerprint {
    pub lines: Vec<String>,
}

/// Something that a plan says differently from the one that wrote the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misreading {
    /// Whose state it is; `None` where it is no single store's.
    pub store: Option<String>,
    /// For people.
    pub message: String,
}

impl Fingerprint {
    pub(super) fn of(sub_topologies: &[SubTopology], stores: &[StorePlan]) -> Self {
        let mut lines: BTreeSet<String> = BTreeSet::new();
        let nodes = || sub_topologies.iter().flat_map(|sub_topology| &sub_topology.nodes);
        let mut windows: BTreeMap<usize, WindowPlan> = BTreeMap::new();
        for node in nodes() {
            match &node.operator {
                OperatorPlan::Aggregate(plan) => {
                    windows.extend(plan.window.map(|window| (plan.store.index(), window)));
                    let store = stores.get(plan.store.index()).map_or("", |store| &*store.name);
                    lines.extend(
                        plan.aggregates
                            .functions()
                            .map(|(column, function)| format!("aggregate {store}.{column} {function}")),
                    );
                }
                OperatorPlan::Repartition(plan) => {
                    let format = plan.key_format.name();
                    lines.insert(format!("repartition {} {format}({})", plan.topic, columns(&plan.key_schema)));
                }
                OperatorPlan::Filter(_)
                | OperatorPlan::Project(_)
                | OperatorPlan::StreamTableJoin(_)
                | OperatorPlan::Materialize(_)
                | OperatorPlan::Over(_)
                | OperatorPlan::ToStream
                | OperatorPlan::Sink(_) => {}
            }
        }
        for (index, store) in stores.iter().enumerate() {
            let kind = match store.kind {
                StoreKind::KeyValue => "table",
                StoreKind::Window => "window",
                StoreKind::List => "list",
                StoreKind::Meta => "meta",
            };
            let window = windows.get(&index).map_or_else(String::new, |window| {
                format!(" tumbling {} ms offset {} ms", window.size_ms, window.offset_ms)
            });
            lines.insert(format!("store {} {kind}({}){window}", store.name, columns(&store.key)));
        }
        for sub_topology in sub_topologies {
            let smallest = sub_topology.sources.iter().map(|source| &source.topic).min();
            for source in &sub_topology.sources {
                // A sub-topology is known by its smallest topic; its index is a matter of one version of the file.
                let with = smallest.unwrap_or(&source.topic);
                lines.insert(format!("source {} in {with}", source.topic));
            }
        }
        Self { lines: lines.into_iter().collect() }
    }

    /// The lines that say how the rows of a store are to be read.
    pub fn of_store<'f>(&'f self, store: &'f str) -> impl Iterator<Item = &'f str> {
        self.lines.iter().map(String::as_str).filter(move |line| store_of(line) == Some(store))
    }

    /// What the plan that wrote existing state said differently about the same things.
    pub fn misreadings<'w>(&self, written: impl IntoIterator<Item = &'w str>) -> Vec<Misreading> {
        let now: BTreeMap<&str, &str> = self.lines.iter().map(|line| (subject(line), line.as_str())).collect();
        let changed = |before: &'w str| {
            let now = *now.get(subject(before))?;
            (now != before).then(|| misreading(before, now))
        };
        written.into_iter().filter_map(changed).collect()
    }

    /// The lines to be kept beside state that a plan with this fingerprint goes on with: its own, and of what was written
    /// before those about aggregates that are gone, since their columns still stand in rows and may come back.
    pub fn on_top_of<'w>(&self, written: impl IntoIterator<Item = &'w str>) -> Vec<String> {
        let known: BTreeSet<&str> = self.lines.iter().map(|line| subject(line)).collect();
        let gone = written.into_iter().filter(|line| line.starts_with("aggregate ") && !known.contains(subject(line)));
        let lines: BTreeSet<String> = self.lines.iter().cloned().chain(gone.map(str::to_owned)).collect();
        lines.into_iter().collect()
    }
}

/// The store whose rows a line is about.
pub fn store_of(line: &str) -> Option<&str> {
    match line.split_once(' ')? {
        ("store", rest) => rest.split(' ').next(),
        ("aggregate", rest) => rest.split_once('.').map(|(store, _)| store),
        _ => None,
    }
}

fn subject(line: &str) -> &str {
    if line.starts_with("aggregate ") {
        // A column's name may be anything; the function is one word.
        return line.rsplit_once(' ').map_or(line, |(subject, _)| subject);
    }
    let end = line.match_indices(' ').nth(1).map_or(line.len(), |(at, _)| at);
    line.get(..end).unwrap_or(line)
}

fn misreading(before: &str, now: &str) -> Misreading {
    let store = store_of(before).map(str::to_owned);
    let of_aggregate = |line: &str| {
        let (subject, function) = line.strip_prefix("aggregate ")?.rsplit_once(' ')?;
        let (store, column) = subject.split_once('.')?;
        Some((store.to_owned(), column.to_owned(), function.to_owned()))
    };
    let message = match (of_aggregate(before), of_aggregate(now)) {
        (Some((store, column, before)), Some((_, _, now))) => {
            format!("step `{store}`: column `{column}` holds a {before} and would be read as a {now}")
        }
        _ => format!("was: {before}\n  now: {now}"),
    };
    Misreading { store, message }
}

fn columns(schema: &Schema) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| format!("{} {}", column.name, column.ty)).collect();
    columns.join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, Misreading};

    fn plan(lines: &[&str]) -> Fingerprint {
        Fingerprint { lines: lines.iter().map(|line| (*line).to_string()).collect() }
    }

    #[test]
    fn only_what_is_said_differently_about_the_same_thing_would_be_misread() {
        let written = ["store a table(id STRING)", "store b window(w)", "source t in t"];
        let plan = plan(&["source t in t", "store a table(id BIGINT)", "store c list(id STRING)"]);
        let message = "was: store a table(id STRING)\n  now: store a table(id BIGINT)".to_owned();
        assert_eq!(plan.misreadings(written), [Misreading { store: Some("a".to_owned()), message }]);
    }

    #[test]
    fn a_column_that_another_aggregate_would_go_on_with_is_named() {
        let written = ["aggregate a.n of it SUM", "aggregate a.m MAX", "aggregate b.n SUM"];
        let plan = plan(&["aggregate a.n of it MAX", "aggregate a.m MAX", "store b table()"]);
        let message = "step `a`: column `n of it` holds a SUM and would be read as a MAX".to_owned();
        assert_eq!(plan.misreadings(written), [Misreading { store: Some("a".to_owned()), message }]);
    }

    #[test]
    fn a_new_directory_fits_every_plan() {
        assert!(plan(&["store a table(id STRING)"]).misreadings([]).is_empty());
    }

    #[test]
    fn an_aggregate_that_is_gone_is_remembered_for_when_it_comes_back() {
        let written = ["aggregate a.m SUM", "aggregate a.n SUM", "store a table()", "store b table()"];
        let plan = plan(&["aggregate a.n SUM", "store a table()"]);
        assert_eq!(plan.on_top_of(written), ["aggregate a.m SUM", "aggregate a.n SUM", "store a table()"]);
        assert_eq!(plan.of_store("a").count(), 2);
    }
}
