//! `sidestream check`: every mistake of a topology at once.

use std::path::PathBuf;

use super::Exit;
use super::output::{Failure, print};
use super::topology::{self, look};
use crate::topology::Loaded;

/// Check topologies: every mistake at once, with its place and what to write instead
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Topology files
    #[arg(required = true, value_name = "TOPOLOGY.yaml")]
    files: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for path in &arguments.files {
        match topology::check(path)? {
            Ok(loaded) => {
                if !loaded.warnings.list.is_empty() {
                    print(&loaded.warnings.render(look()))?;
                }
                print(&format!("{}: {}\n", path.display(), summary(&loaded)))?;
            }
            Err(diagnostics) => {
                print(&diagnostics.render(look()))?;
                exit = Exit::Failed;
            }
        }
    }
    Ok(exit)
}

fn summary(loaded: &Loaded) -> String {
    let plan = &loaded.plan;
    let count = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    let sources = plan.sub_topologies.iter().flat_map(|part| &part.sources);
    [
        format!("`{}` is fine", plan.name),
        count(loaded.document.steps.len(), "step", "steps"),
        count(sources.filter(|source| source.repartition.is_none()).count(), "source topic", "source topics"),
        count(plan.tables.iter().filter(|table| table.queryable).count(), "table to query", "tables to query"),
        count(loaded.document.tests.len(), "test", "tests"),
    ]
    .join(", ")
}
