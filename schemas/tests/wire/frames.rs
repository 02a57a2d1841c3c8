//! Frames: the same after a round trip in either encoding, and what a bare-text device gets of them.

use crate::samples;
use serde_json::{Value, json};
use tidegate_schemas::{Answer, Body, Encoding, ErrorCode, Frame, Json, Reason, cbor};

#[test]
fn frames_come_back_as_they_were_sent() {
    for (name, frame) in samples::frames() {
        let json = Encoding::Json.frame(&frame).unwrap();
        assert_eq!(serde_json::from_slice::<Frame>(&json).unwrap(), frame, "{name}");
        let in_cbor = Encoding::Cbor.frame(&frame).unwrap();
        assert_eq!(cbor::from_slice::<Frame>(&in_cbor, 4096).unwrap(), frame, "{name}");
        assert_eq!(cbor::from_slice::<Value>(&in_cbor, 4096).unwrap(), serde_json::from_slice::<Value>(&json).unwrap());
    }
}

#[test]
fn each_frame_carries_its_kind_first() {
    for (name, frame) in samples::frames() {
        let json: Value = serde_json::from_slice(&Encoding::Json.frame(&frame).unwrap()).unwrap();
        let (key, kind) = json.as_object().unwrap().iter().next().unwrap();
        assert_eq!((key.as_str(), kind.as_str().unwrap()), ("kind", name.split('-').next().unwrap()));
        assert_eq!(frame.id().map(|id| id.as_str()), Some("b3f1-7"), "{name}");
        assert_eq!(frame.is_outcome(), matches!(name, "answer-text" | "answer-json" | "error"), "{name}");
    }
}

#[test]
fn a_bare_text_device_gets_the_outcome_and_nothing_else() {
    for (name, frame) in samples::frames() {
        let line = Encoding::Text.frame(&frame).map(|bytes| String::from_utf8(bytes).unwrap());
        let expected = match name {
            "answer-text" => Some("The lights in the packing hall are off."),
            "answer-json" => Some(r#"{"action":"off","target":"lights","room":"packing hall"}"#),
            "error" => Some("!busy: inbox has 512 of 512 entries"),
            _ => None,
        };
        assert_eq!(line.as_deref(), expected, "{name}");
    }
}

#[test]
fn json_answers_keep_every_kind_of_value() {
    let value = json!({"i": -3, "u": u64::MAX, "f": 0.25, "n": null, "a": [true, {"z": 1, "b": 2}], "s": "\"\\\n"});
    let frame = Frame::Answer(Answer { body: Body::Json(Json(value)), ..samples::answer() });
    let in_cbor = Encoding::Cbor.frame(&frame).unwrap();
    assert_eq!(cbor::from_slice::<Frame>(&in_cbor, 4096).unwrap(), frame);
    let json = Encoding::Json.frame(&frame).unwrap();
    assert_eq!(serde_json::from_slice::<Frame>(&json).unwrap(), frame);
}

#[test]
fn words_are_the_same_in_code_and_on_the_wire() {
    let codes = [
        (ErrorCode::Invalid, "invalid", 0x99),
        (ErrorCode::TooLarge, "too_large", 0x97),
        (ErrorCode::UnknownTask, "unknown_task", 0x83),
        (ErrorCode::NotAllowed, "not_allowed", 0x87),
        (ErrorCode::Busy, "busy", 0x97),
        (ErrorCode::IdReused, "id_reused", 0x83),
        (ErrorCode::Expired, "expired", 0x83),
        (ErrorCode::Cancelled, "cancelled", 0x83),
        (ErrorCode::Cut, "cut", 0x83),
        (ErrorCode::Dead, "dead", 0x83),
        (ErrorCode::Unresolved, "unresolved", 0x83),
        (ErrorCode::UnknownId, "unknown_id", 0x83),
    ];
    for (code, word, reason) in codes {
        assert_eq!((code.as_str(), code.to_string().as_str(), code.puback_reason()), (word, word, reason));
        assert_eq!(serde_json::to_value(code).unwrap(), json!(word));
    }
    let reasons = "confident low_confidence too_slow no_capacity too_long engine_failed no_valid_ending local_only \
                   no_cloud link_down cloud_silent outbox_full cloud_answered cloud_less_sure \
                   too_dear strained other";
    for word in reasons.split(' ') {
        let reason: Reason = serde_json::from_value(json!(word)).unwrap();
        assert_eq!((reason.as_str(), serde_json::to_value(reason).unwrap()), (word, json!(word)));
    }
    assert_eq!(serde_json::from_value::<Reason>(json!("moon_phase")).unwrap(), Reason::Other);
}
