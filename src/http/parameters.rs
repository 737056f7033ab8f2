//! Path and query parameters, refused as problems where they do not fit.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem};
use crate::ids::EventTime;

/// Rows of a scan unless `limit` says otherwise.
pub const DEFAULT_LIMIT: usize = 100;
/// Rows of a scan at most.
pub const MAX_LIMIT: usize = 1000;

/// The query string as `T`. Unknown parameters are refused where `T` denies them.
#[derive(Debug)]
pub struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        query.map(|Query(parameters)| Self(parameters)).map_err(|rejection| {
            let text = rejection.body_text();
            let reason = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
            Problem::new(Code::MalformedParameter, reason)
        })
    }
}

/// The path's parameters as `T`, percent-decoded.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if let Some(at) = broken_escape(parts.uri.path()) {
            let detail = format!("`{at}` is no percent-encoding: a `%` in a key is written %25");
            return Err(Problem::new(Code::MalformedKey, detail));
        }
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(segments)| Self(segments))
            .map_err(|_rejection| Problem::new(Code::MalformedKey, "the path is not UTF-8 once it is percent-decoded"))
    }
}

/// The first `%` that two hexadecimal digits do not follow, with what follows it. Decoders leave it as it stands, and a
/// key that nobody has would be looked for.
fn broken_escape(path: &str) -> Option<&str> {
    let broken = |(at, _): (usize, &str)| {
        let rest = path.get(at..)?;
        let is_whole = rest.as_bytes().get(1..3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        (!is_whole).then(|| rest.get(..3).unwrap_or(rest))
    };
    path.match_indices('%').find_map(broken)
}

/// How many rows: 1 to [`MAX_LIMIT`].
pub fn limit(text: Option<&str>) -> Result<usize, Problem> {
    let Some(text) = text else { return Ok(DEFAULT_LIMIT) };
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
        Problem::new(Code::MalformedParameter, format!("limit: `{text}` is not a number from 1 to {MAX_LIMIT}"))
    })
}

/// A point in time: RFC 3339, or milliseconds since the epoch.
pub fn instant(name: &str, text: &str) -> Result<EventTime, Problem> {
    if let Ok(millis) = text.parse::<i64>() {
        return Ok(EventTime(millis));
    }
    // In a query string a `+` is a space; an offset like +02:00 that was not percent-encoded arrives with one.
    let text = text.replace(' ', "+");
    text.parse::<jiff::Timestamp>().map(|time| EventTime(time.as_millisecond())).map_err(|_invalid| {
        Problem::new(
            Code::MalformedParameter,
            format!("{name}: `{text}` is neither RFC 3339 like 2026-01-31T12:00:00Z nor milliseconds since the epoch"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{instant, limit};
    use crate::ids::EventTime;

    #[test]
    fn times_are_rfc_3339_or_epoch_milliseconds() {
        let noon = EventTime(1_769_860_800_000);
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00", "2026-01-31T14:00:00 02:00", "1769860800000"]
        {
            assert_eq!(instant("from", text).unwrap(), noon, "{text}");
        }
        let problem = instant("from", "yesterday").unwrap_err();
        assert!(problem.detail.contains("from: `yesterday`") && problem.detail.contains("RFC 3339"), "{problem:?}");
    }

    #[test]
    fn a_limit_lies_between_one_and_a_thousand() {
        assert_eq!(limit(None).unwrap(), 100);
        assert_eq!(limit(Some("1000")).unwrap(), 1000);
        for wrong in ["0", "1001", "-1", "many", ""] {
            assert_eq!(limit(Some(wrong)).unwrap_err().status, 400, "{wrong}");
        }
    }
}
