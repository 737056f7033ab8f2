//! Operators: arithmetic, comparison, logic, text, JSON paths.

use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

use super::{Checker, Typed, folded};
use crate::expression::eval::{Arithmetic, Comparable, Comparison, Implementation, Integer, Node};
use crate::expression::functions::{array, text, time};
use crate::expression::pattern::Syntax;
use crate::expression::types::{self, decimal_result, digits, is_integer, is_number, with_article};
use crate::schema::Type;
use crate::value::{Decimal, Value};

/// Longer chains of operators are refused: they are evaluated recursively.
const MAX_CHAIN: usize = 250;

impl Checker<'_> {
    pub(super) fn binary(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        span: Range<usize>,
    ) -> Option<Typed> {
        if matches!(op, BinaryOperator::And | BinaryOperator::Or) {
            return self.connective(op, left, right, span);
        }
        // A chain of operators leans to the left, and may be long: it is taken apart in a loop.
        let mut chain = vec![(op, right, span)];
        let mut rest = left;
        while let Expr::BinaryOp { left, op, right } = rest
            && !matches!(op, BinaryOperator::And | BinaryOperator::Or)
        {
            chain.push((op, right, self.source.of(rest)));
            rest = left;
        }
        if chain.len() > MAX_CHAIN {
            let help = Some("compute parts of it in an earlier step".to_owned());
            return self.problem(self.source.whole(), format!("more than {MAX_CHAIN} operators in a row"), help);
        }
        let mut value = self.check(rest);
        for (op, right, span) in chain.into_iter().rev() {
            let right = self.check(right);
            value = match (value, right) {
                (Some(left), Some(right)) => self.operation(left, op, right, span),
                _ => None,
            };
            if let Some(value) = &mut value {
                let node = std::mem::replace(&mut value.node, Node::Literal(Value::Null));
                value.node = folded(node);
            }
        }
        value
    }

    fn operation(&mut self, left: Typed, op: &BinaryOperator, right: Typed, span: Range<usize>) -> Option<Typed> {
        if let Some(comparison) = comparison(op) {
            return self.comparison(comparison, left, right, span);
        }
        match op {
            BinaryOperator::Plus => self.arithmetic(Arithmetic::Add, left, right, span),
            BinaryOperator::Minus => self.arithmetic(Arithmetic::Subtract, left, right, span),
            BinaryOperator::Multiply => self.arithmetic(Arithmetic::Multiply, left, right, span),
            BinaryOperator::Divide => self.arithmetic(Arithmetic::Divide, left, right, span),
            BinaryOperator::Modulo => self.arithmetic(Arithmetic::Remainder, left, right, span),
            BinaryOperator::StringConcat => self.concatenation(left, right, span),
            BinaryOperator::PGExp => self.call_checked("POWER", vec![left, right], span),
            BinaryOperator::PGRegexMatch => self.pattern(Syntax::Regex, left, right, None, false, span),
            BinaryOperator::PGRegexIMatch => self.pattern(Syntax::RegexIgnoringCase, left, right, None, false, span),
            BinaryOperator::PGRegexNotMatch => self.pattern(Syntax::Regex, left, right, None, true, span),
            BinaryOperator::PGRegexNotIMatch => self.pattern(Syntax::RegexIgnoringCase, left, right, None, true, span),
            BinaryOperator::PGLikeMatch => self.pattern(Syntax::Like, left, right, Some('\\'), false, span),
            BinaryOperator::PGILikeMatch => self.pattern(Syntax::ILike, left, right, Some('\\'), false, span),
            BinaryOperator::PGNotLikeMatch => self.pattern(Syntax::Like, left, right, Some('\\'), true, span),
            BinaryOperator::PGNotILikeMatch => self.pattern(Syntax::ILike, left, right, Some('\\'), true, span),
            BinaryOperator::PGStartsWith => self.call_checked("STARTS_WITH", vec![left, right], span),
            BinaryOperator::Arrow => self.call_checked("->", vec![left, right], span),
            BinaryOperator::LongArrow => self.call_checked("->>", vec![left, right], span),
            BinaryOperator::HashArrow => self.call_checked("#>", vec![left, right], span),
            BinaryOperator::HashLongArrow => self.call_checked("#>>", vec![left, right], span),
            BinaryOperator::BitwiseOr | BinaryOperator::BitwiseAnd if are_integers(&left, &right) => {
                self.call_checked(if *op == BinaryOperator::BitwiseOr { "|" } else { "&" }, vec![left, right], span)
            }
            BinaryOperator::PGBitwiseXor => self.call_checked("#", vec![left, right], span),
            BinaryOperator::PGBitwiseShiftLeft => self.call_checked("<<", vec![left, right], span),
            BinaryOperator::PGBitwiseShiftRight => self.call_checked(">>", vec![left, right], span),
            BinaryOperator::BitwiseOr | BinaryOperator::BitwiseAnd => {
                let help = match op {
                    BinaryOperator::BitwiseOr => "texts are joined with `||`, conditions with OR",
                    _ => "conditions are joined with AND",
                };
                self.problem(span, format!("`{op}` takes whole numbers"), Some(help.to_owned()))
            }
            _ => self.problem(span, format!("`{op}` is not part of the language"), None),
        }
    }

    /// AND and OR, a whole chain at once, however long.
    fn connective(&mut self, op: &BinaryOperator, left: &Expr, right: &Expr, span: Range<usize>) -> Option<Typed> {
        let mut chain = vec![right];
        let mut rest = left;
        while let Expr::BinaryOp { left, op: inner, right } = rest
            && inner == op
        {
            chain.push(right);
            rest = left;
        }
        chain.push(rest);
        let operands: Vec<Option<Typed>> = chain.into_iter().rev().map(|operand| self.boolean(operand)).collect();
        let operands: Vec<Typed> = operands.into_iter().collect::<Option<_>>()?;
        let nullable = operands.iter().any(|operand| operand.nullable);
        let nodes = operands.into_iter().map(|operand| operand.node).collect();
        let node = if *op == BinaryOperator::And { Node::And(nodes) } else { Node::Or(nodes) };
        Some(Typed::new(node, Type::Boolean, nullable, span))
    }

    pub(super) fn unary(&mut self, op: UnaryOperator, expr: &Expr, span: Range<usize>) -> Option<Typed> {
        match op {
            UnaryOperator::Not => {
                let value = self.boolean(expr)?;
                let nullable = value.nullable;
                Some(Typed::new(Node::Not(Box::new(value.node)), Type::Boolean, nullable, span))
            }
            UnaryOperator::Plus | UnaryOperator::Minus => {
                if op == UnaryOperator::Minus
                    && let Some(literal) = Self::least_integer(expr, &span)
                {
                    return Some(literal);
                }
                let value = self.check(expr)?;
                match (&value.ty, op) {
                    (ty, UnaryOperator::Plus) if is_number(ty) => Some(value),
                    (Type::Interval, _) => {
                        Some(Self::strict("-", time::negate_interval, vec![value], Type::Interval, span))
                    }
                    (ty, _) if is_number(ty) => {
                        // 0 - x, except that -0.0 must stay what it is.
                        if *ty == Type::Double {
                            let minus_one = Typed::literal(Value::Double(-1.0), Type::Double, span.clone());
                            return self.arithmetic(Arithmetic::Multiply, value, minus_one, span);
                        }
                        let zero = match ty {
                            Type::Int => Value::Int(0),
                            Type::Bigint => Value::Bigint(0),
                            _ => Value::Decimal(Decimal::ZERO),
                        };
                        let ty = ty.clone();
                        let node = match &ty {
                            Type::Decimal { precision, scale } => Node::Decimals {
                                op: Arithmetic::Subtract,
                                precision: *precision,
                                scale: *scale,
                                operands: Box::new([Node::Literal(zero), value.node]),
                            },
                            _ => Node::Integers {
                                integer: if ty == Type::Int { Integer::Int } else { Integer::Bigint },
                                op: Arithmetic::Subtract,
                                operands: Box::new([Node::Literal(zero), value.node]),
                            },
                        };
                        Some(Typed::new(node, ty, value.nullable, span))
                    }
                    (ty, _) => {
                        let message = format!("expected a number, found {}", with_article(ty));
                        self.problem(value.span, message, None)
                    }
                }
            }
            UnaryOperator::BitwiseNot => self.call("~", &[expr], span),
            UnaryOperator::BangNot => {
                self.problem(span, "`!` is not part of the language", Some("write NOT".to_owned()))
            }
            _ => self.problem(span, format!("`{op}` is not part of the language"), None),
        }
    }

    /// The two numbers that have no positive counterpart of their type.
    fn least_integer(expr: &Expr, span: &Range<usize>) -> Option<Typed> {
        let Expr::Value(value) = expr else { return None };
        let sqlparser::ast::Value::Number(text, _) = &value.value else { return None };
        let negative = format!("-{text}");
        if let Ok(number) = negative.parse::<i32>() {
            return Some(Typed::literal(Value::Int(number), Type::Int, span.clone()));
        }
        let number = negative.parse::<i64>().ok()?;
        Some(Typed::literal(Value::Bigint(number), Type::Bigint, span.clone()))
    }

    // ---- arithmetic ------------------------------------------------------------------------------------------------

    fn arithmetic(&mut self, op: Arithmetic, left: Typed, right: Typed, span: Range<usize>) -> Option<Typed> {
        let nullable = left.nullable || right.nullable;
        if let Some(temporal) = temporal(op, &left.ty, &right.ty) {
            return Some(Self::strict("time arithmetic", temporal.0, vec![left, right], temporal.1, span));
        }
        if let Some((left_ty, right_ty)) = untyped_temporal(op, &left, &right) {
            let (left, right) = (self.coerce(left, &left_ty)?, self.coerce(right, &right_ty)?);
            return self.arithmetic(op, left, right, span);
        }
        let (left, right) = self.numbers(op, left, right, &span)?;
        let ty = match (&left.ty, &right.ty) {
            (Type::Null, Type::Null) => Type::Int,
            (Type::Null, ty) | (ty, Type::Null) => ty.clone(),
            (a, b) => types::common(a, b)?,
        };
        let operands = Box::new([left.node, right.node]);
        let (node, ty) = match ty {
            Type::Int => (Node::Integers { integer: Integer::Int, op, operands }, Type::Int),
            Type::Bigint => (Node::Integers { integer: Integer::Bigint, op, operands }, Type::Bigint),
            Type::Double => (Node::Doubles { op, operands }, Type::Double),
            _ => {
                let own = |ty: &Type, node: &Node| match (ty, node) {
                    // A literal needs only its own digits.
                    (ty, Node::Literal(Value::Int(number))) if is_integer(ty) => {
                        (Decimal::from(i64::from(*number)).digits(), 0)
                    }
                    (ty, _) => digits(ty).unwrap_or((1, 0)),
                };
                let result = decimal_result(op, own(&left.ty, &operands[0]), own(&right.ty, &operands[1]));
                let Type::Decimal { precision, scale } = result else { return None };
                (Node::Decimals { op, precision, scale, operands }, result)
            }
        };
        Some(Typed::new(node, ty, nullable, span))
    }

    /// Both operands as numbers.
    fn numbers(&mut self, op: Arithmetic, left: Typed, right: Typed, span: &Range<usize>) -> Option<(Typed, Typed)> {
        let numeric = |ty: &Type| is_number(ty) || *ty == Type::Null;
        if left.untyped && is_number(&right.ty) {
            let ty = right.ty.clone();
            return Some((self.coerce(left, &ty)?, right));
        }
        if right.untyped && is_number(&left.ty) {
            let ty = left.ty.clone();
            return Some((left, self.coerce(right, &ty)?));
        }
        if numeric(&left.ty) && numeric(&right.ty) {
            return Some((left, right));
        }
        let sign = match op {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        };
        let message = format!("`{sign}` does not go with {} and {}", with_article(&left.ty), with_article(&right.ty));
        let help = match (&left.ty, &right.ty, op) {
            (Type::String, _, Arithmetic::Add) | (_, Type::String, Arithmetic::Add) => {
                Some("texts are joined with `||`".to_owned())
            }
            (Type::Timestamp | Type::Date, ty, _) | (ty, Type::Timestamp | Type::Date, _) if is_number(ty) => {
                Some("say the unit: at + INTERVAL '5 minutes'".to_owned())
            }
            (Type::Timestamp, Type::Timestamp, Arithmetic::Add) => Some("subtract them for an INTERVAL".to_owned()),
            (Type::String, ty, _) | (ty, Type::String, _) if is_number(ty) => {
                Some(format!("convert the text: CAST(... AS {ty})"))
            }
            (Type::Json, ..) | (_, Type::Json, _) => Some("convert it: CAST(... AS DOUBLE)".to_owned()),
            (Type::Interval, ..) | (_, Type::Interval, _) => {
                Some("EXTRACT(EPOCH FROM interval) gives its seconds as a number".to_owned())
            }
            _ => None,
        };
        self.problem(span.clone(), message, help)
    }

    fn concatenation(&mut self, left: Typed, right: Typed, span: Range<usize>) -> Option<Typed> {
        match (left.ty.clone(), right.ty.clone()) {
            (Type::Array(_), Type::Array(_)) => {
                let (left, right) = self.unify(left, right, "concatenate")?;
                let ty = left.ty.clone();
                Some(Self::strict("||", array::concatenate, vec![left, right], ty, span))
            }
            (Type::Array(element), _) => {
                let right = self.coerce(right, &element)?;
                let ty = left.ty.clone();
                Some(Self::lenient("||", array::append, vec![left, right], ty, span))
            }
            (_, Type::Array(element)) => {
                let left = self.coerce(left, &element)?;
                let ty = right.ty.clone();
                Some(Self::lenient("||", array::prepend, vec![left, right], ty, span))
            }
            (Type::Bytes, Type::Bytes) => {
                Some(Self::strict("||", text::concatenate_bytes, vec![left, right], Type::Bytes, span))
            }
            (Type::Boolean, Type::Boolean) => {
                self.problem(span, "`||` joins texts, not conditions", Some("write OR".to_owned()))
            }
            (a, b) if a != Type::String && b != Type::String && a != Type::Null && b != Type::Null => {
                let message = format!("`||` needs a text: these are {} and {}", with_article(&a), with_article(&b));
                let help = "convert one side: CAST(... AS STRING); conditions are joined with OR";
                self.problem(span, message, Some(help.to_owned()))
            }
            _ => {
                let (left, right) = (Self::as_text(left), Self::as_text(right));
                Some(Self::strict("||", text::concatenate, vec![left, right], Type::String, span))
            }
        }
    }

    // ---- comparison ------------------------------------------------------------------------------------------------

    pub(super) fn comparison(
        &mut self,
        op: Comparison,
        left: Typed,
        right: Typed,
        span: Range<usize>,
    ) -> Option<Typed> {
        let nullable = left.nullable || right.nullable;
        let (of, left, right) = self.comparable(op, left, right)?;
        let node = Node::Compare { of, op, operands: Box::new([left.node, right.node]) };
        Some(Typed::new(node, Type::Boolean, nullable, span))
    }

    /// How two operands are compared. Numbers of different types need no conversion.
    fn comparable(&mut self, op: Comparison, left: Typed, right: Typed) -> Option<(Comparable, Typed, Typed)> {
        if is_number(&left.ty) && is_number(&right.ty) {
            let of = match (&left.ty, &right.ty) {
                (Type::Double, _) | (_, Type::Double) => Comparable::Double,
                (Type::Decimal { .. }, _) | (_, Type::Decimal { .. }) => Comparable::Other,
                _ => Comparable::Integer,
            };
            // Literals are converted now, not per record.
            let settle = |checker: &mut Self, value: Typed| match of {
                Comparable::Double if value.node.is_literal() => checker.coerce(value, &Type::Double),
                Comparable::Integer if value.node.is_literal() => checker.coerce(value, &Type::Bigint),
                _ => Some(value),
            };
            return Some((of, settle(self, left)?, settle(self, right)?));
        }
        let (left, right) = self.unify(left, right, "compare")?;
        let ordered =
            matches!(op, Comparison::Less | Comparison::LessOrEqual | Comparison::Greater | Comparison::GreaterOrEqual);
        if ordered && matches!(left.ty, Type::Json | Type::Map(_) | Type::Struct(_)) {
            let message = format!("{} has no order: only = and <> compare it", with_article(&left.ty));
            let help =
                (left.ty == Type::Json).then(|| "take a text or number out of it: CAST(x ->> 'a' AS DOUBLE)".into());
            return self.problem(left.span.start..right.span.end, message, help);
        }
        let of = match &left.ty {
            Type::Int | Type::Bigint | Type::Date | Type::Timestamp => Comparable::Integer,
            Type::Double => Comparable::Double,
            Type::String => Comparable::String,
            _ => Comparable::Other,
        };
        Some((of, left, right))
    }

    pub(super) fn distinct(&mut self, left: &Expr, right: &Expr, negated: bool, span: Range<usize>) -> Option<Typed> {
        let (left, right) = (self.check(left), self.check(right));
        let (_, left, right) = self.comparable(Comparison::Equal, left?, right?)?;
        let node = Node::Distinct { negated, operands: Box::new([left.node, right.node]) };
        Some(Typed::new(node, Type::Boolean, false, span))
    }

    pub(super) fn between(
        &mut self,
        value: &Expr,
        negated: bool,
        low: &Expr,
        high: &Expr,
        span: Range<usize>,
    ) -> Option<Typed> {
        let (value, low, high) = (self.check(value), self.check(low), self.check(high));
        let (value, low, high) = (value?, low?, high?);
        let from = self.comparison(Comparison::GreaterOrEqual, value.clone(), low, span.clone());
        let to = self.comparison(Comparison::LessOrEqual, value, high, span.clone());
        let (from, to) = (from?, to?);
        let nullable = from.nullable || to.nullable;
        let mut node = Node::And(Box::new([from.node, to.node]));
        if negated {
            node = Node::Not(Box::new(node));
        }
        Some(Typed::new(node, Type::Boolean, nullable, span))
    }

    pub(super) fn in_list(&mut self, value: &Expr, list: &[Expr], negated: bool, span: Range<usize>) -> Option<Typed> {
        let value = self.check(value);
        let list: Vec<Option<Typed>> = list.iter().map(|candidate| self.check(candidate)).collect();
        let value = value?;
        let list: Vec<Typed> = list.into_iter().collect::<Option<_>>()?;
        let numbers = is_number(&value.ty) && list.iter().all(|candidate| is_number(&candidate.ty));
        let integers = is_integer(&value.ty) && list.iter().all(|candidate| is_integer(&candidate.ty));
        let mut nullable = value.nullable;
        let mut nodes = Vec::with_capacity(list.len());
        let mut value = value;
        if !numbers {
            // A text literal on the left takes the type of the list.
            if value.untyped
                && let Some(typed) = list.iter().find(|candidate| !candidate.untyped)
            {
                let ty = typed.ty.clone();
                value = self.coerce(value, &ty)?;
            }
            for candidate in list {
                nullable |= candidate.nullable;
                let (_, _, candidate) = self.comparable(Comparison::Equal, value.clone(), candidate)?;
                nodes.push(candidate.node);
            }
        } else {
            for candidate in list {
                nullable |= candidate.nullable;
                nodes.push(candidate.node);
            }
        }
        let value_ty = value.ty.clone();
        let value = Box::new(value.node);
        let node = if let (Type::String, Some(set)) = (&value_ty, literals(&nodes, text_of)) {
            Node::InStrings { value, set: Arc::new(set), negated }
        } else if integers && let Some(set) = literals(&nodes, crate::expression::eval::as_i64) {
            Node::InIntegers { value, set: Arc::new(set), negated }
        } else {
            Node::InList { value, list: nodes.into(), negated }
        };
        Some(Typed::new(node, Type::Boolean, nullable, span))
    }

    pub(super) fn quantified(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        all: bool,
        span: Range<usize>,
    ) -> Option<Typed> {
        let (left, right) = (self.check(left), self.check(right));
        let (mut left, mut right) = (left?, right?);
        let Some(op) = comparison(op) else {
            return self.problem(span, format!("`{op}` does not go with ANY and ALL"), None);
        };
        let Type::Array(element) = right.ty.clone() else {
            let message = format!("ANY and ALL take an array, found {}", with_article(&right.ty));
            return self.problem(right.span, message, Some("a list of values is compared with IN (...)".to_owned()));
        };
        if left.untyped {
            left = self.coerce(left, &element)?;
        }
        let Some(ty) = types::common(&left.ty, &element) else {
            let message = format!("cannot compare {} and {}", with_article(&left.ty), with_article(&element));
            return self.problem(span, message, None);
        };
        left = self.coerce(left, &ty)?;
        right = self.coerce(right, &Type::Array(Arc::new(ty)))?;
        let node = Node::Quantified { op, all, operands: Box::new([left.node, right.node]) };
        Some(Typed::new(node, Type::Boolean, true, span))
    }

    pub(super) fn is_boolean(&mut self, expr: &Expr, is: bool, negated: bool, span: Range<usize>) -> Option<Typed> {
        let value = self.boolean(expr)?;
        Some(Typed::new(Node::IsBoolean { value: Box::new(value.node), is, negated }, Type::Boolean, false, span))
    }

    // ---- building --------------------------------------------------------------------------------------------------

    /// A call that is NULL where an argument is.
    pub(super) fn strict(
        name: &'static str,
        implementation: Implementation,
        arguments: Vec<Typed>,
        ty: Type,
        span: Range<usize>,
    ) -> Typed {
        let nullable = arguments.iter().any(|argument| argument.nullable);
        let arguments = arguments.into_iter().map(|argument| argument.node).collect();
        Typed::new(Node::Call { name, implementation, strict: true, arguments }, ty, nullable, span)
    }

    /// A call that sees NULLs and never returns one.
    pub(super) fn lenient(
        name: &'static str,
        implementation: Implementation,
        arguments: Vec<Typed>,
        ty: Type,
        span: Range<usize>,
    ) -> Typed {
        let arguments = arguments.into_iter().map(|argument| argument.node).collect();
        Typed::new(Node::Call { name, implementation, strict: false, arguments }, ty, false, span)
    }

    /// As CAST(value AS STRING).
    pub(super) fn as_text(value: Typed) -> Typed {
        if matches!(value.ty, Type::String | Type::Null) {
            return Typed { ty: Type::String, untyped: false, ..value };
        }
        let types = Arc::new((value.ty, Type::String));
        let node = Node::Cast { value: Box::new(value.node), types, attempt: false };
        Typed::new(folded(node), Type::String, value.nullable, value.span)
    }
}

