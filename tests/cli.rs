//! The program as its users meet it: what it prints, and how it ends.
//!
//! Exit codes: 0 done, 1 bad topology, setting, file or state directory, 2 usage, 3 a test failed.

#![expect(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test")]
#![expect(clippy::disallowed_methods, reason = "a test polls with a deadline")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const TOPOLOGY: &str = r#"
version: 1
name: spending
description: what accounts spend
streams:
  payments:
    topic: payments
    key: {name: account, type: STRING}
    format: json
    columns: {amount: BIGINT NOT NULL, at: TIMESTAMP}
    timestamp: at
steps:
  large:
    from: payments
    where: amount > 100
    to: large-payments
  spend:
    from: payments
    group_by: account
    aggregate: {n: COUNT(*), total: SUM(amount)}
    ttl: none
tests:
  - name: large payments are passed on
    given:
      - {stream: payments, value: {account: a, amount: 101, at: "2026-01-01T00:00:00Z"}}
      - {stream: payments, value: {account: a, amount: 100, at: "2026-01-01T00:00:00Z"}}
    expect:
      - {topic: large-payments, exactly: [{account: a, amount: 101}]}
      - {table: spend, rows: [{account: a, n: 2, total: 201}]}
    faults: [{crash_after: 1}]
"#;

fn sidestream(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestream"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIDESTREAM_")) {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A file in a folder of its own.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

// ---- usage, files, topologies ----------------------------------------------------------------------------------------

#[test]
fn a_command_line_that_cannot_be_read_is_usage() {
    assert_exit(&sidestream(&[]), 2);
    let output = sidestream(&["run", "x.yaml", "--broker", "localhost:9092"]);
    assert_exit(&output, 2);
    assert!(text(&output.stderr).contains("--brokers"), "{}", text(&output.stderr));
    assert_exit(&sidestream(&["dev", "x.yaml", "--input", "nothing"]), 2);
    assert_exit(&sidestream(&["--version"]), 0);
}

#[test]
fn a_file_that_cannot_be_read_is_one_clear_error() {
    for name in ["check", "graph", "test", "dev"] {
        let output = sidestream(&[name, "/nowhere/topology.yaml"]);
        assert_exit(&output, 1);
        let error = text(&output.stderr);
        assert!(error.starts_with("error: cannot read /nowhere/topology.yaml"), "{error}");
        assert!(error.contains("help: check the path"), "{error}");
    }
}

#[test]
fn check_says_what_is_fine_and_every_mistake_of_what_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good.yaml", TOPOLOGY);
    let output = sidestream(&["check", &good]);
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("`spending` is fine, 2 steps, 1 source topic, 1 table to query, 1 test"));

    let bad = TOPOLOGY.replace("amount > 100", "amout > 100").replace("group_by:", "gruop_by:");
    let bad = file(&folder, "bad.yaml", &bad);
    let output = sidestream(&["check", &good, &bad]);
    assert_exit(&output, 1);
    let said = text(&output.stdout);
    assert!(said.contains("bad.yaml:15:12") && said.contains("amout"), "{said}");
    assert!(said.contains("gruop_by") && said.contains("did you mean `group_by`"), "{said}");

    // Nothing runs what has mistakes.
    for name in ["test", "dev", "graph"] {
        assert_exit(&sidestream(&[name, &bad]), 1);
    }
}

#[test]
fn graph_and_schema_print_what_other_programs_read() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    for (format, beginning) in [("mermaid", "flowchart"), ("dot", "digraph"), ("text", "spending")] {
        let output = sidestream(&["graph", &topology, "--format", format]);
        assert_exit(&output, 0);
        assert!(text(&output.stdout).starts_with(beginning), "{}", text(&output.stdout));
    }
    let output = sidestream(&["schema"]);
    assert_exit(&output, 0);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(schema["properties"]["steps"].is_object());
}

#[test]
fn a_failed_test_has_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let output = sidestream(&["test", &file(&folder, "good.yaml", TOPOLOGY)]);
    assert_exit(&output, 0);
    assert!(text(&output.stdout).contains("1 passed, 0 failed"), "{}", text(&output.stdout));

    let wrong = file(&folder, "wrong.yaml", &TOPOLOGY.replace("total: 201", "total: 202"));
    let output = sidestream(&["test", &wrong]);
    assert_exit(&output, 3);
    let said = text(&output.stdout);
    assert!(said.contains("total: expected 202, found 201") && said.contains("wrong.yaml:"), "{said}");
    assert!(said.contains("0 passed, 1 failed"), "{said}");
}

// ---- dev -------------------------------------------------------------------------------------------------------------

#[test]
fn dev_runs_a_file_through_the_topology_and_ends_when_told() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let row = |number: i32| {
        format!("{{\"account\": \"a{}\", \"amount\": {}, \"at\": 1767225600000}}", number % 5, number * 10)
    };
    let rows = (0..50).map(row).collect::<Vec<_>>().join("\n");
    let input = format!("payments={}", file(&folder, "payments.jsonl", &rows));
    let output = sidestream(&["dev", &topology, "--input", &input, "--records", "50", "--http", "127.0.0.1:0"]);
    assert_exit(&output, 0);
    let said = text(&output.stdout);
    assert!(said.contains("large-payments  a"), "{said}");
    assert!(said.contains("50 records in, 39 records out"), "{said}");
}

