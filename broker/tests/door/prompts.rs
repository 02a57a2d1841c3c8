//! Prompts: acknowledged after the verdict, in order, refusals said before.

use crate::support::*;
use rumqttc::{Packet, QoS};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn a_puback_waits_for_the_disk_and_keeps_the_order() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    keeper.gate.send_replace(false);
    for word in ["one", "refuse two", "three"] {
        client.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, word).await.unwrap();
    }
    let early = timeout(Duration::from_millis(200), client.packets.recv()).await;
    assert!(early.is_err(), "nothing is acknowledged before the first is on disk, got {early:?}");
    keeper.gate.send_replace(true);
    for id in 1..=3 {
        assert!(matches!(client.next().await, Packet::PubAck(ack) if ack.pkid == id));
    }
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 2);
}

#[tokio::test]
async fn a_refused_prompt_of_a_3_1_1_client_gets_its_frame_before_the_puback() {
    let (door, _keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    client.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "refuse me").await.unwrap();
    let Packet::Publish(frame) = client.next().await else { panic!("the frame comes first") };
    assert_eq!((frame.qos, frame.payload.as_ref()), (QoS::AtLeastOnce, b"!busy: full".as_slice()));
    assert!(matches!(client.next().await, Packet::PubAck(_)));
}

#[tokio::test]
async fn an_accepted_frame_comes_before_the_puback_and_to_every_listener() {
    let (door, _keeper) = door().await;
    let mut other = Client::connect(&door, "other").await;
    other.subscribe("tg/v1/+/+/answer/+", QoS::AtMostOnce).await;
    let mut client = Client::connect(&door, "c").await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    client.mqtt.publish(PROMPT, QoS::ExactlyOnce, false, "hello").await.unwrap();
    let Packet::Publish(frame) = client.next().await else { panic!("the frame comes first") };
    assert_eq!((frame.qos, frame.payload.as_ref()), (QoS::AtMostOnce, b"accepted".as_slice()));
    assert!(matches!(client.next().await, Packet::PubRec(_)));
    assert!(matches!(client.next().await, Packet::PubComp(_)));
    assert_eq!(other.message().await, (ANSWER.to_owned(), "accepted".to_owned()));
}

#[tokio::test]
async fn mqtt_5_reason_codes_tell_why() {
    use rumqttc::v5::mqttbytes::v5::{Packet, PubAckReason, PublishProperties};
    use rumqttc::v5::{AsyncClient, Event, MqttOptions, mqttbytes::QoS};
    let (door, keeper) = door().await;
    let addr = door.local_addrs()[0];
    let mut options = MqttOptions::new("c5", addr.ip().to_string(), addr.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, mut events) = AsyncClient::new(options, 10);
    let publish = |topic: &'static str, word: &'static str, properties| {
        client.publish_with_properties(topic, QoS::AtLeastOnce, false, word, properties)
    };
    let expiry = PublishProperties { message_expiry_interval: Some(7), ..PublishProperties::default() };
    let lost = PublishProperties { response_topic: Some("elsewhere".to_owned()), ..PublishProperties::default() };
    publish(PROMPT, "fine", expiry).await.unwrap();
    publish(PROMPT, "refuse", PublishProperties::default()).await.unwrap();
    publish("tg/v1/s/g/prompt/d7", "not mine", PublishProperties::default()).await.unwrap();
    publish("tg/v1/s/g/escalate/local-1", "not mine", PublishProperties::default()).await.unwrap();
    publish(PROMPT, "answer elsewhere", lost).await.unwrap();
    let mut reasons = Vec::new();
    let mut announced = None;
    while reasons.len() < 5 {
        match timeout(PATIENCE, events.poll()).await.unwrap().unwrap() {
            Event::Incoming(Packet::PubAck(ack)) => reasons.push(ack.reason),
            Event::Incoming(Packet::ConnAck(ack)) => announced = ack.properties,
            _ => {}
        }
    }
    use PubAckReason::{NotAuthorized, QuotaExceeded, Success};
    assert_eq!(reasons, [Success, QuotaExceeded, NotAuthorized, NotAuthorized, NotAuthorized]);
    assert_eq!(keeper.store.lock().unwrap().expiry, [Some(7000)]);
    let announced = announced.unwrap();
    assert_eq!((announced.receive_max, announced.shared_subscription_available), (Some(64), Some(0)));
}

#[tokio::test]
async fn a_repeated_qos_2_publish_is_kept_once_and_across_a_reconnect() {
    let (door, keeper) = door().await;
    let mut connect = connect_v4("q2", 0);
    connect[9] = 0;
    let prompt = publish_v4(4, PROMPT.as_bytes(), Some(9), b"once");
    let mut raw = Raw::open(&door).await;
    raw.send(&connect).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&prompt).await;
    raw.expect(&[0x50, 2, 0, 9]).await;
    drop(raw);
    let mut raw = Raw::open(&door).await;
    raw.send(&connect).await;
    raw.expect(&[0x20, 2, 1, 0]).await;
    let mut again = prompt;
    again[0] |= 8;
    raw.send(&again).await;
    raw.expect(&[0x50, 2, 0, 9]).await;
    raw.send(&[0x62, 2, 0, 9]).await;
    raw.expect(&[0x70, 2, 0, 9]).await;
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 1);
}

#[tokio::test]
async fn a_retained_prompt_is_refused() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    client.mqtt.publish(PROMPT, QoS::AtLeastOnce, true, "{\"v\":1,\"id\":\"a\",\"input\":\"x\"}").await.unwrap();
    let (_, frame) = client.message().await;
    assert!(frame.contains("not_allowed") && frame.contains("\"id\":\"a\""), "{frame}");
    assert!(keeper.store.lock().unwrap().prompts.is_empty());
}
