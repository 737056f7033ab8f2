//! The `sidestream` program. All of it is in `sidestream::cli`.

use std::process::ExitCode;

/// For Rust; linked in, it replaces C's `malloc` for RocksDB and librdkafka as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sidestream::cli::main()
}
