//! Forwarded messages: the user's own telemetry on its way to the central broker, on disk before its PUBACK.

use crate::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use tidegate_schemas::{DeviceId, Priority};

/// The number of a forwarded message: grows with every one, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ForwardId(pub u64);

impl fmt::Display for ForwardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What MQTT 5 says beside the payload and passes through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForwardProperties {
    /// Content Type.
    pub content_type: Option<String>,
    /// Payload Format Indicator: 1 is UTF-8.
    pub payload_format: Option<u8>,
    /// Response Topic.
    pub response_topic: Option<String>,
    /// Correlation Data.
    #[serde(with = "serde_bytes")]
    pub correlation: Option<Vec<u8>>,
    /// User properties, in order.
    pub user: Vec<(String, String)>,
}

/// A message that a forward rule took. It is published at QoS 1 and leaves the disk by the success PUBACK of exactly
/// that publish, by its time to live, by its class's policy when room is short, or as a dead letter.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRecord {
    /// Its number. The store gives it, in the order of keeping, whatever stands here before.
    pub entry: ForwardId,
    /// Who published it: what the bounds per device count by.
    pub source: DeviceId,
    /// The name of the rule that took it.
    pub rule: String,
    /// The topic on the central broker.
    pub topic: String,
    /// The payload as it came.
    #[serde(with = "serde_bytes")]
    pub payload: Vec<u8>,
    /// Whether it is published retained.
    #[serde(default)]
    pub retain: bool,
    /// 9 goes first; when room is short 0 is dropped first.
    pub priority: Priority,
    /// How long it is worth sending, in milliseconds from `stamp`; none is for ever.
    pub ttl_ms: Option<u64>,
    /// When it came.
    pub stamp: Stamp,
    /// What passes through beside the payload.
    #[serde(default)]
    pub properties: ForwardProperties,
}

/// Payloads are the user's: only their length is shown.
impl fmt::Debug for ForwardRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardRecord")
            .field("entry", &self.entry)
            .field("source", &self.source)
            .field("rule", &self.rule)
            .field("topic", &self.topic)
            .field("payload_bytes", &self.payload.len())
            .field("priority", &self.priority)
            .field("ttl_ms", &self.ttl_ms)
            .finish_non_exhaustive()
    }
}

/// A forwarded message that was taken out to be sent. It stays on disk; nobody else gets it until it is given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueForward {
    /// What is published.
    pub record: ForwardRecord,
    /// How often it was taken out, this time included; counted since the start of the gateway.
    pub attempt: u32,
    /// It may have been published before: it was taken out before, or an earlier run of the gateway had it.
    pub replayed: bool,
    /// How long it has waited, in milliseconds, as far as the time is known.
    pub queued_ms: u64,
    /// What is left of its time to live, in milliseconds.
    pub expires_in_ms: Option<u64>,
}

/// How much is wanted at once, and how much a class or a device may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Entries.
    pub entries_max: u64,
    /// Their bytes as stored.
    pub bytes_max: u64,
}
