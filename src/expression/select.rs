//! Select lists: `*`, `a.*`, `* EXCEPT (a, b)`, `expr AS name`, bare columns.

use std::ops::Range;
use std::sync::Arc;

use sqlparser::ast::{self, Spanned};

use super::check::{Checker, default_name};
use super::parse::{self, Source};
use super::suggest::nearest;
use super::{Expression, Problem, Scope, ScopeColumn};
use crate::schema::Type;

/// One column of a select list.
#[derive(Clone, Debug)]
pub struct SelectItem {
    pub name: Arc<str>,
    pub expression: Expression,
    /// Where it stands in the text (the whole `*` for a column that came from one).
    pub span: Range<usize>,
}

/// Compiles a select list: `*`, `a.*`, `* EXCEPT (a, b)`, `expr AS name`, bare columns. A name that stands twice is a
/// problem. An expression that is neither a column nor a function call needs `AS`.
pub fn compile_select(text: &str, scope: &Scope) -> Result<Vec<SelectItem>, Vec<Problem>> {
    let source = Source::new(text);
    let syntax = parse::select_list(source)?;
    let mut items: Vec<SelectItem> = Vec::new();
    let mut problems = Vec::new();
    for item in &syntax {
        match compile_item(item, source, scope) {
            Ok(new) => items.extend(new),
            Err(more) => problems.extend(more),
        }
    }
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|earlier| earlier.name == item.name) {
            let help = "give one of them another name with AS, or leave it out with * EXCEPT (...)".to_owned();
            let message = format!("column `{}` stands twice", item.name);
            problems.push(Problem::new(item.span.clone(), message, Some(help)));
        }
    }
    if problems.is_empty() { Ok(items) } else { Err(problems) }
}

fn compile_item(item: &ast::SelectItem, source: Source<'_>, scope: &Scope) -> Result<Vec<SelectItem>, Vec<Problem>> {
    match item {
        ast::SelectItem::UnnamedExpr(expr) => {
            let Some(name) = default_name(expr) else {
                let mut problems = compile_expr(expr, source, scope).err().unwrap_or_default();
                let message = "this expression needs a name".to_owned();
                let help = Some("write it as: expression AS name".to_owned());
                problems.push(Problem::new(source.of(expr), message, help));
                return Err(problems);
            };
            let expression = compile_expr(expr, source, scope)?;
            Ok(vec![SelectItem { name: Arc::from(name), expression, span: source.of(expr) }])
        }
        ast::SelectItem::ExprWithAlias { expr, alias } => {
            let (expr_span, alias_span) = (source.of(expr), source.range(alias.span));
            if !parse::has_as(source, &expr_span, &alias_span) {
                let message = format!("`{}` stands beside an expression", alias.value);
                let help = Some(format!("write `AS {}`, or a comma before it", alias.value));
                return Err(vec![Problem::new(alias_span, message, help)]);
            }
            let expression = compile_expr(expr, source, scope)?;
            let span = expr_span.start..alias_span.end.max(expr_span.end);
            Ok(vec![SelectItem { name: Arc::from(alias.value.as_str()), expression, span }])
        }
        ast::SelectItem::Wildcard(options) => {
            let span = source.range(options.wildcard_token.0.span);
            let columns = scope.columns.iter().filter(|column| !column.hidden).collect();
            wildcard(columns, options, source, span)
        }
        ast::SelectItem::QualifiedWildcard(kind, options) => {
            let span = source.of(kind);
            let ast::SelectItemQualifiedWildcardKind::ObjectName(name) = kind else {
                let message = "only an input's columns can be listed with `.*`".to_owned();
                return Err(vec![Problem::new(span, message, None)]);
            };
            let alias = match name.0.as_slice() {
                [part] => part.as_ident().map(|ident| ident.value.as_str()),
                _ => None,
            };
            let visible = scope.columns.iter().filter(|column| !column.hidden);
            let columns: Vec<_> = visible.filter(|column| column.qualifier.as_deref() == alias).collect();
            let Some(alias) = alias.filter(|_| !columns.is_empty()) else {
                let aliases = scope.columns.iter().filter_map(|column| column.qualifier.as_deref());
                let written = name.to_string();
                let help = nearest(&written, aliases).map(|near| format!("did you mean {near}.*?"));
                let message = format!("unknown input `{written}`");
                return Err(vec![Problem::new(span, message, help)]);
            };
            let end = span.start + alias.len();
            wildcard(columns, options, source, span.start..span.end.max(end))
        }
        ast::SelectItem::ExprWithAliases { .. } => {
            let message = "an expression has one name".to_owned();
            Err(vec![Problem::new(source.range(item.span()), message, None)])
        }
    }
}

fn compile_expr(expr: &ast::Expr, source: Source<'_>, scope: &Scope) -> Result<Expression, Vec<Problem>> {
    let mut checker = Checker::new(source.text, scope);
    let span = source.of(expr);
    let typed = checker.check(expr);
    if let Some(typed) = &typed
        && typed.ty == Type::Null
    {
        let help = Some("say its type: CAST(NULL AS STRING)".to_owned());
        checker.problem::<()>(span.clone(), "a bare NULL has no type", help);
    }
    let text = source.text.get(span).unwrap_or(source.text);
    match typed {
        Some(typed) if checker.problems.is_empty() => Ok(Expression::new(typed, checker.volatile, text)),
        _ => Err(checker.into_problems()),
    }
}

fn wildcard(
    columns: Vec<&ScopeColumn>,
    options: &ast::WildcardAdditionalOptions,
    source: Source<'_>,
    span: Range<usize>,
) -> Result<Vec<SelectItem>, Vec<Problem>> {
    let mut problems = Vec::new();
    let other = options.opt_ilike.is_some()
        || options.opt_replace.is_some()
        || options.opt_rename.is_some()
        || options.opt_alias.is_some();
    if other || options.opt_exclude.is_some() {
        let message = "after `*` there is only EXCEPT".to_owned();
        let help = Some("write * EXCEPT (a, b)".to_owned());
        return Err(vec![Problem::new(span, message, help)]);
    }
    let mut excepted: Vec<&str> = Vec::new();
    if let Some(except) = &options.opt_except {
        for name in std::iter::once(&except.first_element).chain(&except.additional_elements) {
            if columns.iter().any(|column| *column.column.name == *name.value) {
                excepted.push(&name.value);
                continue;
            }
            let names = columns.iter().map(|column| &*column.column.name);
            let help = nearest(&name.value, names).map(|near| format!("did you mean {near}?"));
            let message = format!("EXCEPT names `{}`, which is no column here", name.value);
            problems.push(Problem::new(source.range(name.span), message, help));
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let kept = columns.into_iter().filter(|column| !excepted.contains(&&*column.column.name));
    let items = kept.map(|column| SelectItem {
        name: Arc::clone(&column.column.name),
        expression: Expression::column(column.slot, &column.column),
        span: span.clone(),
    });
    Ok(items.collect())
}
