//! `tidegate model use` on a running gateway: another model takes over without a pause and outlives restarts; whatever
//! fails on the way changes nothing; every prompt has one outcome all along.

use crate::support::{Gateway, Setup, edge_model, run, slow_model, tidegate, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_engine::tiny::{self, LayerWeights, Shape};

const LIGHT: &str = "turn on the kitchen light";

fn cloud_model() -> PathBuf {
    edge_model().with_file_name("tide-cloud.gguf")
}

/// Status, and what was said as JSON.
fn model_use(gateway: &Gateway, wish: &str) -> (i32, Value) {
    let mut command = tidegate();
    let (status, out, err) = run(command.args(["model", "use", wish, "--json", "--control"]).arg(&gateway.control));
    let said = if status == 0 { out } else { err };
    (status, serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}")))
}

fn used(gateway: &Gateway, wish: &str) -> Value {
    let (status, told) = model_use(gateway, wish);
    assert_eq!(status, 0, "{told}");
    told
}

fn as_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn another_model_takes_over_under_load_outlives_a_restart_and_goes_again() {
    let setup = Setup { engine: "slots = 2\nthreads = 1".to_owned(), ..Setup::new() };
    let mut gateway = setup.start();
    gateway.until_ready();
    let mut device = gateway.device("local-1");
    device.subscribe("tg/v1/site/gateway/event/model");
    let mut asked = Vec::new();
    let mut ask = |device: &mut crate::support::Device, name: &str, count: usize| {
        for number in 0..count {
            let id = format!("{name}-{number}");
            device.prompt(format!(r#"{{"id":"{id}","input":"{LIGHT}"}}"#));
            asked.push(id);
        }
    };
    ask(&mut device, "a", 40);
    // Some run at the model that goes while the other takes over.
    let told = used(&gateway, as_text(&cloud_model()));
    assert_eq!(
        (&told["model"], &told["before"], &told["calibrated"]),
        (&"tide-cloud".into(), &"tide-edge".into(), &true.into())
    );
    assert_eq!(told["canaries"], 2, "one of each task: {told}");
    ask(&mut device, "b", 10);
    until("the event", || {
        device.frames().iter().any(|f| f["message"] == "tide-cloud serves in place of tide-edge").then_some(())
    });
    assert_eq!(device.answer("b-9")["model"], "tide-cloud");
    let status = gateway.status();
    assert_eq!(
        (&status["engine"]["named_by"], &status["engine"]["restarts"]),
        (&"model_use".into(), &0.into()),
        "{status}"
    );
    let told = used(&gateway, as_text(&edge_model()));
    assert_eq!(told["model"], "tide-edge");
    ask(&mut device, "c", 10);
    assert_eq!(device.answer("c-9")["model"], "tide-edge");
    used(&gateway, as_text(&cloud_model()));
    for id in &asked {
        device.answer(id);
    }
    device.fence("last");
    for id in &asked {
        assert_eq!(device.outcomes(id).len(), 1, "one outcome of {id}");
    }
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
    gateway.process.kill();
    let gateway = setup.start();
    let ready = gateway.until_ready();
    assert_eq!(ready["engine"]["model"]["name"], "tide-cloud", "{ready}");
    let (_, out, _) = run(tidegate().args(["status", "--control"]).arg(&gateway.control));
    assert!(out.contains("tide-cloud.gguf, chosen with `tidegate model use`"), "{out}");
    let (_, out, _) = run(tidegate().args(["doctor", "--quick", "--config"]).arg(setup.config()));
    assert!(out.contains("tide-cloud.gguf serves, chosen with `tidegate model use`; the configuration names"), "{out}");
    let told = used(&gateway, "--configured");
    assert_eq!((&told["model"], &told["named_by"]), (&"tide-edge".into(), &"configuration".into()));
    assert!(!setup.folder.path().join("data/model.json").exists());
}

#[test]
fn what_was_begun_ends_at_the_model_that_began_it() {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = "default_task = \"spell\"\n[tasks.spell]\nsystem = \"spell\"\n\
                  schema = '{\"type\":\"string\",\"pattern\":\"^[ab]{60}$\"}'\n"
        .to_owned();
    let gateway = setup.start();
    gateway.until_ready();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"s-1","input":"spell","stream":true}"#);
    device.until_frame("a token", |f| f["kind"] == "token");
    device.prompt(r#"{"id":"s-2","input":"spell"}"#);
    used(&gateway, as_text(&edge_model()));
    assert_eq!(device.answer("s-1")["model"], "slow");
    device.prompt(r#"{"id":"s-3","input":"spell"}"#);
    assert_eq!(device.answer("s-3")["model"], "tide-edge");
    for id in ["s-1", "s-2", "s-3"] {
        device.answer(id);
        assert_eq!(device.outcomes(id).len(), 1, "{id}");
    }
    until("the end of the slow engine", || gateway.process.log().contains("has ended what it began").then_some(()));
    until("one engine to be left", || (children(gateway.process.pid()).len() == 1).then_some(()));
    assert_eq!(gateway.status()["engine"]["restarts"], 0);
}

#[test]
fn whatever_fails_nothing_changes_and_the_reason_is_said() {
    let mut setup = Setup::new();
    let folder = setup.folder.path().to_owned();
    let file = |name: &str| folder.join(name);
    let canaries = file("canaries.jsonl");
    fs::write(
        &canaries,
        format!("{{\"task\":\"action\",\"prompt\":\"{LIGHT}\",\"answer\":{{\"intent\":\"HassTurnOn\"}}}}\n"),
    )
    .unwrap();
    setup.engine += &format!("\ncanaries = {canaries:?}");
    let whole = fs::read(edge_model()).unwrap();
    fs::write(file("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    fs::write(file("other.gguf"), "#!/bin/sh\n").unwrap();
    // Layers of 200 GB that are a hole in the file: it says that it needs so much, and takes no room.
    let huge = Shape { layer_weights: LayerWeights::Zero, layers: 512, width: 8_192, forward: 32_768, ..Shape::tiny() };
    tiny::write(&file("huge.gguf"), &huge).unwrap();
    tiny::write(&file("random.gguf"), &Shape::tiny()).unwrap();
    let gateway = setup.start();
    let pid = gateway.until_ready()["engine"]["pid"].clone();
    for (wish, expect) in [
        ("missing.gguf", "No such file"),
        ("cut.gguf", "it is truncated: tensor"),
        ("other.gguf", "it is not a GGUF file"),
        ("huge.gguf", "MiB of memory beside the one that serves"),
        ("random.gguf", "canary prompt "),
    ] {
        let (status, said) = model_use(&gateway, as_text(&file(wish)));
        let why = said["error"].as_str().unwrap();
        assert!(status == 1 && said["status"] == 1 && why.contains(expect), "{wish}: {said}");
    }
    let told = model_use(&gateway, as_text(&cloud_model())).1;
    assert!(told["error"].as_str().unwrap().contains("another than expected"), "its answer has a name, too: {told}");
    let status = gateway.status();
    assert_eq!((&status["engine"]["pid"], &status["engine"]["restarts"]), (&pid, &0.into()), "{status}");
    assert_eq!(
        (&status["engine"]["model"]["name"], &status["engine"]["named_by"]),
        (&"tide-edge".into(), &"configuration".into())
    );
    assert!(!file("data/model.json").exists());
    until("the end of what was tried", || (children(gateway.process.pid()).len() == 1).then_some(()));
    let mut device = gateway.device("local-1");
    device.prompt(format!(r#"{{"id":"f-1","input":"{LIGHT}"}}"#));
    assert_eq!(device.answer("f-1")["model"], "tide-edge");
}

#[test]
fn an_engine_that_is_killed_while_it_loads_changes_nothing() {
    let setup = Setup::new();
    let large = setup.folder.path().join("large.gguf");
    fs::copy(edge_model(), &large).unwrap();
    // A hole that takes its time to be read through.
    fs::File::options().write(true).open(&large).unwrap().set_len(800 << 20).unwrap();
    let gateway = setup.start();
    let pid = gateway.until_ready()["engine"]["pid"].as_u64().unwrap();
    let (status, said) = std::thread::scope(|scope| {
        let trying = scope.spawn(|| model_use(&gateway, as_text(&large)));
        let second = until("a second engine", || {
            children(gateway.process.pid()).into_iter().find(|child| u64::from(child.unsigned_abs()) != pid)
        });
        let second = rustix::process::Pid::from_raw(second).unwrap();
        rustix::process::kill_process(second, rustix::process::Signal::KILL).unwrap();
        trying.join().unwrap()
    });
    assert!(status == 1 && said["error"].as_str().unwrap().contains("the engine"), "{said}");
    let status = gateway.status();
    assert_eq!((&status["engine"]["pid"], &status["engine"]["restarts"]), (&pid.into(), &0.into()), "{status}");
    assert_eq!(used(&gateway, as_text(&cloud_model()))["model"], "tide-cloud", "it can be tried again at once");
}

#[test]
fn a_choice_whose_file_is_gone_is_passed_over_and_said() {
    let setup = Setup::new();
    let copy = setup.folder.path().join("copy.gguf");
    fs::copy(cloud_model(), &copy).unwrap();
    let mut gateway = setup.start();
    gateway.until_ready();
    assert_eq!(used(&gateway, as_text(&copy))["calibrated"], false, "a copy has no calibration beside it");
    gateway.process.kill();
    fs::write(&copy, fs::read(edge_model()).unwrap()).unwrap();
    let mut gateway = setup.start();
    let ready = gateway.until_ready();
    assert_eq!(
        (&ready["engine"]["model"]["name"], &ready["engine"]["named_by"]),
        (&"tide-edge".into(), &"configuration".into())
    );
    assert!(
        ready["health"]["faults"].to_string().contains("passed over for the configured one: it is another file now"),
        "{ready}"
    );
    fs::remove_file(&copy).unwrap();
    let (_, out, _) = run(tidegate().args(["doctor", "--quick", "--config"]).arg(setup.config()));
    assert!(out.contains("copy.gguf, chosen with `tidegate model use`, is passed over: model"), "{out}");
    used(&gateway, "--configured");
    assert!(!gateway.status()["health"]["faults"].to_string().contains("passed over"), "the fault is over");
    gateway.process.kill();
}

/// The processes that a process started.
fn children(parent: u32) -> Vec<i32> {
    let stat = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (_, rest) = stat.rsplit_once(')')?;
        let mut words = rest.split_whitespace();
        // One that ended and was not waited for is none.
        (words.next()? != "Z").then_some(())?;
        words.next()?.parse::<u32>().ok()
    };
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(pid) == Some(parent)).collect()
}
