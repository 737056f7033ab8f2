//! The one hop to the instance that owns a key.
//!
//! Invariants
//! - A request that carries [`FORWARDED`] is answered from here or refused: two instances that disagree about an owner
//!   never send a request in circles.
//! - What the owner answers is passed on as it is, problems included.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};

/// Names the instance that passed the request on.
pub const FORWARDED: &str = "x-sidestream-forwarded-by";
/// Of a forwarded scan: the partitions that the answer must be complete for.
pub const PARTITIONS: &str = "x-sidestream-partitions";

/// Below the guard's limit, so that a slow owner is told apart from a slow instance.
const OWNER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The other instances.
#[derive(Debug)]
pub struct Peers {
    client: reqwest::Client,
    token: Option<Box<str>>,
}

/// What another instance answered.
#[derive(Debug)]
pub struct PeerAnswer {
    pub status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A forwarded request, as headers.
#[derive(Clone, Debug)]
pub struct Hop {
    /// This instance's id.
    pub by: String,
    pub partitions: Option<String>,
}

impl Peers {
    pub fn new(token: Option<&str>) -> Self {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(OWNER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            // Only TLS back-ends can fail to be built, and there is none here.
            .unwrap_or_default();
        Self { client, token: token.map(Box::from) }
    }

    /// Asks the instance at `endpoint` (HOST:PORT).
    pub async fn ask(&self, endpoint: &str, path_and_query: &str, hop: &Hop) -> Result<PeerAnswer, Problem> {
        let unreachable = |error: reqwest::Error| {
            tracing::debug!(endpoint, %error, "an instance does not answer");
            let what = if error.is_timeout() { "did not answer in time" } else { "cannot be reached" };
            Problem::new(
                Code::OwnerUnreachable,
                format!(
                    "the instance at {endpoint}, which owns the partition, {what}; if this lasts, check `advertise`"
                ),
            )
        };
        let mut request = self.client.get(format!("http://{endpoint}{path_and_query}")).header(FORWARDED, &hop.by);
        if let Some(partitions) = &hop.partitions {
            request = request.header(PARTITIONS, partitions);
        }
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(unreachable)?;
        Ok(PeerAnswer { status, headers, body: body.to_vec() })
    }
}

impl PeerAnswer {
    /// To the client, unchanged.
    pub fn pass_on(self) -> Response {
        if self.status == StatusCode::UNAUTHORIZED {
            // The client has shown the right token here: it is the instances that disagree.
            return Problem::new(
                Code::OwnerUnreachable,
                "the owner refuses this instance's token; give all instances the same `http_token`",
            )
            .into_response();
        }
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        for name in [CONTENT_TYPE, RETRY_AFTER] {
            if let Some(value) = self.headers.get(&name) {
                response.headers_mut().insert(name, value.clone());
            }
        }
        response
    }

    /// The body of a success, or the problem that it is.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let unreadable = |error: serde_json::Error| {
            tracing::warn!(%error, status = self.status.as_u16(), "an instance's answer cannot be read");
            Problem::new(
                Code::OwnerUnreachable,
                "another instance's answer cannot be read; do all run the same version?",
            )
        };
        if self.status.is_success() {
            serde_json::from_slice(&self.body).map_err(unreadable)
        } else {
            Err(serde_json::from_slice(&self.body).unwrap_or_else(unreadable))
        }
    }
}

/// Whether another instance has passed this request on.
pub fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED)
}
