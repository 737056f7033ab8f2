//! `sidestream dev`: a topology on an embedded log, with generated input, HTTP and a screen to watch it by.
//!
//! What it is: the whole product but for Kafka. The same instance, on threads, over `log::memory`; generators in the place
//! of producers, and a consumer of the output topics that prints.

mod input;
pub mod screen;
mod share;
mod summary;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::Exit;
use super::application::{budget, endpoint, instance, listen, serve, start_logging};
use super::output::{Colour, Failure};
use super::record::SourceWriter;
use super::scratch::Scratch;
use super::settings::SettingsFlags;
use super::stop::Stop;
use super::test::table_topics;
use super::topology::load;
use crate::clock::{SharedClock, SystemClock};
use crate::expression::{self, Env};
use crate::http::{Listening, key};
use crate::ids::{EventTime, Offset, Partition, TopicName};
use crate::log::memory::MemoryLog;
use crate::log::{Cleanup, Log as _, NewTopic};
use crate::row::Origin;
use crate::runtime::View;
use crate::runtime::instance::{self as running, Shutdown};
use crate::runtime::view::ScanRequest;
use crate::settings::{LogFormat, Settings};
use crate::task::facts::{output_topics, source_topics};
use crate::topology::{GeneratorPlan, Plan};
use crate::value::Value;
use input::{FileReader, InputFile, Intake, Pace};
use screen::Screen;
use summary::Summary;
use tap::{Seen, Shown, Tap};

/// Run a topology without a broker: generated or file input, live results, and HTTP
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(value_name = "TOPOLOGY.yaml")]
    file: PathBuf,
    /// Rows for a stream or table, one JSON object per line, in the place of its generator; may be repeated
    #[arg(long, value_name = "NAME=FILE.jsonl", value_parser = InputFile::parse)]
    input: Vec<InputFile>,
    /// End by itself after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// End by itself when so many input records have been processed
    #[arg(long, value_name = "N")]
    records: Option<u64>,
    /// The same seed generates the same values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Partitions of every topic
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    partitions: u32,
    #[command(flatten)]
    settings: SettingsFlags,
}

/// How often the screen is brought up to date.
const TICK: Duration = Duration::from_secs(1);
/// Records that wait for the screen.
const SCREEN_QUEUE: usize = 1_024;
/// How long what is under way at the end may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How often old records are forgotten, and how many are kept per partition.
const TIDY_EVERY: u64 = 10;
const KEPT_RECORDS: i64 = 10_000;

pub fn run(arguments: &Arguments) -> Result<Exit, Failure> {
    let mut settings = arguments.settings.resolve()?;
    let loaded = load(&arguments.file)?;
    let plan = Arc::new(loaded.plan);
    if settings.log_level == "info" {
        // The screen shows what happens, and in its summary what is waited for; only trouble is worth a line between.
        "warn,sidestream::runtime::view=error".clone_into(&mut settings.log_level);
    }
    settings.log_format = settings.log_format.or(Some(LogFormat::Text));
    settings.create_topics = true;
    start_logging(&settings)?;

    let files = arguments.input.iter().map(|input| input.open(&plan)).collect::<Result<Vec<FileReader>, Failure>>()?;
    let replaced: BTreeSet<&str> = arguments.input.iter().map(|input| &*input.source).collect();
    let generators = generators(&plan, loaded.generators, &replaced);
    if files.is_empty() && generators.is_empty() {
        return Err(Failure::new("there is no input")
            .help("add a `dev:` section with a generator per source, or use --input NAME=FILE.jsonl"));
    }

    let clock = SystemClock::shared();
    let log = MemoryLog::new(Arc::clone(&clock));
    create_topics(&log, &plan, arguments.partitions)?;
    let stop = Stop::on_signals()?;
    let scratch = if settings.state_dir.is_none() { Some(Scratch::new("dev")?) } else { None };
    let path = scratch.as_ref().map_or_else(|| settings.state_dir(&plan.name), |scratch| scratch.path().to_owned());
    let mut screen = Screen::new();
    let listening = listen_somewhere(&settings, &mut screen)?;
    let address = listening.address();
    let endpoint = endpoint(&settings, address);
    let (budget, client) = (budget(&plan, &settings)?, log.client("dev").shared());
    let prepared = instance(&plan, &settings, budget, &path, client, Arc::clone(&clock), endpoint)?;
    let view = Arc::clone(&prepared.view);
    let server = serve(listening, Arc::clone(&view), &settings)?;
    greet(&mut screen, &plan, &generators, &arguments.input, &address.to_string())?;

    let intake = Intake::new(log.clone(), Arc::clone(&clock), arguments.partitions, arguments.records, stop.clone());
    let (shown, records) = bounded(SCREEN_QUEUE);
    let outputs = shown_topics(&plan);
    let tap = Tap::new(&log, &plan, &outputs, Arc::clone(&clock), shown)?;
    let seen = tap.seen();
    // The tap outlives the others: it reads what they wrote last.
    let tap_stop = Stop::new();

    let shutdown = Shutdown::new();
    let request = shutdown.clone();
    let instance_stop = stop.clone();
    let instance = spawn("instance", move || {
        let ended = running::run(prepared, &request).map(drop).map_err(Failure::new);
        // Without an instance there is nothing to watch.
        instance_stop.stop();
        ended
    })?;
    let mut inputs = Vec::new();
    for (number, generator) in generators.into_iter().enumerate() {
        let (intake, seed) = (intake.clone(), arguments.seed.wrapping_add(number as u64));
        inputs.push(spawn("generator", move || failing(&intake.stop.clone(), || generator.run(&intake, seed)))?);
    }
    for file in files {
        let intake = intake.clone();
        inputs.push(spawn("input", move || failing(&intake.stop.clone(), || file.run(&intake)))?);
    }
    let tapping = tap_stop.clone();
    let tap = spawn("tap", move || tap.run(&tapping))?;

    let mut watch = Watch {
        plan: Arc::clone(&plan),
        log,
        view,
        clock: Arc::clone(&clock),
        intake,
        seen,
        records,
        screen,
        base: format!("http://{address}"),
        tried: BTreeSet::new(),
        outputs,
    };
    let end = arguments.seconds.map(|seconds| clock.monotonic() + Duration::from_secs(seconds));
    let watched = watch.run(&stop, end);
    stop.stop();
    let fed = inputs.into_iter().map(join).fold(Ok(()), Result::and);
    let drained = watch.drain(&instance);
    shutdown.request();
    let ended = join(instance);
    tap_stop.stop();
    let tapped = join(tap);
    watch.finish()?;
    drop(server);
    watched.and(ended).and(fed).and(drained).and(tapped)?;
    Ok(Exit::Done)
}

