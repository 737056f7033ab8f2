//! Names: columns, fields, pseudo-columns, elements.

use std::ops::Range;

use sqlparser::ast::{self, AccessExpr, Expr, Ident, Subscript};

use super::{Checker, Typed};
use crate::expression::eval::{Node, Pseudo};
use crate::expression::suggest::nearest;
use crate::expression::types::with_article;
use crate::expression::{Problem, ProblemKind, Scope, ScopeColumn};
use crate::schema::Type;

const PSEUDO_COLUMNS: [(&str, Pseudo, Type, bool); 6] = [
    ("_key", Pseudo::Key, Type::Bytes, true),
    ("_timestamp", Pseudo::Timestamp, Type::Timestamp, false),
    ("_topic", Pseudo::Topic, Type::String, false),
    ("_partition", Pseudo::Partition, Type::Int, false),
    ("_offset", Pseudo::Offset, Type::Bigint, false),
    ("_tombstone", Pseudo::Tombstone, Type::Boolean, false),
];

const HEADERS: &str = "_headers";

enum Found<'a> {
    One(&'a ScopeColumn),
    Many(Vec<&'a ScopeColumn>),
    None,
}

fn find<'a>(scope: &'a Scope, qualifier: Option<&str>, name: &str) -> Found<'a> {
    let mut matching: Vec<&ScopeColumn> = scope
        .columns
        .iter()
        .filter(|column| (!column.hidden || qualifier.is_some()) && &*column.column.name == name)
        .filter(|column| qualifier.is_none() || column.qualifier.as_deref() == qualifier)
        .collect();
    matching.dedup_by_key(|column| column.slot);
    match matching.as_slice() {
        [] => Found::None,
        [one] => Found::One(one),
        _ => Found::Many(matching),
    }
}

/// As it must be written: quoted where SQL would read it otherwise.
pub fn spelled(name: &str) -> String {
    let plain = name.chars().all(|character| character.is_alphanumeric() || character == '_')
        && !name.starts_with(|character: char| character.is_ascii_digit());
    if plain { name.to_owned() } else { format!("\"{name}\"") }
}

fn qualified(column: &ScopeColumn) -> String {
    match &column.qualifier {
        Some(qualifier) => format!("{}.{}", spelled(qualifier), spelled(&column.column.name)),
        None => spelled(&column.column.name),
    }
}

