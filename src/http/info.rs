//! `/v1/info`, `/v1/lag`, `/v1/topology`: what this instance is and does.

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::Service;
use super::answer::{InfoAnswer, InputAnswer, LagAnswer, RestoreAnswer, SubTopologyAnswer, TaskAnswer, TopologyAnswer};
use super::problem::Problem;
use crate::ids::EventTime;
use crate::runtime::View;
use crate::runtime::view::{Phase, RestoreProgress, TaskState, TaskView};
use crate::topology::graph::{GraphFormat, draw};
use crate::topology::plan::{Guarantee, Late, OperatorPlan, SubTopology};

/// Who this instance is, and what it runs.
#[utoipa::path(get, path = "/v1/info", tag = "instance", responses(
    (status = 200, body = InfoAnswer),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
pub async fn info(State(service): State<Service>) -> Json<InfoAnswer> {
    let view = &service.view;
    let identity = view.identity();
    Json(InfoAnswer {
        name: view.plan.name.clone(),
        description: view.plan.description.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: identity.instance_id,
        endpoint: identity.endpoint,
        phase: phase_name(view.phase()).to_owned(),
        guarantee: guarantee_name(view.plan.guarantee).to_owned(),
        uptime_seconds: view.uptime().as_secs(),
        cluster: view.facts().map(|facts| facts.cluster_id.clone()),
        peers: view.peers(),
        tasks: view.tasks().iter().map(|task| task_answer(view, task)).collect(),
    })
}

/// How far the partitions that this instance reads are behind their ends.
#[utoipa::path(get, path = "/v1/lag", tag = "instance", responses(
    (status = 200, body = LagAnswer),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
pub async fn lag(State(service): State<Service>) -> Json<LagAnswer> {
    let inputs: Vec<InputAnswer> = service
        .view
        .lag()
        .into_iter()
        .map(|input| InputAnswer {
            topic: input.input.topic.to_string(),
            partition: input.input.partition.0,
            task: input.task.to_string(),
            committed: input.committed.map(|offset| offset.0),
            end: input.end.map(|offset| offset.0),
            lag: input.lag,
        })
        .collect();
    let total = inputs.iter().filter_map(|input| input.lag).sum();
    Json(LagAnswer { instance: service.view.identity().instance_id, total, inputs })
}

/// What runs: the plan, and a diagram of it.
#[utoipa::path(get, path = "/v1/topology", tag = "instance", responses(
    (status = 200, body = TopologyAnswer),
    (status = 401, body = Problem, content_type = "application/problem+json"),
))]
pub async fn topology(State(service): State<Service>) -> Json<TopologyAnswer> {
    let view = &service.view;
    let facts = view.facts();
    let sub_topologies = view.plan.sub_topologies.iter().map(|part| SubTopologyAnswer {
        id: part.id.0,
        steps: part.name.clone(),
        sources: part.sources.iter().map(|source| source.topic.to_string()).collect(),
        sinks: sinks(part),
        stores: part
            .stores
            .iter()
            .filter_map(|store| view.plan.stores.get(store.index()))
            .map(|store| store.name.to_string())
            .collect(),
        tasks: facts.as_ref().map(|facts| facts.tasks(part.id)),
    });
    Json(TopologyAnswer {
        name: view.plan.name.clone(),
        sub_topologies: sub_topologies.collect(),
        mermaid: draw(&view.plan, GraphFormat::Mermaid),
    })
}

fn sinks(part: &SubTopology) -> Vec<String> {
    let mut topics: Vec<String> = Vec::new();
    for node in &part.nodes {
        match &node.operator {
            OperatorPlan::Sink(sink) => topics.extend(sink.rules.iter().map(|rule| rule.topic.to_string())),
            OperatorPlan::Repartition(repartition) => topics.push(repartition.topic.to_string()),
            OperatorPlan::Aggregate(aggregate) => match &aggregate.late {
                Late::To(topic) => topics.push(topic.to_string()),
                Late::Drop => {}
            },
            OperatorPlan::Filter(_)
            | OperatorPlan::Project(_)
            | OperatorPlan::StreamTableJoin(_)
            | OperatorPlan::Materialize(_)
            | OperatorPlan::Over(_)
            | OperatorPlan::ToStream => {}
        }
    }
    topics.sort();
    topics.dedup();
    topics
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    }
}

fn guarantee_name(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::ExactlyOnce => "exactly_once",
        Guarantee::AtLeastOnce => "at_least_once",
    }
}

fn task_answer(view: &View, task: &TaskView) -> TaskAnswer {
    let steps = view.plan.sub_topologies.get(task.id.sub_topology.0 as usize).map(|part| part.name.clone());
    let (state, reason, restore) = match &task.state {
        TaskState::Restoring(progress) => ("restoring", None, Some(restore_answer(progress))),
        TaskState::Running => ("running", None, None),
        TaskState::Parked(reason) => ("parked", Some(reason.clone()), None),
        TaskState::Failed(reason) => ("failed", Some(reason.clone()), None),
    };
    TaskAnswer {
        task: task.id.to_string(),
        steps: steps.unwrap_or_default(),
        partition: task.id.partition.0,
        state: state.to_owned(),
        reason,
        worker: task.worker,
        watermark: task.watermark.and_then(rfc_3339),
        restore,
    }
}

fn restore_answer(progress: &RestoreProgress) -> RestoreAnswer {
    let done = if progress.total == 0 { 0.0 } else { progress.done as f64 / progress.total as f64 };
    RestoreAnswer {
        records: progress.records,
        bytes: progress.bytes,
        done: done.min(1.0),
        remaining_seconds: progress.remaining.as_ref().map(Duration::as_secs),
    }
}

fn rfc_3339(time: EventTime) -> Option<String> {
    jiff::Timestamp::from_millisecond(time.0).ok().map(|time| time.to_string())
}
