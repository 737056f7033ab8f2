//! Real Kafka brokers: Apache Kafka from Maven Central in KRaft mode, one node or a cluster of three, on free ports, each
//! in a directory of its own.
//!
//! The jars are fetched once, by `tests/broker/pom.xml`, into `${SIDESTREAM_CACHE:-~/.cache/sidestream}`. The broker
//! ends with the test process, however that ends: a shell waits for the end of its standard input and then kills it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use base64::Engine;
use sidestream::log::Log;
use sidestream::log::kafka::{KafkaLog, KafkaSettings};

use super::eventually;
use super::proxy::Proxy;

pub const VERSION: &str = "4.3.1";
/// Who may use the secure listener.
pub const USER: &str = "alice";
pub const PASSWORD: &str = "alice-secret";
const STORE_PASSWORD: &str = "store-secret";

/// Starts the JVM, tells its process id, and kills it when our process is gone.
const KEEPER: &str = r#"exec 3<&0
"$@" >>"$LOG_FILE" 2>&1 </dev/null 3<&- &
broker=$!
echo "$broker"
(cat <&3 >/dev/null; kill -9 "$broker") >/dev/null 2>&1 &
wait "$broker""#;

/// Removes the broker's directory when our process is gone.
const JANITOR: &str = r#"cat >/dev/null; sleep 1; rm -rf "$1""#;

#[derive(Debug)]
pub struct Broker {
    id: u32,
    jvm: Jvm,
    port: u16,
    controller_port: u16,
    /// Of the listener with TLS and SASL, where there is one.
    secure_port: Option<u16>,
    /// Before a listener of its own: its clients are led through the proxy to every broker.
    proxied: Option<(u16, Proxy)>,
    directory: PathBuf,
    running: Option<Running>,
    _janitor: Child,
}

#[derive(Debug)]
struct Running {
    keeper: Child,
    pid: u32,
}

/// How much memory a broker has, and how it collects its garbage.
#[derive(Clone, Copy, Debug)]
pub enum Jvm {
    /// Little of everything, since several run beside each other in tests. A collection stops the broker for about 15 ms.
    Small,
    /// As Kafka's own start script has it (`kafka-run-class.sh`, `kafka-server-start.sh`).
    AsStartScript,
}

impl Jvm {
    const fn options(self) -> &'static [&'static str] {
        match self {
            Self::Small => &["-Xms256m", "-Xmx512m", "-XX:+UseSerialGC"],
            Self::AsStartScript => &[
                "-Xms1G",
                "-Xmx1G",
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        }
    }
}

/// The brokers that a test binary shares: `SIDESTREAM_TEST_BROKERS`, or one local broker.
pub fn shared() -> String {
    shared_with(Jvm::Small)
}

/// As [`shared`]; the first caller says with which JVM.
pub fn shared_with(jvm: Jvm) -> String {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    if let Ok(brokers) = std::env::var("SIDESTREAM_TEST_BROKERS") {
        return brokers;
    }
    SHARED.get_or_init(|| Broker::start_as(jvm, &[])).brokers()
}

