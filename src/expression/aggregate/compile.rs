//! From the text of an aggregate call to its compiled form.

use std::ops::Range;

use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned};

use super::call::{Call, End, Kind};
use super::{AggregateSet, Retraction};
use crate::expression::check::{Checker, Typed};
use crate::expression::parse::{self, Source};
use crate::expression::suggest::did_you_mean;
use crate::expression::types::with_article;
use crate::expression::{Expression, Problem, Scope};
use crate::schema::Type;
use crate::value::Decimal;

/// What there is, with what it does.
const SIGNATURES: [(&str, &str); 11] = [
    ("COUNT(*) -> BIGINT", "Number of rows."),
    ("COUNT(x ANY) -> BIGINT", "Number of rows whose x is not NULL."),
    (
        "SUM(x NUMBER) -> NUMBER",
        "BIGINT of INT and BIGINT (overflow is an error), DECIMAL(38,s) of DECIMAL, DOUBLE of DOUBLE (compensated).",
    ),
    ("AVG(x NUMBER) -> DOUBLE", "The mean; DECIMAL of DECIMAL, with four digits more."),
    ("MIN(x T) -> T", "The least."),
    ("MAX(x T) -> T", "The greatest."),
    ("FIRST(x T) -> T", "That of the earliest event time."),
    ("LAST(x T) -> T", "That of the latest event time; of equal times the last to arrive (of a table the greatest)."),
    ("ARG_MIN(x T, by ANY) -> T", "x of the row with the least `by`."),
    ("ARG_MAX(x T, by ANY) -> T", "x of the row with the greatest `by`."),
    (
        "LAG(x T [, n INT [, default T]]) -> T",
        "In `over` only: x of the n-th record before by event time (1 without n), else the default.",
    ),
];

const SUPPORTED: [&str; 10] = ["COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "ARG_MIN", "ARG_MAX", "LAG"];

/// Of the language, and to come.
const LATER: [&str; 12] = [
    "STDDEV_POP",
    "STDDEV_SAMP",
    "VAR_POP",
    "VAR_SAMP",
    "BOOL_AND",
    "BOOL_OR",
    "APPROX_COUNT_DISTINCT",
    "APPROX_PERCENTILE",
    "HISTOGRAM",
    "TOP_K",
    "COLLECT_LIST",
    "COLLECT_SET",
];

/// The aggregates by their signatures, with what they do.
pub fn signatures() -> impl Iterator<Item = (&'static str, &'static str)> {
    SIGNATURES.into_iter()
}

/// Whether a function's name, in capitals, is that of an aggregate, supported or not.
pub fn is_aggregate(name: &str) -> bool {
    SUPPORTED.contains(&name) || LATER.contains(&name)
}

fn habit(name: &str) -> Option<&'static str> {
    Some(match name {
        "FIRST_VALUE" | "EARLIEST_BY_OFFSET" | "EARLIEST" => "write FIRST(x)",
        "LAST_VALUE" | "LATEST_BY_OFFSET" | "LATEST" | "ANY_VALUE" => "write LAST(x)",
        "MAX_BY" | "ARGMAX" => "write ARG_MAX(x, by)",
        "MIN_BY" | "ARGMIN" => "write ARG_MIN(x, by)",
        "MEAN" | "AVERAGE" => "write AVG(x)",
        "COUNT_IF" | "COUNTIF" => "write COUNT(*) FILTER (WHERE ...)",
        _ => return None,
    })
}

