//! `tidegate queue` on a running and on a stopped gateway: what is kept, what is dead, and what an operator does.

use crate::support::{Setup, run, slow_model, tidegate};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Sixty letters, which a slow model takes its time for.
const SPELL: &str = r#"
default_task = "spell"
[tasks.spell]
system = "spell"
schema = '{"type":"string","pattern":"^[ab]{60}$"}'
"#;

fn slow() -> Setup {
    let mut setup = Setup::new();
    setup.model = slow_model(setup.folder.path());
    setup.more = SPELL.to_owned();
    setup
}

/// What `tidegate queue` prints; the gateway is found by its configuration, running or not.
fn said(setup: &Setup, args: &[&str]) -> String {
    let (status, out, err) = run(tidegate().arg("queue").args(args).arg("--config").arg(setup.config()));
    assert_eq!(status, 0, "{args:?}: {err}");
    out
}

fn queue(setup: &Setup, args: &[&str]) -> Value {
    let out = said(setup, &[args, &["--json"]].concat());
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}: {out}"))
}

fn entries(counts: &Value, class: &str) -> u64 {
    let classes = counts["classes"].as_array().unwrap();
    classes.iter().find(|c| c["class"] == class).unwrap()["entries"].as_u64().unwrap()
}

#[test]
fn poison_becomes_a_letter_that_is_read_retried_and_dropped() {
    let setup = slow();
    let gateway = setup.start();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"p-1","input":"a poisonous riddle","stream":true}"#);
    for run in 1..=2 {
        device.until_frame("a token", |f| f["kind"] == "token" && f["attempt"] == run);
        let engine = gateway.until_ready()["engine"]["pid"].as_u64().unwrap();
        kill_process(Pid::from_raw(i32::try_from(engine).unwrap()).unwrap(), Signal::KILL).unwrap();
    }
    assert_eq!(device.outcome("p-1")["code"], "dead");
    let listed = queue(&setup, &["ls", "dead"]);
    let letter = &listed["entries"][0];
    assert_eq!(
        (&letter["number"], &letter["kind"], &letter["device"]),
        (&1.into(), &"prompt".into(), &"local-1".into())
    );
    assert_eq!(letter["reason"]["why"], "crashed_engine");
    assert!(!said(&setup, &["show", "dead", "1"]).contains("riddle"), "text was shown without being asked for");
    assert!(said(&setup, &["show", "dead", "1", "--reveal"]).contains("a poisonous riddle"));
    assert!(said(&setup, &["export", "dead", "--reveal"]).is_empty(), "no task of this gateway lets text go");
    queue(&setup, &["retry", "1"]);
    device.answer("p-1-r1");
    assert_eq!(entries(&queue(&setup, &["ls"]), "dead"), 0);
    assert_eq!(device.outcomes("p-1").len(), 1, "the outcome of the first stands");
}

#[test]
fn an_operator_drops_prompts_of_a_running_and_of_a_stopped_gateway() {
    let setup = slow();
    let mut gateway = setup.start();
    gateway.until_ready();
    let mut device = gateway.device("local-1");
    for number in 1..=4 {
        device.prompt(format!(r#"{{"id":"d-{number}","input":"spell {number}"}}"#));
    }
    device.until_acknowledged();
    let waiting = queue(&setup, &["ls", "prompts"]);
    let number = |id: &str| {
        let found = waiting["entries"].as_array().unwrap().iter().find(|e| e["id"] == id);
        found.unwrap_or_else(|| panic!("{id} is not in {waiting}"))["number"].to_string()
    };
    queue(&setup, &["drop", "prompts", &number("d-4")]);
    assert_eq!(device.outcome("d-4")["code"], "cancelled");
    let (third, fourth) = (number("d-3"), number("d-4"));
    gateway.process.kill();
    drop(device);
    let (status, _, err) = run(tidegate().args(["queue", "drop", "prompts", &fourth, "--config"]).arg(setup.config()));
    assert!(status == 1 && err.contains(&format!("prompts has no entry {fourth}")), "{status} {err}");
    queue(&setup, &["drop", "prompts", &third]);
    let counts = queue(&setup, &["ls"]);
    assert!(entries(&counts, "prompts") <= 2 && entries(&counts, "outcomes") >= 2, "{counts}");
    let gateway = setup.start();
    let device = gateway.device("local-1");
    assert_eq!(device.outcome("d-3")["code"], "cancelled", "decided while the gateway was stopped");
}

#[test]
fn a_queue_that_is_nowhere_is_said_to_be_nowhere() {
    let setup = Setup::new();
    let (status, _, err) = run(tidegate().args(["queue", "ls", "--config"]).arg(setup.config()));
    assert!(status == 74 && err.contains("there is no store in"), "{status} {err}");
}
