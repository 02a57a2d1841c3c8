//! The page, `/metrics` and the probes of a real gateway: over plain HTTP what nobody may do, and in Debian's Chromium
//! what a person sees.
#![allow(missing_docs, clippy::unwrap_used)]

mod asking;
mod browser;
mod http;
mod numbers;
mod safety;
mod trace;
mod trouble;
mod usable;
mod webdriver;

#[allow(dead_code, unused_imports, reason = "shared with the tests of the whole way")]
#[path = "../whole_way/support/mod.rs"]
mod support;

use crate::support::{Device, Gateway};
use rustix::process::{Pid, Signal, kill_process};

/// A task of a slow model: sixty letters, so that something can happen in the midst of an answer.
const SPELL: &str = r#"
default_task = "spell"
[tasks.spell]
system = "spell"
schema = '{"type":"string","pattern":"^[ab]{60}$"}'
"#;

/// Kills the engine.
fn kill_engine(gateway: &Gateway) {
    let engine = gateway.until_ready()["engine"]["pid"].as_u64().unwrap();
    kill_process(Pid::from_raw(i32::try_from(engine).unwrap()).unwrap(), Signal::KILL).unwrap();
}

/// A prompt of a slow model that dies of it twice, and is a dead letter then.
fn poison(gateway: &Gateway, device: &mut Device, id: &str) {
    device.prompt(format!(r#"{{"id":"{id}","input":"a poisonous riddle","stream":true}}"#));
    for run in 1..=2 {
        device.until_frame("a token", |f| f["kind"] == "token" && f["id"] == id && f["attempt"] == run);
        kill_engine(gateway);
    }
    assert_eq!(device.outcome(id)["code"], "dead");
}
