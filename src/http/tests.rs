//! Requests to the router, in process.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode};
use serde_json::Value as Json;
use tower::ServiceExt as _;

use super::router;
use crate::clock::ManualClock;
use crate::ids::{StoreId, SubTopologyId, TopicName};
use crate::runtime::View;
use crate::runtime::view::{Condition, Identity, Phase};
use crate::schema::{Column, Schema, Type};
use crate::topology::Plan;
use crate::topology::plan::{
    BackendKind, ChangelogPlan, Fingerprint, Guarantee, StoreKind, StorePlan, SubTopology, TablePlan,
};

fn table(name: &str, store: u32, key: &[(&str, Type)], windowed: bool, queryable: bool) -> TablePlan {
    let mut columns: Vec<Column> = key.iter().map(|(name, ty)| Column::new(name, ty.clone(), true)).collect();
    if windowed {
        columns.push(Column::new("window_start", Type::Timestamp, false));
    }
    let key = Schema::new(columns.clone());
    columns.push(Column::new("n", Type::Bigint, false));
    TablePlan {
        name: Arc::from(name),
        store: StoreId(store),
        key,
        schema: Schema::new(columns),
        view: Vec::new(),
        queryable,
        windowed,
        partitioning: None,
    }
}

fn plan() -> Plan {
    let tables = vec![
        table("spend", 0, &[("account", Type::String)], false, true),
        table("spend_per_hour", 1, &[("account", Type::String), ("country", Type::String)], true, true),
        table("sensors", 2, &[("id", Type::Bigint)], false, true),
        table("secret", 3, &[("id", Type::String)], false, false),
    ];
    let store = |table: &TablePlan| StorePlan {
        id: table.store,
        name: table.name.clone(),
        kind: if table.windowed { StoreKind::Window } else { StoreKind::KeyValue },
        key: table.key.clone(),
        value: Schema::new([Column::new("n", Type::Bigint, false)]),
        backend: BackendKind::Memory,
        changelog: ChangelogPlan::Own(TopicName::new(format!("fraud-{}-changelog", table.name))),
        sub_topology: SubTopologyId(0),
    };
    Plan {
        name: "fraud".to_owned(),
        description: None,
        guarantee: Guarantee::ExactlyOnce,
        sub_topologies: vec![SubTopology {
            id: SubTopologyId(0),
            name: "spend".to_owned(),
            sources: Vec::new(),
            nodes: Vec::new(),
            stores: tables.iter().map(|table| table.store).collect(),
            stateful: true,
        }],
        stores: tables.iter().map(store).collect(),
        tables,
        internal_topics: Vec::new(),
        dead_letters: TopicName::new("fraud.dead-letters"),
        fingerprint: Fingerprint::default(),
    }
}

fn view() -> Arc<View> {
    let view = View::new(Arc::new(plan()), ManualClock::at(1_769_860_800_000_000));
    view.set_identity(Identity { instance_id: "fraud-0".to_owned(), endpoint: "127.0.0.1:8088".to_owned() });
    view
}

struct Answer {
    status: StatusCode,
    content_type: String,
    retry_after: Option<String>,
    text: String,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

fn send(view: &Arc<View>, token: Option<&str>, request: Request<Body>) -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let response = router(view.clone(), token).oneshot(request).await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (status, content_type, retry_after) =
            (response.status(), header("content-type").unwrap_or_default(), header("retry-after"));
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, content_type, retry_after, text: String::from_utf8(bytes.to_vec()).unwrap() }
    })
}

fn get(view: &Arc<View>, path: &str) -> Answer {
    send(view, None, Request::get(path).body(Body::empty()).unwrap())
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, code: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
    assert_eq!(answer.content_type, "application/problem+json");
    let problem = answer.json();
    assert_eq!(problem["code"], code);
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
}

#[test]
fn health_is_answered_before_anything_has_started() {
    let answer = get(&view(), "/healthz");
    assert_eq!((answer.status, answer.json()["status"].as_str()), (StatusCode::OK, Some("alive")));
}

#[test]
fn readiness_says_what_is_waited_for_and_later_what_is_degraded() {
    let view = view();
    view.raise(Condition::KafkaUnreachable, "", "no broker answers at localhost:9092");
    let answer = get(&view, "/readyz");
    assert_problem(&answer, 503, "not_ready");
    assert!(answer.retry_after.is_some());
    let reason = &answer.json()["reasons"][0];
    assert_eq!(reason["code"], "kafka_unreachable");
    assert_eq!(reason["since"], "2026-01-31T12:00:00Z");

    view.set_phase(Phase::Running);
    let answer = get(&view, "/readyz");
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json()["degraded"][0]["code"], "kafka_unreachable");

    view.clear(Condition::KafkaUnreachable, "");
    assert_eq!(get(&view, "/readyz").json()["degraded"], serde_json::json!([]));
}

#[test]
fn paths_methods_and_bodies_that_are_not_taken_are_problems() {
    let view = view();
    assert_problem(&get(&view, "/v2/tables"), 404, "unknown_path");
    let post = Request::builder().method(Method::POST).uri("/v1/tables").body(Body::empty()).unwrap();
    assert_problem(&send(&view, None, post), 405, "method_not_allowed");
    let body = Request::get("/v1/tables").header("content-length", "2").body(Body::from("{}")).unwrap();
    assert_problem(&send(&view, None, body), 413, "body_not_allowed");
}

