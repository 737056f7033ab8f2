//! Metrics as Prometheus reads them, through OpenTelemetry.
//!
//! What it is: series in, text out. Each scrape builds a fresh pipeline of observable instruments over the values of
//! that moment, because the SDK goes on exporting the last value of every label set that it has ever seen: a task that
//! moved to another instance would keep its lag here for ever. Histograms are counted in buckets where they happen;
//! OpenTelemetry has no observable instrument for such, so they join the exporter's output as they are.
//! What it is not: it holds no counter. What is counted lives where it happens (`metric::Counters`).

use std::collections::BTreeMap;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream};
use prometheus::proto::{Bucket, LabelPair, MetricFamily, MetricType};
use prometheus::{Encoder as _, Registry, TextEncoder};

use crate::metric::counters::{BUCKETS_MICROS, HistogramSnapshot};
use crate::metric::{Kind, Metric, Sample, SampleValue};

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// One series at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub metric: Metric,
    /// One per label of the metric, in its order.
    pub labels: Vec<String>,
    pub value: Reading,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// Of a counter or a gauge.
    Number(f64),
    Histogram(HistogramSnapshot),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("metrics cannot be set up: {reason}")]
    SetUp { reason: String },
    #[error("metrics cannot be written as text: {reason}")]
    Text { reason: String },
}

impl Series {
    pub fn number(metric: &Metric, labels: &[&str], value: f64) -> Self {
        let labels = labels.iter().map(ToString::to_string).collect();
        Self { metric: *metric, labels, value: Reading::Number(value) }
    }
}

impl From<Sample> for Series {
    fn from(sample: Sample) -> Self {
        let value = match sample.value {
            SampleValue::Counter(count) => Reading::Number(count as f64),
            SampleValue::Gauge(value) => Reading::Number(value as f64),
            SampleValue::Histogram(snapshot) => Reading::Histogram(snapshot),
        };
        Self { metric: sample.metric, labels: sample.labels, value }
    }
}

/// A metric's name as Prometheus spells it: underscores, the unit unless the name says it, `_total` after counters.
pub fn prometheus_name(metric: &Metric) -> String {
    let mut name = metric.name.replace('.', "_");
    let unit = match metric.unit {
        "By" => "bytes",
        "s" => "seconds",
        "ms" => "milliseconds",
        "us" => "microseconds",
        // Counts of things: `1`, `{record}`.
        _ => "",
    };
    if !unit.is_empty() && !name.split('_').any(|word| word == unit) {
        name.push('_');
        name.push_str(unit);
    }
    if metric.kind == Kind::Counter {
        name.push_str("_total");
    }
    name
}

/// The series as text, sorted by name.
pub fn render(series: Vec<Series>) -> Result<String, Error> {
    let mut numbers: BTreeMap<Metric, Vec<(f64, Vec<KeyValue>)>> = BTreeMap::new();
    let mut histograms: BTreeMap<Metric, Vec<prometheus::proto::Metric>> = BTreeMap::new();
    for Series { metric, labels, value } in series {
        let labels = metric.labels.iter().copied().zip(labels);
        match value {
            Reading::Number(value) => {
                let labels = labels.map(|(label, text)| KeyValue::new(label, text)).collect();
                numbers.entry(metric).or_default().push((value, labels));
            }
            Reading::Histogram(snapshot) => {
                histograms.entry(metric).or_default().push(histogram(labels, &snapshot));
            }
        }
    }
    let mut families = observed(numbers)?;
    families.extend(histograms.into_iter().map(|(metric, series)| {
        let mut family = MetricFamily::default();
        family.set_name(prometheus_name(&metric));
        family.set_help(metric.description.to_owned());
        family.set_field_type(MetricType::HISTOGRAM);
        family.set_metric(series);
        family
    }));
    families.sort_by(|left, right| left.name().cmp(right.name()));

    let mut text = Vec::new();
    TextEncoder::new().encode(&families, &mut text).map_err(|source| Error::Text { reason: source.to_string() })?;
    String::from_utf8(text).map_err(|source| Error::Text { reason: source.to_string() })
}

