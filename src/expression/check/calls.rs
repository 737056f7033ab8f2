//! Function calls: which of a function's signatures the arguments fit.

use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::{Checker, Typed};
use crate::expression::aggregate;
use crate::expression::eval::{Node, Pseudo};
use crate::expression::functions::{self, Body, Function, Pattern, Signature, Special};
use crate::expression::suggest::did_you_mean;
use crate::expression::types::{self, is_number, with_article};
use crate::schema::Type;
use crate::value::{Decimal, Value};

impl Checker<'_> {
    pub(super) fn function(&mut self, call: &ast::Function, span: Range<usize>) -> Option<Typed> {
        let written = call.name.to_string();
        let name_span = self.source.range(sqlparser::ast::Spanned::span(&call.name));
        let name = written.to_uppercase();
        let FunctionArguments::List(list) = &call.args else {
            // `CURRENT_TIMESTAMP`, `CURRENT_USER`: words that PostgreSQL takes for functions.
            if name == "CURRENT_TIMESTAMP" {
                return self.now(span);
            }
            if let Some(ident) = call.name.0.first().and_then(ast::ObjectNamePart::as_ident) {
                return self.name(std::slice::from_ref(ident));
            }
            return self.problem(span, format!("`{written}` is not part of the language"), None);
        };
        if call.over.is_some() {
            let help = Some("use an `over:` step: {by: ..., range: 1h, aggregate: {...}}".to_owned());
            return self.problem(span, "window functions (OVER) are not part of the language", help);
        }
        if aggregate::is_aggregate(&name) {
            let message = format!("{name} is an aggregate: it stands under `aggregate:`");
            let help = Some("write aggregate: {name: ...} with group_by or over, and use that name here".to_owned());
            return self.problem(name_span, message, help);
        }
        if call.filter.is_some() || !call.within_group.is_empty() || list.duplicate_treatment.is_some() {
            let message = format!("{name} is not an aggregate: it takes no DISTINCT, FILTER or WITHIN GROUP");
            return self.problem(name_span, message, None);
        }
        let mut arguments = Vec::with_capacity(list.args.len());
        for argument in &list.args {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) = argument else {
                let message = format!("{name} takes plain expressions: no names, no `*`");
                return self.problem(name_span, message, None);
            };
            arguments.push(argument);
        }
        let Some(known) = functions::find(&name) else {
            let arguments: Vec<_> = arguments.iter().map(|argument| self.check(argument)).collect();
            drop(arguments);
            let help = functions::habit(&name)
                .map(str::to_owned)
                .or_else(|| did_you_mean(&name, functions::names()))
                .unwrap_or_else(|| "docs/functions.md lists the functions".to_owned());
            return self.problem(name_span, format!("unknown function `{written}`"), Some(help));
        };
        self.call(known, &arguments, span)
    }

    /// A call of a function of the table.
    pub(super) fn call(&mut self, name: &str, arguments: &[&Expr], span: Range<usize>) -> Option<Typed> {
        let arguments: Vec<Option<Typed>> = arguments.iter().map(|argument| self.check(argument)).collect();
        let arguments = arguments.into_iter().collect::<Option<Vec<_>>>()?;
        self.call_checked(name, arguments, span)
    }

    pub(super) fn call_checked(&mut self, name: &str, arguments: Vec<Typed>, span: Range<usize>) -> Option<Typed> {
        let candidates = functions::overloads(name);
        let fitting = candidates
            .iter()
            .filter_map(|(signature, function)| Some((cost(signature, &arguments)?, signature, function)))
            .min_by_key(|(cost, ..)| *cost);
        let Some((_, signature, function)) = fitting else {
            let given: Vec<String> = arguments.iter().map(|argument| argument.ty.to_string()).collect();
            let message = format!("{name} does not take ({})", given.join(", "));
            let known: Vec<&str> = candidates.iter().map(|(signature, _)| signature.text).collect();
            return self.problem(span, message, Some(format!("there is {}", known.join(" and "))));
        };
        if functions::is_random(name) {
            if !self.scope.allow_random {
                let help =
                    Some("random values are for `dev:` generators: a replay must give the same result".to_owned());
                return self.problem(span, format!("{name} is not allowed here"), help);
            }
            self.volatile = true;
        }
        match function.body {
            Body::Special(special) => self.special(special, name, arguments, span),
            Body::Strict(_) | Body::Lenient(_) => {
                let scale = scale_left(name, &arguments);
                let result = self.plain(signature, function, arguments, span.clone())?;
                match (&result.ty, scale) {
                    (Type::Decimal { precision, scale: full }, Some(scale)) if scale < *full => {
                        let ty = Type::Decimal { precision: precision - (full - scale), scale };
                        self.cast_to(result, &ty, false, span)
                    }
                    _ => Some(result),
                }
            }
        }
    }

    fn plain(
        &mut self,
        signature: &Signature,
        function: &Function,
        arguments: Vec<Typed>,
        span: Range<usize>,
    ) -> Option<Typed> {
        let bound = bind(signature, &arguments);
        let mut nodes = Vec::with_capacity(arguments.len());
        let mut nullable = false;
        for (index, argument) in arguments.into_iter().enumerate() {
            nullable |= argument.nullable;
            let to = match signature.pattern(index) {
                Pattern::Exact(ty) => ty.clone(),
                Pattern::T => bound.clone(),
                Pattern::ArrayT => Type::Array(Arc::new(bound.clone())),
                Pattern::MapT => Type::Map(Arc::new(bound.clone())),
                Pattern::Number | Pattern::Decimal if argument.ty == Type::Null => Type::Double,
                Pattern::Number | Pattern::Decimal | Pattern::Any => argument.ty.clone(),
            };
            nodes.push(self.coerce(argument, &to)?.node);
        }
        let ty = match &signature.returns {
            Pattern::Exact(ty) => ty.clone(),
            Pattern::T | Pattern::Any => bound,
            Pattern::ArrayT => Type::Array(Arc::new(bound)),
            Pattern::MapT => Type::Map(Arc::new(bound)),
            // Rounding up may need one digit more.
            Pattern::Number | Pattern::Decimal => match bound {
                Type::Decimal { precision, scale } => {
                    Type::Decimal { precision: (precision + 1).min(Decimal::MAX_PRECISION), scale }
                }
                other => other,
            },
        };
        let (implementation, strict) = match function.body {
            Body::Strict(implementation) => (implementation, true),
            Body::Lenient(implementation) => (implementation, false),
            Body::Special(_) => return None,
        };
        let nullable = signature.nullable || (strict && nullable);
        let node = Node::Call { name: signature.name, implementation, strict, arguments: nodes.into() };
        Some(Typed::new(node, ty, nullable, span))
    }

    fn special(
        &mut self,
        special: Special,
        name: &str,
        mut arguments: Vec<Typed>,
        span: Range<usize>,
    ) -> Option<Typed> {
        match special {
            Special::Now => self.now(span),
            Special::Coalesce => {
                let nullable = arguments.iter().all(|argument| argument.nullable);
                let (arguments, ty) = self.unify_all(arguments, "return from one COALESCE")?;
                let nodes = arguments.into_iter().map(|argument| argument.node).collect();
                Some(Typed::new(Node::Coalesce(nodes), ty, nullable, span))
            }
            Special::Extremum(implementation) => {
                let nullable = arguments.iter().all(|argument| argument.nullable);
                let (arguments, ty) = self.unify_all(arguments, "compare")?;
                if matches!(ty, Type::Json | Type::Map(_) | Type::Struct(_)) {
                    return self.problem(span, format!("{} has no order", with_article(&ty)), None);
                }
                let name = if name == "GREATEST" { "GREATEST" } else { "LEAST" };
                Some(Typed { nullable, ..Self::lenient(name, implementation, arguments, ty, span) })
            }
            Special::NullIf => {
                let b = arguments.pop()?;
                let a = arguments.pop()?;
                self.null_if(a, b, span)
            }
            Special::Concat => {
                let texts: Vec<Typed> = arguments.into_iter().map(Self::as_text).collect();
                Some(Self::lenient("CONCAT", functions::text::concat, texts, Type::String, span))
            }
            Special::ConcatWs => {
                let separator_nullable = arguments.first().is_some_and(|separator| separator.nullable);
                let texts: Vec<Typed> = arguments.into_iter().map(Self::as_text).collect();
                let call = Self::lenient("CONCAT_WS", functions::text::concat_ws, texts, Type::String, span);
                Some(Typed { nullable: separator_nullable, ..call })
            }
            Special::ToJson => {
                let value = arguments.pop()?;
                let untyped = Typed { untyped: false, ..value };
                if untyped.ty == Type::String {
                    let node = Self::strict("TO_JSON", functions::json::text_to_json, vec![untyped], Type::Json, span);
                    return Some(node);
                }
                self.cast_to(untyped, &Type::Json, false, span)
            }
            Special::DatePart => {
                let value = arguments.pop()?;
                let field = arguments.pop()?;
                let Some(field) = field.text().map(str::to_owned) else {
                    return self.problem(field.span, format!("{name} takes the part as a literal: 'hour'"), None);
                };
                self.extract_field(&field, value, span)
            }
            Special::DateTrunc => self.date_trunc(arguments, span),
            Special::RandomChoice => {
                let (arguments, ty) = self.unify_all(arguments, "choose between")?;
                let nullable = arguments.iter().any(|argument| argument.nullable);
                let call = Self::lenient("RANDOM_CHOICE", functions::random::choice, arguments, ty, span);
                Some(Typed { nullable, ..call })
            }
            Special::TryParseJson => {
                let value = arguments.pop()?;
                let value = self.coerce(value, &Type::String)?;
                let attempt = name == "TRY_PARSE_JSON";
                self.cast_to(Typed { untyped: false, ..value }, &Type::Json, attempt, span)
            }
        }
    }

    fn now(&mut self, span: Range<usize>) -> Option<Typed> {
        if !self.scope.allow_now {
            let help = Some("use the record's time: _timestamp, or a column".to_owned());
            let message = "NOW() is not allowed here: the value must be the same when the record is read again";
            return self.problem(span, message, help);
        }
        self.volatile = true;
        Some(Typed::new(Node::Pseudo(Pseudo::Now), Type::Timestamp, false, span))
    }

    fn date_trunc(&mut self, arguments: Vec<Typed>, span: Range<usize>) -> Option<Typed> {
        let mut arguments = arguments.into_iter();
        let (unit, value, zone) = (arguments.next()?, arguments.next()?, arguments.next());
        let Some(name) = unit.text().map(str::to_owned) else {
            return self.problem(unit.span, "DATE_TRUNC takes the unit as a literal: 'hour'", None);
        };
        let field = self.time_field(&name, &unit.span)?;
        if matches!(super::calendar::truncate(field, jiff::civil::DateTime::default()), Ok(None)) {
            let message = format!("`{name}` is not a unit to truncate to");
            let help = Some("write 'hour', 'day', 'week', 'month' ...".to_owned());
            return self.problem(unit.span, message, help);
        }
        let value = self.coerce(value, &Type::Timestamp)?;
        let zone = match zone {
            Some(zone) => Some(self.zone(zone)?),
            None => None,
        };
        let nullable = value.nullable || zone.as_ref().is_some_and(|zone| zone.nullable);
        let zone = zone.map(|zone| Box::new(zone.node));
        let node = Node::Truncate { field, value: Box::new(value.node), zone };
        Some(Typed::new(node, Type::Timestamp, nullable, span))
    }

    /// A time zone; a literal is looked up now.
    fn zone(&mut self, zone: Typed) -> Option<Typed> {
        let zone = self.coerce(zone, &Type::String)?;
        if let Some(name) = zone.text()
            && super::calendar::time_zone(name).is_err()
        {
            let message = format!("unknown time zone '{name}'");
            return self.problem(zone.span, message, Some("write a name like 'Europe/Berlin', or '+02:00'".into()));
        }
        Some(zone)
    }
}

