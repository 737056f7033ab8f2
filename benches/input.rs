//! What the programs read: transactions, and the accounts that they are joined with.

use std::fmt::Write;

use sidestream::log::partitioner::partition_of;

use crate::client::Producer;

pub const PARTITIONS: usize = 4;
/// Keys, drawn at random with equal probability.
pub const ACCOUNTS: u32 = 100_000;
/// How fast event time passes: so many records per second of it.
const RECORDS_PER_SECOND: u64 = 30_000;
/// 2026-01-01T00:00:00Z
const START_MS: i64 = 1_767_225_600_000;
const SEED: u64 = 1;

/// One transaction of about 200 bytes.
pub struct Transaction {
    pub account: String,
    pub value: String,
    pub at_ms: i64,
}

/// The same ones on every run.
pub struct Transactions {
    random: fastrand::Rng,
    number: u64,
    current: Transaction,
}

impl Transactions {
    pub fn new() -> Self {
        let current = Transaction { account: String::new(), value: String::new(), at_ms: START_MS };
        Self { random: fastrand::Rng::with_seed(SEED), number: 0, current }
    }

    /// `id` is the transaction's.
    pub fn next(&mut self, id: u64) -> &Transaction {
        let random = &mut self.random;
        let Transaction { account, value, at_ms } = &mut self.current;
        *at_ms = START_MS + i64::try_from(self.number * 1000 / RECORDS_PER_SECOND).unwrap();
        self.number += 1;
        write_account(account, random.u32(..ACCOUNTS));
        value.clear();
        let cents = random.u32(100..100_000);
        let (whole, part) = (cents / 100, cents % 100);
        let merchant = random.u32(..1000);
        let country = COUNTRIES[random.usize(..COUNTRIES.len())];
        let (latitude, longitude) = (random.u32(350_000..600_000), random.u32(10_000..300_000));
        let _infallible = write!(
            value,
            "{{\"id\":\"t-{id:010}\",\"amount\":{whole}.{part:02},\"merchant\":\"merchant-{merchant:04}\",\
             \"country\":\"{country}\",\"currency\":\"EUR\",\"lat\":{}.{:04},\"lon\":{}.{:04},\
             \"device\":\"ios-26.1-iPhone17,2\",\"terminal\":\"pos-{:05}\",\"at\":{at_ms}}}",
            latitude / 10_000,
            latitude % 10_000,
            longitude / 10_000,
            longitude % 10_000,
            merchant * 7,
        );
        &self.current
    }
}

const COUNTRIES: [&str; 8] = ["DE", "FR", "IT", "ES", "NL", "PL", "SE", "AT"];

fn write_account(account: &mut String, number: u32) {
    account.clear();
    let _infallible = write!(account, "acct-{number:06}");
}

/// Where any client puts the account's records.
pub fn partition(account: impl AsRef<[u8]>) -> usize {
    partition_of(account.as_ref(), u32::try_from(PARTITIONS).unwrap()).0 as usize
}

/// Writes transactions; returns their mean size in bytes.
pub fn fill_transactions(brokers: &str, topic: &str, records: u64) -> f64 {
    let producer = Producer::plain(brokers, "20");
    let topic = producer.topic(topic);
    let mut transactions = Transactions::new();
    let mut bytes = 0;
    for id in 0..records {
        let Transaction { account, value, at_ms } = transactions.next(id);
        bytes += value.len();
        producer.send(&topic, partition(account), account.as_bytes(), value.as_bytes(), *at_ms);
    }
    producer.flush();
    bytes as f64 / records as f64
}

/// Writes one row per account, older than every transaction.
pub fn fill_accounts(brokers: &str, topic: &str) {
    let producer = Producer::plain(brokers, "20");
    let topic = producer.topic(topic);
    let mut account = String::new();
    for number in 0..ACCOUNTS {
        write_account(&mut account, number);
        let home = COUNTRIES[number as usize % COUNTRIES.len()];
        let value = format!("{{\"home\":\"{home}\",\"tier\":\"tier-{}\"}}", number % 5);
        producer.send(&topic, partition(&account), account.as_bytes(), value.as_bytes(), START_MS - 1000);
    }
    producer.flush();
}
