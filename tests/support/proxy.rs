//! A TCP proxy before one broker, for faults of the network: it cuts, refuses, delays and swallows, and it stops a
//! connection at a named point of Kafka's protocol.
//!
//! What it is not: it changes no bytes. It reads of a request only its length, its kind and its client's id (Kafka's protocol
//! guide, "Messages": `size int32, request_api_key int16, request_api_version int16, correlation_id int32, client_id
//! nullable string, ...`).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::eventually;

/// Kinds of requests: Kafka's `request_api_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Request {
    Produce = 0,
    Fetch = 1,
    FetchOffsets = 9,
    JoinGroup = 11,
    Heartbeat = 12,
    InitProducerId = 22,
    EndTransaction = 26,
    CommitOffsets = 28,
}

/// Where a connection is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The broker never sees the request.
    Before(Request),
    /// The broker has the request; its answer never arrives.
    After(Request),
}

/// See the module. Serves until the test process ends.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    refusing: AtomicBool,
    /// Connections stay open and nothing passes.
    swallowing: AtomicBool,
    delay_ms: AtomicU64,
    connections: Mutex<Vec<Arc<Connection>>>,
    trap: Mutex<Option<Point>>,
    /// Connections that have run into a trap.
    trapped: AtomicU64,
    /// By client id and kind.
    requests: Mutex<BTreeMap<(String, u16), u64>>,
    /// Told when `swallowing` ends, or a connection is cut.
    changed: (Mutex<()>, Condvar),
}

#[derive(Debug)]
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    stopped: AtomicBool,
    closed: AtomicBool,
}

