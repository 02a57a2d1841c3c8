//! Answers about queues as a person reads them.

use serde_json::Value;
use std::fmt::Write as _;

/// A value in one word.
fn word(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => "-".to_owned(),
        Some(other) => other.to_string(),
    }
}

/// All classes.
pub(super) fn counts(answer: &Value) -> String {
    let mut text = format!("{:<12} {:>8} {:>12}\n", "class", "entries", "bytes");
    for class in answer.get("classes").and_then(Value::as_array).into_iter().flatten() {
        let get = |key: &str| word(class.get(key));
        let _ = writeln!(text, "{:<12} {:>8} {:>12}", get("class"), get("entries"), get("bytes"));
    }
    let dropped = |why: &str| word(answer.pointer(&format!("/dropped/{why}")));
    let _ = writeln!(
        text,
        "{} outcomes wait for their devices; dropped since the start: {} full, {} expired, {} by operators",
        word(answer.get("undelivered_outcomes")),
        dropped("full"),
        dropped("expired"),
        dropped("operator")
    );
    text
}

/// One class, a line per entry.
pub(super) fn list(answer: &Value) -> String {
    let entries: Vec<&Value> = answer.get("entries").and_then(Value::as_array).into_iter().flatten().collect();
    if entries.is_empty() {
        return format!("nothing in {}\n", word(answer.get("class")));
    }
    let mut text = String::new();
    for entry in &entries {
        let get = |key: &str| word(entry.get(key));
        let rest: Vec<String> =
            entry.as_object().into_iter().flatten().filter_map(|(key, value)| short(key, value)).collect();
        let _ = writeln!(text, "{:>8}  {:<20} {}", get("number"), get("device"), rest.join(" "));
    }
    if let Some(last) = answer.get("next").and_then(Value::as_u64) {
        let _ = writeln!(text, "{} entries; the next ones with --after {last}", entries.len());
    }
    text
}

/// A key and its value, where it says something.
fn short(key: &str, value: &Value) -> Option<String> {
    match (key, value) {
        ("number" | "device" | "item", _) | (_, Value::Null | Value::Object(_) | Value::Array(_)) => None,
        ("why", Value::String(why)) => Some(format!("({why})")),
        (key, value) => Some(format!("{key}={}", word(Some(value)))),
    }
}

/// One entry, a line per key.
pub(super) fn entry(answer: &Value) -> String {
    let mut text = String::new();
    for (key, value) in answer.as_object().into_iter().flatten() {
        let _ = writeln!(text, "{key:<12} {}", word(Some(value)));
    }
    text
}

/// What an order did.
pub(super) fn done(answer: &Value) -> String {
    let said = |(what, number): (&String, &Value)| format!("{what} {}\n", word(Some(number)));
    answer.as_object().into_iter().flatten().map(said).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_person_reads_what_is_there_and_why() {
        let text = list(&json!({ "class": "dead", "next": 7, "entries": [{ "number": 7, "device": "d1",
            "why": "crashed the engine, 2 runs", "item": { "bytes": 9 }, "age_ms": 12, "id": null }] }));
        for expect in ["7  d1", "(crashed the engine, 2 runs)", "age_ms=12", "--after 7"] {
            assert!(text.contains(expect), "{text} lacks {expect}");
        }
        assert!(!text.contains("id="), "{text}");
        assert_eq!(list(&json!({ "class": "telemetry", "entries": [] })), "nothing in telemetry\n");
        assert_eq!(done(&json!({ "dropped": 4 })), "dropped 4\n");
    }
}
