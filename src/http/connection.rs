//! Connections that do not wait for ever.
//!
//! What it is: a listener whose connections end with an error when nothing has been read or written for [`IDLE_TIMEOUT`], or
//! when one request, or one answer, is on its way for twice as long: a client that sends half a request, or one byte now
//! and then, or does not read its answer, gives its connection back.
//! What it is not: a limit on how long an answer may take to be made (`guard`), or on how many clients there are.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};

/// Longer than any request may take, so that one that is being answered is not cut.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub struct PatientListener {
    pub listener: TcpListener,
    pub idle_timeout: Duration,
}

impl Listener for PatientListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Connection::new(stream, self.idle_timeout), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection of a [`PatientListener`].
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    direction: Direction,
    /// Since the direction has changed last.
    one_way: Pin<Box<Sleep>>,
}

/// Which way bytes went last. Requests have no body: each change is another request, or its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    In,
    Out,
}

impl Connection {
    fn new(stream: TcpStream, idle_timeout: Duration) -> Self {
        let (idle, one_way) = (Box::pin(sleep(idle_timeout)), Box::pin(sleep(idle_timeout * 2)));
        Self { stream, idle_timeout, idle, direction: Direction::In, one_way }
    }

    /// What was tried came on, or has to wait; waiting ends with the patience.
    fn watch<T>(
        &mut self,
        direction: Direction,
        outcome: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.idle.set(sleep(self.idle_timeout));
            if self.direction != direction {
                self.direction = direction;
                self.one_way.set(sleep(self.idle_timeout * 2));
            }
            return outcome;
        }
        if self.one_way.as_mut().poll(context).is_pending() {
            ready!(self.idle.as_mut().poll(context));
        }
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "too little was sent or read for too long")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(Direction::In, outcome, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(Direction::Out, outcome, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(Direction::Out, outcome, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
