//! `sidestream graph`: what a topology looks like.

use std::path::PathBuf;

use clap::ValueEnum;

use super::Exit;
use super::output::{Failure, print};
use super::topology::load;
use crate::topology::graph::{GraphFormat, draw};

/// Draw a topology: its topics, steps, stores and tables
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(value_name = "TOPOLOGY.yaml")]
    file: PathBuf,
    /// mermaid (for Markdown), dot (for Graphviz) or text
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Mermaid,
    Dot,
    Text,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let plan = load(&arguments.file)?.plan;
    let format = match arguments.format {
        Format::Mermaid => GraphFormat::Mermaid,
        Format::Dot => GraphFormat::Dot,
        Format::Text => GraphFormat::Text,
    };
    print(&draw(&plan, format))?;
    Ok(Exit::Done)
}