/// The digits after the point that a rounded DECIMAL has left, where that is known: as many as PostgreSQL shows.
fn scale_left(name: &str, arguments: &[Typed]) -> Option<u8> {
    let whole = matches!(name, "CEIL" | "CEILING" | "FLOOR");
    let dropping = matches!(name, "ROUND" | "TRUNC");
    match arguments {
        [_] if whole || dropping => Some(0),
        [_, digits] if dropping => {
            let digits = match digits.node {
                Node::Literal(Value::Int(digits)) => i64::from(digits),
                Node::Literal(Value::Bigint(digits)) => digits,
                _ => return None,
            };
            Some(u8::try_from(digits.max(0)).unwrap_or(u8::MAX))
        }
        _ => None,
    }
}

/// How far the arguments are from a signature; `None` where they do not fit.
fn cost(signature: &Signature, arguments: &[Typed]) -> Option<u32> {
    if !signature.takes(arguments.len()) {
        return None;
    }
    let bound = bind(signature, arguments);
    let mut total = 0;
    for (index, argument) in arguments.iter().enumerate() {
        let convert = |to: &Type| -> Option<u32> {
            if argument.ty == *to {
                return Some(0);
            }
            if argument.ty == Type::Null {
                return Some(1);
            }
            if argument.untyped {
                return argument.text().filter(|text| literal_fits(text, to)).map(|_| 3);
            }
            types::converts(&argument.ty, to).then_some(match to {
                Type::Double => 2,
                _ => 1,
            })
        };
        total += match signature.pattern(index) {
            Pattern::Exact(ty) => convert(ty)?,
            Pattern::Any => 1,
            Pattern::Number if is_number(&argument.ty) || argument.ty == Type::Null => 0,
            Pattern::Decimal if matches!(argument.ty, Type::Decimal { .. }) => 0,
            Pattern::Number | Pattern::Decimal => return None,
            Pattern::T => 1 + convert(&bound)?,
            Pattern::ArrayT => 1 + convert(&Type::Array(Arc::new(bound.clone())))?,
            Pattern::MapT => 1 + convert(&Type::Map(Arc::new(bound.clone())))?,
        };
    }
    Some(total)
}

fn literal_fits(text: &str, to: &Type) -> bool {
    use crate::expression::cast;
    cast::castable(&Type::String, to) && cast::cast(&crate::value::Value::string(text), &Type::String, to).is_ok()
}

/// What `T` stands for, or the type of the first NUMBER.
fn bind(signature: &Signature, arguments: &[Typed]) -> Type {
    let mut bound = Type::Null;
    let mut untyped = false;
    for (index, argument) in arguments.iter().enumerate() {
        let part = match (signature.pattern(index), &argument.ty) {
            (Pattern::T, _) if argument.untyped => {
                untyped = true;
                continue;
            }
            (Pattern::T | Pattern::Number | Pattern::Decimal, ty) => ty.clone(),
            (Pattern::ArrayT, Type::Array(element)) => (**element).clone(),
            (Pattern::MapT, Type::Map(value)) => (**value).clone(),
            _ => continue,
        };
        bound = types::common(&bound, &part).unwrap_or(bound);
    }
    if bound == Type::Null && untyped { Type::String } else { bound }
}
