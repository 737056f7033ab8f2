//! The names of all metrics, with what they mean and their units: the one list that telemetry, HTTP and docs share.
//!
//! What it is: constants, and [`Counters`], the plain atomics that workers and tasks write.
//! What it is not: it exports nothing; `telemetry` reads [`Counters::samples`] on each scrape.

pub mod counters;
pub mod losses;

pub use counters::{Counter, Counters, Histogram, Sample, SampleValue};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Metric {
    /// In OpenTelemetry's style; Prometheus turns dots into underscores and adds unit and `_total`.
    pub name: &'static str,
    pub description: &'static str,
    /// UCUM, as OpenTelemetry wants it: `{record}`, `By`, `s`, `1`.
    pub unit: &'static str,
    pub kind: Kind,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    Gauge,
    /// Of durations, in microseconds inside and seconds outside.
    Histogram,
}

const fn counter(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
) -> Metric {
    Metric { name, description, unit, kind: Kind::Counter, labels }
}

const fn gauge(
    name: &'static str,
    unit: &'static str,
    labels: &'static [&'static str],
    description: &'static str,
) -> Metric {
    Metric { name, description, unit, kind: Kind::Gauge, labels }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], description: &'static str) -> Metric {
    Metric { name, description, unit: "s", kind: Kind::Histogram, labels }
}

// ---- records -------------------------------------------------------------------------------------------------------

pub const RECORDS_READ: Metric =
    counter("sidestream.records.read", "{record}", &["topic"], "Records taken from a source topic and processed.");
pub const BYTES_READ: Metric =
    counter("sidestream.bytes.read", "By", &["topic"], "Bytes of keys and values taken from a source topic.");
pub const RECORDS_WRITTEN: Metric = counter(
    "sidestream.records.written",
    "{record}",
    &["topic"],
    "Records produced to a topic, internal ones included, in transactions that may still be aborted.",
);
pub const RECORDS_LATE: Metric = counter(
    "sidestream.records.late",
    "{record}",
    &["step"],
    "Records for which every window of the step was closed: sent to its `late` topic or dropped.",
);
pub const RECORDS_DEAD_LETTERED: Metric = counter(
    "sidestream.records.dead_lettered",
    "{record}",
    &["step"],
    "Records that could not be processed and went to the dead-letter topic.",
);
pub const RECORDS_DROPPED: Metric = counter(
    "sidestream.records.dropped",
    "{record}",
    &["step", "reason"],
    "Records that a step left out of its state, by reason: null_key, tombstone, superseded, late, skipped.",
);
pub const RECORDS_OUT_OF_RANGE: Metric = counter(
    "sidestream.records.out_of_range",
    "1",
    &["topic"],
    "Times that a committed offset of a source no longer existed: the topic's retention removed unread records.",
);

// ---- commits -------------------------------------------------------------------------------------------------------

pub const COMMITS: Metric = counter("sidestream.commits", "1", &["worker"], "Transactions committed.");
pub const COMMIT_FAILURES: Metric = counter(
    "sidestream.commits.failed",
    "1",
    &["worker", "outcome"],
    "Commits that did not succeed, by outcome: aborted (replayed), unknown (resolved by a new producer).",
);
pub const COMMIT_DURATION: Metric = histogram(
    "sidestream.commit.duration",
    &["worker"],
    "From the start of a flush to the end of the write to the local state.",
);
pub const RECORD_LATENCY: Metric = histogram(
    "sidestream.record.latency",
    &["worker"],
    "From the oldest record's fetch to the commit that made its result visible, once per commit.",
);
pub const PROCESSING_TIME: Metric = counter(
    "sidestream.processing.time",
    "us",
    &["worker"],
    "Time that a worker spent processing records and committing, in microseconds.",
);
pub const PRODUCERS_RECREATED: Metric = counter(
    "sidestream.producers.recreated",
    "1",
    &["worker"],
    "Producers that were replaced after a fence or an unknown outcome.",
);

// ---- state ---------------------------------------------------------------------------------------------------------

