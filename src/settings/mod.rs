//! Settings: flag > environment > `sidestream.yaml` > default.
//!
//! What it is: [`KEYS`], the one list of settings that flags, environment and file share; [`Settings::resolve`], which
//! turns what was given into plain values and reports every mistake at once. Lower layers get the values, not this type.
//! What it is not: it parses no command line (`cli` does, by [`KEYS`]) and reads no environment by itself.
//!
//! Invariants
//! - An unknown key is an error with a suggestion, never ignored.
//! - A secret is never shown: `Debug` and `Display` of [`Secret`] say `***`.

mod file;
mod kafka;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

pub use file::Position;
pub use kafka::REFUSED;
pub use text::{duration, size};

/// One setting: its key in the file, which with dashes is its flag, and its environment variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// In the file; a dot goes one level down.
    pub name: &'static str,
    /// Without the leading `--`; `None` where there is no flag.
    pub flag: Option<&'static str>,
    pub environment: &'static str,
    pub value_name: &'static str,
    pub doc: &'static str,
    /// For people.
    pub default: &'static str,
}

/// Every setting but `kafka.*`.
pub const KEYS: &[Key] = &[
    key("brokers", Some("brokers"), "SIDESTREAM_BROKERS", "HOST:PORT,...", "Kafka's bootstrap servers", "required"),
    key("state_dir", Some("state-dir"), "SIDESTREAM_STATE_DIR", "DIR", "where keyed state is kept", "./state/<name>"),
    key(
        "http",
        Some("http"),
        "SIDESTREAM_HTTP",
        "HOST:PORT",
        "where HTTP listens; port 0 takes a free one",
        "127.0.0.1:8088",
    ),
    key(
        "advertise",
        Some("advertise"),
        "SIDESTREAM_ADVERTISE",
        "HOST:PORT",
        "under which address other instances reach this one's HTTP",
        "the HTTP address, or hostname:port when bound to all",
    ),
    key(
        "http_token",
        Some("http-token"),
        "SIDESTREAM_HTTP_TOKEN",
        "TOKEN",
        "a bearer token that reads over HTTP must carry",
        "none",
    ),
    key(
        "instance_id",
        Some("instance-id"),
        "SIDESTREAM_INSTANCE_ID",
        "ID",
        "a name for this instance that lasts over restarts; makes its group membership static",
        "the pod's name in a StatefulSet, else a UUID in the state directory",
    ),
    key("workers", Some("workers"), "SIDESTREAM_WORKERS", "N", "threads that process records", "the CPU limit"),
    key(
        "memory",
        Some("memory"),
        "SIDESTREAM_MEMORY",
        "SIZE",
        "budget for state and buffers, such as 512MB or 1GiB",
        "half of the container's limit, else 512MB",
    ),
    key(
        "row_cache",
        Some("row-cache"),
        "SIDESTREAM_ROW_CACHE",
        "SIZE",
        "how much of the memory is for rows of state that are in use; more leaves RocksDB less",
        "25 % of it",
    ),
    key(
        "commit_interval",
        Some("commit-interval"),
        "SIDESTREAM_COMMIT_INTERVAL",
        "DURATION",
        "the longest time between two commits",
        "100ms",
    ),
    key(
        "sync_max_wait",
        None,
        "SIDESTREAM_SYNC_MAX_WAIT",
        "DURATION",
        "how long a task waits for the unread data of an input before it goes on in time order; or `unlimited`",
        "100ms",
    ),
    key("replication", None, "SIDESTREAM_REPLICATION", "N", "replicas of internal topics", "the broker's default"),
    key(
        "on_stop",
        Some("on-stop"),
        "SIDESTREAM_ON_STOP",
        "leave|stay",
        "whether stopping gives the partitions up at once",
        "stay with an instance id, else leave",
    ),
    key(
        "shutdown_timeout",
        None,
        "SIDESTREAM_SHUTDOWN_TIMEOUT",
        "DURATION",
        "how long an orderly stop may take",
        "25s",
    ),
    key(
        "create_topics",
        Some("create-topics"),
        "SIDESTREAM_CREATE_TOPICS",
        "true|false",
        "creates output topics that do not exist",
        "false",
    ),
    key("registry", Some("registry"), "SIDESTREAM_REGISTRY", "URL", "the schema registry", "none"),
    key(
        "log.format",
        Some("log-format"),
        "SIDESTREAM_LOG_FORMAT",
        "text|json",
        "how log lines look",
        "text on a terminal, else json",
    ),
    key(
        "log.level",
        Some("log-level"),
        "SIDESTREAM_LOG_LEVEL",
        "LEVEL",
        "error, warn, info, debug, trace, or a list of module=level",
        "info",
    ),
];

const fn key(
    name: &'static str,
    flag: Option<&'static str>,
    environment: &'static str,
    value_name: &'static str,
    doc: &'static str,
    default: &'static str,
) -> Key {
    Key { name, flag, environment, value_name, doc, default }
}

/// What the command line gave, as text.
#[derive(Clone, Debug, Default)]
pub struct PartialSettings {
    values: BTreeMap<&'static str, String>,
    kafka: Vec<(String, String)>,
}

