//! What an escalation is to the engine.

use tidegate_engine::protocol::Run;
use tidegate_schemas::{Escalation, Input, JobId, Message, ModelName, Role};

/// Version of the resolutions that a worker writes.
pub(super) fn version() -> u8 {
    1
}

/// What resolutions name before any model was loaded (an escalation can expire that early).
pub(super) fn no_model() -> ModelName {
    "none".parse().expect("four letters are an identifier")
}

/// The run of an escalation: its task comes with it, and the prompt may ask for fewer tokens.
pub(super) fn run_of(job: JobId, escalation: &Escalation) -> Run {
    let messages = match &escalation.prompt.input {
        Input::Input(text) => vec![Message { role: Role::User, content: text.clone() }],
        Input::Messages(list) => list.clone(),
    };
    let task = &escalation.task;
    let asked = escalation.prompt.max_tokens.unwrap_or(task.max_tokens);
    Run {
        job,
        system: task.system.clone(),
        messages,
        schema: task.schema.clone(),
        max_tokens: task.max_tokens.min(asked),
        stream: false,
        floor: None,
    }
}
