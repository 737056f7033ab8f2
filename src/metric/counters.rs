//! The numbers behind the metrics: plain atomics, looked up once and then held by whoever counts.
//!
//! Invariant: a series, once made, lives as long as the process and never goes back (gauges are set, not kept here by
//! deltas).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::losses::Losses;
use super::{Kind, Metric};

/// Upper bounds of a histogram's buckets, in microseconds.
pub const BUCKETS_MICROS: [u64; 16] = [
    500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// All series of this process. Cheap to look at, not to look up: hold on to what `counter` returns.
#[derive(Debug, Default)]
pub struct Counters {
    /// The log lines that go with counts of records that did not come through.
    pub losses: Losses,
    series: RwLock<BTreeMap<(Metric, Vec<String>), Series>>,
}

#[derive(Clone, Debug)]
enum Series {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Arc<Histogram>),
}

/// Counts up. A clone counts on the same series.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Holds the last value.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One per bound of [`BUCKETS_MICROS`] and one for what is longer; not cumulative.
    buckets: [AtomicU64; BUCKETS_MICROS.len() + 1],
    count: AtomicU64,
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            buckets: self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            count: self.count.load(Ordering::Relaxed),
            sum_micros: self.sum_micros.load(Ordering::Relaxed),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// As in [`Histogram`]: one more than there are bounds, not cumulative.
    pub buckets: Vec<u64>,
    pub count: u64,
    pub sum_micros: u64,
}

impl HistogramSnapshot {
    /// The upper bound of the bucket that holds the quantile (`0.0..=1.0`); `None` while nothing was recorded.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
        let rank = (self.count as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64;
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket;
            if seen >= rank {
                let last = BUCKETS_MICROS[BUCKETS_MICROS.len() - 1];
                return Some(Duration::from_micros(BUCKETS_MICROS.get(index).copied().unwrap_or(last)));
            }
        }
        None
    }
}

/// One series as it stands now.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub metric: Metric,
    /// One per label of the metric, in its order.
    pub labels: Vec<String>,
    pub value: SampleValue,
}

#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    Counter(u64),
    Gauge(i64),
    Histogram(HistogramSnapshot),
}

impl Counters {
    pub fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The counter of these label values, made if it is new. `labels` has one value per label of the metric.
    pub fn counter(&self, metric: &Metric, labels: &[&str]) -> Counter {
        match self.find(metric, labels) {
            Series::Counter(counter) => counter,
            // A constant of another kind was passed: the count goes nowhere rather than into a wrong series.
            Series::Gauge(_) | Series::Histogram(_) => Counter::default(),
        }
    }

    pub fn gauge(&self, metric: &Metric, labels: &[&str]) -> Gauge {
        match self.find(metric, labels) {
            Series::Gauge(gauge) => gauge,
            Series::Counter(_) | Series::Histogram(_) => Gauge::default(),
        }
    }

    pub fn histogram(&self, metric: &Metric, labels: &[&str]) -> Arc<Histogram> {
        match self.find(metric, labels) {
            Series::Histogram(histogram) => histogram,
            Series::Counter(_) | Series::Gauge(_) => Arc::default(),
        }
    }

    /// Forgets the series of a metric: gauges of what is not owned any more.
    pub fn clear(&self, metric: &Metric) {
        self.series.write().retain(|(known, _), _| known != metric);
    }

    /// Everything, in a fixed order.
    pub fn samples(&self) -> Vec<Sample> {
        self.series
            .read()
            .iter()
            .map(|((metric, labels), series)| Sample {
                metric: *metric,
                labels: labels.clone(),
                value: match series {
                    Series::Counter(counter) => SampleValue::Counter(counter.value()),
                    Series::Gauge(gauge) => SampleValue::Gauge(gauge.value()),
                    Series::Histogram(histogram) => SampleValue::Histogram(histogram.snapshot()),
                },
            })
            .collect()
    }

    /// The sum of a counter over all its series.
    pub fn total(&self, metric: &Metric) -> u64 {
        let series = self.series.read();
        let counters = series.iter().filter(|((known, _), _)| known == metric);
        counters
            .map(|(_, series)| match series {
                Series::Counter(counter) => counter.value(),
                Series::Gauge(_) | Series::Histogram(_) => 0,
            })
            .sum()
    }

    fn find(&self, metric: &Metric, labels: &[&str]) -> Series {
        debug_assert_eq!(metric.labels.len(), labels.len(), "one value per label of {}", metric.name);
        let key = (*metric, labels.iter().map(ToString::to_string).collect::<Vec<_>>());
        if let Some(series) = self.series.read().get(&key) {
            return series.clone();
        }
        let made = match metric.kind {
            Kind::Counter => Series::Counter(Counter::default()),
            Kind::Gauge => Series::Gauge(Gauge::default()),
            Kind::Histogram => Series::Histogram(Arc::default()),
        };
        self.series.write().entry(key).or_insert(made).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counters, SampleValue};
    use crate::metric;

    #[test]
    fn the_same_labels_are_the_same_series() {
        let counters = Counters::default();
        counters.counter(&metric::RECORDS_READ, &["a"]).add(2);
        counters.counter(&metric::RECORDS_READ, &["a"]).add(3);
        counters.counter(&metric::RECORDS_READ, &["b"]).add(1);
        assert_eq!(counters.total(&metric::RECORDS_READ), 6);
        let samples = counters.samples();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[0].value, SampleValue::Counter(5));
    }

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let counters = Counters::default();
        let histogram = counters.histogram(&metric::COMMIT_DURATION, &["0"]);
        for millis in [1, 1, 1, 1, 1, 1, 1, 1, 1, 90] {
            histogram.record(Duration::from_millis(millis));
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.quantile(0.5), Some(Duration::from_millis(1)));
        assert_eq!(snapshot.quantile(0.99), Some(Duration::from_millis(100)));
    }

    #[test]
    fn metric_names_are_unique() {
        let mut names: Vec<&str> = metric::ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
