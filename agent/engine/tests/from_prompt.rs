//! Strings that a schema takes from the prompt, from a model that knows nothing and from the shipped one.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, run, system_run};
use serde_json::{Value, json};
use std::path::Path;
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{Fault, Run, Start};

fn names() -> String {
    let name = json!({ "anyOf": [{ "enum": ["all"] }, { "type": "string", "x-from-prompt": true }] });
    json!({
        "type": "object",
        "properties": { "what": name, "where": name },
        "required": ["what", "where"],
        "additionalProperties": false
    })
    .to_string()
}

fn answers(start: Start, prompts: &[String], as_run: impl Fn(u64, &str) -> Run) -> Vec<Value> {
    let runs = prompts.iter().enumerate().map(|(i, prompt)| as_run(i as u64, prompt)).collect();
    let done = Direct::load(start).unwrap().run_all(runs).unwrap();
    done.iter().map(|done| serde_json::from_str(done.as_ref().unwrap().text.reveal()).unwrap()).collect()
}

/// Whether a value is some of the prompt's words, whole; a sign is a word.
fn stands_in(prompt: &str, value: &str) -> bool {
    let (prompt, value) = (prompt.to_lowercase(), value.to_lowercase());
    let letter = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    !value.is_empty()
        && prompt.match_indices(&value).any(|(at, _)| {
            let cut_before = letter(prompt[..at].chars().next_back()) && letter(value.chars().next());
            let cut_after = letter(value.chars().next_back()) && letter(prompt[at + value.len()..].chars().next());
            !cut_before && !cut_after
        })
}

#[test]
fn a_random_model_can_only_copy_whole_words() {
    let model = Model::tiny();
    let prompts: Vec<String> =
        (0..24).map(|i| format!("Shut the Blarnwick valve {i} in Zoe's stillage, schließe es")).collect();
    let start = Start { slots: 4, ..model.start() };
    let got = answers(start, &prompts, |i, prompt| Run { schema: Some(names()), ..run(i, prompt, 96) });
    for (prompt, answer) in prompts.iter().zip(&got) {
        for key in ["what", "where"] {
            let value = answer[key].as_str().unwrap();
            assert!(value == "all" || stands_in(prompt, value), "{value} does not stand in {prompt}");
        }
    }
}

#[test]
fn the_shipped_model_spells_names_that_it_never_saw() {
    let names = ["thrombulator", "xanquist bay", "mississippi brewhouse", "oquebrane", "frellwick annexe"];
    let prompts: Vec<String> = names.iter().map(|name| format!("turn off the lights in the {name}")).collect();
    let schema = json!({
        "type": "object",
        "properties": { "intent": { "type": "string" } },
        "required": ["intent"],
        "additionalProperties": { "type": "string", "x-from-prompt": true }
    });
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tide-edge.gguf");
    let start = Start { threads: 1, ..Start::new(&path) };
    let got = answers(start, &prompts, |i, prompt| Run {
        schema: Some(schema.to_string()),
        ..system_run(i, "action", prompt, 64)
    });
    for (prompt, answer) in prompts.iter().zip(&got) {
        let slots: Vec<_> = answer.as_object().unwrap().iter().filter(|(key, _)| *key != "intent").collect();
        assert!(!slots.is_empty(), "{answer}");
        assert!(slots.iter().all(|(_, value)| stands_in(prompt, value.as_str().unwrap())), "{answer} for {prompt}");
    }
}

#[test]
fn a_prompt_with_more_words_than_the_limit_is_refused_before_any_work() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    let refused = engine.run(Run { schema: Some(names()), ..run(1, &"go ".repeat(161), 16) }).unwrap();
    match refused {
        Err(Fault::Schema(reason)) => {
            assert_eq!(reason, "prompt has 161 words and signs, a schema with x-from-prompt takes 160");
        }
        other => panic!("{:?}", other.map(|_| "an answer")),
    }
    assert!(engine.run(Run { schema: Some(names()), ..run(2, "open the gate", 64) }).unwrap().is_ok());
}
