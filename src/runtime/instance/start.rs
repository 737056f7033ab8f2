//! The start of an instance, one attempt per turn, for as long as it takes.
//!
//! What it is: steps 1 to 3 of `runtime::instance`, and the making of the parts that run afterwards.
//! What it is not: it does not wait; whoever turns it does.

use std::sync::Arc;
use std::time::Duration;

use super::{InstanceSettings, Lifetime};
use crate::log::{self, Next, ProducerSettings};
use crate::runtime::coordinator::{Context, Coordinator, Fatal};
use crate::runtime::crew::Crew;
use crate::runtime::group_map::{client_id, group_instance_id};
use crate::runtime::observer::Observer;
use crate::runtime::ownership::Ownership;
use crate::runtime::restorer::{Restorer, RestorerSettings};
use crate::runtime::topics::{Prepared, prepare};
use crate::runtime::view::{Condition, Identity};
use crate::runtime::worker::{Worker, WorkerSettings};
use crate::task::Facts;
use crate::task::restore::Tools;
use crate::topology::plan::Guarantee;

/// Between two tries of a step of the start: doubled from the first to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// The steps of the start, one attempt per turn.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) settings: InstanceSettings,
    not_before: Duration,
    back_off: Duration,
    facts: Option<Arc<Facts>>,
    /// Worker numbers whose producers still have to be initialised, and the workers made so far.
    unfenced: Option<Vec<u32>>,
    workers: Vec<Worker>,
    ownership: Arc<Ownership>,
}

/// What the start has led to.
pub(super) struct Started {
    pub(super) facts: Arc<Facts>,
    pub(super) ownership: Arc<Ownership>,
    pub(super) workers: Vec<Worker>,
}

impl Start {
    pub(super) fn new(settings: InstanceSettings) -> Self {
        let identity = Identity { instance_id: settings.instance_id.clone(), endpoint: settings.endpoint.clone() };
        settings.view.set_identity(identity);
        settings.view.set_backend(Arc::clone(&settings.backend));
        let ownership = Ownership::new(settings.endpoint.clone());
        settings.log.expect_group(&settings.plan.name);
        Self {
            settings,
            not_before: Duration::ZERO,
            back_off: BACK_OFF.0,
            facts: None,
            unfenced: None,
            workers: Vec::new(),
            ownership,
        }
    }

    /// Begins anew, with what may have changed in the log.
    pub(super) fn again(&mut self) {
        self.facts = None;
        self.unfenced = None;
        self.workers.clear();
        self.ownership = Ownership::new(self.settings.endpoint.clone());
        self.not_before = Duration::ZERO;
    }