pub const STATE_READS: Metric = counter("sidestream.state.reads", "{row}", &["store"], "Rows looked up by a step.");
pub const STATE_READS_MISSED: Metric = counter(
    "sidestream.state.reads.missed",
    "{row}",
    &["store"],
    "Rows looked up that were not in the row cache and came from the backend.",
);
pub const STATE_READS_AHEAD: Metric = counter(
    "sidestream.state.reads.ahead",
    "{row}",
    &["store"],
    "Of the rows that came from the backend, those that were read many at once, ahead of the records that need them.",
);
pub const STATE_ROWS_WRITTEN: Metric =
    counter("sidestream.state.rows.written", "{row}", &["store"], "Rows written or deleted by commits.");
pub const STATE_ROWS_EXPIRED: Metric = counter(
    "sidestream.state.rows.expired",
    "{row}",
    &["store"],
    "Rows deleted because of `ttl` or the retention of windows.",
);
pub const STATE_MEMORY: Metric =
    gauge("sidestream.state.memory", "By", &[], "Memory of the state backend: block cache, write buffers, index.");
pub const STATE_DISK: Metric = gauge("sidestream.state.disk", "By", &[], "Disk space of the state directory.");

// ---- restoration and ownership -----------------------------------------------------------------------------------

pub const RECORDS_RESTORED: Metric = counter(
    "sidestream.restore.records",
    "{record}",
    &["store", "extent"],
    "Changelog records applied, by extent: tail (on top of trusted local state) or full.",
);
pub const BYTES_RESTORED: Metric =
    counter("sidestream.restore.bytes", "By", &["store", "extent"], "Bytes of changelog records applied.");
pub const RESTORATIONS: Metric = counter(
    "sidestream.restore.finished",
    "1",
    &["extent"],
    "Store partitions whose restoration finished, by extent: none, tail or full.",
);
pub const REBALANCES: Metric =
    counter("sidestream.rebalances", "1", &["kind"], "Changes of ownership, by kind: assigned, revoked, lost.");
pub const TASKS_OWNED: Metric = gauge("sidestream.tasks.owned", "{task}", &[], "Tasks that this instance owns.");
pub const TASKS_RESTORING: Metric =
    gauge("sidestream.tasks.restoring", "{task}", &[], "Owned tasks whose state is not complete yet.");
pub const TASKS_PARKED: Metric = gauge(
    "sidestream.tasks.parked",
    "{task}",
    &[],
    "Tasks that failed repeatedly and are not fetched until they are reassigned or the process restarts.",
);
pub const LAG: Metric = gauge(
    "sidestream.lag",
    "{record}",
    &["topic", "partition"],
    "End offset less committed offset of an owned input partition.",
);
pub const WATERMARK: Metric = gauge(
    "sidestream.watermark",
    "ms",
    &["sub_topology", "partition"],
    "Event time that the task has reached, in milliseconds since 1970.",
);
pub const READY: Metric = gauge("sidestream.ready", "1", &[], "1 while `/readyz` answers 200.");

/// Every metric there is, for the docs and for telemetry.
pub const ALL: &[Metric] = &[
    RECORDS_READ,
    BYTES_READ,
    RECORDS_WRITTEN,
    RECORDS_LATE,
    RECORDS_DEAD_LETTERED,
    RECORDS_DROPPED,
    RECORDS_OUT_OF_RANGE,
    COMMITS,
    COMMIT_FAILURES,
    COMMIT_DURATION,
    RECORD_LATENCY,
    PROCESSING_TIME,
    PRODUCERS_RECREATED,
    STATE_READS,
    STATE_READS_MISSED,
    STATE_READS_AHEAD,
    STATE_ROWS_WRITTEN,
    STATE_ROWS_EXPIRED,
    STATE_MEMORY,
    STATE_DISK,
    RECORDS_RESTORED,
    BYTES_RESTORED,
    RESTORATIONS,
    REBALANCES,
    TASKS_OWNED,
    TASKS_RESTORING,
    TASKS_PARKED,
    LAG,
    WATERMARK,
    READY,
];