fn text_of(value: &Value) -> Option<compact_str::CompactString> {
    match value {
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// All of the nodes as literals, none of them NULL.
fn literals<T: std::hash::Hash + Eq>(
    nodes: &[Node],
    of: impl Fn(&Value) -> Option<T>,
) -> Option<rustc_hash::FxHashSet<T>> {
    nodes
        .iter()
        .map(|node| match node {
            Node::Literal(value) => of(value),
            _ => None,
        })
        .collect()
}

pub fn are_integers(left: &Typed, right: &Typed) -> bool {
    let fits = |value: &Typed| is_integer(&value.ty) || value.ty == Type::Null;
    fits(left) && fits(right)
}

fn comparison(op: &BinaryOperator) -> Option<Comparison> {
    Some(match op {
        BinaryOperator::Eq => Comparison::Equal,
        BinaryOperator::NotEq => Comparison::NotEqual,
        BinaryOperator::Lt => Comparison::Less,
        BinaryOperator::LtEq => Comparison::LessOrEqual,
        BinaryOperator::Gt => Comparison::Greater,
        BinaryOperator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

/// Arithmetic with dates, timestamps and intervals.
fn temporal(op: Arithmetic, left: &Type, right: &Type) -> Option<(Implementation, Type)> {
    use Arithmetic::{Add, Divide, Multiply, Subtract};
    Some(match (left, op, right) {
        (Type::Timestamp | Type::Date, Add, Type::Interval) => (time::plus_interval, Type::Timestamp),
        (Type::Interval, Add, Type::Timestamp | Type::Date) => (time::interval_plus, Type::Timestamp),
        (Type::Timestamp | Type::Date, Subtract, Type::Interval) => (time::minus_interval, Type::Timestamp),
        (Type::Date, Subtract, Type::Date) => (time::days_between, Type::Int),
        (Type::Timestamp | Type::Date, Subtract, Type::Timestamp | Type::Date) => (time::between, Type::Interval),
        (Type::Date, Add, ty) if is_integer(ty) => (time::plus_days, Type::Date),
        (ty, Add, Type::Date) if is_integer(ty) => (time::days_plus, Type::Date),
        (Type::Date, Subtract, ty) if is_integer(ty) => (time::minus_days, Type::Date),
        (Type::Interval, Add, Type::Interval) => (time::add_intervals, Type::Interval),
        (Type::Interval, Subtract, Type::Interval) => (time::subtract_intervals, Type::Interval),
        (Type::Interval, Multiply, ty) if is_number(ty) => (time::interval_times, Type::Interval),
        (ty, Multiply, Type::Interval) if is_number(ty) => (time::times_interval, Type::Interval),
        (Type::Interval, Divide, ty) if is_number(ty) => (time::interval_over, Type::Interval),
        _ => return None,
    })
}

/// A bare text or NULL beside a date, timestamp or interval: as PostgreSQL, it is taken for the same type, or for an
/// interval beside a `+`.
fn untyped_temporal(op: Arithmetic, left: &Typed, right: &Typed) -> Option<(Type, Type)> {
    let time = |ty: &Type| matches!(ty, Type::Timestamp | Type::Date | Type::Interval);
    let open = |value: &Typed| value.untyped || value.ty == Type::Null;
    let other = |ty: &Type| match op {
        Arithmetic::Add => Type::Interval,
        _ => ty.clone(),
    };
    if time(&left.ty) && open(right) && matches!(op, Arithmetic::Add | Arithmetic::Subtract) {
        return Some((left.ty.clone(), other(&left.ty)));
    }
    if time(&right.ty) && open(left) && matches!(op, Arithmetic::Add | Arithmetic::Subtract) {
        return Some((other(&right.ty), right.ty.clone()));
    }
    None
}
