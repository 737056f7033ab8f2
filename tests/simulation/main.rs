//! The fault simulation: thousands of bad nights, each from one seed, each to end as if nothing had happened.
//!
//! A failure prints its seed. `SIDESTREAM_SEED=<seed> cargo test --test simulation nights -- --nocapture` runs that night
//! alone and tells its story. `SIDESTREAM_SCHEDULES=<count>` or `SIDESTREAM_SCHEDULES=forever` (`make sim`) runs others,
//! from seeds that differ each time.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "how long the simulation itself takes")]

mod night;
mod pod;
mod scenario;
mod verdict;
mod weather;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use night::{Course, Night, Report, Upheaval};
use scenario::{INPUTS, Input, Scenario};
use sidestream::probe::{self, Mark, Rule};
use verdict::Outcome;

/// How many schedules `make test` runs.
const SCHEDULES: u64 = 2_000;
/// Within how many schedules a broken rule must be noticed.
const NOTICED_WITHIN: u64 = 500;
/// After so many failures there is enough to look at.
const MOST_FAILURES: usize = 3;

/// What all schedules are compared with.
struct Expected {
    scenario: Scenario,
    /// By the number of the input.
    outcomes: Vec<(Input, Outcome)>,
}

impl Expected {
    fn new() -> Self {
        let scenario = Scenario::new();
        let outcomes = (0..INPUTS).map(|number| {
            let input = Input::of(number);
            let report = Night::run(&scenario, Course { seed: number, mostly: None, calm: true, tell: false });
            assert!(report.problems.is_empty(), "the no-fault run {number}: {:?}", report.problems);
            let wrong = report.outcome.check_sense(&input);
            assert!(wrong.is_empty(), "the no-fault run {number}: {wrong:#?}");
            (input, report.outcome)
        });
        let outcomes = outcomes.collect();
        Self { scenario, outcomes }
    }

    /// Runs a schedule. What is wrong with how it ended, and the report where it ended at all.
    fn judge(&self, seed: u64, mostly: Option<Upheaval>, tell: bool) -> (Vec<String>, Option<Report>) {
        let course = Course { seed, mostly, calm: false, tell };
        match catch_unwind(AssertUnwindSafe(|| Night::run(&self.scenario, course))) {
            Ok(report) => {
                let (input, expected) = &self.outcomes[usize::try_from(Night::input_of(seed)).unwrap()];
                let mut wrong = report.problems.clone();
                if wrong.is_empty() {
                    wrong = report.outcome.differences(expected, input);
                }
                (wrong, Some(report))
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                (vec![format!("it panicked: {}", text.unwrap_or_default())], None)
            }
        }
    }
}

fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

#[test]
fn nights_end_as_if_nothing_had_happened() {
    let expected = Expected::new();
    if let Some(seed) = from_environment("SIDESTREAM_SEED") {
        let seed = seed.parse().unwrap();
        let (wrong, report) = expected.judge(seed, None, true);
        for line in report.iter().flat_map(|report| &report.story) {
            eprintln!("{line}");
        }
        assert!(wrong.is_empty(), "SIDESTREAM_SEED={seed}\n{}", wrong.join("\n"));
        return;
    }
    let asked = from_environment("SIDESTREAM_SCHEDULES");
    let (first, count) = match asked.as_deref() {
        None => (0, SCHEDULES),
        Some("forever") => (fastrand::u64(..1 << 60), u64::MAX >> 1),
        Some(count) => (fastrand::u64(..1 << 60), count.parse().unwrap()),
    };
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let points = AtomicU64::new(0);
    let reached: Mutex<BTreeSet<Mark>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while weather::locked(&failures).len() < MOST_FAILURES {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let seed = first + number;
                    let (wrong, report) = expected.judge(seed, None, false);
                    weather::locked(&reached).extend(probe::take_reached());
                    points.fetch_add(report.map_or(0, |report| report.points), Ordering::Relaxed);
                    if !wrong.is_empty() {
                        weather::locked(&failures).push(format!("SIDESTREAM_SEED={seed}\n{}", wrong.join("\n")));
                    }
                    if number % 1000 == 999 && asked.is_some() {
                        eprintln!("{} schedules in {:?}", number + 1, began.elapsed());
                    }
                }
            });
        }
    });
    let (points, took) = (points.load(Ordering::Relaxed), began.elapsed());
    eprintln!(
        "{} schedules, {points} steps at which a fault may strike, {took:?}",
        next.load(Ordering::Relaxed).min(count)
    );
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    let reached = reached.into_inner().unwrap();
    let missed: Vec<Mark> = Mark::ALL.into_iter().filter(|mark| !reached.contains(mark)).collect();
    assert!(missed.is_empty() || count < SCHEDULES, "these branches were not reached: {missed:?}");
    eprintln!("not reached: {missed:?}");
}

/// The simulation itself is tested: whichever rule is broken, some night ends otherwise.
#[test]
fn every_broken_rule_is_noticed() {
    let expected = Expected::new();
    let next = AtomicU64::new(0);
    let unnoticed: Mutex<Vec<Rule>> = Mutex::default();
    let only = from_environment("SIDESTREAM_RULE");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
                    let Some(&rule) = Rule::ALL.get(number) else { return };
                    if only.as_ref().is_some_and(|only| *only != format!("{rule:?}")) {
                        continue;
                    }
                    probe::break_rule(Some(rule));
                    // Each begins elsewhere, so that together they see more nights.
                    let first = 1_000 * number as u64;
                    let seed = (first..first + NOTICED_WITHIN)
                        .find(|seed| !expected.judge(*seed, trouble_for(rule), false).0.is_empty());
                    probe::break_rule(None);
                    match seed {
                        Some(seed) => eprintln!("{rule:?} is noticed by seed {seed}"),
                        None => weather::locked(&unnoticed).push(rule),
                    }
                }
            });
        }
    });
    let unnoticed = unnoticed.into_inner().unwrap();
    assert!(unnoticed.is_empty(), "broken without being noticed within {NOTICED_WITHIN} schedules: {unnoticed:?}");
}

/// What must happen often for a broken rule to show soon, where that is rare by itself.
fn trouble_for(rule: Rule) -> Option<Upheaval> {
    match rule {
        Rule::OldStateTrusted | Rule::NothingWiped => Some(Upheaval::WeekAway),
        Rule::OtherMapsIgnored => Some(Upheaval::OtherMap),
        Rule::RestoreStopsAtFirstEnd => Some(Upheaval::LateMarkers),
        Rule::IdleWhileUnread => Some(Upheaval::BrokerAway),
        Rule::GivenUpProducerCommits => Some(Upheaval::CoordinatorAway),
        _ => None,
    }
}

#[test]
fn the_same_seed_gives_the_same_night() {
    let scenario = Scenario::new();
    for seed in 0..8 {
        let night = || Night::run(&scenario, Course { seed, mostly: None, calm: false, tell: false });
        let (once, again) = (night(), night());
        assert_eq!(once.trace, again.trace, "SIDESTREAM_SEED={seed}");
        assert_eq!(once.outcome, again.outcome, "SIDESTREAM_SEED={seed}");
    }
}
