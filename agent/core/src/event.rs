//! What the shells report to the dispatcher.

use crate::early::Trail;
use crate::knowledge::Knowledge;
use crate::strain::Condition;
use crate::time::Now;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_schemas::{
    Body, Control, DeviceId, Encoding, Escalation, JobId, ModelName, Prompt, PromptText, Resolution, TaskName, Timing,
    Usage,
};

/// Names a publish that waits for its acknowledgement; the shell that took it keeps what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A decoded prompt at the door.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Whose acknowledgement waits.
    pub ticket: Ticket,
    /// The device.
    pub device: DeviceId,
    /// What it asks. A smaller Message Expiry is already in `deadline_ms`.
    pub prompt: Arc<Prompt>,
    /// How it writes and is answered.
    pub encoding: Encoding,
    /// Bytes of the payload as it came.
    pub bytes: u32,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A prompt came; an `Acknowledge` or `Refuse` of its ticket follows.
    Arrived(Arrival),
    /// A control message came; an `Acknowledge` or `Refuse` of its ticket follows.
    Controlled {
        /// Whose acknowledgement waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// What it wants.
        control: Control,
        /// How it writes.
        encoding: Encoding,
    },
    /// A `Keep` is on disk.
    Kept(JobId),
    /// A `Keep` could not be stored; nothing of it is on disk.
    NotKept {
        /// The job.
        job: JobId,
        /// Why, for the device.
        why: String,
    },
    /// A `MarkAttempt` is on disk.
    AttemptMarked(JobId),
    /// A `KeepEscalation` is on disk.
    EscalationKept(JobId),
    /// A `KeepEscalation` was refused: the outbox is full or the disk failed.
    EscalationNotKept(JobId),
    /// A `Conclude` is on disk: the outcome can be sent, the job is over.
    Concluded(JobId),
    /// The engine child is up.
    EngineReady {
        /// Its model.
        model: ModelName,
        /// Context window of one prompt, in tokens.
        context_tokens: u32,
    },
    /// The engine child is gone; what it ran is suspect.
    EngineGone,
    /// A second engine took over with another model; the one before ends what it began and gets nothing new.
    EngineReplaced {
        /// The new model.
        model: ModelName,
        /// What is known of its tasks.
        known: Box<BTreeMap<TaskName, Knowledge>>,
    },
    /// The engine of the model before is gone in the midst of its answers; what it ran is suspect.
    OldEngineGone,
    /// A piece of an answer.
    Token {
        /// The job.
        job: JobId,
        /// The text.
        text: PromptText,
    },
    /// An inference ended well.
    Completed {
        /// The job.
        job: JobId,
        /// What came out.
        completion: Box<Completion>,
    },
    /// An inference ended without an answer, the engine lives.
    InferenceFailed {
        /// The job.
        job: JobId,
        /// Why.
        fault: EngineFault,
    },
    /// The bridge is connected.
    LinkUp,
    /// The bridge is not connected.
    LinkDown,
    /// The central broker acknowledged exactly this publish with success.
    EscalationSent {
        /// The job.
        job: JobId,
        /// The attempt that was published.
        attempt: u32,
    },
    /// A publish did not count: refused, no subscriber (0x10), or the connection ended first.
    EscalationUnsent {
        /// The job.
        job: JobId,
        /// The attempt that was published.
        attempt: u32,
    },
    /// The central broker refused this publish in a way that no repetition mends.
    EscalationRefused {
        /// The job.
        job: JobId,
        /// The attempt that was published.
        attempt: u32,
        /// What it said, such as a reason code; no text of the prompt.
        by: String,
    },
    /// An operator drops something.
    Dropped(JobId, OperatorDrop),
    /// A resolution arrived from the cloud, already checked for size and the task's schema.
    Resolved(Box<Resolution>),
    /// What the machine's sensors say.
    Machine(Condition),
    /// Time passed; nothing else did.
    Tick,
    /// The process is asked to stop.
    Drain,
}

/// What an operator drops of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorDrop {
    /// The prompt: its outcome is `cancelled`.
    Prompt,
    /// Its escalation: what there is here becomes the outcome.
    Escalation,
}

/// Why an inference gave no answer although the engine lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineFault {
    /// Prompt and template do not fit the context window.
    TooLong {
        /// Tokens of prompt and template.
        tokens: u32,
        /// Tokens of the window.
        context_tokens: u32,
    },
    /// No valid ending within `max_tokens`.
    Cut,
    /// The running score fell under the floor of its [`Inference`](crate::Inference): it would not have been kept.
    Hopeless {
        /// Tokens written until then.
        tokens: u32,
    },
    /// It was aborted as asked.
    Aborted,
    /// Anything else, in words without text of the prompt.
    Other(String),
}

/// What an inference produced.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Text or, with a schema, JSON.
    pub body: Body,
    /// What confidence is made from.
    pub signals: Signals,
    /// Tokens read and written.
    pub usage: Usage,
    /// `prefill_ms` and `decode_ms` as the engine measured them; the rest is filled in by the dispatcher.
    pub timing: Timing,
}

/// What the logits said while the answer was made. Natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Sum of the log-probabilities of the sampled tokens, forced ones excluded.
    pub sum_logprob: f64,
    /// The least of them.
    pub min_logprob: f64,
    /// Their mean.
    pub mean_logprob: f64,
    /// First token: probability of the best less that of the second.
    pub first_margin: f64,
    /// First token: entropy of the distribution, in nats.
    pub first_entropy: f64,
    /// Sampled tokens.
    pub tokens: u32,
    /// Log-probability under which a tenth of them lies.
    pub low_logprob: f64,
    /// Their median log-probability.
    pub median_logprob: f64,
    /// Second token: probability of the best less that of the second.
    pub second_margin: f64,
    /// Mean of these margins.
    pub mean_margin: f64,
    /// The least of them.
    pub min_margin: f64,
    /// Mean entropy, in nats.
    pub mean_entropy: f64,
    /// Largest entropy, in nats.
    pub max_entropy: f64,
    /// First token: log-sum-exp of the raw logits.
    pub first_energy: f64,
    /// Mean probability that the schema took away, 0 to 1.
    pub mean_removed: f64,
    /// The largest of these.
    pub max_removed: f64,
    /// Tokens that the schema left no choice about.
    pub forced: u32,
    /// Tokens of template and prompt.
    pub prompt_tokens: u32,
    /// Bytes of the prompt's text; the dispatcher knows them.
    pub prompt_bytes: u32,
    /// Stands for the answer: the same answer has the same number; 0 where it is unknown. Made from the text, so it
    /// stays on the gateway.
    pub answer: u64,
    /// How the sum fell while the answer was written, where that is known.
    pub trail: Option<Trail>,
}

/// A prompt found on disk at start.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The job.
    pub job: JobId,
    /// The device.
    pub device: DeviceId,
    /// What it asked.
    pub prompt: Arc<Prompt>,
    /// How it writes and is answered.
    pub encoding: Encoding,
    /// Bytes of the payload as it came.
    pub bytes: u32,
    /// When it was received, on this boot's timeline.
    pub received: Now,
    /// Attempts marked on disk; a prompt that is not marked may have run once.
    pub attempts: u32,
    /// Its escalation, if it has one.
    pub escalation: Option<RestoredEscalation>,
}

/// An escalation found on disk at start.
#[derive(Debug, Clone)]
pub struct RestoredEscalation {
    /// What was to be published.
    pub escalation: Box<Escalation>,
    /// The provisional answer, whole, where one was given: what becomes final when the cloud stays silent.
    pub provisional: Option<Box<tidegate_schemas::Answer>>,
}
