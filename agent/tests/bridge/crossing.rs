//! What crosses by rule: on disk before its PUBACK, at the central broker under its new name, nothing lost on the way.

use crate::brokers::Mosquitto;
use crate::support::{Central, Device, Proxy, Setup, until};
use rumqttc::{Client, Event, MqttOptions, Packet, QoS};
use std::collections::BTreeMap;

const RULES: &str = "\n[[bridge.forward]]\nfilter = \"sensors/#\"\nstrip = \"sensors/\"\nadd = \"quay/\"\n\
                     [[bridge.forward]]\nfilter = \"alarms/+\"\nclass = \"alarm\"\n";

fn ruled(central: u16) -> Setup {
    let mut setup = Setup::bridged(central);
    setup.more.push_str(RULES);
    setup
}

/// Publishes telemetry at QoS 1 and returns when all of it is acknowledged.
fn publish(port: u16, name: &str, messages: &[(String, String)]) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_keep_alive(std::time::Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, messages.len() + 1);
    for (topic, payload) in messages {
        client.publish(topic, QoS::AtLeastOnce, false, payload.clone()).unwrap();
    }
    let mut acknowledged = 0;
    for event in connection.iter() {
        if let Event::Incoming(Packet::PubAck(_)) = event.unwrap() {
            acknowledged += 1;
            if acknowledged == messages.len() {
                return;
            }
        }
    }
}

fn seen(observer: &Device) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let seen = observer.seen();
    for (topic, payload) in seen.topics.iter().zip(&seen.payloads) {
        *counts.entry(format!("{topic} {}", String::from_utf8_lossy(payload))).or_default() += 1;
    }
    counts
}

#[test]
fn what_was_acknowledged_in_an_outage_and_before_a_crash_arrives_once_the_link_is_back() {
    let central = Central::start();
    let proxy = Proxy::to(central.port);
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("quay/#");
    let setup = ruled(proxy.port);
    let mut gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    publish(gateway.port, "local-first", &[("sensors/0/t".to_owned(), "before".to_owned())]);
    until("the first", || seen(&observer).contains_key("quay/0/t before").then_some(()));
    proxy.cut();
    let messages: Vec<_> = (0..200).map(|n| (format!("sensors/{n}/t"), format!("value {n}"))).collect();
    publish(gateway.port, "local-pump", &messages);
    gateway.process.kill();
    let gateway = setup.start();
    proxy.mend();
    until("all of them", || (seen(&observer).len() >= 201).then_some(()));
    let seen = seen(&observer);
    for number in 0..200 {
        assert!(seen.contains_key(&format!("quay/{number}/t value {number}")), "{number} is lost");
    }
    drop(gateway);
}

#[test]
fn a_topic_that_no_rule_takes_stays_and_one_that_would_become_ours_stays_too() {
    let central = Central::start();
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("#");
    let mut setup = Setup::bridged(central.port);
    setup.more.push_str("\n[[bridge.forward]]\nfilter = \"x/#\"\nstrip = \"x/\"\n");
    let gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let messages = ["other/1", "x/tg/v1/site/gateway/prompt/local-1", "x/$SYS/y", "x/last"];
    let messages: Vec<_> = messages.iter().map(|topic| ((*topic).to_owned(), "value".to_owned())).collect();
    publish(gateway.port, "local-pump", &messages);
    until("the last", || seen(&observer).contains_key("last value").then_some(()));
    let ours = |topic: &&String| topic.starts_with("tg/v1/site/gateway/prompt") || topic.starts_with("other");
    assert_eq!(seen(&observer).keys().filter(ours).count(), 0);
}

#[test]
fn what_the_broker_refuses_for_good_becomes_a_dead_letter_and_the_next_flows() {
    let acl = "topic read #\ntopic write tg/v1/site/gateway/state/+\ntopic write tg/v1/site/gateway/event/+\n\
               topic write alarms/good\n";
    let central = Mosquitto::start_with("acl_file {dir}/acl", acl);
    let mut observer = Device::observer(central.port, "observer");
    observer.subscribe("alarms/#");
    observer.subscribe("tg/v1/site/gateway/event/dead");
    let gateway = ruled(central.port).start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let messages = ["bad", "good"].map(|name| (format!("alarms/{name}"), "fire".to_owned()));
    publish(gateway.port, "local-pump", &messages);
    until("the good one", || seen(&observer).contains_key("alarms/good fire").then_some(()));
    observer.until_frame("the dead letter", |f| f["message"].as_str().is_some_and(|m| m.contains("0x87")));
}
