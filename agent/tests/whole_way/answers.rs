//! A prompt is answered, in each of the three encodings, and once.

use crate::support::{Process, Setup, until};
use serde_json::Value;
use std::fs;
use std::process::Command;
use tidegate_schemas::{Body, Frame, Prompt, Route, cbor};

#[test]
fn json_is_answered_in_json() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"a-1","input":"turn off the lights in the kitchen","stream":true}"#);
    device.until_acknowledged();
    let answer = device.answer("a-1");
    assert_eq!(answer["route"], "local", "{answer}");
    assert!(answer["json"]["intent"].is_string(), "{answer}");
    assert!((0.0..=1.0).contains(&answer["confidence"].as_f64().unwrap()), "{answer}");
    let frames = device.frames();
    assert_eq!(frames[0]["kind"], "accepted", "{frames:?}");
    let streamed: String =
        frames.iter().filter(|f| f["kind"] == "token").map(|f| f["text"].as_str().unwrap().to_owned()).collect();
    let streamed: Value = serde_json::from_str(&streamed).unwrap();
    assert_eq!(streamed, answer["json"], "the pieces together are the answer");
}

#[test]
fn cbor_is_answered_in_cbor() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    let prompt = Prompt { id: Some("c-1".parse().unwrap()), ..Prompt::bare("turn on the garage light") };
    device.prompt(cbor::to_vec(&prompt));
    let answer = until("an answer in CBOR", || {
        let frames = device.seen().payloads.iter().filter_map(|p| cbor::from_slice::<Frame>(p, 65_536).ok()).collect();
        let frames: Vec<Frame> = frames;
        frames.into_iter().find_map(|f| if let Frame::Answer(a) = f { Some(a) } else { None })
    });
    assert_eq!(answer.route, Route::Local);
    assert_eq!(answer.id, prompt.id);
    assert!(matches!(answer.body, Body::Json(_)));
}

#[test]
fn bare_text_gets_exactly_one_message() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    device.prompt("turn on the bedroom light");
    until("an answer", || (!device.seen().payloads.is_empty()).then_some(()));
    device.fence("f-1");
    let seen = device.seen();
    // The fence is JSON: `accepted` and its answer.
    assert_eq!(seen.payloads.len(), 3, "one message for bare text");
    let answer: Value = serde_json::from_slice(&seen.payloads[0]).unwrap();
    assert!(answer["intent"].is_string(), "the JSON of the task, in one line");
}

#[test]
fn a_repeated_id_gets_the_stored_outcome() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    let prompt = r#"{"id":"d-1","input":"is the front door locked"}"#;
    device.prompt(prompt);
    let first = device.answer("d-1");
    device.prompt(prompt);
    let stored = device.until_frame("a stored outcome", |f| f["route"] == "stored");
    assert_eq!(stored["json"], first["json"]);
    device.publish("control", r#"{"op":"fetch","id":"d-1"}"#);
    until("the fetched outcome", || (device.outcomes("d-1").len() == 3).then_some(()));
    device.publish("control", r#"{"op":"fetch","id":"d-9"}"#);
    assert_eq!(device.outcome("d-9")["code"], "unknown_id");
    let status = gateway.status();
    assert_eq!(status["answered"]["local"], 1, "{status}");
}

#[test]
fn an_answer_over_max_bytes_is_announced_and_fetched() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"m-1","input":"turn on the garage light","max_bytes":120}"#);
    assert_eq!(device.outcome("m-1")["code"], "too_large");
    device.publish("control", r#"{"op":"fetch","id":"m-1"}"#);
    let answer = device.until_frame("the answer itself", |f| f["id"] == "m-1" && f["kind"] == "answer");
    assert_eq!(answer["route"], "stored");
}

/// The two commands of the README.
#[test]
fn mosquittos_own_clients_suffice() {
    let setup = Setup::new();
    let gateway = setup.start();
    gateway.until_ready();
    let port = gateway.port.to_string();
    let out = setup.folder.path().join("out");
    let mut listen = Command::new("mosquitto_sub");
    let at = ["-h", "127.0.0.1", "-p", &port];
    listen.args(at).args(["-i", "sub", "-q", "1", "-C", "1", "-t", "tg/v1/site/gateway/answer/local-1"]);
    // Whoever of the two is first: the answer waits for its device.
    let mut listener = listen.stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    let mut ask = Command::new("mosquitto_pub");
    ask.args(at).args([
        "-i",
        "pub",
        "-q",
        "1",
        "-t",
        "tg/v1/site/gateway/prompt/local-1",
        "-m",
        "turn on the kitchen light",
    ]);
    assert!(Process::start(&mut ask).wait().success());
    until("its end", || listener.try_wait().unwrap());
    let text = fs::read_to_string(&out).unwrap();
    assert!(text.lines().any(|line| line.starts_with('{') && line.contains("intent")), "{text}");
}
