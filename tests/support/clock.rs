//! A wall clock for one process, which a test sets while it runs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");

/// See `clock.c`.
#[derive(Debug)]
pub struct Clock {
    file: File,
    directory: tempfile::TempDir,
}

impl Clock {
    /// `None` but on Linux, where libraries are loaded before libc in this way.
    pub fn new() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("clock.so");
        let built =
            Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).args([SOURCE, "-ldl"]).output();
        let built = built.unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let file =
            File::options().create_new(true).read(true).write(true).open(directory.path().join("ahead")).unwrap();
        let clock = Self { file, directory };
        clock.set_hours(0);
        Some(clock)
    }

    /// How far ahead of the machine's it is from now on.
    pub fn set_hours(&self, hours: i64) {
        self.file.write_all_at(&(hours * 3600).to_ne_bytes(), 0).unwrap();
    }

    /// What a process needs in its environment to live by this clock.
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let path = |name: &str| self.directory.path().join(name);
        [("LD_PRELOAD", path("clock.so")), ("CLOCK_FILE", path("ahead"))]
    }
}