/// Stops everything where an input cannot go on.
fn failing(stop: &Stop, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let result = work();
    if result.is_err() {
        stop.stop();
    }
    result
}

fn spawn(
    name: &str,
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Failure::new(format!("no thread can be started: {error}")))
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    let name = thread.thread().name().unwrap_or("a").to_owned();
    thread.join().unwrap_or_else(|_panic| Err(Failure::new(format!("the {name} thread has failed; this is a bug"))))
}

/// The address of the settings; where that is the default and taken, any free port.
fn listen_somewhere(settings: &Settings, screen: &mut Screen) -> Result<Listening, Failure> {
    const DEFAULT: &str = "127.0.0.1:8088";
    match listen(&settings.http) {
        Err(_taken) if settings.http == DEFAULT => {
            let listening = listen("127.0.0.1:0")?;
            screen.line(&format!("port 8088 is taken; HTTP listens on {}", listening.address()))?;
            Ok(listening)
        }
        other => other,
    }
}

/// The topics whose records are shown.
fn shown_topics(plan: &Plan) -> Vec<TopicName> {
    let outputs = output_topics(plan).into_iter().filter(|topic| is_users(plan, topic) && *topic != plan.dead_letters);
    outputs.chain([plan.dead_letters.clone()]).collect()
}

/// Whether a topic is the user's to look at: outputs, late records and dead letters, but no changelog.
fn is_users(plan: &Plan, topic: &TopicName) -> bool {
    *topic == plan.dead_letters || plan.internal_topics.iter().all(|internal| internal.name != *topic)
}

fn create_topics(log: &MemoryLog, plan: &Plan, partitions: u32) -> Result<(), Failure> {
    let tables = table_topics(plan);
    let internal: BTreeSet<&TopicName> = plan.internal_topics.iter().map(|topic| &topic.name).collect();
    let topics: BTreeSet<TopicName> = source_topics(plan).into_iter().chain(output_topics(plan)).collect();
    for name in topics.into_iter().filter(|name| !internal.contains(name)) {
        let cleanup = if tables.contains(&name) { Cleanup::Compact } else { Cleanup::Delete };
        let topic = NewTopic { name, partitions, replication: None, cleanup, config: Vec::new() };
        log.create_topic(&topic).map_err(Failure::new)?;
    }
    // The instance would make this one, but later than the screen looks for it.
    let name = plan.dead_letters.clone();
    let topic = NewTopic { name, partitions: 1, replication: None, cleanup: Cleanup::Delete, config: Vec::new() };
    log.create_topic(&topic).map_err(Failure::new)
}

