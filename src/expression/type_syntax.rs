//! The syntax of column types: `BIGINT NOT NULL`, `STRUCT<a INT, b ARRAY<STRING>>`, and lists of columns.
//!
//! A parser of its own, since SQL parsers differ on nested types and on what a type may be called: here each type has one
//! name, and PostgreSQL's other names are answered with it.

use std::ops::Range;
use std::sync::Arc;

use super::Problem;
use super::suggest::did_you_mean;
use crate::schema::{Column, Type};
use crate::value::Decimal;

const NAMES: [&str; 14] = [
    "BOOLEAN",
    "INT",
    "BIGINT",
    "DOUBLE",
    "DECIMAL",
    "STRING",
    "BYTES",
    "DATE",
    "TIMESTAMP",
    "INTERVAL",
    "ARRAY",
    "MAP",
    "STRUCT",
    "JSON",
];

/// Names that other databases use.
const FOREIGN: [(&str, &str); 27] = [
    ("BOOL", "BOOLEAN"),
    ("SMALLINT", "INT"),
    ("TINYINT", "INT"),
    ("INTEGER", "INT"),
    ("INT2", "INT"),
    ("INT4", "INT"),
    ("INT8", "BIGINT"),
    ("LONG", "BIGINT"),
    ("FLOAT", "DOUBLE"),
    ("FLOAT4", "DOUBLE"),
    ("FLOAT8", "DOUBLE"),
    ("REAL", "DOUBLE"),
    ("NUMERIC", "DECIMAL(p,s)"),
    ("NUMBER", "DECIMAL(p,s)"),
    ("TEXT", "STRING"),
    ("VARCHAR", "STRING"),
    ("CHAR", "STRING"),
    ("CHARACTER", "STRING"),
    ("UUID", "STRING"),
    ("BYTEA", "BYTES"),
    ("VARBINARY", "BYTES"),
    ("BLOB", "BYTES"),
    ("TIMESTAMPTZ", "TIMESTAMP"),
    ("DATETIME", "TIMESTAMP"),
    ("JSONB", "JSON"),
    ("ROW", "STRUCT<name TYPE, ...>"),
    ("OBJECT", "STRUCT<name TYPE, ...>"),
];

/// See [`super::parse_type`].
pub fn parse_type(text: &str) -> Result<(Type, bool), Problem> {
    let mut parser = Parser::new(text)?;
    let ty = parser.ty()?;
    let nullable = parser.nullability()?;
    parser.end()?;
    Ok((ty, nullable))
}

