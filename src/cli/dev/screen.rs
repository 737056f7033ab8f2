//! What `dev` shows: records as they happen, so few that a person can follow, and a summary that stays at the bottom of a
//! terminal or is a line per second elsewhere.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use super::super::output::{Colour, Colours, Failure, colours};

/// Where output goes to a file. A terminal cuts at its own width.
const FILE_WIDTH: usize = 160;
/// More of a value is not written to a terminal, however wide.
const LINE_LIMIT: usize = 400;
/// Topics and keys are padded to line up, up to these widths.
const TOPIC_COLUMN: usize = 32;
const KEY_COLUMN: usize = 24;
/// More of a key is not shown.
const KEY_LIMIT: usize = 64;

/// The terminal or the file that standard output is.
#[derive(Debug)]
pub struct Screen {
    colours: Colours,
    /// The line at the bottom of a terminal, rewritten in place.
    live: Option<String>,
    terminal: bool,
    /// Of the longest topic name so far and the longest key so far, within their limits.
    columns: (usize, usize),
}

impl Screen {
    pub fn new() -> Self {
        Self { colours: colours(), live: None, terminal: io::stdout().is_terminal(), columns: (0, 0) }
    }

    /// A line that stays.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        let mut stdout = io::stdout().lock();
        let result = match &self.live {
            Some(live) => writeln!(stdout, "\r\u{1b}[2K{text}").and_then(|()| write!(stdout, "{live}")),
            None => writeln!(stdout, "{text}"),
        };
        written(result.and_then(|()| stdout.flush()))
    }

    /// A record of an output topic, on one line.
    pub fn record(&mut self, topic: &str, key: &str, value: Option<&str>) -> Result<(), Failure> {
        let colours = self.colours;
        let key = shortened(&printable(key), KEY_LIMIT);
        self.columns.0 = self.columns.0.max(topic.chars().count()).min(TOPIC_COLUMN);
        self.columns.1 = self.columns.1.max(key.chars().count()).min(KEY_COLUMN);
        let (topic, key) = (format!("{topic:0$}", self.columns.0), format!("{key:0$}", self.columns.1));
        let width = if self.terminal { LINE_LIMIT } else { FILE_WIDTH };
        let value = match value {
            Some(value) => {
                shortened(&printable(value), width.saturating_sub(topic.chars().count() + key.chars().count() + 4))
            }
            None => colours.paint(Colour::Red, "deleted"),
        };
        let line = format!("{}  {}  {value}", colours.paint(Colour::Cyan, topic), colours.paint(Colour::Bold, key));
        if self.terminal { self.line(&unwrapped(&line)) } else { self.line(&line) }
    }

    /// The summary of the moment.
    pub fn summary(&mut self, text: &str) -> Result<(), Failure> {
        if !self.terminal {
            return self.line(text);
        }
        let text = self.colours.paint(Colour::Green, text);
        let mut stdout = io::stdout().lock();
        let text = unwrapped(&text);
        let result = write!(stdout, "\r\u{1b}[2K{text}").and_then(|()| stdout.flush());
        self.live = Some(text);
        written(result)
    }

    /// Leaves the last summary where it is and goes on below it.
    pub fn settle(&mut self) -> Result<(), Failure> {
        if self.live.take().is_none() {
            return Ok(());
        }
        written(writeln!(io::stdout().lock()))
    }

    pub fn colours(&self) -> Colours {
        self.colours
    }
}

/// A reader that went away is no failure.
fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A line that the terminal is too narrow for is cut by it, not wrapped.
fn unwrapped(text: &str) -> String {
    format!("\u{1b}[?7l{text}\u{1b}[?7h")
}

/// Without what would move a terminal's cursor or change its state.
fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|it| if it.is_control() { '\u{fffd}' } else { it }).collect::<String>().into()
    } else {
        text.into()
    }
}

/// At most so many characters; cut texts end in `…`.
pub fn shortened(text: &str, width: usize) -> String {
    let width = width.max(20);
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that reads best.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

/// A short time: `340 us`, `12.3 ms`, `4.2 s`.
pub fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", duration.as_secs_f64() * 1_000.0),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, grouped, printable, short, shortened};

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12, 1_500, 3_200_000].map(bytes), ["12 B", "1.5 KB", "3.2 MB"]);
        assert_eq!(
            [12, 1_500, 3_200_000].map(|micros| short(Duration::from_micros(micros))),
            ["12 us", "1.5 ms", "3.2 s"]
        );
    }

    #[test]
    fn bytes_of_records_do_not_steer_the_terminal() {
        assert_eq!(printable("a\n\u{1b}[2Jä"), "a\u{fffd}\u{fffd}[2Jä");
        assert_eq!(printable("plain"), "plain");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(shortened(&"ä".repeat(30), 25), format!("{}…", "ä".repeat(25)));
        assert_eq!(shortened("short", 25), "short");
    }
}
