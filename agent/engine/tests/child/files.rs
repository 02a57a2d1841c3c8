//! Files that are no models, or say absurd things: one sentence, and an end.

use crate::common::{Model, run};
use crate::engine::Engine;
use tidegate_engine::protocol::{FromEngine, Start, ToEngine, write_frame};

#[test]
fn a_file_that_is_no_model_is_told_in_one_sentence() {
    let model = Model::tiny();
    let whole = std::fs::read(model.path()).unwrap();
    let cut = model.path().with_file_name("cut.gguf");
    std::fs::write(&cut, &whole[..whole.len() - 1_000]).unwrap();
    let other = model.path().with_file_name("other.gguf");
    std::fs::write(&other, b"#!/bin/sh\n").unwrap();
    let missing = model.path().with_file_name("missing.gguf");
    for (path, expect) in [(cut, "it is truncated: tensor"), (other, "not a GGUF file"), (missing, "No such file")] {
        let mut engine = Engine::spawn();
        engine.say(&ToEngine::Start(Start::new(&path)));
        let FromEngine::Fatal { message } = engine.next() else { panic!() };
        assert!(message.contains(expect) && message.contains(path.to_str().unwrap()), "{message}");
        assert_eq!(engine.ends().code(), Some(1));
    }
}

/// A copy of the tiny model with bytes replaced wherever they stand.
fn changed(model: &Model, name: &str, change: impl Fn(&mut Vec<u8>)) -> std::path::PathBuf {
    let mut bytes = std::fs::read(model.path()).unwrap();
    change(&mut bytes);
    let path = model.path().with_file_name(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn places(bytes: &[u8], word: &[u8]) -> Vec<usize> {
    (0..bytes.len() - word.len()).filter(|at| bytes[*at..].starts_with(word)).collect()
}

#[test]
fn an_architecture_that_nobody_knows_is_told_in_one_sentence() {
    let model = Model::tiny();
    let unknown = changed(&model, "unknown.gguf", |bytes| {
        for at in places(bytes, b"llama") {
            bytes[at..at + 5].copy_from_slice(b"lhama");
        }
    });
    let mut engine = Engine::spawn();
    engine.say(&ToEngine::Start(Start::new(&unknown)));
    let FromEngine::Fatal { message } = engine.next() else { panic!() };
    assert!(message.contains("llama.cpp does not load it"), "{message}");
    assert_eq!(engine.ends().code(), Some(1));
}

/// llama.cpp may refuse such numbers or abort over them: either way this process ends, soon, and nothing else does.
#[test]
fn absurd_metadata_ends_the_engine_and_no_more() {
    let model = Model::tiny();
    for (key, value) in [
        ("block_count", u32::MAX),
        ("block_count", 0),
        ("embedding_length", u32::MAX),
        ("feed_forward_length", u32::MAX),
        ("attention.head_count", 0),
        ("attention.head_count", u32::MAX),
        ("attention.head_count_kv", 0),
        ("rope.dimension_count", u32::MAX),
        ("vocab_size", u32::MAX),
    ] {
        let absurd = changed(&model, "absurd.gguf", |bytes| {
            let key = format!("llama.{key}");
            // The key, the type of its value, the value. A longer key may begin alike.
            let is = |at: &usize| bytes[at + key.len()..].starts_with(&4_u32.to_le_bytes());
            let at = places(bytes, key.as_bytes()).into_iter().find(is).unwrap() + key.len() + 4;
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        });
        let mut engine = Engine::spawn();
        engine.say(&ToEngine::Start(Start { threads: 1, ..Start::new(&absurd) }));
        match engine.heard() {
            // A number that nobody uses: it answers, or dies of it.
            Some(FromEngine::Ready { .. }) => {
                let _ = write_frame(engine.stdin.as_mut().unwrap(), &ToEngine::Run(run(1, "hello", 2)));
                let _ = engine.heard();
            }
            Some(FromEngine::Fatal { .. }) | None => assert!(!engine.ends().success(), "{key} {value}"),
            Some(other) => panic!("{key} {value}: {other:?}"),
        }
    }
}
