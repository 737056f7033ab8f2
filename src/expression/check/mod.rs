//! From a syntax tree to a typed, compiled expression.
//!
//! Steps, for each node of the tree
//! 1. Check the operands; a mistake in one is reported and the others are still checked.
//! 2. Settle the types: literals take the type of what they meet, numbers widen, everything else needs a CAST.
//! 3. Build the evaluation node for exactly these types.
//! 4. Where all operands are literals, compute it now.

mod access;
mod calls;
mod operators;
mod special;

pub use access::default_name;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use sqlparser::ast::{self, Expr};

use super::calendar;
use super::cast::{self, castable};
use super::eval::{Eval, Node};
use super::parse::Source;
use super::type_syntax;
use super::types;
use super::{Env, Problem, Scope};
use crate::ids::{EventTime, Offset, Partition, TopicName};
use crate::row::Origin;
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// Deeper trees are refused: they are walked recursively.
const MAX_DEPTH: usize = 64;

/// A checked expression.
#[derive(Clone, Debug)]
pub struct Typed {
    pub node: Node,
    pub ty: Type,
    pub nullable: bool,
    pub span: Range<usize>,
    /// A bare text literal takes the type of what it meets, as in PostgreSQL.
    pub untyped: bool,
}

impl Typed {
    fn new(node: Node, ty: Type, nullable: bool, span: Range<usize>) -> Self {
        Self { node, ty, nullable, span, untyped: false }
    }

    fn literal(value: Value, ty: Type, span: Range<usize>) -> Self {
        let nullable = value.is_null();
        Self::new(Node::Literal(value), ty, nullable, span)
    }

    /// The text of a literal of type STRING.
    fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Literal(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

/// Checks expressions of one text. `None` means that a problem was reported.
#[derive(Debug)]
pub struct Checker<'a> {
    pub source: Source<'a>,
    pub scope: &'a Scope,
    pub problems: Vec<Problem>,
    /// Whether NOW() or a random function was called.
    pub volatile: bool,
    depth: usize,
}

impl<'a> Checker<'a> {
    pub fn new(text: &'a str, scope: &'a Scope) -> Self {
        Self { source: Source::new(text), scope, problems: Vec::new(), volatile: false, depth: 0 }
    }

    /// What was reported; never empty, so that a refusal always has a reason.
    pub fn into_problems(mut self) -> Vec<Problem> {
        if self.problems.is_empty() {
            let message = "this expression is not supported".to_owned();
            self.problems.push(Problem::new(self.source.whole(), message, None));
        }
        self.problems
    }

    /// Reports a problem; always `None`, to be returned.
    pub fn problem<T>(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) -> Option<T> {
        self.problems.push(Problem::new(span, message.into(), help));
        None
    }

    /// Reports what this version lacks; always `None`.
    pub fn lacking<T>(&mut self, span: Range<usize>, what: &str) -> Option<T> {
        self.problems.push(Problem::not_supported(span, what));
        None
    }

    fn unsupported<T>(&mut self, expr: &Expr, what: &str) -> Option<T> {
        let span = self.source.of(expr);
        self.problem(span, format!("{what} not part of the language"), None)
    }

    pub fn check(&mut self, expr: &Expr) -> Option<Typed> {
        if self.depth >= MAX_DEPTH {
            let span = self.source.whole();
            let help = Some("compute parts of it in an earlier step".to_owned());
            return self.problem(span, "the expression is nested too deeply", help);
        }
        self.depth += 1;
        let checked = self.check_node(expr);
        self.depth -= 1;
        let mut typed = checked?;
        typed.node = folded(typed.node);
        Some(typed)
    }

