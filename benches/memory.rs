//! How much memory a process takes that may take little: `--memory` under two million keys that are restored and then
//! changed at random, the first tasks already while the others are still being restored.

use serde_json::{Value, json};

use crate::Bench;
use crate::changelog::Application;
use crate::process::Process;
use crate::restore::{self, Run};

const KEYS: u64 = 2_000_000;
const INPUT: u64 = 1_000_000;
/// What the process is given, in units of 10^6 bytes, and the most that it takes beside it (docs/benchmarks.md).
pub const GIVEN: [u64; 2] = [256, 512];

/// One run per size.
#[derive(Debug)]
pub struct Figures(Vec<(u64, Run)>);

pub fn measure(bench: &Bench) -> Figures {
    let runs = GIVEN.map(|given| {
        eprintln!("memory: {given} MB");
        let mut application = Application::new(bench, &format!("memory.{given}"));
        application.write_changelog(&bench.kafka.brokers, KEYS, KEYS);
        application.write_input(&bench.kafka.brokers, KEYS, INPUT);
        let memory = format!("{given}MB");
        let mut process = application.start(bench, &["--memory", &memory]);
        let committed = |_: &Process| bench.is_committed(&application.name, &application.topics.input);
        let run = restore::follow(&mut process, INPUT, (0.60, 0.95), Process::processed, committed);
        process.end();
        (given, run)
    });
    Figures(runs.into())
}

impl Figures {
    pub fn print(&self) {
        println!();
        println!("{KEYS} keys restored and then changed {INPUT} times at random, with little memory:");
        println!();
        println!("| `--memory` | records/s | us CPU/record | whole: records/s | us CPU/record | peak RSS MB |");
        println!("|---|---:|---:|---:|---:|---:|");
        for (given, run) in &self.0 {
            println!("| {given} MB {} |", restore::columns(run));
        }
    }

    pub fn json(&self) -> Value {
        let run = |(given, run): &(u64, Run)| json!({"given_bytes": given * 1_000_000, "run": restore::run_json(run)});
        json!({"keys": KEYS, "input": INPUT, "runs": self.0.iter().map(run).collect::<Vec<_>>()})
    }
}
