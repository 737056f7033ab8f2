//! Every error over HTTP: RFC 9457 problem details with a `code` that programs may rely on.
//!
//! Invariants
//! - A code never changes its meaning or its status once released.
//! - Whatever is worth trying again says after how many seconds.

use axum::Json;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::Reason;

pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// No such path.
    UnknownPath,
    /// The path exists, the method does not.
    MethodNotAllowed,
    /// The topology has no such table, or it says `query: false`.
    UnknownTable,
    /// The key in the path does not fit the table's key columns.
    MalformedKey,
    /// A query parameter is unknown, out of range or not readable.
    MalformedParameter,
    /// A request body where none is taken.
    BodyNotAllowed,
    /// The table has no row of that key.
    KeyNotFound,
    /// The bearer token is missing or wrong.
    Unauthorized,
    /// `/readyz`: the instance has not started up, or is shutting down; see `reasons`.
    NotReady,
    /// The instance cannot answer for any key yet.
    Starting,
    /// The partition's state is being restored on its owner.
    Restoring,
    /// Nobody owns the partition at the moment, or its owner has just changed.
    Rebalancing,
    /// The instance that owns the key does not answer.
    OwnerUnreachable,
    /// Too many requests are being answered already.
    Overloaded,
    /// The answer took too long.
    TimedOut,
    /// The state could not be read; the log has the details.
    StateUnreadable,
    /// A mistake of ours.
    Internal,
}

impl Code {
    pub fn status(self) -> StatusCode {
        match self {
            Self::UnknownPath | Self::UnknownTable | Self::KeyNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::MalformedKey | Self::MalformedParameter => StatusCode::BAD_REQUEST,
            Self::BodyNotAllowed => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NotReady
            | Self::Starting
            | Self::Restoring
            | Self::Rebalancing
            | Self::OwnerUnreachable
            | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::StateUnreadable | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Short, the same for every occurrence.
    pub fn title(self) -> &'static str {
        match self {
            Self::UnknownPath => "There is nothing at this path",
            Self::MethodNotAllowed => "This path does not take this method",
            Self::UnknownTable => "There is no such table",
            Self::MalformedKey => "The key does not fit the table",
            Self::MalformedParameter => "A parameter is not right",
            Self::BodyNotAllowed => "No body is taken here",
            Self::KeyNotFound => "The table has no row of this key",
            Self::Unauthorized => "A valid bearer token is needed",
            Self::NotReady => "The instance is not ready",
            Self::Starting => "The instance is starting",
            Self::Restoring => "The state is being restored",
            Self::Rebalancing => "The partition is changing its owner",
            Self::OwnerUnreachable => "The owner of the key does not answer",
            Self::Overloaded => "Too many requests at once",
            Self::TimedOut => "The answer took too long",
            Self::StateUnreadable => "The state could not be read",
            Self::Internal => "Something went wrong inside",
        }
    }

    /// Seconds after which the same request may succeed.
    fn retry_after(self) -> Option<u32> {
        match self {
            Self::NotReady | Self::Restoring => Some(5),
            Self::Starting | Self::Rebalancing | Self::OwnerUnreachable => Some(2),
            Self::Overloaded => Some(1),
            Self::UnknownPath
            | Self::MethodNotAllowed
            | Self::UnknownTable
            | Self::MalformedKey
            | Self::MalformedParameter
            | Self::BodyNotAllowed
            | Self::KeyNotFound
            | Self::Unauthorized
            | Self::TimedOut
            | Self::StateUnreadable
            | Self::Internal => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::UnknownTable => "unknown_table",
            Self::MalformedKey => "malformed_key",
            Self::MalformedParameter => "malformed_parameter",
            Self::BodyNotAllowed => "body_not_allowed",
            Self::KeyNotFound => "key_not_found",
            Self::Unauthorized => "unauthorized",
            Self::NotReady => "not_ready",
            Self::Starting => "starting",
            Self::Restoring => "restoring",
            Self::Rebalancing => "rebalancing",
            Self::OwnerUnreachable => "owner_unreachable",
            Self::Overloaded => "overloaded",
            Self::TimedOut => "timed_out",
            Self::StateUnreadable => "state_unreadable",
            Self::Internal => "internal",
        }
    }
}

/// RFC 9457 problem details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:sidestream:problem:key_not_found",
    "title": "The table has no row of this key",
    "status": 404,
    "code": "key_not_found",
    "detail": "table `spend_per_account` has no row for `acct-7`"
}))]
pub struct Problem {
    /// Identifies the kind of problem; its last part is the `code`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub code: Code,
    /// This occurrence, and what to do about it.
    pub detail: String,
    /// Of `not_ready`: everything that is being waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:sidestream:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status().as_u16(),
            code,
            detail: detail.into(),
            reasons: Vec::new(),
        }
    }

    #[must_use]
    pub fn with_reasons(mut self, reasons: Vec<Reason>) -> Self {
        self.reasons = reasons;
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code;
        let mut response = (code.status(), Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        if let Some(seconds) = code.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if code == Code::Unauthorized {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if code == Code::MethodNotAllowed {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;

    use super::{Code, Problem};

    #[test]
    fn the_kind_ends_with_the_code_as_it_is_serialized() {
        let problem = serde_json::to_value(Problem::new(Code::KeyNotFound, "no such row")).unwrap();
        assert_eq!(problem["code"], "key_not_found");
        assert_eq!(problem["type"], "urn:sidestream:problem:key_not_found");
        assert_eq!(problem["status"], 404);
    }

    #[test]
    fn what_is_worth_trying_again_says_when() {
        for code in [Code::Restoring, Code::Rebalancing, Code::OwnerUnreachable, Code::Overloaded] {
            let response = Problem::new(code, "later").into_response();
            assert_eq!(response.status(), 503, "{code:?}");
            assert!(response.headers().contains_key("retry-after"), "{code:?}");
        }
        assert!(!Problem::new(Code::KeyNotFound, "no").into_response().headers().contains_key("retry-after"));
    }

    #[test]
    fn a_problem_has_its_own_content_type() {
        let response = Problem::new(Code::Internal, "oh").into_response();
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