fn greet(
    screen: &mut Screen,
    plan: &Plan,
    generators: &[Running],
    files: &[InputFile],
    address: &str,
) -> Result<(), Failure> {
    let colours = screen.colours();
    let about = plan.description.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
    screen.line(&format!("{}{about}", colours.paint(Colour::Bold, &plan.name)))?;
    for generator in generators {
        screen.line(&format!("  input   {}, {} records/s, generated", generator.plan.source, generator.plan.rate))?;
    }
    for file in files {
        screen.line(&format!("  input   {}, from {}", file.source, file.path.display()))?;
    }
    let outputs: Vec<String> = shown_topics(plan).iter().map(ToString::to_string).collect();
    screen.line(&format!("  output  {}", outputs.join(", ")))?;
    let tables: Vec<&str> = plan.tables.iter().filter(|table| table.queryable).map(|table| &*table.name).collect();
    screen.line(&format!("  tables  {}", tables.join(", ")))?;
    screen.line(&format!("  HTTP    http://{address}/openapi.json"))?;
    screen.line("No broker is needed: topics are in memory. Ctrl-C ends it.")?;
    screen.line("")
}

// ---- generators ----------------------------------------------------------------------------------------------------

/// A generator with what it writes by.
#[derive(Debug)]
struct Running {
    plan: GeneratorPlan,
    writer: SourceWriter,
}

/// Those of sources that are read and have no file.
fn generators(plan: &Plan, generators: Vec<GeneratorPlan>, replaced: &BTreeSet<&str>) -> Vec<Running> {
    let topics = source_topics(plan);
    let wanted = generators
        .into_iter()
        .filter(|it| topics.contains(&it.topic) && !replaced.contains(&*it.source) && it.rate > 0.0);
    wanted.map(|plan| Running { writer: SourceWriter::of_generator(&plan), plan }).collect()
}

impl Running {
    /// Makes records at the generator's rate until it is time to stop.
    fn run(mut self, intake: &Intake, seed: u64) -> Result<(), Failure> {
        /// At most so many at once, so that a stop is noticed.
        const BURST: u64 = 1_000;
        /// Between two looks at the clock, where the rate leaves time.
        const PAUSE: Duration = Duration::from_millis(5);
        expression::seed_random(seed);
        let mut pace = Pace::new(self.plan.rate, intake.clock().monotonic());
        loop {
            let due = pace.due(intake.clock().monotonic(), BURST);
            for _ in 0..due {
                let row = self.make(intake.clock())?;
                let bytes = self.writer.row(&row).map_err(|reason| self.failed(&reason))?;
                if !intake.append(&self.plan.topic, &bytes)? {
                    return Ok(());
                }
            }
            let pause = if due == BURST { Duration::ZERO } else { PAUSE };
            if intake.stop.wait(pause) {
                return Ok(());
            }
        }
    }

    fn make(&self, clock: &SharedClock) -> Result<Vec<Value>, Failure> {
        let now = clock.wall_micros();
        let origin = Origin {
            topic: self.plan.topic.clone(),
            partition: Partition(0),
            offset: Offset::ZERO,
            key: None,
            headers: None,
            time: EventTime::from_micros(now),
            tombstone: false,
            fetched_at: now,
        };
        let mut row = vec![Value::Null; self.plan.schema.len()];
        for (slot, expression) in &self.plan.columns {
            let value = expression.eval(&Env { row: &row, origin: &origin });
            row[*slot] = value.map_err(|error| self.failed(&format!("`{}`: {error}", expression.text)))?;
        }
        Ok(row)
    }

    fn failed(&self, reason: &str) -> Failure {
        Failure::new(format!("the generator of `{}`: {reason}", self.plan.source))
            .help("correct it in the `dev:` section")
    }
}

// ---- watching ------------------------------------------------------------------------------------------------------

/// The main thread: what is shown while everything runs.
#[derive(Debug)]
struct Watch {
    plan: Arc<Plan>,
    log: MemoryLog,
    view: Arc<View>,
    clock: SharedClock,
    intake: Intake,
    seen: Seen,
    records: Receiver<Shown>,
    screen: Screen,
    base: String,
    /// Tables for which a line to try was printed.
    tried: BTreeSet<String>,
    outputs: Vec<TopicName>,
}

