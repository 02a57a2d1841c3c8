//! `json/*.schema.json` and `tidegate.cddl` say what the code does: checked on the golden payloads and on bad ones.

use crate::{golden::folder, samples};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs, path::PathBuf};
use tidegate_schemas::{cbor, decode_control, decode_prompt};

const NAMES: [(&str, &str); 9] = [
    ("prompt", "prompt"),
    ("control", "control"),
    ("frame", "frames"),
    ("escalation", "escalation"),
    ("resolution", "resolution"),
    ("health", "health"),
    ("card", "card"),
    ("load", "load"),
    ("event", "event"),
];

fn schema(kind: &str) -> Value {
    let (_, name) = NAMES.into_iter().find(|(k, _)| *k == kind).unwrap_or_else(|| panic!("no schema for {kind}"));
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("json").join(format!("{name}.schema.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What a golden payload says, as a JSON value; none for bare text.
fn value(file: &str) -> Option<Value> {
    let bytes = fs::read(folder().join(file)).unwrap();
    match file.rsplit('.').next().unwrap() {
        "cbor" => Some(cbor::from_slice(&bytes, 8192).unwrap()),
        "json" => Some(serde_json::from_slice(&bytes).unwrap()),
        _ => None,
    }
}

#[test]
fn golden_payloads_fit_their_schemas() {
    for (kind, _) in NAMES {
        let validator = jsonschema::validator_for(&schema(kind)).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let mut seen = 0;
        for golden in samples::all().iter().filter(|g| g.kind == kind) {
            let Some(value) = value(&golden.file) else { continue };
            let faults: Vec<String> = validator.iter_errors(&value).map(|e| e.to_string()).collect();
            assert!(faults.is_empty(), "{}: {faults:?}", golden.file);
            seen += 1;
        }
        assert!(seen > 0, "no golden payload of the kind {kind}");
    }
}

#[test]
fn a_required_field_that_is_missing_does_not_fit() {
    for golden in samples::all() {
        let Some(whole) = value(&golden.file) else { continue };
        let schema = schema(golden.kind);
        let validator = jsonschema::validator_for(&schema).unwrap();
        for field in schema["required"].as_array().into_iter().flatten() {
            let mut less = whole.clone();
            less.as_object_mut()
                .unwrap()
                .remove(field.as_str().unwrap())
                .expect("golden payloads have what is required");
            assert!(!validator.is_valid(&less), "{} fits without {field}", golden.file);
        }
    }
}

#[test]
fn what_a_device_may_not_send_fits_neither_schema_nor_decoder() {
    let bad_prompts = [
        json!({}),
        json!({"input": ""}),
        json!({"input": "  "}),
        json!({"input": 7}),
        json!({"input": "x", "messages": [{"role": "user", "content": "x"}]}),
        json!({"messages": []}),
        json!({"messages": [{"role": "robot", "content": "x"}]}),
        json!({"messages": [["user", "x"]]}),
        json!({"input": "x", "deadline_ms": 0}),
        json!({"input": "x", "deadline_ms": 2_592_000_001_u64}),
        json!({"input": "x", "priority": 10}),
        json!({"input": "x", "priority": "high"}),
        json!({"input": "x", "id": "a b"}),
        json!({"input": "x", "id": "x".repeat(65)}),
        json!({"input": "x", "max_tokens": 0}),
        json!({"input": "x", "max_tokens": 32_769}),
        json!({"input": "x", "max_bytes": 0}),
        json!({"input": "x", "v": 2}),
        json!({"input": "x", "stream": 1}),
    ];
    let validator = jsonschema::validator_for(&schema("prompt")).unwrap();
    for message in bad_prompts {
        assert!(!validator.is_valid(&message), "the schema takes {message}");
        assert!(decode_prompt(&serde_json::to_vec(&message).unwrap()).is_err(), "the decoder takes {message}");
    }
    let validator = jsonschema::validator_for(&schema("control")).unwrap();
    for message in [json!({"op": "stop", "id": "a"}), json!({"op": "fetch"}), json!({"op": "fetch", "id": ""})] {
        assert!(!validator.is_valid(&message), "the schema takes {message}");
        assert!(decode_control(&serde_json::to_vec(&message).unwrap()).is_err(), "the decoder takes {message}");
    }
}

fn keys(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| {
            into.insert(key.clone());
            keys(inner, into);
        }),
        Value::Array(list) => list.iter().for_each(|inner| keys(inner, into)),
        _ => (),
    }
}

#[test]
fn the_cddl_has_exactly_the_keys_of_the_golden_payloads() {
    let mut sent = BTreeSet::new();
    samples::all().iter().filter_map(|g| value(&g.file)).for_each(|v| keys(&v, &mut sent));
    // Keys of the example's own answer, which a task's output schema names.
    ["action", "target", "room"].iter().for_each(|own| assert!(sent.remove(*own)));
    let cddl = fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tidegate.cddl")).unwrap();
    let rules = cddl.lines().map(|line| line.split(';').next().unwrap());
    let said: BTreeSet<String> = rules
        .flat_map(|line| line.split([' ', '{', '(']))
        .filter_map(|part| part.strip_suffix(':').map(str::to_owned))
        .collect();
    assert_eq!(said, sent);
}
