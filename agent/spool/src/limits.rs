//! The bounds of the store.

use crate::class::Policy;
use crate::forward::Room;

/// Bounds of the store. The defaults fit a gateway with 1 GiB of memory and a few GiB of flash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Prompts without an outcome.
    pub inbox_entries_max: u64,
    /// Their bytes as stored.
    pub inbox_bytes_max: u64,
    /// The same of one device.
    pub inbox_device: Room,
    /// Escalations.
    pub outbox_entries_max: u64,
    /// Their bytes as stored.
    pub outbox_bytes_max: u64,
    /// The same of one device.
    pub outbox_device: Room,
    /// Outcomes, released or not, and the room that open prompts hold.
    pub outcomes_entries_max: u64,
    /// Their bytes as stored, and the room that open prompts hold.
    pub outcomes_bytes_max: u64,
    /// The same of one device.
    pub outcomes_device: Room,
    /// Forwarded messages.
    pub telemetry: Room,
    /// The same of one device.
    pub telemetry_device: Room,
    /// What a new forwarded message does where there is no room.
    pub telemetry_policy: Policy,
    /// Dead letters.
    pub dead: Room,
    /// The same of one device.
    pub dead_device: Room,
    /// What a new dead letter does where there is no room.
    pub dead_policy: Policy,
    /// Changes that share one sync.
    pub group_commit_max: usize,
    /// Milliseconds from one sync to the next on average while many ask at once, and what a release or a removal, which
    /// nobody waits for, waits for company. A few devices that ask one after the other never wait.
    pub sync_every_ms: u64,
    /// Keys of which the journal knows more than the table of places: with so many the table takes them in.
    pub behind_max: usize,
    /// Changes that wait for the storage thread. Forwarded messages take at most half of these places.
    pub queue_max: usize,
    /// How long a released outcome can be asked for again, in milliseconds.
    pub seen_keep_ms: u64,
    /// How long an outcome waits for a session of its device, in milliseconds.
    pub answer_keep_ms: u64,
    /// How long a dead letter is kept, in milliseconds.
    pub dead_keep_ms: u64,
    /// Free bytes of the file system under which no prompt and no escalation is kept. Forwarded messages are kept only
    /// above twice as much, so that they never take the room of prompts.
    pub free_bytes_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A night of a busy site; a start with as many must take under 1.5 s.
            inbox_entries_max: 10_000,
            // 10,000 prompts of 6 KiB, or 1,000 of the largest.
            inbox_bytes_max: 64 << 20,
            // The dispatcher bounds a device tighter; a single device may fill a store that is used alone.
            inbox_device: Room { entries_max: 10_000, bytes_max: 64 << 20 },
            // An outage of a day at one escalation every ten seconds.
            outbox_entries_max: 10_000,
            // As many escalations of 12 KiB.
            outbox_bytes_max: 128 << 20,
            // One device that is always unsure leaves half of it to the others.
            outbox_device: Room { entries_max: 5_000, bytes_max: 64 << 20 },
            // A day of 50,000 prompts, beside the room that 10,000 open ones hold.
            outcomes_entries_max: 60_000,
            // Room for 10,000 open prompts at the largest frame (640 MiB), and 384 MiB of outcomes.
            outcomes_bytes_max: 1 << 30,
            // A device that never fetches its answers leaves a third to the others; 10,000 open prompts fit.
            outcomes_device: Room { entries_max: 40_000, bytes_max: 700 << 20 },
            // An outage of a day at a message per second; about 10 MB of memory.
            telemetry: Room { entries_max: 100_000, bytes_max: 256 << 20 },
            // A device that chatters leaves half to the others.
            telemetry_device: Room { entries_max: 50_000, bytes_max: 128 << 20 },
            // Of what is measured again and again the latest is worth most.
            telemetry_policy: Policy::DropOldest,
            // Rare by nature; more than somebody would look through.
            dead: Room { entries_max: 1_000, bytes_max: 32 << 20 },
            // One device whose every prompt is poison leaves most places to the others.
            dead_device: Room { entries_max: 250, bytes_max: 8 << 20 },
            // The latest failure says most about what is wrong now.
            dead_policy: Policy::DropOldest,
            // At this size the sync is a small part of the cost, and a group stays under 1 MiB.
            group_commit_max: 128,
            // Each sync writes a page that is not full, and the file system's journal with it: at 1,000 prompts a second
            // as much as they are themselves, where a fast disk that syncs as it likes would write several times that. An
            // answer takes longer by far.
            sync_every_ms: 16,
            // A leaf of the table is written anew for so many changes; milliseconds of an opening, less than a segment of
            // sled with what it writes anew for them. sled keeps every version of a leaf until its batch ends: with
            // four times as many the process stays 2 MB larger.
            behind_max: 512,
            // 200 devices with 20 prompts each on their way to the disk, twice. A device that keeps to its window waits for
            // the disk and is not refused; whoever reads from it bounds the bytes.
            queue_max: 8 * 1024,
            // Promise 3: 24 hours.
            seen_keep_ms: 24 * 3600 * 1000,
            // Promise 2: 7 days.
            answer_keep_ms: 7 * 24 * 3600 * 1000,
            // As long as answers: who comes back from a holiday finds what failed.
            dead_keep_ms: 7 * 24 * 3600 * 1000,
            // The rest of the system needs room as well, and outcomes of what was accepted follow.
            free_bytes_min: 64 << 20,
        }
    }
}