impl PartialSettings {
    /// `key` is a name in [`KEYS`].
    #[must_use]
    pub fn with(mut self, key: &'static str, value: Option<String>) -> Self {
        debug_assert!(KEYS.iter().any(|known| known.name == key), "`{key}` is a setting");
        if let Some(value) = value {
            self.values.insert(key, value);
        }
        self
    }

    /// `--kafka NAME=VALUE`.
    #[must_use]
    pub fn with_kafka(mut self, name: String, value: String) -> Self {
        self.kafka.push((name, value));
        self
    }
}

/// The process's environment, as a value.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        f.debug_list().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// What this process was started with; variables that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Everything resolved. What depends on the topology's name or on the machine is left as `Option`.
#[derive(Clone, PartialEq)]
pub struct Settings {
    /// Empty where none was given: `run` asks for it with [`Settings::require_brokers`].
    pub brokers: String,
    pub state_dir: Option<PathBuf>,
    /// HOST:PORT.
    pub http: String,
    pub advertise: Option<String>,
    pub http_token: Option<Secret>,
    pub instance_id: InstanceId,
    pub workers: usize,
    /// In bytes; `None`: by the container's limit (`store::budget`).
    pub memory: Option<u64>,
    /// In bytes, of all workers; `None`: the share that `store::budget` gives.
    pub row_cache: Option<u64>,
    pub commit_interval: Duration,
    /// `None` is unlimited.
    pub sync_max_wait: Option<Duration>,
    pub replication: Option<u16>,
    pub on_stop: Option<OnStop>,
    pub shutdown_timeout: Duration,
    pub create_topics: bool,
    pub registry: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_level: String,
    /// librdkafka properties, by name.
    pub kafka: BTreeMap<String, Secret>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self.shown().into_iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" "),
        )
    }
}

/// Who this instance is, and thereby whether its membership is static (EXACTLY-ONCE rule 11a).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceId {
    Given(String),
    /// A pod of a StatefulSet keeps its name.
    StatefulSet(String),
    /// Dynamic: a UUID in the state directory names its producers.
    Generated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    Leave,
    Stay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag(String),
    Environment(String),
    File(Position),
    /// Nobody gave it.
    Nowhere,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => f.write_str(name),
            Self::File(position) => write!(f, "sidestream.yaml:{position}"),
            Self::Nowhere => f.write_str("settings"),
        }
    }
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError {
    pub origin: Origin,
    pub problem: String,
    pub help: Option<String>,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)?;
        if let Some(help) = &self.help {
            write!(f, "; {help}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SettingError {}

impl Settings {
    /// `file` is the text of `sidestream.yaml`. Every mistake found, if any.
    pub fn resolve(
        flags: &PartialSettings,
        environment: &Environment,
        file: Option<&str>,
    ) -> Result<Self, Vec<SettingError>> {
        let mut errors = Vec::new();
        let file = file.map(|text| file::read(text, environment, &mut errors)).unwrap_or_default();
        let mut given = Given { flags, environment, file: &file, errors };

        let settings = Self {
            brokers: given.text("brokers").unwrap_or_default(),
            state_dir: given.text("state_dir").map(PathBuf::from),
            http: given.parsed("http", text::address).unwrap_or_else(|| "127.0.0.1:8088".to_string()),
            advertise: given.parsed("advertise", text::address),
            http_token: given.parsed("http_token", text::not_empty).map(Secret),
            instance_id: match given.parsed("instance_id", text::identifier) {
                Some(id) => InstanceId::Given(id),
                None => stateful_set_pod(environment).map_or(InstanceId::Generated, InstanceId::StatefulSet),
            },
            workers: given
                .parsed("workers", |text| text::number(text, 1, 1024))
                .unwrap_or_else(|| available_parallelism().map_or(1, usize::from)),
            memory: given.parsed("memory", text::memory),
            row_cache: given.parsed("row_cache", text::size),
            commit_interval: given
                .parsed("commit_interval", |text| {
                    text::duration_between(text, Duration::from_millis(1), Duration::from_secs(5))
                })
                .unwrap_or(Duration::from_millis(100)),
            sync_max_wait: given.parsed("sync_max_wait", text::wait).unwrap_or(Some(Duration::from_millis(100))),
            replication: given.parsed("replication", |text| text::number(text, 1, 32)),
            on_stop: given.parsed("on_stop", text::on_stop),
            shutdown_timeout: given.parsed("shutdown_timeout", text::duration).unwrap_or(Duration::from_secs(25)),
            create_topics: given.parsed("create_topics", text::boolean).unwrap_or(false),
            registry: given.parsed("registry", text::url),
            log_format: given.parsed("log.format", text::log_format),
            log_level: given.text("log.level").unwrap_or_else(|| "info".to_string()),
            kafka: given.kafka(),
        };
        let errors = given.errors;
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// For commands that talk to Kafka.
    pub fn require_brokers(&self) -> Result<&str, SettingError> {
        if self.brokers.is_empty() {
            return Err(SettingError {
                origin: Origin::Nowhere,
                problem: "no Kafka brokers are given".to_string(),
                help: Some("use --brokers HOST:PORT, SIDESTREAM_BROKERS, or `brokers:` in sidestream.yaml".to_string()),
            });
        }
        Ok(&self.brokers)
    }

    /// The state directory of a topology.
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(|| PathBuf::from("state").join(name))
    }

    /// All values as they may be shown.
    pub fn shown(&self) -> Vec<(String, String)> {
        let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_string());
        let mut shown: Vec<(String, String)> = vec![
            ("brokers".into(), self.brokers.clone()),
            ("state_dir".into(), or_none(self.state_dir.as_ref().map(|dir| dir.display().to_string()))),
            ("http".into(), self.http.clone()),
            ("advertise".into(), or_none(self.advertise.clone())),
            ("http_token".into(), or_none(self.http_token.as_ref().map(ToString::to_string))),
            (
                "instance_id".into(),
                match &self.instance_id {
                    InstanceId::Given(id) | InstanceId::StatefulSet(id) => id.clone(),
                    InstanceId::Generated => "generated".to_string(),
                },
            ),
            ("workers".into(), self.workers.to_string()),
            ("memory".into(), or_none(self.memory.map(|bytes| bytes.to_string()))),
            ("row_cache".into(), or_none(self.row_cache.map(|bytes| bytes.to_string()))),
            ("commit_interval".into(), format!("{:?}", self.commit_interval)),
            (
                "sync_max_wait".into(),
                self.sync_max_wait.map_or_else(|| "unlimited".to_string(), |wait| format!("{wait:?}")),
            ),
            ("replication".into(), or_none(self.replication.map(|replicas| replicas.to_string()))),
            ("on_stop".into(), or_none(self.on_stop.map(|on_stop| format!("{on_stop:?}").to_lowercase()))),
            ("shutdown_timeout".into(), format!("{:?}", self.shutdown_timeout)),
            ("create_topics".into(), self.create_topics.to_string()),
            ("registry".into(), or_none(self.registry.as_deref().map(text::without_credentials))),
            ("log.level".into(), self.log_level.clone()),
        ];
        for (name, value) in &self.kafka {
            let value = if kafka::is_secret(name) { value.to_string() } else { value.expose().to_string() };
            shown.push((format!("kafka.{name}"), value));
        }
        shown
    }
}

/// A StatefulSet's pods are called `<name>-<ordinal>` and keep that name. Other pods end in five random characters.
fn stateful_set_pod(environment: &Environment) -> Option<String> {
    environment.get("KUBERNETES_SERVICE_HOST")?;
    let host = environment.get("HOSTNAME")?;
    let (name, ordinal) = host.rsplit_once('-')?;
    let is_ordinal = (1..=4).contains(&ordinal.len()) && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    (!name.is_empty() && is_ordinal).then(|| host.to_string())
}

/// All sources of values, in their order of precedence.
struct Given<'a> {
    flags: &'a PartialSettings,
    environment: &'a Environment,
    file: &'a file::Contents,
    errors: Vec<SettingError>,
}

