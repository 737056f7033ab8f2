//! Topology files for commands: read, checked, and refused with all that is wrong.

use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use super::output::{Failure, note};
use crate::topology::{self, Diagnostics, Loaded, Look};

/// Reads and checks a topology and the tests beside it. Mistakes are no failure; a file that cannot be read is.
pub fn check(path: &Path) -> Result<Result<Loaded, Diagnostics>, Failure> {
    let readable = File::open(path).and_then(|file| {
        let is_file = file.metadata()?.is_file();
        if is_file { Ok(()) } else { Err(io::Error::other("it is not a file")) }
    });
    readable.map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display()))
            .help("check the path and the rights on the file")
    })?;
    Ok(topology::load(path, &|name| std::env::var(name).ok()))
}

/// A topology without mistakes. Warnings are printed.
pub fn load(path: &Path) -> Result<Loaded, Failure> {
    match check(path)? {
        Ok(loaded) => {
            if !loaded.warnings.list.is_empty() {
                note(&loaded.warnings.render(look()));
            }
            Ok(loaded)
        }
        Err(diagnostics) => {
            note(&diagnostics.render(look()));
            Err(Failure::new(format!("{} cannot run as it is", path.display())).help("correct what is named above"))
        }
    }
}

/// How diagnostics are drawn here.
pub fn look() -> Look {
    if io::stdout().is_terminal() && io::stderr().is_terminal() { Look::Terminal } else { Look::Plain }
}
