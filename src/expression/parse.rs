//! From text to sqlparser's syntax trees, and from its positions back to bytes of the text.
//!
//! The dialect is PostgreSQL's plus `* EXCEPT (...)`. Before parsing, the words are looked through for habits of other
//! languages that would otherwise end in a puzzling message.

use std::any::TypeId;
use std::ops::Range;

use sqlparser::ast::{Expr, SelectItem, Spanned, UnaryOperator};
use sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer, Word};

use super::Problem;

/// Longer texts are refused: they would only come from a generator gone wrong, and trees are walked recursively.
const MAX_WORDS: usize = 20_000;
const MAX_OPERATORS: usize = 1_000;

/// PostgreSQL's dialect with `* EXCEPT (...)`.
#[derive(Debug, Default)]
struct SidestreamDialect(PostgreSqlDialect);

impl Dialect for SidestreamDialect {
    /// The parser asks in places whether it is PostgreSQL.
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn supports_select_wildcard_except(&self) -> bool {
        true
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        self.0.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        self.0.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        self.0.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        self.0.is_identifier_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        self.0.is_reserved_for_identifier(keyword)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        self.0.is_custom_operator_part(ch)
    }

    /// A sign binds more tightly than any operator but `::` and access: -2 ^ 2 is 4, as in PostgreSQL. sqlparser puts it below
    /// multiplication.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let op = match parser.peek_token_ref().token {
            Token::Minus => UnaryOperator::Minus,
            Token::Plus => UnaryOperator::Plus,
            _ => return None,
        };
        parser.advance_token();
        let operand = parser.parse_subexpr(self.prec_value(Precedence::AtTz));
        Some(operand.map(|expr| Expr::UnaryOp { op, expr: Box::new(expr) }))
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        self.0.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        self.0.prec_value(precedence)
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        true
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    fn supports_notnull_operator(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    fn supports_nested_comments(&self) -> bool {
        true
    }
}

/// A text, and how positions in it are found.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    pub text: &'a str,
    is_ascii: bool,
}

