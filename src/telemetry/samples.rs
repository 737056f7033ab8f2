//! What a scrape sees of a running instance.
//!
//! Invariant: what depends on ownership (lag, watermarks) is taken from the view at the moment of the scrape, so that it
//! goes away together with the task.

use super::metrics::Series;
use super::process::ProcessUsage;
use crate::metric::{self, Metric};
use crate::runtime::View;

/// What is computed here rather than counted.
const COMPUTED: [Metric; 5] = [metric::LAG, metric::WATERMARK, metric::READY, metric::STATE_MEMORY, metric::STATE_DISK];

/// All series of this moment.
pub fn samples(view: &View) -> Vec<Series> {
    let counted = view.counters.samples().into_iter().filter(|sample| !COMPUTED.contains(&sample.metric));
    let mut series: Vec<Series> = counted.map(Series::from).collect();
    for input in view.lag() {
        if let Some(lag) = input.lag {
            let labels = [input.input.topic.as_str(), &input.input.partition.to_string()];
            series.push(Series::number(&metric::LAG, &labels, lag as f64));
        }
    }
    for task in view.tasks() {
        let Some(watermark) = task.watermark.filter(|watermark| *watermark != crate::ids::EventTime::MIN) else {
            continue;
        };
        let labels = [&*task.id.sub_topology.0.to_string(), &task.id.partition.to_string()];
        series.push(Series::number(&metric::WATERMARK, &labels, watermark.0 as f64));
    }
    let ready = if view.readiness().ready { 1.0 } else { 0.0 };
    series.push(Series::number(&metric::READY, &[], ready));
    if let Some(backend) = view.backend() {
        let usage = backend.usage();
        series.push(Series::number(&metric::STATE_MEMORY, &[], usage.memory_bytes as f64));
        series.push(Series::number(&metric::STATE_DISK, &[], usage.disk_bytes as f64));
    }
    series.extend(ProcessUsage::read().series());
    series
}
