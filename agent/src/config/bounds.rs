//! The numbers of the configuration: each with its range, its unit and its reason.

use super::reader::{Number, Section};
use tidegate_engine::protocol::CacheType;
use tidegate_spool::{Policy, Room};

/// Bytes per MiB: limits of memory and disk are written in MiB.
const MIB: u64 = 1024 * 1024;

macro_rules! numbers {
    ($($name:ident = $key:literal, $min:literal..=$max:literal, $unit:literal, $why:literal;)*) => {
        $(pub(super) const $name: Number = Number { key: $key, min: $min, max: $max, unit: $unit, why: $why };)*
    };
}

numbers! {
    SLOTS = "slots", 1..=64, "prompts", "Prompts computed at once. Two keep the cores busy while one is read in.";
    THREADS = "threads", 0..=256, "threads", "Threads that compute; 0 takes one per physical core.";
    CONTEXT = "context_tokens", 64..=131_072, "tokens", "Window of one prompt with its answer. Each token costs memory for every slot.";
    PREFIX_MIB = "prefix_mib_max", 0..=65_536, "MiB", "Keys and values of the tasks' templates, which stay computed in memory and on disk (there at most twice as much): 32 hold 2,700 tokens for a model of 0.5B, 1,000 for one of 1B.";
    ENGINE_MIB = "memory_mib_max", 0..=1_048_576, "MiB", "A model that is predicted to need more is refused; 0 sets no limit.";
    GPU_LAYERS = "gpu_layers", 0..=9_999, "layers", "Layers of the model that a graphics processor takes; the largest number takes all. Only builds with the feature cuda, vulkan or metal have one.";
    SILENCE = "silence_ms_max", 2_000..=600_000, "ms", "Silence after which the model's process counts as hung and is replaced. More than one step of the model takes here.";
    DRAIN = "timeout_ms", 100..=600_000, "ms", "Longest time that a stop waits for what runs. What is not done by then runs again after the start.";
    INBOX_ENTRIES = "inbox_entries_max", 1..=1_000_000, "prompts", "Accepted prompts without outcome. A start with 10,000 takes under 1.5 s.";
    INBOX_MIB = "inbox_mib_max", 1..=65_536, "MiB", "Their bytes. They are also held in memory, which a gateway has little of.";
    DEVICE_ENTRIES = "device_entries_max", 1..=1_000_000, "prompts", "Accepted prompts without outcome of one device, so that one cannot shut out the others.";
    OUTBOX_ENTRIES = "outbox_entries_max", 1..=1_000_000, "escalations", "Escalations without outcome. Beyond it the local answer is final.";
    OUTBOX_MIB = "outbox_mib_max", 1..=65_536, "MiB", "Their bytes: room for 4,096 small escalations, or for 320 of the largest, 100 KiB each.";
    OUTCOMES_ENTRIES = "outcomes_entries_max", 1..=10_000_000, "outcomes", "Stored outcomes, and the room that open prompts hold: a day of one each 1.5 s.";
    OUTCOMES_MIB = "outcomes_mib_max", 1..=1_048_576, "MiB", "Their bytes, and the room that open prompts hold: about 17 KiB each.";
    DEVICE_MIB = "device_mib_max", 1..=65_536, "MiB", "Their bytes: half of the inbox, so that one device with large prompts leaves the other half.";
    OUTCOMES_DEVICE_ENTRIES = "outcomes_device_entries_max", 1..=10_000_000, "outcomes", "The same of one device: one that never fetches its answers leaves the rest to the others.";
    OUTCOMES_DEVICE_MIB = "outcomes_device_mib_max", 1..=1_048_576, "MiB", "Their bytes: room for 10,000 open prompts of one device, and a third left to the others.";
    TELEMETRY_ENTRIES = "telemetry_entries_max", 1..=10_000_000, "messages", "Forwarded messages on their way: an outage of a day at one per second. Each costs about 150 bytes of memory.";
    TELEMETRY_MIB = "telemetry_mib_max", 1..=1_048_576, "MiB", "Their bytes: 2.6 KiB for each message.";
    TELEMETRY_DEVICE_ENTRIES = "telemetry_device_entries_max", 1..=10_000_000, "messages", "The same of one device: half, so that one that chatters leaves the rest to the others.";
    TELEMETRY_DEVICE_MIB = "telemetry_device_mib_max", 1..=1_048_576, "MiB", "Their bytes, for the same reason.";
    DEAD_ENTRIES = "dead_entries_max", 1..=100_000, "letters", "Dead letters: more than somebody would look through. Beyond it the oldest goes.";
    DEAD_MIB = "dead_mib_max", 1..=65_536, "MiB", "Their bytes: 32 KiB for each letter.";
    DEAD_KEEP = "dead_keep_ms", 1_000..=31_536_000_000, "ms", "How long a dead letter, with its text, waits for somebody who looks.";
    FREE_MIB = "free_mib_min", 0..=1_048_576, "MiB", "Free room of the file system under which no prompt is accepted: the rest of the system needs some.";
    SEEN_KEEP = "seen_keep_ms", 1_000..=2_592_000_000, "ms", "How long a repeated id gets its stored outcome. A day covers a device that was off over night.";
    ANSWER_KEEP = "answer_keep_ms", 1_000..=31_536_000_000, "ms", "How long an outcome waits for its device. A week covers a holiday.";
    CLOUD_WAIT = "cloud_wait_ms", 1_000..=2_592_000_000, "ms", "How long a prompt without deadline waits for the cloud before its local answer is final.";
    LEASE = "lease_ms_min", 1_000..=3_600_000, "ms", "Shortest wait for a resolution before an escalation is published again.";
    ESCALATIONS_HOUR = "escalations_per_hour", 0..=1_000_000, "escalations", "Budget that the price of escalating follows: the emptier it is, the more an escalation must promise to mend. 0 sets none.";
    ESCALATIONS = "escalations_in_flight_max", 1..=64, "publishes", "Publishes that wait for the central broker. Mosquitto takes 20 at once.";
}

