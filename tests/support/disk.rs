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

/// A volume with a file system of its own on a loop device: it can hang, and it can break and turn read-only.
#[derive(Debug)]
pub struct Volume {
    image: PathBuf,
    path: PathBuf,
    /// As in `/sys/fs/ext4`.
    device: String,
}

impl Volume {
    /// `None` where that is not permitted, or the tools are not there: it takes root, a loop device, `mkfs.ext4` and `fsfreeze`.
    pub fn mount(path: &Path) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let image = path.with_extension("image");
        fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
        let has_tools = run("fsfreeze", &["--version"]).is_some();
        run("mkfs.ext4", &["-q", image.to_str().unwrap()]).filter(|_| has_tools)?;
        let mut volume = Self { image, path: path.to_owned(), device: String::new() };
        volume.mount_again()?;
        Some(volume)
    }

    fn mount_again(&mut self) -> Option<()> {
        let (image, path) = (self.image.to_str().unwrap(), self.path.to_str().unwrap());
        run("mount", &["-o", "loop,errors=remount-ro", image, path])?;
        let device = run("findmnt", &["-n", "-o", "SOURCE", path])?;
        device.trim().strip_prefix("/dev/")?.clone_into(&mut self.device);
        Some(())
    }

    /// From now on every write waits, and whoever waits cannot be killed, until that is over.
    pub fn hang(&self) -> Hanging<'_> {
        run("fsfreeze", &["--freeze", self.path.to_str().unwrap()]).expect("the volume hangs");
        Hanging(self)
    }

    /// As a device that reports errors: the kernel takes no more writes.
    pub fn turn_read_only(&self) {
        fs::write(format!("/sys/fs/ext4/{}/trigger_fs_error", self.device), "a test").unwrap();
    }

    /// As an operator would, once nobody uses it.
    pub fn repair(&mut self) {
        run("umount", &[self.path.to_str().unwrap()]).expect("nobody uses the volume");
        // It says with its exit code that there was something to repair.
        let _repaired = run("e2fsck", &["-p", self.image.to_str().unwrap()]);
        self.mount_again().expect("the volume is mounted again");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _told = run("umount", &["-l", self.path.to_str().unwrap()]);
    }
}

/// See [`Volume::hang`].
#[derive(Debug)]
pub struct Hanging<'v>(&'v Volume);

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        let _told = run("fsfreeze", &["--unfreeze", self.0.path.to_str().unwrap()]);
    }
}

/// What a command printed; `None` where it is not there or has failed.
fn run(command: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(command).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
