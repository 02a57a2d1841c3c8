//! An intake in place of the door: Debian's mosquitto keeps the devices, the gateway is its client. Killed on both
//! sides, nothing that reached the gateway is lost and nothing is answered twice.

use crate::brokers::Mosquitto;
use crate::support::{Device, Process, edge_model, run, tidegate, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a broker needs that keeps its sessions over its own death.
const PERSISTENT: &str = "persistence true\npersistence_location {dir}/\nautosave_on_changes true\nautosave_interval 1\nmax_queued_messages 1000";

struct Gateway {
    process: Process,
    control: PathBuf,
}

impl Gateway {
    fn start(folder: &Path, broker: u16) -> Self {
        let mut command = tidegate();
        command.arg("up").arg("--config").arg(config(folder, broker));
        let mut process = Process::start(&mut command);
        process.wait_for_log("connected to the broker of the intake");
        Self { process, control: folder.join("control.sock") }
    }

    fn status(&self) -> Value {
        let (status, out, err) = run(tidegate().args(["status", "--json", "--control"]).arg(&self.control));
        assert_eq!(status, 0, "{err}");
        serde_json::from_str(&out).unwrap()
    }
}

fn config(folder: &Path, broker: u16) -> PathBuf {
    let path = folder.join("tidegate.toml");
    let text = format!(
        "data_dir = \"data\"\ncontrol_socket = \"control.sock\"\n[engine]\nmodel = {:?}\nslots = 1\nthreads = 1\n\
         [intake]\nurl = \"mqtt://127.0.0.1:{broker}\"\n",
        edge_model().display().to_string(),
    );
    fs::write(&path, text).unwrap();
    path
}

fn begin() -> (TempDir, Mosquitto, Gateway) {
    let (folder, broker) = (tempfile::tempdir().unwrap(), Mosquitto::start(PERSISTENT));
    let gateway = Gateway::start(folder.path(), broker.port);
    (folder, broker, gateway)
}

fn ask(device: &mut Device, id: &str) {
    device.prompt(format!(r#"{{"id":"{id}","input":"turn on the kitchen light"}}"#));
}

#[test]
fn devices_of_another_broker_ask_and_are_answered() {
    let (_folder, broker, gateway) = begin();
    let mut device = Device::connect(broker.port, "pump-7");
    ask(&mut device, "i-1");
    assert_eq!(device.answer("i-1")["route"], "local");
    device.prompt("{\"input\":5}");
    device.until_frame("the refusal", |f| f["code"] == "invalid");
    let mut observer = Device::observer(broker.port, "observer");
    observer.subscribe("tg/v1/site/gateway/state/health");
    let health = observer.until_frame("the health", |f| f["online"] == true);
    let weakened = health["weakened"].as_array().unwrap();
    assert!(weakened.iter().any(|w| w.as_str().unwrap().contains("promise 1")), "{health}");
    until("the outcome released", || (gateway.status()["load"]["outcomes"]["entries"] == 0).then_some(()));
}

#[test]
fn a_prompt_that_came_while_the_gateway_was_dead_is_answered_once() {
    let (folder, broker, mut gateway) = begin();
    let mut device = Device::connect(broker.port, "pump-7");
    ask(&mut device, "k-0");
    device.answer("k-0");
    gateway.process.kill();
    (1..=5).for_each(|n| ask(&mut device, &format!("k-{n}")));
    device.until_acknowledged();
    let gateway = Gateway::start(folder.path(), broker.port);
    (1..=5).for_each(|n| drop(device.answer(&format!("k-{n}"))));
    ask(&mut device, "k-6");
    device.answer("k-6");
    for n in 0..=6 {
        let outcomes = device.outcomes(&format!("k-{n}"));
        assert!(outcomes.iter().all(|o| *o == outcomes[0]), "k-{n} has two outcomes: {outcomes:?}");
    }
    drop(gateway);
}

#[test]
fn outcomes_wait_for_a_broker_that_was_killed() {
    let (_folder, mut broker, gateway) = begin();
    let mut device = Device::connect(broker.port, "pump-7");
    (0..5).for_each(|n| ask(&mut device, &format!("b-{n}")));
    device.until_acknowledged();
    until("the prompts here", || {
        let status = gateway.status();
        (status["answered"]["local"].as_u64()? + status["load"]["inbox"]["entries"].as_u64()? == 5).then_some(())
    });
    broker.restart();
    until("their answers", || (gateway.status()["answered"]["local"] == 5).then_some(()));
    // The broker forgot the device's session, or did not: whatever was not delivered before is delivered now.
    let again = Device::connect(broker.port, "pump-7");
    for n in 0..5 {
        let id = format!("b-{n}");
        until(&id, || (device.outcomes(&id).len() + again.outcomes(&id).len() >= 1).then_some(()));
    }
}

#[test]
fn an_outcome_that_nobody_subscribes_stays() {
    let (_folder, broker, gateway) = begin();
    let mut device = Device::observer(broker.port, "pump-7");
    ask(&mut device, "n-1");
    until("the answer", || (gateway.status()["answered"]["local"] == 1).then_some(()));
    // The broker says that nobody is there; the outcome stays, and comes with the next look.
    device.subscribe("tg/v1/site/gateway/answer/pump-7");
    device.answer("n-1");
}

#[test]
fn doctor_says_what_the_broker_weakens() {
    let (folder, broker, _gateway) = begin();
    let (_, out, err) = run(tidegate().args(["doctor", "--config"]).arg(config(folder.path(), broker.port)));
    assert!(out.contains("promise 2"), "{out}{err}");
}
