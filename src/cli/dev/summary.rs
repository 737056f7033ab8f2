//! The line that says how it goes.

use std::ops::ControlFlow;
use std::time::Duration;

use super::input::Intake;
use super::screen::{bytes, grouped, short};
use super::tap::Seen;
use crate::clock::SharedClock;
use crate::metric;
use crate::runtime::View;
use crate::store::{Direction, KeyRange, StorePartition};
use crate::topology::plan::StoreKind;

/// Rows of a store are counted so far; more are shown as "more than".
const COUNT_LIMIT: u64 = 50_000;
/// How often rows are counted.
const COUNT_EVERY: u64 = 5;

/// Counts of the previous line, for rates.
#[derive(Debug)]
pub struct Summary {
    started: Duration,
    at: Duration,
    read: u64,
    written: u64,
    commits: u64,
    lines: u64,
    stores: String,
}

impl Summary {
    pub fn new(clock: &SharedClock) -> Self {
        let now = clock.monotonic();
        Self { started: now, at: now, read: 0, written: 0, commits: 0, lines: 0, stores: String::new() }
    }

    /// `12 s | in 200/s | out 12/s | latency p50 12.0 ms p99 31.0 ms | 18 commits/s | ...`
    pub fn line(&mut self, clock: &SharedClock, view: &View, intake: &Intake, seen: &Seen, hidden: u64) -> String {
        let now = clock.monotonic();
        let seconds = now.saturating_sub(self.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| format!("{:.0}/s", now.saturating_sub(before) as f64 / seconds);
        let (read, written, commits) = (intake.appended(), seen.records(), view.counters.total(&metric::COMMITS));
        let latency = match seen.take_latency() {
            Some((median, most)) => format!("p50 {} p99 {}", short(median), short(most)),
            None => "-".to_owned(),
        };
        if self.lines.is_multiple_of(COUNT_EVERY) {
            self.stores = store_sizes(view);
        }
        let mut parts = vec![
            format!("{} s", now.saturating_sub(self.started).as_secs()),
            format!("in {}", rate(read, self.read)),
            format!("out {}", rate(written, self.written)),
            format!("latency {latency}"),
            format!("commits {}", rate(commits, self.commits)),
        ];
        let lag: u64 = view.lag().into_iter().filter_map(|lag| lag.lag).sum();
        if lag > read.saturating_sub(self.read) {
            parts.push(format!("behind {}", grouped(lag)));
        }
        let dead = view.counters.total(&metric::RECORDS_DEAD_LETTERED);
        if dead > 0 {
            parts.push(format!("dead letters {}", grouped(dead)));
        }
        parts.extend((!self.stores.is_empty()).then(|| self.stores.clone()));
        parts.extend((hidden > 0).then(|| format!("{} records not shown", grouped(hidden))));
        let readiness = view.readiness();
        if let Some(note) = readiness.reasons.first().or(readiness.degraded.first()) {
            parts.push(format!("{}: {}", note.condition.code(), note.message));
        }
        (self.at, self.read, self.written, self.commits, self.lines) = (now, read, written, commits, self.lines + 1);
        parts.join(" | ")
    }
}

/// `accounts 1,000 rows, spend_per_hour 5,210 rows, 3.2 MB`
fn store_sizes(view: &View) -> String {
    let Some(backend) = view.backend() else { return String::new() };
    let mut parts = Vec::new();
    for store in view.plan.stores.iter().filter(|store| store.kind != StoreKind::Meta) {
        let mut rows: u64 = 0;
        for partition in backend.partitions(store.id).unwrap_or_default() {
            let at = StorePartition { store: store.id, partition };
            let counted = backend.scan(at, KeyRange { from: &[], to: None }, Direction::Forward, &mut |_, _| {
                rows += 1;
                if rows < COUNT_LIMIT { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Err(error) = counted {
                tracing::debug!(%error, "rows could not be counted");
            }
        }
        let more = if rows >= COUNT_LIMIT { "more than " } else { "" };
        parts.push(format!("{} {more}{} rows", store.name, grouped(rows)));
    }
    let usage = backend.usage();
    parts.push(format!("{} on disk", bytes(usage.disk_bytes)));
    parts.join(", ")
}

/// What came of it all.
pub fn totals(view: &View, intake: &Intake, seen: &Seen) -> String {
    format!(
        "{} records in, {} records out, {} commits, {} dead letters",
        grouped(intake.appended()),
        grouped(seen.records()),
        grouped(view.counters.total(&metric::COMMITS)),
        grouped(view.counters.total(&metric::RECORDS_DEAD_LETTERED)),
    )
}
