//! `sidestream schema`: the language for editors.

use super::Exit;
use super::output::{Failure, print};
use crate::topology::schema::json_schema;

/// Print the JSON Schema of topology files, for completion and checks in editors
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub fn run(_arguments: &Arguments) -> Result<Exit, Failure> {
    print(&format!("{:#}\n", json_schema()))?;
    Ok(Exit::Done)
}
