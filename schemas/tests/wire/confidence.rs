//! A confidence on the wire is a number of 0 to 1 with 4 decimals, or absent.

use crate::samples;
use serde_json::json;
use tidegate_schemas::{Answer, Frame, Resolution, cbor, decode_resolution};

fn sent(confidence: f64) -> Option<f64> {
    let answer = Answer { confidence: Some(confidence), ..samples::answer() };
    let json = serde_json::to_value(&answer).unwrap();
    let in_cbor: serde_json::Value = cbor::from_slice(&cbor::to_vec(&Frame::Answer(answer)), 4096).unwrap();
    assert_eq!(json.get("confidence"), in_cbor.get("confidence"));
    json.get("confidence").map(|c| c.as_f64().unwrap())
}

#[test]
fn it_is_rounded_and_bounded_when_it_is_sent() {
    let table = [
        (0.0, Some(0.0)),
        (1.0, Some(1.0)),
        (0.871_249_999, Some(0.8712)),
        (0.871_25, Some(0.8713)),
        (0.000_049, Some(0.0)),
        (0.1 + 0.2, Some(0.3)),
        (-0.5, Some(0.0)),
        (1.000_01, Some(1.0)),
        (f64::NAN, None),
        (f64::INFINITY, None),
        (f64::NEG_INFINITY, None),
    ];
    for (value, expected) in table {
        assert_eq!(sent(value), expected, "{value}");
    }
}

#[test]
fn a_workers_is_checked_when_it_comes() {
    let with = |confidence: serde_json::Value| {
        let mut message: serde_json::Value =
            cbor::from_slice(&tidegate_schemas::encode(&samples::resolution()), 4096).unwrap();
        message["confidence"] = confidence;
        decode_resolution(&cbor::to_vec(&message))
    };
    let read = |r: Result<Resolution, _>| r.unwrap().confidence;
    assert_eq!(read(with(json!(0.25))), Some(0.25));
    assert_eq!(read(with(json!(1))), Some(1.0));
    assert_eq!(read(with(json!(null))), None);
    assert_eq!(with(json!(1.5)).unwrap_err().to_string(), "confidence is 1.5, allowed are 0 to 1");
    assert_eq!(with(json!(-1)).unwrap_err().to_string(), "confidence is -1, allowed are 0 to 1");
    assert_eq!(with(json!("high")).unwrap_err().to_string(), "confidence is a string, needed is a number");
}

#[test]
fn not_a_number_counts_as_absent() {
    let mut payload = tidegate_schemas::encode(&Resolution { confidence: Some(0.5), ..samples::resolution() });
    let half = payload.windows(3).position(|w| w == [0xf9, 0x38, 0x00]).expect("0.5 is a half float in CBOR");
    payload[half..half + 3].copy_from_slice(&[0xf9, 0x7e, 0x00]);
    assert_eq!(decode_resolution(&payload).unwrap().confidence, None);
}
