//! A small application for tests of `sidestream run`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use sidestream::log::Cleanup;

use super::cluster::{Feeder, Instance, Kafka, latest};

pub const PARTITIONS: u32 = 2;
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const START_MS: i64 = 1_767_225_600_000;

/// An application of a name of its own, which copies orders and counts them per customer.
pub struct Shop {
    pub kafka: Kafka,
    pub name: String,
    pub directory: tempfile::TempDir,
}

impl Shop {
    pub fn new(brokers: String) -> Self {
        let name = format!("shop_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        Self { kafka: Kafka::new(brokers), name, directory: tempfile::tempdir().unwrap() }
    }

    pub fn topic(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    pub fn create_topics(&self) {
        for topic in ["orders", "copies", "counts"] {
            self.kafka.create(&self.topic(topic), PARTITIONS, Cleanup::Delete);
        }
    }

    /// `head`: further lines at the top level.
    pub fn topology(&self, head: &str) -> PathBuf {
        self.topology_of("number: BIGINT NOT NULL", head)
    }

    /// With these columns of an order.
    pub fn topology_of(&self, columns: &str, head: &str) -> PathBuf {
        let name = &self.name;
        let text = format!(
            r"
version: 1
name: {name}
{head}
streams:
  orders:
    topic: {name}.orders
    key: {{name: customer, type: STRING}}
    format: json
    columns: {{{columns}}}
steps:
  copies:
    from: orders
    to: {name}.copies
  counts:
    from: orders
    group_by: customer
    aggregate: {{n: COUNT(*)}}
    ttl: none
    to: {name}.counts
"
        );
        let path = self.directory.path().join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn start(&self, topology: &Path) -> Instance {
        Instance::start(&self.kafka, topology, self.directory.path(), &self.name, &[])
    }

    pub fn state_directory(&self) -> PathBuf {
        self.directory.path().join(format!("state-{}", self.name))
    }

    pub fn feeder(&self) -> Feeder {
        Feeder::new(&self.kafka, &self.topic("orders"), PARTITIONS)
    }

    /// The numbers of the copies, in no order.
    pub fn copies(&self) -> Vec<i64> {
        let rows = self.kafka.read_all(&self.topic("copies"));
        rows.into_iter().map(|row| row.value.unwrap()["number"].as_i64().unwrap()).collect()
    }

    /// The sum over the last count of each customer.
    pub fn counted(&self) -> i64 {
        let rows = self.kafka.read_all(&self.topic("counts"));
        latest(&rows).values().map(|row| row["n"].as_i64().unwrap()).sum()
    }
}

/// Sends orders with these numbers, of ten customers.
pub fn send(feeder: &mut Feeder, numbers: std::ops::Range<i64>) {
    for number in numbers {
        feeder.send(&format!("customer-{}", number % 10), &json!({"number": number}).to_string(), START_MS + number);
    }
}
