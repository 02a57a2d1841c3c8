//! What gateway and cloud say to each other. Always CBOR.

use crate::cbor::{self, CborError};
use crate::code::{ErrorCode, Reason};
use crate::frame::{Body, Timing, Usage};
use crate::ids::{DeviceId, JobId, ModelName, TaskName};
use crate::limits::{ESCALATION_BYTES_MAX, OUTCOME_BYTES_MAX};
use crate::number;
use crate::prompt::Prompt;
use crate::topic::Origin;
use crate::trace::TraceParent;
use serde::{Deserialize, Serialize};

/// A prompt that the cloud should answer, with all that a worker needs to know of its task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Escalation {
    /// Version of the message; 1.
    #[serde(deserialize_with = "number::version")]
    pub v: u8,
    /// The gateway's own id of the prompt, unique for the life of its store.
    pub job: JobId,
    /// The gateway that asks.
    pub origin: Origin,
    /// The device that asked it.
    pub device: DeviceId,
    /// What was asked.
    pub prompt: Prompt,
    /// How it is to be answered.
    pub task: TaskSpec,
    /// What the gateway would have answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Body>,
    /// How sure the gateway was, 0 to 1, sent with 4 decimals.
    #[serde(default, skip_serializing_if = "number::no_confidence", with = "number::confidence")]
    pub confidence: Option<f64>,
    /// Why it comes to the cloud.
    pub reason: Reason,
    /// Gateways and brokers it passed, against loops.
    pub hops: u8,
    /// Which publish of this escalation, from 1.
    pub attempt: u32,
    /// What is left at the moment of this publish; absent without a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_ms: Option<u64>,
}

/// A task, whole: workers need no copy of a gateway's tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSpec {
    /// Its name.
    pub name: TaskName,
    /// SHA-256 over system prompt and schema, hexadecimal: tells versions of a task apart.
    pub sha256: String,
    /// The system prompt.
    pub system: String,
    /// JSON Schema of the answer, as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Most tokens of the answer.
    pub max_tokens: u32,
    /// Largest outcome frame, in bytes.
    pub max_bytes: u32,
}

/// What became of an escalation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Version of the message; 1.
    #[serde(deserialize_with = "number::version")]
    pub v: u8,
    /// The escalation's job.
    pub job: JobId,
    /// The escalation's origin.
    pub origin: Origin,
    /// The escalation's attempt.
    pub attempt: u32,
    /// Answer or error.
    pub outcome: ResolvedOutcome,
    /// How sure the worker is, 0 to 1, sent with 4 decimals.
    #[serde(default, skip_serializing_if = "number::no_confidence", with = "number::confidence")]
    pub confidence: Option<f64>,
    /// The worker's model.
    pub model: ModelName,
    /// Tokens read and written there.
    pub usage: Usage,
    /// Where the time went there.
    pub timing: Timing,
    /// That of the escalation's prompt, so that whoever reads it on the way can tell whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceParent>,
}

/// Answer or error of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolvedOutcome {
    /// The answer.
    Answer(Body),
    /// No answer, and why.
    Error {
        /// What kind.
        code: ErrorCode,
        /// The fact, with its values.
        message: String,
    },
}

/// Encodes a message between gateway and cloud.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    cbor::to_vec(message)
}

/// Reads an escalation of at most [`ESCALATION_BYTES_MAX`].
///
/// # Errors
/// Over the limit, or what is wrong with which field.
pub fn decode_escalation(payload: &[u8]) -> Result<Escalation, CborError> {
    cbor::from_slice(payload, ESCALATION_BYTES_MAX)
}

/// Reads a resolution of at most [`OUTCOME_BYTES_MAX`].
///
/// # Errors
/// Over the limit, or what is wrong with which field.
pub fn decode_resolution(payload: &[u8]) -> Result<Resolution, CborError> {
    cbor::from_slice(payload, OUTCOME_BYTES_MAX)
}