pub fn set(
    calls: &[(&str, &str)],
    scope: &Scope,
    retraction: Retraction,
) -> Result<AggregateSet, Vec<(usize, Problem)>> {
    let mut compiled = Vec::new();
    let mut problems = Vec::new();
    for (index, (name, text)) in calls.iter().enumerate() {
        match aggregate(text, scope, retraction) {
            Ok(Parsed::Aggregate(call)) => compiled.push(((*name).to_owned(), call)),
            Ok(Parsed::Lag(lag)) => {
                let message = "LAG looks at single records: it stands under `over:` only".to_owned();
                let help = Some("use an `over:` step: {by: ..., aggregate: {last: LAG(x)}}".to_owned());
                problems.push((index, Problem::new(lag.span, message, help)));
            }
            Err(more) => problems.extend(more.into_iter().map(|problem| (index, problem))),
        }
    }
    if problems.is_empty() { Ok(AggregateSet::new(compiled)) } else { Err(problems) }
}

pub enum Parsed {
    Aggregate(Call),
    Lag(Lag),
}

/// `LAG(value, n, default)`.
pub struct Lag {
    pub value: Expression,
    pub n: usize,
    pub default: Option<Expression>,
    pub span: Range<usize>,
}

/// One call, all of the text.
pub fn aggregate(text: &str, scope: &Scope, retraction: Retraction) -> Result<Parsed, Vec<Problem>> {
    let mut checker = Checker::new(text, scope);
    let syntax = parse::expression(checker.source)?;
    let parsed = Compiler { checker: &mut checker, text, retraction }.call(&syntax);
    match parsed {
        Some(parsed) if checker.problems.is_empty() => Ok(parsed),
        _ => Err(checker.into_problems()),
    }
}

/// What is wrong with a call whatever columns there are: its syntax, and which function it names.
pub fn check_aggregate_syntax(text: &str) -> Vec<Problem> {
    let scope = Scope::default();
    let mut checker = Checker::new(text, &scope);
    match parse::expression(checker.source) {
        Err(problems) => problems,
        Ok(syntax) => {
            let known = Compiler { checker: &mut checker, text, retraction: Retraction::Never }.function(&syntax);
            if known.is_some() { Vec::new() } else { checker.into_problems() }
        }
    }
}

struct Compiler<'c, 'a> {
    checker: &'c mut Checker<'a>,
    text: &'a str,
    retraction: Retraction,
}

