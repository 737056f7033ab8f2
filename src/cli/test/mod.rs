//! `sidestream test`: a topology's own tests, without a broker.
//!
//! Each test runs on an embedded log of its own, over real RocksDB in a temporary directory, and once more for each of
//! its faults. The same task, commit, store and query code runs as in production.

mod compare;
mod expect;
mod given;
mod session;

use std::path::PathBuf;

use super::output::{Colour, Failure, colours, print};
use super::topology::load;
use super::{Exit, dev};
use crate::clock::SystemClock;
use crate::topology::diagnostic::SourceFile;
use crate::topology::document::{Fault, Given, TestCase};
use crate::topology::{Loaded, Plan};
use expect::{Miss, Remains};
use session::Session;

pub use session::table_topics;

/// Partitions of every topic unless a test says otherwise.
const PARTITIONS: u32 = 2;

/// Run the tests of topologies, without a broker
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Topology files; their tests are in them or beside them in NAME.test.yaml
    #[arg(required = true, value_name = "TOPOLOGY.yaml")]
    files: Vec<PathBuf>,
    /// Only tests whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
}

/// How many tests went which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut tally = Tally::default();
    for path in &arguments.files {
        let loaded = load(path)?;
        print(&format!("{}\n", path.display()))?;
        let wanted = |test: &&TestCase| arguments.filter.as_ref().is_none_or(|text| test.name.contains(text));
        let tests: Vec<&TestCase> = loaded.document.tests.iter().filter(wanted).collect();
        if tests.is_empty() {
            let why = if loaded.document.tests.is_empty() { "there are no tests" } else { "no test has such a name" };
            print(&format!("  {why}\n"))?;
        }
        for test in tests {
            if report(&loaded, test)? { tally.passed += 1 } else { tally.failed += 1 }
        }
    }
    print(&format!("{} passed, {} failed\n", tally.passed, tally.failed))?;
    Ok(if tally.failed == 0 { Exit::Done } else { Exit::TestFailed })
}

/// Runs a test and prints how it went. Whether it passed.
fn report(loaded: &Loaded, test: &TestCase) -> Result<bool, Failure> {
    let clock = SystemClock::shared();
    let started = clock.monotonic();
    let complaints = run_test(loaded, test);
    let took = dev::screen::short(clock.monotonic().saturating_sub(started));
    let colours = colours();
    let faults = match test.faults.len() {
        0 => String::new(),
        1 => ", and with 1 fault".to_owned(),
        count => format!(", and with {count} faults"),
    };
    if complaints.is_empty() {
        print(&format!("  {}      {}{faults} ({took})\n", colours.paint(Colour::Green, "ok"), test.name))?;
        return Ok(true);
    }
    print(&format!("  {}  {} ({took})\n", colours.paint(Colour::Red, "FAILED"), test.name))?;
    for line in complaints.iter().flat_map(|complaint| complaint.lines()) {
        print(&format!("      {line}\n"))?;
    }
    Ok(false)
}

/// The run without faults, then one per fault. All that was not as expected.
fn run_test(loaded: &Loaded, test: &TestCase) -> Vec<String> {
    let clean = match run_once(&loaded.plan, test, None) {
        Ok((misses, clean)) if misses.is_empty() => clean,
        Ok((misses, _)) => return misses.iter().flat_map(|miss| place(loaded, test, miss)).collect(),
        Err(failure) => return vec![failure.to_string()],
    };
    let mut complaints = Vec::new();
    for fault in &test.faults {
        let name = fault_name(*fault);
        match run_once(&loaded.plan, test, Some(*fault)) {
            Ok((misses, remains)) => {
                let missed = misses.iter().flat_map(|miss| place(loaded, test, miss));
                let changed = remains.differences(&clean);
                complaints.extend(missed.chain(changed).map(|line| format!("with {name}: {line}")));
            }
            Err(failure) => complaints.push(format!("with {name}: {failure}")),
        }
    }
    complaints
}

