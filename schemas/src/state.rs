//! What a gateway says about itself: retained state and events. Always JSON.

use crate::ids::{ModelName, TaskName};
use serde::{Deserialize, Serialize};

/// `state/health`: alive or not, and what is wrong. The will says `online: false`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether the gateway runs.
    pub online: bool,
    /// The link to the central broker.
    pub link: LinkState,
    /// Whether the engine answers.
    pub engine_ready: bool,
    /// What is wrong, one sentence each.
    pub faults: Vec<String>,
    /// Version of the gateway.
    pub version: String,
    /// The bytes of the day over the link; absent where they are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Promises that the broker of the intake weakens, one sentence each; absent without an intake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weakened: Vec<String>,
}

/// The bytes of the day (UTC) over the link to the central broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Whole percents that are used, 0 to 100.
    pub percent_used: u8,
    /// What a day has, in bytes.
    pub bytes_max: u64,
    /// What that means.
    pub state: BudgetState,
}

/// What is left of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetState {
    /// Everything crosses.
    Ample,
    /// What matters less waits for the next day.
    Short,
    /// Nothing but state crosses.
    Spent,
}

/// The link to the central broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// No bridge is configured.
    None,
    /// Connected and acknowledged lately.
    Up,
    /// Not connected, or silent.
    Down,
}

/// `state/card`: what the gateway can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Models that are loaded.
    pub models: Vec<CardModel>,
    /// Tasks that may be asked.
    pub tasks: Vec<CardTask>,
    /// Largest prompt, in bytes.
    pub prompt_bytes_max: usize,
    /// Version of the gateway.
    pub version: String,
}

/// A model of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardModel {
    /// Its name.
    pub name: ModelName,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Context window of one prompt, in tokens.
    pub context_tokens: u32,
}

/// A task of a card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardTask {
    /// Its name.
    pub name: TaskName,
    /// Whether answers are JSON.
    pub json: bool,
    /// Whether the cloud may see its prompts.
    pub cloud: bool,
    /// Most tokens of an answer.
    pub max_tokens: u32,
}

/// `state/load`: queues and rates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Prompts that wait or run.
    pub inbox: QueueDepth,
    /// Escalations without outcome.
    pub outbox: QueueDepth,
    /// Outcomes that no session has acknowledged.
    pub outcomes: QueueDepth,
    /// Answers by the local model since start.
    pub answered_local: u64,
    /// Answers by the cloud since start.
    pub answered_cloud: u64,
    /// Errors since start.
    pub errors: u64,
    /// Engine restarts since start.
    pub engine_restarts: u64,
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDepth {
    /// Entries in it.
    pub entries: u64,
    /// Entries that fit.
    pub entries_max: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// Bytes that fit.
    pub bytes_max: u64,
}

/// `event/{kind}`: something that an operator wants to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened, one sentence, without text of prompts or answers.
    pub message: String,
    /// How often since start.
    pub count: u64,
}
