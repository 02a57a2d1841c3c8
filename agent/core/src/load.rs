//! What the dispatcher says about itself: queues, counts, rates. Numbers only, never text.

/// A snapshot of queues and counters; counters start at zero with the process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LoadView {
    /// Why the machine is spared, if it is.
    pub strain: Option<crate::strain::Strain>,
    /// Prompts that wait for a slot.
    pub queued: u64,
    /// Inferences under way.
    pub running: u64,
    /// Prompts whose escalation is open.
    pub escalated: u64,
    /// Accepted prompts without outcome on disk, whatever their state.
    pub inbox_entries: u64,
    /// Payload bytes of these.
    pub inbox_bytes: u64,
    /// Escalations without outcome, those being written included.
    pub outbox_entries: u64,
    /// Bytes of these.
    pub outbox_bytes: u64,
    /// Answered ids that are remembered.
    pub seen: u64,
    /// Outcomes made by the local model.
    pub answered_local: u64,
    /// Outcomes made by the cloud.
    pub answered_cloud: u64,
    /// Provisional answers sent.
    pub provisional: u64,
    /// Outcomes that are errors.
    pub errors: u64,
    /// Prompts refused before acceptance.
    pub refused: u64,
    /// Prompts that went to the cloud.
    pub escalations: u64,
    /// Publishes of escalations, repeats included.
    pub publishes: u64,
    /// Resolutions that belonged to nothing open.
    pub stray_resolutions: u64,
    /// Inferences that ran while the engine died.
    pub suspects: u64,
    /// Resolutions that were a label for a local answer.
    pub labels: u64,
    /// Measured tokens per second of one answer; none before the first.
    pub decode_tokens_per_s: Option<f64>,
    /// Measured bytes of prompt and template read per second; none before the first.
    pub prefill_bytes_per_s: Option<f64>,
}
