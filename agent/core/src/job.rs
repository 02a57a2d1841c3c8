//! One accepted prompt on its way to its outcome, and where it stands.

use crate::Dead;
use crate::escalate::Leg;
use crate::event::Ticket;
use crate::knowledge::Judgement;
use crate::predict::Work;
use crate::queue::Place;
use crate::site::Task;
use crate::time::Now;
use std::sync::Arc;
use tidegate_schemas::{Answer, ContentHash, DeviceId, Encoding, ErrorCode, JobId, Prompt, PromptId, Reason};

/// Where a job stands. Each stage ends by one event, or by its deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Being written to the inbox.
    Keeping,
    /// Waiting for a slot.
    Queued,
    /// Its next attempt is being written down.
    Marking,
    /// In the engine.
    Running,
    /// Its escalation is being written to the outbox.
    KeepingEscalation,
    /// Its escalation is open.
    Escalated,
    /// Its outcome is decided and being written.
    Concluding,
}

impl Stage {
    /// Whether the disk owes an event.
    pub(crate) fn waits_for_disk(self) -> bool {
        matches!(self, Self::Keeping | Self::Marking | Self::KeepingEscalation | Self::Concluding)
    }
}

/// What follows when an accepted prompt is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    /// It runs here.
    Run,
    /// It goes to the cloud, unrun.
    Escalate(Reason),
    /// Its device cancelled it meanwhile.
    Cancel,
}

/// What becomes of an escalated job when the cloud does not answer.
#[derive(Debug, Clone)]
pub(crate) enum Otherwise {
    /// It has not run here; it can.
    Run,
    /// The local answer is final. Its `provisional` says whether the device has seen it.
    Answer(Box<Answer>),
    /// Nothing is left but this error.
    Fail(Failure),
}

/// An error that an outcome can become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
}

/// What belongs to an escalation.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) reason: Reason,
    pub(crate) otherwise: Otherwise,
    pub(crate) leg: Leg,
    /// What was thought of the local answer; none after a restart, or where there is none.
    pub(crate) judgement: Option<Judgement>,
    /// When the cloud has been silent for long enough.
    pub(crate) give_up: Now,
}

/// An accepted prompt. `runs` counts inferences that were begun, or may have been before a crash.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) device: DeviceId,
    pub(crate) prompt: Arc<Prompt>,
    pub(crate) hash: Option<ContentHash>,
    pub(crate) encoding: Encoding,
    pub(crate) bytes: u32,
    pub(crate) received: Now,
    pub(crate) task: Arc<Task>,
    pub(crate) work: Work,
    pub(crate) plan: Plan,
    pub(crate) stage: Stage,
    pub(crate) tickets: Vec<Ticket>,
    pub(crate) runs: u32,
    /// The attempt that is written down; none needs to be for the first run.
    pub(crate) marked: u32,
    /// It ran while the engine died: it runs alone.
    pub(crate) suspect: bool,
    /// It runs here whatever the prediction says: the cloud was no help.
    pub(crate) here: bool,
    pub(crate) case: Option<Box<Case>>,
    /// Bytes reserved in the outbox.
    pub(crate) reserved: Option<u64>,
    /// An escalation of it is on disk, even if it runs here meanwhile.
    pub(crate) stored: bool,
    pub(crate) timer: Option<Now>,
    /// Why it is kept as a dead letter when it ends.
    pub(crate) dead: Option<Dead>,
    /// What was thought of its local answer.
    pub(crate) judgement: Option<Judgement>,
    /// How long it was thought to take from acceptance to its answer here, in milliseconds; none after a restart.
    pub(crate) predicted_ms: Option<u64>,
}

impl Job {
    pub(crate) fn deadline(&self) -> Option<Now> {
        self.prompt.deadline_ms.map(|ms| self.received.after(ms.get()))
    }

    pub(crate) fn left_ms(&self, now: Now) -> Option<u64> {
        self.deadline().map(|deadline| deadline.since(now))
    }

    pub(crate) fn place(&self) -> Place {
        Place::new(self.prompt.priority, self.deadline(), self.id)
    }

    pub(crate) fn prompt_id(&self) -> Option<&PromptId> {
        self.prompt.id.as_ref()
    }

    /// A bare-text device gets exactly one message: the outcome.
    pub(crate) fn structured(&self) -> bool {
        self.encoding != Encoding::Text
    }

    pub(crate) fn max_tokens(&self) -> u32 {
        self.prompt.max_tokens.map_or(self.task.spec.max_tokens, |n| n.min(self.task.spec.max_tokens))
    }
}