#[test]
fn the_topology_on_the_first_screen_of_the_readme_is_checked_and_runs() {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let block = readme.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(readme.find(block).is_some_and(|at| readme[..at].lines().count() < 20), "it is on the first screen");
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "readme.yaml", block);
    let output = sidestream(&["check", &topology]);
    assert_exit(&output, 0);
    assert!(!text(&output.stdout).contains("warning"), "{}", text(&output.stdout));
    assert_eq!(text(&output.stderr), "", "nothing is remarked");
    let row = |number: i32| {
        let amount = if number == 11 { 1000 } else { 10 };
        format!("{{\"id\": \"t{number}\", \"account\": \"acct-1\", \"amount\": {amount}, \"at\": 1767225600000}}")
    };
    let rows = (0..12).map(row).collect::<Vec<_>>().join("\n");
    let input = format!("transactions={}", file(&folder, "transactions.jsonl", &rows));
    let output = sidestream(&["dev", &topology, "--input", &input, "--records", "12", "--http", "127.0.0.1:0"]);
    assert_exit(&output, 0);
    let said = text(&output.stdout);
    let shown = |topic: &str| {
        let lines = said.lines().filter(|line| line.split_whitespace().take(2).eq([topic, "acct-1"]));
        lines.count()
    };
    assert!(shown("fraud.cleared") > 0, "{said}");
    assert_eq!(shown("fraud.alerts"), 1, "{said}");
    assert!(said.contains("12 records in, 12 records out"), "{said}");
}

#[test]
fn a_row_of_a_file_that_does_not_fit_is_named_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let rows = "{\"account\": \"a\", \"amount\": 1}\n\n{\"acount\": \"a\"}\n";
    let input = format!("payments={}", file(&folder, "payments.jsonl", rows));
    let output = sidestream(&["dev", &topology, "--input", &input, "--seconds", "30", "--http", "127.0.0.1:0"]);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("payments.jsonl:3: there is no column `acount`"), "{error}");

    let output = sidestream(&["dev", &topology, "--input", "payment=x.jsonl"]);
    assert_exit(&output, 1);
    assert!(text(&output.stderr).contains("no stream or table `payment`"), "{}", text(&output.stderr));
    let output = sidestream(&["dev", &topology]);
    assert_exit(&output, 1);
    assert!(text(&output.stderr).contains("there is no input"), "{}", text(&output.stderr));
}

#[test]
fn dev_generates_input_and_answers_queries_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let generated = format!(
        "{TOPOLOGY}dev:\n  payments: {{rate: 100, value: {{account: \"'a' || RANDOM_INT(1, 3)\", amount: \"RANDOM_INT(1, 200)\", at: NOW()}}}}\n"
    );
    let topology = file(&folder, "good.yaml", &generated);
    let mut dev = Running::start(command(&["dev", &topology, "--http", "127.0.0.1:0", "--seconds", "60"]));
    let line = dev.line_with("try: curl '");
    let url = line.split('\'').nth(1).unwrap().to_owned();
    let path = url.strip_prefix("http://").unwrap();
    let (address, path) = path.split_at(path.find('/').unwrap());
    let answer = get(address, path);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"table\":\"spend\"") && answer.contains("\"served_by\""), "{answer}");
    assert!(get(address, "/v1/tables/spend/nobody").contains("key_not_found"));
    dev.line_with("| in ");
    assert_eq!(dev.terminate(), Some(0));
}

// ---- settings and the state directory --------------------------------------------------------------------------------

#[test]
fn settings_that_are_wrong_or_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let run = |arguments: &[&str]| {
        let mut command = command(&[&["run", &topology], arguments].concat());
        command.current_dir(folder.path()).output().unwrap()
    };
    let output = run(&[]);
    assert_exit(&output, 1);
    assert!(text(&output.stderr).contains("--brokers HOST:PORT"), "{}", text(&output.stderr));

    let output = run(&["--workers", "none", "--commit-interval", "soon"]);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("--workers") && error.contains("--commit-interval"), "{error}");

    let output = run(&["--brokers", "localhost:1", "--kafka", "group.id=mine"]);
    assert_exit(&output, 1);
    assert!(text(&output.stderr).contains("group.id"), "{}", text(&output.stderr));

    fs::write(folder.path().join("sidestream.yaml"), "brokrs: localhost:9092\n").unwrap();
    let output = run(&[]);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("sidestream.yaml:1:1") && error.contains("did you mean `brokers`"), "{error}");
}