/// One run: what was not as expected, and what was left behind.
fn run_once(plan: &Plan, test: &TestCase, fault: Option<Fault>) -> Result<(Vec<Miss>, Remains), Failure> {
    let mut session = Session::start(plan, test.partitions.unwrap_or(PARTITIONS), fault)?;
    let mut misses = Vec::new();
    for given in &test.given {
        match given {
            Given::Records(records) => match given::records(plan, records, session.now()) {
                Ok(records) => session.give(&records)?,
                Err(reason) => misses.push(Miss { span: records.span.clone(), lines: vec![reason] }),
            },
            Given::Advance { by, .. } => session.advance(*by)?,
        }
    }
    if misses.is_empty() {
        misses = expect::check(plan, &session, &test.expect)?;
    }
    let remains = expect::remains(plan, &session)?;
    if session.awaits_fault() {
        return Err(Failure::new("the fault never struck").help("the test has fewer records than the fault waits for"));
    }
    Ok((misses, remains))
}

/// The lines of a miss, the first with its place.
fn place(loaded: &Loaded, test: &TestCase, miss: &Miss) -> Vec<String> {
    let file: Option<&SourceFile> = loaded.warnings.files.get(usize::from(test.file.0));
    let place = file.map_or_else(String::new, |file| {
        let (line, column) = file.position(miss.span.start);
        format!("{}:{line}:{column}: ", file.name)
    });
    let mut lines = miss.lines.iter();
    let first = lines.next().map(|line| format!("{place}{line}"));
    first.into_iter().chain(lines.cloned()).collect()
}

fn fault_name(fault: Fault) -> String {
    match fault {
        Fault::CrashAfter(records) => format!("crash_after: {records}"),
        Fault::RebalanceAfter(records) => format!("rebalance_after: {records}"),
        Fault::DuplicateFetchAt(record) => format!("duplicate_fetch_at: {record}"),
    }
}

#[cfg(test)]
mod tests {
    use super::run_test;
    use crate::topology::{Loaded, load_text};

    const TOPOLOGY: &str = r#"
version: 1
name: payments
streams:
  transactions:
    topic: payments.transactions
    key: {name: account, type: STRING}
    format: json
    columns: {id: STRING, amount: DOUBLE NOT NULL, country: STRING, at: TIMESTAMP}
    timestamp: at
tables:
  accounts:
    topic: crm.accounts
    key: {name: account, type: STRING}
    format: json
    columns: {home: STRING}
steps:
  abroad:
    from: transactions
    join: [{with: accounts, "on": transactions.account = accounts.account}]
    where: country <> home
    select: "transactions.account, id, amount"
    to: {topic: alerts}
  spend:
    from: transactions
    group_by: account
    aggregate: {n: COUNT(*), total: SUM(amount)}
    ttl: none
    to: {topic: spend}
  hourly:
    from: transactions
    key_by: country
    window: {type: tumbling, size: 1h}
    group_by: country
    aggregate: {n: COUNT(*)}
    emit: final
    to: {topic: hourly}
"#;

    fn loaded(tests: &str) -> Loaded {
        load_text("payments.yaml", TOPOLOGY, Some(("payments.test.yaml", tests)), &|_| None)
            .unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
    }

    /// What the tests complain about.
    fn complaints(tests: &str) -> Vec<String> {
        let loaded = loaded(tests);
        loaded.document.tests.iter().flat_map(|test| run_test(&loaded, test)).collect()
    }

