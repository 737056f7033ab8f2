//! The command line: one file per command behind a closed enum.
//!
//! What it is not: no command holds logic of its own beyond asking, wiring and printing.
//!
//! Invariants
//! - Standard output carries what was asked for; errors, logs and progress go to standard error.
//! - Exit codes as [`Exit`] says, everywhere.

mod application;
mod check;
mod dev;
mod graph;
mod output;
mod record;
mod reset;
mod run;
mod schema;
mod scratch;
mod settings;
mod stop;
mod test;
mod topology;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use output::Failure;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// Bad topology, setting or file; unusable or foreign state directory; `on_error: fail`.
    Failed,
    /// `sidestream test`: at least one test failed.
    TestFailed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            // 2 is clap's, for a command line that it cannot read.
            Exit::TestFailed => 3,
        })
    }
}

/// Stream processing beside your service: a topology in YAML and SQL, on Kafka, exactly once, with its state over HTTP.
#[derive(Debug, Parser)]
#[command(name = "sidestream", version, about, max_term_width = 110, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Arguments),
    Dev(dev::Arguments),
    Test(test::Arguments),
    Check(check::Arguments),
    Graph(graph::Arguments),
    Reset(reset::Arguments),
    Schema(schema::Arguments),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let exit = match CommandLine::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Graph(arguments) => graph::run(&arguments),
        Command::Reset(arguments) => reset::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
    };
    exit.unwrap_or_else(|failure| {
        output::failure(&failure);
        Exit::Failed
    })
    .into()
}
