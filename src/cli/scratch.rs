//! A directory for the time of one command.

use std::path::{Path, PathBuf};

use super::output::Failure;

/// Removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(purpose: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("sidestream-{purpose}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).map_err(|error| {
            Failure::new(format!("cannot make a directory for temporary state, {}: {error}", path.display()))
                .help("set TMPDIR to a directory that can be written")
        })?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans temporary directories.
        let _removed = std::fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn a_scratch_directory_goes_away_with_what_is_in_it() {
        let scratch = Scratch::new("unit").unwrap();
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }
}
