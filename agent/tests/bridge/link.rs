//! Links that fail: addresses that are dead, peers of the older version.

use crate::brokers::{Mosquitto, only_three};
use crate::support::{Central, Device, Setup, Worker, free_port, until};
use tidegate_schemas::{JobId, decode_escalation, decode_resolution, encode};

#[test]
fn the_next_address_is_used_when_the_first_is_dead() {
    let central = Central::start();
    let mut setup = Setup::bridged(free_port());
    let others = format!("other_urls = [\"mqtt://127.0.0.1:{}\"]\n[tasks.action]", central.port);
    setup.more = setup.more.replacen("[tasks.action]", &others, 1);
    let gateway = setup.start();
    let status = gateway.until_status("the link", |s| s["health"]["link"] == "up");
    assert_eq!(status["bridge"]["broker"], format!("mqtt://127.0.0.1:{}", central.port));
    assert_eq!(status["bridge"]["mqtt"], "5");
}

#[test]
fn a_peer_of_the_older_version_gets_escalations_and_its_resolutions_come() {
    let central = Central::start();
    let worker = Worker::start(central.port, "info");
    let gateway = Setup::bridged(only_three(central.port)).start();
    let status = gateway.until_status("the link", |s| s["health"]["link"] == "up");
    assert_eq!(status["bridge"]["mqtt"], "3.1.1");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"o-1","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    let answer = device.answer("o-1");
    assert!(answer["reason"].as_str().unwrap().starts_with("cloud_"), "{answer}");
    gateway.until_status("an empty outbox", |s| s["load"]["outbox"]["entries"] == 0);
    drop(worker);
}

#[test]
fn state_is_at_the_central_broker_and_its_will_tells_of_a_death() {
    let central = Central::start();
    let mut gateway = Setup::bridged(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("tg/v1/site/gateway/state/health");
    observer.until_frame("a living gateway", |f| f["online"] == true && f["link"] == "up");
    gateway.process.kill();
    observer.until_frame("its will", |f| f["online"] == false);
}

#[test]
fn an_escalation_that_the_broker_refuses_for_good_ends_and_the_next_flows() {
    let acl = "topic read #\ntopic write tg/v1/site/gateway/state/+\ntopic write tg/v1/site/gateway/event/+\n";
    let central = Mosquitto::start_with("acl_file {dir}/acl", acl);
    let gateway = Setup::bridged(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("tg/v1/site/gateway/event/dead");
    let mut device = gateway.device("local-1");
    for id in ["d-1", "d-2"] {
        device.prompt(format!(r#"{{"id":"{id}","task":"doubted","input":"seventeen grommets whistle at noon"}}"#));
    }
    for id in ["d-1", "d-2"] {
        let answer = device.answer(id);
        assert_eq!(
            (answer["route"].as_str(), answer["provisional"].as_bool()),
            (Some("local"), Some(false)),
            "{answer}"
        );
    }
    // Letters are announced in sums.
    observer.until_frame("the dead letters", |f| f["message"].as_str().is_some_and(|m| m.contains("0x87")));
    gateway.until_status("an empty outbox", |s| s["load"]["outbox"]["entries"] == 0);
}

#[test]
fn an_escalation_that_goes_round_is_dropped_and_the_next_is_resolved() {
    let central = Central::start();
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("tg/v1/site/gateway/escalate/local-1");
    let gateway = Setup::bridged(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"r-1","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    let mut escalation = until("an escalation", || decode_escalation(observer.seen().payloads.first()?).ok());
    drop((device, gateway));
    let mut worker = Worker::start(central.port, "info");
    let mut asker = Device::observer(central.port, "asker");
    asker.subscribe("tg/v1/site/gateway/resolve/local-1");
    for (job, hops) in [(101, 5), (102, 4)] {
        (escalation.job, escalation.hops) = (JobId(job), hops);
        asker.publish_to("tg/v1/site/gateway/escalate/local-1".to_owned(), encode(&escalation));
    }
    let resolved = until("a resolution", || decode_resolution(asker.seen().payloads.first()?).ok());
    assert_eq!(resolved.job, JobId(102), "one worker answers in order of arrival");
    worker.process.wait_for_log("one that goes round");
}
