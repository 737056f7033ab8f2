//! `to`: a topic, one rule, or a list of rules.

use super::super::diagnostic::Code;
use super::super::document::{At, RuleDef};
use super::super::yaml::{Kind, Node};
use super::Reader;

const KEYS: &[&str] = &["topic", "where", "otherwise", "key", "key_format", "value", "format", "headers"];
const LATER: &[&str] = &["subject", "schema"];

impl Reader<'_> {
    pub(super) fn sink(&mut self, node: &Node) -> At<Vec<RuleDef>> {
        let rules: Vec<RuleDef> = match &node.kind {
            Kind::Sequence(items) => {
                if items.is_empty() {
                    self.error(Code::BadValue, &node.span, "`to` must name a topic", None);
                }
                items.iter().filter_map(|item| self.rule(item)).collect()
            }
            Kind::Scalar(_) | Kind::Mapping(_) => self.rule(node).into_iter().collect(),
        };
        At { value: rules, span: node.span.clone() }
    }

    fn rule(&mut self, node: &Node) -> Option<RuleDef> {
        let mut rule = RuleDef {
            topic: super::Scalar::default(),
            condition: None,
            otherwise: false,
            key: None,
            key_format: None,
            value: None,
            format: None,
            headers: Vec::new(),
            span: node.span.clone(),
        };
        if matches!(node.kind, Kind::Scalar(_)) {
            rule.topic = self.topic(node)?;
            return Some(rule);
        }
        let fields = self.fields(node, "`to`", KEYS, LATER)?;
        let topic = self.required(&fields, "`to`", "topic");
        rule.condition = fields.get("where").and_then(|node| self.text(node, "`where`"));
        rule.otherwise = fields.get("otherwise").and_then(|node| self.boolean(node, "`otherwise`")).unwrap_or(false);
        rule.key = fields.get("key").and_then(|node| self.select_list(node, "`key`"));
        rule.key_format = fields.get("key_format").and_then(|node| self.format(node));
        rule.value = fields.get("value").and_then(|node| self.select_list(node, "`value`"));
        rule.format = fields.get("format").and_then(|node| self.format(node));
        rule.headers = fields.get("headers").and_then(|node| self.named(node, "`headers`")).unwrap_or_default();
        if let Some(condition) = rule.condition.as_ref().filter(|_| rule.otherwise) {
            let help = Some("`otherwise` takes what no `where` took".to_owned());
            self.error(Code::Clause, &condition.span, "`where` beside `otherwise`", help);
        }
        let topic = topic?;
        if matches!(topic.kind, Kind::Mapping(_)) {
            self.not_supported(&topic.span, "a dynamic `topic`");
            return None;
        }
        rule.topic = self.topic(topic)?;
        Some(rule)
    }
}
