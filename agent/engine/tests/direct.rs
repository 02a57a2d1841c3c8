//! The whole engine on a small random model, in this process.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, run, system_run};
use tidegate_engine::direct::{Direct, DirectError};
use tidegate_engine::protocol::{FLOOR_STEPS, Fault, Floor, Run, Start, Stop};
use tidegate_engine::tiny::Shape;
use tidegate_schemas::JobId;

fn texts(results: &[Result<tidegate_engine::protocol::Done, Fault>]) -> Vec<&str> {
    results.iter().map(|done| done.as_ref().unwrap().text.reveal()).collect()
}

/// Prompts of different lengths, with three system prompts among them.
fn mixed(count: u64) -> Vec<Run> {
    (0..count)
        .map(|i| {
            let words = "the quick brown fox jumps over it ".repeat(1 + (i as usize * 5) % 7);
            system_run(i, ["intent", "action", ""][i as usize % 3], &format!("{i} {words}"), 24)
        })
        .collect()
}

#[test]
fn runs_side_by_side_say_the_same_as_one_by_one() {
    let model = Model::tiny();
    let mut serial = Direct::load(Start { prefixes: 0, ..model.start() }).unwrap();
    let alone: Vec<_> = mixed(12).into_iter().map(|run| serial.run(run).unwrap()).collect();
    let mut batched = Direct::load(Start { slots: 4, prefixes: 0, ..model.start() }).unwrap();
    let together = batched.run_all(mixed(12)).unwrap();
    assert_eq!(texts(&alone), texts(&together));
    for (a, b) in alone.iter().flatten().zip(together.iter().flatten()) {
        assert_eq!((a.job, a.prompt_tokens, a.completion_tokens), (b.job, b.prompt_tokens, b.completion_tokens));
        // Batches of other sizes round differently; over 24 tokens of this model that came to 0.012 at most.
        let apart = (a.signals.sum_logprob - b.signals.sum_logprob).abs();
        assert!(apart < 0.1, "{apart} apart");
    }
}

#[test]
fn a_kept_prefix_says_the_same_as_a_computed_one() {
    let model = Model::tiny();
    let mut without = Direct::load(Start { prefixes: 0, ..model.start() }).unwrap();
    // Two places for three prefixes: some are found, some are evicted and computed again.
    let mut with = Direct::load(Start { prefixes: 2, slots: 3, ..model.start() }).unwrap();
    let expected = without.run_all(mixed(15)).unwrap();
    for _ in 0..2 {
        assert_eq!(texts(&expected), texts(&with.run_all(mixed(15)).unwrap()));
    }
}

#[test]
fn signals_are_what_they_say() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    let done = engine.run(run(7, "hello", 10)).unwrap().unwrap();
    assert_eq!((done.job, done.completion_tokens, done.stop), (JobId(7), 10, Stop::MaxTokens));
    // <|user|>, h-e-l-l-o as he-l-l-o, <|bot|>.
    assert_eq!(done.prompt_tokens, 6);
    let signals = done.signals;
    assert_eq!(signals.tokens, 10);
    assert!(signals.sum_logprob < 0.0 && signals.min_logprob < 0.0, "{signals:?}");
    assert!((signals.mean_logprob - signals.sum_logprob / 10.0).abs() < 1e-9);
    assert!(signals.min_logprob <= signals.mean_logprob && signals.min_logprob >= signals.sum_logprob);
    assert!((0.0..=1.0).contains(&signals.first_margin), "{signals:?}");
    assert!(signals.first_entropy > 0.0 && signals.first_entropy < 300_f64.ln(), "{signals:?}");
}

#[test]
fn a_prompt_over_the_window_is_refused_with_both_numbers() {
    let model = Model::tiny();
    let mut engine = Direct::load(Start { context_tokens: 32, ..model.start() }).unwrap();
    let fault = engine.run(run(1, &"x".repeat(30), 4)).unwrap().unwrap_err();
    assert_eq!(fault, Fault::TooLong { tokens: 32, context_tokens: 32 });
    // One token shorter there is room for exactly one.
    let done = engine.run(run(2, &"x".repeat(29), 4)).unwrap().unwrap();
    assert_eq!((done.prompt_tokens, done.completion_tokens, done.stop), (31, 2, Stop::MaxTokens));
}

