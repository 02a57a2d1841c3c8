//! The words on the wire: identifiers, topics, messages and their encodings.
//!
//! Invariants: every value of a type in this crate is valid by construction; whatever comes from outside passes
//! through one of the `decode_…` functions or [`cbor::from_slice`], each with a size limit; no error repeats text of a
//! payload; the crate does no IO and knows nothing of ours.

pub mod cbor;
mod code;
mod control;
mod encoding;
mod escalation;
mod frame;
mod ids;
mod limits;
mod number;
mod prompt;
mod reply;
mod state;
mod strict;
mod text;
mod topic;
mod trace;
mod tree;
mod variant;

pub use code::{ErrorCode, Reason};
pub use control::{Control, ControlOp};
pub use encoding::{DecodeError, Encoding, decode_control, decode_prompt};
pub use escalation::{Escalation, Resolution, ResolvedOutcome, TaskSpec, decode_escalation, decode_resolution, encode};
pub use frame::{Accepted, Answer, Body, ErrorFrame, Frame, Json, Route, Timing, Token, Usage};
pub use ids::{DeviceId, GatewayId, IdError, JobId, ModelName, PromptId, SiteId, TaskName};
pub use limits::{
    DEADLINE_MS_MAX, DRAFT_BYTES_MAX, ESCALATION_BYTES_MAX, ESCALATION_FRAMING_BYTES, ID_BYTES_MAX, MESSAGES_MAX,
    OUTCOME_BYTES_MAX, PROMPT_BYTES_MAX, TASK_BYTES_MAX, TOKENS_MAX,
};
pub use prompt::{ContentHash, DeadlineMs, Input, Message, Priority, Prompt, Role};
pub use reply::{CORRELATION_BYTES_MAX, Reply};
pub use state::{Budget, BudgetState, Card, CardModel, CardTask, Event, Health, LinkState, Load, QueueDepth};
pub use text::PromptText;
pub use topic::{DeviceTopic, Origin, StateKind, Topic, TopicError};
pub use trace::{TraceError, TraceParent};
