//! What a template costs: computed once, kept, found on disk after a start, computed again when what lies there is wrong.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, system_run};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidegate_engine::direct::Direct;
use tidegate_engine::protocol::{CacheType, Done, Start};
use tidegate_engine::tiny::Shape;

/// Templates of some hundred tokens, which begin alike.
fn template(which: usize) -> String {
    format!("answer in few words and name the place that is meant. {} end", "word by word ".repeat(12 + which))
}

/// With heads of 32 numbers, which is what eight-bit keys and values are stored in.
fn model() -> Model {
    Model::of(&Shape { heads: 2, ..Shape::tiny() })
}

fn start(model: &Model, dir: Option<&Path>, templates: usize) -> Start {
    Start {
        pinned: (0..templates).map(|i| template(i).as_str().into()).collect(),
        prefix_dir: dir.map(Path::to_owned),
        ..model.start()
    }
}

fn ask(engine: &mut Direct, which: usize) -> Done {
    engine.run(system_run(1, &template(which), "hello there", 6)).unwrap().unwrap()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// A file ends in the SHA-256 of what stands before.
fn is_whole(path: &Path) -> bool {
    let bytes = fs::read(path).unwrap();
    bytes.len().checked_sub(32).is_some_and(|end| Sha256::digest(&bytes[..end]).as_slice() == &bytes[end..])
}

/// Waits until the engine has put so many whole files there.
fn wait_for(dir: &Path, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while files(dir).len() != count || !files(dir).iter().all(|path| is_whole(path)) {
        assert!(Instant::now() < deadline, "{:?}, wanted {count}", files(dir));
        std::thread::yield_now();
    }
}

/// Runs an engine until all its templates lie there.
fn fill(start: Start, dir: &Path) {
    let templates = start.pinned.len();
    let engine = Direct::load(start).unwrap();
    wait_for(dir, templates);
    drop(engine);
}

#[test]
fn templates_are_computed_while_nothing_runs_and_found_after_a_start() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let mut plain = Direct::load(Start { prefixes: 0, ..model.start() }).unwrap();
    let expected: Vec<_> = (0..3).map(|i| ask(&mut plain, i)).collect();
    fill(start(&model, Some(dir.path()), 3), dir.path());
    let before: Vec<_> = files(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect();
    let mut second = Direct::load(start(&model, Some(dir.path()), 3)).unwrap();
    for (i, expected) in expected.iter().enumerate() {
        let done = ask(&mut second, i);
        assert_eq!((&done.text, done.reused_tokens), (&expected.text, expected.prompt_tokens - TAIL), "template {i}");
    }
    assert_eq!(files(dir.path()).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>(), before);
}

/// Tokens of a prompt after its template: `<|user|>`, the words, `<|bot|>`.
const TAIL: u32 = 9;

#[test]
fn what_is_wrong_on_disk_is_computed_again() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    let mut plain = Direct::load(Start { prefixes: 0, ..model.start() }).unwrap();
    let expected = ask(&mut plain, 0);
    fill(start(&model, Some(dir.path()), 1), dir.path());
    let file = files(dir.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let (mut flipped, cut, long) = (whole.clone(), &whole[..whole.len() / 2], [whole.as_slice(), &whole].concat());
    flipped[whole.len() / 2] ^= 4;
    for (what, bytes) in [("flipped", flipped.as_slice()), ("cut", cut), ("empty", &[]), ("long", &long)] {
        fs::write(&file, bytes).unwrap();
        let mut engine = Direct::load(start(&model, Some(dir.path()), 1)).unwrap();
        assert_eq!(ask(&mut engine, 0).text, expected.text, "{what}");
        wait_for(dir.path(), 1);
        drop(engine);
        let mut engine = Direct::load(start(&model, Some(dir.path()), 1)).unwrap();
        assert_eq!(ask(&mut engine, 0).reused_tokens, expected.prompt_tokens - TAIL, "{what}");
    }
}

#[test]
fn another_model_or_setting_does_not_take_what_lies_there() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    fill(start(&model, Some(dir.path()), 1), dir.path());
    let other = Model::of(&Shape { heads: 2, seed: 2, ..Shape::tiny() });
    for (count, start) in [
        (2, start(&other, Some(dir.path()), 1)),
        (3, Start { cache: CacheType::Q8_0, ..start(&model, Some(dir.path()), 1) }),
        (4, Start { context_tokens: 500, ..start(&model, Some(dir.path()), 1) }),
    ] {
        let mut fresh = Direct::load(Start { prefixes: 0, ..start.clone() }).unwrap();
        let mut engine = Direct::load(start).unwrap();
        wait_for(dir.path(), count);
        assert_eq!(ask(&mut engine, 0).text, ask(&mut fresh, 0).text);
    }
}

#[test]
fn a_begin_that_two_tasks_share_is_computed_once() {
    let model = model();
    let mut engine = Direct::load(model.start()).unwrap();
    let cold = ask(&mut engine, 0);
    assert_eq!(cold.reused_tokens, 0);
    let warm = ask(&mut engine, 0);
    assert_eq!((warm.reused_tokens, &warm.text), (cold.prompt_tokens - TAIL, &cold.text));
    // The other template is longer by some words: all before them is shared.
    let other = ask(&mut engine, 3);
    assert!(other.reused_tokens > 100 && other.reused_tokens < warm.reused_tokens, "{}", other.reused_tokens);
    let mut plain = Direct::load(Start { prefixes: 0, ..model.start() }).unwrap();
    assert_eq!(ask(&mut plain, 3).text, other.text);
}

#[test]
fn the_budget_of_bytes_decides_what_stays() {
    let (model, dir) = (model(), tempfile::tempdir().unwrap());
    // Two layers of 64 keys and 64 values, 2 bytes each: 512 bytes per token; room for one template, not for two.
    let tokens = 300;
    let mut engine =
        Direct::load(Start { prefix_bytes_max: 512 * tokens, ..start(&model, Some(dir.path()), 1) }).unwrap();
    // On disk: then it stands. A run that came before would only have the place of one that nobody pinned.
    wait_for(dir.path(), 1);
    let pinned = ask(&mut engine, 0);
    assert!(u64::from(pinned.prompt_tokens) < tokens && u64::from(pinned.prompt_tokens) * 2 > tokens);
    let other = "z ".repeat(100);
    let run = || system_run(2, &other, "hello there", 4);
    for _ in 0..2 {
        assert!(engine.run(run()).unwrap().unwrap().reused_tokens < 10);
    }
    assert_eq!(ask(&mut engine, 0).reused_tokens, pinned.prompt_tokens - TAIL, "the pinned one stays");
    // Eight-bit keys and values take 34 bytes for 32 numbers: there is room for both.
    let small = Start { cache: CacheType::Q8_0, prefix_bytes_max: 512 * tokens, ..start(&model, None, 1) };
    let mut engine = Direct::load(small).unwrap();
    let tokens: Vec<_> = (0..2).map(|_| engine.run(run()).unwrap().unwrap().reused_tokens).collect();
    assert!(tokens[1] > 100, "{tokens:?}");
}