/// See [`super::parse_columns`].
pub fn parse_columns(text: &str) -> Result<Vec<Column>, Vec<Problem>> {
    let mut parser = Parser::new(text).map_err(|problem| vec![problem])?;
    let mut columns: Vec<Column> = Vec::new();
    let mut problems = Vec::new();
    loop {
        let (start, first_token) = (parser.next_span(), parser.at);
        match parser.column() {
            Ok(column) if columns.iter().any(|other| other.name == column.name) => {
                problems.push(problem(start, format!("column `{}` is declared twice", column.name), None));
            }
            Ok(column) => columns.push(column),
            Err(problem) => {
                problems.push(problem);
                // From the column's start, so that commas inside of a STRUCT are told from those between columns.
                parser.at = first_token;
                parser.skip_to_comma();
            }
        }
        if !parser.take_symbol(',') {
            break;
        }
    }
    if let Err(problem) = parser.end() {
        problems.push(problem);
    }
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

fn problem(span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Problem {
    Problem::new(span, message.into(), help)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Number(u32),
    Symbol(char),
}

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    end: usize,
}

impl Parser {
    fn new(text: &str) -> Result<Self, Problem> {
        let mut tokens = Vec::new();
        let mut characters = text.char_indices().peekable();
        while let Some((start, character)) = characters.next() {
            if character.is_whitespace() {
                continue;
            }
            let mut end = start + character.len_utf8();
            if character == '"' {
                let mut name = String::new();
                let mut closed = false;
                for (at, character) in characters.by_ref() {
                    end = at + character.len_utf8();
                    if character == '"' {
                        closed = true;
                        break;
                    }
                    name.push(character);
                }
                if !closed {
                    return Err(problem(start..end, "the quoted name does not end", Some("close it with `\"`".into())));
                }
                tokens.push((Token::Quoted(name), start..end));
                continue;
            }
            if character.is_alphanumeric() || character == '_' {
                while let Some((at, character)) =
                    characters.next_if(|(_, character)| character.is_alphanumeric() || *character == '_')
                {
                    end = at + character.len_utf8();
                }
                let word = &text[start..end];
                let token = word.parse().map_or_else(|_| Token::Word(word.to_owned()), Token::Number);
                tokens.push((token, start..end));
                continue;
            }
            tokens.push((Token::Symbol(character), start..end));
        }
        Ok(Self { tokens, at: 0, end: text.len() })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn next_span(&self) -> Range<usize> {
        self.tokens.get(self.at).map_or(self.end..self.end, |(_, span)| span.clone())
    }

    fn found(&self) -> String {
        match self.peek() {
            None => "the end".to_owned(),
            Some(Token::Word(word) | Token::Quoted(word)) => format!("`{word}`"),
            Some(Token::Number(number)) => format!("`{number}`"),
            Some(Token::Symbol(symbol)) => format!("`{symbol}`"),
        }
    }

    fn take_symbol(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn take_word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(wanted));
        self.at += usize::from(found);
        found
    }

    fn symbol(&mut self, symbol: char, why: &str) -> Result<(), Problem> {
        if self.take_symbol(symbol) {
            return Ok(());
        }
        Err(problem(self.next_span(), format!("expected `{symbol}` {why}, found {}", self.found()), None))
    }

    fn end(&self) -> Result<(), Problem> {
        if self.at == self.tokens.len() {
            return Ok(());
        }
        Err(problem(self.next_span(), format!("{} is not part of a type", self.found()), None))
    }

    fn skip_to_comma(&mut self) {
        let mut depth = 0_i32;
        while let Some(token) = self.peek() {
            match token {
                Token::Symbol('<' | '(') => depth += 1,
                Token::Symbol('>' | ')') => depth -= 1,
                Token::Symbol(',') if depth <= 0 => return,
                _ => {}
            }
            self.at += 1;
        }
    }

    fn nullability(&mut self) -> Result<bool, Problem> {
        if self.take_word("NULL") {
            return Ok(true);
        }
        if !self.take_word("NOT") {
            return Ok(true);
        }
        if self.take_word("NULL") {
            return Ok(false);
        }
        Err(problem(self.next_span(), format!("expected NULL after NOT, found {}", self.found()), None))
    }

    fn column(&mut self) -> Result<Column, Problem> {
        let span = self.next_span();
        let Some(Token::Word(name) | Token::Quoted(name)) = self.peek() else {
            let help = Some("a column is a name and a type: id BIGINT NOT NULL".to_owned());
            return Err(problem(span, format!("expected a column's name, found {}", self.found()), help));
        };
        let name = name.clone();
        self.at += 1;
        // BigQuery and Spark write `name: TYPE` in a STRUCT.
        self.take_symbol(':');
        let ty = self.ty()?;
        let nullable = self.nullability()?;
        Ok(Column::new(name, ty, nullable))
    }

    fn ty(&mut self) -> Result<Type, Problem> {
        let span = self.next_span();
        let Some(Token::Word(name)) = self.peek() else {
            let help = Some(format!("the types are {}", NAMES.join(" ")));
            return Err(problem(span, format!("expected a type, found {}", self.found()), help));
        };
        let name = name.to_ascii_uppercase();
        self.at += 1;
        match name.as_str() {
            "BOOLEAN" => Ok(Type::Boolean),
            "INT" => Ok(Type::Int),
            "BIGINT" => Ok(Type::Bigint),
            "DOUBLE" => {
                self.take_word("PRECISION");
                Ok(Type::Double)
            }
            "DECIMAL" => self.decimal(span),
            "STRING" => Ok(Type::String),
            "BYTES" => Ok(Type::Bytes),
            "DATE" => Ok(Type::Date),
            "TIMESTAMP" => Ok(Type::Timestamp),
            "INTERVAL" => Ok(Type::Interval),
            "JSON" => Ok(Type::Json),
            "ARRAY" => {
                self.symbol('<', "after ARRAY: ARRAY<STRING>")?;
                let element = self.ty()?;
                self.symbol('>', "to close ARRAY<")?;
                Ok(Type::Array(Arc::new(element)))
            }
            "MAP" => {
                self.symbol('<', "after MAP: MAP<STRING, INT>")?;
                let key_span = self.next_span();
                if self.ty()? != Type::String {
                    return Err(problem(
                        key_span,
                        "the keys of a MAP are STRING",
                        Some("write MAP<STRING, ...>".into()),
                    ));
                }
                self.symbol(',', "between the types of MAP<STRING, ...>")?;
                let value = self.ty()?;
                self.symbol('>', "to close MAP<")?;
                Ok(Type::Map(Arc::new(value)))
            }
            "STRUCT" => self.structure(),
            other => Err(unknown(span, other)),
        }
    }

    fn decimal(&mut self, span: Range<usize>) -> Result<Type, Problem> {
        let help = || Some("write DECIMAL(precision, scale): DECIMAL(10, 2) has 8 digits before the point".to_owned());
        if !self.take_symbol('(') {
            return Err(problem(span, "DECIMAL needs its digits", help()));
        }
        let digits_span = self.next_span();
        let precision = self.number()?;
        let scale = if self.take_symbol(',') { self.number()? } else { 0 };
        self.symbol(')', "to close DECIMAL(")?;
        match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision @ 1..=Decimal::MAX_PRECISION), Ok(scale)) if scale <= precision => {
                Ok(Type::Decimal { precision, scale })
            }
            _ => {
                let message = "DECIMAL has 1 to 38 digits, at most all of them after the point";
                Err(problem(digits_span, message, help()))
            }
        }
    }

    fn number(&mut self) -> Result<u32, Problem> {
        let Some(Token::Number(number)) = self.peek() else {
            return Err(problem(self.next_span(), format!("expected a number, found {}", self.found()), None));
        };
        let number = *number;
        self.at += 1;
        Ok(number)
    }

    fn structure(&mut self) -> Result<Type, Problem> {
        self.symbol('<', "after STRUCT: STRUCT<a INT, b STRING>")?;
        let mut fields: Vec<Column> = Vec::new();
        loop {
            let span = self.next_span();
            let field = self.column()?;
            if fields.iter().any(|other| other.name == field.name) {
                return Err(problem(span, format!("field `{}` is declared twice", field.name), None));
            }
            fields.push(field);
            if !self.take_symbol(',') {
                break;
            }
        }
        self.symbol('>', "to close STRUCT<")?;
        Ok(Type::Struct(fields.into()))
    }
}