impl Checker<'_> {
    /// `a`, `a.b`, `a.b.c`: in `a.b`, `a` is an alias if there is one, else a struct column.
    pub(super) fn name(&mut self, names: &[Ident]) -> Option<Typed> {
        let [first, rest @ ..] = names else { return None };
        let span = self.source.range(first.span);
        let whole = names.last().map_or(span.clone(), |last| span.start..self.source.range(last.span).end);
        let scope = self.scope;
        let is_alias = scope.columns.iter().any(|column| column.qualifier.as_deref() == Some(&first.value));
        if let [second, fields @ ..] = rest
            && is_alias
        {
            let second_span = self.source.range(second.span);
            let column = match find(scope, Some(&first.value), &second.value) {
                Found::One(column) if is_unreadable(column) => self.said_before(whole.clone()),
                Found::One(column) => Some(self.column(column, whole.start..second_span.end)),
                // Two inputs of one name: the planner refuses that before.
                Found::Many(columns) => self.ambiguous(&columns, &second.value, second_span),
                Found::None => self.unknown_in(&first.value, &second.value, second_span),
            };
            return self.fields(column?, fields);
        }
        let column = match find(scope, None, &first.value) {
            Found::One(column) if is_unreadable(column) => self.said_before(whole),
            Found::One(column) => Some(self.column(column, span)),
            Found::Many(columns) => self.ambiguous(&columns, &first.value, span),
            Found::None => match self.pseudo(&first.value, &span) {
                Some(found) => found,
                None if is_alias => {
                    let help = Some(format!("name one of its columns: {}.column", spelled(&first.value)));
                    self.problem(span, format!("`{}` is an input, not a column", first.value), help)
                }
                None => self.unknown(first, !rest.is_empty(), span),
            },
        };
        self.fields(column?, rest)
    }

    fn said_before(&mut self, span: Range<usize>) -> Option<Typed> {
        let message = "the type of this column could not be read".to_owned();
        self.problems.push(Problem { span, message, help: None, kind: ProblemKind::SaidBefore });
        None
    }

    #[expect(clippy::unused_self, reason = "beside its siblings")]
    fn column(&self, column: &ScopeColumn, span: Range<usize>) -> Typed {
        Typed::new(Node::Column(column.slot), column.column.ty.clone(), column.column.nullable, span)
    }

    /// `None` where it is no pseudo-column's name.
    #[expect(clippy::option_option, reason = "the outer says whether the name is one of these")]
    fn pseudo(&mut self, name: &str, span: &Range<usize>) -> Option<Option<Typed>> {
        if name == HEADERS {
            let help = Some("name one: _headers['name']".to_owned());
            return Some(self.problem(span.clone(), "`_headers` is not a column by itself", help));
        }
        let (_, pseudo, ty, nullable) = PSEUDO_COLUMNS.iter().find(|(known, ..)| *known == name)?;
        if !self.scope.pseudo_columns {
            let message =
                format!("`{name}` is not known here: rows behind a stateful step or a table stem from no one record");
            return Some(self.problem(span.clone(), message, Some("select it as a column before".to_owned())));
        }
        Some(Some(Typed::new(Node::Pseudo(*pseudo), ty.clone(), *nullable, span.clone())))
    }

    fn ambiguous<T>(&mut self, columns: &[&ScopeColumn], name: &str, span: Range<usize>) -> Option<T> {
        let choices: Vec<String> = columns.iter().map(|column| qualified(column)).collect();
        let help = Some(format!("write {}", choices.join(" or ")));
        self.problem(span, format!("`{name}` is ambiguous"), help)
    }

    fn unknown_in<T>(&mut self, alias: &str, name: &str, span: Range<usize>) -> Option<T> {
        let columns = self.scope.columns.iter().filter(|column| !column.hidden);
        let names: Vec<&str> = columns
            .filter(|column| column.qualifier.as_deref() == Some(alias))
            .map(|column| &*column.column.name)
            .collect();
        let help = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {}.{}?", spelled(alias), spelled(near)),
            None => format!("its columns are {}", listed(&names)),
        };
        self.problem(span, format!("`{alias}` has no column `{name}`"), Some(help))
    }

    fn unknown<T>(&mut self, name: &Ident, qualifies: bool, span: Range<usize>) -> Option<T> {
        let columns: Vec<&ScopeColumn> = self.scope.columns.iter().filter(|column| !column.hidden).collect();
        let pseudo = PSEUDO_COLUMNS.iter().map(|(name, ..)| *name).filter(|_| self.scope.pseudo_columns);
        let names: Vec<&str> = columns.iter().map(|column| &*column.column.name).collect();
        let near = nearest(&name.value, names.iter().copied().chain(pseudo));
        let mut aliases: Vec<&str> = columns.iter().filter_map(|column| column.qualifier.as_deref()).collect();
        aliases.dedup();
        let help = if qualifies && let Some(near) = nearest(&name.value, aliases.iter().copied()) {
            format!("did you mean {}?", spelled(near))
        } else if qualifies && near.is_none() && !aliases.is_empty() {
            format!("the inputs are {}", listed(&aliases))
        } else if let Some(near) = near {
            format!("did you mean {}?", spelled(near))
        } else if name.quote_style == Some('"') {
            format!("double quotes hold a column's name; a text stands in single quotes: '{}'", name.value)
        } else if names.is_empty() {
            "there are no columns here; a text stands in single quotes".to_owned()
        } else {
            format!("the columns are {}; a text stands in single quotes", listed(&names))
        };
        let what = if qualifies { "input or column" } else { "column" };
        self.problem(span, format!("unknown {what} `{}`", name.value), Some(help))
    }

    fn fields(&mut self, value: Typed, names: &[Ident]) -> Option<Typed> {
        let mut value = value;
        for name in names {
            value = self.field(value, name)?;
        }
        Some(value)
    }

    fn field(&mut self, value: Typed, name: &Ident) -> Option<Typed> {
        let name_span = self.source.range(name.span);
        let Type::Struct(fields) = &value.ty else {
            let help = match &value.ty {
                Type::Json => Some(format!("read JSON with -> and ->>: column ->> '{}'", name.value)),
                Type::Map(_) => Some(format!("read a map's entry with ['{}']", name.value)),
                _ => None,
            };
            let message = format!("{} has no fields, so no `{}`", with_article(&value.ty), name.value);
            return self.problem(name_span, message, help);
        };
        let Some(index) = fields.iter().position(|field| *field.name == *name.value) else {
            let names: Vec<&str> = fields.iter().map(|field| &*field.name).collect();
            let help = match nearest(&name.value, names.iter().copied()) {
                Some(near) => format!("did you mean {}?", spelled(near)),
                None => format!("its fields are {}", listed(&names)),
            };
            return self.problem(name_span, format!("there is no field `{}`", name.value), Some(help));
        };
        let field = &fields[index];
        let (ty, nullable) = (field.ty.clone(), field.nullable || value.nullable);
        let span = value.span.start..name_span.end.max(value.span.end);
        Some(Typed::new(Node::Field { value: Box::new(value.node), index }, ty, nullable, span))
    }

    /// `a[1]`, `a['key']`, `a[1].b`, `(expr).b`.
    pub(super) fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Option<Typed> {
        if let (Expr::Identifier(name), [AccessExpr::Subscript(Subscript::Index { index }), rest @ ..]) = (root, chain)
            && name.value == HEADERS
            && matches!(find(self.scope, None, HEADERS), Found::None)
        {
            let span = self.source.range(name.span);
            if !self.scope.pseudo_columns {
                let help = Some("select the header as a column before".to_owned());
                return self.problem(span, "`_headers` is not known here: these rows stem from no one record", help);
            }
            let name = self.check(index);
            let name = name.and_then(|name| self.coerce(name, &Type::String))?;
            let span = span.start..name.span.end + 1;
            let header = Typed::new(Node::Header(Box::new(name.node)), Type::String, true, span);
            return self.access_chain(header, rest);
        }
        let root = self.check(root)?;
        self.access_chain(root, chain)
    }

    fn access_chain(&mut self, root: Typed, chain: &[AccessExpr]) -> Option<Typed> {
        let mut value = root;
        for access in chain {
            value = match access {
                AccessExpr::Dot(Expr::Identifier(name)) => self.field(value, name)?,
                AccessExpr::Dot(other) => {
                    let span = self.source.of(other);
                    return self.problem(span, "expected a field's name after the point", None);
                }
                AccessExpr::Subscript(Subscript::Index { index }) => {
                    let index = self.check(index)?;
                    self.subscript(value, index)?
                }
                AccessExpr::Subscript(Subscript::Slice { .. }) => {
                    return self.problem(value.span, "slices of arrays ([1:2]) are not part of the language", None);
                }
            };
        }
        Some(value)
    }

    fn subscript(&mut self, value: Typed, index: Typed) -> Option<Typed> {
        let span = value.span.start..(index.span.end + 1).min(self.source.text.len());
        match value.ty.clone() {
            Type::Array(element) => {
                let index = self.coerce(index, &Type::Bigint)?;
                let node = Node::Element(Box::new([value.node, index.node]));
                Some(Typed::new(node, (*element).clone(), true, span))
            }
            Type::Map(entry) => {
                let key = self.coerce(index, &Type::String)?;
                let node = Node::Entry(Box::new([value.node, key.node]));
                Some(Typed::new(node, (*entry).clone(), true, span))
            }
            Type::Json => self.call_checked("->", vec![value, index], span),
            other => {
                let message = format!("{} has no elements", with_article(&other));
                self.problem(value.span, message, None)
            }
        }
    }
}

fn listed(names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(|name| spelled(name)).collect();
    if names.len() > SHOWN {
        shown.push("...".to_owned());
    }
    shown.join(", ")
}

/// The name that an item of a select list has without AS.
pub fn default_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(name.value.clone()),
        Expr::CompoundIdentifier(names) => names.last().map(|name| name.value.clone()),
        Expr::Function(function) => {
            function.name.0.last().and_then(ast::ObjectNamePart::as_ident).map(|name| name.value.to_lowercase())
        }
        Expr::Nested(inner) => default_name(inner),
        Expr::CompoundFieldAccess { access_chain, .. } => match access_chain.last() {
            Some(AccessExpr::Dot(Expr::Identifier(name))) => Some(name.value.clone()),
            _ => None,
        },
        // Function calls with a syntax of their own.
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Trim { .. } => Some("trim".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        _ => None,
    }
}

/// Whether the column's declared type is none, which has been said where it is declared.
fn is_unreadable(column: &ScopeColumn) -> bool {
    column.column.ty == Type::Null
}
