//! Whole files: what the planner makes of them, as text.

use super::graph::{GraphFormat, draw};
use super::*;

fn planned(text: &str) -> String {
    match load_text("test.yaml", text, None, &|_| None) {
        Ok(loaded) => draw(&loaded.plan, GraphFormat::Text),
        Err(problems) => panic!("{problems}"),
    }
}

#[test]
fn a_stateless_step_reads_only_the_columns_that_leave_it() {
    let text = planned(
        "
version: 1
name: pipe
streams:
  orders:
    topic: orders
    key: {name: id, type: BIGINT}
    columns: {amount: DOUBLE, note: STRING, country: STRING}
steps:
  large: {from: orders, where: amount > 10, select: amount * 2 AS twice, to: large}
",
    );
    assert!(text.contains("reads amount\n"), "{text}");
    assert!(text.contains("gives twice (and id) by id"), "{text}");
    assert!(text.contains("key id (kafka, passed through), value twice (json)"), "{text}");
    assert!(text.contains("task 0 (stateless)"), "{text}");
}

const ORDERS: &str = "
version: 1
name: shop
streams:
  orders: {topic: orders, key: {name: customer, type: STRING}, columns: {id: STRING, amount: DOUBLE, at: TIMESTAMP}}
";

fn plan_of(steps: &str) -> Plan {
    match load_text("test.yaml", &format!("{ORDERS}steps:\n{steps}"), None, &|_| None) {
        Ok(loaded) => loaded.plan,
        Err(problems) => panic!("{problems}"),
    }
}

fn repartition_topics(plan: &Plan) -> Vec<&str> {
    let topics = plan.internal_topics.iter().filter(|topic| topic.kind == plan::InternalTopicKind::Repartition);
    topics.map(|topic| topic.name.as_str()).collect()
}

#[test]
fn grouping_by_the_key_needs_no_repartition_topic() {
    let plan = plan_of("  totals: {from: orders, group_by: customer, aggregate: {n: COUNT(*)}, ttl: none}\n");
    assert_eq!(repartition_topics(&plan), Vec::<&str>::new());
    assert_eq!(plan.sub_topologies.len(), 1);
}

#[test]
fn grouping_by_another_column_goes_through_a_topic_named_after_the_step() {
    let plan = plan_of("  per_id: {from: orders, group_by: id, aggregate: {n: COUNT(*)}, ttl: none}\n");
    assert_eq!(repartition_topics(&plan), ["shop-per_id-repartition"]);
    assert_eq!(plan.sub_topologies.len(), 2);
    let upstream = plan.sub_topologies[1].sources[0].repartition.as_ref().map(|source| source.upstream);
    assert_eq!(upstream, Some(plan.sub_topologies[0].id));
}

#[test]
fn a_table_under_a_new_key_has_a_repartition_topic_and_a_store_of_its_own() {
    let text = "
version: 1
name: shop
tables:
  customers: {topic: customers, key: {name: customer, type: STRING}, columns: {country: STRING, level: INT}}
steps:
  by_country: {from: customers, key_by: {by: country, partitions: 3}}
";
    let plan = load_text("test.yaml", text, None, &|_| None).unwrap().plan;
    assert_eq!(repartition_topics(&plan), ["shop-by_country-repartition"]);
    assert_eq!(plan.internal_topics[0].partitions, Some(3));
    let behind = &plan.sub_topologies[1];
    assert!(matches!(behind.sources[0].readers[0].kind, plan::ReaderKind::TableChanges));
    let plan::OperatorPlan::Materialize(kept) = &behind.nodes[0].operator else { panic!("{:?}", behind.nodes) };
    assert_eq!((&kept.key[..], &kept.former_key[..]), (&[1][..], &[0][..]));
    let table = plan.tables.iter().find(|table| &*table.name == "by_country").unwrap();
    assert_eq!(table.key, plan.stores[kept.store.index()].key);
    assert!(plan.fingerprint.lines.contains(&"store by_country table(country STRING)".to_owned()));
    let unchanged = text.replace("{by: country, partitions: 3}", "customer");
    let plan = load_text("test.yaml", &unchanged, None, &|_| None).unwrap().plan;
    assert_eq!(repartition_topics(&plan), Vec::<&str>::new(), "the key is the same");
}

#[test]
fn grouping_a_stream_without_a_declared_key_by_its_key_needs_no_repartition_topic() {
    let plan = |by: &str| {
        let text = format!(
            "version: 1\nname: shop\nstreams:\n  orders: {{topic: orders, columns: {{id: STRING}}}}\nsteps:\n  \
             totals: {{from: orders, group_by: {by}, aggregate: {{n: COUNT(*)}}, ttl: none}}\n"
        );
        load_text("test.yaml", &text, None, &|_| None).unwrap().plan
    };
    assert_eq!(repartition_topics(&plan("_key")), Vec::<&str>::new());
    assert_eq!(repartition_topics(&plan("_key AS owner")), Vec::<&str>::new());
    assert_eq!(repartition_topics(&plan("CAST(_key AS STRING) AS owner")), ["shop-totals-repartition"]);
}

