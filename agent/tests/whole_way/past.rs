//! What the centre hears of an escalation's past: how long it waited for the link, and that it may have come before.

use crate::support::{Central, Proxy, Setup, Worker, until};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, Publish};
use rumqttc::v5::{Client, Event, MqttOptions};
use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use tidegate_schemas::decode_escalation;

/// An escalation as it came: its number of attempts, and what its user properties say.
struct Arrived {
    id: String,
    attempt: u32,
    past: BTreeMap<String, String>,
}

impl Arrived {
    fn of(publish: &Publish) -> Option<Self> {
        let escalation = decode_escalation(&publish.payload).ok()?;
        let user = publish.properties.as_ref().map(|p| p.user_properties.clone()).unwrap_or_default();
        Some(Self {
            id: escalation.prompt.id?.to_string(),
            attempt: escalation.attempt,
            past: user.into_iter().filter(|(name, _)| name.starts_with("tidegate-")).collect(),
        })
    }

    fn queued_ms(&self) -> u64 {
        self.past.get("tidegate-queued-ms").map_or(0, |ms| ms.parse().unwrap())
    }
}

/// Hears all escalations, as a worker would, and resolves none. MQTT 3.1.1 has no place for what they say.
fn observe(port: u16) -> Arc<Mutex<Vec<Arrived>>> {
    let (client, mut connection) = Client::new(MqttOptions::new("observer", "127.0.0.1", port), 10);
    client.subscribe("tg/v1/+/+/escalate/+", QoS::AtLeastOnce).unwrap();
    let arrived: Arc<Mutex<Vec<Arrived>>> = Arc::default();
    let (ready, is_ready) = sync_channel(1);
    let kept = arrived.clone();
    std::thread::spawn(move || {
        let _client = client;
        for event in connection.iter() {
            match event {
                Ok(Event::Incoming(Packet::SubAck(_))) => ready.send(()).unwrap(),
                Ok(Event::Incoming(Packet::Publish(publish))) => kept.lock().unwrap().extend(Arrived::of(&publish)),
                Ok(_) => {}
                // The broker ends with its test.
                Err(_) => return,
            }
        }
    });
    is_ready.recv().unwrap();
    arrived
}

#[test]
fn a_replayed_escalation_says_so_and_how_long_it_waited() {
    let central = Central::start();
    let arrived = observe(central.port);
    let of = |id: &str, count: usize| {
        until(&format!("arrival {count} of {id}"), || {
            let arrived = arrived.lock().unwrap();
            let found = arrived.iter().filter(|one| one.id == id).nth(count - 1)?;
            Some((found.attempt, found.past.clone(), found.queued_ms()))
        })
    };
    let proxy = Proxy::to(central.port);
    let setup = Setup::bridged(proxy.port);
    let mut gateway = setup.start();
    gateway.until_status("the link", |s| s["health"]["link"] == "up");
    let mut device = gateway.device("local-1");
    device.prompt(r#"{"id":"p-1","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    let (attempt, past, _) = of("p-1", 1);
    assert_eq!((attempt, past.contains_key("tidegate-replayed")), (1, false), "the first of its kind: {past:?}");
    // Into the silent link: whether it came, nobody knows.
    proxy.cut();
    device.prompt(r#"{"id":"p-2","task":"doubted","input":"seventeen grommets whistle at noon"}"#);
    gateway.until_status("a publish into the void", |s| s["escalations"]["published"].as_u64() >= Some(2));
    gateway.until_status("the dead link seen", |s| s["health"]["link"] == "down");
    proxy.mend();
    let (attempt, past, queued_ms) = of("p-2", 1);
    let replayed = |past: &BTreeMap<String, String>| {
        assert_eq!(past.get("tidegate-replayed").map(String::as_str), Some("true"), "{past:?}");
        past.get("tidegate-attempt").unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(replayed(&past), attempt);
    assert!(queued_ms >= 1_000, "the link was found dead after seconds: {past:?}");
    // What an earlier run may have published is told, too.
    let before = arrived.lock().unwrap().iter().filter(|one| one.id == "p-2").count();
    gateway.process.kill();
    let gateway = setup.start();
    let (attempt, past, queued_again_ms) = of("p-2", before + 1);
    assert_eq!(replayed(&past), attempt);
    assert!(queued_again_ms > queued_ms, "{queued_again_ms} ms after {queued_ms} ms");
    // Whatever was said twice has one outcome.
    let worker = Worker::start(central.port, "info");
    let mut device = gateway.device("local-1");
    for id in ["p-1", "p-2"] {
        device.answer(id);
    }
    device.fence("f-1");
    for id in ["p-1", "p-2"] {
        assert_eq!(device.outcomes(id).len(), 1, "one outcome of {id}");
    }
    drop(worker);
}
