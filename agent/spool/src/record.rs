//! What is kept: the records of prompts, escalations and outcomes, the changes to all classes, and what an opening finds.

use crate::dead::{DeadId, DeadReason};
use crate::forward::{ForwardId, ForwardRecord};
use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use tidegate_schemas::{Answer, ContentHash, DeviceId, Encoding, Escalation, JobId, Prompt, PromptId, Reply};

/// An accepted prompt without an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptRecord {
    /// Its number.
    pub job: JobId,
    /// The device.
    pub device: DeviceId,
    /// What it asks.
    pub prompt: Prompt,
    /// How it is answered.
    pub encoding: Encoding,
    /// Bytes of the payload as it came.
    pub bytes: u32,
    /// When it was received.
    pub stamp: Stamp,
    /// Attempts marked so far.
    pub attempts: u32,
    /// Where its outcome goes and with what. Records of older versions have none.
    #[serde(default, skip_serializing_if = "Reply::is_plain")]
    pub reply: Reply,
}

/// An escalation whose outcome is not there yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EscalationRecord {
    /// The job.
    pub job: JobId,
    /// What is published.
    pub escalation: Escalation,
    /// The provisional answer: what becomes final when the cloud stays silent.
    pub provisional: Option<Answer>,
}

/// The one outcome of a job, as it is sent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeRecord {
    /// The job.
    pub job: JobId,
    /// To whom.
    pub device: DeviceId,
    /// The requester's id.
    pub id: Option<PromptId>,
    /// The content of the prompt, to tell a repeated id from a reused one.
    pub hash: ContentHash,
    /// How the frame is written.
    pub encoding: Encoding,
    /// The exact bytes of the frame.
    #[serde(with = "serde_bytes")]
    pub frame: Vec<u8>,
    /// What is delivered instead when the frame exceeds the device's `max_bytes`.
    #[serde(with = "serde_bytes")]
    pub notice: Option<Vec<u8>>,
    /// Whether a session of the device acknowledged it.
    pub released: bool,
    /// When it was decided.
    pub stamp: Stamp,
    /// Where it goes and with what. Records of older versions have none.
    #[serde(default, skip_serializing_if = "Reply::is_plain")]
    pub reply: Reply,
    /// Whether its text may leave the host. What does not say so may not.
    #[serde(default)]
    pub reach: Reach,
}

/// How far the text of a prompt, and all that is made of it, may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Not beyond this host.
    #[default]
    Host,
    /// To the cloud, if need be.
    Cloud,
}

/// The bytes of the frame are text of an answer: only their number is shown.
impl fmt::Debug for OutcomeRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutcomeRecord")
            .field("job", &self.job)
            .field("device", &self.device)
            .field("id", &self.id)
            .field("encoding", &self.encoding)
            .field("frame_bytes", &self.frame.len())
            .field("notice_bytes", &self.notice.as_ref().map(Vec::len))
            .field("released", &self.released)
            .field("stamp", &self.stamp)
            .finish_non_exhaustive()
    }
}

/// One change, atomic on disk.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "the queue boxes it, nobody keeps many")]
pub enum Change {
    /// Keeps an accepted prompt, and reserves room for its outcome.
    Keep(PromptRecord),
    /// Writes down that a prompt is about to run again.
    MarkAttempt {
        /// The job.
        job: JobId,
        /// The attempt that follows.
        attempts: u32,
    },
    /// Keeps an escalation of a kept prompt; a second one of the same job replaces the first.
    Escalate(EscalationRecord),
    /// Keeps the outcome and removes prompt and escalation of the job. Never fails for a bound of a class. The same
    /// outcome again is accepted and changes nothing.
    Conclude(OutcomeRecord),
    /// Writes down that a session of the device acknowledged the outcome.
    Release {
        /// The job.
        job: JobId,
    },
    /// Removes a released outcome before its keep time ended.
    Forget {
        /// The job.
        job: JobId,
    },
    /// Like `Conclude`, and keeps the prompt, or its escalation where that was refused, as a dead letter. Where there is
    /// no room for the letter the outcome is kept without.
    ConcludeDead {
        /// The outcome.
        outcome: OutcomeRecord,
        /// Why it is dead.
        reason: DeadReason,
    },
    /// Keeps a forwarded message. Where there is no room the class's policy decides; what it drops is told as
    /// [`crate::Notice::Dropped`].
    Forward(ForwardRecord),
    /// The central broker acknowledged exactly this message with success: it leaves the disk.
    ForwardDone {
        /// Its number.
        entry: ForwardId,
    },
    /// The central broker refused this message for good: it becomes a dead letter.
    ForwardDead {
        /// Its number.
        entry: ForwardId,
        /// Why.
        reason: DeadReason,
    },
    /// An operator drops a forwarded message.
    ForwardDrop {
        /// Its number.
        entry: ForwardId,
    },
    /// A dead forwarded message is forwarded again, under the next number; the letter goes.
    DeadForward {
        /// The number of the letter.
        entry: DeadId,
    },
    /// Removes a dead letter: it was dropped by an operator, or what was in it is under way again.
    DeadRemove {
        /// Its number.
        entry: DeadId,
    },
}

