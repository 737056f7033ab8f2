//! From a topology and settings to an instance that can run: what `run` and `dev` share.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use super::output::Failure;
use crate::clock::SharedClock;
use crate::http::{self, Listening, Server};
use crate::log::{Leave, SharedLog};
use crate::runtime::instance::{InstanceSettings, Lifetime};
use crate::runtime::topics::TopicSettings;
use crate::runtime::{View, state};
use crate::settings::{InstanceId, LogFormat, OnStop, Secret, Settings};
use crate::store::budget::{MemoryBudget, StateOnDisk, container_limit, default_memory};
use crate::telemetry::logging;
use crate::topology::Plan;
use crate::topology::plan::BackendKind;

/// Starts to write log lines as the settings say.
pub fn start_logging(settings: &Settings) -> Result<(), Failure> {
    let format = match settings.log_format {
        Some(LogFormat::Text) => logging::Format::Text,
        Some(LogFormat::Json) => logging::Format::Json,
        None => logging::Format::fitting(),
    };
    logging::start(format, &settings.log_level).map_err(Failure::new)
}

/// Binds the HTTP address.
pub fn listen(address: &str) -> Result<Listening, Failure> {
    Listening::bind(address).map_err(|error| {
        let help = error.help();
        Failure::new(error).help(help)
    })
}

/// Answers over HTTP from now on.
pub fn serve(listening: Listening, view: Arc<View>, settings: &Settings) -> Result<Server, Failure> {
    let router = http::router(view, settings.http_token.as_ref().map(Secret::expose));
    listening.serve(router).map_err(|error| {
        let help = error.help();
        Failure::new(error).help(help)
    })
}

/// Under which address other instances reach this one.
pub fn endpoint(settings: &Settings, address: SocketAddr) -> String {
    match &settings.advertise {
        Some(advertise) => advertise.clone(),
        None if address.ip().is_unspecified() => format!("{}:{}", host_name(), address.port()),
        None => address.to_string(),
    }
}

/// The machine's or pod's name.
fn host_name() -> String {
    let of_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()).or_else(of_kernel);
    name.map_or_else(|| "localhost".to_owned(), |name| name.trim().to_owned())
}

/// Opens the state and puts an instance together. `path` is the state directory.
pub fn instance(
    plan: &Arc<Plan>,
    settings: &Settings,
    budget: MemoryBudget,
    path: &Path,
    log: SharedLog,
    clock: SharedClock,
    endpoint: String,
) -> Result<InstanceSettings, Failure> {
    let opened = state::open(path, plan, budget.rocksdb).map_err(|error| match error.help() {
        Some(help) => Failure::new(&error).help(help),
        None => Failure::new(&error),
    })?;
    let (instance_id, membership) = match &settings.instance_id {
        InstanceId::Given(id) | InstanceId::StatefulSet(id) => (id.clone(), Lifetime::Static),
        InstanceId::Generated => (opened.directory.identity().instance_id.clone(), Lifetime::Dynamic),
    };
    Ok(InstanceSettings {
        plan: Arc::clone(plan),
        log,
        backend: opened.backend,
        directory: Some(opened.directory),
        view: View::new(Arc::clone(plan), Arc::clone(&clock)),
        clock,
        instance_id,
        membership,
        endpoint,
        workers: settings.workers,
        budget,
        commit_interval: settings.commit_interval,
        sync_max_wait: settings.sync_max_wait,
        topics: TopicSettings { replication: settings.replication, create_outputs: settings.create_topics },
        on_stop: match settings.on_stop {
            Some(OnStop::Leave) => Leave::Now,
            Some(OnStop::Stay) => Leave::Stay,
            None => membership.on_stop(),
        },
        shutdown_timeout: settings.shutdown_timeout,
    })
}

/// How `--memory` is shared out.
pub fn budget(plan: &Plan, settings: &Settings) -> Result<MemoryBudget, Failure> {
    let on_disk = plan.stores.iter().any(|store| store.backend == BackendKind::RocksDb);
    let on_disk = if on_disk { StateOnDisk::RocksDb } else { StateOnDisk::None };
    let total = settings.memory.unwrap_or_else(|| default_memory(container_limit()));
    let workers = u32::try_from(settings.workers).unwrap_or(u32::MAX);
    let budget = MemoryBudget::split(total, workers, on_disk).map_err(Failure::new)?;
    settings.row_cache.map_or(Ok(budget), |bytes| budget.with_row_cache(bytes, workers).map_err(Failure::new))
}
