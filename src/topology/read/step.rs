//! `steps`: one function per clause. A clause that the language has and this version lacks is in `LATER`.

use std::time::Duration;

use super::super::diagnostic::Code;
use super::super::document::{
    AsDef, At, GroupByDef, InputDef, JoinDef, KeyByDef, OverDef, OverSpecDef, StepDef, TtlDef, WindowDef,
};
use super::super::plan::{Emit, Frame, JoinKind};
use super::super::yaml::{Entry, Kind, Node, Scalar};
use super::{Fields, Reader, millis};

const KEYS: &[&str] = &[
    "from",
    "join",
    "where",
    "key_by",
    "over",
    "window",
    "group_by",
    "aggregate",
    "having",
    "select",
    "emit",
    "ttl",
    "to",
    "as",
    "late",
    "on_error",
    "retention",
    "query",
    "keep_empty",
];
const LATER: &[&str] = &["flatten", "dedupe", "match", "top", "absent", "predict", "delete_where"];

/// Records of an `over` are kept for this much longer than its range, unless it says otherwise.
const DEFAULT_OVER_GRACE: Duration = Duration::from_hours(1);

impl Reader<'_> {
    pub(super) fn steps(&mut self, node: &Node) -> Vec<StepDef> {
        let Kind::Mapping(entries) = &node.kind else {
            let message = format!("`steps` must be a mapping of names, not {}", node.kind_name());
            self.error(Code::BadValue, &node.span, message, None);
            return Vec::new();
        };
        let mut steps = Vec::new();
        for entry in entries {
            match self.step(entry) {
                Some(step) => steps.push(step),
                None => self.unreadable.push(entry.key.text.clone()),
            }
        }
        steps
    }

    fn step(&mut self, entry: &Entry) -> Option<StepDef> {
        let before = self.problems.len();
        self.name(&entry.key, "a step");
        let fields = self.fields(&entry.value, "a step", KEYS, LATER)?;
        let from = self.required(&fields, "a step", "from").map(|node| self.from(node)).unwrap_or_default();
        let over = fields.get("over").map(|node| self.over(node));
        let mut step = StepDef {
            name: entry.key.clone(),
            from,
            joins: fields.get("join").map(|node| self.joins(node)).unwrap_or_default(),
            filter: self.expression(&fields, "where"),
            key_by: fields.get("key_by").and_then(|node| self.key_by(node)),
            over,
            window: fields.get("window").and_then(|node| self.window(node)),
            group_by: fields.get("group_by").and_then(|node| self.group_by(node)),
            aggregate: fields.get("aggregate").and_then(|node| {
                let value = self.named(node, "`aggregate`")?;
                Some(At { value, span: node.span.clone() })
            }),
            having: self.expression(&fields, "having"),
            select: fields.get("select").and_then(|node| self.select_list(node, "`select`")),
            emit: fields.get("emit").and_then(|node| self.emit(node)),
            ttl: fields.get("ttl").and_then(|node| self.ttl(node)),
            to: fields.get("to").map(|node| self.sink(node)),
            shape: fields.get("as").and_then(|node| self.shape(node)),
            late: self.late(fields.get("late")),
            on_error: self.on_error(fields.get("on_error")),
            retention: fields.get("retention").and_then(|node| {
                let value = self.duration(node, "`retention`")?;
                Some(At { value, span: node.span.clone() })
            }),
            query: fields.get("query").and_then(|node| self.boolean(node, "`query`")).unwrap_or(true),
            keep_empty: fields.get("keep_empty").and_then(|node| {
                let value = self.boolean(node, "`keep_empty`")?;
                Some(At { value, span: node.span.clone() })
            }),
            incomplete: false,
        };
        step.incomplete = self.problems.len() > before;
        Some(step)
    }

    fn expression(&mut self, fields: &Fields<'_>, key: &str) -> Option<Scalar> {
        fields.get(key).and_then(|node| self.text(node, &format!("`{key}`")))
    }

    /// A name, `name AS alias`, or a list of them.
    fn from(&mut self, node: &Node) -> Vec<InputDef> {
        match &node.kind {
            Kind::Sequence(items) => {
                if items.is_empty() {
                    self.error(Code::BadValue, &node.span, "`from` must name an input", None);
                }
                items.iter().filter_map(|item| self.input(item)).collect()
            }
            Kind::Scalar(_) | Kind::Mapping(_) => self.input(node).into_iter().collect(),
        }
    }

    fn input(&mut self, node: &Node) -> Option<InputDef> {
        let text = self.text(node, "`from`")?;
        let words: Vec<At<String>> = words_of(&text);
        match words.as_slice() {
            [name] => Some(InputDef { name: name.clone(), alias: None }),
            [name, between, alias] if between.value.eq_ignore_ascii_case("as") => {
                Some(InputDef { name: name.clone(), alias: Some(alias.clone()) })
            }
            _ => {
                let help = Some("write a name, `name AS alias`, or a list of names".to_owned());
                self.error(Code::BadValue, &text.span, format!("`from: {}` is not an input", text.text), help);
                None
            }
        }
    }

    fn joins(&mut self, node: &Node) -> Vec<JoinDef> {
        match &node.kind {
            Kind::Sequence(items) => items.iter().filter_map(|item| self.join(item)).collect(),
            Kind::Mapping(_) => self.join(node).into_iter().collect(),
            Kind::Scalar(_) => {
                let help =
                    Some("write `join: [{with: accounts, \"on\": orders.account = accounts.account}]`".to_owned());
                self.error(Code::BadValue, &node.span, "`join` must be a list of mappings", help);
                Vec::new()
            }
        }
    }

    fn join(&mut self, node: &Node) -> Option<JoinDef> {
        let fields = self.fields(node, "a join", &["with", "as", "type", "on"], &["as_of", "within", "index"])?;
        let kinds = [("inner", JoinKind::Inner), ("left", JoinKind::Left)];
        let kind = fields
            .get("type")
            .map_or(Some(JoinKind::Inner), |node| self.word(node, "type", &kinds, &["right", "full"]));
        let with = self.required(&fields, "a join", "with").and_then(|node| self.text(node, "`with`"));
        let on = self.required(&fields, "a join", "on").and_then(|node| self.text(node, "`on`"));
        let alias = fields.get("as").and_then(|node| self.text(node, "`as`"));
        if ["as_of", "within", "index"].iter().any(|key| fields.get(key).is_some()) {
            return None;
        }
        Some(JoinDef { with: with?, alias, kind: kind?, on: on?, span: node.span.clone() })
    }

    /// A select list, or `{by, partitions}`.
    fn key_by(&mut self, node: &Node) -> Option<KeyByDef> {
        if !matches!(node.kind, Kind::Mapping(_)) {
            return Some(KeyByDef { by: self.select_list(node, "`key_by`")?, partitions: None });
        }
        let fields = self.fields(node, "`key_by`", &["by", "partitions"], &[])?;
        let by = self.required(&fields, "`key_by`", "by").and_then(|node| self.select_list(node, "`by`"));
        let partitions = fields.get("partitions").and_then(|node| self.count(node, "`partitions`"));
        Some(KeyByDef { by: by?, partitions })
    }

    /// One specification, or a list of them with the same `by`.
    fn over(&mut self, node: &Node) -> OverDef {
        let nodes: Vec<&Node> = match &node.kind {
            Kind::Sequence(items) => items.iter().collect(),
            Kind::Mapping(_) | Kind::Scalar(_) => vec![node],
        };
        let mut over = OverDef { by: None, specs: Vec::new(), grace: DEFAULT_OVER_GRACE, span: node.span.clone() };
        for (index, item) in nodes.into_iter().enumerate() {
            let keys = ["by", "range", "rows", "aggregate", "exclude_current", "grace"];
            let Some(fields) = self.fields(item, "`over`", &keys, &["order"]) else { continue };
            let by = fields.get("by").and_then(|node| self.select_list(node, "`by`"));
            if index == 0 {
                over.by = by;
            } else if let Some(by) = by.filter(|by| over.by.as_ref().is_none_or(|first| first.text != by.text)) {
                let help = Some("put another `by` into a step of its own".to_owned());
                self.error(Code::Clause, &by.span, "all specifications of an `over` have one `by`", help);
            }
            if let Some(grace) = fields.get("grace").and_then(|node| self.duration(node, "`grace`")) {
                over.grace = grace;
            }
            let exclude_current =
                fields.get("exclude_current").and_then(|node| self.boolean(node, "`exclude_current`")).unwrap_or(false);
            let aggregate =
                self.required(&fields, "`over`", "aggregate").and_then(|node| self.named(node, "`aggregate`"));
            let Some(aggregate) = aggregate else { continue };
            let only_lags = aggregate.iter().all(|call| {
                call.expression.text.trim_start().get(..3).is_some_and(|name| name.eq_ignore_ascii_case("lag"))
            });
            let frame = self.frame(&fields, only_lags);
            if let Some(frame) = frame {
                over.specs.push(OverSpecDef { frame, exclude_current, aggregate, span: item.span.clone() });
            }
        }
        over
    }

    fn frame(&mut self, fields: &Fields<'_>, only_lags: bool) -> Option<Frame> {
        let unbounded = |node: &Node| node.as_scalar().is_some_and(|scalar| scalar.text == "unbounded");
        match (fields.get("range"), fields.get("rows")) {
            (Some(_), Some(rows)) => {
                let help = Some("use two specifications, in a list".to_owned());
                self.error(Code::Clause, &rows.span, "`rows` beside `range`", help);
                None
            }
            (range, rows) if range.or(rows).is_some_and(unbounded) => Some(Frame::Unbounded),
            (Some(node), None) => {
                let range = self.span_of_time(node, "`range`")?;
                Some(Frame::Range { ms: millis(range) })
            }
            (None, Some(node)) => {
                let rows = self.count(node, "`rows`")?;
                Some(Frame::Rows { n: rows as usize })
            }
            (None, None) if only_lags => Some(Frame::Rows { n: 1 }),
            (None, None) => {
                let help = Some("`range: 1h`, `rows: 20` or `range: unbounded`".to_owned());
                let span = super::first_line(&fields.span, fields.entries);
                self.error(Code::MissingKey, &span, "`over` needs `range` or `rows`", help);
                None
            }
        }
    }

    fn window(&mut self, node: &Node) -> Option<WindowDef> {
        let later = ["gap", "advance", "step"];
        let fields = self.fields(node, "`window`", &["type", "size", "grace", "offset"], &later)?;
        let types = ["hopping", "session", "cumulative", "sliding", "rolling"];
        let ty = self.required(&fields, "`window`", "type")?;
        self.word(ty, "window type", &[("tumbling", ())], &types)?;
        let size = self.required(&fields, "`window`", "size").and_then(|node| self.span_of_time(node, "`size`"))?;
        let grace = fields.get("grace").and_then(|node| self.duration(node, "`grace`")).unwrap_or_default();
        let offset = fields.get("offset").and_then(|node| self.duration(node, "`offset`")).unwrap_or_default();
        Some(WindowDef { size, grace, offset, span: node.span.clone() })
    }

    fn group_by(&mut self, node: &Node) -> Option<GroupByDef> {
        if let Kind::Sequence(items) = &node.kind
            && items.is_empty()
        {
            return Some(GroupByDef::Global(node.span.clone()));
        }
        self.select_list(node, "`group_by`").map(GroupByDef::By)
    }

    fn emit(&mut self, node: &Node) -> Option<At<Emit>> {
        if let Kind::Mapping(entries) = &node.kind
            && entries.iter().any(|entry| entry.key.text == "every")
        {
            self.not_supported(&node.span, "`emit: {every}`");
            return None;
        }
        let words = [("each", Emit::Each), ("changes", Emit::Changes), ("final", Emit::Final)];
        let value = self.word(node, "emit", &words, &[])?;
        Some(At { value, span: node.span.clone() })
    }

    /// `30d`, `none`, or `{after: 30d, downstream: keep}`.
    fn ttl(&mut self, node: &Node) -> Option<At<TtlDef>> {
        let value = if node.as_scalar().is_some_and(|scalar| scalar.text == "none") {
            TtlDef::Forever
        } else if matches!(node.kind, Kind::Mapping(_)) {
            let fields = self.fields(node, "`ttl`", &["after", "downstream"], &[])?;
            let after = self.required(&fields, "`ttl`", "after").and_then(|node| self.span_of_time(node, "`after`"))?;
            let words = [("delete", true), ("keep", false)];
            let downstream =
                fields.get("downstream").map_or(Some(true), |node| self.word(node, "downstream", &words, &[]))?;
            TtlDef::After { after, downstream }
        } else {
            TtlDef::After { after: self.span_of_time(node, "`ttl`")?, downstream: true }
        };
        Some(At { value, span: node.span.clone() })
    }

    /// `table`, `stream`, or `{table: {latest: at}}`.
    fn shape(&mut self, node: &Node) -> Option<At<AsDef>> {
        let span = node.span.clone();
        if matches!(node.kind, Kind::Mapping(_)) {
            let fields = self.fields(node, "`as`", &["table"], &[])?;
            let table = self.required(&fields, "`as`", "table")?;
            let fields = self.fields(table, "`as.table`", &["latest"], &[])?;
            let latest = fields.get("latest").and_then(|node| self.text(node, "`latest`"));
            return Some(At { value: AsDef::Table { latest }, span });
        }
        let table = self.word(node, "as", &[("table", true), ("stream", false)], &[])?;
        Some(At { value: if table { AsDef::Table { latest: None } } else { AsDef::Stream }, span })
    }
}

/// The words of a text and where they stand.
fn words_of(text: &Scalar) -> Vec<At<String>> {
    let mut words = Vec::new();
    let mut from = 0;
    for word in text.text.split_whitespace() {
        let Some(found) = text.text[from..].find(word) else { break };
        let start = from + found;
        from = start + word.len();
        words.push(At { value: word.to_owned(), span: text.place(start..from) });
    }
    words
}