impl Given<'_> {
    fn find(&self, name: &'static str) -> Option<(Origin, String)> {
        let key = KEYS.iter().find(|key| key.name == name)?;
        if let Some(value) = self.flags.values.get(name) {
            return Some((Origin::Flag(key.flag.unwrap_or(key.name).to_string()), value.clone()));
        }
        // An empty variable is one that a template left open.
        if let Some(value) = self.environment.get(key.environment).filter(|value| !value.is_empty()) {
            return Some((Origin::Environment(key.environment.to_string()), value.to_string()));
        }
        self.file.values.get(name).map(|(position, value)| (Origin::File(*position), value.clone()))
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.parsed(name, text::not_empty)
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let (origin, value) = self.find(name)?;
        match parse(value.trim()) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.errors.push(SettingError { origin, problem: format!("`{name}`: {problem}"), help: None });
                None
            }
        }
    }

    fn kafka(&mut self) -> BTreeMap<String, Secret> {
        let mut properties: BTreeMap<String, (Origin, String)> = BTreeMap::new();
        for (name, (position, value)) in &self.file.kafka {
            properties.insert(name.clone(), (Origin::File(*position), value.clone()));
        }
        for (variable, value) in &self.environment.0 {
            if let Some(name) = variable.strip_prefix("SIDESTREAM_KAFKA_") {
                let name = name.to_ascii_lowercase().replace('_', ".");
                properties.insert(name, (Origin::Environment(variable.clone()), value.clone()));
            }
        }
        for (name, value) in &self.flags.kafka {
            properties.insert(name.clone(), (Origin::Flag("kafka".to_string()), value.clone()));
        }
        let mut allowed = BTreeMap::new();
        for (name, (origin, value)) in properties {
            match kafka::check(&name) {
                Ok(()) => {
                    allowed.insert(name, Secret(value));
                }
                Err((problem, help)) => self.errors.push(SettingError { origin, problem, help: Some(help) }),
            }
        }
        allowed
    }
}

#[cfg(test)]
mod tests;