    fn check_node(&mut self, expr: &Expr) -> Option<Typed> {
        let span = self.source.of(expr);
        match expr {
            Expr::Identifier(name) => self.name(std::slice::from_ref(name)),
            Expr::CompoundIdentifier(names) => self.name(names),
            Expr::CompoundFieldAccess { root, access_chain } => self.access(root, access_chain),
            Expr::Nested(inner) => self.check(inner).map(|inner| Typed { untyped: false, ..inner }),
            Expr::Value(value) => self.literal(&value.value, span),
            Expr::TypedString(typed) => {
                let ty = self.data_type(&typed.data_type, &span)?;
                let Some(text) = typed.value.value.clone().into_string() else {
                    return self.problem(span, "expected a text after the type", None);
                };
                self.literal_of(&text, &ty, span)
            }
            Expr::Interval(interval) => self.interval(interval, span),
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right, span),
            Expr::UnaryOp { op, expr } => self.unary(*op, expr, span),
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                let value = self.check(inner)?;
                let negated = matches!(expr, Expr::IsNotNull(_));
                Some(Typed::new(Node::IsNull { value: Box::new(value.node), negated }, Type::Boolean, false, span))
            }
            Expr::IsTrue(inner) => self.is_boolean(inner, true, false, span),
            Expr::IsNotTrue(inner) => self.is_boolean(inner, true, true, span),
            Expr::IsFalse(inner) => self.is_boolean(inner, false, false, span),
            Expr::IsNotFalse(inner) => self.is_boolean(inner, false, true, span),
            Expr::IsUnknown(inner) | Expr::IsNotUnknown(inner) => {
                let value = self.boolean(inner)?;
                let negated = matches!(expr, Expr::IsNotUnknown(_));
                Some(Typed::new(Node::IsNull { value: Box::new(value.node), negated }, Type::Boolean, false, span))
            }
            Expr::IsDistinctFrom(left, right) => self.distinct(left, right, false, span),
            Expr::IsNotDistinctFrom(left, right) => self.distinct(left, right, true, span),
            Expr::Between { expr, negated, low, high } => self.between(expr, *negated, low, high, span),
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated, span),
            Expr::AnyOp { left, compare_op, right, .. } => self.quantified(left, compare_op, right, false, span),
            Expr::AllOp { left, compare_op, right } => self.quantified(left, compare_op, right, true, span),
            Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => self.like(expr, span),
            Expr::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref(), span)
            }
            Expr::Cast { kind, expr, data_type, format: None } => self.cast(kind, expr, data_type, span),
            Expr::Array(array) => self.array(&array.elem, span),
            Expr::Function(function) => self.function(function, span),
            Expr::Extract { field, expr, .. } => self.extract(&field.to_string(), expr, span),
            Expr::AtTimeZone { timestamp, time_zone } => self.call("AT TIME ZONE", &[timestamp, time_zone], span),
            Expr::Ceil { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                self.call("CEIL", &[expr], span)
            }
            Expr::Floor { expr, field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) } => {
                self.call("FLOOR", &[expr], span)
            }
            Expr::Ceil { .. } | Expr::Floor { .. } => {
                let help = Some("DATE_TRUNC('hour', at) truncates times, ROUND(x, 2) numbers".to_owned());
                self.problem(span, "CEIL and FLOOR take one number", help)
            }
            Expr::Position { expr, r#in } => self.call("POSITION", &[expr, r#in], span),
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let one = Expr::value(ast::Value::Number("1".to_owned(), false));
                let from = substring_from.as_deref().unwrap_or(&one);
                match substring_for {
                    Some(length) => self.call("SUBSTRING", &[expr, from, length], span),
                    None => self.call("SUBSTRING", &[expr, from], span),
                }
            }
            Expr::Trim { trim_where, trim_what, expr, trim_characters } => {
                let name = match trim_where {
                    None | Some(ast::TrimWhereField::Both) => "TRIM",
                    Some(ast::TrimWhereField::Leading) => "LTRIM",
                    Some(ast::TrimWhereField::Trailing) => "RTRIM",
                };
                let characters = trim_what.as_deref().or(trim_characters.as_ref().and_then(|list| list.first()));
                match characters {
                    Some(characters) => self.call(name, &[expr, characters], span),
                    None => self.call(name, &[expr], span),
                }
            }
            Expr::Overlay { expr, overlay_what, overlay_from, overlay_for } => match overlay_for {
                Some(length) => self.call("OVERLAY", &[expr, overlay_what, overlay_from, length], span),
                None => self.call("OVERLAY", &[expr, overlay_what, overlay_from], span),
            },
            Expr::Subquery(_) | Expr::InSubquery { .. } | Expr::Exists { .. } => {
                let help = Some("write a step of its own, and join with it".to_owned());
                self.problem(span, "subqueries are not part of the language", help)
            }
            Expr::Wildcard(_) | Expr::QualifiedWildcard(..) => {
                self.problem(span, "`*` stands for columns: it belongs in a select list or in COUNT(*)", None)
            }
            Expr::Tuple(_) => {
                self.problem(span, "lists in brackets belong to IN", Some("compare the parts with AND".into()))
            }
            Expr::RLike { .. } => self.problem(span, "RLIKE is not part of the language", Some("write `~`".to_owned())),
            Expr::Cast { .. } | Expr::Convert { .. } => self.unsupported(expr, "this form of CAST is"),
            Expr::Collate { .. } => self.unsupported(expr, "COLLATE is"),
            Expr::Struct { .. } | Expr::Dictionary(_) | Expr::Map(_) => {
                self.unsupported(expr, "struct and map literals are")
            }
            _ => {
                let message = format!("`{expr}` is not part of the language");
                self.problem(span, message, None)
            }
        }
    }

    // ---- literals --------------------------------------------------------------------------------------------------

    fn literal(&mut self, value: &ast::Value, span: Range<usize>) -> Option<Typed> {
        match value {
            ast::Value::Null => Some(Typed::literal(Value::Null, Type::Null, span)),
            ast::Value::Boolean(value) => Some(Typed::literal(Value::Boolean(*value), Type::Boolean, span)),
            ast::Value::Number(text, _) => self.number(text, span),
            ast::Value::SingleQuotedString(text) | ast::Value::EscapedStringLiteral(text) => {
                let literal = Typed::literal(Value::string(text), Type::String, span);
                Some(Typed { untyped: true, ..literal })
            }
            ast::Value::DollarQuotedString(text) => {
                let literal = Typed::literal(Value::string(&text.value), Type::String, span);
                Some(Typed { untyped: true, ..literal })
            }
            ast::Value::HexStringLiteral(text) => match super::functions::hex_decode(text) {
                Some(bytes) => Some(Typed::literal(Value::bytes(bytes), Type::Bytes, span)),
                None => self.problem(span, "X'...' holds pairs of hexadecimal digits", None),
            },
            other => {
                let message = format!("`{other}` is not part of the language");
                self.problem(span, message, Some("write texts as 'text'".to_owned()))
            }
        }
    }

    /// Whole numbers are INT, BIGINT or DECIMAL, whichever holds them; point literals are DECIMAL, with an exponent DOUBLE.
    fn number(&mut self, text: &str, span: Range<usize>) -> Option<Typed> {
        let text: String = text.chars().filter(|character| *character != '_').collect();
        if text.contains(['e', 'E']) {
            return match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Some(Typed::literal(Value::Double(number), Type::Double, span)),
                _ => self.problem(span, "this number is beyond the range of a DOUBLE", None),
            };
        }
        if !text.contains('.') {
            if let Ok(number) = text.parse::<i32>() {
                return Some(Typed::literal(Value::Int(number), Type::Int, span));
            }
            if let Ok(number) = text.parse::<i64>() {
                return Some(Typed::literal(Value::Bigint(number), Type::Bigint, span));
            }
        }
        let Ok(number) = text.parse::<Decimal>() else {
            let help = Some("write it with an exponent (1.5e40) for a DOUBLE".to_owned());
            return self.problem(span, "this number has more than 38 digits", help);
        };
        let ty = Type::Decimal { precision: number.digits().max(number.scale), scale: number.scale };
        Some(Typed::literal(Value::Decimal(number), ty, span))
    }

    fn interval(&mut self, interval: &ast::Interval, span: Range<usize>) -> Option<Typed> {
        if interval.last_field.is_some() {
            return self.problem(span, "interval ranges (DAY TO SECOND) are not part of the language", None);
        }
        let text = match &*interval.value {
            Expr::Value(value) => match &value.value {
                ast::Value::Number(text, _) => Some(text.clone()),
                other => other.clone().into_string(),
            },
            _ => None,
        };
        let Some(text) = text else {
            let help = Some("write INTERVAL '5 minutes', or MAKE_INTERVAL for computed ones".to_owned());
            return self.problem(span, "INTERVAL takes a literal", help);
        };
        let parsed = match &interval.leading_field {
            Some(unit) => calendar::parse_interval_in(&text, &unit.to_string()),
            None => calendar::parse_interval(&text),
        };
        match parsed {
            Ok(interval) => Some(Typed::literal(Value::Interval(interval), Type::Interval, span)),
            Err(_) => self.not_a(&text, &Type::Interval, span),
        }
    }

    fn literal_of(&mut self, text: &str, ty: &Type, span: Range<usize>) -> Option<Typed> {
        match cast::cast(&Value::string(text), &Type::String, ty) {
            Ok(value) if castable(&Type::String, ty) => Some(Typed::literal(value, ty.clone(), span)),
            _ => self.not_a(text, ty, span),
        }
    }

    fn not_a<T>(&mut self, text: &str, ty: &Type, span: Range<usize>) -> Option<T> {
        let example = match ty {
            Type::Interval => Some("INTERVAL '1 day 2 hours', '5m', 'PT5M'"),
            Type::Timestamp => Some("TIMESTAMP '2026-01-31T12:00:00Z'"),
            Type::Date => Some("DATE '2026-01-31'"),
            Type::Boolean => Some("true or false"),
            _ => None,
        };
        let help = example.map(|example| format!("for example {example}"));
        self.problem(span, format!("'{text}' is not {}", types::with_article(ty)), help)
    }

    // ---- types -----------------------------------------------------------------------------------------------------

    fn data_type(&mut self, data_type: &ast::DataType, span: &Range<usize>) -> Option<Type> {
        let text = data_type.to_string();
        if let Some(element) = text.strip_suffix("[]") {
            let help = Some(format!("write ARRAY<{element}>"));
            return self.problem(span.clone(), format!("unknown type `{text}`"), help);
        }
        match type_syntax::parse_type(&text) {
            Ok((ty, _)) => Some(ty),
            Err(problem) => self.problem(span.clone(), problem.message, problem.help),
        }
    }

    /// As a value of `to`, where that needs no CAST.
    pub fn coerce(&mut self, value: Typed, to: &Type) -> Option<Typed> {
        if value.ty == *to {
            return Some(value);
        }
        if value.ty == Type::Null {
            return Some(Typed { ty: to.clone(), ..value });
        }
        if value.untyped
            && let Some(text) = value.text()
        {
            let text = text.to_owned();
            return self.literal_of(&text, to, value.span);
        }
        if !types::converts(&value.ty, to) {
            let message = format!("expected {}, found {}", types::with_article(to), types::with_article(&value.ty));
            let help = castable(&value.ty, to).then(|| format!("convert it: CAST(... AS {to})"));
            return self.problem(value.span, message, help);
        }
        let from = value.ty.clone();
        let inner = Box::new(value.node);
        let node = match to {
            Type::Bigint => Node::ToBigint(inner),
            Type::Double => Node::ToDouble(inner),
            Type::Decimal { scale, .. } => Node::ToDecimal { value: inner, scale: *scale },
            _ => Node::Cast { value: inner, types: Arc::new((from, to.clone())), attempt: false },
        };
        let node = folded(node);
        Some(Typed { node, ty: to.clone(), nullable: value.nullable, span: value.span, untyped: false })
    }

    /// Both as one type. A bare text literal becomes what the other is.
    fn unify(&mut self, a: Typed, b: Typed, doing: &str) -> Option<(Typed, Typed)> {
        let ty = self.common_type(&a, &b, doing)?;
        let a = self.coerce(a, &ty);
        let b = self.coerce(b, &ty);
        Some((a?, b?))
    }

    fn common_type(&mut self, a: &Typed, b: &Typed, doing: &str) -> Option<Type> {
        if a.untyped && !b.untyped && b.ty != Type::Null {
            return Some(b.ty.clone());
        }
        if b.untyped && !a.untyped && a.ty != Type::Null {
            return Some(a.ty.clone());
        }
        if let Some(ty) = types::common(&a.ty, &b.ty) {
            return Some(ty);
        }
        let message = format!("cannot {doing} {} and {}", types::with_article(&a.ty), types::with_article(&b.ty));
        let help = if castable(&b.ty, &a.ty) || castable(&a.ty, &b.ty) {
            let text_first = a.ty == Type::String;
            let to = if text_first && castable(&a.ty, &b.ty) { &b.ty } else { &a.ty };
            Some(format!("convert one side: CAST(... AS {to})"))
        } else {
            None
        };
        let span = a.span.start.min(b.span.start)..a.span.end.max(b.span.end);
        self.problem(span, message, help)
    }

    /// All as one type.
    fn unify_all(&mut self, values: Vec<Typed>, doing: &str) -> Option<(Vec<Typed>, Type)> {
        let mut ty = Type::Null;
        let mut untyped = false;
        let mut seen: Option<Typed> = None;
        for value in &values {
            if value.untyped {
                untyped = true;
                continue;
            }
            if let Some(so_far) = &seen
                && types::common(&ty, &value.ty).is_none()
            {
                let so_far = so_far.clone();
                self.common_type(&so_far, value, doing);
                return None;
            }
            ty = types::common(&ty, &value.ty)?;
            if value.ty != Type::Null {
                seen = Some(value.clone());
            }
        }
        if ty == Type::Null && untyped {
            ty = Type::String;
        }
        let coerced: Vec<Option<Typed>> = values.into_iter().map(|value| self.coerce(value, &ty)).collect();
        coerced.into_iter().collect::<Option<Vec<_>>>().map(|values| (values, ty))
    }

    /// A condition.
    pub fn boolean(&mut self, expr: &Expr) -> Option<Typed> {
        let value = self.check(expr)?;
        self.as_condition(value)
    }

    pub fn as_condition(&mut self, value: Typed) -> Option<Typed> {
        if matches!(value.ty, Type::Boolean | Type::Null) {
            return Some(Typed { ty: Type::Boolean, ..value });
        }
        let help = match &value.ty {
            Type::Int | Type::Bigint | Type::Double | Type::Decimal { .. } => Some("compare it: x <> 0".to_owned()),
            Type::String if value.untyped => {
                Some("a text in single quotes is a value; columns stand without quotes".into())
            }
            _ => None,
        };
        let message = format!("expected a condition (BOOLEAN), found {}", types::with_article(&value.ty));
        self.problem(value.span, message, help)
    }

    fn array(&mut self, elements: &[Expr], span: Range<usize>) -> Option<Typed> {
        let elements: Vec<Option<Typed>> = elements.iter().map(|element| self.check(element)).collect();
        let elements: Vec<Typed> = elements.into_iter().collect::<Option<_>>()?;
        let (elements, ty) = self.unify_all(elements, "put into one array")?;
        let nodes = elements.into_iter().map(|element| element.node).collect();
        Some(Typed::new(Node::Array(nodes), Type::Array(Arc::new(ty)), false, span))
    }
}

/// Computes what depends on nothing. What fails is left for the record that needs it: it may stand in a branch that
/// is never taken.
fn folded(node: Node) -> Node {
    if node.is_literal() {
        return node;
    }
    let mut constant = true;
    node.walk(&mut |part| match part {
        Node::Column(_) | Node::Pseudo(_) | Node::Header(_) => constant = false,
        Node::Call { name, .. } => constant &= !super::functions::is_random(name),
        _ => {}
    });
    if !constant {
        return node;
    }
    match evaluate(&node) {
        Ok(value) => Node::Literal(value),
        Err(_) => node,
    }
}

/// Of a node that reads neither a row nor a record.
fn evaluate(node: &Node) -> Eval<Value> {
    static NOWHERE: LazyLock<Origin> = LazyLock::new(|| Origin {
        topic: TopicName::new(""),
        partition: Partition(0),
        offset: Offset::ZERO,
        key: None,
        headers: None,
        time: EventTime(0),
        tombstone: false,
        fetched_at: 0,
    });
    node.eval(&Env { row: &[], origin: &NOWHERE })
}
