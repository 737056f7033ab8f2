//! `${NAME}` and `${NAME:default}` in the scalars of a tree; `$${` stands for `${`.
//!
//! The environment is passed in. Positions are kept: a replaced part points at the `${...}` that it came from. Nothing
//! is replaced inside `tests`, where values are literals.

use std::borrow::Cow;

use super::diagnostic::{Code, Diagnostic, FileId, Severity};
use super::yaml::{Kind, Node, Scalar};

/// Looks a variable up.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Replaces in the whole document except in `tests`.
pub fn substitute(root: &mut Node, environment: Environment<'_>, file: FileId) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    if let Kind::Mapping(entries) = &mut root.kind {
        for entry in entries.iter_mut().filter(|entry| entry.key.text != "tests") {
            walk(&mut entry.value, environment, file, &mut problems);
        }
    }
    problems
}

fn walk(node: &mut Node, environment: Environment<'_>, file: FileId, problems: &mut Vec<Diagnostic>) {
    match &mut node.kind {
        Kind::Scalar(scalar) => replace(scalar, environment, file, problems),
        Kind::Sequence(items) => items.iter_mut().for_each(|item| walk(item, environment, file, problems)),
        Kind::Mapping(entries) => {
            for entry in entries {
                replace(&mut entry.key, environment, file, problems);
                walk(&mut entry.value, environment, file, problems);
            }
        }
    }
}

fn replace(scalar: &mut Scalar, environment: Environment<'_>, file: FileId, problems: &mut Vec<Diagnostic>) {
    if !scalar.text.contains("${") {
        return;
    }
    let mut problem = |span, message: String, help: Option<String>| {
        problems.push(Diagnostic {
            severity: Severity::Error,
            code: Code::Substitution,
            message,
            path: String::new(),
            file,
            span,
            help,
        });
    };
    let text = scalar.text.clone();
    let mut pieces: Vec<(Cow<'_, str>, std::ops::Range<usize>)> = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let open = at + found;
        if text[..open].ends_with('$') && open > at {
            pieces.push((Cow::Borrowed(&text[at..open - 1]), at..open - 1));
            pieces.push((Cow::Borrowed("${"), open..open + 2));
            at = open + 2;
            continue;
        }
        pieces.push((Cow::Borrowed(&text[at..open]), at..open));
        let Some(length) = text[open..].find('}') else {
            problem(
                scalar.place(open..text.len()),
                "`${` without its `}`".to_owned(),
                Some("write `$${` for the two characters themselves".to_owned()),
            );
            at = open;
            break;
        };
        let close = open + length + 1;
        let inside = &text[open + 2..close - 1];
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        let value = if is_name(name) {
            environment(name).or_else(|| default.map(str::to_owned))
        } else {
            problem(scalar.place(open..close), format!("`{name}` is not the name of a variable"), None);
            Some(String::new())
        };
        if let Some(value) = value {
            pieces.push((Cow::Owned(value), open..close));
        } else {
            // Something that is likely to pass, so that this is the only complaint.
            pieces.push((Cow::Owned(name.to_owned()), open..close));
            problem(
                scalar.place(open..close),
                format!("the environment variable `{name}` is not set"),
                Some(format!("set it, or give a default: ${{{name}:value}}")),
            );
        }
        at = close;
    }
    pieces.push((Cow::Borrowed(&text[at..]), at..text.len()));
    *scalar = scalar.rewritten(&pieces);
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::yaml::parse;
    use super::*;

    fn substituted(text: &str) -> (String, Vec<Diagnostic>) {
        let (root, problems) = parse(text, FileId(0));
        assert!(problems.is_empty());
        let mut root = root.unwrap();
        let environment = |name: &str| (name == "TOPIC").then(|| "orders".to_owned());
        let problems = substitute(&mut root, &environment, FileId(0));
        (root.to_json()["a"].as_str().unwrap_or_default().to_owned(), problems)
    }

    #[test]
    fn a_variable_and_a_default_are_filled_in() {
        assert_eq!(substituted("a: x.${TOPIC}.y").0, "x.orders.y");
        assert_eq!(substituted("a: x.${NONE:z}.y").0, "x.z.y");
        assert_eq!(substituted("a: x.$${TOPIC}.y").0, "x.${TOPIC}.y");
        assert_eq!(substituted("a: $${X}${TOPIC}").0, "${X}orders");
    }

    #[test]
    fn an_unset_variable_is_an_error_at_its_place() {
        let (_, problems) = substituted("a: x.${NONE}.y");
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].span, 5..12);
        assert_eq!(substituted("a: x.${NONE").1.len(), 1);
    }

    #[test]
    fn places_behind_a_replacement_are_kept() {
        let text = "a: ${TOPIC} = bad";
        let mut root = parse(text, FileId(0)).0.unwrap();
        let environment = |_: &str| Some("a_much_longer_name".to_owned());
        substitute(&mut root, &environment, FileId(0));
        let Kind::Mapping(entries) = &root.kind else { panic!() };
        let scalar = entries[0].value.as_scalar().unwrap();
        let at = scalar.text.find("bad").unwrap();
        assert_eq!(&text[scalar.place(at..at + 3)], "bad");
        assert_eq!(&text[scalar.place(0..1)], "$");
    }

    #[test]
    fn tests_are_left_alone() {
        let mut root = parse("tests: ['${X}']", FileId(0)).0.unwrap();
        assert!(substitute(&mut root, &|_| None, FileId(0)).is_empty());
    }
}