fn unknown(span: Range<usize>, name: &str) -> Problem {
    let known = FOREIGN.iter().find(|(foreign, _)| *foreign == name).map(|(_, ours)| format!("write {ours}"));
    let help =
        known.or_else(|| did_you_mean(name, NAMES)).unwrap_or_else(|| format!("the types are {}", NAMES.join(" ")));
    problem(span, format!("unknown type `{name}`"), Some(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let shown = match parse_type(text) {
            Ok((ty, nullable)) => format!("{ty}{}", if nullable { "" } else { " NOT NULL" }),
            Err(problem) => format!("{:?} {} | {}", problem.span, problem.message, problem.help.unwrap_or_default()),
        };
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn every_type_is_read_as_it_is_shown() {
        for text in [
            "BOOLEAN",
            "INT NOT NULL",
            "BIGINT",
            "DOUBLE",
            "DECIMAL(10,2)",
            "STRING",
            "BYTES",
            "DATE",
            "TIMESTAMP NOT NULL",
            "INTERVAL",
            "JSON",
            "ARRAY<ARRAY<STRING>>",
            "MAP<STRING,DOUBLE>",
            "STRUCT<a INT NOT NULL, b STRUCT<c STRING>>",
        ] {
            check(text, text);
        }
        check("struct<a int, b array<string>> not null", "STRUCT<a INT, b ARRAY<STRING>> NOT NULL");
        check("DOUBLE PRECISION", "DOUBLE");
        check("DECIMAL(5)", "DECIMAL(5,0)");
    }

    #[test]
    fn a_mistaken_type_says_what_to_write() {
        check("TEXT", "0..4 unknown type `TEXT` | write STRING");
        check("BIGNIT", "0..6 unknown type `BIGNIT` | did you mean BIGINT?");
        check(
            "DECIMAL",
            "0..7 DECIMAL needs its digits | write DECIMAL(precision, scale): DECIMAL(10, 2) has 8 digits before the point",
        );
        check("MAP<INT, INT>", "4..7 the keys of a MAP are STRING | write MAP<STRING, ...>");
        check("INT NOT", "7..7 expected NULL after NOT, found the end | ");
        check("INT x", "4..5 `x` is not part of a type | ");
    }

    #[test]
    fn a_column_list_reports_all_its_mistakes() {
        let columns = parse_columns("id BIGINT NOT NULL, p STRUCT<a INT, b STRING>, \"Full name\" STRING").unwrap();
        let shown: Vec<_> = columns.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["id BIGINT NOT NULL", "p STRUCT<a INT, b STRING>", "Full name STRING"]);
        let problems = parse_columns("id BIGNIT, b STRUCT<x TEXT, y INT>, c INT, c STRING").unwrap_err();
        let shown: Vec<_> = problems.iter().map(|problem| (problem.span.clone(), problem.message.as_str())).collect();
        assert_eq!(
            shown,
            [
                (3..9, "unknown type `BIGNIT`"),
                (22..26, "unknown type `TEXT`"),
                (43..44, "column `c` is declared twice")
            ]
        );
    }
}