/// Counters and gauges, through instruments that are observed once.
fn observed(numbers: BTreeMap<Metric, Vec<(f64, Vec<KeyValue>)>>) -> Result<Vec<MetricFamily>, Error> {
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .without_counter_suffixes()
        .without_units()
        .without_target_info()
        .scope_info_enabled(false)
        .build()
        .map_err(|source| Error::SetUp { reason: source.to_string() })?;
    // One series more than there are, or the SDK folds what is beyond its limit of 2000 into one overflow series.
    let most = numbers.values().map(Vec::len).max().unwrap_or(0) + 1;
    let provider = SdkMeterProvider::builder()
        .with_reader(exporter)
        .with_resource(Resource::builder_empty().build())
        .with_view(move |_: &Instrument| Stream::builder().with_cardinality_limit(most).build().ok())
        .build();
    let meter = provider.meter("sidestream");
    for (metric, observations) in numbers {
        observe(&meter, &metric, observations);
    }
    Ok(registry.gather())
}

/// An instrument that reports these values when asked.
fn observe(meter: &Meter, metric: &Metric, observations: Vec<(f64, Vec<KeyValue>)>) {
    let name = prometheus_name(metric);
    match metric.kind {
        Kind::Counter => {
            let _instrument = meter
                .f64_observable_counter(name)
                .with_description(metric.description)
                .with_callback(move |observer| {
                    for (value, labels) in &observations {
                        observer.observe(*value, labels);
                    }
                })
                .build();
        }
        Kind::Gauge | Kind::Histogram => {
            let _instrument = meter
                .f64_observable_gauge(name)
                .with_description(metric.description)
                .with_callback(move |observer| {
                    for (value, labels) in &observations {
                        observer.observe(*value, labels);
                    }
                })
                .build();
        }
    }
}

fn histogram<'a>(
    labels: impl Iterator<Item = (&'a str, String)>,
    snapshot: &HistogramSnapshot,
) -> prometheus::proto::Metric {
    const MICROS_PER_SECOND: f64 = 1_000_000.0;
    let pairs = labels.map(|(label, text)| {
        let mut pair = LabelPair::default();
        pair.set_name(label.to_owned());
        pair.set_value(text);
        pair
    });
    let mut below = 0;
    let buckets = BUCKETS_MICROS.iter().zip(&snapshot.buckets).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound as f64 / MICROS_PER_SECOND);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = prometheus::proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(snapshot.count);
    histogram.set_sample_sum(snapshot.sum_micros as f64 / MICROS_PER_SECOND);
    let mut series = prometheus::proto::Metric::from_label(pairs.collect());
    series.set_histogram(histogram);
    series
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Series, prometheus_name, render};
    use crate::metric::{self, Counters};

    fn lag(partition: u32, value: f64) -> Series {
        Series::number(&metric::LAG, &["orders", &partition.to_string()], value)
    }

    #[test]
    fn counters_gauges_and_histograms_keep_their_labels_and_values() {
        let counters = Counters::default();
        counters.counter(&metric::RECORDS_READ, &["orders"]).add(12);
        counters.gauge(&metric::TASKS_OWNED, &[]).set(2);
        let durations = counters.histogram(&metric::COMMIT_DURATION, &["0"]);
        durations.record(Duration::from_millis(3));
        durations.record(Duration::from_secs(90));
        let text = render(counters.samples().into_iter().map(Series::from).collect()).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn names_say_their_unit_once_and_counters_end_in_total() {
        for (metric, name) in [
            (metric::RECORDS_READ, "sidestream_records_read_total"),
            (metric::BYTES_READ, "sidestream_bytes_read_total"),
            (metric::STATE_MEMORY, "sidestream_state_memory_bytes"),
            (metric::COMMIT_DURATION, "sidestream_commit_duration_seconds"),
            (metric::READY, "sidestream_ready"),
        ] {
            assert_eq!(prometheus_name(&metric), name);
        }
    }

    #[test]
    fn more_series_than_the_sdk_allows_by_default_are_all_exported() {
        let text = render((0..5_000).map(|partition| lag(partition, 1.0)).collect()).unwrap();
        assert_eq!(text.lines().filter(|line| line.starts_with("sidestream_lag{")).count(), 5_000);
        assert!(!text.contains("overflow"), "no series is folded away");
    }

    #[test]
    fn a_series_that_is_no_longer_sampled_is_no_longer_exported() {
        assert!(render(vec![lag(7, 1.0)]).unwrap().contains("\"7\""));
        assert!(!render(vec![lag(8, 1.0)]).unwrap().contains("\"7\""));
    }
}
