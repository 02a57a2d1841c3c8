//! Bad input gets one clear sentence on the wire, and the next prompt is answered.

use crate::support::{LONG, Setup, until};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason};
use rumqttc::v5::{Client, Event, MqttOptions};
use std::time::Duration;

#[test]
fn each_is_refused_by_name_and_the_next_prompt_is_answered() {
    let gateway = Setup::new().start();
    let mut device = gateway.device("local-1");
    let long_id = format!(r#"{{"id":"{}","input":"x"}}"#, "i".repeat(65));
    let cases: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("no encoding", vec![0xff, 0xfe, 0x00], "invalid", "0xff"),
        ("broken JSON", b"{\"input\":".to_vec(), "invalid", "EOF"),
        ("broken CBOR", vec![0xa1, 0x65, b'i'], "invalid", "EOF"),
        ("too large", vec![b'a'; 65 * 1024], "too_large", "66560 bytes, limit is 65536"),
        ("wrong type", br#"{"id":"b-1","input":5}"#.to_vec(), "invalid", "input"),
        ("unknown task", br#"{"id":"b-2","input":"x","task":"poem"}"#.to_vec(), "unknown_task", "poem"),
        ("long id", long_id.into_bytes(), "invalid", "id is 65 bytes, allowed are 1 to 64"),
        ("deadline 0", br#"{"input":"x","deadline_ms":0}"#.to_vec(), "invalid", "deadline_ms is 0, allowed are 1 to"),
        ("deadline -5", br#"{"input":"x","deadline_ms":-5}"#.to_vec(), "invalid", "deadline_ms is -5"),
        ("deadline 31 d", br#"{"input":"x","deadline_ms":2678400000}"#.to_vec(), "invalid", "2678400000"),
        ("no input", br#"{"id":"b-3"}"#.to_vec(), "invalid", "neither input nor messages"),
        ("empty", Vec::new(), "invalid", "payload is empty"),
    ];
    for (number, (name, payload, code, expect)) in cases.into_iter().enumerate() {
        let before = device.seen().payloads.len();
        device.prompt(payload);
        let refusal = until(&format!("the refusal of {name}"), || device.seen().payloads.get(before).cloned());
        let refusal = String::from_utf8_lossy(&refusal).into_owned();
        assert!(refusal.contains(code) && refusal.contains(expect), "{name}: {refusal} lacks {code} or {expect}");
        device.prompt(format!(r#"{{"id":"ok-{number}","input":"turn on the kitchen light"}}"#));
        device.answer(&format!("ok-{number}"));
    }
    device.until_acknowledged();
}

/// The reason codes of MQTT 5, table 2-6.
#[test]
fn an_mqtt_5_device_reads_the_reason_in_the_acknowledgement() {
    let gateway = Setup::new().start();
    let mut options = MqttOptions::new("five", "127.0.0.1", gateway.port);
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut connection) = Client::new(options, 10);
    let mut reason = |topic: &str, payload: Vec<u8>| {
        client.publish(format!("tg/v1/site/gateway/{topic}"), QoS::AtLeastOnce, false, payload).unwrap();
        loop {
            if let Event::Incoming(Packet::PubAck(ack)) = connection.recv_timeout(LONG).unwrap().unwrap() {
                break ack.reason;
            }
        }
    };
    let json = |text: &str| text.as_bytes().to_vec();
    for (payload, expect) in [
        (json("{\"input\":"), PubAckReason::PayloadFormatInvalid),
        (json("{\"input\":\"x\",\"deadline_ms\":0}"), PubAckReason::PayloadFormatInvalid),
        (vec![b'a'; 65 * 1024], PubAckReason::QuotaExceeded),
        (json("{\"input\":\"x\",\"task\":\"poem\"}"), PubAckReason::ImplementationSpecificError),
        (json("turn on the kitchen light"), PubAckReason::Success),
    ] {
        assert_eq!(reason("prompt/local-1", payload), expect);
    }
    assert_eq!(reason("prompt/press-7", json("turn on the light")), PubAckReason::NotAuthorized);
    assert_eq!(reason("prompt/local-1", json("turn on the kitchen light")), PubAckReason::Success);
}
