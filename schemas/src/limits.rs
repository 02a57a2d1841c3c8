//! Sizes that both ends agree on, and how they relate.

/// Largest prompt payload, in bytes. Bounds the memory of one publish; 64 KiB is far over what an MCU sends.
pub const PROMPT_BYTES_MAX: usize = 64 * 1024;
/// Largest description of a task inside an escalation, in bytes (system prompt and output schema).
pub const TASK_BYTES_MAX: usize = 16 * 1024;
/// Largest draft answer inside an escalation, in bytes.
pub const DRAFT_BYTES_MAX: usize = 16 * 1024;
/// Room for ids, numbers and map keys of an escalation, in bytes.
pub const ESCALATION_FRAMING_BYTES: usize = 4 * 1024;
/// Largest escalation payload, in bytes.
pub const ESCALATION_BYTES_MAX: usize = PROMPT_BYTES_MAX + TASK_BYTES_MAX + DRAFT_BYTES_MAX + ESCALATION_FRAMING_BYTES;
/// Largest encoded outcome frame, in bytes: what admission reserves for each accepted prompt at most.
pub const OUTCOME_BYTES_MAX: usize = 64 * 1024;
/// Longest identifier, in bytes: `[A-Za-z0-9_.-]{1,64}`.
pub const ID_BYTES_MAX: usize = 64;
/// Longest deadline, in milliseconds: 30 days, the longest that an item may wait for a link.
pub const DEADLINE_MS_MAX: u64 = 30 * 24 * 3600 * 1000;
/// Most messages in one prompt: a chat longer than this belongs on a server.
pub const MESSAGES_MAX: usize = 64;
/// Largest `max_tokens` that a prompt may ask for, in tokens.
pub const TOKENS_MAX: u32 = 32_768;

const _: () = assert!(ESCALATION_BYTES_MAX == 100 * 1024, "the design fixes an escalation at 100 KiB");
const _: () = assert!(OUTCOME_BYTES_MAX < ESCALATION_BYTES_MAX, "a broker that carries escalations carries outcomes");
const _: () = assert!(DRAFT_BYTES_MAX <= OUTCOME_BYTES_MAX, "a draft is an answer that was not sent");