#[test]
fn a_state_directory_that_cannot_be_used_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let other = file(&folder, "other.yaml", &TOPOLOGY.replace("name: spending", "name: saving"));
    let rows = file(&folder, "payments.jsonl", "{\"account\": \"a\", \"amount\": 1}\n");
    let input = format!("payments={rows}");
    let dev = |topology: &str, state: &str| {
        let arguments = ["dev", topology, "--input", &input, "--records", "1", "--http", "127.0.0.1:0", "--state-dir"];
        sidestream(&[&arguments[..], &[state]].concat())
    };

    let output = dev(&topology, "/proc/sidestream");
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("/proc/sidestream") && error.contains("--state-dir"), "{error}");

    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    assert_exit(&dev(&topology, state), 0);
    let output = dev(&other, state);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("\"spending\"") && error.contains("\"saving\""), "{error}");

    // A topology that would misread the state.
    let changed =
        TOPOLOGY.replace("group_by: account", "group_by: amount").replace("{account: a, n: 2, total: 201}", "");
    let changed = changed.split("tests:").next().unwrap().to_owned();
    let output = dev(&file(&folder, "changed.yaml", &changed), state);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("would be misread") && error.contains("reset --step"), "{error}");
    let retyped = TOPOLOGY.split("tests:").next().unwrap().replace("SUM(amount)", "MAX(account)");
    let output = dev(&file(&folder, "retyped.yaml", &retyped), state);
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("column `total` is stored as") && error.contains("cannot be read as STRING"), "{error}");
    assert!(error.contains("sidestream reset --step "), "{error}");
}

#[test]
fn a_state_directory_and_a_port_belong_to_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    // Kafka is away: the process stays, and keeps its directory.
    let arguments = ["run", &topology, "--brokers", "127.0.0.1:1", "--state-dir", state, "--http"];
    let mut first = Running::start(command(&[&arguments[..], &["127.0.0.1:0"]].concat()));
    let address = first.http_address();

    let output = sidestream(&[&arguments[..], &["127.0.0.1:0"]].concat());
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains("in use") && error.contains("--state-dir"), "{error}");

    let output = sidestream(&[&arguments[..], &[&address]].concat());
    assert_exit(&output, 1);
    let error = text(&output.stderr);
    assert!(error.contains(&format!("cannot listen on {address}")) && error.contains("--http"), "{error}");
    assert_eq!(first.terminate(), Some(0));
}

#[test]
fn kafka_that_is_away_is_waited_for_and_said_in_readyz() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let state = folder.path().join("state");
    // Somebody listens there, but does not speak Kafka.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let brokers = silent.local_addr().unwrap().to_string();
    let arguments = ["run", &topology, "--brokers", &brokers, "--http", "127.0.0.1:0", "--state-dir"];
    let mut run = Running::start(command(&[&arguments[..], &[state.to_str().unwrap()]].concat()));
    let address = run.http_address();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = get(&address, "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        if answer.contains("kafka_unreachable") {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        wait_a_moment();
    }
    assert!(get(&address, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(&address, "/v1/tables/spend/a").contains("\"code\":\"starting\""));
    assert!(get(&address, "/metrics").contains("sidestream_ready 0"));
    assert_eq!(run.terminate(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let topology = file(&folder, "good.yaml", TOPOLOGY);
    let state = folder.path().join("state");
    // What asks a broker that does not answer cannot stop at once.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let brokers = silent.local_addr().unwrap().to_string();
    let arguments = ["run", &topology, "--brokers", &brokers, "--http", "127.0.0.1:0", "--state-dir"];
    let mut run = Running::start(command(&[&arguments[..], &[state.to_str().unwrap()]].concat()));
    run.line_with("waiting for Kafka");
    run.signal();
    run.line_with("a second signal ends the process at once");
    assert_eq!(run.terminate(), Some(1));
}

// ---- a process that goes on --------------------------------------------------------------------------------------------

/// Killed when dropped.
struct Running {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, lines) = std::sync::mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let send = send.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    if send.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that contains the text.
    #[track_caller]
    fn line_with(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with {wanted:?}:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// Of a process that logs JSON.
    fn http_address(&mut self) -> String {
        let line: serde_json::Value = serde_json::from_str(&self.line_with("HTTP listens")).unwrap();
        line["address"].as_str().unwrap().to_owned()
    }

    fn signal(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    /// Sends SIGTERM and waits for the end.
    #[track_caller]
    fn terminate(&mut self) -> Option<i32> {
        self.signal();
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop:\n{}", self.seen.join("\n"));
            wait_a_moment();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().expect("the child is ours");
            self.child.wait().expect("the child is ours");
        }
    }
}

fn wait_a_moment() {
    std::thread::sleep(Duration::from_millis(20));
}

/// The answer to a GET, head and body.
fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_shipped_topologies_pass_their_own_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies");
    let mut files: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| !path.ends_with(".test.yaml"))
        .collect();
    files.sort();
    let arguments: Vec<&str> = std::iter::once("test").chain(files.iter().map(String::as_str)).collect();
    let output = sidestream(&arguments);
    assert_exit(&output, 0);
}