    /// # Errors
    /// Where the state directory was deleted: what is written now would not be found again.
    pub(super) fn check_directory(&self) -> Result<(), Fatal> {
        match &self.settings.directory {
            Some(directory) if !directory.is_in_place() => Err(Fatal {
                message: format!(
                    "the state directory {} was deleted or replaced while it was in use; nothing is lost: start again, and \
                     the state is restored from the changelogs",
                    directory.path().display()
                ),
                abruptly: false,
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// When the next attempt is due.
    pub(super) fn due(&self) -> Duration {
        self.not_before
    }

    pub(super) fn turn(&mut self) -> Result<Option<Started>, Fatal> {
        let now = self.settings.clock.monotonic();
        if now < self.not_before {
            return Ok(None);
        }
        let started = self.attempt()?;
        if started.is_some() {
            self.back_off = BACK_OFF.0;
            self.settings.view.clear_all(Condition::KafkaUnreachable);
        } else {
            self.not_before = now + self.back_off;
            self.back_off = (self.back_off * 2).min(BACK_OFF.1);
        }
        Ok(started)
    }

    fn attempt(&mut self) -> Result<Option<Started>, Fatal> {
        let facts = match &self.facts {
            Some(facts) => Arc::clone(facts),
            None => match self.prepare_topics()? {
                Some(facts) => Arc::clone(self.facts.insert(facts)),
                None => return Ok(None),
            },
        };
        if !self.make_workers(&facts)? {
            return Ok(None);
        }
        tracing::debug!(workers = self.workers.len(), "transactions of earlier runs are ended");
        self.settings.view.set_facts(Arc::clone(&facts));
        Ok(Some(Started { facts, ownership: Arc::clone(&self.ownership), workers: std::mem::take(&mut self.workers) }))
    }

    /// Steps 1 and 2.
    fn prepare_topics(&mut self) -> Result<Option<Arc<Facts>>, Fatal> {
        let settings = &mut self.settings;
        if let Some(directory) = &mut settings.directory {
            let cluster_id = match settings.log.cluster_id() {
                Ok(cluster_id) => cluster_id,
                Err(error) => return self.wait_for(&error).map(|()| None),
            };
            directory.bind_cluster(&cluster_id).map_err(|error| stored_elsewhere(&error))?;
        }
        match prepare(&*settings.log, &settings.plan, settings.topics) {
            Ok(Prepared::Ready(facts)) => {
                let view = &settings.view;
                view.clear_all(Condition::KafkaUnreachable);
                view.clear_all(Condition::TopicMissing);
                view.clear_all(Condition::TopicUnfit);
                tracing::debug!("the topics are there");
                Ok(Some(Arc::from(facts)))
            }
            Ok(Prepared::Waiting(obstacles)) => {
                let view = &settings.view;
                view.clear_all(Condition::KafkaUnreachable);
                view.retain(Condition::TopicMissing, |subject| {
                    obstacles.iter().any(|obstacle| obstacle.is_missing() && obstacle.subject() == subject)
                });
                view.retain(Condition::TopicUnfit, |subject| {
                    obstacles.iter().any(|obstacle| !obstacle.is_missing() && obstacle.subject() == subject)
                });
                for obstacle in obstacles {
                    let missing = obstacle.is_missing();
                    let condition = if missing { Condition::TopicMissing } else { Condition::TopicUnfit };
                    view.raise(condition, &obstacle.subject(), &obstacle.to_string());
                }
                Ok(None)
            }
            Err(error) => self.wait_for(&error).map(|()| None),
        }
    }

    /// Step 3. Goes on where it was cut off.
    fn make_workers(&mut self, facts: &Arc<Facts>) -> Result<bool, Fatal> {
        let count = self.settings.workers.max(1);
        if self.unfenced.is_none() {
            let all = match &mut self.settings.directory {
                Some(directory) => directory
                    .use_workers(u32::try_from(count).unwrap_or(u32::MAX))
                    .map_err(|error| stored_elsewhere(&error))?,
                None => (0..u32::try_from(count).unwrap_or(u32::MAX)).collect(),
            };
            // Those that have no worker any more only need their transactions ended.
            self.unfenced = Some(all.into_iter().filter(|number| *number as usize >= count).collect());
        }
        while let Some(number) = self.unfenced.as_ref().and_then(|numbers| numbers.first().copied()) {
            if let Err(error) = self.end_transactions_of(number) {
                self.wait_for(&error)?;
                return Ok(false);
            }
            if let Some(numbers) = &mut self.unfenced {
                numbers.remove(0);
            }
        }
        while self.workers.len() < count {
            match Worker::new(self.worker_settings(self.workers.len(), facts)) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    self.wait_for(&error)?;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn end_transactions_of(&self, number: u32) -> Result<(), log::Error> {
        let Some(transactional_id) = self.transactional_id(number as usize) else { return Ok(()) };
        let settings = ProducerSettings {
            name: transactional_id.clone(),
            transactional_id: Some(transactional_id),
            max_message_bytes: crate::limits::DEFAULT_MAX_MESSAGE_BYTES,
            batch_bytes: crate::limits::DEFAULT_MAX_MESSAGE_BYTES,
            queue_bytes: 1 << 20,
        };
        self.settings.log.producer(&settings)?.init()
    }

    /// Rule 2a.
    fn transactional_id(&self, worker: usize) -> Option<String> {
        match self.settings.plan.guarantee {
            Guarantee::ExactlyOnce => {
                Some(format!("{}-{}-{worker}", self.settings.plan.name, self.settings.instance_id))
            }
            Guarantee::AtLeastOnce => None,
        }
    }

    fn worker_settings(&self, index: usize, facts: &Arc<Facts>) -> WorkerSettings {
        let settings = &self.settings;
        WorkerSettings {
            index,
            transactional_id: self.transactional_id(index),
            log: Arc::clone(&settings.log),
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            backend: Arc::clone(&settings.backend),
            clock: Arc::clone(&settings.clock),
            ownership: Arc::clone(&self.ownership),
            commit_interval: settings.commit_interval,
            sync_max_wait: settings.sync_max_wait,
            budget: settings.budget,
            view: Arc::clone(&settings.view),
        }
    }

    /// Says why the start waits. An error that waiting cannot repair ends it.
    fn wait_for(&self, error: &log::Error) -> Result<(), Fatal> {
        match error.next() {
            Next::Stop => Err(Fatal { message: error.to_string(), abruptly: false }),
            Next::Retry
            | Next::Wait
            | Next::Rejoin
            | Next::RecreateProducer
            | Next::Fenced
            | Next::Reposition
            | Next::Poison => {
                self.settings.view.raise(Condition::KafkaUnreachable, "", &error.to_string());
                Ok(())
            }
        }
    }

    fn tools(&self, facts: &Arc<Facts>) -> Tools {
        let settings = &self.settings;
        Tools {
            log: Arc::clone(&settings.log),
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            backend: Arc::clone(&settings.backend),
            clock: Arc::clone(&settings.clock),
            counters: Arc::clone(&settings.view.counters),
        }
    }

    pub(super) fn restorer(&self, number: usize, facts: &Arc<Facts>) -> Restorer {
        let settings = &self.settings;
        Restorer::new(RestorerSettings {
            name: format!("{}-restore-{number}", settings.instance_id),
            tools: self.tools(facts),
            view: Arc::clone(&settings.view),
            cache_bytes: cache_bytes_per_task(settings, facts),
            sync_max_wait: settings.sync_max_wait,
        })
    }

    pub(super) fn coordinator(&self, facts: &Arc<Facts>, ownership: &Arc<Ownership>, crew: Crew) -> Coordinator {
        let settings = &self.settings;
        let group_instance_id = match settings.membership {
            Lifetime::Dynamic => None,
            Lifetime::Static => Some(group_instance_id(&settings.instance_id, &facts.map_hash, &settings.endpoint)),
        };
        let context = Context {
            plan: Arc::clone(&settings.plan),
            facts: Arc::clone(facts),
            log: Arc::clone(&settings.log),
            clock: Arc::clone(&settings.clock),
            view: Arc::clone(&settings.view),
            ownership: Arc::clone(ownership),
            client_id: client_id(&settings.instance_id, &facts.map_hash),
            group_instance_id,
            seed: xxhash_rust::xxh3::xxh3_64(settings.instance_id.as_bytes()),
        };
        Coordinator::new(context, crew)
    }

    pub(super) fn observer(&self, facts: &Arc<Facts>) -> Observer {
        let settings = &self.settings;
        Observer::new(
            Arc::clone(&settings.log),
            Arc::clone(&settings.plan),
            Arc::clone(facts),
            Arc::clone(&settings.clock),
            Arc::clone(&settings.view),
        )
    }
}

/// The row caches of all workers, shared out over the tasks that one instance may come to own.
fn cache_bytes_per_task(settings: &InstanceSettings, facts: &Facts) -> usize {
    let stateful = settings.plan.sub_topologies.iter().filter(|sub| !sub.stores.is_empty());
    let tasks: u64 = stateful.map(|sub| u64::from(facts.tasks(sub.id))).sum();
    let total = settings.budget.row_cache_per_worker * settings.workers.max(1) as u64;
    usize::try_from(total / tasks.max(1)).unwrap_or(usize::MAX)
}

fn stored_elsewhere(error: &crate::store::Error) -> Fatal {
    Fatal { message: format!("{error}{}", error.help_clause()), abruptly: false }
}
