//! A broker that takes everything behind the door: general traffic passes whole, in the client's protocol version.

use crate::behind::whole_door;
use crate::support::*;
use rumqttc::v5::mqttbytes::QoS as QoS5;
use rumqttc::v5::mqttbytes::v5::{
    ConnectReturnCode, Filter, LastWill, LastWillProperties, Packet as Packet5, PubAckReason, Publish as Publish5,
    PublishProperties, SubscribeProperties,
};
use rumqttc::v5::{AsyncClient, Event, EventLoop, MqttOptions};
use rumqttc::{Packet, QoS};
use std::time::Duration;
use tidegate_broker::Door;
use tokio::time::timeout;

fn options(door: &Door, id: &str) -> MqttOptions {
    let addr = door.local_addrs()[0];
    let mut options = MqttOptions::new(id, addr.ip().to_string(), addr.port());
    options.set_keep_alive(Duration::from_secs(30));
    options
}

async fn next(events: &mut EventLoop) -> Packet5 {
    loop {
        if let Event::Incoming(packet) = timeout(PATIENCE, events.poll()).await.unwrap().unwrap() {
            return packet;
        }
    }
}

async fn message(events: &mut EventLoop) -> Publish5 {
    loop {
        if let Packet5::Publish(publish) = next(events).await {
            return publish;
        }
    }
}

async fn subscribed(client: &AsyncClient, events: &mut EventLoop, filter: Filter, id: Option<usize>) {
    let properties = SubscribeProperties { id, user_properties: Vec::new() };
    client.subscribe_many_with_properties([filter], properties).await.unwrap();
    while !matches!(next(events).await, Packet5::SubAck(_)) {}
}

#[tokio::test]
async fn qos_2_passes_whole_between_3_1_1_clients() {
    let (door, _keeper, _broker) = whole_door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("plant/#", QoS::ExactlyOnce).await;
    let mut writer = Client::connect(&door, "writer").await;
    for (at, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
        writer.mqtt.publish("plant/é", qos, false, at.to_string()).await.unwrap();
        loop {
            if let Packet::Publish(publish) = reader.next().await {
                assert_eq!((publish.qos, publish.payload.as_ref()), (qos, at.to_string().as_bytes()));
                break;
            }
        }
    }
    assert!(matches!(writer.next().await, Packet::PubAck(_)));
    assert!(matches!(writer.next().await, Packet::PubRec(_)));
    assert!(matches!(writer.next().await, Packet::PubComp(_)));
    assert!(matches!(reader.next().await, Packet::PubRel(_)), "the reader's side of QoS 2 is completed");
}

#[tokio::test]
async fn properties_identifiers_and_options_of_mqtt_5_pass_whole() {
    let (door, _keeper, _broker) = whole_door().await;
    let (client, mut events) = AsyncClient::new(options(&door, "c"), 10);
    let Packet5::ConnAck(ack) = next(&mut events).await else { panic!("CONNACK comes first") };
    assert_eq!(ack.code, ConnectReturnCode::Success);
    let said = ack.properties.unwrap();
    let unavailable = |flag: Option<u8>| flag == Some(0);
    assert!(!unavailable(said.shared_subscription_available) && !unavailable(said.wildcard_subscription_available));
    assert!(!unavailable(said.subscription_identifiers_available) && !unavailable(said.retain_available));
    let mut as_published = Filter::new("t/#", QoS5::ExactlyOnce);
    as_published.preserve_retain = true;
    subscribed(&client, &mut events, as_published, Some(300)).await;
    let mut not_mine = Filter::new("own/#", QoS5::AtLeastOnce);
    not_mine.nolocal = true;
    subscribed(&client, &mut events, not_mine, None).await;
    let properties = PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(60),
        response_topic: Some("answers/here".to_owned()),
        correlation_data: Some(bytes::Bytes::from_static(b"\x00\xff")),
        user_properties: vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())],
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    };
    client.publish("own/x", QoS5::AtLeastOnce, false, "not to me").await.unwrap();
    client.publish_with_properties("t/x", QoS5::ExactlyOnce, true, "hi", properties.clone()).await.unwrap();
    let publish = message(&mut events).await;
    let got = publish.properties.unwrap();
    assert_eq!((publish.qos, publish.retain, publish.payload.as_ref()), (QoS5::ExactlyOnce, true, b"hi".as_slice()));
    assert_eq!(got.subscription_identifiers, [300]);
    assert!(got.message_expiry_interval.is_some_and(|s| (55..=60).contains(&s)), "{got:?}");
    let with_expiry = PublishProperties {
        message_expiry_interval: properties.message_expiry_interval,
        subscription_identifiers: Vec::new(),
        ..got
    };
    assert_eq!(with_expiry, properties);
}

