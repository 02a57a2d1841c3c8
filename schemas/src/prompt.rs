//! A prompt, as a device asks it.

use crate::ids::{PromptId, TaskName};
use crate::limits::{DEADLINE_MS_MAX, MESSAGES_MAX, TOKENS_MAX};
use crate::number;
use crate::text::PromptText;
use crate::trace::TraceParent;
use serde::{Deserialize, Deserializer, Serialize};
use sha2::{Digest, Sha256};

/// What a device asks. Valid by construction when it comes from [`crate::decode_prompt`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPrompt")]
pub struct Prompt {
    /// Version of the message; 1.
    pub v: u8,
    /// The requester's id; without one there is no deduplication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<PromptId>,
    /// The task template; without one, the gateway's `default_task`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    /// What is asked.
    #[serde(flatten)]
    pub input: Input,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Largest frame that the device takes, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u32>,
    /// 0 to 9, 9 the most urgent.
    pub priority: Priority,
    /// Time to live from receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<DeadlineMs>,
    /// Whether `token` frames are wanted.
    pub stream: bool,
    /// Narrows consent: this prompt never leaves the host.
    pub local: bool,
    /// The span of the requester that asks; the user property of MQTT 5 says the same, and this one wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceParent>,
}

/// A prompt as it stands on the wire, before the rules that span fields.
#[derive(Deserialize)]
struct RawPrompt {
    #[serde(default = "version", deserialize_with = "number::version")]
    v: u8,
    id: Option<PromptId>,
    task: Option<TaskName>,
    input: Option<PromptText>,
    messages: Option<Vec<Message>>,
    #[serde(default, deserialize_with = "max_tokens")]
    max_tokens: Option<u32>,
    #[serde(default, deserialize_with = "max_bytes")]
    max_bytes: Option<u32>,
    #[serde(default)]
    priority: Priority,
    deadline_ms: Option<DeadlineMs>,
    #[serde(default)]
    stream: bool,
    #[serde(default)]
    local: bool,
    traceparent: Option<TraceParent>,
}

impl TryFrom<RawPrompt> for Prompt {
    type Error = String;

    fn try_from(raw: RawPrompt) -> Result<Self, String> {
        Ok(Self {
            v: raw.v,
            id: raw.id,
            task: raw.task,
            input: input(raw.input, raw.messages)?,
            max_tokens: raw.max_tokens,
            max_bytes: raw.max_bytes,
            priority: raw.priority,
            deadline_ms: raw.deadline_ms,
            stream: raw.stream,
            local: raw.local,
            traceparent: raw.traceparent,
        })
    }
}

fn max_tokens<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    number::optional_within(d, 1, TOKENS_MAX)
}

fn max_bytes<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u32>, D::Error> {
    number::optional_within(d, 1, u32::MAX)
}

fn input(text: Option<PromptText>, messages: Option<Vec<Message>>) -> Result<Input, String> {
    match (text, messages) {
        (Some(text), None) if blank(&text) => Err("has an input that is empty or blank".to_owned()),
        (Some(text), None) => Ok(Input::Input(text)),
        (None, Some(list)) if list.is_empty() || list.len() > MESSAGES_MAX => {
            Err(format!("has {} entries in messages, allowed are 1 to {MESSAGES_MAX}", list.len()))
        }
        (None, Some(list)) if list.iter().all(|m| blank(&m.content)) => {
            Err("has messages that are all empty or blank".to_owned())
        }
        (None, Some(list)) => Ok(Input::Messages(list)),
        (None, None) => Err("has neither input nor messages, one of them is needed".to_owned()),
        (Some(_), Some(_)) => Err("has both input and messages, only one of them is allowed".to_owned()),
    }
}

fn blank(text: &PromptText) -> bool {
    text.reveal().trim().is_empty()
}

fn version() -> u8 {
    number::VERSION
}

/// The text of a prompt: one input, or messages in OpenAI's shape.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Input {
    /// One user turn.
    Input(PromptText),
    /// A chat.
    Messages(Vec<Message>),
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: PromptText,
}

/// Who speaks in a chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The person or device.
    User,
    /// The model.
    Assistant,
}

/// 0 to 9, 9 the most urgent; 4 unless said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// A priority, none over 9.
    #[must_use]
    pub fn new(value: u8) -> Option<Self> {
        (value <= 9).then_some(Self(value))
    }

    /// 0 to 9.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        number::within(d, 0, 9).map(Self)
    }
}

/// Time to live, 1 ms to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct DeadlineMs(u64);

impl DeadlineMs {
    /// A deadline, none at zero or over [`DEADLINE_MS_MAX`].
    #[must_use]
    pub fn new(ms: u64) -> Option<Self> {
        (1..=DEADLINE_MS_MAX).contains(&ms).then_some(Self(ms))
    }

    /// Milliseconds.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl<'de> Deserialize<'de> for DeadlineMs {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        number::within(d, 1, DEADLINE_MS_MAX).map(Self)
    }
}

/// Identifies the content of a prompt: the first 16 bytes of the SHA-256 of its CBOR as this crate writes it, without
/// `id`, `deadline_ms` and `traceparent`. The deadline is no content: a Message Expiry is folded into it, and shrinks on
/// the way; nor is the span that asks, which is a new one when a device asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ContentHash(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl Prompt {
    /// A prompt of one input and nothing else, as a bare-text payload asks it.
    #[must_use]
    pub fn bare(text: &str) -> Self {
        Self {
            v: version(),
            id: None,
            task: None,
            input: Input::Input(text.into()),
            max_tokens: None,
            max_bytes: None,
            priority: Priority::default(),
            deadline_ms: None,
            stream: false,
            local: false,
            traceparent: None,
        }
    }

    /// Identifies the content, so that a repeated id can be told from a reused one.
    #[must_use]
    pub fn content_hash(&self) -> ContentHash {
        let content = Self { id: None, deadline_ms: None, traceparent: None, ..self.clone() };
        let digest = Sha256::digest(crate::cbor::to_vec(&content));
        let mut hash = [0; 16];
        hash.copy_from_slice(&digest[..16]);
        ContentHash(hash)
    }

    /// Bytes of text in the prompt.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match &self.input {
            Input::Input(text) => text.len(),
            Input::Messages(list) => list.iter().map(|m| m.content.len()).sum(),
        }
    }
}