#[test]
fn closed_windows_are_forwarded_by_the_aggregate_itself_without_a_second_store() {
    let plan = plan_of(
        "  hourly: {from: orders, window: {type: tumbling, size: 1h}, group_by: customer, aggregate: {n: COUNT(*)}, \
         having: n > 1, to: changes}\n  closed: {from: hourly, select: customer, emit: final, to: out}\n",
    );
    let nodes = &plan.sub_topologies[0].nodes;
    let plan::OperatorPlan::Aggregate(aggregate) = &nodes[0].operator else { panic!("{nodes:?}") };
    let [plan::Edge { to, .. }] = aggregate.closed[..] else { panic!("{:?}", aggregate.closed) };
    assert!(matches!(nodes[to.index()].operator, plan::OperatorPlan::Filter(_)), "its own `having` comes first");
    assert_ne!(nodes[0].next, aggregate.closed);
    let windows = plan.stores.iter().filter(|store| store.kind == plan::StoreKind::Window);
    assert_eq!(windows.count(), 1);
    let closed = plan.tables.iter().find(|table| &*table.name == "closed").unwrap();
    assert_eq!(closed.store, aggregate.store);
}

#[test]
fn a_renamed_step_keeps_the_names_of_its_state() {
    let steps =
        "  per_id: {from: orders, group_by: id, aggregate: {n: COUNT(*)}, ttl: none}\nrename: {a: b, b: per_id}\n";
    let plan = plan_of(steps);
    assert_eq!(repartition_topics(&plan), ["shop-a-repartition"]);
    assert!(plan.stores.iter().any(|store| &*store.name == "a"));
    assert_eq!(&*plan.tables[0].name, "per_id");
}

#[test]
fn the_fingerprint_does_not_depend_on_the_order_of_keys() {
    let (a, b) = (
        "  a: {from: orders, group_by: id, aggregate: {n: COUNT(*)}, ttl: none}\n",
        "  b: {from: orders, over: {range: 1h, aggregate: {n: COUNT(*)}}, to: out}\n",
    );
    let one = plan_of(&format!("{a}{b}")).fingerprint;
    let other = plan_of(&format!("{b}{a}")).fingerprint;
    assert_eq!(one, other);
    assert!(one.lines.contains(&"store b-over list(customer STRING)".to_owned()), "{one:?}");
}

#[test]
fn a_windows_retention_is_a_day_beyond_its_close_unless_it_is_said() {
    let window = |more: &str| {
        let steps = format!(
            "  w: {{from: orders, window: {{type: tumbling, size: 1m, grace: 5s}}, group_by: customer, \
             aggregate: {{n: COUNT(*)}}{more}}}\n"
        );
        let plan = plan_of(&steps);
        plan.sub_topologies[0].nodes.iter().find_map(|node| match &node.operator {
            plan::OperatorPlan::Aggregate(aggregate) => aggregate.window,
            _ => None,
        })
    };
    assert_eq!(window("").unwrap().retention_ms, 60_000 + 5_000 + 86_400_000);
    assert_eq!(window(", retention: 7d").unwrap().retention_ms, 7 * 86_400_000);
}

#[test]
fn tests_beside_the_file_are_read_and_their_mistakes_point_there() {
    let text = format!("{ORDERS}steps:\n  copy: {{from: orders, to: out}}\n");
    let tests = "tests:\n  - name: beside\n    given: [{stream: orders, value: {id: x}}]\n    expect: [{nothing: [shop.dead-letters]}]\n";
    let loaded = load_text("t.yaml", &text, Some(("t.test.yaml", tests)), &|_| None).unwrap();
    assert_eq!(loaded.document.tests.len(), 1);
    let wrong = tests.replace("stream: orders", "stream: order");
    let problems = load_text("t.yaml", &text, Some(("t.test.yaml", &wrong)), &|_| None).unwrap_err();
    let said = problems.render(Look::Plain);
    assert!(said.starts_with("t.test.yaml:3:22 tests[0].given[0].stream"), "{said}");
}

#[test]
fn the_environment_fills_in_names_and_numbers() {
    let text = r#"
version: 1
name: ${APP}
streams:
  orders: {topic: '${PREFIX:test}.orders', columns: {id: STRING, n: INT}}
steps:
  copy: {from: orders, where: "n > ${LEAST:3}", to: out}
"#;
    let loaded = load_text("t.yaml", text, None, &|name| (name == "APP").then(|| "shop".to_owned())).unwrap();
    assert_eq!(loaded.plan.name, "shop");
    assert_eq!(loaded.plan.sub_topologies[0].sources[0].topic.as_str(), "test.orders");
    assert!(draw(&loaded.plan, GraphFormat::Text).contains("filter n > 3"));
}

#[test]
fn a_graph_names_every_topic_and_step_in_each_form() {
    let plan = plan_of("  per_id: {from: orders, group_by: id, aggregate: {n: COUNT(*)}, ttl: none, to: out}\n");
    for format in [GraphFormat::Text, GraphFormat::Mermaid, GraphFormat::Dot] {
        let drawn = draw(&plan, format);
        for name in ["orders", "per_id", "shop-per_id-repartition", "out"] {
            assert!(drawn.contains(name), "{name} is not in {drawn}");
        }
    }
}
