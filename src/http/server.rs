//! The listening socket and the threads behind it.
//!
//! What it is: a small tokio runtime of its own, so that queries never share a thread with processing.
//!
//! Invariant: the address is bound before anything else starts, so that a port in use is an error at start and a port 0
//! is known when it is advertised.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::connection::{IDLE_TIMEOUT, PatientListener};

/// Threads that accept and parse; what blocks on state runs on [`BLOCKING_THREADS`] others.
const THREADS: usize = 2;
const BLOCKING_THREADS: usize = 16;
/// How long answers that are under way may take when the process stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}")]
    Bind {
        address: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the threads for HTTP cannot be started: {source}")]
    Start {
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                "another process listens there; stop it, or choose another address with --http HOST:PORT (port 0 takes \
                 any free one)"
                    .to_owned()
            }
            Self::Bind { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "ports below 1024 need a privilege; choose a higher one with --http HOST:PORT".to_owned()
            }
            Self::Bind { .. } => "choose an address of this machine with --http HOST:PORT".to_owned(),
            Self::Start { .. } => "the machine has no threads or memory left; raise the limits".to_owned(),
        }
    }
}

/// A bound socket that nobody answers on yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listening {
    /// Binds `HOST:PORT`.
    pub fn bind(address: &str) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// With the port that the system chose for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers from now on.
    pub fn serve(self, router: Router) -> Result<Server, Error> {
        self.serve_with(router, IDLE_TIMEOUT)
    }

    fn serve_with(self, router: Router, idle_timeout: Duration) -> Result<Server, Error> {
        let started = |source| Error::Start { source };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(started)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(self.listener).map_err(started)?
        };
        let listener = PatientListener { listener, idle_timeout };
        let (stop, stopped) = oneshot::channel::<()>();
        let (finished, done) = std::sync::mpsc::channel();
        runtime.spawn(async move {
            let orderly = async move {
                // An error says that the server was dropped, which also means: stop.
                drop(stopped.await);
            };
            if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(orderly).await {
                tracing::error!(%error, "HTTP has stopped");
            }
            // Nobody waits for it where the server was leaked; that is no error here.
            let _unheard = finished.send(());
        });
        tracing::info!(address = %self.address, "HTTP listens");
        Ok(Server { address: self.address, runtime: Some(runtime), stop: Some(stop), done })
    }
}

/// A server that answers until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    done: std::sync::mpsc::Receiver<()>,
}

impl Server {
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    /// Takes no more requests, and lets those under way finish for a moment.
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // An error says that it has stopped already.
            let _stopped = stop.send(());
        }
        // An idle keep-alive connection may hold it up; then it is cut.
        let _in_time = self.done.recv_timeout(STOP_TIMEOUT);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use axum::Router;
    use axum::routing::get;

    use super::Listening;

    #[test]
    fn a_server_answers_until_it_is_dropped() {
        let server =
            Listening::bind("127.0.0.1:0").unwrap().serve(Router::new().route("/", get(|| async { "here" }))).unwrap();
        let address = server.address();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("here"), "{answer}");
        drop(server);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }

    #[test]
    fn a_client_that_sends_half_a_request_is_not_waited_for() {
        let idle = Duration::from_secs(2);
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = Listening::bind("127.0.0.1:0").unwrap().serve_with(router, idle).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Whole requests come and go on one connection for as long as they do.
        let mut answer = [0; 1024];
        for _ in 0..3 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let length = stream.read(&mut answer).unwrap();
            assert!(answer[..length].ends_with(b"here"));
        }
        stream.write_all(b"GET / HTTP/1.1\r\nHost: lo").unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let is_cut = ended.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(is_cut || ended.is_ok(), "{ended:?}");
        assert!(!rest.ends_with(b"here"));
    }

    #[test]
    fn a_client_that_sends_a_byte_now_and_then_is_not_waited_for_either() {
        let idle = Duration::from_secs(1);
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = Listening::bind("127.0.0.1:0").unwrap().serve_with(router, idle).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(idle / 10)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
        let mut answer = [0; 1024];
        let ended = (0..150).any(|_| {
            let waits = |kind| matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            stream.write_all(b"x").is_err() || !stream.read(&mut answer).is_err_and(|error| waits(error.kind()))
        });
        assert!(ended, "it is still listened to");
    }

    #[test]
    fn an_address_in_use_is_an_error_that_says_what_to_do() {
        let first = Listening::bind("127.0.0.1:0").unwrap();
        let error = Listening::bind(&first.address().to_string()).unwrap_err();
        assert!(error.help().contains("--http"), "{}", error.help());
        assert!(error.to_string().contains("cannot listen on 127.0.0.1"), "{error}");
    }
}
