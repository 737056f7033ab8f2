//! `sidestream reset`: an application, or the state of one step, begins anew; or inputs that are out of range go on.
//!
//! Invariant: nothing is removed before somebody has said yes to exactly what is listed.

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use super::Exit;
use super::output::{Failure, note, print};
use super::run::connect;
use super::settings::SettingsFlags;
use super::topology::load;
use crate::log::Log;
use crate::runtime::reposition::{self, Edge, Move};
use crate::runtime::reset::{self, Error, Removal, Scope};
use crate::topology::Plan;

/// Clear an application's state, internal topics and offsets, or the state of one step
///
/// All instances must be stopped. Source and output topics stay as they are.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(value_name = "TOPOLOGY.yaml")]
    file: PathBuf,
    /// Only the state of this step or table; it starts empty where the application stands
    #[arg(long, value_name = "NAME")]
    step: Option<String>,
    /// Only move committed offsets that are out of range, to the oldest or behind the newest record; the state stays
    #[arg(long, value_enum, conflicts_with = "step")]
    offsets: Option<Offsets>,
    /// With --offsets: only of this stream, table or topic
    #[arg(long, value_name = "NAME", requires = "offsets")]
    source: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: SettingsFlags,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Offsets {
    Earliest,
    Latest,
}

impl Offsets {
    fn edge(self) -> Edge {
        match self {
            Self::Earliest => Edge::Earliest,
            Self::Latest => Edge::Latest,
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let settings = arguments.settings.resolve()?;
    let plan = load(&arguments.file)?.plan;
    let log = connect(&settings, None)?;
    if let Some(offsets) = arguments.offsets {
        return reposition(&log, &plan, offsets.edge(), arguments);
    }
    let path = settings.state_dir(&plan.name);
    let scope = arguments.step.as_deref().map_or(Scope::Application, Scope::Step);
    let removal = reset::look(&log, &plan, scope).map_err(|error| failure(&error))?;
    print(&describe(&removal, &plan, &path))?;
    if !arguments.yes && !confirmed()? {
        note("nothing was changed");
        return Ok(Exit::Failed);
    }
    reset::perform(&log, &plan, &path, &removal).map_err(|error| failure(&error))?;
    print("done\n")?;
    Ok(Exit::Done)
}

/// Moves what is out of range.
fn reposition(log: &dyn Log, plan: &Plan, edge: Edge, arguments: &Arguments) -> Result<Exit, Failure> {
    let moves = reposition::look(log, plan, edge, arguments.source.as_deref()).map_err(|error| failure(&error))?;
    if moves.is_empty() {
        print("every committed offset is in range: there is nothing to move\n")?;
        return Ok(Exit::Done);
    }
    let mut text = format!("This moves offsets of the application `{}` that are out of range:\n", plan.name);
    for Move { input, from, to, .. } in &moves {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "  {input}: from {from} to {to}");
    }
    text.push_str("What stood between them is not in the results. State and all other offsets stay as they are.\n");
    print(&text)?;
    if !arguments.yes && !confirmed()? {
        note("nothing was changed");
        return Ok(Exit::Failed);
    }
    reposition::perform(log, plan, &moves).map_err(|error| failure(&error))?;
    print("done\n")?;
    Ok(Exit::Done)
}

fn describe(removal: &Removal, plan: &Plan, path: &Path) -> String {
    let mut text = format!("This removes, for good, of the application `{}`:\n", plan.name);
    let mut line = |what: String| {
        // Writing to a String cannot fail.
        let _written = writeln!(text, "  {what}");
    };
    if removal.stores.is_empty() {
        line(format!("the local state in {}", path.display()));
    } else {
        line(format!("the stores {} in {}", removal.stores.join(", "), path.display()));
    }
    if let Some(group) = &removal.group {
        line(format!("the consumer group `{group}` with its offsets"));
    }
    for topic in &removal.topics {
        line(format!("the topic {topic}"));
    }
    text.push_str(if removal.group.is_some() {
        "It then reads its sources from where each `start` says, and writes its results again.\n"
    } else {
        "The step then starts empty; what was read before is not read again.\n"
    });
    text.push_str("Other instances have state directories of their own: run this for each of them.\n");
    text
}

fn failure(error: &Error) -> Failure {
    let help = match error {
        Error::Store(error) => error.help(),
        Error::Running { .. } => Some("one that was killed leaves the group after its session timeout, 10 s"),
        Error::Log(_) => Some("nothing else was changed; run it again when Kafka answers"),
        Error::NoSuchStep { .. } | Error::NoSuchSource { .. } => None,
    };
    match help {
        Some(help) => Failure::new(error).help(help),
        None => Failure::new(error),
    }
}

/// Asks on a terminal; elsewhere nobody can answer.
fn confirmed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::new("nobody is here to say yes").help("repeat the command with --yes"));
    }
    print("Go on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