impl Broker {
    /// Returns when the broker answers.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    fn start_as(jvm: Jvm, extra: &[(&str, &str)]) -> Self {
        let mut broker = Self::new(1);
        broker.jvm = jvm;
        broker.alone(extra)
    }

    fn alone(mut self, extra: &[(&str, &str)]) -> Self {
        self.configure(extra);
        self.format(&cluster_id(), &["--standalone"]);
        self.run();
        self
    }

    /// With a second listener that is reached through a proxy: [`Broker::proxied_brokers`].
    pub fn start_proxied() -> Self {
        let mut broker = Self::new(1);
        broker.put_proxy_before();
        broker.alone(&[])
    }

    /// With further lines of `server.properties`, which win.
    pub fn start_with(extra: &[(&str, &str)]) -> Self {
        Self::start_as(Jvm::Small, extra)
    }

    /// With a second listener that wants TLS and a password, by SASL PLAIN or SCRAM-SHA-256: [`USER`], [`PASSWORD`].
    pub fn start_secure() -> Self {
        let mut broker = Self::new(1);
        let [port] = free_ports();
        broker.secure_port = Some(port);
        broker.make_certificate();
        let keystore = broker.directory.join("keystore.p12").display().to_string();
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let plain = format!("{plain} user_{USER}=\"{PASSWORD}\";");
        broker.configure(&[
            ("ssl.keystore.type", "PKCS12"),
            ("ssl.keystore.location", &keystore),
            ("ssl.keystore.password", STORE_PASSWORD),
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-256"),
            ("listener.name.secure.plain.sasl.jaas.config", &plain),
            (
                "listener.name.secure.scram-sha-256.sasl.jaas.config",
                "org.apache.kafka.common.security.scram.ScramLoginModule required;",
            ),
        ]);
        let user = format!("SCRAM-SHA-256=[name={USER},password={PASSWORD}]");
        broker.format(&cluster_id(), &["--standalone", "--add-scram", &user]);
        broker.run();
        broker
    }

    fn new(id: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("sidestream-broker-").tempdir().unwrap().keep();
        let janitor =
            Command::new("sh").args(["-c", JANITOR, "janitor"]).arg(&directory).stdin(Stdio::piped()).spawn().unwrap();
        let [port, controller_port] = free_ports();
        Self {
            id,
            jvm: Jvm::Small,
            port,
            controller_port,
            secure_port: None,
            proxied: None,
            directory,
            running: None,
            _janitor: janitor,
        }
    }

    fn configure(&self, extra: &[(&str, &str)]) {
        let (controller, port) = (self.controller_port, self.port);
        let secure = self.secure_port.map(|port| format!(",SECURE://127.0.0.1:{port}")).unwrap_or_default();
        let listener = |port| format!(",PROXIED://127.0.0.1:{port}");
        let proxied = self.proxied.as_ref().map(|(port, _)| listener(*port)).unwrap_or_default();
        let proxy = self.proxied.as_ref().map(|(_, proxy)| listener(proxy.port())).unwrap_or_default();
        let mut lines = vec![
            "process.roles=broker,controller".to_owned(),
            format!("node.id={}", self.id),
            format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{secure}{proxied}"),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}{secure}{proxy}"),
            "controller.listener.names=CONTROLLER".to_owned(),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT,SECURE:SASL_SSL"
                .to_owned(),
            format!("log.dirs={}", self.directory.join("data").display()),
            // The tests' records have times of their own, most of them long past.
            "log.retention.ms=-1".to_owned(),
        ];
        if !extra.iter().any(|(name, _)| *name == "controller.quorum.voters") {
            lines.push(format!("controller.quorum.bootstrap.servers=127.0.0.1:{controller}"));
        }
        lines.extend(SERVER.iter().map(|line| (*line).to_owned()));
        lines.extend(extra.iter().map(|(name, value)| format!("{name}={value}")));
        fs::write(self.directory.join("server.properties"), lines.join("\n") + "\n").unwrap();
        fs::write(self.directory.join("log4j2.properties"), LOGGING).unwrap();
    }

    /// A key for the broker, and the certificate that its clients trust.
    fn make_certificate(&self) {
        let keystore = self.directory.join("keystore.p12");
        let run = |arguments: &[&str]| {
            let output = Command::new("keytool")
                .args(arguments)
                .args(["-alias", "broker", "-storetype", "PKCS12", "-storepass", STORE_PASSWORD, "-keystore"])
                .arg(&keystore)
                .output()
                .expect("keytool (of the JDK) runs");
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        run(&["-genkeypair", "-keyalg", "RSA", "-dname", "CN=localhost", "-ext", "SAN=IP:127.0.0.1", "-validity", "2"]);
        fs::write(self.certificate(), run(&["-exportcert", "-rfc"])).unwrap();
    }

    pub fn certificate(&self) -> PathBuf {
        self.directory.join("certificate.pem")
    }

    pub fn secure_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port.expect("a secure broker"))
    }

    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn put_proxy_before(&mut self) {
        let [port] = free_ports();
        self.proxied = Some((port, Proxy::start(port)));
    }

    pub fn proxy(&self) -> &Proxy {
        &self.proxied.as_ref().expect("a broker with a proxy").1
    }

    pub fn proxied_brokers(&self) -> String {
        format!("127.0.0.1:{}", self.proxy().port())
    }

    /// Orderly, as an operator would.
    pub fn stop(&mut self) {
        self.end("-TERM");
    }

    /// As a crash would.
    pub fn kill9(&mut self) {
        self.end("-KILL");
    }

    /// On the same port, with the same data. Returns when the broker answers.
    pub fn restart(&mut self) {
        self.stop();
        self.run();
    }

    /// After `stop` or `kill9`. Returns when the broker answers.
    pub fn run(&mut self) {
        self.launch();
        self.wait_until_ready();
    }

    fn launch(&mut self) {
        assert!(self.running.is_none(), "the broker runs already");
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", "java"])
            .args(self.jvm.options())
            .arg("-cp")
            .arg(classpath())
            .arg(format!("-Dlog4j2.configurationFile={}", self.directory.join("log4j2.properties").display()))
            .arg("kafka.Kafka")
            .arg(self.directory.join("server.properties"))
            .env("LOG_FILE", self.log_file())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut first = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let pid = first.trim().parse().unwrap();
        self.running = Some(Running { keeper, pid });
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    fn format(&self, cluster_id: &str, further: &[&str]) {
        let output = Command::new("java")
            .args(["-Xmx128m", "-XX:+UseSerialGC", "-cp"])
            .arg(classpath())
            .arg(format!("-Dlog4j2.configurationFile={}", self.directory.join("log4j2.properties").display()))
            .args(["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c"])
            .arg(self.directory.join("server.properties"))
            .args(further)
            .output()
            .expect("java (17 or later) runs");
        assert!(output.status.success(), "the broker's directory could not be formatted: {output:?}");
    }

    fn wait_until_ready(&mut self) {
        let log_file = self.log_file();
        let broker_log = || fs::read_to_string(&log_file).unwrap_or_default();
        let address = self.brokers();
        let Some(running) = &mut self.running else { return };
        eventually("the broker listens", Duration::from_mins(1), || {
            let ended = running.keeper.try_wait().unwrap();
            assert!(ended.is_none(), "the broker ended: {}", broker_log());
            TcpStream::connect(&address).ok()
        });
        let log = KafkaLog::new(KafkaSettings::new(address)).unwrap();
        eventually("the broker answers", Duration::from_mins(1), || log.cluster_id().ok());
    }

    fn end(&mut self, signal: &str) {
        let Some(mut running) = self.running.take() else { return };
        // Held over the wait, which would close it: the keeper kills a broker that has lost its test.
        let _alive = running.keeper.stdin.take();
        Command::new("kill").args([signal, &running.pid.to_string()]).status().unwrap();
        running.keeper.wait().unwrap();
    }
}

