//! `tests`, in the topology's file or beside it. Values are literals.

use super::super::diagnostic::Code;
use super::super::document::{Expect, ExpectTopic, Fault, Given, GivenRecords, TestCase};
use super::super::yaml::{Kind, Node, Scalar};
use super::{Fields, Reader};

impl Reader<'_> {
    pub(super) fn tests(&mut self, node: &Node) -> Vec<TestCase> {
        self.items(node, "`tests`").iter().filter_map(|item| self.test(item)).collect()
    }

    fn items<'n>(&mut self, node: &'n Node, what: &str) -> &'n [Node] {
        if let Kind::Sequence(items) = &node.kind {
            return items;
        }
        self.error(Code::BadValue, &node.span, format!("{what} must be a list, not {}", node.kind_name()), None);
        &[]
    }

    fn test(&mut self, node: &Node) -> Option<TestCase> {
        let fields = self.fields(node, "a test", &["name", "given", "expect", "faults", "partitions"], &[])?;
        let name = self.required(&fields, "a test", "name").and_then(|node| self.text(node, "`name`"));
        let given = self.required(&fields, "a test", "given").map(|node| self.items(node, "`given`"));
        let given = given.unwrap_or_default().iter().filter_map(|item| self.given(item)).collect();
        let expect = self.required(&fields, "a test", "expect").map(|node| self.items(node, "`expect`"));
        let expect = expect.unwrap_or_default().iter().filter_map(|item| self.expect(item)).collect();
        let faults = fields.get("faults").map(|node| self.items(node, "`faults`")).unwrap_or_default();
        let faults = faults.iter().filter_map(|item| self.fault(item)).collect();
        let partitions = fields.get("partitions").and_then(|node| self.count(node, "`partitions`"));
        Some(TestCase { name: name?.text, given, expect, faults, partitions, file: self.file, span: node.span.clone() })
    }

    fn given(&mut self, node: &Node) -> Option<Given> {
        let keys = [
            "stream",
            "table",
            "key",
            "value",
            "delete",
            "repeat",
            "every",
            "timestamp",
            "headers",
            "partition",
            "advance",
        ];
        let fields = self.fields(node, "`given`", &keys, &[])?;
        if let Some(advance) = fields.get("advance") {
            let by = self.duration(advance, "`advance`")?;
            return Some(Given::Advance { by, span: node.span.clone() });
        }
        let Some(source) = fields.get("stream").or_else(|| fields.get("table")) else {
            self.error(Code::MissingKey, &node.span, "`given` needs `stream`, `table` or `advance`", None);
            return None;
        };
        let source = self.text(source, "a stream or table")?;
        let delete = fields.get("delete").and_then(|node| self.boolean(node, "`delete`")).unwrap_or(false);
        let value = fields.get("value").map(Node::to_json);
        if delete == value.is_some() {
            let help = Some("a record has `value`, a tombstone has `key` and `delete: true`".to_owned());
            self.error(Code::Test, &node.span, "`given` needs either `value` or `delete: true`", help);
            return None;
        }
        let headers = match fields.get("headers").map(|node| (&node.kind, node)) {
            Some((Kind::Mapping(entries), _)) => entries
                .iter()
                .filter_map(|entry| Some((entry.key.text.clone(), entry.value.as_scalar()?.text.clone())))
                .collect(),
            Some((_, node)) => {
                self.error(Code::BadValue, &node.span, "`headers` must be a mapping", None);
                Vec::new()
            }
            None => Vec::new(),
        };
        Some(Given::Records(Box::new(GivenRecords {
            source,
            key: fields.get("key").map(Node::to_json),
            value,
            delete,
            repeat: fields.get("repeat").and_then(|node| self.unsigned(node, "`repeat`")).unwrap_or(1),
            every: fields.get("every").and_then(|node| self.duration(node, "`every`")),
            timestamp: fields.get("timestamp").map(Node::to_json),
            headers,
            partition: fields
                .get("partition")
                .and_then(|node| self.unsigned(node, "`partition`"))
                .and_then(|number| u32::try_from(number).ok()),
            span: node.span.clone(),
        })))
    }

    fn expect(&mut self, node: &Node) -> Option<Expect> {
        let keys = ["topic", "count", "contains", "exactly", "tombstones", "table", "rows", "nothing"];
        let fields = self.fields(node, "`expect`", &keys, &[])?;
        let span = node.span.clone();
        if let Some(nothing) = fields.get("nothing") {
            let topics = match &nothing.kind {
                Kind::Sequence(items) => items.iter().filter_map(|item| self.topic(item)).collect(),
                Kind::Scalar(_) | Kind::Mapping(_) => self.topic(nothing).into_iter().collect(),
            };
            return Some(Expect::Nothing { topics, span });
        }
        if let Some(table) = fields.get("table") {
            let table = self.text(table, "`table`");
            let rows = self.required(&fields, "`expect`", "rows").map(|node| self.literals(node, "`rows`"));
            return Some(Expect::Table { table: table?, rows: rows?, span });
        }
        let Some(topic) = fields.get("topic") else {
            self.error(Code::MissingKey, &span, "`expect` needs `topic`, `table` or `nothing`", None);
            return None;
        };
        let topic: Option<Scalar> = self.topic(topic);
        let expected = ExpectTopic {
            topic: topic?,
            count: fields.get("count").and_then(|node| self.unsigned(node, "`count`")),
            contains: self.literals_of(&fields, "contains").unwrap_or_default(),
            exactly: self.literals_of(&fields, "exactly"),
            tombstones: self.literals_of(&fields, "tombstones"),
            span,
        };
        Some(Expect::Topic(expected))
    }

    fn literals_of(&mut self, fields: &Fields<'_>, key: &str) -> Option<Vec<serde_json::Value>> {
        fields.get(key).map(|node| self.literals(node, &format!("`{key}`")))
    }

    fn literals(&mut self, node: &Node, what: &str) -> Vec<serde_json::Value> {
        self.items(node, what).iter().map(Node::to_json).collect()
    }

    fn fault(&mut self, node: &Node) -> Option<Fault> {
        let keys = ["crash_after", "rebalance_after", "duplicate_fetch_at"];
        let fields = self.fields(node, "a fault", &keys, &[])?;
        let (key, make): (&str, fn(u64) -> Fault) = if fields.get("crash_after").is_some() {
            ("crash_after", Fault::CrashAfter)
        } else if fields.get("rebalance_after").is_some() {
            ("rebalance_after", Fault::RebalanceAfter)
        } else if fields.get("duplicate_fetch_at").is_some() || fields.entries.is_empty() {
            ("duplicate_fetch_at", Fault::DuplicateFetchAt)
        } else {
            return None;
        };
        let at =
            self.required(&fields, "a fault", key).and_then(|node| self.unsigned(node, "the number of records"))?;
        Some(make(at))
    }
}
