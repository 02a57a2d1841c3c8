//! What the shells tell the hub.

use super::gauges::Facts;
use super::succession::Succession;
use crate::engine::{EngineReport, Successor};
use bytes::Bytes;
use std::sync::Arc;
use tidegate_broker::{Outgoing, Verdict};
use tidegate_core::{Event, OperatorDrop, Ticket};
use tidegate_schemas::{Budget, Control, DeviceId, Encoding, JobId, Prompt, PromptId, Reply, Resolution};
use tidegate_spool::{Change, Counts, DeadReason, Notice, OutcomeRecord, SpoolError};
use tokio::sync::{mpsc, oneshot};

/// From outside, through a bounded channel: whoever asks waits for room.
pub(super) enum Input {
    /// A decoded prompt.
    Prompt {
        /// The device.
        device: DeviceId,
        /// What it asks.
        prompt: Arc<Prompt>,
        /// How it writes.
        encoding: Encoding,
        /// Bytes of the payload.
        bytes: u32,
        /// Where the outcome goes and with what.
        reply_to: Reply,
        /// Waits for the verdict.
        reply: oneshot::Sender<Verdict>,
    },
    /// A decoded control message.
    Control {
        /// The device.
        device: DeviceId,
        /// What it wants.
        control: Control,
        /// How it writes.
        encoding: Encoding,
        /// Where what it asks for goes and with what.
        reply_to: Reply,
        /// Waits for the verdict.
        reply: oneshot::Sender<Verdict>,
    },
    /// Which outcomes wait for a device?
    Pending {
        /// The device.
        device: DeviceId,
        /// Only later ones.
        after: Option<JobId>,
        /// At most so many.
        max: usize,
        /// Waits for them.
        reply: oneshot::Sender<Vec<Outgoing>>,
    },
    /// Which outcomes wait, of all devices?
    Waiting {
        /// Only later ones.
        after: Option<JobId>,
        /// At most so many.
        max: usize,
        /// Waits for them.
        reply: oneshot::Sender<Vec<(DeviceId, Outgoing)>>,
    },
    /// A prompt of the page: its frames go to whoever looks at it there, and to no session.
    Ask {
        /// What it asks.
        prompt: Arc<Prompt>,
        /// Bytes of its text.
        bytes: u32,
        /// Takes its frames, as JSON.
        frames: mpsc::Sender<Bytes>,
        /// Waits for the verdict.
        reply: oneshot::Sender<Verdict>,
    },
    /// A model that was tried is to take over.
    Succeed(Box<(Successor, Succession)>),
    /// How is everything?
    Facts(oneshot::Sender<Box<Facts>>),
    /// A question of the control socket.
    Query(Query, oneshot::Sender<serde_json::Value>),
}

/// What the control socket asks.
pub(super) enum Query {
    /// How is the gateway?
    Status,
    /// What became of a job?
    Record(JobId),
    /// What became of the prompt with this id of this device?
    Outcome(DeviceId, PromptId, Text),
    /// Stop, as on SIGTERM.
    Drain,
    /// An operator drops a prompt or its escalation.
    Drop(JobId, OperatorDrop),
    /// An operator drops an outcome: nobody is sent it any more.
    Discard(DeviceId, JobId),
    /// Why did a job take its way?
    Explain(JobId),
}

/// Whether whoever asks may read prompts and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    /// No word of them.
    Hidden,
    /// All of it.
    Shown,
}

/// From our own shells. The channel is unbounded in type, because the storage thread must not block, and bounded in
/// fact: each message answers one change, publish or resolution that the dispatcher's limits let through.
pub(super) enum Report {
    /// For the dispatcher as it is.
    Event(Event),
    /// A change is on disk or is not.
    Disk(Task, Result<(), SpoolError>),
    /// A stored outcome was read, for a publish that asked for it.
    Fetched {
        /// Whose acknowledgement waits.
        ticket: Ticket,
        /// To whom.
        device: DeviceId,
        /// None if it is gone.
        record: Option<Box<OutcomeRecord>>,
    },
    /// A stored outcome was read, to be delivered.
    Read(Option<Box<OutcomeRecord>>),
    /// A session acknowledged an outcome.
    Released(DeviceId, JobId),
    /// A resolution came; its acknowledgement waits under this number.
    Resolution(u64, Box<Resolution>),
    /// What is stored.
    Counts(Counts),
    /// The store has something to say.
    Store(Notice),
    /// What the bridge knows of its link.
    Bridge(Box<BridgeFacts>),
    /// All numbers, to be told as retained state.
    Numbers(Bytes),
    /// The broker of the intake is there, or why it is not.
    Intake(Option<String>),
    /// Certificates were looked at.
    Certificates(Vec<Result<crate::expiry::Paper, String>>),
}

/// What the bridge knows of its link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BridgeFacts {
    /// Whether it is connected.
    pub(super) connected: bool,
    /// The address that it is connected to, or tries.
    pub(super) broker: String,
    /// The version of MQTT that is spoken there.
    pub(super) version: &'static str,
    /// Why a broker refuses us, until one takes us again.
    pub(super) refused: Option<String>,
    /// Why the last connection ended or did not come to be, until one does.
    pub(super) away: Option<String>,
    /// The bytes of the day, where they are limited.
    pub(super) budget: Option<Budget>,
}

/// A change and what follows from it.
#[derive(Clone)]
pub(super) enum Task {
    /// Of `Keep`.
    Keep(JobId),
    /// Of `MarkAttempt`.
    Mark(JobId, u32),
    /// Of `KeepEscalation`.
    Escalate(JobId),
    /// Of `Conclude`, with why a dead letter goes with it; kept to be tried again.
    Conclude(Box<OutcomeRecord>, Option<DeadReason>),
    /// Of `released`.
    Release(JobId),
    /// Of a publish that crosses by rule; only the end of the store is reported.
    Forward,
}

impl Task {
    /// The change to try again; none for those whose refusal is an answer.
    pub(super) fn again(&self) -> Option<Change> {
        match self {
            Self::Keep(_) | Self::Escalate(_) | Self::Forward => None,
            Self::Mark(job, attempts) => Some(Change::MarkAttempt { job: *job, attempts: *attempts }),
            Self::Conclude(record, None) => Some(Change::Conclude((**record).clone())),
            Self::Conclude(record, Some(reason)) => {
                Some(Change::ConcludeDead { outcome: (**record).clone(), reason: reason.clone() })
            }
            Self::Release(job) => Some(Change::Release { job: *job }),
        }
    }
}

/// Everything that the hub listens to.
pub(super) struct Ears {
    /// From outside.
    pub(super) inputs: mpsc::Receiver<Input>,
    /// From our shells.
    pub(super) reports: mpsc::UnboundedReceiver<Report>,
    /// From the engine.
    pub(super) engine: mpsc::Receiver<EngineReport>,
    /// SIGHUP: certificates, users and rights are to be read again.
    pub(super) hangup: tokio::signal::unix::Signal,
}

/// What the bridge is told.
pub(super) enum ToBridge {
    /// Publish this, and tell its past.
    Publish(Box<tidegate_schemas::Escalation>, super::bridge::Past),
    /// The resolution with this number is dealt with: acknowledge it.
    Settled(u64),
    /// Retained state, to be published now and after every connect.
    State(String, Bytes),
    /// An event, to be published once.
    Event(String, Bytes),
    /// Say goodbye with this last word on the health topic, and end.
    Stop(String, Bytes),
}
