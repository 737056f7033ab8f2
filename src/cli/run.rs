//! `sidestream run`: a topology on Kafka, until it is told to stop.

use std::path::PathBuf;
use std::sync::Arc;

use super::Exit;
use super::application::{budget, endpoint, instance, listen, serve, start_logging};
use super::output::Failure;
use super::settings::SettingsFlags;
use super::stop::Stop;
use super::topology::load;
use crate::clock::SystemClock;
use crate::log::kafka::{KafkaLog, KafkaSettings};
use crate::runtime::instance::{self, Shutdown};
use crate::settings::Settings;
use crate::store::budget::MemoryBudget;
use crate::topology::Plan;

/// Run a topology on Kafka
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(value_name = "TOPOLOGY.yaml")]
    file: PathBuf,
    #[command(flatten)]
    settings: SettingsFlags,
}

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let settings = arguments.settings.resolve()?;
    let plan = Arc::new(load(&arguments.file)?.plan);
    start_logging(&settings)?;
    let budget = budget(&plan, &settings)?;
    let log = Arc::new(connect(&settings, Some(&budget))?);
    let stop = Stop::on_signals()?;
    let listening = listen(&settings.http)?;
    let endpoint = endpoint(&settings, listening.address());
    let path = settings.state_dir(&plan.name);
    let clock = SystemClock::shared();
    let prepared = instance(&plan, &settings, budget, &path, log, clock, endpoint)?;
    let server = serve(listening, Arc::clone(&prepared.view), &settings)?;
    announce(&plan, &settings, &prepared.instance_id, &path.display().to_string());

    let shutdown = Shutdown::new();
    let request = shutdown.clone();
    let watching = stop.clone();
    std::thread::Builder::new()
        .name("stop".to_owned())
        .spawn(move || {
            while !watching.wait(std::time::Duration::from_hours(1)) {}
            request.request();
        })
        .map_err(|error| Failure::new(format!("no thread can be started: {error}")))?;
    let ended = instance::run(prepared, &shutdown);
    drop(server);
    match ended {
        Ok(report) if report.in_time => {
            tracing::info!(took_ms = millis(report.took), "stopped");
            Ok(Exit::Done)
        }
        Ok(report) => {
            tracing::warn!(
                took_ms = millis(report.took),
                "stopped before everything was committed; it will be processed again by whoever owns it next"
            );
            Ok(Exit::Done)
        }
        Err(fatal) => Err(Failure::new(fatal)),
    }
}

/// The client of the cluster. Nothing is sent yet; the only mistake that shows is a wrong property.
pub fn connect(settings: &Settings, budget: Option<&MemoryBudget>) -> Result<KafkaLog, Failure> {
    let brokers = settings.require_brokers().map_err(|error| Failure::new(&error))?;
    let mut kafka = KafkaSettings::new(brokers);
    if let Some(budget) = budget {
        let queue = usize::try_from(budget.fetch_client_queue()).unwrap_or(usize::MAX);
        kafka.fetch_queue_bytes = kafka.fetch_queue_bytes.min(queue);
    }
    kafka.properties = settings.kafka.iter().map(|(name, value)| (name.clone(), value.expose().to_owned())).collect();
    KafkaLog::new(kafka)
        .map_err(|error| Failure::new(error).help("see --kafka, SIDESTREAM_KAFKA_* and `kafka:` in sidestream.yaml"))
}

/// What starts, in the words of somebody who sees it for the first time.
fn announce(plan: &Plan, settings: &Settings, instance_id: &str, state_dir: &str) {
    tracing::info!(
        application = %plan.name,
        instance = %instance_id,
        brokers = %settings.brokers,
        state_dir = %state_dir,
        workers = settings.workers,
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    let sources = plan.sub_topologies.iter().flat_map(|part| &part.sources);
    let topics: Vec<&str> =
        sources.filter(|source| source.repartition.is_none()).map(|source| source.topic.as_str()).collect();
    let outputs: Vec<String> = crate::task::facts::output_topics(plan).iter().map(ToString::to_string).collect();
    let tables: Vec<&str> = plan.tables.iter().filter(|table| table.queryable).map(|table| &*table.name).collect();
    tracing::info!(reads = topics.join(","), writes = outputs.join(","), tables = tables.join(","), "topology");
    tracing::info!(
        "waiting for Kafka, the topics and the state; /readyz says what is still missing, and SIGTERM stops in an orderly way"
    );
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
