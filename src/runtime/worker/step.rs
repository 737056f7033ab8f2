//! What a worker is doing, for whoever finds that it does not come back.
//!
//! Written by the worker at every step, so it costs one store to memory; read by other threads, at any time.

use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Waiting,
    Fetching,
    Processing,
    Sending,
    Committing,
    WritingState,
    Aborting,
    MakingProducer,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Waiting,
        Self::Fetching,
        Self::Processing,
        Self::Sending,
        Self::Committing,
        Self::WritingState,
        Self::Aborting,
        Self::MakingProducer,
    ];

    /// As in "it has been ... for 45 s".
    pub fn words(self) -> &'static str {
        match self {
            Self::Waiting => "waiting for work",
            Self::Fetching => "fetching records",
            Self::Processing => "processing records",
            Self::Sending => "sending what it has computed to Kafka",
            Self::Committing => "committing a transaction",
            Self::WritingState => "writing committed state to the disk",
            Self::Aborting => "aborting a transaction",
            Self::MakingProducer => "registering its producer with Kafka",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct StepCell(AtomicU8);

impl StepCell {
    pub fn set(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }

    pub fn get(&self) -> Step {
        Step::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or(Step::Waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_is_read() {
        let cell = StepCell::default();
        assert_eq!(cell.get(), Step::Waiting);
        for step in Step::ALL {
            cell.set(step);
            assert_eq!(cell.get(), step);
        }
    }
}