impl<'a> Source<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, is_ascii: text.is_ascii() }
    }

    pub fn whole(&self) -> Range<usize> {
        0..self.text.len()
    }

    /// Bytes of the text; the whole of it where sqlparser knows no place. A bracket that opens inside is followed to its
    /// end, since sqlparser leaves out the closing ones.
    pub fn range(&self, span: Span) -> Range<usize> {
        if span == Span::empty() {
            return self.whole();
        }
        let (start, end) = (self.offset(span.start), self.offset(span.end));
        let Some(inside) = self.text.get(start..end) else { return self.whole() };
        start..self.closing(end, open_brackets(inside))
    }

    /// The range of a piece of syntax.
    pub fn of(&self, syntax: &impl Spanned) -> Range<usize> {
        self.range(syntax.span())
    }

    fn closing(&self, end: usize, open: usize) -> usize {
        let mut depth = open;
        if depth == 0 {
            return end;
        }
        let mut quoted = false;
        for (at, byte) in self.text.as_bytes().iter().enumerate().skip(end) {
            match byte {
                b'\'' => quoted = !quoted,
                b'(' | b'[' if !quoted => depth += 1,
                b')' | b']' if !quoted => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        end
    }

    /// sqlparser counts lines and characters from 1.
    fn offset(&self, location: Location) -> usize {
        let nth = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
        let (line, column) = (nth(location.line), nth(location.column));
        let start = match line {
            0 => 0,
            line => self.text.match_indices('\n').nth(line - 1).map_or(self.text.len(), |(at, _)| at + 1),
        };
        if self.is_ascii {
            return start.saturating_add(column).min(self.text.len());
        }
        let rest = self.text.get(start..).unwrap_or_default();
        rest.char_indices().nth(column).map_or(self.text.len(), |(at, _)| start + at)
    }

    /// The word, literal or operator at an offset.
    fn word_at(&self, start: usize) -> Range<usize> {
        let rest = self.text.get(start..).unwrap_or_default();
        let word =
            rest.find(|character: char| !(character.is_alphanumeric() || character == '_')).unwrap_or(rest.len());
        let length = if word == 0 { rest.chars().next().map_or(0, char::len_utf8) } else { word };
        start..start + length
    }
}

fn open_brackets(text: &str) -> usize {
    let (mut open, mut quoted) = (0usize, false);
    for byte in text.bytes() {
        match byte {
            b'\'' => quoted = !quoted,
            b'(' | b'[' if !quoted => open += 1,
            b')' | b']' if !quoted => open = open.saturating_sub(1),
            _ => {}
        }
    }
    open
}

/// One expression, all of the text.
pub fn expression(source: Source<'_>) -> Result<Expr, Vec<Problem>> {
    let dialect = SidestreamDialect::default();
    let mut parser = parser(source, &dialect)?;
    let expr = parser.parse_expr().map_err(|error| vec![syntax_error(source, &error)])?;
    end(source, &parser)?;
    Ok(expr)
}

/// A select list, all of the text.
pub fn select_list(source: Source<'_>) -> Result<Vec<SelectItem>, Vec<Problem>> {
    let dialect = SidestreamDialect::default();
    let mut parser = parser(source, &dialect)?;
    let items =
        parser.parse_comma_separated(Parser::parse_select_item).map_err(|error| vec![syntax_error(source, &error)])?;
    end(source, &parser)?;
    Ok(items)
}

fn parser<'d>(source: Source<'_>, dialect: &'d dyn Dialect) -> Result<Parser<'d>, Vec<Problem>> {
    if source.text.trim().is_empty() {
        let message = "an expression is missing here".to_owned();
        return Err(vec![Problem::new(source.whole(), message, None)]);
    }
    let tokens = Tokenizer::new(dialect, source.text).tokenize_with_location().map_err(|error| {
        let at = source.offset(error.location);
        let help = error.message.contains("Unterminated").then(|| "close it with the quote it began with".to_owned());
        vec![Problem::new(at..source.text.len().max(at), plain(&error.message), help)]
    })?;
    let problems = habits(source, &tokens);
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Parser::new(dialect).with_tokens_with_locations(tokens))
}

fn end(source: Source<'_>, parser: &Parser<'_>) -> Result<(), Vec<Problem>> {
    let next = parser.peek_token();
    if next.token == Token::EOF {
        return Ok(());
    }
    let span = source.range(next.span);
    let message = format!("{} is not expected here: the expression before it is complete", shown(&next.token));
    let help = match &next.token {
        Token::SemiColon => "leave the semicolon out".to_owned(),
        Token::Word(word) if clause(word) => {
            format!("{} is a key of the step in YAML, not part of an expression", word.value.to_uppercase())
        }
        Token::RParen => "there is one `)` too many".to_owned(),
        Token::Word(word) if word.keyword == Keyword::WHEN => "CASE needs its END: CASE WHEN a THEN b END".to_owned(),
        _ => "an operator or a comma may be missing before it".to_owned(),
    };
    Err(vec![Problem::new(span, message, Some(help))])
}

fn clause(word: &Word) -> bool {
    matches!(
        word.keyword,
        Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::JOIN
    )
}

fn shown(token: &Token) -> String {
    match token {
        Token::EOF => "the end".to_owned(),
        token => format!("`{token}`"),
    }
}

