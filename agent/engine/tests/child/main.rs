//! The engine as its parent sees it: a process that speaks frames.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod engine;
mod files;

use common::{Model, run, system_run};
use engine::{Engine, PATIENCE};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_engine::protocol::{BEAT_IDLE_MS, CHILD_ENV, Fault, FromEngine, Run, Start, Stop, ToEngine, encode_frame};
use tidegate_engine::tiny::Shape;
use tidegate_schemas::JobId;

/// One number of `/proc/PID/status` or the like.
fn field(pid: u32, file: &str, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].split_whitespace().next().unwrap().to_owned()
}

fn streamed(run: Run) -> ToEngine {
    ToEngine::Run(Run { stream: true, ..run })
}

#[test]
fn pieces_make_up_the_answer() {
    let model = Model::tiny();
    let mut engine = Engine::start(model.start());
    engine.say(&streamed(system_run(3, "be brief", "hello", 60)));
    let mut pieces = String::new();
    let done = loop {
        match engine.next() {
            FromEngine::Token { job: JobId(3), text } => pieces.push_str(text.reveal()),
            FromEngine::Done(done) => break done,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((pieces.as_str(), done.job), (done.text.reveal(), JobId(3)));
    // Random bytes: some are no characters, and the model ends when it happens to.
    assert!(pieces.contains(char::REPLACEMENT_CHARACTER), "{pieces}");
    assert_eq!(done.stop, if done.completion_tokens < 60 { Stop::End } else { Stop::MaxTokens });
}

/// Threads of OpenMP end by themselves when the engine's thread does; what that takes must be there behind the confinement.
#[test]
fn an_engine_of_several_threads_ends_without_a_word() {
    let model = Model::tiny();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-engine"));
    let mut engine = Engine::with(command.envs(CHILD_ENV).stderr(Stdio::piped()));
    let mut stderr = engine.child.stderr.take().unwrap();
    engine.say(&ToEngine::Start(Start { threads: 2, ..model.start() }));
    assert!(matches!(engine.next(), FromEngine::Ready { .. }));
    engine.say(&ToEngine::Run(run(1, "hello", 8)));
    assert!(matches!(engine.next(), FromEngine::Done(_)));
    engine.say(&ToEngine::Stop);
    let status = engine.ends();
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(status.success() && said.is_empty(), "{status}: {said}");
}

#[test]
fn a_confined_engine_keeps_templates_for_the_next() {
    let (model, dir) = (Model::tiny(), tempfile::tempdir().unwrap());
    let start = Start {
        pinned: vec!["be brief and name the place".into()],
        prefix_dir: Some(dir.path().to_owned()),
        ..model.start()
    };
    let asked = || ToEngine::Run(system_run(1, "be brief and name the place", "hello", 4));
    let mut first = Engine::start(start.clone());
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_dir(dir.path()).unwrap().next().is_none() {
        assert!(Instant::now() < deadline, "nothing is written");
        std::thread::yield_now();
    }
    // The file is written within one step, and orders are taken between steps.
    first.say(&asked());
    let FromEngine::Done(before) = first.next() else { panic!("no answer") };
    drop(first);
    let mut second = Engine::start(start);
    second.say(&asked());
    let FromEngine::Done(after) = second.next() else { panic!("no answer") };
    assert_eq!((&after.text, after.reused_tokens), (&before.text, before.reused_tokens));
    assert!(after.reused_tokens > 10, "{} tokens", after.reused_tokens);
}

#[test]
fn a_run_does_not_wait_for_templates() {
    let (model, dir) = (Model::of(&Shape::slow()), tempfile::tempdir().unwrap());
    let long = "word by word ".repeat(30);
    let mut engine = Engine::start(Start {
        pinned: vec![long.as_str().into()],
        prefix_dir: Some(dir.path().to_owned()),
        ..model.start()
    });
    engine.say(&ToEngine::Run(run(1, "hello", 1)));
    assert!(matches!(engine.next(), FromEngine::Done(_)));
    assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none(), "the template was computed first");
}

#[test]
fn an_abort_ends_a_run_in_its_midst() {
    let model = Model::of(&Shape::slow());
    let mut engine = Engine::start(Start { slots: 2, ..model.start() });
    engine.say(&streamed(run(1, "hello", 400)));
    engine.say(&ToEngine::Run(run(2, "and me", 3)));
    assert!(matches!(engine.next(), FromEngine::Token { job: JobId(1), .. }));
    engine.say(&ToEngine::Abort { job: JobId(1) });
    engine.say(&ToEngine::Abort { job: JobId(99) });
    let mut ends = Vec::new();
    while ends.len() < 2 {
        match engine.next() {
            FromEngine::Token { job: JobId(1), .. } => {}
            FromEngine::Failed { job, fault } => ends.push((job, Some(fault))),
            FromEngine::Done(done) => ends.push((done.job, None)),
            other => panic!("{other:?}"),
        }
    }
    ends.sort_by_key(|(job, _)| *job);
    assert_eq!(ends, [(JobId(1), Some(Fault::Aborted)), (JobId(2), None)]);
    // The slot is free again, and its sequence clean.
    engine.say(&ToEngine::Run(run(3, "and me", 3)));
    assert!(matches!(engine.next(), FromEngine::Done(done) if done.job == JobId(3)));
}

#[test]
fn a_waiting_run_can_be_aborted() {
    let model = Model::of(&Shape::slow());
    let mut engine = Engine::start(model.start());
    engine.say(&streamed(run(1, "hello", 400)));
    assert!(matches!(engine.next(), FromEngine::Token { job: JobId(1), .. }));
    engine.say(&ToEngine::Run(run(2, "I wait", 4)));
    engine.say(&ToEngine::Run(run(2, "me too", 4)));
    engine.say(&ToEngine::Abort { job: JobId(2) });
    let mut faults = Vec::new();
    while faults.len() < 2 {
        match engine.next() {
            FromEngine::Failed { job: JobId(2), fault } => faults.push(fault),
            FromEngine::Token { job: JobId(1), .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(faults, [Fault::Other("job 2 is under way already".to_owned()), Fault::Aborted]);
}

#[test]
fn it_beats_when_idle_and_while_it_works() {
    let model = Model::of(&Shape::slow());
    let mut engine = Engine::start(model.start());
    let wait = Duration::from_millis(3 * BEAT_IDLE_MS);
    assert_eq!(engine.messages.recv_timeout(wait), Ok(FromEngine::Beat));
    engine.say(&ToEngine::Run(run(1, "hello", 400)));
    assert_eq!(engine.messages.recv_timeout(wait), Ok(FromEngine::Beat));
    assert_eq!(engine.messages.recv_timeout(wait), Ok(FromEngine::Beat));
}

#[test]
fn it_ends_when_stdin_closes_also_in_the_midst_of_an_answer() {
    let model = Model::of(&Shape::slow());
    for busy in [false, true] {
        let mut engine = Engine::start(model.start());
        if busy {
            engine.say(&streamed(run(1, "hello", 400)));
            assert!(matches!(engine.next(), FromEngine::Token { .. }));
        }
        engine.stdin = None;
        assert!(engine.ends().success());
    }
}

#[test]
fn it_ends_when_asked_or_when_it_is_told_nothing() {
    let model = Model::tiny();
    let mut engine = Engine::start(model.start());
    engine.say(&ToEngine::Stop);
    assert!(engine.ends().success());
    let mut engine = Engine::spawn();
    engine.stdin = None;
    assert!(engine.ends().success());
}

#[test]
fn garbage_ends_it_with_an_error() {
    let model = Model::tiny();
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x03\0\0\0abc", b"\x10\0\0"] {
        let mut engine = Engine::start(model.start());
        engine.stdin.as_mut().unwrap().write_all(garbage).unwrap();
        engine.stdin = None;
        assert_eq!(engine.ends().code(), Some(1), "{garbage:?}");
        let mut engine = Engine::spawn();
        engine.stdin.as_mut().unwrap().write_all(garbage).unwrap();
        engine.stdin = None;
        assert_eq!(engine.ends().code(), Some(1), "{garbage:?} first");
    }
    let mut engine = Engine::spawn();
    engine.say(&ToEngine::Abort { job: JobId(1) });
    assert_eq!(engine.ends().code(), Some(1));
}

#[test]
fn many_frames_at_once_are_all_answered() {
    let model = Model::tiny();
    let mut engine = Engine::start(Start { slots: 4, ..model.start() });
    let frames: Vec<u8> =
        (0..100).flat_map(|i| encode_frame(&ToEngine::Run(run(i, &format!("number {i}"), 3)))).collect();
    engine.stdin.as_mut().unwrap().write_all(&frames).unwrap();
    let mut jobs: Vec<u64> = (0..100)
        .map(|_| match engine.next() {
            FromEngine::Done(done) => done.job.0,
            other => panic!("{other:?}"),
        })
        .collect();
    jobs.sort_unstable();
    assert_eq!(jobs, (0..100).collect::<Vec<_>>());
}

#[test]
fn it_leaves_no_core_and_gains_no_rights() {
    let model = Model::tiny();
    let engine = Engine::start(model.start());
    let pid = engine.child.id();
    assert_eq!(field(pid, "limits", "Max core file size"), "0");
    assert_eq!(field(pid, "status", "NoNewPrivs:"), "1");
    // Not even its own user may look into its memory.
    assert_eq!(std::fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0);
    let space: u64 = field(pid, "limits", "Max address space").parse().unwrap();
    let used: u64 = field(pid, "status", "VmPeak:").parse::<u64>().unwrap() * 1024;
    assert!(used < space && space < 64 << 30, "{used} of {space} bytes of address space");
}

/// A template that doubles a text without end: the limit ends the engine, well before the machine's memory does.
#[test]
fn what_runs_away_ends_the_engine_and_not_the_machine() {
    let greedy = "{% set n = namespace(t='xxxxxxxx') %}{% for i in range(60) %}{% set n.t = n.t + n.t %}{% endfor %}\
                  {{ n.t | length }}{{ messages[0].content }}";
    let model = Model::of(&Shape { template: Some(greedy.to_owned()), ..Shape::tiny() });
    let mut engine = Engine::start(model.start());
    engine.say(&ToEngine::Run(run(1, "hello", 3)));
    let status = engine.ends();
    assert_eq!(status.signal(), Some(6), "{status}");
}

#[test]
fn it_ends_with_its_parent_also_when_somebody_else_keeps_its_stdin_open() {
    let model = Model::tiny();
    // A shell between us and the engine; the pipe that is the engine's stdin stays open when the shell goes.
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0; \"$0\" <&3 & wait", env!("CARGO_BIN_EXE_tidegate-engine")]).envs(CHILD_ENV);
    let mut engine = Engine::of(&mut shell);
    engine.say(&ToEngine::Start(model.start()));
    assert!(matches!(engine.next(), FromEngine::Ready { .. }));
    engine.child.kill().unwrap();
    // Our end of stdin is open, and yet the engine's stdout ends.
    let _open = engine.stdin.take().unwrap();
    engine.ends();
}
