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
