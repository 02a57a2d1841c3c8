//! Frames: what a gateway says to a device. Each carries `kind`.

use crate::code::{ErrorCode, Reason};
use crate::ids::{ModelName, PromptId};
use crate::number;
use crate::text::PromptText;
use serde::{Deserialize, Serialize};

/// One message from gateway to device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Frame {
    /// The prompt is on disk.
    Accepted(Accepted),
    /// A piece of an answer under way.
    Token(Token),
    /// The answer.
    Answer(Answer),
    /// No answer, and why.
    Error(ErrorFrame),
}

/// The prompt is on disk and waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The requester's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PromptId>,
    /// Prompts ahead of it.
    pub position: u32,
    /// Predicted time to the answer, in milliseconds.
    pub eta_ms: u64,
}

/// A piece of an answer. A new `attempt` discards what was shown; the answer has it all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The requester's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PromptId>,
    /// Which run of the prompt, from 1.
    pub attempt: u32,
    /// Number of the piece within the attempt, from 0, without gaps unless pieces were dropped.
    pub seq: u32,
    /// The text.
    pub text: PromptText,
}

/// Where an answer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Route {
    /// By the gateway's model.
    Local,
    /// By a worker.
    Cloud,
    /// By another gateway.
    Peer,
    /// From the disk: the outcome was decided earlier.
    Stored,
}

/// The text of an answer, or its JSON where the task has an output schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Body {
    /// Free text.
    Text(PromptText),
    /// A value that fits the task's schema.
    Json(Json),
}

/// A JSON value made from a prompt: like [`PromptText`] it shows nothing to a log.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);

impl std::fmt::Debug for Json {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<json>")
    }
}

impl Body {
    /// What a bare-text device gets: the text, or the JSON in one line.
    #[must_use]
    pub fn to_line(&self) -> PromptText {
        match self {
            Self::Text(text) => text.clone(),
            Self::Json(Json(value)) => value.to_string().into(),
        }
    }
}

/// The answer. With `provisional: true` it is not the outcome: exactly one with `false` follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The requester's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PromptId>,
    /// Text or JSON.
    #[serde(flatten)]
    pub body: Body,
    /// Predicted probability of being right, 0 to 1, sent with 4 decimals; absent where nobody can say (also for NaN).
    #[serde(default, skip_serializing_if = "number::no_confidence", with = "number::confidence")]
    pub confidence: Option<f64>,
    /// Where it was made.
    pub route: Route,
    /// Why there.
    pub reason: Reason,
    /// Whether another answer may follow.
    pub provisional: bool,
    /// The model that made it.
    pub model: ModelName,
    /// Tokens read and written.
    pub usage: Usage,
    /// Where the time went.
    pub timing: Timing,
}

/// Tokens read and written, in OpenAI's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of template and prompt.
    pub prompt_tokens: u32,
    /// Tokens of the answer.
    pub completion_tokens: u32,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// Waiting for a slot.
    pub queued_ms: u64,
    /// Prefill.
    pub prefill_ms: u64,
    /// Decode.
    pub decode_ms: u64,
    /// From receipt to this frame.
    pub total_ms: u64,
}

/// No answer, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// The requester's id, where one could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PromptId>,
    /// What kind of refusal or end.
    pub code: ErrorCode,
    /// The fact, with its values. Never text of a prompt or an answer.
    pub message: String,
    /// When trying again makes sense, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Frame {
    /// Whether the frame can be an outcome: a final answer, or an error.
    #[must_use]
    pub fn is_outcome(&self) -> bool {
        match self {
            Self::Answer(answer) => !answer.provisional,
            Self::Error(_) => true,
            Self::Accepted(_) | Self::Token(_) => false,
        }
    }

    /// The requester's id that the frame names.
    #[must_use]
    pub fn id(&self) -> Option<&PromptId> {
        match self {
            Self::Accepted(f) => f.id.as_ref(),
            Self::Token(f) => f.id.as_ref(),
            Self::Answer(f) => f.id.as_ref(),
            Self::Error(f) => f.id.as_ref(),
        }
    }
}