#[tokio::test]
async fn retained_messages_and_the_backends_reason_codes_pass() {
    let (door, _keeper, _broker) = whole_door().await;
    let (client, mut events) = AsyncClient::new(options(&door, "c"), 10);
    client.publish("nobody/listens", QoS5::AtLeastOnce, false, "x").await.unwrap();
    client.publish("state/x", QoS5::AtLeastOnce, true, "kept").await.unwrap();
    let mut reasons = Vec::new();
    while reasons.len() < 2 {
        if let Packet5::PubAck(ack) = next(&mut events).await {
            reasons.push(ack.reason);
        }
    }
    assert_eq!(reasons[0], PubAckReason::NoMatchingSubscribers);
    let mut late = Client::connect(&door, "late").await;
    late.mqtt.subscribe("state/+", QoS::AtLeastOnce).await.unwrap();
    loop {
        if let Packet::Publish(publish) = late.next().await {
            assert_eq!((publish.retain, publish.payload.as_ref()), (true, b"kept".as_slice()));
            break;
        }
    }
}

#[tokio::test]
async fn a_shared_subscription_divides_what_comes() {
    let (door, keeper, _broker) = whole_door().await;
    let mut members = Vec::new();
    for id in ["one", "two"] {
        let mut member = Client::connect(&door, id).await;
        member.subscribe("$share/g/work/+", QoS::AtLeastOnce).await;
        members.push(member);
    }
    for (filter, code) in [("$share/g/tg/v1/s/g/answer/local-1", 0x80), ("$share//x", 0x80), ("$share/+/x", 0x80)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect_v4("raw", 0)).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        let mut body = vec![0, 1];
        body.extend(text(filter));
        body.push(1);
        raw.send(&packet(0x82, &body)).await;
        raw.expect(&[0x90, 3, 0, 1, code]).await;
    }
    let writer = Client::connect(&door, "writer").await;
    for n in 0..20 {
        writer.mqtt.publish(format!("work/{n}"), QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
    }
    let mut got = Vec::new();
    let [one, two] = &mut members[..] else { panic!("two members") };
    let (mut first, mut second) = (0, 0);
    while got.len() < 20 {
        let (word, share) = tokio::select! {
            (_, word) = one.message() => (word, &mut first),
            (_, word) = two.message() => (word, &mut second),
        };
        got.push(word);
        *share += 1;
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), 20, "each came once");
    assert!(first > 0 && second > 0, "{first} and {second}");
    assert_eq!(keeper.store.lock().unwrap().handed, 0);
}

/// The raw client's side of a QoS 2 delivery, broken off at every stage.
#[tokio::test]
async fn a_qos_2_delivery_goes_on_over_reconnects() {
    let (door, _keeper, _broker) = whole_door().await;
    let mut connect = connect_v4("q2", 0);
    connect[9] = 0;
    let online = async |present: u8| {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect).await;
        raw.expect(&[0x20, 2, present, 0]).await;
        raw
    };
    let mut raw = online(0).await;
    raw.send(&[0x82, 6, 0, 1, 0, 1, b'n', 2]).await;
    raw.expect(&[0x90, 3, 0, 1, 2]).await;
    let writer = Client::connect(&door, "writer").await;
    writer.mqtt.publish("n", QoS::ExactlyOnce, false, "once").await.unwrap();
    let (first, publish) = raw.packet().await.unwrap();
    assert_eq!((first, &publish[5..]), (0x34, b"once".as_slice()));
    let id = [publish[3], publish[4]];
    drop(raw);
    let mut raw = online(1).await;
    let (first, again) = raw.packet().await.unwrap();
    assert_eq!((first, &again), (0x3c, &publish), "the same packet id, with DUP");
    raw.send(&packet(0x50, &id)).await;
    assert_eq!(raw.packet().await.unwrap(), (0x62, id.to_vec()));
    drop(raw);
    let mut raw = online(1).await;
    assert_eq!(raw.packet().await.unwrap(), (0x62, id.to_vec()), "what comes again is the release");
    raw.send(&packet(0x70, &id)).await;
    writer.mqtt.publish("n", QoS::ExactlyOnce, false, "more").await.unwrap();
    let (first, more) = raw.packet().await.unwrap();
    assert_eq!((first, &more[5..]), (0x34, b"more".as_slice()), "nothing comes twice");
}