/// Three brokers, each a controller too. Every topic has three replicas, so that a partition keeps a leader over the loss
/// of one broker: without a leader a transaction that is being completed then is never ended (docs/operations.md).
#[derive(Debug)]
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

impl Cluster {
    /// Returns when all brokers answer. Each can be reached through a proxy too.
    pub fn start() -> Self {
        let mut nodes: Vec<Broker> = (1..=3).map(Broker::new).collect();
        nodes.iter_mut().for_each(Broker::put_proxy_before);
        let voter = |node: &Broker| format!("{}@127.0.0.1:{}", node.id, node.controller_port);
        let voters = nodes.iter().map(voter).collect::<Vec<_>>().join(",");
        let cluster_id = cluster_id();
        for node in &mut nodes {
            node.configure(&[
                ("controller.quorum.voters", &voters),
                ("broker.session.timeout.ms", "6000"),
                ("default.replication.factor", "3"),
                ("min.insync.replicas", "2"),
                ("offsets.topic.replication.factor", "3"),
                ("transaction.state.log.min.isr", "2"),
                ("transaction.state.log.replication.factor", "3"),
            ]);
            node.format(&cluster_id, &[]);
            node.launch();
        }
        for node in &mut nodes {
            node.wait_until_ready();
        }
        Self { nodes }
    }

    pub fn brokers(&self) -> String {
        self.nodes.iter().map(Broker::brokers).collect::<Vec<_>>().join(",")
    }

    pub fn proxied_brokers(&self) -> String {
        self.nodes.iter().map(Broker::proxied_brokers).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Small and quick, and otherwise as Kafka comes.
const SERVER: &[&str] = &[
    "auto.create.topics.enable=false",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "log.cleaner.dedupe.buffer.size=16777216",
    "num.io.threads=4",
    "num.network.threads=2",
    "offsets.topic.num.partitions=4",
    "offsets.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.replication.factor=1",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms=1000",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=4",
    "transaction.state.log.replication.factor=1",
];

const LOGGING: &str = "rootLogger.level=warn
rootLogger.appenderRefs=stdout
rootLogger.appenderRef.stdout.ref=STDOUT
appender.stdout.type=Console
appender.stdout.name=STDOUT
appender.stdout.layout.type=PatternLayout
appender.stdout.layout.pattern=%d %p %c{1}: %m%n
";

/// Ports that nothing listens on, each given once by this process: another test's broker may not be up yet.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    [(); COUNT].map(|()| free_listener().local_addr().unwrap().port())
}

/// Not from the range of outgoing connections (32768 and up on Linux): while a broker is down, one of its clients that
/// tries to reconnect could get the broker's own port to connect from, and keep the broker from listening there again.
pub fn free_listener() -> TcpListener {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    (0..1000)
        .map(|_| 10_000 + (uuid::Uuid::new_v4().as_u128() % 20_000) as u16)
        .filter(|port| GIVEN.lock().unwrap().insert(*port))
        .find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .expect("a free port")
}

fn cluster_id() -> String {
    let id = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
    // StorageTool takes a leading dash for an option.
    id.replacen('-', "A", 1)
}

fn classpath() -> String {
    format!("{}/*", jars().display())
}

/// The directory with the broker's jars, filled on first use.
fn jars() -> &'static Path {
    static JARS: OnceLock<PathBuf> = OnceLock::new();
    JARS.get_or_init(|| {
        let cache = std::env::var_os("SIDESTREAM_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/sidestream"),
            PathBuf::from,
        );
        let directory = cache.join(format!("kafka-{VERSION}"));
        fs::create_dir_all(&directory).unwrap();
        // One process fetches, the others wait.
        let lock = File::create(cache.join(format!("kafka-{VERSION}.lock"))).unwrap();
        lock.lock().unwrap();
        let complete = directory.join("complete");
        if !complete.exists() {
            let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/broker/pom.xml");
            let status = Command::new("mvn")
                .args(["-q", "-B", "-f"])
                .arg(pom)
                .arg("dependency:copy-dependencies")
                .arg(format!("-DoutputDirectory={}", directory.display()))
                .status()
                .expect("mvn (Maven) runs; or set SIDESTREAM_TEST_BROKERS");
            assert!(status.success(), "the broker's jars could not be fetched");
            fs::write(complete, VERSION).unwrap();
        }
        directory
    })
}
