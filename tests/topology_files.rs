//! Topology files and what is said of them.
//!
//! - `tests/invalid/*.yaml`: mistakes, with the expected diagnostics beside them (`.txt`).
//! - `topologies/*.yaml`: what ships must load without a word, and its plan is kept in `tests/plans`.
//!
//! `UPDATE_EXPECTED=1 cargo test --test topology_files` writes the expected files anew: look at the difference.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sidestream::topology::graph::{GraphFormat, draw};
use sidestream::topology::schema::json_schema;
use sidestream::topology::{Look, load, load_text, yaml_to_json};

/// The files of a folder with this extension, in order.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .filter(|path| !path.to_string_lossy().ends_with(".test.yaml"))
        .collect();
    files.sort();
    files
}

/// Compares with a file, or writes it where that is asked for. What differs, if anything.
fn differs(expected: &Path, found: &str) -> Option<String> {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(expected, found).unwrap();
        return None;
    }
    let text = fs::read_to_string(expected).unwrap_or_default();
    (text != found).then(|| format!("--- {}\n{text}\n+++ found\n{found}", expected.display()))
}

fn no_environment(_: &str) -> Option<String> {
    None
}

#[test]
fn every_mistake_is_said_with_its_place_and_what_to_write_instead() {
    let cases = files("tests/invalid", "yaml");
    assert!(cases.len() >= 40, "{} cases", cases.len());
    let mut different = Vec::new();
    for path in cases {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let said = match load_text(&name, &text, None, &no_environment) {
            Ok(loaded) => loaded.warnings,
            Err(diagnostics) => diagnostics,
        };
        assert!(!said.list.is_empty(), "{name} has no mistake");
        different.extend(differs(&path.with_extension("txt"), &said.render(Look::Plain)));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn what_ships_loads_without_a_word_and_is_planned_as_before() {
    let mut different = Vec::new();
    for path in files("topologies", "yaml") {
        let loaded = match load(&path, &no_environment) {
            Ok(loaded) => loaded,
            Err(diagnostics) => panic!("{diagnostics}"),
        };
        assert!(loaded.warnings.list.is_empty(), "{}", loaded.warnings);
        assert!(!loaded.document.tests.is_empty(), "{} has no tests", path.display());
        assert!(!loaded.generators.is_empty(), "{} has nothing for `dev`", path.display());
        let name = format!("{}.txt", path.file_stem().unwrap().to_string_lossy());
        let expected = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans").join(name);
        let mut drawn = draw(&loaded.plan, GraphFormat::Text);
        drawn.push_str("\nfingerprint\n");
        for line in &loaded.plan.fingerprint.lines {
            let _ = writeln!(drawn, "  {line}");
        }
        different.extend(differs(&expected, &drawn));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn plans_of_valid_files_are_as_before() {
    let mut different = Vec::new();
    for path in files("tests/plans", "yaml") {
        let loaded = match load(&path, &no_environment) {
            Ok(loaded) => loaded,
            Err(diagnostics) => panic!("{diagnostics}"),
        };
        let drawn = draw(&loaded.plan, GraphFormat::Text);
        different.extend(differs(&path.with_extension("txt"), &drawn));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// As much of JSON Schema as `sidestream schema` uses; what does not fit, as paths.
fn violations(schema: &Value, value: &Value, root: &Value, path: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("no {reference}"));
        return violations(target, value, root, path);
    }
    let mut found = Vec::new();
    if let Some(choices) = schema["anyOf"].as_array() {
        let all: Vec<Vec<String>> = choices.iter().map(|choice| violations(choice, value, root, path)).collect();
        if !all.iter().any(Vec::is_empty) {
            found.push(format!("{path}: none of {all:?}"));
        }
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        found.push(format!("{path}: {value} is not one of {words:?}"));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        found.push(format!("{path}: {value} is not {}", schema["const"]));
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        other => panic!("type {other}"),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(kind)) {
        found.push(format!("{path}: {value} is not {kinds:?}"));
    }
    if let Some(object) = value.as_object() {
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(required) {
                found.push(format!("{path}: no {required}"));
            }
        }
        for (key, member) in object {
            let path = format!("{path}.{key}");
            match (&schema["properties"][key], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => found.push(format!("{path}: unknown")),
                (Value::Null, Value::Null) => {}
                (Value::Null, others) => found.extend(violations(others, member, root, &path)),
                (known, _) => found.extend(violations(known, member, root, &path)),
            }
        }
    }
    if let (Some(items), of @ Value::Object(_)) = (value.as_array(), &schema["items"]) {
        for (index, item) in items.iter().enumerate() {
            found.extend(violations(of, item, root, &format!("{path}[{index}]")));
        }
    }
    found
}

#[test]
fn every_topology_that_loads_fits_the_schema_for_editors() {
    let schema = json_schema();
    for path in files("topologies", "yaml").into_iter().chain(files("tests/plans", "yaml")) {
        let value = yaml_to_json(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(violations(&schema, &value, &schema, ""), Vec::<String>::new(), "{}", path.display());
    }
}

#[test]
fn the_schema_for_editors_refuses_what_the_language_refuses() {
    let schema = json_schema();
    let mistakes = [
        "unknown-step-key",
        "unknown-top-level-key",
        "missing-name",
        "wrong-version",
        "misspelt-format",
        "missing-columns",
        "emit-every",
        "step-that-is-no-mapping",
        "windows-of-a-later-version",
        "clauses-of-a-later-version",
    ];
    for name in mistakes {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/invalid/{name}.yaml"));
        let value = yaml_to_json(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(!violations(&schema, &value, &schema, "").is_empty(), "{name} fits the schema");
    }
}

/// A cheap sequence of numbers that is the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }
}

#[test]
fn a_damaged_file_is_reported_and_never_a_panic() {
    let pieces =
        ["ö", "'", "\"", "{", "}", "[", ",", ": ", "\n", " #", "(", ")", "${", "&a ", "*a", "- ", "\t", "|\n", "NULL"];
    let mut numbers = Numbers(7);
    for path in files("topologies", "yaml").into_iter().chain(files("tests/plans", "yaml")) {
        let text: Vec<char> = fs::read_to_string(&path).unwrap().chars().collect();
        for _ in 0..60 {
            let mut damaged = text.clone();
            for _ in 0..=numbers.below(3) {
                let at = numbers.below(damaged.len());
                match numbers.below(3) {
                    0 => {
                        damaged.remove(at);
                    }
                    1 => {
                        let piece = pieces[numbers.below(pieces.len())];
                        damaged.splice(at..at, piece.chars());
                    }
                    _ => {
                        let end = (at + numbers.below(40)).min(damaged.len());
                        damaged.drain(at..end);
                    }
                }
            }
            let damaged: String = damaged.into_iter().collect();
            let said = match load_text("damaged.yaml", &damaged, None, &no_environment) {
                Ok(loaded) => loaded.warnings,
                Err(diagnostics) => diagnostics,
            };
            for look in [Look::Plain, Look::Terminal] {
                let rendered = said.render(look);
                assert!(!rendered.is_empty(), "{damaged}");
            }
        }
    }
}

#[test]
fn whole_topologies_in_the_documents_load() {
    let mut whole = 0;
    for name in ["docs/language.md", "README.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        for block in text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            if !block.contains("version: 1\n") {
                continue;
            }
            whole += 1;
            if let Err(diagnostics) = load_text(name, block, None, &no_environment) {
                panic!("{diagnostics}");
            }
        }
    }
    assert!(whole >= 1, "no document shows a whole topology");
}

#[test]
fn what_is_planned_does_what_its_tests_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans/everything.yaml");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sidestream")).arg("test").arg(path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed, 0 failed"), "{said}");
}
