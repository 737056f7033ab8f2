//! Reads over two instances that share an embedded log: rows, forwarding, scans over both.
//!
//! Everything is real but Kafka: the instances are turned by hand, each answers on a socket of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value as Json, json};
use tower::ServiceExt as _;

use super::forward::FORWARDED;
use super::router;
use super::server::{Listening, Server};
use crate::clock::ManualClock;
use crate::ids::{EventTime, TopicName};
use crate::log::memory::MemoryLog;
use crate::log::partitioner::partition_of;
use crate::log::{Cleanup, Leave, Log as _, NewTopic, OutgoingRecord};
use crate::runtime::instance::{Instance, InstanceSettings, Lifetime};
use crate::runtime::topics::TopicSettings;
use crate::runtime::view::{Owner, Phase, View};
use crate::store::budget::{MemoryBudget, StateOnDisk};
use crate::store::memory::Memory;
use crate::topology::{Plan, load_text};

const PARTITIONS: u32 = 4;
const TOPOLOGY: &str = r"
version: 1
name: spending
streams:
  payments:
    topic: payments
    key: {name: account, type: STRING}
    format: json
    columns: {amount: BIGINT NOT NULL, at: TIMESTAMP}
    timestamp: at
steps:
  spend:
    from: payments
    group_by: account
    aggregate: {n: COUNT(*), total: SUM(amount)}
    ttl: none
  hourly:
    from: payments
    window: {type: tumbling, size: 1h}
    group_by: account
    aggregate: {n: COUNT(*)}
";

struct Node {
    instance: Instance,
    view: Arc<View>,
    server: Option<Server>,
}

struct Cluster {
    log: MemoryLog,
    clock: Arc<ManualClock>,
    plan: Arc<Plan>,
    nodes: Vec<Node>,
}

impl Cluster {
    fn new() -> Self {
        let loaded = load_text("spending.yaml", TOPOLOGY, None, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let clock = ManualClock::at(1_767_225_600_000_000);
        let log = MemoryLog::new(clock.clone());
        let name = TopicName::new("payments");
        let cleanup = Cleanup::Delete;
        log.create_topic(&NewTopic { name, partitions: PARTITIONS, replication: None, cleanup, config: Vec::new() })
            .unwrap();
        Self { log, clock, plan: Arc::new(loaded.plan), nodes: Vec::new() }
    }

    /// Two instances that own two partitions each, know of each other, and expect `tokens`.
    fn of_two(tokens: [Option<&str>; 2]) -> Self {
        let mut cluster = Self::new();
        for (name, token) in ["one", "two"].into_iter().zip(tokens) {
            cluster.add(name, token);
        }
        cluster.turn_until(|cluster| {
            cluster.nodes.iter().all(|node| {
                let owners = node.view.owners(crate::ids::SubTopologyId(0));
                let known = owners.values().all(|owner| *owner != Owner::Unknown);
                let local = owners.values().filter(|owner| **owner == Owner::Local).count();
                node.view.phase() == Phase::Running && known && local == 2
            })
        });
        cluster
    }

    fn add(&mut self, name: &str, token: Option<&str>) {
        let view = View::new(self.plan.clone(), self.clock.clone());
        let server = Listening::bind("127.0.0.1:0").unwrap().serve(router(view.clone(), token)).unwrap();
        let instance = Instance::new(InstanceSettings {
            plan: self.plan.clone(),
            log: self.log.client(name).shared(),
            backend: Arc::new(Memory::new()),
            directory: None,
            clock: self.clock.clone(),
            view: view.clone(),
            instance_id: name.to_owned(),
            membership: Lifetime::Dynamic,
            endpoint: server.address().to_string(),
            workers: 1,
            budget: MemoryBudget::split(64 << 20, 1, StateOnDisk::None).unwrap(),
            commit_interval: Duration::from_millis(100),
            sync_max_wait: None,
            topics: TopicSettings { replication: None, create_outputs: true },
            on_stop: Leave::Now,
            shutdown_timeout: Duration::from_secs(10),
        });
        self.nodes.push(Node { instance, view, server: Some(server) });
    }

    /// Turns everybody and moves the clock on until the condition holds.
    #[track_caller]
    fn turn_until(&mut self, condition: impl Fn(&Self) -> bool) {
        for _step in 0..5_000 {
            let mut busy = true;
            while busy {
                busy = false;
                for node in &mut self.nodes {
                    busy |= node.instance.turn().unwrap();
                }
            }
            if condition(self) {
                return;
            }
            self.clock.advance(Duration::from_millis(20));
        }
        let readiness: Vec<_> = self.nodes.iter().map(|node| node.view.readiness()).collect();
        panic!("the condition does not come to hold: {readiness:?}");
    }

    /// Appends payments and waits until they are committed.
    fn pay(&mut self, payments: &[(&str, i64, i64)]) {
        for (account, amount, at) in payments {
            let value = json!({"amount": amount, "at": at}).to_string();
            let record = OutgoingRecord {
                key: Some(account.as_bytes()),
                value: Some(value.as_bytes()),
                timestamp: EventTime(*at),
                headers: &[],
            };
            self.log.append(&TopicName::new("payments"), partition_of(account.as_bytes(), PARTITIONS), record).unwrap();
        }
        self.turn_until(|cluster| {
            let inputs = cluster.nodes.iter().flat_map(|node| node.view.lag());
            let done = |lag: &crate::runtime::view::InputLag| {
                let end = cluster.log.last_stable_offset(&lag.input).unwrap();
                end.0 == 0 || lag.committed.is_some_and(|committed| committed >= end)
            };
            inputs.into_iter().all(|lag| done(&lag))
        });
    }

    fn send(&self, node: usize, token: Option<&str>, request: Request<Body>) -> (StatusCode, Json) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let response = router(self.nodes[node].view.clone(), token).oneshot(request).await.unwrap();
            let status = response.status();
            let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            (status, serde_json::from_slice(&bytes).unwrap())
        })
    }

    fn get(&self, node: usize, path: &str) -> (StatusCode, Json) {
        self.send(node, None, Request::get(path).body(Body::empty()).unwrap())
    }

    fn rows(&self, node: usize, path: &str) -> Json {
        let (status, answer) = self.get(node, path);
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer
    }

    /// The node that owns a key.
    fn owner_of(&self, account: &str) -> usize {
        let task = crate::ids::TaskId {
            sub_topology: crate::ids::SubTopologyId(0),
            partition: partition_of(account.as_bytes(), PARTITIONS),
        };
        self.nodes.iter().position(|node| node.view.owner(task) == Owner::Local).unwrap()
    }
}

