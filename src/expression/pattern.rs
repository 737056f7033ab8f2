//! LIKE, SIMILAR TO and regular expressions, compiled once.
//!
//! Patterns that stand in the text are compiled with it. Others go through a small cache per thread, so that a pattern in
//! a column costs a look-up, not a compilation.

use std::cell::RefCell;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use rustc_hash::FxHashMap;

use super::EvalError;
use super::eval::Eval;

/// Patterns remembered per thread and syntax; when full the memory starts anew.
const CACHED_PATTERNS: usize = 64;

type Compiled = FxHashMap<Box<str>, Arc<Matcher>>;

/// A compiled pattern; most LIKE patterns need no regular expression.
#[derive(Clone, Debug)]
pub enum Matcher {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(Regex),
}

impl Matcher {
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(pattern) => text == &**pattern,
            Self::Prefix(pattern) => text.starts_with(&**pattern),
            Self::Suffix(pattern) => text.ends_with(&**pattern),
            Self::Contains(pattern) => text.contains(&**pattern),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Which syntax a pattern is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syntax {
    Like,
    ILike,
    Similar,
    Regex,
    RegexIgnoringCase,
}

impl Syntax {
    pub fn name(self) -> &'static str {
        match self {
            Self::Like => "LIKE",
            Self::ILike => "ILIKE",
            Self::Similar => "SIMILAR TO",
            Self::Regex => "~",
            Self::RegexIgnoringCase => "~*",
        }
    }
}

/// What may go wrong is said in plain words.
pub fn compile(syntax: Syntax, pattern: &str, escape: Option<char>) -> Result<Matcher, String> {
    match syntax {
        Syntax::Like | Syntax::ILike => like(pattern, escape, syntax == Syntax::ILike),
        Syntax::Similar => build(&similar(pattern, escape)?, false).map(Matcher::Regex),
        Syntax::Regex => build(pattern, false).map(Matcher::Regex),
        Syntax::RegexIgnoringCase => build(pattern, true).map(Matcher::Regex),
    }
}

/// As [`compile`], remembered by the thread.
pub fn cached(syntax: Syntax, pattern: &str) -> Eval<Arc<Matcher>> {
    thread_local! {
        static CACHE: RefCell<FxHashMap<Syntax, Compiled>> = RefCell::default();
    }
    CACHE.with_borrow_mut(|cache| {
        let cache = cache.entry(syntax).or_default();
        if let Some(matcher) = cache.get(pattern) {
            return Ok(Arc::clone(matcher));
        }
        let matcher = compile(syntax, pattern, Some('\\'))
            .map_err(|reason| Box::new(EvalError::Function { function: syntax.name(), reason }))?;
        if cache.len() >= CACHED_PATTERNS {
            cache.clear();
        }
        let matcher = Arc::new(matcher);
        cache.insert(Box::from(pattern), Arc::clone(&matcher));
        Ok(matcher)
    })
}

/// A regular expression with PostgreSQL's flags (`g` is the caller's), remembered by the thread.
pub fn cached_regex(pattern: &str, flags: &str) -> Eval<Arc<Matcher>> {
    let ignore_case = flags.contains('i');
    cached(if ignore_case { Syntax::RegexIgnoringCase } else { Syntax::Regex }, pattern)
}

fn build(pattern: &str, ignore_case: bool) -> Result<Regex, String> {
    RegexBuilder::new(pattern).case_insensitive(ignore_case).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "the pattern is too large".to_owned(),
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("invalid regular expression: {last}")
        }
    })
}

enum Piece {
    Literal(char),
    One,
    Many,
}

fn like(pattern: &str, escape: Option<char>, ignore_case: bool) -> Result<Matcher, String> {
    let mut pieces = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        pieces.push(match character {
            character if Some(character) == escape => match characters.next() {
                Some(escaped) => Piece::Literal(escaped),
                None => return Err("the pattern ends with its escape character".to_owned()),
            },
            '%' => Piece::Many,
            '_' => Piece::One,
            character => Piece::Literal(character),
        });
    }
    if !ignore_case && let Some(matcher) = simple(&pieces) {
        return Ok(matcher);
    }
    let mut regex = String::from("(?s)^");
    for piece in pieces {
        match piece {
            Piece::Literal(character) => regex.push_str(&regex::escape(character.encode_utf8(&mut [0; 4]))),
            Piece::One => regex.push('.'),
            Piece::Many => regex.push_str(".*"),
        }
    }
    regex.push('$');
    build(&regex, ignore_case).map(Matcher::Regex)
}

/// Patterns with `%` at the ends only.
fn simple(pieces: &[Piece]) -> Option<Matcher> {
    let (starts_open, rest) = match pieces {
        [Piece::Many, rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (ends_open, middle) = match rest {
        [middle @ .., Piece::Many] => (true, middle),
        middle => (false, middle),
    };
    let text: Option<String> = middle
        .iter()
        .map(|piece| match piece {
            Piece::Literal(character) => Some(*character),
            Piece::One | Piece::Many => None,
        })
        .collect();
    let text = text?.into_boxed_str();
    Some(match (starts_open, ends_open) {
        (false, false) => Matcher::Exact(text),
        (false, true) => Matcher::Prefix(text),
        // A lone `%` was taken as the start; it matches everything.
        (true, false) => Matcher::Suffix(text),
        (true, true) => Matcher::Contains(text),
    })
}

/// SQL's SIMILAR TO as a regular expression: `%` and `_` as in LIKE, `| * + ? {m,n} () []` as in regular expressions.
fn similar(pattern: &str, escape: Option<char>) -> Result<String, String> {
    let mut regex = String::from("(?s)^(?:");
    let mut in_brackets = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            character if Some(character) == escape => match characters.next() {
                Some(escaped) => regex.push_str(&regex::escape(escaped.encode_utf8(&mut [0; 4]))),
                None => return Err("the pattern ends with its escape character".to_owned()),
            },
            '[' => {
                in_brackets = true;
                regex.push('[');
            }
            ']' => {
                in_brackets = false;
                regex.push(']');
            }
            '%' if !in_brackets => regex.push_str(".*"),
            '_' if !in_brackets => regex.push('.'),
            '.' | '^' | '$' | '\\' if !in_brackets => {
                regex.push('\\');
                regex.push(character);
            }
            character => regex.push(character),
        }
    }
    regex.push_str(")$");
    Ok(regex)
}
