//! The central broker and its workers: what goes there, what waits, what never does.

use crate::support::{Central, Device, Proxy, Setup, Worker, slow_model, until};
use tidegate_schemas::decode_escalation;

/// A task whose answer is always sixty letters, so that a slow model takes its time for it.
const SPELL: &str = r#"
[tasks.spell]
system = "spell"
schema = '{"type":"string","pattern":"^[ab]{60}$"}'
cloud = "allowed"
threshold = 0.0
expected_tokens = 60
"#;

#[test]
fn low_confidence_asks_the_cloud_and_a_private_task_never_does() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("tg/v1/+/+/escalate/+");
    let gateway = Setup::bridged(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"p-1","task":"private","input":"seventeen grommets whistle at noon"}"#);
    device.prompt(r#"{"id":"p-2","task":"doubted","local":true,"input":"seventeen grommets whistle at noon"}"#);
    device.prompt(r#"{"id":"p-3","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    for id in ["p-1", "p-2"] {
        let answer = device.answer(id);
        assert_eq!(
            (answer["route"].as_str(), answer["reason"].as_str()),
            (Some("local"), Some("local_only")),
            "{answer}"
        );
    }
    let answer = device.answer("p-3");
    assert!(["cloud_answered", "cloud_less_sure"].contains(&answer["reason"].as_str().unwrap()), "{answer}");
    assert!(device.frames().iter().any(|f| f["id"] == "p-3" && f["provisional"] == true));
    assert_eq!(observer.seen().topics.len(), 1, "only the third prompt left the gateway");
    drop(worker);
}

/// The ids of the prompts that left the gateway so far.
fn escalated(observer: &Device) -> Vec<String> {
    let seen = observer.seen();
    let escalations = seen.payloads.iter().map(|bytes| decode_escalation(bytes).unwrap());
    escalations.filter_map(|escalation| escalation.prompt.id).map(|id| id.as_str().to_owned()).collect()
}

/// A predictor that returns a constant keeps both or escalates both. What is looked at is the decision: on a busy
/// machine the cloud may come too late as well.
#[test]
fn a_predicted_wait_past_the_deadline_asks_the_cloud() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("tg/v1/+/+/escalate/+");
    let mut setup = Setup::bridged(central.port);
    setup.more.push_str(SPELL);
    setup.model = slow_model(setup.folder.path());
    let gateway = setup.start();
    gateway.until_ready();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"w-0","task":"spell","input":"first"}"#);
    let took = device.answer("w-0")["timing"]["total_ms"].as_u64().unwrap();
    let deadline = took * 3;
    for number in 1..=8 {
        device.prompt(format!(r#"{{"id":"w-{number}","task":"spell","input":"hurry","deadline_ms":{deadline}}}"#));
    }
    // Those between may fall on either side.
    for id in ["w-1", "w-8"] {
        device.outcome(id);
    }
    until("the last at the broker, behind seven others", || {
        escalated(&observer).contains(&"w-8".to_owned()).then_some(())
    });
    assert!(!escalated(&observer).contains(&"w-1".to_owned()), "the first is in time");
    drop(worker);
}

#[test]
fn while_the_link_is_silent_local_answers_go_on_and_escalations_wait() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let proxy = Proxy::to(central.port);
    let gateway = Setup::bridged(proxy.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    proxy.cut();
    for number in 0..5 {
        device
            .prompt(format!(r#"{{"id":"e-{number}","task":"doubted","input":"seventeen grommets whistle at noon"}}"#));
        device.prompt(format!(r#"{{"id":"l-{number}","input":"turn on the kitchen light"}}"#));
    }
    for number in 0..5 {
        assert_eq!(device.answer(&format!("l-{number}"))["route"], "local");
    }
    gateway.until_status("the escalations on disk", |s| s["load"]["outbox"]["entries"] == 5);
    gateway.until_status("the dead link seen", |s| s["health"]["link"] == "down");
    proxy.mend();
    for number in 0..5 {
        let answer = device.answer(&format!("e-{number}"));
        assert!(answer["reason"].as_str().unwrap().starts_with("cloud_"), "{answer}");
    }
    device.fence("f-1");
    for number in 0..5 {
        assert_eq!(device.outcomes(&format!("e-{number}")).len(), 1, "one outcome each");
    }
    gateway.until_status("an empty outbox", |s| s["load"]["outbox"]["entries"] == 0);
    drop(worker);
}

#[test]
fn a_broker_that_forgot_everything_gets_the_escalations_again() {
    let mut central = Central::start();
    let gateway = Setup::bridged(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"r-1","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    // Nobody subscribes escalations: the broker says so, and the escalation counts as not sent.
    gateway.until_status("a publish", |s| s["escalations"]["published"].as_u64() > Some(0));
    central.restart();
    let worker = Worker::start(central.port, "info");
    let answer = device.answer("r-1");
    assert!(answer["reason"].as_str().unwrap().starts_with("cloud_"), "{answer}");
    drop(worker);
}
