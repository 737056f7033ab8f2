//! What every request passes before it reaches its endpoint: the token, and the limits.
//!
//! Invariants
//! - Health, readiness and metrics are answered without a token and beside the limit on requests: a probe must not fail
//!   because queries are many.
//! - No request is answered later than [`REQUEST_TIMEOUT`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Semaphore;

use super::problem::{Code, Problem};

/// The longest that a request may take, forwarding included.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that are answered at the same time.
pub const MAX_CONCURRENT_REQUESTS: usize = 256;
/// Paths that load balancers, kubelets and scrapers ask for.
const EXEMPT: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What the guard needs to know.
#[derive(Debug)]
pub struct Guard {
    token: Option<Box<str>>,
    permits: Semaphore,
}

impl Guard {
    pub fn new(token: Option<&str>) -> Self {
        Self { token: token.map(Box::from), permits: Semaphore::new(MAX_CONCURRENT_REQUESTS) }
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let Some(value) = headers.get(AUTHORIZATION) else { return false };
        let Some((scheme, given)) = value.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && equal_in_constant_time(given.trim_ascii(), token.as_bytes())
    }
}

/// The time that it takes tells the length of what was given, and nothing of the token's bytes.
fn equal_in_constant_time(given: &[u8], expected: &[u8]) -> bool {
    let differences = expected
        .iter()
        .enumerate()
        .fold(0, |differences, (index, byte)| differences | (byte ^ given.get(index).copied().unwrap_or(!byte)));
    given.len() == expected.len() && differences == 0
}

/// Lets the request through, or answers it.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if EXEMPT.contains(&request.uri().path()) {
        return within_time(next.run(request)).await;
    }
    if !guard.admits(request.headers()) {
        return Problem::new(
            Code::Unauthorized,
            "send the header `Authorization: Bearer TOKEN` with the token that `http_token` is set to",
        )
        .into_response();
    }
    if has_body(request.headers()) {
        return Problem::new(Code::BodyNotAllowed, "send the request without a body").into_response();
    }
    let Ok(_permit) = guard.permits.try_acquire() else {
        return Problem::new(
            Code::Overloaded,
            format!("{MAX_CONCURRENT_REQUESTS} requests are being answered; try again shortly"),
        )
        .into_response();
    };
    within_time(next.run(request)).await
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

async fn within_time(answer: impl Future<Output = Response>) -> Response {
    tokio::time::timeout(REQUEST_TIMEOUT, answer).await.unwrap_or_else(|_elapsed| {
        let seconds = REQUEST_TIMEOUT.as_secs();
        Problem::new(Code::TimedOut, format!("there was no answer within {seconds} s")).into_response()
    })
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, HeaderValue};

    use super::{Guard, equal_in_constant_time};

    fn bearing(value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn only_the_exact_token_is_admitted() {
        let guard = Guard::new(Some("s3cret"));
        assert!(guard.admits(&bearing("Bearer s3cret")));
        assert!(guard.admits(&bearing("bearer s3cret")));
        for wrong in ["Bearer s3cre", "Bearer s3cret1", "Bearer ", "Basic s3cret", "s3cret", ""] {
            assert!(!guard.admits(&bearing(wrong)), "{wrong}");
        }
        assert!(!guard.admits(&HeaderMap::new()));
    }

    #[test]
    fn without_a_token_everybody_is_admitted() {
        assert!(Guard::new(None).admits(&HeaderMap::new()));
    }

    #[test]
    fn an_empty_text_equals_only_itself() {
        assert!(equal_in_constant_time(b"", b""));
        assert!(!equal_in_constant_time(b"", b"a"));
        assert!(!equal_in_constant_time(b"a", b""));
    }
}