/// What deduplication needs of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenOutcome {
    /// The job.
    pub job: JobId,
    /// The device.
    pub device: DeviceId,
    /// The requester's id; outcomes without one are not seen again.
    pub id: PromptId,
    /// The content of the prompt.
    pub hash: ContentHash,
    /// When it was decided.
    pub stamp: Stamp,
}

/// What an opening found.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// Prompts without an outcome, oldest first, with the attempts marked.
    pub prompts: Vec<PromptRecord>,
    /// Escalations of those prompts.
    pub escalations: Vec<EscalationRecord>,
    /// Outcomes that can be asked for again.
    pub seen: Vec<SeenOutcome>,
    /// Outcomes that no session acknowledged, oldest first.
    pub pending: Vec<(DeviceId, JobId)>,
    /// The number of the next job: above all that was ever stored.
    pub next_job: JobId,
    /// The number of the next forwarded message: above all that was ever stored.
    pub next_forward: ForwardId,
    /// Forwarded messages that wait.
    pub forwards: u64,
    /// Where the damaged store was set aside, if it was.
    pub quarantined: Option<PathBuf>,
    /// Records read from a damaged store by scanning its files; zero without damage.
    pub salvaged: u64,
    /// Records that were known to exist and could not be read.
    pub unreadable: u64,
}

impl Recovered {
    /// What an opening of a new store finds.
    pub(crate) fn nothing() -> Self {
        Self {
            prompts: Vec::new(),
            escalations: Vec::new(),
            seen: Vec::new(),
            pending: Vec::new(),
            next_job: JobId(1),
            next_forward: ForwardId(1),
            forwards: 0,
            quarantined: None,
            salvaged: 0,
            unreadable: 0,
        }
    }
}

/// Entries and bytes of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClassCounts {
    /// Entries.
    pub entries: u64,
    /// Bytes as stored.
    pub bytes: u64,
}

/// What the store holds, and what it did since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prompts without an outcome.
    pub prompts: ClassCounts,
    /// Escalations.
    pub escalations: ClassCounts,
    /// Outcomes, released or not.
    pub outcomes: ClassCounts,
    /// Outcomes among them that no session acknowledged.
    pub pending: u64,
    /// Forwarded messages.
    pub telemetry: ClassCounts,
    /// Forwarded messages among them that nobody has taken out to send.
    pub telemetry_waiting: u64,
    /// Dead letters.
    pub dead: ClassCounts,
    /// Forwarded messages and dead letters dropped because there was no room, since the opening.
    pub dropped_full: u64,
    /// Forwarded messages and dead letters dropped because their time was over, since the opening.
    pub dropped_expired: u64,
    /// Entries dropped by an operator, since the opening.
    pub dropped_operator: u64,
    /// Unreleased outcomes dropped because `answer_keep_ms` ended, since the opening.
    pub dropped: u64,
    /// Released outcomes pruned since the opening.
    pub pruned: u64,
    /// Bytes of the database file.
    pub file_bytes: u64,
    /// Generation switches since the opening.
    pub switches: u64,
    /// Syncs of the database file since the opening.
    pub syncs: u64,
}