#[test]
fn control_tokens_in_user_text_stay_text() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    let done = engine.run(run(1, "<|end|>", 1)).unwrap().unwrap();
    // As control token it would be three in all: <|user|> <|end|> <|bot|>.
    assert!(done.prompt_tokens > 5, "{} tokens", done.prompt_tokens);
}

#[test]
fn the_window_of_the_model_is_the_limit() {
    let model = Model::tiny();
    let engine = Direct::load(Start { context_tokens: 100_000, ..model.start() }).unwrap();
    assert_eq!((engine.context_tokens(), engine.name()), (512, "tiny"));
    assert_eq!(engine.sha256().len(), 64);
}

#[test]
fn memory_is_weighed_before_loading() {
    let model = Model::tiny();
    let refused = Direct::load(Start { memory_bytes_max: Some(5 << 20), ..model.start() }).unwrap_err();
    let DirectError::Fatal(message) = refused else { panic!("{refused}") };
    assert!(message.contains("MiB of memory (weights 1, keys and values 3, working space "), "{message}");
    assert!(message.contains("limit is 5 MiB; no settings make it fit, as the smallest take "), "{message}");
    let start = Start { slots: 8, memory_bytes_max: Some(22 << 20), ..model.start() };
    let message = Direct::load(start.clone()).unwrap_err().to_string();
    let advised = Start { slots: 1, prefix_bytes_max: 0, context_tokens: 256, ..start };
    assert!(message.contains(" would fit, at "), "{message}");
    Direct::load(advised).unwrap();
    Direct::load(Start { memory_bytes_max: Some(64 << 20), ..model.start() }).unwrap();
}

#[test]
fn a_model_without_template_and_chatml_tokens_is_refused() {
    let model = Model::of(&Shape { template: None, ..Shape::tiny() });
    let message = Direct::load(model.start()).unwrap_err().to_string();
    assert!(message.contains("no tokenizer.chat_template"), "{message}");
}

#[test]
fn settings_out_of_range_are_named() {
    let model = Model::tiny();
    for (start, expect) in [
        (Start { slots: 0, ..model.start() }, "slots is 0, allowed are 1 to 64"),
        (Start { slots: 65, ..model.start() }, "slots is 65, allowed are 1 to 64"),
        (Start { prefixes: 99, ..model.start() }, "prefixes is 99, allowed are 0 to 64"),
        (Start { context_tokens: 1, ..model.start() }, "context_tokens is 1, allowed are 16 to 1048576"),
        (Start { threads: 9_999, ..model.start() }, "threads is 9999, allowed are 0 to 256"),
    ] {
        assert_eq!(Direct::load(start).unwrap_err(), DirectError::Fatal(expect.to_owned()));
    }
}

#[test]
fn the_slow_model_is_slow() {
    let model = Model::of(&Shape::slow());
    let mut engine = Direct::load(model.start()).unwrap();
    let done = engine.run(run(1, "hello", 12)).unwrap().unwrap();
    // Most of the file is a hole.
    assert!(std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(model.path()).unwrap()) * 512 < 8 << 20);
    assert_eq!(done.completion_tokens, 12);
    assert!(done.decode_ms >= 11 * 10, "{} ms", done.decode_ms);
}

#[test]
fn a_run_under_its_floor_ends_early_and_the_log_probabilities_add_up() {
    let model = Model::tiny();
    let mut engine = Direct::load(model.start()).unwrap();
    let whole = engine.run(run(1, "hello", 10)).unwrap().unwrap();
    let sum: f64 = whole.logprobs.iter().map(|lp| f64::from(*lp)).sum();
    assert_eq!(whole.logprobs.len(), 10);
    assert!((sum - whole.signals.sum_logprob).abs() < 1e-3, "{sum} {:?}", whole.signals);
    let first_three: f64 = whole.logprobs[..3].iter().map(|lp| f64::from(*lp)).sum();
    let mut sums = [f64::NEG_INFINITY; FLOOR_STEPS];
    sums[2] = first_three + 1e-3;
    let floor = Some(Floor { sums });
    let fault = engine.run(Run { floor, ..run(2, "hello", 10) }).unwrap().unwrap_err();
    assert_eq!(fault, Fault::Hopeless { tokens: 3 });
    let never = Some(Floor { sums: [f64::NEG_INFINITY; FLOOR_STEPS] });
    assert_eq!(engine.run(Run { floor: never, ..run(3, "hello", 10) }).unwrap().unwrap().text, whole.text);
}
