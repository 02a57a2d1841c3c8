//! Why a prompt was refused or ended, and why an answer took the way it took.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The code of an `error` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The payload is no valid message.
    Invalid,
    /// Larger than a limit: the payload, or the answer for this device.
    TooLarge,
    /// The gateway has no such task.
    UnknownTask,
    /// The identity may not do this.
    NotAllowed,
    /// No capacity now; see `retry_after_ms`.
    Busy,
    /// The id is under way with other content.
    IdReused,
    /// The deadline passed.
    Expired,
    /// Cancelled by its device.
    Cancelled,
    /// No valid ending within `max_tokens`.
    Cut,
    /// The prompt crashed the engine twice while alone.
    Dead,
    /// Neither gateway nor cloud could answer.
    Unresolved,
    /// `fetch` or `cancel` of an id that the gateway does not know.
    UnknownId,
}

impl ErrorCode {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::UnknownTask => "unknown_task",
            Self::NotAllowed => "not_allowed",
            Self::Busy => "busy",
            Self::IdReused => "id_reused",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Cut => "cut",
            Self::Dead => "dead",
            Self::Unresolved => "unresolved",
            Self::UnknownId => "unknown_id",
        }
    }

    /// The MQTT 5 reason code of a PUBACK or PUBREC that refuses with this code (MQTT 5.0, table 2-6).
    #[must_use]
    pub fn puback_reason(self) -> u8 {
        match self {
            Self::Invalid => 0x99,
            Self::TooLarge | Self::Busy => 0x97,
            Self::NotAllowed => 0x87,
            Self::UnknownTask
            | Self::IdReused
            | Self::Expired
            | Self::Cancelled
            | Self::Cut
            | Self::Dead
            | Self::Unresolved
            | Self::UnknownId => 0x83,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an answer took the way it took: `reason` of an `answer`, of an escalation, and of a decision in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Confidence reached the task's threshold.
    Confident,
    /// Confidence stayed below the task's threshold.
    LowConfidence,
    /// The predicted local time goes past the deadline.
    TooSlow,
    /// The inbox is too full to run it here.
    NoCapacity,
    /// Prompt and template exceed the local context window.
    TooLong,
    /// The local engine failed on this prompt.
    EngineFailed,
    /// The answer was cut off or did not fit its schema.
    NoValidEnding,
    /// The task or the prompt forbids the cloud.
    LocalOnly,
    /// No bridge is configured.
    NoCloud,
    /// There was no link and no time to wait for one.
    LinkDown,
    /// The cloud did not answer in time; the provisional answer was confirmed.
    CloudSilent,
    /// The outbox was full; the local answer is final.
    OutboxFull,
    /// The cloud answered.
    CloudAnswered,
    /// The cloud was less sure than the gateway.
    CloudLessSure,
    /// The budget of escalations is nearly spent, and what the cloud may mend is worth less than its price.
    TooDear,
    /// The machine is to be spared: too hot, throttled, or low on battery.
    Strained,
    /// A word of a newer version.
    #[serde(other)]
    Other,
}

impl Reason {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confident => "confident",
            Self::LowConfidence => "low_confidence",
            Self::TooSlow => "too_slow",
            Self::NoCapacity => "no_capacity",
            Self::TooLong => "too_long",
            Self::EngineFailed => "engine_failed",
            Self::NoValidEnding => "no_valid_ending",
            Self::LocalOnly => "local_only",
            Self::NoCloud => "no_cloud",
            Self::LinkDown => "link_down",
            Self::CloudSilent => "cloud_silent",
            Self::OutboxFull => "outbox_full",
            Self::CloudAnswered => "cloud_answered",
            Self::CloudLessSure => "cloud_less_sure",
            Self::TooDear => "too_dear",
            Self::Strained => "strained",
            Self::Other => "other",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
