//! What the dispatcher is told once: who it is, its tasks and its limits. Checked by whoever reads the configuration.

use std::collections::BTreeMap;
use std::sync::Arc;
use tidegate_schemas::{Origin, TaskName, TaskSpec};

/// The gateway that decides.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name on the wire.
    pub origin: Origin,
    /// The task of a prompt that names none. A key of `tasks`.
    pub default_task: TaskName,
    /// Tasks that may be asked.
    pub tasks: BTreeMap<TaskName, Task>,
    /// Whether there is a cloud at all.
    pub bridge: Bridge,
    /// How much of everything.
    pub limits: Limits,
}

/// A task template with its policy.
#[derive(Debug, Clone)]
pub struct Task {
    /// What the model is told.
    pub spec: Arc<TaskSpec>,
    /// Whether its prompts may leave the host.
    pub consent: Consent,
    /// Which local answers are kept.
    pub keep: Keep,
    /// Whether the cloud's answers correct the confidence.
    pub learning: Learning,
    /// What a right answer is worth beside the other tasks', 0 to 1: expected gain times this is weighed against the
    /// price of escalating.
    pub value: f64,
    /// What a device sees of a local answer below the threshold.
    pub provisional: Provisional,
    /// Start value of the output length in tokens, until answers were measured.
    pub expected_tokens: u32,
}

/// Whether prompts of a task may leave the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Neither prompt nor answer ever leaves it.
    Never,
    /// What the gateway cannot answer goes to the cloud.
    Allowed,
}

/// Which local answers are kept: one of three ways to say it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keep {
    /// Those of at least this confidence, 0 to 1.
    Threshold(f64),
    /// So that at most `level` of the kept ones are wrong, with probability `sure`; both 0 to 1, ends excluded.
    WrongAtMost {
        /// Share of wrong answers among kept ones.
        level: f64,
        /// Probability with which it holds.
        sure: f64,
    },
    /// All but this share, 0 to 1.
    EscalateShare(f64),
}

/// Whether the cloud's answers correct the confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Learning {
    /// The shipped confidence holds.
    Off,
    /// Each resolution is a label; this share of the kept answers is escalated to be looked at, 0 to 1.
    On {
        /// Share of kept answers.
        audit_share: f64,
    },
}

/// What a device sees of a local answer that the cloud may better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provisional {
    /// It is sent at once, marked provisional.
    Give,
    /// It is kept back until the cloud answered or stayed silent.
    Withhold,
}

/// Whether a bridge to the cloud is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bridge {
    /// There is no cloud.
    None,
    /// There is one; whether it can be reached is told by `LinkUp` and `LinkDown`.
    Configured,
}

/// Bounds of every queue and every repetition.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Most accepted prompts without outcome. Each costs its bytes and about 600 more of memory.
    pub inbox_entries_max: u32,
    /// Most payload bytes of accepted prompts without outcome, since they are also held in memory.
    pub inbox_bytes_max: u64,
    /// Most accepted prompts without outcome of one device, so that one cannot shut out the others.
    pub device_entries_max: u32,
    /// Most payload bytes of these.
    pub device_bytes_max: u64,
    /// Most escalations without outcome. Less than the inbox, so that a long outage leaves room for local prompts.
    pub outbox_entries_max: u32,
    /// Most bytes of escalations without outcome.
    pub outbox_bytes_max: u64,
    /// Inferences at once: the sequences that the engine was started with.
    pub slots: u32,
    /// How long an answered id is remembered, in milliseconds.
    pub seen_keep_ms: u64,
    /// Most answered ids that are remembered of one device.
    pub seen_per_device_max: u32,
    /// Shortest time that a sent escalation waits for its resolution before it is published again, in milliseconds.
    pub lease_ms_min: u64,
    /// How often an escalation is published again after its first publish stayed without resolution.
    pub escalation_attempts_max: u32,
    /// Most runs of one prompt on this gateway, crashes included.
    pub attempts_max: u32,
    /// How long a prompt without deadline waits for the cloud before its local answer is final, in milliseconds.
    pub cloud_wait_ms: u64,
    /// Most publishes that wait for the central broker's acknowledgement: the bridge's window.
    pub escalations_in_flight_max: u32,
    /// The budget that the price of escalating follows, in escalations per hour; none: escalating is free.
    pub escalations_per_hour: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inbox_entries_max: 16_384,
            inbox_bytes_max: 32 * 1024 * 1024,
            device_entries_max: 4_096,
            device_bytes_max: 16 * 1024 * 1024,
            outbox_entries_max: 4_096,
            outbox_bytes_max: 32 * 1024 * 1024,
            slots: 2,
            seen_keep_ms: 24 * 3600 * 1000,
            seen_per_device_max: 4_096,
            lease_ms_min: 30_000,
            escalation_attempts_max: 3,
            attempts_max: 2,
            cloud_wait_ms: 3600 * 1000,
            escalations_in_flight_max: 16,
            escalations_per_hour: None,
        }
    }
}