impl Compiler<'_, '_> {
    /// The function that is called, one that there is, with its name in capitals and where that stands.
    fn function<'e>(&mut self, syntax: &'e Expr) -> Option<(&'e ast::Function, String, Range<usize>)> {
        let span = self.checker.source.of(syntax);
        let Expr::Function(function) = syntax else {
            let help = "put one aggregate per name here, and compute with the names in `select:` or `having:`";
            return self.checker.problem(span, "expected an aggregate, like COUNT(*) or SUM(x)", Some(help.to_owned()));
        };
        let name = function.name.to_string().to_uppercase();
        let name_span = self.checker.source.range(function.name.span());
        if LATER.contains(&name.as_str()) {
            return self.checker.lacking(name_span, &name);
        }
        if !SUPPORTED.contains(&name.as_str()) {
            let help = habit(&name)
                .map(str::to_owned)
                .or_else(|| did_you_mean(&name, SUPPORTED.into_iter().chain(LATER)))
                .unwrap_or_else(|| format!("there are {}", SUPPORTED.join(" ")));
            return self.checker.problem(name_span, format!("unknown aggregate `{}`", function.name), Some(help));
        }
        Some((function, name, name_span))
    }

    fn call(&mut self, syntax: &Expr) -> Option<Parsed> {
        let span = self.checker.source.of(syntax);
        let (function, name, name_span) = self.function(syntax)?;
        let FunctionArguments::List(list) = &function.args else {
            return self.checker.problem(span, format!("{name} needs its brackets: {name}(...)"), None);
        };
        if function.over.is_some() {
            let help = Some("use an `over:` step: {by: ..., range: 1h, aggregate: {...}}".to_owned());
            return self.checker.problem(span, "window functions (OVER) are not part of the language", help);
        }
        if list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct) {
            return self.checker.lacking(name_span, &format!("{name}(DISTINCT ...)"));
        }
        if !list.clauses.is_empty() || !function.within_group.is_empty() || function.null_treatment.is_some() {
            let help = Some("FIRST and LAST go by event time; FILTER (WHERE ...) chooses rows".to_owned());
            return self.checker.problem(span, format!("{name} takes only its arguments and FILTER"), help);
        }
        let filter = match &function.filter {
            Some(filter) => {
                let typed = self.checker.boolean(filter);
                Some(self.expression(typed, filter))
            }
            None => None,
        };
        if name == "LAG" {
            if filter.is_some() {
                return self.checker.problem(span, "LAG takes no FILTER", None);
            }
            return self.lag(&list.args, span).map(Parsed::Lag);
        }
        let call = self.arguments(&name, &list.args, &span);
        let filter = match filter {
            Some(filter) => Some(filter?),
            None => None,
        };
        Some(Parsed::Aggregate(Call { filter, ..call? }))
    }

    /// With the text that it has in the call, where that is all of it: the parser knows the places of some forms in part
    /// only (of `CAST(a AS DOUBLE)` it is `a`). What is kept for `over` is named by it, so that one text must not stand
    /// for two expressions.
    fn expression(&self, typed: Option<Typed>, syntax: &Expr) -> Option<Expression> {
        let typed = typed?;
        let cut = self.text.get(typed.span.clone()).unwrap_or(self.text);
        let is_whole = parse::expression(Source::new(cut)).is_ok_and(|parsed| parsed == *syntax);
        let text = if is_whole { cut.to_owned() } else { syntax.to_string() };
        Some(Expression::new(typed, self.checker.volatile, &text))
    }

    fn arguments(&mut self, name: &str, arguments: &[FunctionArg], span: &Range<usize>) -> Option<Call> {
        let call =
            |kind, argument, by| Call { kind, argument, by, filter: None, retraction: self.retraction, first: 0 };
        if name == "COUNT" && matches!(arguments, [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]) {
            return Some(call(Kind::Count, None, None));
        }
        let plain: Option<Vec<&Expr>> = arguments.iter().map(plain).collect();
        let expected = if name.starts_with("ARG_") { 2 } else { 1 };
        let Some(plain) = plain.filter(|plain| plain.len() == expected) else {
            let form = match name {
                "COUNT" => "COUNT(*) or COUNT(x)".to_owned(),
                "ARG_MIN" | "ARG_MAX" => format!("{name}(x, by)"),
                _ => format!("{name}(x)"),
            };
            return self.checker.problem(span.clone(), format!("expected {form}"), None);
        };
        let checked: Vec<Option<Typed>> = plain.iter().map(|argument| self.checker.check(argument)).collect();
        let mut checked = checked.into_iter().collect::<Option<Vec<_>>>()?;
        let by = if expected == 2 { checked.pop() } else { None };
        let argument = checked.pop()?;
        if argument.ty == Type::Null {
            let help = Some("say its type: CAST(NULL AS BIGINT)".to_owned());
            return self.checker.problem(argument.span, "a bare NULL has no type", help);
        }
        if let Some(by) = &by {
            self.ordered(by)?;
        }
        let kind = self.kind(name, &argument)?;
        let argument = self.expression(Some(argument), plain[0]);
        let by = match (by, plain.get(1)) {
            (Some(by), Some(syntax)) => Some(self.expression(Some(by), syntax)?),
            _ => None,
        };
        let retraction = self.retraction;
        Some(Call { kind, argument: Some(argument?), by, filter: None, retraction, first: 0 })
    }

    fn kind(&mut self, name: &str, argument: &Typed) -> Option<Kind> {
        Some(match (name, &argument.ty) {
            ("COUNT", _) => Kind::Count,
            ("SUM", Type::Int | Type::Bigint) => Kind::SumInteger,
            ("SUM", Type::Decimal { scale, .. }) => Kind::SumDecimal { scale: *scale },
            ("SUM", Type::Double) => Kind::SumDouble,
            ("AVG", Type::Int | Type::Bigint) => Kind::AverageInteger,
            ("AVG", Type::Decimal { precision, scale }) => {
                // As Spark: four digits more, of 38 in all.
                let whole = precision - scale;
                let result_scale = (scale + 4).min(Decimal::MAX_PRECISION - whole).max(*scale);
                let precision = (whole + result_scale).min(Decimal::MAX_PRECISION);
                Kind::AverageDecimal { sum_scale: *scale, precision, scale: result_scale }
            }
            ("AVG", Type::Double) => Kind::AverageDouble,
            ("SUM" | "AVG", other) => {
                let message = format!("{name} takes a number, found {}", with_article(other));
                let help = match other {
                    Type::Interval => Some("EXTRACT(EPOCH FROM interval) gives its seconds".to_owned()),
                    Type::Boolean => Some("count with COUNT(*) FILTER (WHERE ...)".to_owned()),
                    Type::String | Type::Json => Some("convert it: CAST(... AS DOUBLE)".to_owned()),
                    _ => None,
                };
                return self.checker.problem(argument.span.clone(), message, help);
            }
            ("MIN" | "MAX", _) => {
                self.ordered(argument)?;
                Kind::Extreme(if name == "MIN" { End::Least } else { End::Greatest })
            }
            ("FIRST", _) => Kind::Edge(End::Least),
            ("LAST", _) => Kind::Edge(End::Greatest),
            ("ARG_MIN", _) => Kind::Argument(End::Least),
            ("ARG_MAX", _) => Kind::Argument(End::Greatest),
            _ => return None,
        })
    }

    fn ordered(&mut self, value: &Typed) -> Option<()> {
        if matches!(value.ty, Type::Json | Type::Map(_) | Type::Struct(_) | Type::Null) {
            let message = format!("{} has no order", with_article(&value.ty));
            return self.checker.problem(value.span.clone(), message, None);
        }
        Some(())
    }

    fn lag(&mut self, arguments: &[FunctionArg], span: Range<usize>) -> Option<Lag> {
        /// All records up to that one are kept, for every key.
        const MOST: i64 = 10_000;
        let plain: Option<Vec<&Expr>> = arguments.iter().map(plain).collect();
        let Some(plain) = plain.filter(|plain| (1..=3).contains(&plain.len())) else {
            return self.checker.problem(span, "expected LAG(x), LAG(x, n) or LAG(x, n, default)", None);
        };
        let checked: Vec<Option<Typed>> = plain.iter().map(|argument| self.checker.check(argument)).collect();
        let mut checked = checked.into_iter().collect::<Option<Vec<_>>>()?.into_iter();
        let (value, n, default) = (checked.next()?, checked.next(), checked.next());
        if value.ty == Type::Null {
            let help = Some("say its type: CAST(NULL AS BIGINT)".to_owned());
            return self.checker.problem(value.span, "a bare NULL has no type", help);
        }
        let n = match n {
            None => 1,
            Some(n) => {
                let literal = match &n.node {
                    crate::expression::eval::Node::Literal(value) => crate::expression::eval::as_i64(value),
                    _ => None,
                };
                let Some(records @ 1..=MOST) = literal else {
                    let message = format!("LAG looks back a constant number of records, 1 to {MOST}");
                    return self.checker.problem(n.span, message, None);
                };
                usize::try_from(records).ok()?
            }
        };
        let default = match default {
            Some(default) => {
                let (ty, own) = (value.ty.clone(), default.ty.clone());
                let default = self.checker.coerce(default, &ty);
                let mut default = self.expression(default, plain[2])?;
                if default.ty != own {
                    // Kept beside the same expression as it is: a name that no expression has.
                    default.text = format!("{} AS {ty}", default.text).into();
                }
                Some(default)
            }
            None => None,
        };
        let value = self.expression(Some(value), plain[0])?;
        Some(Lag { value, n, default, span })
    }
}

fn plain(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}
