//! Kafka Streams as a peer: two of the workloads as its own users write them (benches/streams/), a process with one
//! stream thread. Where Java or Maven is missing it is left out, with the reason.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::Process;
use crate::workload::{Topics, Workload};

pub const NAME: &str = "Kafka Streams 4.3.1";

/// The parallel collector took less CPU than G1, and the heap need not grow.
const JVM: &[&str] = &["-Xms1g", "-Xmx1g", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"];
const LEAST_JAVA: u32 = 17;

/// The compiled peer.
pub struct Streams {
    class_path: String,
}

impl Streams {
    /// Compiles it.
    ///
    /// # Errors
    /// Why it cannot be built here.
    pub fn build() -> Result<Self, String> {
        java()?;
        let directory = cache().join("streams-peer");
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        // One process builds, others wait.
        let lock = File::create(cache().join("streams-peer.lock")).map_err(|error| error.to_string())?;
        lock.lock().map_err(|error| error.to_string())?;
        let built = Command::new("mvn")
            .args(["-q", "-B", "-Dstyle.color=never", "-f"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/streams/pom.xml"))
            .args(["compile", "dependency:copy-dependencies"])
            .arg(format!("-Doutput={}", directory.display()))
            .status()
            .map_err(|error| format!("mvn (Maven): {error}"))?;
        if !built.success() {
            return Err(format!("mvn (Maven) ended with {built}"));
        }
        let directory = directory.display();
        Ok(Self { class_path: format!("{directory}/classes:{directory}/jars/*") })
    }

    /// Whether there is a topology for it.
    pub fn has(workload: Workload) -> bool {
        matches!(workload, Workload::Keyed | Workload::Tumbling)
    }

    pub fn start(
        &self,
        workload: Workload,
        brokers: &str,
        topics: &Topics,
        application: &str,
        directory: &Path,
    ) -> Process {
        let mut command = Command::new("java");
        command.args(JVM).args(["-cp", &self.class_path, "sidestream.bench.Peer", workload.name(), brokers]);
        command.args([&topics.input, &topics.output, application]).arg(directory.join("state"));
        Process::printing(command, directory)
    }
}

fn java() -> Result<(), String> {
    let output = Command::new("java").arg("-version").output().map_err(|error| format!("java: {error}"))?;
    // openjdk version "17.0.15" 2025-04-15
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.split('"').nth(1).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match version {
        Some(version) if version >= LEAST_JAVA => Ok(()),
        _ => Err(format!("java is older than {LEAST_JAVA}: {}", text.lines().next().unwrap_or_default())),
    }
}

fn cache() -> PathBuf {
    std::env::var_os("SIDESTREAM_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sidestream"),
        PathBuf::from,
    )
}