fn accounts() -> Vec<String> {
    (0..20).map(|number| format!("acct-{number:02}")).collect()
}

fn payments(accounts: &[String]) -> Vec<(&str, i64, i64)> {
    accounts.iter().enumerate().map(|(number, account)| (&**account, i64::try_from(number).unwrap(), 1_000)).collect()
}

#[test]
fn any_instance_answers_for_any_key_and_says_who_served_it() {
    let mut cluster = Cluster::of_two([None, None]);
    let accounts = accounts();
    cluster.pay(&payments(&accounts));
    let mut served_by = BTreeSet::new();
    for (number, account) in accounts.iter().enumerate() {
        let path = format!("/v1/tables/spend/{account}");
        let (one, two) = (cluster.rows(0, &path), cluster.rows(1, &path));
        assert_eq!(one, two, "both instances give the same answer");
        assert_eq!(one["key"], json!({"account": account}));
        assert_eq!(one["row"], json!({"account": account, "n": 1, "total": number}));
        assert_eq!(one["position"].as_object().unwrap().len(), 1);
        served_by.insert(one["served_by"].as_str().unwrap().to_owned());
    }
    assert_eq!(served_by, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
    let (status, absent) = cluster.get(0, "/v1/tables/spend/nobody");
    assert_eq!((status.as_u16(), &absent["code"]), (404, &json!("key_not_found")));
}

#[test]
fn a_scan_asks_every_owner_and_pages_in_the_order_of_keys() {
    let mut cluster = Cluster::of_two([None, None]);
    let accounts = accounts();
    cluster.pay(&payments(&accounts));
    let all = cluster.rows(0, "/v1/tables/spend");
    assert_eq!(all["served_by"], json!(["one", "two"]));
    assert_eq!(all["cursor"], Json::Null);
    let keys = |answer: &Json| -> Vec<String> {
        let rows = answer["rows"].as_array().unwrap();
        rows.iter().map(|row| row["key"]["account"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(keys(&all), accounts);

    for limit in [1, 3, 20] {
        let (mut seen, mut path) = (Vec::new(), format!("/v1/tables/spend?limit={limit}"));
        loop {
            let page = cluster.rows(1, &path);
            assert!(page["rows"].as_array().unwrap().len() <= limit);
            seen.extend(keys(&page));
            let Some(cursor) = page["cursor"].as_str() else { break };
            path = format!("/v1/tables/spend?limit={limit}&cursor={cursor}");
        }
        assert_eq!(seen, accounts, "pages of {limit}");
    }
    assert_eq!(keys(&cluster.rows(0, "/v1/tables/spend?prefix=acct-1")), accounts[10..]);
    assert_eq!(keys(&cluster.rows(0, "/v1/tables/spend?prefix=x")), Vec::<String>::new());
}

#[test]
fn windows_of_a_key_are_chosen_by_their_start() {
    let mut cluster = Cluster::of_two([None, None]);
    const HOUR: i64 = 3_600_000;
    cluster.pay(&[("a", 1, 0), ("a", 1, HOUR), ("a", 1, HOUR + 5), ("b", 1, HOUR), ("a", 1, 2 * HOUR)]);
    for node in [0, 1] {
        let all = cluster.rows(node, "/v1/tables/hourly/a");
        let counts: Vec<&Json> = all["rows"].as_array().unwrap().iter().map(|row| &row["row"]["n"]).collect();
        assert_eq!(counts, [&json!(1), &json!(2), &json!(1)]);
        let some = cluster.rows(node, &format!("/v1/tables/hourly/a?from=1970-01-01T01:00:00Z&to={}", 2 * HOUR));
        assert_eq!(some["rows"].as_array().unwrap().len(), 1);
        assert_eq!(some["rows"][0]["key"], json!({"account": "a", "window_start": "1970-01-01T01:00:00Z"}));
        let first = cluster.rows(node, "/v1/tables/hourly/a?limit=2");
        assert_eq!(first["rows"].as_array().unwrap().len(), 2);
        let cursor = first["cursor"].as_str().unwrap();
        let second = cluster.rows(node, &format!("/v1/tables/hourly/a?limit=2&cursor={cursor}"));
        assert_eq!((second["rows"].as_array().unwrap().len(), &second["cursor"]), (1, &Json::Null));
        let (status, _) = cluster.get(node, &format!("/v1/tables/hourly/a?from={}", 9 * HOUR));
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    let scanned = cluster.rows(0, &format!("/v1/tables/hourly?from={HOUR}&to={}", 2 * HOUR));
    assert_eq!(scanned["rows"].as_array().unwrap().len(), 2);
}

#[test]
fn a_forwarded_request_is_never_forwarded_again() {
    let mut cluster = Cluster::of_two([None, None]);
    cluster.pay(&[("a", 1, 0)]);
    let elsewhere = 1 - cluster.owner_of("a");
    let request = Request::get("/v1/tables/spend/a").header(FORWARDED, "three").body(Body::empty()).unwrap();
    let (status, problem) = cluster.send(elsewhere, None, request);
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("rebalancing")));
}

#[test]
fn an_owner_that_does_not_answer_is_a_problem_that_is_worth_trying_again() {
    let mut cluster = Cluster::of_two([None, None]);
    cluster.pay(&[("a", 1, 0)]);
    let owner = cluster.owner_of("a");
    cluster.nodes[owner].server = None;
    for path in ["/v1/tables/spend/a", "/v1/tables/spend"] {
        let (status, problem) = cluster.get(1 - owner, path);
        assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("owner_unreachable")), "{path}");
    }
    assert_eq!(cluster.get(owner, "/v1/tables/spend/a").0, StatusCode::OK);
}

#[test]
fn forwarded_reads_carry_the_token() {
    let mut cluster = Cluster::of_two([Some("s3cret"), Some("s3cret")]);
    cluster.pay(&[("a", 1, 0)]);
    let elsewhere = 1 - cluster.owner_of("a");
    let request = |token: &str| {
        let request = Request::get("/v1/tables/spend/a").header("authorization", format!("Bearer {token}"));
        request.body(Body::empty()).unwrap()
    };
    let (status, answer) = cluster.send(elsewhere, Some("s3cret"), request("s3cret"));
    assert_eq!((status, &answer["row"]["n"]), (StatusCode::OK, &json!(1)));
    // An instance with another token is told apart from a caller with a wrong one.
    let (status, problem) = cluster.send(elsewhere, Some("other"), request("other"));
    assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("owner_unreachable")));
    assert!(problem["detail"].as_str().unwrap().contains("http_token"), "{problem}");
}

#[test]
fn reads_before_the_state_is_open_are_told_to_wait() {
    let mut cluster = Cluster::new();
    cluster.add("one", None);
    for path in ["/v1/tables/spend/a", "/v1/tables/spend"] {
        let (status, problem) = cluster.get(0, path);
        assert_eq!((status.as_u16(), &problem["code"]), (503, &json!("starting")), "{path}");
    }
}
