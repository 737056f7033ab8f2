//! Document -> plan: names, types and keys are resolved, and the graph of operators is laid out.
//!
//! 1. Names are checked; steps are put into an order in which each comes after its inputs.
//! 2. Each source becomes readers, each step a chain of nodes, clause by clause (one file per clause).
//! 3. The chains are cut into sub-topologies, and what is not needed is left undecoded (`finish`).
//!
//! Every mistake is reported and left out; a step whose columns cannot be known takes the steps that read it with it,
//! silently.

mod draft;
mod finish;
mod generator;
mod group;
mod join;
mod order;
mod output;
mod over;
mod repartition;
mod source;
mod stage;
mod step;
mod syntax;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::diagnostic::{Code, Diagnostic, FileId, Severity, Span, nearest};
use super::document::{Document, Scalar};
use super::plan::Plan;
use super::yaml::unbalanced;
use crate::expression::{Problem, ProblemKind};
use crate::ids::TopicName;
use draft::Draft;
pub use generator::GeneratorPlan;
use stage::Stage;

/// Plans a document. `None` where there are errors.
pub fn plan(document: &Document, text: &str, problems: &mut Vec<Diagnostic>) -> Option<(Plan, Vec<GeneratorPlan>)> {
    let mut planner = Planner {
        document,
        text,
        problems,
        draft: Draft::default(),
        relations: HashMap::new(),
        storage_names: HashMap::new(),
        keyed_ahead: HashSet::new(),
        tables: Vec::new(),
        read: HashSet::new(),
    };
    planner.run()
}

struct Planner<'d> {
    document: &'d Document,
    text: &'d str,
    problems: &'d mut Vec<Diagnostic>,
    draft: Draft,
    /// What each stream, table and step gives; `None` where it could not be planned.
    relations: HashMap<String, Option<Stage>>,
    /// The names under which steps keep their state, where they were renamed.
    storage_names: HashMap<String, String>,
    /// Steps whose `key_by` is followed by state in steps that read them.
    keyed_ahead: HashSet<String>,
    tables: Vec<super::plan::TablePlan>,
    /// Names that something reads.
    read: HashSet<String>,
}

