//! What a device asks about a prompt that it sent.

use crate::ids::PromptId;
use serde::{Deserialize, Serialize};

/// A control message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// What to do.
    pub op: ControlOp,
    /// With which prompt.
    pub id: PromptId,
}

/// What to do with a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlOp {
    /// Stop it; its outcome is `cancelled` unless it has one.
    Cancel,
    /// Send its outcome again.
    Fetch,
}
