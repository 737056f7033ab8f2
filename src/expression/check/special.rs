//! Expressions with a syntax of their own: CASE, CAST, LIKE, EXTRACT.

use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{CaseWhen, CastKind, DataType, Expr};

use super::{Checker, Typed};
use crate::expression::calendar::Field;
use crate::expression::cast::castable;
use crate::expression::eval::{Comparison, Node};
use crate::expression::functions::text;
use crate::expression::pattern::{self, Syntax};
use crate::expression::suggest::did_you_mean;
use crate::expression::types::with_article;
use crate::schema::Type;
use crate::value::Value;

impl Checker<'_> {
    pub(super) fn case(
        &mut self,
        operand: Option<&Expr>,
        conditions: &[CaseWhen],
        otherwise: Option<&Expr>,
        span: Range<usize>,
    ) -> Option<Typed> {
        let operand = match operand {
            Some(operand) => Some(self.check(operand)?),
            None => None,
        };
        let mut tests = Vec::with_capacity(conditions.len());
        let mut results = Vec::with_capacity(conditions.len() + 1);
        for CaseWhen { condition, result } in conditions {
            tests.push(match &operand {
                None => self.boolean(condition),
                Some(_) => self.check(condition),
            });
            results.push(self.check(result));
        }
        results.push(match otherwise {
            Some(otherwise) => self.check(otherwise),
            None => Some(Typed::literal(Value::Null, Type::Null, span.clone())),
        });
        let tests: Vec<Typed> = tests.into_iter().collect::<Option<_>>()?;
        let results: Vec<Typed> = results.into_iter().collect::<Option<_>>()?;
        let nullable = results.iter().any(|result| result.nullable);
        let (mut results, ty) = self.unify_all(results, "return from one CASE")?;
        let otherwise = Box::new(results.pop()?.node);
        let node = match operand {
            None => {
                let tests = tests.into_iter().map(|test| test.node);
                let branches = tests.zip(results.into_iter().map(|result| result.node)).collect();
                Node::Case { branches, otherwise }
            }
            Some(operand) => {
                let mut compared = vec![operand];
                compared.extend(tests);
                let (compared, _) = self.unify_all(compared, "compare")?;
                let mut compared = compared.into_iter().map(|value| value.node);
                let operand = Box::new(compared.next()?);
                let branches = compared.zip(results.into_iter().map(|result| result.node)).collect();
                Node::CaseOf { operand, branches, otherwise }
            }
        };
        Some(Typed::new(node, ty, nullable, span))
    }

    pub(super) fn cast(
        &mut self,
        kind: &CastKind,
        expr: &Expr,
        data_type: &DataType,
        span: Range<usize>,
    ) -> Option<Typed> {
        let to = self.data_type(data_type, &span);
        let value = self.check(expr);
        let (value, to) = (value?, to?);
        let attempt = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
        self.cast_to(value, &to, attempt, span)
    }

    pub(super) fn cast_to(&mut self, value: Typed, to: &Type, attempt: bool, span: Range<usize>) -> Option<Typed> {
        if value.ty == *to || value.ty == Type::Null {
            return Some(Typed { ty: to.clone(), span, untyped: false, ..value });
        }
        if !castable(&value.ty, to) {
            let message = format!("{} cannot be converted to {}", with_article(&value.ty), with_article(to));
            let help = match (&value.ty, to) {
                (Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. }, Type::Timestamp) => {
                    Some("say the unit: TO_TIMESTAMP(seconds) or TIMESTAMP_MS(milliseconds)".to_owned())
                }
                (Type::Timestamp, Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. }) => {
                    Some("say the unit: EXTRACT(EPOCH FROM at) or EPOCH_MS(at)".to_owned())
                }
                (Type::Interval, Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. }) => {
                    Some("EXTRACT(EPOCH FROM interval) gives its seconds".to_owned())
                }
                _ => None,
            };
            return self.problem(span, message, help);
        }
        let nullable = value.nullable || attempt || value.ty == Type::Json;
        let types = Arc::new((value.ty, to.clone()));
        let node = Node::Cast { value: Box::new(value.node), types, attempt };
        Some(Typed::new(node, to.clone(), nullable, span))
    }

    pub(super) fn like(&mut self, expr: &Expr, span: Range<usize>) -> Option<Typed> {
        let (syntax, negated, any, value, pattern, escape) = match expr {
            Expr::Like { negated, any, expr, pattern, escape_char } => {
                (Syntax::Like, *negated, *any, expr, pattern, escape_char)
            }
            Expr::ILike { negated, any, expr, pattern, escape_char } => {
                (Syntax::ILike, *negated, *any, expr, pattern, escape_char)
            }
            Expr::SimilarTo { negated, expr, pattern, escape_char } => {
                (Syntax::Similar, *negated, false, expr, pattern, escape_char)
            }
            _ => return None,
        };
        if any {
            return self.problem(span, "LIKE ANY is not part of the language", Some("join LIKEs with OR".to_owned()));
        }
        let escape = match escape.as_deref() {
            None => Some('\\'),
            Some(escape) => {
                let escape = self.check(escape)?;
                let text = escape.text().map(str::to_owned);
                let mut characters = text.as_deref().map(str::chars);
                match (characters.as_mut().and_then(Iterator::next), characters.and_then(|mut rest| rest.next())) {
                    (Some(character), None) => Some(character),
                    (None, _) if text.is_some() => None,
                    _ => return self.problem(escape.span, "ESCAPE takes one character: ESCAPE '!'", None),
                }
            }
        };
        let (value, pattern) = (self.check(value), self.check(pattern));
        self.pattern(syntax, value?, pattern?, escape, negated, span)
    }

    /// LIKE and regular expressions; a pattern that is a literal is compiled now.
    pub(super) fn pattern(
        &mut self,
        syntax: Syntax,
        value: Typed,
        pattern: Typed,
        escape: Option<char>,
        negated: bool,
        span: Range<usize>,
    ) -> Option<Typed> {
        let (value, pattern) = (self.coerce(value, &Type::String), self.coerce(pattern, &Type::String));
        let (value, pattern) = (value?, pattern?);
        let nullable = value.nullable || pattern.nullable;
        let node = if let Some(text) = pattern.text() {
            match pattern::compile(syntax, text, escape) {
                Ok(matcher) => Node::Matches { value: Box::new(value.node), matcher: Arc::new(matcher), negated },
                Err(reason) => return self.problem(pattern.span, reason, None),
            }
        } else {
            if escape.is_some_and(|escape| escape != '\\') {
                let help = Some("write the pattern as a literal".to_owned());
                return self.problem(pattern.span, "ESCAPE needs a pattern that is a literal", help);
            }
            let implementation = text::matches(syntax);
            let arguments = Box::new([value.node, pattern.node]);
            let call = Node::Call { name: syntax.name(), implementation, strict: true, arguments };
            if negated { Node::Not(Box::new(call)) } else { call }
        };
        Some(Typed::new(node, Type::Boolean, nullable, span))
    }

    pub(super) fn extract(&mut self, field: &str, expr: &Expr, span: Range<usize>) -> Option<Typed> {
        let value = self.check(expr)?;
        self.extract_field(field.trim_matches('\''), value, span)
    }

    pub(super) fn extract_field(&mut self, name: &str, value: Typed, span: Range<usize>) -> Option<Typed> {
        let field = self.time_field(name, &span)?;
        let value = if value.untyped || value.ty == Type::Null { self.coerce(value, &Type::Timestamp)? } else { value };
        if !matches!(value.ty, Type::Timestamp | Type::Date | Type::Interval) {
            let message = format!("EXTRACT takes a TIMESTAMP, DATE or INTERVAL, found {}", with_article(&value.ty));
            return self.problem(value.span, message, None);
        }
        let ty = match field {
            Field::Epoch | Field::Second | Field::Millisecond | Field::Microsecond => Type::Double,
            _ => Type::Bigint,
        };
        let nullable = value.nullable;
        let whole = ty == Type::Bigint;
        Some(Typed::new(Node::Extract { field, value: Box::new(value.node), whole }, ty, nullable, span))
    }

    pub(super) fn time_field(&mut self, name: &str, span: &Range<usize>) -> Option<Field> {
        if let Some(field) = Field::parse(name) {
            return Some(field);
        }
        let names = Field::NAMES.map(|(name, _)| name);
        let help = did_you_mean(name, names).unwrap_or_else(|| format!("there are {}", names.join(", ")));
        self.problem(span.clone(), format!("unknown part of a time `{name}`"), Some(help))
    }

    /// NULLIF(a, b): `a`, unless it equals `b`.
    pub(super) fn null_if(&mut self, a: Typed, b: Typed, span: Range<usize>) -> Option<Typed> {
        let result = if a.untyped && !b.untyped { self.coerce(a, &b.ty)? } else { a };
        let equal = self.comparison(Comparison::Equal, result.clone(), b, span.clone())?;
        let branches = Box::new([(equal.node, Node::Literal(Value::Null))]);
        let node = Node::Case { branches, otherwise: Box::new(result.node) };
        Some(Typed::new(node, result.ty, true, span))
    }
}
