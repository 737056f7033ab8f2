//! Metrics as Prometheus reads them, through OpenTelemetry.
//!
//! What it is: samples in, text out. Each scrape builds a fresh pipeline of observable instruments over the samples of
//! that moment, because the SDK goes on exporting the last value of every label set that it has ever seen: a task that
//! moved to another instance would keep its lag here for ever.
//! What it is not: it holds no counter. What is counted lives where it happens.
//!
//! Invariant: a name stands for one kind and one description; samples of one name differ in their labels.

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::process::ProcessUsage;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One number at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// As Prometheus spells it, unit and `_total` included.
    pub name: &'static str,
    pub description: &'static str,
    pub kind: Kind,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    Gauge,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("metrics cannot be set up: {reason}")]
    SetUp { reason: String },
    #[error("metrics cannot be written as text: {reason}")]
    Text { reason: String },
}

/// The samples as text, sorted by name.
pub fn render(samples: Vec<Sample>) -> Result<String, Error> {
    let set_up = |reason: String| Error::SetUp { reason };
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_counter_suffixes()
        .without_units()
        .without_target_info()
        .scope_info_enabled(false)
        .build()
        .map_err(|source| set_up(source.to_string()))?;

    let mut by_name: BTreeMap<&'static str, Vec<Sample>> = BTreeMap::new();
    for sample in samples {
        by_name.entry(sample.name).or_default().push(sample);
    }
    // One series more than there are, or the SDK folds what is beyond its limit of 2000 into one overflow series.
    let series = by_name.values().map(Vec::len).max().unwrap_or(0) + 1;
    let provider = SdkMeterProvider::builder()
        .with_reader(exporter)
        .with_resource(Resource::builder_empty().build())
        .with_view(move |_: &Instrument| Stream::builder().with_cardinality_limit(series).build().ok())
        .build();
    let meter = provider.meter("sidestream");
    for (name, samples) in by_name {
        observe(&meter, name, samples);
    }

    let mut text = Vec::new();
    TextEncoder::new()
        .encode(&registry.gather(), &mut text)
        .map_err(|source| Error::Text { reason: source.to_string() })?;
    String::from_utf8(text).map_err(|source| Error::Text { reason: source.to_string() })
}

/// An instrument that reports these samples when asked.
fn observe(meter: &Meter, name: &'static str, samples: Vec<Sample>) {
    let Some(first) = samples.first() else { return };
    let (kind, description) = (first.kind, first.description);
    let observations: Vec<(f64, Vec<KeyValue>)> = samples
        .into_iter()
        .map(|sample| {
            let labels = sample.labels.into_iter().map(|(label, value)| KeyValue::new(label, value)).collect();
            (sample.value, labels)
        })
        .collect();
    match kind {
        Kind::Counter => {
            let _instrument = meter
                .f64_observable_counter(name)
                .with_description(description)
                .with_callback(move |observer| {
                    observations.iter().for_each(|(value, labels)| observer.observe(*value, labels));
                })
                .build();
        }
        Kind::Gauge => {
            let _instrument = meter
                .f64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |observer| {
                    observations.iter().for_each(|(value, labels)| observer.observe(*value, labels));
                })
                .build();
        }
    }
}

/// The process's own samples, under the names that every Prometheus client library uses.
pub fn process_samples(usage: &ProcessUsage) -> Vec<Sample> {
    let gauge = |name, description, value: Option<u64>| {
        value.map(|value| Sample { name, description, kind: Kind::Gauge, labels: Vec::new(), value: value as f64 })
    };
    let cpu = usage.cpu_seconds.map(|value| Sample {
        name: "process_cpu_seconds_total",
        description: "User and system CPU time spent.",
        kind: Kind::Counter,
        labels: Vec::new(),
        value,
    });
    [
        cpu,
        gauge("process_resident_memory_bytes", "Memory that is resident.", usage.resident_bytes),
        gauge(
            "process_peak_resident_memory_bytes",
            "The most memory that was ever resident.",
            usage.peak_resident_bytes,
        ),
        gauge("process_open_fds", "Files and sockets that are open.", usage.open_files),
        gauge("process_threads", "Threads that run.", usage.threads),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{Kind, ProcessUsage, Sample, process_samples, render};

    fn sample(name: &'static str, kind: Kind, partition: u32, value: f64) -> Sample {
        Sample { name, description: "What it is.", kind, labels: vec![("partition", partition.to_string())], value }
    }

    #[test]
    fn counters_and_gauges_keep_their_names_labels_and_values() {
        let text = render(vec![
            sample("sidestream_records_total", Kind::Counter, 0, 12.0),
            sample("sidestream_records_total", Kind::Counter, 1, 3.0),
            sample("sidestream_lag_records", Kind::Gauge, 0, 5.0),
        ])
        .unwrap();
        insta::assert_snapshot!(text, @r#"
        # HELP sidestream_lag_records What it is.
        # TYPE sidestream_lag_records gauge
        sidestream_lag_records{partition="0"} 5
        # HELP sidestream_records_total What it is.
        # TYPE sidestream_records_total counter
        sidestream_records_total{partition="0"} 12
        sidestream_records_total{partition="1"} 3
        "#);
    }

    #[test]
    fn more_series_than_the_sdk_allows_by_default_are_all_exported() {
        let samples =
            (0..5_000).map(|partition| sample("sidestream_lag_records", Kind::Gauge, partition, 1.0)).collect();
        let text = render(samples).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("sidestream_lag_records{")).count(), 5_000);
        assert!(!text.contains("overflow"), "no series is folded away");
    }

    #[test]
    fn a_series_that_is_no_longer_sampled_is_no_longer_exported() {
        render(vec![sample("sidestream_lag_records", Kind::Gauge, 7, 1.0)]).unwrap();
        assert!(!render(vec![sample("sidestream_lag_records", Kind::Gauge, 8, 1.0)]).unwrap().contains("\"7\""));
    }

    #[test]
    fn what_cannot_be_read_of_the_process_is_left_out() {
        let usage = ProcessUsage { resident_bytes: Some(4096), ..ProcessUsage::default() };
        let samples = process_samples(&usage);
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].name, "process_resident_memory_bytes");
    }
}
