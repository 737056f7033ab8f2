//! The running instance over HTTP: probes, metrics, and queries on committed state.
//!
//! What it is: thin endpoints over `runtime::View`, and the one hop to the instance that owns a key. axum is named only
//! here.
//! What it is not: it changes nothing, and it sees committed state alone.
//!
//! Invariants
//! - Every error is a [`Problem`], those of the router itself included.
//! - A forwarded request is never forwarded again.
//! - What reads state runs on blocking threads, never on those that accept connections.

pub mod answer;
mod connection;
mod forward;
mod guard;
mod info;
pub mod key;
mod openapi;
mod parameters;
mod problem;
mod rows;
mod scan;
mod server;
mod status;
mod tables;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

pub use problem::{Code, Problem};
pub use server::{Error, Listening, Server};

use crate::runtime::View;
use forward::Peers;
use guard::Guard;

/// What the endpoints share.
#[derive(Clone, Debug)]
struct Service {
    view: Arc<View>,
    peers: Arc<Peers>,
}

/// All endpoints over a view. `token` is the bearer token that callers must send, and that forwarded reads carry.
pub fn router(view: Arc<View>, token: Option<&str>) -> Router {
    let service = Service { view, peers: Arc::new(Peers::new(token)) };
    Router::new()
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/info", get(info::info))
        .route("/v1/lag", get(info::lag))
        .route("/v1/topology", get(info::topology))
        .route("/v1/tables", get(tables::list))
        .route("/v1/tables/{table}", get(scan::scan))
        .route("/v1/tables/{table}/{key}", get(tables::row))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(service)
        .layer(axum::middleware::from_fn_with_state(Arc::new(Guard::new(token)), guard::check))
}

/// Runs what blocks (state, files) where it holds up nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "a request ended early");
        Problem::new(Code::Internal, "the request ended early; the log has the details")
    })
}

async fn unknown_path(uri: axum::http::Uri) -> Problem {
    let detail = format!("nothing at {}; the paths are described at /openapi.json", uri.path());
    Problem::new(Code::UnknownPath, detail)
}

async fn method_not_allowed(method: axum::http::Method) -> Problem {
    Problem::new(Code::MethodNotAllowed, format!("{method} is not taken here; everything is read with GET"))
}
