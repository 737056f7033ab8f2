//! `/healthz`, `/readyz`, `/metrics`: for probes and scrapers.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};

use super::answer::{HealthAnswer, ReadyAnswer, Reason};
use super::problem::{Code, Problem};
use super::{Service, blocking};
use crate::runtime::view::Note;
use crate::telemetry;

/// Whether the process is alive. It answers 200 as long as it answers at all: restarting it would help nothing else.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses((status = 200, body = HealthAnswer)))]
pub async fn healthz() -> Json<HealthAnswer> {
    Json(HealthAnswer { status: "alive".to_owned() })
}

/// Whether the instance has started up: 503 with the reasons while Kafka has not been reached, a topic is missing, the
/// first restore runs or a task of the first assignment cannot be opened. Later trouble is 200 with what is degraded.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()), responses(
    (status = 200, body = ReadyAnswer),
    (status = 503, body = Problem, content_type = "application/problem+json", description = "`not_ready`, with `reasons`"),
))]
pub async fn readyz(State(service): State<Service>) -> Response {
    let readiness = service.view.readiness();
    if readiness.ready {
        let degraded = readiness.degraded.iter().map(reason).collect();
        return Json(ReadyAnswer { ready: true, degraded }).into_response();
    }
    let reasons: Vec<Reason> = readiness.reasons.iter().map(reason).collect();
    let detail = reasons.iter().map(|reason| &*reason.message).collect::<Vec<_>>().join("; ");
    Problem::new(Code::NotReady, detail).with_reasons(reasons).into_response()
}

/// Metrics in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()), responses(
    (status = 200, body = String, content_type = "text/plain"),
))]
pub async fn metrics(State(service): State<Service>) -> Result<Response, Problem> {
    let text = blocking(move || telemetry::metrics::render(telemetry::samples::samples(&service.view))).await?;
    let text = text.map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok(([(CONTENT_TYPE, telemetry::metrics::CONTENT_TYPE)], text).into_response())
}

fn reason(note: &Note) -> Reason {
    let since = jiff::Timestamp::from_microsecond(note.since).unwrap_or_default();
    Reason {
        code: note.condition.code().to_owned(),
        subject: note.subject.clone(),
        message: note.message.clone(),
        since: since.to_string(),
    }
}
