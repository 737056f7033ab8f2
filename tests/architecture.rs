//! Which module may name which module and which crate: the direction of the arrows in `ARCHITECTURE.md`, checked. And that
//! `docs/exactly-once.md` names tests that exist.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sidestream::probe::{Mark, Rule};

/// A module uses only modules of lower layers, or its own. The words (layer 0) use each other.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("decimal", 0),
    ("ids", 0),
    ("limits", 0),
    ("metric", 0),
    ("probe", 0),
    ("row", 0),
    ("schema", 0),
    ("value", 0),
    ("expression", 1),
    ("log", 1),
    ("store", 2),
    ("format", 3),
    ("topology", 4),
    ("operator", 5),
    ("task", 6),
    ("runtime", 7),
    ("settings", 8),
    ("telemetry", 8),
    ("http", 9),
    ("cli", 10),
];

/// A crate is named only under its owner.
const OWNERS: &[(&str, &[&str])] = &[
    ("rdkafka", &["log/kafka"]),
    ("rdkafka_sys", &["log/kafka"]),
    ("rocksdb", &["store/rocksdb"]),
    ("hashbrown", &["store/cache", "store/packed"]),
    ("smallvec", &["store/cache"]),
    // A program chooses its allocator, not a library.
    ("mimalloc", &[]),
    ("sqlparser", &["expression"]),
    ("saphyr_parser", &["topology"]),
    ("axum", &["http"]),
    ("utoipa", &["http"]),
    ("reqwest", &["http"]),
    ("tower", &["http"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_sdk", &["telemetry"]),
    ("opentelemetry_prometheus", &["telemetry"]),
    ("prometheus", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["cli"]),
    ("signal_hook", &["cli"]),
    ("rustix", &["runtime/crew"]),
];

/// Lower layers that a module needs of a higher one, with the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

#[test]
fn modules_use_only_lower_layers() {
    let layers: BTreeMap<&str, u8> = LAYERS.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let module = room(&path);
        let Some(layer) = layers.get(module.as_str()) else { continue };
        for (number, line) in code_lines(&text) {
            for used in names_after(line, "crate::") {
                let Some(other) = layers.get(used.as_str()) else { continue };
                let excepted = EXCEPTIONS.iter().any(|(from, to, _)| path.contains(from) && *to == used);
                let upward = other > layer || (other == layer && *layer > 0);
                if used != module && upward && !excepted {
                    wrong.push(format!("{path}:{number}: `{module}` (layer {layer}) uses `{used}` (layer {other})"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows against the direction:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_is_in_the_list_of_layers() {
    let known: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).chain(["lib", "main"]).collect();
    let mut unknown: Vec<String> =
        sources().iter().map(|(path, _)| room(path)).filter(|name| !known.contains(&name.as_str())).collect();
    unknown.dedup();
    assert!(unknown.is_empty(), "give these a layer: {unknown:?}");
}

#[test]
fn a_crate_is_named_only_by_its_owner() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let inside = path.trim_start_matches("src/");
        for (number, line) in code_lines(&text) {
            for (name, owners) in OWNERS {
                let named = line.contains(&format!("{name}::")) && is_crate(line, name);
                if named && !owners.iter().any(|owner| inside.starts_with(owner)) && inside != "main.rs" {
                    wrong.push(format!("{path}:{number}: `{name}` belongs to {owners:?}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "crates outside their owners:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_beside_the_kafka_client() {
    let outside: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| text.contains("unsafe_code") && !path.starts_with("src/log/kafka"))
        .map(|(path, _)| path)
        .collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// `docs/exactly-once.md` is the map from the rules to their tests: it must not name what is not there, nor leave a rule
/// without a test.
#[test]
fn every_rule_of_the_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    collect(&root.join("src"), &mut files);
    collect(&root.join("tests"), &mut files);
    let code: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let broken: Vec<String> = Rule::ALL.iter().map(|rule| format!("{rule:?}")).collect();
    let marks: Vec<String> = Mark::ALL.iter().map(|mark| format!("{mark:?}")).collect();
    let table = fs::read_to_string(root.join("docs/exactly-once.md")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule "))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    let numbers: Vec<&str> =
        rows.iter().map(|row| first_word(row[0]).trim_end_matches(['.', 'a', 'b', 'c', 'd', 'e'])).collect();
    let absent: Vec<u32> = (1..=22).filter(|rule| !numbers.contains(&&*rule.to_string())).collect();
    let mut wrong: Vec<String> = absent.iter().map(|rule| format!("rule {rule} is not in the table")).collect();
    for row in &rows {
        let [rule, kept, tests] = row[..] else {
            wrong.push(format!("not three columns: {row:?}"));
            continue;
        };
        let number = first_word(rule);
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if named.is_empty() {
            wrong.push(format!("{number} has no test"));
        }
        for name in named {
            let exists = if name.starts_with(char::is_uppercase) {
                broken.iter().chain(&marks).any(|known| known == name)
            } else {
                code.contains(&format!("fn {name}("))
            };
            if !exists {
                wrong.push(format!("{number}: there is no test `{name}`"));
            }
        }
        for path in kept.split('`').skip(1).step_by(2).filter(|path| path.contains('/')) {
            let file = root.join("src").join(path);
            if !file.exists() {
                wrong.push(format!("{number}: there is no `src/{path}`"));
            }
        }
    }
    let unnamed =
        broken.iter().filter(|rule| !rows.iter().any(|row| row.iter().any(|cell| cell.contains(&format!("`{rule}`")))));
    wrong.extend(unnamed.map(|rule| format!("the simulation breaks `{rule}`, which no rule names")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

/// Whether `name::` in the line is a crate's and not a module's of ours (`store::rocksdb::...`).
fn is_crate(line: &str, name: &str) -> bool {
    let mut rest = line;
    while let Some(at) = rest.find(&format!("{name}::")) {
        let before = rest[..at].chars().next_back();
        if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            return true;
        }
        rest = &rest[at + name.len()..];
    }
    false
}

fn names_after(line: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            names.extend(list.split(',').map(|item| first_name(item.trim())));
        } else {
            names.push(first_name(rest));
        }
    }
    names
}

fn first_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The lines before a file's unit tests, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    lines.map(|(number, line)| (number + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn room(path: &str) -> String {
    first_name(path.trim_start_matches("src/"))
}

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    collect(&root.join("src"), &mut found);
    found.sort();
    found
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs") && !path.components().any(|part| part.as_os_str() == "tests"))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            (name, text)
        })
        .collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
