//! What the operating system refuses about a file, and what an operator does about it.
//!
//! Read from the message, since RocksDB passes `strerror`'s text on and nothing else.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Permission,
    ReadOnly,
    Full,
    OpenFiles,
    Device,
    NotADirectory,
    NoLocks,
}

impl Refusal {
    const TEXTS: [(&str, Self); 10] = [
        ("Permission denied", Self::Permission),
        ("Operation not permitted", Self::Permission),
        ("Read-only file system", Self::ReadOnly),
        ("No space left on device", Self::Full),
        ("Disk quota exceeded", Self::Full),
        ("Too many open files", Self::OpenFiles),
        ("Input/output error", Self::Device),
        ("Not a directory", Self::NotADirectory),
        ("File exists", Self::NotADirectory),
        ("Operation not supported", Self::NoLocks),
    ];

    pub(super) fn of(message: &str) -> Option<Self> {
        Self::TEXTS.iter().find(|(text, _)| message.contains(text)).map(|(_, refusal)| *refusal)
    }

    /// What to do while the state is in use: the next attempt comes by itself.
    pub(super) fn help_in_use(self) -> &'static str {
        match self {
            Self::Full => "make room on the volume; it goes on by itself, and nothing was lost",
            Self::ReadOnly => "mount the volume writable and start again; nothing was lost",
            Self::Permission | Self::OpenFiles | Self::Device | Self::NotADirectory | Self::NoLocks => self.help(),
        }
    }

    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Permission => {
                "give the user that runs sidestream the right to read and write it (in Kubernetes: fsGroup), or choose \
                 another one with --state-dir"
            }
            Self::ReadOnly => "mount it writable or choose another one with --state-dir",
            Self::Full => "make room on the volume and start again; nothing was lost",
            Self::OpenFiles => "raise the limit of open files (ulimit -n)",
            Self::Device => "the device reports errors: check the volume",
            Self::NotADirectory => "there is a file in its place: choose another one with --state-dir",
            Self::NoLocks => "the file system has no locks: choose a local volume with --state-dir",
        }
    }
}
