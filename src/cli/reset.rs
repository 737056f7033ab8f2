//! `sidestream reset`: an application, or the state of one step, begins anew.
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
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    settings: SettingsFlags,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let settings = arguments.settings.resolve()?;
    let plan = load(&arguments.file)?.plan;
    let log = connect(&settings)?;
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
        Error::NoSuchStep { .. } => None,
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