/// Bounds of the dispatcher, of `[limits]`.
pub(super) fn limits(section: &Section<'_>, slots: u32) -> tidegate_core::Limits {
    let default = tidegate_core::Limits::default();
    tidegate_core::Limits {
        slots,
        inbox_entries_max: section.number_u32(&INBOX_ENTRIES, default.inbox_entries_max.min(10_000)),
        inbox_bytes_max: section.number(&INBOX_MIB, default.inbox_bytes_max / MIB) * MIB,
        device_entries_max: section.number_u32(&DEVICE_ENTRIES, default.device_entries_max),
        device_bytes_max: section.number(&DEVICE_MIB, default.device_bytes_max / MIB) * MIB,
        outbox_entries_max: section.number_u32(&OUTBOX_ENTRIES, default.outbox_entries_max),
        outbox_bytes_max: section.number(&OUTBOX_MIB, default.outbox_bytes_max / MIB) * MIB,
        seen_keep_ms: section.number(&SEEN_KEEP, default.seen_keep_ms),
        cloud_wait_ms: section.number(&CLOUD_WAIT, default.cloud_wait_ms),
        lease_ms_min: section.number(&LEASE, default.lease_ms_min),
        escalations_in_flight_max: section.number_u32(&ESCALATIONS, default.escalations_in_flight_max),
        escalations_per_hour: Some(section.number_u32(&ESCALATIONS_HOUR, 0)).filter(|n| *n > 0),
        ..default
    }
}

/// Bounds of the store, of `[spool]`. What the dispatcher lets in must fit: a stored record is its payload and its
/// framing, so the store's own bounds of inbox and outbox stand at twice the dispatcher's.
pub(super) fn spool(section: &Section<'_>, limits: &tidegate_core::Limits) -> tidegate_spool::Limits {
    let default = tidegate_spool::Limits::default();
    tidegate_spool::Limits {
        inbox_entries_max: u64::from(limits.inbox_entries_max),
        inbox_bytes_max: limits.inbox_bytes_max * 2,
        outbox_entries_max: u64::from(limits.outbox_entries_max),
        outbox_bytes_max: limits.outbox_bytes_max * 2,
        outcomes_entries_max: section.number(&OUTCOMES_ENTRIES, default.outcomes_entries_max),
        outcomes_bytes_max: section.number(&OUTCOMES_MIB, default.outcomes_bytes_max / MIB) * MIB,
        seen_keep_ms: limits.seen_keep_ms,
        outcomes_device: room(section, (&OUTCOMES_DEVICE_ENTRIES, &OUTCOMES_DEVICE_MIB), default.outcomes_device),
        telemetry: room(section, (&TELEMETRY_ENTRIES, &TELEMETRY_MIB), default.telemetry),
        telemetry_device: room(section, (&TELEMETRY_DEVICE_ENTRIES, &TELEMETRY_DEVICE_MIB), default.telemetry_device),
        telemetry_policy: policy(section),
        dead: room(section, (&DEAD_ENTRIES, &DEAD_MIB), default.dead),
        dead_keep_ms: section.number(&DEAD_KEEP, default.dead_keep_ms),
        inbox_device: Room {
            entries_max: u64::from(limits.device_entries_max),
            bytes_max: limits.device_bytes_max.saturating_mul(2),
        },
        answer_keep_ms: section.number(&ANSWER_KEEP, default.answer_keep_ms),
        free_bytes_min: section.number(&FREE_MIB, default.free_bytes_min / MIB) * MIB,
        ..default
    }
}

fn room(section: &Section<'_>, (entries, mib): (&Number, &Number), default: Room) -> Room {
    Room {
        entries_max: section.number(entries, default.entries_max),
        bytes_max: section.number(mib, default.bytes_max / MIB) * MIB,
    }
}

fn policy(section: &Section<'_>) -> Policy {
    let values = [
        ("\"refuse_newest\"", Policy::RefuseNewest),
        ("\"drop_oldest\"", Policy::DropOldest),
        ("\"drop_lowest_priority\"", Policy::DropLowestPriority),
    ];
    let why =
        "What goes when forwarded messages have no room. Of what is measured again and again the latest is worth most.";
    section.choice("telemetry_policy", &values, Some(1), why).unwrap_or(Policy::DropOldest)
}

/// How keys and values are stored.
pub(super) fn engine_cache(section: &Section<'_>) -> CacheType {
    let values = [("\"f16\"", CacheType::F16), ("\"q8_0\"", CacheType::Q8_0)];
    let why = "How keys and values are stored: q8_0 takes 17 bytes where f16 takes 32, for a little less precision.";
    section.choice("kv_type", &values, Some(0), why).unwrap_or(CacheType::F16)
}

/// Room for prefixes that stay computed, in bytes.
pub(super) fn engine_prefixes(section: &Section<'_>) -> u64 {
    section.number(&PREFIX_MIB, tidegate_engine::protocol::PREFIX_BYTES_DEFAULT / MIB) * MIB
}

/// The engine's memory limit; 0 is none.
pub(super) fn engine_memory(section: &Section<'_>) -> Option<u64> {
    Some(section.number(&ENGINE_MIB, 0) * MIB).filter(|bytes| *bytes > 0)
}