    #[test]
    fn a_topology_that_does_what_its_test_says_passes_with_every_fault() {
        let complaints = complaints(
            r#"
tests:
  - name: everything at once
    given:
      - {table: accounts, value: {account: c1, home: US}}
      - {stream: transactions, value: {id: "t-$i", account: c1, amount: 20.0, country: BR, at: "2026-01-01T00:00:00Z"}, repeat: 12, every: 10s}
      - {stream: transactions, value: {id: u, account: c2, amount: 1, country: DE, at: "2026-01-01T00:10:00Z"}}
      - {advance: 3h}
      - {table: accounts, key: c1, delete: true}
      - {stream: transactions, value: {id: last, account: c1, amount: 5, country: BR, at: "2026-01-01T04:00:00Z"}}
    expect:
      - {topic: alerts, count: 12, contains: [{account: c1, id: t-0}, {account: c1, id: t-11, amount: 20}]}
      - {table: spend, rows: [{account: c1, n: 13, total: 245}, {account: c2, n: 1, total: 1}]}
      - {topic: hourly, exactly: [{country: BR, n: 12, window_start: "2026-01-01T00:00:00Z"}, {country: DE, n: 1}]}
      - {nothing: [payments.dead-letters]}
    faults: [{crash_after: 5}, {crash_after: 14}, {rebalance_after: 9}, {duplicate_fetch_at: 7}]
"#,
        );
        assert_eq!(complaints, Vec::<String>::new());
    }

    #[test]
    fn what_is_not_as_expected_is_named_with_its_place() {
        let complaints = complaints(
            "tests:\n  - name: wrong\n    given:\n      - {stream: transactions, value: {account: c1, amount: 2, at: 0}}\n    \
             expect:\n      - {table: spend, rows: [{account: c1, n: 2}]}\n      - {topic: alerts, count: 1}\n",
        );
        insta::assert_snapshot!(complaints.join("\n"), @r#"
        payments.test.yaml:6:9: table spend: expected 1 rows, found 1
          - missing     {"account":"c1","n":2}
            closest is  {"account":"c1","n":1,"total":2.0}
                        n: expected 2, found 1
        payments.test.yaml:7:9: topic alerts: expected 1 records, found 0
        "#);
    }

    #[test]
    fn a_record_that_does_not_fit_can_be_given_and_becomes_a_dead_letter() {
        let complaints = complaints(
            r#"
tests:
  - name: poison
    given:
      - {stream: transactions, value: {account: c1, amount: much, at: "2026-01-01T00:00:00Z"}}
      - {stream: transactions, value: {account: c1, amount: 1, at: "2026-01-01T00:00:00Z"}}
    expect:
      - {topic: payments.dead-letters, count: 1, contains: [{amount: much}]}
      - {table: spend, rows: [{account: c1, n: 1, total: 1}]}
    faults: [{crash_after: 1}, {duplicate_fetch_at: 1}]
"#,
        );
        assert_eq!(complaints, Vec::<String>::new());
    }

    #[test]
    fn a_record_from_the_future_is_one_that_was_produced_before_its_event_time() {
        let topology = TOPOLOGY.replace("timestamp: at", "timestamp: at\n    watermark: {max_ahead: 1h}");
        let tests = r#"
tests:
  - name: ahead
    given:
      - {stream: transactions, value: {account: c1, amount: 1, at: "2026-01-01T00:00:00Z"}}
      - {stream: transactions, value: {account: c1, amount: 1, at: "2026-01-01T12:00:00Z"}}
      - {stream: transactions, timestamp: "2026-01-01T12:00:00Z", value: {account: c1, amount: 1, at: "2026-01-01T14:00:00Z"}}
    expect:
      - {table: spend, rows: [{account: c1, n: 2}]}
      - {topic: payments.dead-letters, count: 1}
"#;
        let loaded = load_text("payments.yaml", &topology, Some(("payments.test.yaml", tests)), &|_| None).unwrap();
        assert_eq!(run_test(&loaded, &loaded.document.tests[0]), Vec::<String>::new());
    }

    #[test]
    fn a_fault_that_never_strikes_is_a_failure() {
        let complaints = complaints(
            "tests:\n  - name: too few\n    given:\n      - {stream: transactions, value: {account: c1, amount: 2, at: 0}}\n    \
             expect: []\n    faults: [{crash_after: 100}]\n",
        );
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].contains("with crash_after: 100: error: the fault never struck"), "{complaints:?}");
    }
}
