//! Batched, prefix-shared, fast-forwarded and guessed runs say what the plain one says.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, run, system_run};
use std::path::{Path, PathBuf};
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{CacheType, Done, Fault, Forced, Guesses, Run, Start};

const ACTION: &str = r#"{"type":"object","properties":{"intent":{"type":"string"}},"required":["intent"],"patternProperties":{"^(name|area|floor|item|search_query|message|conversation_command|color)$":{"anyOf":[{"enum":["all"]},{"type":"string","x-from-prompt":true}]}},"additionalProperties":{"type":["string","number"]}}"#;
/// Keys and signs of this one are forced: the model has only values to choose.
const FIXED: &str = r#"{"type":"object","properties":{"where":{"type":"string","maxLength":20},"state":{"enum":["on","off"]},"level":{"type":"integer","minimum":0,"maximum":100}},"required":["where","state","level"],"additionalProperties":false}"#;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(name)
}

fn plain(path: &Path) -> Start {
    Start { threads: 1, prefixes: 0, forced: Forced::OneByOne, guesses: Guesses::Never, ..Start::new(path) }
}

/// Commands whose values are words of the sentence, under a schema that forces nothing and one that forces most.
fn commands() -> Vec<Run> {
    let sentences = [
        "turn off the lights in the packing hall",
        "dim the desk lamp to 40 percent",
        "set the thermostat in the drying chamber to 21 degrees",
        "open the north gate",
        "is the compressor in bay seven running",
        "lock the cold store door",
        "start a timer for 25 minutes",
        "add copper gaskets to the spare parts list",
    ];
    let schemas = [Some(ACTION), Some(FIXED), None];
    let cases = schemas.iter().flat_map(|schema| sentences.iter().map(move |sentence| (schema, sentence)));
    cases
        .enumerate()
        .map(|(i, (schema, sentence))| Run {
            schema: schema.map(str::to_owned),
            ..system_run(i as u64, if schema.is_none() { "intent" } else { "action" }, sentence, 64)
        })
        .collect()
}

/// The lead, in nats, that a token had at most where two ways parted: sums over other batch sizes round differently.
const LEAD_MAX: f64 = 0.1;

/// The same texts, or a choice so close that rounding decided it.
fn assert_same(expected: &[Result<Done, Fault>], got: &[Result<Done, Fault>], what: &str) {
    let mut parted = 0;
    for (expected, got) in expected.iter().zip(got) {
        let (expected, got) = (expected.as_ref().unwrap(), got.as_ref().unwrap());
        if expected.text.reveal() != got.text.reveal() {
            let lead = expected.signals.least_lead;
            assert!(
                lead < LEAD_MAX,
                "{what}: parted at a lead of {lead}:\n{}\n{}",
                expected.text.reveal(),
                got.text.reveal()
            );
            parted += 1;
        }
    }
    assert!(parted * 10 <= expected.len(), "{what}: {parted} of {} parted", expected.len());
}

fn texts(results: &[Result<Done, Fault>]) -> Vec<&str> {
    results.iter().map(|done| done.as_ref().unwrap().text.reveal()).collect()
}

fn answers(start: Start, runs: Vec<Run>) -> Vec<Result<Done, Fault>> {
    Direct::load(start).unwrap().run_all(runs).unwrap()
}

#[test]
fn every_way_says_the_same_on_the_shipped_models() {
    for name in ["tide-edge.gguf", "tide-cloud.gguf"] {
        let base = plain(&shipped(name));
        let expected = answers(base.clone(), commands());
        for (what, start) in [
            ("fast-forward", Start { forced: Forced::AtOnce, ..base.clone() }),
            ("guesses", Start { guesses: Guesses::Always, ..base.clone() }),
            ("batches", Start { slots: 4, ..base.clone() }),
            ("prefixes", Start { prefixes: 4, ..base.clone() }),
            ("templates", pinned(&base, None)),
            (
                "all of it",
                Start { slots: 4, prefixes: 4, forced: Forced::AtOnce, guesses: Guesses::Always, ..base.clone() },
            ),
        ] {
            assert_same(&expected, &answers(start, commands()), &format!("{name}, {what}"));
        }
    }
}

/// With the templates of [`commands`] computed ahead.
fn pinned(base: &Start, dir: Option<&Path>) -> Start {
    let pinned = vec!["intent".into(), "action".into()];
    Start { prefixes: 4, pinned, prefix_dir: dir.map(Path::to_owned), ..base.clone() }
}

#[test]
fn templates_from_the_disk_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for (name, cache) in [("tide-edge.gguf", CacheType::F16), ("tide-edge.gguf", CacheType::Q8_0)] {
        let base = Start { cache, ..plain(&shipped(name)) };
        let expected = answers(base.clone(), commands());
        for what in ["computed", "loaded"] {
            assert_same(
                &expected,
                &answers(pinned(&base, Some(dir.path())), commands()),
                &format!("{cache:?}, {what}"),
            );
        }
    }
}

#[test]
fn forced_text_costs_no_choice_and_says_nothing_of_confidence() {
    let runs = || commands().into_iter().filter(|run| run.schema.as_deref() == Some(FIXED)).collect::<Vec<_>>();
    let base = plain(&shipped("tide-edge.gguf"));
    let slow = answers(base.clone(), runs());
    let fast = answers(Start { forced: Forced::AtOnce, ..base }, runs());
    for (slow, fast) in slow.iter().flatten().zip(fast.iter().flatten()) {
        assert_eq!(slow.text.reveal(), fast.text.reveal());
        // What was free is free in both; what was forced is counted in neither.
        assert!(fast.signals.tokens < fast.completion_tokens, "{:?}", fast.signals);
        serde_json::from_str::<serde_json::Value>(fast.text.reveal()).unwrap();
    }
}

#[test]
fn guesses_on_a_model_that_repeats_itself_change_nothing() {
    let model = Model::tiny();
    let runs = || (0..12).map(|i| run(i, &format!("again and again and again {i}"), 60)).collect::<Vec<_>>();
    let expected = answers(plain(&model.path()), runs());
    for guesses in [Guesses::Always, Guesses::WherePaid] {
        let guessed = answers(Start { guesses, slots: 3, ..plain(&model.path()) }, runs());
        assert_eq!(texts(&expected), texts(&guessed), "{guesses:?}");
    }
}

#[test]
fn a_smaller_cache_still_answers() {
    let start = Start { cache: CacheType::Q8_0, ..plain(&shipped("tide-edge.gguf")) };
    let (small, whole) = (answers(start, commands()), answers(plain(&shipped("tide-edge.gguf")), commands()));
    let same = texts(&small).iter().zip(texts(&whole)).filter(|(a, b)| **a == *b).count();
    assert!(same * 4 >= small.len() * 3, "{same} of {}", small.len());
}
