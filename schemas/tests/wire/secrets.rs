//! No error repeats text of a payload: it goes to logs and to other devices' screens, the text does not.

use crate::samples;
use serde_json::{Value, json};
use tidegate_schemas::{cbor, decode_control, decode_escalation, decode_prompt, decode_resolution, encode};

const SECRET: &str = "sesame-1234";

/// Messages that hold the secret everywhere that it has no place, as value and as key.
fn messages() -> Vec<Value> {
    let fields = [
        "v",
        "id",
        "task",
        "input",
        "messages",
        "max_tokens",
        "max_bytes",
        "priority",
        "deadline_ms",
        "stream",
        "local",
        "op",
        "job",
        "origin",
        "device",
        "prompt",
        "reason",
        "outcome",
        "confidence",
        "usage",
        "attempt",
    ];
    let wrong = [
        json!(format!("{SECRET} {SECRET}")),
        json!({ SECRET: SECRET }),
        json!([SECRET, [SECRET]]),
        json!([{"role": SECRET, "content": "x"}]),
        json!([{"role": {"user": SECRET}, "content": "x"}]),
        json!([{"role": {SECRET: SECRET}, "content": "x"}]),
        json!([{"role": "user", "content": [{"type": "text", "text": SECRET}]}]),
        json!({"answer": {SECRET: SECRET}, SECRET: 1}),
        json!({"error": {"code": SECRET, "message": [SECRET]}}),
        json!({"error": {"code": "cut", "message": "", SECRET: {SECRET: SECRET}}}),
        json!({"input": {SECRET: [SECRET]}}),
    ];
    let mut all = vec![json!({ SECRET: SECRET }), json!({"op": SECRET, "id": "a b", SECRET: {SECRET: SECRET}})];
    for field in fields {
        all.extend(wrong.iter().map(|value| json!({ "input": "x", field: value })));
    }
    all
}

fn check(what: &str, error: &impl std::fmt::Display) {
    let said = error.to_string();
    assert!(!said.contains("sesame") && !said.contains("1234"), "{what}: {said}");
}

#[test]
fn wrong_shapes_are_refused_without_their_text() {
    let mut refused = 0;
    for message in messages() {
        for payload in [serde_json::to_vec(&message).unwrap(), cbor::to_vec(&message)] {
            let errors = [decode_prompt(&payload).err(), decode_control(&payload).err()];
            refused += errors.iter().flatten().count();
            errors.iter().flatten().for_each(|e| check("device", e));
        }
        let payload = cbor::to_vec(&message);
        check("escalation", &decode_escalation(&payload).unwrap_err());
        check("resolution", &decode_resolution(&payload).unwrap_err());
    }
    assert!(refused > 400, "only {refused} were refused: the table does not bite");
}

#[test]
fn broken_payloads_are_refused_without_their_text() {
    let whole = json!({"input": SECRET, SECRET: {SECRET: [SECRET, {SECRET: SECRET}]}, "task": SECRET, "id": 1});
    for payload in [serde_json::to_vec(&whole).unwrap(), cbor::to_vec(&whole)] {
        for end in 1..payload.len() {
            check("cut", &decode_prompt(&payload[..end]).unwrap_err());
        }
        for at in 1..payload.len() {
            for byte in [0x00, b'"', b'\\', 0x81, 0xa1, 0xff] {
                let mut broken = payload.clone();
                broken[at] = byte;
                decode_prompt(&broken).err().iter().for_each(|e| check("broken", e));
            }
        }
    }
}

#[test]
fn a_broken_resolution_is_refused_without_its_text() {
    let mut message: Value = cbor::from_slice(&encode(&samples::failed_resolution()), 4096).unwrap();
    message["outcome"]["error"][SECRET] = json!({ SECRET: [SECRET] });
    let payload = cbor::to_vec(&message);
    decode_resolution(&payload).expect("unknown fields are ignored");
    for end in 1..payload.len() {
        check("cut", &decode_resolution(&payload[..end]).unwrap_err());
    }
}

#[test]
fn debug_shows_lengths_only() {
    let message = json!({"input": SECRET});
    let (prompt, _) = decode_prompt(&serde_json::to_vec(&message).unwrap()).unwrap();
    check("prompt", &format!("{prompt:?}"));
    assert!(format!("{prompt:?}").contains("<11 bytes>"));
    let body = tidegate_schemas::Body::Json(tidegate_schemas::Json(message));
    check("json", &format!("{body:?}"));
}