#[test]
fn a_token_is_needed_everywhere_but_for_probes_and_metrics() {
    let view = view();
    view.set_phase(Phase::Running);
    let with = |path: &str, token: &str| {
        let request = Request::get(path).header("authorization", format!("Bearer {token}"));
        send(&view, Some("s3cret"), request.body(Body::empty()).unwrap())
    };
    let without = |path: &str| send(&view, Some("s3cret"), Request::get(path).body(Body::empty()).unwrap());
    for path in ["/v1/info", "/v1/tables", "/v1/tables/spend/a", "/openapi.json", "/nowhere"] {
        assert_problem(&without(path), 401, "unauthorized");
        assert_problem(&with(path, "guess"), 401, "unauthorized");
        assert_ne!(with(path, "s3cret").status, StatusCode::UNAUTHORIZED);
    }
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(without(path).status, StatusCode::OK, "{path}");
    }
}

#[test]
fn metrics_are_prometheus_text() {
    let view = view();
    view.counters.counter(&crate::metric::RECORDS_READ, &["payments"]).add(3);
    let answer = get(&view, "/metrics");
    assert!(answer.content_type.starts_with("text/plain"), "{}", answer.content_type);
    assert!(answer.text.contains("sidestream_records_read_total{topic=\"payments\"} 3\n"), "{}", answer.text);
    assert!(answer.text.contains("sidestream_ready 0\n"), "{}", answer.text);
    assert!(answer.text.contains("process_resident_memory_bytes"), "{}", answer.text);
}

#[test]
fn tables_are_listed_with_their_keys_unless_they_are_hidden() {
    let tables = get(&view(), "/v1/tables").json()["tables"].clone();
    let names: Vec<&str> = tables.as_array().unwrap().iter().map(|table| table["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["spend", "spend_per_hour", "sensors"]);
    assert_eq!(tables[0]["path"], "/v1/tables/spend/{account}");
    assert_eq!(tables[1]["path"], r#"/v1/tables/spend_per_hour/{"account": ..., "country": ...}"#);
    assert_eq!(tables[1]["key"].as_array().unwrap().len(), 2, "window_start is not part of the path");
    assert_eq!(tables[2]["key"][0]["type"], "BIGINT");
}

#[test]
fn a_table_that_does_not_exist_or_is_hidden_is_not_found() {
    let view = view();
    for path in ["/v1/tables/spent/a", "/v1/tables/spent", "/v1/tables/secret/a", "/v1/tables/secret"] {
        let answer = get(&view, path);
        assert_problem(&answer, 404, "unknown_table");
        assert!(answer.text.contains("spend, spend_per_hour, sensors"), "{}", answer.text);
    }
}

#[test]
fn parameters_that_do_not_fit_are_refused() {
    let view = view();
    for path in [
        "/v1/tables/spend?limit=0",
        "/v1/tables/spend?limit=1001",
        "/v1/tables/spend?cursor=xyz",
        "/v1/tables/spend?form=1",
        "/v1/tables/spend?from=1",
        "/v1/tables/spend/a?from=1",
        "/v1/tables/spend_per_hour?from=yesterday",
        "/v1/tables/spend_per_hour?from=5&to=5",
    ] {
        assert_problem(&get(&view, path), 400, "malformed_parameter");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused_with_what_they_must_look_like() {
    let view = view();
    let answer = get(&view, "/v1/tables/sensors/seven");
    assert_problem(&answer, 400, "malformed_key");
    assert!(answer.text.contains("write the plain value of id BIGINT"), "{}", answer.text);
    for key in ["acct-7", "%7B%22account%22:%22a%22%7D", "%7B%22account%22:%22a%22,%22land%22:%22b%22%7D", "%5B1%5D"] {
        let answer = get(&view, &format!("/v1/tables/spend_per_hour/{key}"));
        assert_problem(&answer, 400, "malformed_key");
        assert!(answer.text.contains("write a JSON object of account STRING, country STRING"), "{}", answer.text);
    }
    assert_problem(&get(&view, "/v1/tables/spend/%FF"), 400, "malformed_key");
    for broken in ["%ZZ", "a%2", "%", "100%25%2x"] {
        let answer = get(&view, &format!("/v1/tables/spend/{broken}"));
        assert_problem(&answer, 400, "malformed_key");
        assert!(answer.json()["detail"].as_str().unwrap().contains("%25"), "{broken}");
    }
}

#[test]
fn the_interface_describes_every_path_with_schemas() {
    let document = get(&view(), "/openapi.json").json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    for path in [
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/info",
        "/v1/lag",
        "/v1/topology",
        "/v1/tables",
        "/v1/tables/{table}",
        "/v1/tables/{table}/{key}",
    ] {
        assert!(paths.iter().any(|known| *known == path), "{path} is described");
    }
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for name in ["RowAnswer", "RowsAnswer", "Problem", "Code", "InfoAnswer", "LagAnswer", "TablesAnswer", "Reason"] {
        assert!(schemas.contains_key(name), "{name} is described");
    }
    assert_eq!(schemas["RowAnswer"]["example"]["table"], "spend_per_account");
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[test]
fn info_lag_and_topology_describe_the_instance() {
    let view = view();
    let info = get(&view, "/v1/info").json();
    assert_eq!(info["name"], "fraud");
    assert_eq!(info["instance"], "fraud-0");
    assert_eq!(info["phase"], "starting");
    assert_eq!(get(&view, "/v1/lag").json()["inputs"], serde_json::json!([]));
    let topology = get(&view, "/v1/topology").json();
    assert_eq!(topology["sub_topologies"][0]["stores"][0], "spend");
    assert!(topology["mermaid"].as_str().unwrap().starts_with("flowchart"), "{topology}");
}
