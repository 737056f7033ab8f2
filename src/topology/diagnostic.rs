//! What is wrong with a topology file, where, and what to write instead.
//!
//! Diagnostics are collected, never thrown: every stage reports all that it finds and goes on as far as makes sense.
//! A diagnostic knows bytes of its file; the path (`steps.enriched.join[0].on`) is found from them when it is reported.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, ThemeCharacters, ThemeStyles};

/// Bytes of a file.
pub type Span = Range<usize>;

/// Index of a file among those loaded: the topology, then the files of tests beside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FileId(pub u8);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    Error,
    Warning,
}

/// What kind of mistake it is. The name is stable and is shown in brackets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Code {
    /// The text is not YAML.
    Yaml,
    /// YAML took an expression apart.
    YamlSplit,
    DuplicateKey,
    UnknownKey,
    MissingKey,
    /// Not the kind of YAML node, or not one of the words, that is expected here.
    BadValue,
    /// An environment variable that is not set, or a `${` that does not end.
    Substitution,
    BadName,
    DuplicateName,
    UnknownName,
    /// A mistake inside an SQL expression.
    Sql,
    /// The type of an expression or column does not fit.
    BadType,
    /// Clauses that do not go together.
    Clause,
    Cycle,
    Join,
    Key,
    Output,
    /// In the language, not in this version.
    NotSupported,
    /// State that grows without bound.
    UnboundedState,
    /// Declared and not used.
    Unused,
    /// In `tests` and `dev`.
    Test,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::YamlSplit => "yaml-split",
            Self::DuplicateKey => "duplicate-key",
            Self::UnknownKey => "unknown-key",
            Self::MissingKey => "missing-key",
            Self::BadValue => "bad-value",
            Self::Substitution => "substitution",
            Self::BadName => "bad-name",
            Self::DuplicateName => "duplicate-name",
            Self::UnknownName => "unknown-name",
            Self::Sql => "sql",
            Self::BadType => "type",
            Self::Clause => "clause",
            Self::Cycle => "cycle",
            Self::Join => "join",
            Self::Key => "key",
            Self::Output => "output",
            Self::NotSupported => "not-supported",
            Self::UnboundedState => "unbounded-state",
            Self::Unused => "unused",
            Self::Test => "test",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    pub severity: Severity,
    pub code: Code,
    pub message: String,
    /// `steps.enriched.join[0].on`; empty for the whole file.
    pub path: String,
    pub file: FileId,
    pub span: Span,
    pub help: Option<String>,
}

/// A file that was read: its name as the user gave it, and its text.
#[derive(Clone, Debug)]
pub struct SourceFile {
    pub name: Arc<str>,
    pub text: Arc<str>,
}

impl SourceFile {
    /// Line and column of a byte, from 1; columns count characters.
    pub fn position(&self, byte: usize) -> (usize, usize) {
        let mut end = byte.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |text| text.chars().count()) + 1;
        (line, column)
    }
}

/// Diagnostics together with the files that they point into.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    pub files: Vec<SourceFile>,
    pub list: Vec<Diagnostic>,
}

/// How diagnostics are drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Colours and Unicode lines: for a terminal.
    Terminal,
    /// ASCII without colours: for logs and files.
    Plain,
}

impl Diagnostics {
    pub fn has_errors(&self) -> bool {
        self.list.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// Errors and warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.list.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count();
        (errors, self.list.len() - errors)
    }

    /// Line and column of a diagnostic, from 1.
    pub fn position(&self, diagnostic: &Diagnostic) -> (usize, usize) {
        self.files.get(usize::from(diagnostic.file.0)).map_or((1, 1), |file| file.position(diagnostic.span.start))
    }

    /// All of them with code frames, and a last line that counts them.
    pub fn render(&self, look: Look) -> String {
        use fmt::Write as _;
        let handler = match look {
            Look::Terminal => GraphicalReportHandler::new_themed(GraphicalTheme::unicode()),
            Look::Plain => GraphicalReportHandler::new_themed(GraphicalTheme {
                characters: ThemeCharacters::ascii(),
                styles: ThemeStyles::none(),
            }),
        }
        .with_links(false)
        .with_width(120)
        .with_context_lines(1);
        let mut out = String::new();
        for diagnostic in &self.list {
            let (line, column) = self.position(diagnostic);
            let file = self.files.get(usize::from(diagnostic.file.0));
            let name = file.map_or("topology", |file| &*file.name);
            let place = if diagnostic.path.is_empty() {
                format!("{name}:{line}:{column}")
            } else {
                format!("{name}:{line}:{column} {}", diagnostic.path)
            };
            let report =
                Framed { diagnostic, source: file.map(|file| NamedSource::new(&*file.name, file.text.to_string())) };
            let _ = writeln!(out, "{place}");
            if handler.render_report(&mut out, &report).is_err() {
                let _ = writeln!(out, "{}", diagnostic.message);
            }
            out.push('\n');
        }
        let (errors, warnings) = self.counts();
        let _ = writeln!(out, "{}", count_line(errors, warnings));
        out
    }
}

fn count_line(errors: usize, warnings: usize) -> String {
    let of = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => "no errors".to_owned(),
        (_, 0) => of(errors, "error"),
        (0, _) => of(warnings, "warning"),
        _ => format!("{}, {}", of(errors, "error"), of(warnings, "warning")),
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Look::Plain))
    }
}

impl std::error::Error for Diagnostics {}

/// One diagnostic as miette sees it.
#[derive(Debug)]
struct Framed<'a> {
    diagnostic: &'a Diagnostic,
    source: Option<NamedSource<String>>,
}

impl fmt::Display for Framed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.diagnostic.message)
    }
}

impl std::error::Error for Framed<'_> {}

impl miette::Diagnostic for Framed<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.diagnostic.code.as_str()))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.diagnostic.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.diagnostic.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display + 'a>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.diagnostic.span.clone();
        Some(Box::new(std::iter::once(LabeledSpan::new_primary_with_span(None, span))))
    }
}

/// The nearest of `known` to a misspelt word, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| {
            let length = candidate.chars().count().max(wanted.chars().count());
            *distance <= (length / 3).max(1) && *distance < length
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_a_near_one() {
        assert_eq!(nearest("gruop_by", ["group_by", "having"]), Some("group_by"));
        assert_eq!(nearest("acount", ["account", "amount"]), Some("account"));
        assert_eq!(nearest("zzz", ["a", "where"]), None);
    }

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let file = SourceFile { name: "f".into(), text: "a\nöb: c\n".into() };
        assert_eq!(file.position(0), (1, 1));
        assert_eq!(file.position(2), (2, 1));
        assert_eq!(file.position(4), (2, 2));
        assert_eq!(file.position(99), (3, 1));
    }
}
