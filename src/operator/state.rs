//! What each node keeps between records: buffers, encoders, and where its next deadline is. Nothing that must survive a
//! crash; that is what stores are for.

use std::ops::Range;

use super::outbox::OutTopic;
use crate::expression::Expression;
use crate::format::Encoder;
use crate::format::internal::InternalFormat;
use crate::ids::{EventTime, Partition};
use crate::row::Row;
use crate::topology::plan::{OperatorPlan, SinkPlan, SubTopology};

#[derive(Debug, Default)]
pub enum NodeState {
    /// Stateless, or lent out.
    #[default]
    None,
    Join(KeyBuffer),
    Materialize(KeyBuffer),
    Aggregate(AggregateState),
    Over(KeyBuffer),
    Repartition(Box<RepartitionState>),
    Sink(SinkState),
}

/// A key on its way to bytes.
#[derive(Debug, Default)]
pub struct KeyBuffer {
    pub values: Row,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
pub struct AggregateState {
    pub key: KeyBuffer,
    /// The watermark up to which windows have been closed.
    pub closed_to: EventTime,
    /// The watermark up to which windows have been expired.
    pub expired_to: EventTime,
}

#[derive(Debug)]
pub struct RepartitionState {
    pub topic: Option<OutTopic>,
    pub key: KeyBuffer,
    pub key_encoder: Encoder,
    pub format: InternalFormat,
    pub value: Vec<u8>,
    /// Per partition of the topic: what its last record or watermark record carried.
    pub carried: Vec<Carried>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    pub partition: Partition,
    pub watermark: EventTime,
    pub idle: bool,
    /// When a watermark record was last sent, on the monotonic clock (milliseconds).
    pub sent_at_ms: Option<u64>,
}

#[derive(Debug)]
pub struct SinkState {
    pub rules: Vec<SinkRuleState>,
    /// Rows without a key go round the partitions.
    pub round_robin: u32,
}

#[derive(Debug)]
pub struct SinkRuleState {
    pub topic: Option<OutTopic>,
    pub key_encoder: Encoder,
    pub value_encoder: Encoder,
    /// Where key and value are neighbouring columns of the row as they are: nothing need be evaluated.
    pub key_columns: Option<Range<usize>>,
    pub value_columns: Option<Range<usize>>,
    pub key_values: Row,
    pub key: Vec<u8>,
    pub value_values: Row,
    pub value: Vec<u8>,
    /// The key that gets a tombstone, and whether key and value are to be sent: between computing and sending.
    pub tombstone: Option<Vec<u8>>,
    pub send: bool,
}

impl NodeState {
    /// The fresh state of every node of a sub-topology.
    pub fn of(plan: &SubTopology, watermark_at: impl Fn(usize) -> EventTime) -> Vec<Self> {
        plan.nodes
            .iter()
            .enumerate()
            .map(|(index, node)| match &node.operator {
                OperatorPlan::Filter(_) | OperatorPlan::Project(_) | OperatorPlan::ToStream => Self::None,
                OperatorPlan::StreamTableJoin(_) => Self::Join(KeyBuffer::default()),
                OperatorPlan::Materialize(_) => Self::Materialize(KeyBuffer::default()),
                OperatorPlan::Aggregate(_) => Self::Aggregate(AggregateState {
                    key: KeyBuffer::default(),
                    closed_to: watermark_at(index),
                    expired_to: watermark_at(index),
                }),
                OperatorPlan::Over(_) => Self::Over(KeyBuffer::default()),
                OperatorPlan::Repartition(repartition) => Self::Repartition(Box::new(RepartitionState {
                    topic: None,
                    key: KeyBuffer::default(),
                    key_encoder: Encoder::new(repartition.key_format, &repartition.key_schema),
                    format: InternalFormat::new(node.schema.clone()),
                    value: Vec::new(),
                    carried: Vec::new(),
                })),
                OperatorPlan::Sink(sink) => Self::Sink(SinkState::of(sink)),
            })
            .collect()
    }
}

impl SinkState {
    fn of(plan: &SinkPlan) -> Self {
        let rules = plan
            .rules
            .iter()
            .map(|rule| SinkRuleState {
                topic: None,
                key_encoder: Encoder::new(rule.key_format, &rule.key_schema),
                value_encoder: Encoder::new(rule.value_format, &rule.value_schema),
                key_columns: neighbours(&rule.key),
                value_columns: neighbours(&rule.value),
                key_values: Row::new(),
                key: Vec::new(),
                value_values: Row::new(),
                value: Vec::new(),
                tombstone: None,
                send: false,
            })
            .collect();
        Self { rules, round_robin: 0 }
    }
}

/// The slots that the expressions are, if they are bare columns one after the other.
fn neighbours(expressions: &[Expression]) -> Option<Range<usize>> {
    let first = expressions.first()?.as_column()?;
    let end = first + expressions.len();
    let slots = expressions.iter().map(Expression::as_column);
    slots.eq((first..end).map(Some)).then_some(first..end)
}