impl Watch {
    fn run(&mut self, stop: &Stop, end: Option<Duration>) -> Result<(), Failure> {
        let mut summary = Summary::new(&self.clock);
        let mut next = self.clock.monotonic() + TICK;
        let mut ticks: u64 = 0;
        loop {
            let now = self.clock.monotonic();
            if stop.is_stopped() || end.is_some_and(|end| now >= end) || self.intake.is_full() {
                return Ok(());
            }
            self.show_records(next.saturating_sub(now).min(Duration::from_millis(50)))?;
            if self.clock.monotonic() >= next {
                next += TICK;
                ticks += 1;
                self.show_lines_to_try()?;
                let hidden = self.seen.take_hidden();
                let line = summary.line(&self.clock, &self.view, &self.intake, &self.seen, hidden);
                self.screen.summary(&line)?;
                if ticks.is_multiple_of(TIDY_EVERY) {
                    self.tidy();
                }
            }
        }
    }

    /// Shows what has arrived, waiting for the first record.
    fn show_records(&mut self, wait: Duration) -> Result<(), Failure> {
        let mut next = match self.records.recv_timeout(wait) {
            Ok(record) => Some(record),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The tap has failed; what else there is goes on.
                self.intake.stop.wait(wait);
                None
            }
        };
        while let Some(record) = next {
            self.screen.record(record.topic.as_str(), &record.key, record.value.as_deref())?;
            next = self.records.try_recv().ok();
        }
        Ok(())
    }

    /// A `curl` line per table, as soon as it has a row.
    fn show_lines_to_try(&mut self) -> Result<(), Failure> {
        let request = ScanRequest { limit: 1, ..ScanRequest::default() };
        for table in self.plan.tables.iter().filter(|table| table.queryable) {
            if self.tried.contains(&*table.name) {
                continue;
            }
            let Ok(rows) = self.view.scan(table, &request) else { continue };
            let Some(row) = rows.first() else { continue };
            self.tried.insert(table.name.to_string());
            let path = key::path_of(table, &row.key);
            let line = format!("try: curl '{}{path}'", self.base);
            let colours = self.screen.colours();
            self.screen.line(&colours.paint(Colour::Yellow, line))?;
        }
        Ok(())
    }

    /// Waits until all input is processed.
    fn drain(&mut self, instance: &JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
        let deadline = self.clock.monotonic() + DRAIN_TIMEOUT;
        let mut quiet = 0;
        while quiet < 5 && !instance.is_finished() && self.clock.monotonic() < deadline {
            self.show_records(Duration::from_millis(50))?;
            quiet = if self.is_caught_up() { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// Whether the committed offsets are the ends, asked of the log itself.
    fn is_caught_up(&self) -> bool {
        let inputs: Vec<_> = self.view.lag().into_iter().map(|lag| (lag.committed, lag.input)).collect();
        // An instance that has no task yet has read nothing of it.
        if inputs.is_empty() && self.intake.appended() > 0 {
            return false;
        }
        inputs.iter().all(|(committed, input)| {
            let end = self.log.last_stable_offset(input);
            end.is_ok_and(|end| end == Offset::ZERO || committed.is_some_and(|committed| committed >= end))
        })
    }

    /// The last records and the totals.
    fn finish(&mut self) -> Result<(), Failure> {
        self.show_records(Duration::ZERO)?;
        self.screen.settle()?;
        let line = summary::totals(&self.view, &self.intake, &self.seen);
        self.screen.line(&line)
    }

    /// Forgets what nobody reads any more, so that hours of input fit into memory.
    fn tidy(&self) {
        let sources = source_topics(&self.plan);
        let compacted = table_topics(&self.plan);
        for topic in compacted.iter().chain(self.plan.internal_topics.iter().map(|topic| &topic.name)) {
            // A topic that is not there yet has nothing to compact.
            let _compacted = self.log.compact(topic);
        }
        let committed: BTreeMap<_, _> =
            self.view.lag().into_iter().filter_map(|lag| Some((lag.input, lag.committed?))).collect();
        let mut before = Vec::new();
        for (input, committed) in &committed {
            if sources.contains(&input.topic) && !compacted.contains(&input.topic) && is_users(&self.plan, &input.topic)
            {
                before.push((input.clone(), Offset((committed.0 - KEPT_RECORDS).max(0))));
            }
        }
        for topic in self.outputs.iter().filter(|topic| !sources.contains(topic)) {
            let Ok(descriptions) = self.log.describe_topics(std::slice::from_ref(topic)) else { continue };
            let partitions = descriptions.into_iter().flatten().map(|topic| topic.partitions).max().unwrap_or(0);
            for partition in (0..partitions).map(Partition) {
                let partition = crate::ids::TopicPartition::new(topic.clone(), partition);
                if let Ok(end) = self.log.last_stable_offset(&partition) {
                    before.push((partition, Offset((end.0 - KEPT_RECORDS).max(0))));
                }
            }
        }
        if let Err(error) = self.log.delete_records(&before) {
            tracing::debug!(%error, "old records stay in memory");
        }
    }
}