impl Planner<'_> {
    fn run(&mut self) -> Option<(Plan, Vec<GeneratorPlan>)> {
        self.check_names();
        self.storage_names = self.renames();
        let order = self.order_steps();
        self.keyed_ahead = self.state_ahead();
        let document = self.document;
        for source in &document.sources {
            let stage = self.source(source);
            self.relations.insert(source.name.text.clone(), stage);
        }
        for index in order {
            let step = &document.steps[index];
            for join in &step.joins {
                // Unknown ones are told together, whatever else keeps the step from being planned.
                self.relation(&join.with.text, &join.with.span);
            }
            let stage = self.step(step);
            if stage.is_none() {
                self.syntax(step);
            }
            self.relations.insert(step.name.text.clone(), stage);
        }
        self.warn_unused();
        self.check_references_of_tests();
        let generators = self.generators();
        if self.problems.iter().any(|problem| problem.severity == Severity::Error) {
            return None;
        }
        let plan = self.finish();
        if self.problems.iter().any(|problem| problem.severity == Severity::Error) {
            return None;
        }
        Some((plan, generators))
    }

    // ---- reporting ---------------------------------------------------------------------------------------------------

    fn report(
        &mut self,
        severity: Severity,
        code: Code,
        span: &Span,
        message: impl Into<String>,
        help: Option<String>,
    ) {
        let diagnostic = Diagnostic {
            severity,
            code,
            message: message.into(),
            path: String::new(),
            file: FileId(0),
            span: span.clone(),
            help,
        };
        // The same `by` stands in several clauses: say it once.
        if !self.problems.contains(&diagnostic) {
            self.problems.push(diagnostic);
        }
    }

    fn error(&mut self, code: Code, span: &Span, message: impl Into<String>, help: Option<&str>) {
        self.report(Severity::Error, code, span, message, help.map(str::to_owned));
    }

    fn warn(&mut self, code: Code, span: &Span, message: impl Into<String>, help: Option<&str>) {
        self.report(Severity::Warning, code, span, message, help.map(str::to_owned));
    }

    fn not_supported(&mut self, span: &Span, what: &str, help: Option<&str>) {
        self.error(Code::NotSupported, span, format!("{what}: not supported yet"), help);
    }

    /// Mistakes in an expression, at their places in the file.
    fn sql(&mut self, text: &Scalar, problems: Vec<Problem>) {
        if self.is_cut_by_comment(text) {
            let help = "` #` starts a comment in YAML: put the whole expression into double quotes";
            self.error(Code::YamlSplit, &text.span, "YAML split this expression: quote it", Some(help));
            return;
        }
        for problem in problems {
            let span = text.place(problem.span);
            let code = match problem.kind {
                ProblemKind::Mistake => Code::Sql,
                ProblemKind::NotSupported => Code::NotSupported,
                ProblemKind::SaidBefore => continue,
            };
            self.report(Severity::Error, code, &span, problem.message, problem.help);
        }
    }

    fn is_cut_by_comment(&self, text: &Scalar) -> bool {
        let rest = self.text.get(text.span.end..).unwrap_or_default();
        let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        text.plain && blank > 0 && rest[blank..].starts_with('#') && unbalanced(&text.text) > 0
    }

    /// The result, or its problems reported.
    fn checked<T>(&mut self, text: &Scalar, result: Result<T, Vec<Problem>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problems) => {
                self.sql(text, problems);
                None
            }
        }
    }

    // ---- names -------------------------------------------------------------------------------------------------------

    fn check_names(&mut self) {
        let document = self.document;
        let mut seen: HashMap<&str, &Span> = HashMap::new();
        let sources = document.sources.iter().map(|source| &source.name);
        for name in sources.chain(document.steps.iter().map(|step| &step.name)) {
            if let Some(first) = seen.insert(&name.text, &name.span) {
                let line = self.text[..first.start].matches('\n').count() + 1;
                let message = format!("`{}` is the name of something else already, in line {line}", name.text);
                let help = "streams, tables and steps share one namespace";
                self.error(Code::DuplicateName, &name.span, message, Some(help));
            }
        }
    }

    /// New name -> the oldest one, which state is kept under.
    fn renames(&mut self) -> HashMap<String, String> {
        let document = self.document;
        let exists = |name: &str| {
            document.steps.iter().any(|step| step.name.text == name)
                || document.sources.iter().any(|source| source.name.text == name)
        };
        let mut back: HashMap<&str, &str> = HashMap::new();
        for (old, new) in &document.rename {
            if exists(&old.text) {
                let message = format!("`{}` is said to be renamed, but is still there", old.text);
                self.error(Code::BadName, &old.span, message, None);
            }
            let renamed_again = document.rename.iter().any(|(other, _)| other.text == new.text);
            if !exists(&new.text) && !renamed_again {
                let names = document.steps.iter().map(|step| step.name.text.as_str());
                let help = nearest(&new.text, names).map(|near| format!("did you mean `{near}`?"));
                let message = format!("there is no step `{}`", new.text);
                self.error(Code::UnknownName, &new.span, message, help.as_deref());
            }
            if back.insert(&new.text, &old.text).is_some() {
                let message = format!("two old names become `{}`", new.text);
                self.error(Code::DuplicateName, &new.span, message, None);
            }
        }
        let mut names = HashMap::new();
        for &new in back.keys().filter(|new| exists(new)) {
            let mut oldest = new;
            for _ in 0..document.rename.len() {
                oldest = back.get(oldest).copied().unwrap_or(oldest);
            }
            names.insert(new.to_owned(), oldest.to_owned());
        }
        names
    }

    /// The name that a step's or table's stores and topics carry.
    fn storage_name(&self, name: &str) -> String {
        self.storage_names.get(name).cloned().unwrap_or_else(|| name.to_owned())
    }

    fn changelog_topic(&self, store: &str) -> TopicName {
        TopicName::new(format!("{}-{store}-changelog", self.document.name.text))
    }

    /// What a name stands for. Reports an unknown one.
    fn relation(&mut self, name: &str, span: &Span) -> Option<Stage> {
        self.read.insert(name.to_owned());
        if let Some(relation) = self.relations.get(name) {
            return relation.clone();
        }
        // A step of a cycle, or what could not be read: reported there.
        let document = self.document;
        if document.steps.iter().any(|step| step.name.text == name) || document.unreadable.iter().any(|at| at == name) {
            return None;
        }
        let sources = document.sources.iter().map(|source| source.name.text.as_str());
        let names = sources.chain(document.steps.iter().map(|step| step.name.text.as_str()));
        let help = nearest(name, names).map(|near| format!("did you mean `{near}`?"));
        let message = format!("there is no stream, table or step `{name}`");
        self.error(Code::UnknownName, span, message, help.as_deref());
        None
    }

    fn warn_unused(&mut self) {
        let document = self.document;
        for source in &document.sources {
            let name = &source.name;
            if source.kind == super::document::SourceKind::Stream && !self.read.contains(&name.text) {
                let message = format!("no step reads the stream `{}`", name.text);
                self.warn(Code::Unused, &name.span, message, None);
            }
        }
        for step in &document.steps {
            let name = &step.name;
            let is_table = self.tables.iter().any(|table| *table.name == *name.text);
            let planned = matches!(self.relations.get(&name.text), Some(Some(_)));
            if planned && step.to.is_none() && !is_table && !self.read.contains(&name.text) {
                let message = format!("nothing reads the step `{}`, and it writes to no topic", name.text);
                self.warn(Code::Unused, &name.span, message, Some("give it a `to`"));
            }
        }
    }

    fn arc(name: &str) -> Arc<str> {
        Arc::from(name)
    }
}