#[tokio::test]
async fn a_qos_2_publish_that_is_sent_again_is_delivered_once() {
    let (door, _keeper, _broker) = whole_door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n", QoS::ExactlyOnce).await;
    let mut connect = connect_v4("w", 0);
    connect[9] = 0;
    for (at, present) in [(0, 0), (8, 1), (8, 1)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect).await;
        raw.expect(&[0x20, 2, present, 0]).await;
        // The connection ends at once: whether the backend has it, the door has to know.
        raw.send(&publish_v4(4 | at, b"n", Some(9), b"once")).await;
        if present == 1 {
            raw.expect(&[0x50, 2, 0, 9]).await;
        }
    }
    let mut raw = Raw::open(&door).await;
    raw.send(&connect).await;
    raw.expect(&[0x20, 2, 1, 0]).await;
    raw.send(&[0x62, 2, 0, 9]).await;
    raw.expect(&[0x70, 2, 0, 9]).await;
    raw.send(&publish_v4(2, b"n", Some(10), b"end")).await;
    raw.expect(&[0x40, 2, 0, 10]).await;
    assert_eq!(reader.message().await.1, "once");
    assert_eq!(reader.message().await.1, "end");
}

#[tokio::test]
async fn clients_and_prompts_stay_while_the_backend_restarts() {
    let (door, keeper, mut broker) = whole_door().await;
    door.publish_state("tg/v1/s/g/state/health".to_owned(), bytes::Bytes::from_static(b"up"));
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n", QoS::AtLeastOnce).await;
    reader.subscribe("tg/v1/s/g/state/+", QoS::AtLeastOnce).await;
    assert_eq!(reader.message().await.1, "up");
    let mut writer = Client::connect(&door, "writer").await;
    writer.mqtt.publish("n", QoS::AtLeastOnce, false, "before").await.unwrap();
    assert_eq!(reader.message().await.1, "before");
    assert!(matches!(writer.next().await, Packet::PubAck(_)));
    broker.stop();
    until(|| door.stats().backend_restarts == 1).await;
    writer.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "a prompt").await.unwrap();
    assert!(matches!(writer.next().await, Packet::PubAck(_)), "prompts need no backend");
    writer.mqtt.publish("n", QoS::AtLeastOnce, false, "during").await.unwrap();
    broker.again().await;
    assert!(matches!(writer.next().await, Packet::PubAck(_)), "it is acknowledged when the backend has it");
    loop {
        let (topic, word) = reader.message().await;
        if topic == "n" {
            assert_eq!(word, "during");
            break;
        }
    }
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 1);
    assert_eq!(door.stats().connections, 2);
}

#[tokio::test]
async fn a_will_of_mqtt_5_keeps_its_properties() {
    let (door, _keeper, _broker) = whole_door().await;
    let (watcher, mut seen) = AsyncClient::new(options(&door, "watcher"), 10);
    subscribed(&watcher, &mut seen, Filter::new("wills/#", QoS5::ExactlyOnce), None).await;
    let mut rude = options(&door, "rude");
    let said = LastWillProperties {
        delay_interval: None,
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: vec![("why".to_owned(), "power".to_owned())],
    };
    rude.set_last_will(LastWill::new("wills/rude", "gone", QoS5::ExactlyOnce, false, Some(said)));
    let (_client, mut events) = AsyncClient::new(rude, 10);
    assert!(matches!(next(&mut events).await, Packet5::ConnAck(_)));
    drop(events);
    let will = message(&mut seen).await;
    let said = will.properties.unwrap();
    assert_eq!((will.qos, will.payload.as_ref()), (QoS5::ExactlyOnce, b"gone".as_slice()));
    assert_eq!(said.content_type.as_deref(), Some("text/plain"));
    assert_eq!(said.user_properties, [("why".to_owned(), "power".to_owned())]);
}

#[tokio::test]
async fn a_door_opens_without_its_backend_and_finds_it_later() {
    let mut broker = crate::behind::Mosquitto::start().await;
    broker.stop();
    let mut config = config();
    config.backend = tidegate_broker::BackendConfig::Mqtt { addr: broker.addr, user: None, password_file: None };
    let (door, keeper) = door_with(config).await;
    let mut client = Client::connect(&door, "c").await;
    client.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "a prompt").await.unwrap();
    keeper.until(|store| store.prompts.len() == 1).await;
    client.mqtt.publish("n", QoS::AtLeastOnce, false, "general").await.unwrap();
    assert!(matches!(client.next().await, Packet::PubAck(ack) if ack.pkid == 1));
    broker.again().await;
    assert!(matches!(client.next().await, Packet::PubAck(ack) if ack.pkid == 2));
}
