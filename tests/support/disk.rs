//! A small disk of its own for a state directory: it can be full, and it can be read-only.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs, mounted until it is dropped.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `None` where mounting is not permitted: it takes root, and in a container `CAP_SYS_ADMIN`.
    pub fn mount(path: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "sidestream-test"]).arg(path).output().ok()?;
        mounted.status.success().then(|| Self { path: path.to_owned() })
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.ballast()).unwrap();
        let mut piece = vec![0; 1 << 20];
        while !piece.is_empty() {
            while file.write_all(&piece).is_ok() {}
            piece.truncate(piece.len() / 2);
        }
    }

    /// As an operator who has made room.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _told = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}
