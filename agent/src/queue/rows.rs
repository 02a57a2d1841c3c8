//! Stored records as JSON: one line of a list, one entry whole, one line of an export.

use super::request::Reaches;
use serde_json::{Value, json};
use tidegate_spool::{
    Counts, DeadItem, EscalationRecord, ForwardRecord, OutcomeRecord, PromptRecord, QueueClass, Reach, Room, Stamp,
    Stored,
};

/// Entries of one answer at most: a page for a person, and a bound for the socket.
const PAGE_MAX: u64 = 200;
/// Bytes of stored records of one answer at most.
const PAGE_BYTES_MAX: u64 = 1 << 20;

/// Whether text is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reveal {
    /// Only sizes.
    Sizes,
    /// The text itself.
    Text,
}

impl From<bool> for Reveal {
    fn from(text: bool) -> Self {
        if text { Self::Text } else { Self::Sizes }
    }
}

/// Room of one answer.
pub(crate) fn room(limit: u64) -> Room {
    Room { entries_max: limit.min(PAGE_MAX), bytes_max: PAGE_BYTES_MAX }
}

/// Entries and bytes of all classes.
pub(crate) fn counts(counts: &Counts) -> Value {
    let of = |class: QueueClass| match class {
        QueueClass::Prompts => counts.prompts,
        QueueClass::Escalations => counts.escalations,
        QueueClass::Outcomes => counts.outcomes,
        QueueClass::Telemetry => counts.telemetry,
        QueueClass::Dead => counts.dead,
    };
    let classes = QueueClass::ALL.map(|class| {
        let held = of(class);
        json!({ "class": class, "entries": held.entries, "bytes": held.bytes })
    });
    json!({ "classes": classes, "undelivered_outcomes": counts.pending,
        "dropped": { "full": counts.dropped_full, "expired": counts.dropped_expired + counts.dropped,
            "operator": counts.dropped_operator } })
}

/// One line of a list: everything but the text.
pub(crate) fn row(stored: &Stored) -> Value {
    entry(stored, Reveal::Sizes)
}

/// One entry, with its text if that is wanted.
pub(crate) fn full(stored: &Stored, reveal: Reveal) -> Value {
    entry(stored, reveal)
}

/// One line of an export; none for what may not leave the host.
pub(crate) fn export(stored: &Stored, reaches: &Reaches, reveal: Reveal) -> Option<Value> {
    let reach = match stored {
        Stored::Prompt(record) => reaches.prompt(&record.prompt),
        Stored::Outcome(record) => record.reach,
        Stored::Escalation(record) => reaches.prompt(&record.escalation.prompt),
        Stored::Forward(_) => Reach::Cloud,
        Stored::Dead(letter) => match &letter.item {
            DeadItem::Prompt(record) => reaches.prompt(&record.prompt),
            DeadItem::Escalation(record) => reaches.prompt(&record.escalation.prompt),
            DeadItem::Forward(_) => Reach::Cloud,
        },
    };
    (reach == Reach::Cloud).then(|| entry(stored, reveal))
}

fn entry(stored: &Stored, reveal: Reveal) -> Value {
    let mut value = match stored {
        Stored::Prompt(record) => prompt(record, reveal),
        Stored::Escalation(record) => escalation(record, reveal),
        Stored::Outcome(record) => outcome(record, reveal),
        Stored::Forward(record) => forward(record, reveal),
        Stored::Dead(letter) => {
            let (kind, item) = match &letter.item {
                DeadItem::Prompt(record) => ("prompt", prompt(record, reveal)),
                DeadItem::Escalation(record) => ("escalation", escalation(record, reveal)),
                DeadItem::Forward(record) => ("telemetry", forward(record, reveal)),
            };
            json!({ "device": letter.source, "age_ms": age_ms(&letter.stamp), "kind": kind, "reason": letter.reason,
                "why": letter.reason.to_string(), "item": item })
        }
    };
    value["number"] = json!(stored.number());
    value
}

fn age_ms(stamp: &Stamp) -> u64 {
    stamp.age_ms(&Stamp::now())
}

fn prompt(record: &PromptRecord, reveal: Reveal) -> Value {
    let p = &record.prompt;
    let mut value = json!({ "device": record.device, "age_ms": age_ms(&record.stamp), "bytes": record.bytes,
        "id": p.id, "task": p.task, "priority": p.priority, "deadline_ms": p.deadline_ms, "local": p.local,
        "attempts": record.attempts });
    if reveal == Reveal::Text {
        value["prompt"] = json!(p);
    }
    value
}

fn escalation(record: &EscalationRecord, reveal: Reveal) -> Value {
    let e = &record.escalation;
    let mut value = json!({ "device": e.device, "id": e.prompt.id, "task": e.task.name, "reason": e.reason,
        "confidence": e.confidence, "priority": e.prompt.priority, "draft": e.draft.is_some(),
        "provisional": record.provisional.as_ref().is_some_and(|answer| answer.provisional) });
    if reveal == Reveal::Text {
        value["escalation"] = json!(e);
    }
    value
}

fn outcome(record: &OutcomeRecord, reveal: Reveal) -> Value {
    let mut value = json!({ "device": record.device, "age_ms": age_ms(&record.stamp), "bytes": record.frame.len(),
        "id": record.id, "encoding": record.encoding, "released": record.released,
        "too_large": record.notice.is_some(), "reach": record.reach });
    if reveal == Reveal::Text {
        value["frame"] = bytes(&record.frame);
    }
    value
}

fn forward(record: &ForwardRecord, reveal: Reveal) -> Value {
    let mut value = json!({ "device": record.source, "age_ms": age_ms(&record.stamp), "bytes": record.payload.len(),
        "rule": record.rule, "topic": record.topic, "priority": record.priority, "ttl_ms": record.ttl_ms });
    if reveal == Reveal::Text {
        value["payload"] = bytes(&record.payload);
    }
    value
}

/// JSON as it is, text as text, anything else in hexadecimal digits.
fn bytes(bytes: &[u8]) -> Value {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return value;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}
