//! From the text of a setting to its value. Problems are worded to follow "`key`: ".

use std::str::FromStr;
use std::time::Duration;

use super::{LogFormat, OnStop};

/// `250ms 30s 5m 1h 7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("`{text}` is not a duration; write it as 250ms, 30s, 5m, 1h or 7d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(problem)?;
    let number: u64 = text[..digits].parse().map_err(|_| problem())?;
    let millis = match &text[digits..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "d" => number.checked_mul(86_400_000),
        _ => None,
    };
    millis.map(Duration::from_millis).ok_or_else(problem)
}

pub fn duration_between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < least || duration > most {
        return Err(format!("{text} is out of range; it must lie between {least:?} and {most:?}"));
    }
    Ok(duration)
}

/// A duration, or `unlimited`.
pub fn wait(text: &str) -> Result<Option<Duration>, String> {
    if text == "unlimited" { Ok(None) } else { duration(text).map(Some) }
}

/// `64MB` (powers of 1000), `64MiB` or `64Mi` (powers of 1024), or a number of bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let problem = || format!("`{text}` is not a size; write it as 512MB, 1GiB or a number of bytes");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| problem())?;
    let factor: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KB" | "kB" | "K" | "k" => 1_000,
        "MB" | "M" => 1_000_000,
        "GB" | "G" => 1_000_000_000,
        "TB" | "T" => 1_000_000_000_000,
        "KiB" | "Ki" => 1 << 10,
        "MiB" | "Mi" => 1 << 20,
        "GiB" | "Gi" => 1 << 30,
        "TiB" | "Ti" => 1 << 40,
        _ => return Err(problem()),
    };
    number.checked_mul(factor).ok_or_else(problem)
}

/// At least what a worker and its clients need to run at all.
pub fn memory(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    if bytes < 32_000_000 {
        return Err(format!("{text} is too little; at least 32MB are needed"));
    }
    Ok(bytes)
}

pub fn number<T: FromStr + PartialOrd + std::fmt::Display>(text: &str, least: T, most: T) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        Ok(_) | Err(_) => Err(format!("`{text}` is not a number between {least} and {most}")),
    }
}

pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

pub fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("is empty".to_string()) } else { Ok(text.to_string()) }
}

/// HOST:PORT; an IPv6 host stands in brackets.
pub fn address(text: &str) -> Result<String, String> {
    let problem = || format!("`{text}` is not HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) || port.parse::<u16>().is_err() {
        return Err(problem());
    }
    Ok(text.to_string())
}

/// What may stand in a transactional id and a group instance id.
pub fn identifier(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if text.is_empty() || text.len() > 120 || !text.chars().all(fits) {
        return Err(format!("`{text}` must be 1 to 120 letters, digits, `.`, `_` or `-`"));
    }
    Ok(text.to_string())
}

pub fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    match rest {
        Some(rest) if !rest.is_empty() => Ok(text.trim_end_matches('/').to_string()),
        Some(_) | None => Err("it must be a URL that begins with http:// or https://".to_string()),
    }
}

/// A URL as it may be shown.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_string() };
    let authority_end = rest.find('/').unwrap_or(rest.len());
    match rest[..authority_end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{}", &rest[authority_end..]),
        None => url.to_string(),
    }
}

pub fn on_stop(text: &str) -> Result<OnStop, String> {
    match text {
        "leave" => Ok(OnStop::Leave),
        "stay" => Ok(OnStop::Stay),
        _ => Err(format!("`{text}` is neither leave nor stay")),
    }
}

pub fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("`{text}` is neither text nor json")),
    }
}
