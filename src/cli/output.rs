//! What commands print, and how an error looks.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

/// Why a command could not do what it was asked for, and what its user can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub message: String,
    pub help: Option<String>,
}

impl Failure {
    pub fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), help: None }
    }

    #[must_use]
    pub fn help(mut self, help: impl fmt::Display) -> Self {
        self.help = Some(help.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        if let Some(help) = &self.help {
            write!(f, "\n help: {help}")?;
        }
        Ok(())
    }
}

/// A reader that went away (`sidestream graph | head`) is no failure; anything else that keeps output from being
/// written is.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(format!("cannot write: {error}"))
    }
}

/// Prints to standard output. A closed pipe ends it quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints to standard error, where a failure to print has nobody left to tell.
pub fn note(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

pub fn failure(failure: &Failure) {
    note(&failure.to_string());
}

/// Whether a person looks at standard output and has not asked for plain text (<https://no-color.org>).
pub fn colours() -> Colours {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if io::stdout().is_terminal() && !plain { Colours::Ansi } else { Colours::None }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colours {
    Ansi,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    Red,
    Green,
    Yellow,
    Cyan,
    Bold,
}

impl Colours {
    /// The text in that colour, where there are colours.
    pub fn paint(self, colour: Colour, text: impl fmt::Display) -> String {
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
            Colour::Bold => 1,
        };
        match self {
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            Self::None => text.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Colour, Colours, Failure};

    #[test]
    fn a_failure_says_what_and_what_to_do() {
        let failure = Failure::new("cannot read a.yaml").help("check the path");
        assert_eq!(failure.to_string(), "error: cannot read a.yaml\n help: check the path");
    }

    #[test]
    fn plain_output_has_no_escapes() {
        assert_eq!(Colours::None.paint(Colour::Red, "x"), "x");
        assert_eq!(Colours::Ansi.paint(Colour::Red, "x"), "\u{1b}[31mx\u{1b}[0m");
    }
}
