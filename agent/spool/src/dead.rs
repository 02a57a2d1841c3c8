//! Dead letters: what will never be done here, kept with its reason until somebody looks or its keep time ends.

use crate::forward::ForwardRecord;
use crate::record::{EscalationRecord, PromptRecord};
use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use tidegate_schemas::DeviceId;

/// The number of a dead letter: grows with every one, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeadId(pub u64);

impl fmt::Display for DeadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why something is dead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum DeadReason {
    /// The engine died of it, and died again when it ran alone, or as often as it may run.
    CrashedEngine {
        /// How often it ran.
        runs: u32,
    },
    /// The central broker or a worker refused it for good.
    Refused {
        /// What was said, such as an MQTT reason code; no text of a prompt.
        by: String,
    },
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CrashedEngine { runs } => write!(f, "crashed the engine, {runs} runs"),
            Self::Refused { by } => write!(f, "refused for good: {by}"),
        }
    }
}

/// What is dead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "read one page at a time")]
pub enum DeadItem {
    /// A prompt; its outcome is stored beside it.
    Prompt(PromptRecord),
    /// An escalation, with its prompt; the outcome is stored beside it.
    Escalation(EscalationRecord),
    /// A forwarded message.
    Forward(ForwardRecord),
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadRecord {
    /// Its number.
    pub entry: DeadId,
    /// Whose it was.
    pub source: DeviceId,
    /// What it was.
    pub item: DeadItem,
    /// Why it is here.
    pub reason: DeadReason,
    /// When it came here.
    pub stamp: Stamp,
}
