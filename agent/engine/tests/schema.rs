//! JSON that cannot be wrong, from a model that knows nothing.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, run};
use serde_json::{Value, json};
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{Fault, Run, Start, Stop};

fn with(schema: &Value, run: Run) -> Run {
    Run { schema: Some(schema.to_string()), ..run }
}

fn device_action() -> Value {
    json!({
        "type": "object",
        "properties": {
            "intent": { "enum": ["turn_on", "turn_off", "dim", "état"] },
            "room": { "type": "string", "maxLength": 12 },
            "level": { "type": "integer", "minimum": 0, "maximum": 100 },
            "confirmed": { "type": "boolean" },
            "tags": { "type": "array", "items": { "enum": ["a", "b"] }, "maxItems": 3 }
        },
        "required": ["intent", "room", "level", "confirmed", "tags"],
        "additionalProperties": false
    })
}

#[test]
fn every_answer_of_a_random_model_satisfies_its_schema() {
    let model = Model::tiny();
    let mut engine = Direct::load(Start { slots: 4, ..model.start() }).unwrap();
    let schema = device_action();
    let runs = (0..40).map(|i| with(&schema, run(i, &format!("case {i}, please"), 200))).collect();
    for done in engine.run_all(runs).unwrap() {
        let done = done.unwrap();
        let answer: Value = serde_json::from_str(done.text.reveal()).unwrap();
        assert!(["turn_on", "turn_off", "dim", "état"].contains(&answer["intent"].as_str().unwrap()));
        assert!(answer["room"].as_str().unwrap().chars().count() <= 12);
        assert!(answer["level"].as_u64().unwrap() <= 100);
        assert!(answer["confirmed"].is_boolean());
        assert!(answer["tags"].as_array().unwrap().iter().all(|tag| tag == "a" || tag == "b"));
        assert_eq!((answer.as_object().unwrap().len(), done.stop), (5, Stop::End));
        // Where the schema leaves no choice, the token says nothing about confidence.
        assert!(done.signals.tokens < done.completion_tokens, "{:?}", done.signals);
    }
}

#[test]
fn an_answer_that_comes_to_its_limit_is_ended_validly() {
    let model = Model::tiny();
    let mut engine = Direct::load(Start { slots: 4, ..model.start() }).unwrap();
    let validator = jsonschema::validator_for(&device_action()).unwrap();
    let mut ended_early = 0;
    for max_tokens in [76, 84, 90, 96, 110] {
        let runs = (0..8).map(|i| with(&device_action(), run(i, &format!("case {i}"), max_tokens))).collect();
        for done in engine.run_all(runs).unwrap() {
            let done = done.unwrap_or_else(|fault| panic!("{fault:?} at {max_tokens}"));
            assert!(done.completion_tokens <= max_tokens, "{} of {max_tokens}", done.completion_tokens);
            let answer: Value = serde_json::from_str(done.text.reveal()).unwrap();
            assert!(validator.is_valid(&answer), "{answer}");
            ended_early += u32::from(done.stop == Stop::MaxTokens);
        }
    }
    assert!(ended_early > 0, "no answer came near its limit");
}

#[test]
fn an_answer_without_valid_ending_is_cut() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    // Five keys do not fit into eight tokens.
    let fault = engine.run(with(&device_action(), run(1, "go", 8))).unwrap().unwrap_err();
    assert_eq!(fault, Fault::Cut);
    // The same prompt without a schema is an answer that reached its limit.
    assert_eq!(engine.run(run(2, "go", 8)).unwrap().unwrap().stop, Stop::MaxTokens);
}

#[test]
fn schemas_that_cannot_be_used_are_refused_with_the_reason() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    for (schema, expect) in [
        ("{ not json", "schema is not JSON"),
        ("[]", "schema is neither an object nor a boolean"),
        ("false", "nsatisfiable"),
        (r#"{"type": "colour"}"#, "colour"),
        (
            r#"{"type": "object", "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}}, "required": ["a"]}"#,
            "",
        ),
        (r#"{"$ref": "https://example.org/schema.json"}"#, ""),
        (r#"{"type": "string", "pattern": "^(a+)+("}"#, ""),
        (&format!(r#"{{"type": "string", "description": "{}"}}"#, "x".repeat(17_000)), "limit is 16384"),
    ] {
        let run = Run { schema: Some(schema.to_owned()), ..run(1, "go", 50) };
        match engine.run(run).unwrap() {
            Err(Fault::Schema(reason)) => {
                assert!(reason.contains(expect), "{reason}");
                assert!(!reason.is_empty() && reason.len() <= 400 && !reason.contains('\n'), "{reason}");
            }
            other => panic!("{}: {other:?}", &schema[..schema.len().min(80)]),
        }
    }
    // The engine goes on.
    assert!(engine.run(run(2, "go", 2)).unwrap().is_ok());
}

#[test]
fn an_exponential_schema_ends_soon() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    let deep = r#"{"type": "string", "pattern": "^((((a|b|c){1,40}){1,40}){1,40}x){1,40}$"}"#;
    let began = std::time::Instant::now();
    let result = engine.run(Run { schema: Some(deep.to_owned()), ..run(1, "go", 30) }).unwrap();
    assert!(matches!(result, Ok(_) | Err(Fault::Schema(_) | Fault::Cut)), "{result:?}");
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
}