impl Proxy {
    /// Listens on a port of its own, for a broker that need not run yet.
    pub fn start(broker_port: u16) -> Self {
        let listener = super::broker::free_listener();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: SocketAddr::from(([127, 0, 0, 1], broker_port)),
            refusing: AtomicBool::new(false),
            swallowing: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            connections: Mutex::new(Vec::new()),
            trap: Mutex::new(None),
            trapped: AtomicU64::new(0),
            requests: Mutex::default(),
            changed: (Mutex::new(()), Condvar::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                accepting.accept(client);
            }
        });
        Self { port, shared }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes every connection. New ones are let in.
    pub fn cut(&self) {
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            connection.close();
        }
        self.shared.changed.1.notify_all();
    }

    /// As a broker whose port is closed: every connection is cut, and new ones are, too.
    pub fn refuse(&self) {
        self.shared.refusing.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// As a network that drops packets: connections stay open and nothing passes, in either direction.
    pub fn swallow(&self) {
        self.shared.swallowing.store(true, Ordering::SeqCst);
    }

    /// Every piece of data takes that much longer.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_ms.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    /// Ends what `refuse`, `swallow`, `delay` and `trap` have begun. What was swallowed arrives late.
    pub fn heal(&self) {
        *self.shared.trap.lock().unwrap() = None;
        self.shared.refusing.store(false, Ordering::SeqCst);
        self.shared.delay_ms.store(0, Ordering::SeqCst);
        self.shared.swallowing.store(false, Ordering::SeqCst);
        self.shared.changed.1.notify_all();
    }

    /// The next connection that comes to this point is stopped there.
    pub fn trap(&self, point: Point) {
        self.shared.trapped.store(0, Ordering::SeqCst);
        *self.shared.trap.lock().unwrap() = Some(point);
    }

    /// Whether a connection has come to the point of the trap.
    pub fn has_trapped(&self) -> bool {
        self.shared.trapped.load(Ordering::SeqCst) > 0
    }

    /// How many requests of this kind came from each client that has sent any, by the client's id.
    pub fn requests(&self, kind: Request) -> BTreeMap<String, u64> {
        let requests = self.shared.requests.lock().unwrap();
        let of_kind = requests.iter().filter(|((_, other), _)| *other == kind as u16);
        of_kind.map(|((client, _), count)| (client.clone(), *count)).collect()
    }

    /// Returns when a connection has come to the point of the trap.
    pub fn wait_until_trapped(&self) {
        eventually("a connection comes to the trap", Duration::from_mins(1), || self.has_trapped().then_some(()));
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, client: TcpStream) {
        if self.refusing.load(Ordering::SeqCst) {
            return;
        }
        let Ok(broker) = TcpStream::connect(self.target) else { return };
        let _slower = (client.set_nodelay(true), broker.set_nodelay(true));
        let connection = Arc::new(Connection {
            client: client.try_clone().unwrap(),
            broker: broker.try_clone().unwrap(),
            stopped: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        self.connections.lock().unwrap().push(Arc::clone(&connection));
        if self.refusing.load(Ordering::SeqCst) {
            connection.close();
        }
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        let of_answers = Arc::clone(&connection);
        std::thread::spawn(move || {
            let _ended = there.pass_requests(&connection, client.try_clone().unwrap(), broker.try_clone().unwrap());
            there.forget(&connection);
        });
        std::thread::spawn(move || {
            let _ended = back.pass_answers(&of_answers);
            back.forget(&of_answers);
        });
    }

    fn forget(&self, connection: &Arc<Connection>) {
        connection.close();
        self.connections.lock().unwrap().retain(|open| !Arc::ptr_eq(open, connection));
    }

    /// Request by request.
    fn pass_requests(&self, connection: &Connection, mut from: TcpStream, mut to: TcpStream) -> std::io::Result<()> {
        loop {
            let mut head = [0; 6];
            from.read_exact(&mut head)?;
            let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
            let kind = u16::from_be_bytes([head[4], head[5]]);
            let mut frame = vec![0; 4 + size];
            frame[..head.len()].copy_from_slice(&head);
            from.read_exact(&mut frame[head.len()..])?;
            *self.requests.lock().unwrap().entry((client_id(&frame), kind)).or_default() += 1;
            match self.caught(kind) {
                Some(Point::Before(_)) => {
                    connection.stopped.store(true, Ordering::SeqCst);
                    self.trapped.fetch_add(1, Ordering::SeqCst);
                    self.hold(connection);
                    return Ok(());
                }
                Some(Point::After(_)) => {
                    // The answers' thread sees it before the broker sees the request.
                    connection.stopped.store(true, Ordering::SeqCst);
                    to.write_all(&frame)?;
                    self.trapped.fetch_add(1, Ordering::SeqCst);
                }
                None => {
                    self.obstruct(connection)?;
                    to.write_all(&frame)?;
                }
            }
        }
    }

    fn pass_answers(&self, connection: &Connection) -> std::io::Result<()> {
        let (mut from, mut to) = (&connection.broker, &connection.client);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if connection.stopped.load(Ordering::SeqCst) {
                self.hold(connection);
                return Ok(());
            }
            self.obstruct(connection)?;
            to.write_all(&buffer[..count])?;
        }
    }

    /// Whether a request of this kind is what the trap waits for, which then is sprung.
    fn caught(&self, kind: u16) -> Option<Point> {
        let mut trap = self.trap.lock().unwrap();
        let point = (*trap)?;
        let (Point::Before(wanted) | Point::After(wanted)) = point;
        (wanted as u16 == kind).then(|| trap.take()).flatten()
    }

    /// What the network does to one piece of data.
    #[expect(clippy::disallowed_methods, reason = "it is a delay that is wanted")]
    fn obstruct(&self, connection: &Connection) -> std::io::Result<()> {
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            std::thread::sleep(Duration::from_millis(delay));
        }
        self.wait_while(|| self.swallowing.load(Ordering::SeqCst) && !connection.is_closed());
        if connection.is_closed() { Err(ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    /// Until the connection is cut or its client is gone.
    fn hold(&self, connection: &Connection) {
        self.wait_while(|| !connection.is_closed());
    }

    fn wait_while(&self, holds: impl Fn() -> bool) {
        let mut guard = self.changed.0.lock().unwrap();
        while holds() {
            guard = self.changed.1.wait_timeout(guard, Duration::from_millis(100)).unwrap().0;
        }
    }
}

fn client_id(request: &[u8]) -> String {
    let length = i16::from_be_bytes([request[12], request[13]]);
    let bytes = usize::try_from(length).map_or(&[][..], |length| &request[14..14 + length]);
    String::from_utf8_lossy(bytes).into_owned()
}

impl Connection {
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        let _gone = (self.client.shutdown(Shutdown::Both), self.broker.shutdown(Shutdown::Both));
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}
