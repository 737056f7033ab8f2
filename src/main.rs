//! The `sidestream` program. All of it is in `sidestream::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sidestream::cli::main()
}
