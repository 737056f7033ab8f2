//! Where log lines go and what they look like: one line of text per event on a terminal, one JSON object otherwise.
//!
//! Invariant: standard output is never written to; it belongs to what a command prints.

use std::io::{self, IsTerminal};

use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

impl Format {
    /// Text where a person reads along, JSON where a collector does.
    pub fn fitting() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "log level `{level}`: {reason}; write one of error, warn, info, debug, trace, or `info,sidestream::log=debug`"
    )]
    Level { level: String, reason: String },
}

/// Starts to write log lines to standard error. Only the first call of a process has an effect.
///
/// `level` is a level, or a list of `module=level`.
pub fn start(format: Format, level: &str) -> Result<(), Error> {
    let dispatch = dispatch(format, level, io::stderr().is_terminal(), io::stderr)?;
    // An error says that lines are being written already, which is what was asked for.
    drop(dispatch.try_init());
    Ok(())
}

fn dispatch<W>(format: Format, level: &str, colour: bool, writer: W) -> Result<Dispatch, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter(level)?).with_writer(writer).with_ansi(colour);
    Ok(match format {
        Format::Text => builder.with_target(false).compact().into(),
        Format::Json => builder.json().flatten_event(true).with_current_span(false).into(),
    })
}

/// What passes. A Kafka client that cannot reach its broker says so several times per second and per connection; the
/// runtime says it once, in our words. Asking for `debug` shows theirs too.
fn filter(level: &str) -> Result<EnvFilter, Error> {
    let error = |reason: String| Error::Level { level: level.to_owned(), reason };
    let verbose = matches!(level.trim().to_ascii_lowercase().as_str(), "debug" | "trace");
    let clients = if verbose { "" } else { "rdkafka=off,librdkafka=off,hyper_util=warn,reqwest=warn," };
    let libraries =
        if verbose { "hyper_util=info,reqwest=info,opentelemetry_sdk=info," } else { "opentelemetry_sdk=warn," };
    EnvFilter::builder().parse(format!("{clients}{libraries}{level}")).map_err(|source| error(source.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::{Format, dispatch};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, level: &str, act: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let dispatch = dispatch(format, level, false, move || writer.clone()).unwrap();
        tracing::dispatcher::with_default(&dispatch, act);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_lines_carry_level_message_and_fields_at_the_top() {
        let text = written(Format::Json, "info", || tracing::info!(task = "0_1", records = 7, "task opened"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "task opened");
        assert_eq!(line["task"], "0_1");
        assert_eq!(line["records"], 7);
    }

    #[test]
    fn the_kafka_client_is_quiet_until_debug_is_asked_for() {
        let speak = || tracing::error!(target: "librdkafka", "FAIL: connection refused");
        assert_eq!(written(Format::Text, "info", speak), "");
        assert!(written(Format::Text, "debug", speak).contains("connection refused"));
    }

    #[test]
    fn a_level_that_does_not_exist_is_an_error_that_names_the_levels() {
        let error = super::filter("loud=quiet=silent").unwrap_err().to_string();
        assert!(error.contains("error, warn, info"), "{error}");
    }
}
