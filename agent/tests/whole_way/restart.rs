//! Crashes and stops: nothing that was acknowledged is lost, nothing is answered twice.

use crate::support::{Setup, edge_model, slow_model, until};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// Sixty letters, which a slow model takes its time for.
const SPELL: &str = r#"
default_task = "spell"
[tasks.spell]
system = "spell"
schema = '{"type":"string","pattern":"^[ab]{60}$"}'
[drain]
timeout_ms = 4000
"#;

fn slow() -> Setup {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = SPELL.to_owned();
    setup
}

#[test]
fn killed_between_acknowledgement_and_answer_one_outcome_comes() {
    let mut setup = slow();
    let mut gateway = setup.start();
    let mut device = gateway.device("local-1");
    for number in 0..3 {
        device.prompt(format!(r#"{{"id":"k-{number}","input":"spell"}}"#));
    }
    device.until_acknowledged();
    gateway.process.kill();
    assert!(device.outcomes("k-2").is_empty(), "it was killed before the last answer");
    setup.model = edge_model();
    let gateway = setup.start();
    let mut device = gateway.device("local-1");
    for number in 0..3 {
        device.answer(&format!("k-{number}"));
    }
    device.prompt(r#"{"id":"k-2","input":"spell"}"#);
    device.until_frame("the stored outcome", |f| f["id"] == "k-2" && f["route"] == "stored");
    let first: Vec<_> = device.outcomes("k-2").into_iter().filter(|f| f["route"] != "stored").collect();
    assert_eq!(first.len(), 1, "{first:?}");
}

#[test]
fn the_engine_killed_in_mid_answer_is_replaced_and_the_prompt_answered() {
    let setup = slow();
    let gateway = setup.start();
    let ready = gateway.until_ready();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"e-1","input":"spell","stream":true}"#);
    device.until_frame("a token", |f| f["kind"] == "token");
    let engine = i32::try_from(ready["engine"]["pid"].as_u64().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(engine).unwrap(), Signal::KILL).unwrap();
    let answer = device.answer("e-1");
    assert_eq!(answer["json"].as_str().unwrap().len(), 60, "{answer}");
    assert!(device.frames().iter().any(|f| f["kind"] == "token" && f["attempt"] == 2), "a second run was streamed");
    let status = gateway.status();
    assert_eq!(status["engine"]["restarts"], 1, "{status}");
    assert_eq!(device.outcomes("e-1").len(), 1);
}

/// A stopped process does nothing and dies of nothing: only its silence tells.
#[test]
fn an_engine_that_hangs_in_mid_answer_is_replaced_and_the_prompt_answered() {
    let mut setup = slow();
    setup.engine += "\nsilence_ms_max = 6000";
    let gateway = setup.start();
    let ready = gateway.until_ready();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"h-1","input":"spell","stream":true}"#);
    device.until_frame("a token", |f| f["kind"] == "token");
    let engine = i32::try_from(ready["engine"]["pid"].as_u64().unwrap()).unwrap();
    let engine = rustix::process::Pid::from_raw(engine).unwrap();
    let hung = Instant::now();
    rustix::process::kill_process(engine, Signal::STOP).unwrap();
    // The gateway itself goes on: prompts are taken, those who ask are answered.
    device.prompt(r#"{"id":"h-2","input":"spell"}"#);
    device.until_acknowledged();
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
    for id in ["h-1", "h-2"] {
        assert_eq!(device.answer(id)["json"].as_str().unwrap().len(), 60);
    }
    assert!(hung.elapsed() >= Duration::from_millis(5_500), "it was given its time");
    assert!(gateway.process.log().contains("the engine was silent for 6 s"), "{}", gateway.process.log());
    assert!(rustix::process::test_kill_process(engine).is_err(), "the stopped engine is gone");
    assert_eq!(gateway.status()["engine"]["restarts"], 1);
    device.fence("h-3");
    for id in ["h-1", "h-2"] {
        assert_eq!(device.outcomes(id).len(), 1, "one outcome of {id}");
    }
}

#[test]
fn a_stop_drains_within_its_bound_and_loses_nothing() {
    let setup = slow();
    let mut gateway = setup.start();
    gateway.until_ready();
    let mut device = gateway.device("local-1");
    for number in 0..6 {
        device.prompt(format!(r#"{{"id":"s-{number}","input":"spell"}}"#));
    }
    device.until_acknowledged();
    let start = Instant::now();
    gateway.process.signal(Signal::TERM);
    let status = gateway.process.wait();
    let took = start.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < Duration::from_secs(6), "it took {took:?}, the bound is 4 s and its goodbyes");
    let before: Vec<usize> = (0..6).map(|n| device.outcomes(&format!("s-{n}")).len()).collect();
    drop(device);
    let gateway = setup.start();
    let device = gateway.device("local-1");
    for (number, before) in before.into_iter().enumerate() {
        if before == 0 {
            device.answer(&format!("s-{number}"));
        }
    }
}

#[test]
fn an_outcome_waits_for_its_device() {
    let setup = Setup::new();
    let mut gateway = setup.start();
    let mut absent = crate::support::Device::observer(gateway.port, "local-7");
    absent.prompt(r#"{"id":"o-1","input":"turn on the kitchen light"}"#);
    absent.until_acknowledged();
    gateway.until_status("the outcome", |s| s["load"]["outcomes"]["entries"] == 1);
    gateway.process.kill();
    let gateway = setup.start();
    let device = gateway.device("local-7");
    device.answer("o-1");
    until("its release", || (gateway.status()["load"]["outcomes"]["entries"] == 0).then_some(()));
}
