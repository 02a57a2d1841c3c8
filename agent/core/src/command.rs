//! What the dispatcher wants done. The shells do it in order, and report back with events.

use crate::event::Ticket;
use crate::time::Now;
use std::sync::Arc;
use tidegate_schemas::{
    Answer, ContentHash, DeviceId, Encoding, ErrorFrame, Escalation, Frame, JobId, Prompt, TaskSpec,
};

/// Something to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Put an accepted prompt on disk, then `Kept` or `NotKept`.
    Keep(Keepsake),
    /// Acknowledge a publish with success; the frame (`accepted`) goes to the device first, where there is one.
    Acknowledge {
        /// Which publish.
        ticket: Ticket,
        /// QoS 0 frame for the device.
        frame: Option<Frame>,
    },
    /// Refuse a publish: the frame goes to the device, then the negative acknowledgement.
    Refuse {
        /// Which publish.
        ticket: Ticket,
        /// Why.
        error: ErrorFrame,
    },
    /// Acknowledge a publish, and send the stored outcome of that job again, with `route: stored`.
    SendStored {
        /// Which publish.
        ticket: Ticket,
        /// Whose outcome.
        job: JobId,
        /// To whom.
        device: DeviceId,
    },
    /// Write down that the job is about to run again, then `AttemptMarked`.
    MarkAttempt {
        /// The job.
        job: JobId,
        /// The attempt that follows.
        attempt: u32,
    },
    /// Run it; ends in `Completed`, `InferenceFailed` or `EngineGone`.
    Infer(Inference),
    /// Stop a running inference; ends in `InferenceFailed(Aborted)`, or `Completed` when it was faster.
    Abort(JobId),
    /// Put an escalation on disk, then `EscalationKept` or `EscalationNotKept`.
    KeepEscalation {
        /// The job.
        job: JobId,
        /// What will be published.
        escalation: Box<Escalation>,
        /// The provisional answer that goes with it.
        provisional: Option<Box<Answer>>,
    },
    /// Publish an escalation; ends in `EscalationSent` or `EscalationUnsent`.
    Publish(Box<Escalation>),
    /// Put the outcome on disk and take job and escalation off it, in one step; then `Concluded`. A failing disk is
    /// the shell's to retry: the outcome is decided.
    Conclude {
        /// The job.
        job: JobId,
        /// To whom.
        device: DeviceId,
        /// How it is written.
        encoding: Encoding,
        /// The largest frame the device takes, in bytes.
        max_bytes: Option<u32>,
        /// A final answer or an error.
        outcome: Box<Frame>,
        /// Why what was asked is kept as a dead letter beside it.
        dead: Option<Dead>,
    },
    /// The outcome is on disk: send it to the device's sessions.
    Deliver {
        /// The job.
        job: JobId,
        /// To whom.
        device: DeviceId,
    },
    /// Send a frame that is not an outcome: `token` at QoS 0, a provisional `answer` at QoS 1.
    Send {
        /// The job.
        job: JobId,
        /// To whom.
        device: DeviceId,
        /// How it is written.
        encoding: Encoding,
        /// The frame.
        frame: Box<Frame>,
    },
    /// Log and count a decision; no text in it.
    Note(crate::Note),
}

/// Why a prompt will never be done here, or its escalation there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dead {
    /// The engine died of it as often as it may run.
    CrashedEngine {
        /// How often it ran.
        runs: u32,
    },
    /// The central broker refused its escalation for good.
    Refused {
        /// What it said, such as a reason code.
        by: String,
    },
}

/// An accepted prompt for the disk.
#[derive(Debug, Clone)]
pub struct Keepsake {
    /// Its number.
    pub job: JobId,
    /// The device.
    pub device: DeviceId,
    /// What it asks.
    pub prompt: Arc<Prompt>,
    /// How it is answered.
    pub encoding: Encoding,
    /// Bytes of the payload as it came.
    pub bytes: u32,
    /// When it was received.
    pub received: Now,
    /// Its content, where it was looked at already.
    pub hash: Option<ContentHash>,
}

/// An inference for the engine.
#[derive(Debug, Clone)]
pub struct Inference {
    /// The job.
    pub job: JobId,
    /// From 1.
    pub attempt: u32,
    /// What is asked.
    pub prompt: Arc<Prompt>,
    /// How it is to be answered; `max_tokens` is already the smaller of task and prompt.
    pub task: Arc<TaskSpec>,
    /// Whether pieces are wanted as they come.
    pub stream: bool,
    /// Where the answer is given up while it is written, because the cloud will be asked anyway.
    pub floor: Option<crate::early::Floor>,
}

/// A decision worth a log line or a counter.
#[derive(Debug, Clone, PartialEq)]
pub enum Note {
    /// A prompt was refused before acceptance.
    Refused {
        /// Whose.
        device: DeviceId,
        /// With which code.
        code: tidegate_schemas::ErrorCode,
    },
    /// What was thought of a local answer, and what became of it: what `explain` tells.
    Judged {
        /// The job.
        job: JobId,
        /// Numbers and rule.
        judgement: crate::knowledge::Judgement,
        /// What became of it.
        way: crate::route::Way,
        /// Time to its deadline then, in milliseconds.
        left_ms: Option<u64>,
    },
    /// The cloud's answer told whether ours was right.
    Labelled {
        /// Which task.
        task: tidegate_schemas::TaskName,
        /// What the logits said of our answer.
        signals: crate::Signals,
        /// Whether both say the same.
        agree: bool,
    },
    /// The machine is to be spared from now on, or no longer.
    Strain(Option<crate::strain::Strain>),
    /// An answer was kept.
    KeptLocal {
        /// The job.
        job: JobId,
        /// Why.
        reason: tidegate_schemas::Reason,
    },
    /// A prompt goes to the cloud.
    Escalated {
        /// The job.
        job: JobId,
        /// Why.
        reason: tidegate_schemas::Reason,
    },
    /// A job is over.
    Ended {
        /// The job.
        job: JobId,
        /// Local, cloud; none for an error.
        route: Option<tidegate_schemas::Route>,
        /// The code, for an error.
        code: Option<tidegate_schemas::ErrorCode>,
    },
    /// A resolution that belongs to nothing that is open.
    StrayResolution {
        /// The job that it names.
        job: JobId,
    },
    /// An inference ran while the engine died.
    Suspect {
        /// The job.
        job: JobId,
        /// Attempts so far.
        attempt: u32,
    },
}