/// What people write from habit.
fn habits(source: Source<'_>, tokens: &[TokenWithSpan]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |token: &TokenWithSpan, message: &str, help: &str| {
        let span = source.range(token.span);
        problems.push(Problem::new(span, message.to_owned(), Some(help.to_owned())));
    };
    let words: Vec<&TokenWithSpan> =
        tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).collect();
    let operators = words.iter().filter(|token| !matches!(token.token, Token::Comma | Token::Period)).count();
    // A list of literals is long without being deep.
    let operators = operators - words.iter().filter(|token| leaf(&token.token)).count();
    if words.len() > MAX_WORDS || operators > MAX_OPERATORS {
        let message = format!("the expression is too long: at most {MAX_OPERATORS} operators and {MAX_WORDS} words");
        let help = Some("compute parts of it in an earlier step, or join with a table".to_owned());
        return vec![Problem::new(source.whole(), message, help)];
    }
    for (index, token) in words.iter().enumerate() {
        match &token.token {
            Token::DoubleEq => report(token, "`==` is not SQL", "compare with a single `=`"),
            Token::Overlap => report(token, "`&&` is not part of the language", "write AND"),
            Token::Assignment => report(token, "`:=` is not part of the language", "compare with `=`"),
            Token::ExclamationMark => report(token, "`!` is not part of the language", "write NOT"),
            Token::Word(word) if word.quote_style.is_none() && word.keyword == Keyword::SELECT => {
                report(token, "subqueries are not part of the language", "write a step of its own, and join with it");
            }
            Token::Word(word) if word.keyword == Keyword::OVER && word.quote_style.is_none() => {
                let called = index > 0 && words[index - 1].token == Token::RParen;
                if called && words.get(index + 1).is_some_and(|next| next.token == Token::LParen) {
                    let help = "use an `over:` step: {by: ..., range: 1h, aggregate: {...}}";
                    report(token, "window functions (OVER) are not part of the language", help);
                }
            }
            Token::Placeholder(_) => {
                report(token, "there are no parameters in expressions", "${NAME} is replaced in YAML");
            }
            _ => {}
        }
    }
    problems
}

fn leaf(token: &Token) -> bool {
    match token {
        Token::Number(..) | Token::SingleQuotedString(_) => true,
        Token::Word(word) => {
            !matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::CASE | Keyword::WHEN)
        }
        _ => false,
    }
}

fn syntax_error(source: Source<'_>, error: &ParserError) -> Problem {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => {
            let help = Some("compute parts of it in an earlier step".to_owned());
            return Problem::new(source.whole(), "the expression is nested too deeply".to_owned(), help);
        }
    };
    let (message, place) = match text.rfind(" at Line: ") {
        Some(at) => (&text[..at], location(&text[at..])),
        None => (text, None),
    };
    let span = match place {
        Some(location) => source.word_at(source.offset(location)),
        None => source.text.len()..source.text.len(),
    };
    let message = plain(message);
    let help = if message.ends_with("found the end") {
        Some("something is missing at the end; YAML cuts an unquoted text at `, ` inside braces and at ` #`".to_owned())
    } else {
        None
    };
    Problem::new(span, message, help)
}

/// ` at Line: 1, Column: 5`.
fn location(text: &str) -> Option<Location> {
    let mut numbers = text.split(|character: char| !character.is_ascii_digit()).filter(|part| !part.is_empty());
    let line = numbers.next()?.parse().ok()?;
    let column = numbers.next()?.parse().ok()?;
    Some(Location { line, column })
}

/// `Expected: an expression, found: EOF` in our words.
fn plain(message: &str) -> String {
    if let Some((expected, found)) = message.strip_prefix("Expected: ").and_then(|rest| rest.split_once(", found: ")) {
        let expected = if expected == "an SQL statement" { "an expression" } else { expected };
        let found = if found == "EOF" { "the end".to_owned() } else { format!("`{found}`") };
        return format!("expected {expected}, found {found}");
    }
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => "this is not an expression".to_owned(),
    }
}

/// Whether an alias stands after AS, or merely beside the expression (where a comma may be missing).
pub fn has_as(source: Source<'_>, expr: &Range<usize>, alias: &Range<usize>) -> bool {
    let between = source.text.get(expr.end.min(alias.start)..alias.start).unwrap_or_default();
    between.split(|character: char| !character.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("as"))
}
