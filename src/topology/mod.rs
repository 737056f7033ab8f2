//! A topology file, checked and planned: YAML -> document -> plan, with every mistake reported at once.
//!
//! ```text
//! text --yaml--> tree --substitute--> tree --read--> Document --planner--> Plan
//! ```
//! Each arrow is a module; each adds to one list of diagnostics, and the plan is there only if none is an error.

pub mod diagnostic;
pub mod document;
mod fingerprint;
pub mod graph;
pub mod plan;
mod planner;
mod read;
pub mod schema;
mod substitute;
pub mod yaml;

use std::path::Path;
use std::sync::Arc;

use diagnostic::{Code, FileId, SourceFile};
pub use diagnostic::{Diagnostic, Diagnostics, Look, Severity};
pub use document::Document;
pub use plan::Plan;
pub use planner::GeneratorPlan;
pub use substitute::Environment;

/// A topology that may run.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub plan: Plan,
    pub document: Document,
    /// What `dev` makes up input with.
    pub generators: Vec<GeneratorPlan>,
    /// Warnings only.
    pub warnings: Diagnostics,
}

/// A YAML text as JSON, plain scalars by YAML's core schema; `None` where it is not YAML.
pub fn yaml_to_json(text: &str) -> Option<serde_json::Value> {
    yaml::parse(text, FileId(0)).0.map(|tree| tree.to_json())
}

/// Loads a file, and the tests in `NAME.test.yaml` beside it if that exists.
///
/// # Errors
/// All mistakes, and what cannot be read.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Loaded, Diagnostics> {
    let text = read_file(path)?;
    let beside = path.with_extension("test.yaml");
    let tests = if beside.is_file() { Some((beside.display().to_string(), read_file(&beside)?)) } else { None };
    let tests = tests.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
    load_text(&path.display().to_string(), &text, tests, environment)
}

fn read_file(path: &Path) -> Result<String, Diagnostics> {
    std::fs::read_to_string(path).map_err(|error| {
        let name: Arc<str> = Arc::from(path.display().to_string());
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            code: Code::Yaml,
            message: format!("cannot read {name}: {error}"),
            path: String::new(),
            file: FileId(0),
            span: 0..0,
            help: None,
        };
        Diagnostics { files: vec![SourceFile { name, text: Arc::from("") }], list: vec![diagnostic] }
    })
}

/// Loads a topology from text. `tests`: the name and text of a file of tests beside it.
///
/// # Errors
/// All mistakes.
pub fn load_text(
    name: &str,
    text: &str,
    tests: Option<(&str, &str)>,
    environment: Environment<'_>,
) -> Result<Loaded, Diagnostics> {
    let main = FileId(0);
    let mut files = vec![SourceFile { name: Arc::from(name), text: Arc::from(text) }];
    let (tree, mut problems) = yaml::parse(text, main);
    let mut trees = [None, None];
    let mut document = None;
    if let Some(mut tree) = tree {
        problems.extend(substitute::substitute(&mut tree, environment, main));
        document = read::document(&tree, main, &mut problems);
        trees[0] = Some(tree);
    } else if problems.is_empty() {
        problems.push(Diagnostic {
            severity: Severity::Error,
            code: Code::Yaml,
            message: "the file is empty".to_owned(),
            path: String::new(),
            file: main,
            span: 0..0,
            help: Some("a topology begins with `version: 1` and `name: ...`".to_owned()),
        });
    }
    if let Some((name, text)) = tests {
        let beside = FileId(1);
        files.push(SourceFile { name: Arc::from(name), text: Arc::from(text) });
        let (tree, more) = yaml::parse(text, beside);
        problems.extend(more);
        if let Some(tree) = tree {
            let cases = read::test_file(&tree, beside, &mut problems);
            if let Some(document) = &mut document {
                document.tests.extend(cases);
            }
            trees[1] = Some(tree);
        }
    }
    let planned = document.as_ref().and_then(|document| planner::plan(document, text, &mut problems));

    // What is unused or unbounded says little while something is wrong.
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        problems.retain(|problem| !matches!(problem.code, Code::Unused | Code::UnboundedState));
    }
    for problem in &mut problems {
        if let Some(Some(tree)) = trees.get(usize::from(problem.file.0)) {
            problem.path = tree.path_of(&problem.span);
        }
    }
    problems.sort_by_key(|problem| (problem.file, problem.span.start, problem.severity));
    problems.dedup();
    let diagnostics = Diagnostics { files, list: problems };
    match (planned, document) {
        (Some((plan, generators)), Some(document)) if !diagnostics.has_errors() => {
            Ok(Loaded { plan, document, generators, warnings: diagnostics })
        }
        _ => Err(diagnostics),
    }
}

#[cfg(test)]
mod tests;
