//! A thread that adds offsets to a transaction, so that somebody else can stop waiting for it.
//!
//! librdkafka 2.12.1 does not keep the time limit of `rd_kafka_send_offsets_to_transaction`: while the group's coordinator
//! is away it waits for the state of some connection to change, which may be never (librdkafka#5456, #5511). The call
//! cannot be broken off, and its client must not be destroyed meanwhile: a producer whose courier does not come back is
//! handed to it, to be destroyed when it does.
//!
//! Invariant: the courier's hold on the client ends before what the client's messages point to is freed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::super::client::Client;
use super::super::{Code, NativeError};
use super::{Held, send_offsets};
use crate::log::{GroupMetadata, OffsetCommit};

/// How much longer than librdkafka's own limit is waited: where it keeps it, its error says more.
const GRACE: Duration = Duration::from_secs(2);

enum Errand {
    Offsets {
        offsets: Vec<OffsetCommit>,
        group: GroupMetadata,
        wait: Duration,
        answer: SyncSender<Answer>,
    },
    /// Destroy this, and end.
    Bury(Box<Held>),
}

type Answer = Result<(), NativeError>;

#[derive(Debug)]
pub struct Courier {
    errands: Sender<Errand>,
    thread: JoinHandle<()>,
    /// It has not come back from the last errand.
    lost: bool,
}

impl Courier {
    pub fn new(client: Arc<Client>) -> Result<Self, NativeError> {
        let (errands, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("offsets".to_owned())
            .spawn(move || run(client, &inbox))
            .map_err(|error| broken(&format!("no thread for a producer: {error}")))?;
        Ok(Self { errands, thread, lost: false })
    }

    pub fn send_offsets(&mut self, offsets: &[OffsetCommit], group: &GroupMetadata, wait: Duration) -> Answer {
        let (answer, answered) = sync_channel(1);
        let errand = Errand::Offsets { offsets: offsets.to_vec(), group: group.clone(), wait, answer };
        if self.lost || self.errands.send(errand).is_err() {
            return Err(NativeError::new(Code::TIMED_OUT, "an earlier request has not come back"));
        }
        match answered.recv_timeout(wait + GRACE) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => {
                self.lost = true;
                Err(NativeError::new(Code::TIMED_OUT, "the offsets could not be added to the transaction"))
            }
            Err(RecvTimeoutError::Disconnected) => Err(broken("the thread that adds offsets has ended")),
        }
    }

    /// The end of the producer: at once, or when the courier comes back.
    pub fn dismiss(self, held: Box<Held>) {
        if self.lost {
            held.purge();
            // It is there: it has not come back. Were it gone, the box is dropped here, after the thread's hold.
            let _buried = self.errands.send(Errand::Bury(held));
            return;
        }
        drop(self.errands);
        // A panic was reported by the thread itself.
        let _ended = self.thread.join();
        drop(held);
    }
}

fn broken(text: &str) -> NativeError {
    NativeError { fatal: true, ..NativeError::new(Code::FATAL, text) }
}

fn run(client: Arc<Client>, inbox: &Receiver<Errand>) {
    while let Ok(errand) = inbox.recv() {
        match errand {
            Errand::Offsets { offsets, group, wait, answer } => {
                let _nobody_waits = answer.send(send_offsets(&client, &offsets, &group, wait));
            }
            Errand::Bury(held) => {
                drop(client);
                drop(held);
                return;
            }
        }
    }
}
