//! Prompts that are asked on the page.

use crate::http::{act, get};
use crate::support::{Device, Setup, until};
use serde_json::{Value, json};

#[test]
fn a_prompt_of_the_page_is_answered_while_it_arises_and_leaves_nothing_undelivered() {
    let setup = Setup::new();
    let gateway = setup.start();
    gateway.until_ready();
    let port = gateway.page();
    let answer = act(port, "/api/ask", &json!({ "input": "turn off the lights in the packing hall" }));
    assert_eq!(answer.status, 200, "{answer:?}");
    let frames: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(frames[0]["kind"], "accepted", "{frames:?}");
    assert!(frames.iter().any(|f| f["kind"] == "token"), "{frames:?}");
    let last = frames.last().unwrap();
    assert_eq!((&last["kind"], &last["route"]), (&json!("answer"), &json!("local")), "{last}");
    let told: String = frames.iter().filter(|f| f["kind"] == "token").map(|f| f["text"].as_str().unwrap()).collect();
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap(), last["json"], "the tokens make the answer");
    let unknown = act(port, "/api/ask", &json!({ "input": "x", "task": "nothing" }));
    assert_eq!((unknown.status, &unknown.json()["code"]), (429, &json!("unknown_task")));
    until("nothing undelivered", || {
        let numbers = get(port, "/api/state").json()["numbers"].clone();
        let waits = numbers["tidegate_queue_entries{class=\"outcomes\"}"].as_u64();
        (numbers["tidegate_prompts_accepted_total"] == 1 && waits == Some(0)).then_some(())
    });
}

#[test]
fn no_client_may_be_the_page() {
    let mut setup = Setup::new();
    let users = setup.folder.path().join("users");
    let salt = argon2::password_hash::SaltString::from_b64("c2FsdHNhbHRzYWx0").unwrap();
    let hash = argon2::PasswordHasher::hash_password(&argon2::Argon2::default(), b"secret", &salt).unwrap();
    std::fs::write(&users, format!("tidegate-page:{hash}\n")).unwrap();
    setup.door = format!("listen = [\"127.0.0.1:{}\"]\nusers_file = {users:?}\nanonymous = \"off\"", setup.port);
    let gateway = setup.start();
    let mut options = rumqttc::MqttOptions::new("x", "127.0.0.1", gateway.port);
    options.set_credentials("tidegate-page", "secret");
    let mut device = Device::with(options, "tidegate-page");
    device.subscribe("tg/v1/site/gateway/answer/tidegate-page");
    device.prompt(r#"{"id":"p-1","input":"turn on the light"}"#);
    assert_eq!(device.outcome("p-1")["code"], "not_allowed");
}
