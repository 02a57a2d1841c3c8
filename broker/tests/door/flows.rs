//! Publishes, acknowledgements and subscriptions, statement by statement (`CONFORMANCE.md`).

use crate::support::*;
use bytes::Bytes;
use rumqttc::{Packet, QoS};
use tidegate_schemas::{DeviceId, JobId};

const SESSION_EXPIRY_60: [u8; 5] = [0x11, 0, 0, 0, 60];

fn device() -> DeviceId {
    "local-1".parse().unwrap()
}

async fn v4(door: &tidegate_broker::Door, id: &str) -> Raw {
    let mut raw = Raw::open(door).await;
    raw.send(&connect_v4(id, 0)).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw
}

/// SUBSCRIBE or UNSUBSCRIBE with filters and, for the first, an options byte each.
fn asking(first: u8, v5: bool, filters: &[(&str, Option<u8>)]) -> Vec<u8> {
    let mut body = vec![0, 9];
    body.extend(v5.then_some(0));
    for (filter, options) in filters {
        body.extend(text(filter));
        body.extend(options);
    }
    packet(first, &body)
}

#[tokio::test]
async fn after_its_last_acknowledgement_an_identifier_is_new_again_whatever_dup_says() {
    let (door, keeper) = door().await;
    let mut raw = v4(&door, "c").await;
    for flags in [2, 2 | 8] {
        raw.send(&publish_v4(flags, PROMPT.as_bytes(), Some(1), b"one")).await;
        raw.expect(&[0x40, 2, 0, 1]).await;
    }
    for _ in 0..2 {
        raw.send(&publish_v4(4, PROMPT.as_bytes(), Some(2), b"two")).await;
        raw.expect(&[0x50, 2, 0, 2]).await;
        raw.send(&[0x62, 2, 0, 2]).await;
        raw.expect(&[0x70, 2, 0, 2]).await;
    }
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 4);
}

#[tokio::test]
async fn a_refused_qos_2_publish_frees_its_identifier() {
    let (door, keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    raw.send(&publish_v5(4, PROMPT, Some(5), &[], b"refuse")).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, &body[..3]), (0x50, [0, 5, 0x97].as_slice()));
    raw.send(&publish_v5(4, PROMPT, Some(5), &[], b"fine")).await;
    assert_eq!(raw.packet().await.unwrap(), (0x50, vec![0, 5]));
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 1);
    // PUBREL of what nobody knows has its reason, and ends nothing.
    raw.send(&[0x62, 2, 0, 6]).await;
    assert_eq!(raw.packet().await.unwrap(), (0x70, vec![0, 6, 0x92, 0]));
}

#[tokio::test]
async fn an_outcome_that_its_client_refuses_is_not_sent_again() {
    let (door, keeper) = door().await;
    keeper.keep_outcome("local-1", 1, "one");
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 0, 0, &SESSION_EXPIRY_60)).await;
    assert_eq!(raw.packet().await.unwrap().1[..2], [0, 0]);
    assert_eq!(raw.subscribe_v5(ANSWER, 1).await, 1);
    let (_, body) = raw.packet().await.unwrap();
    let at = text(ANSWER).len();
    raw.send(&packet(0x40, &[body[at], body[at + 1], 0x80, 0])).await;
    keeper.until(|store| store.released.contains(&JobId(1))).await;
    drop(raw);
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 0, 0, &SESSION_EXPIRY_60)).await;
    assert_eq!(raw.packet().await.unwrap().1[..2], [1, 0]);
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap().0, 0xd0, "nothing comes again");
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_in_its_order_with_its_identifiers() {
    let (door, keeper) = door().await;
    (0..3).for_each(|job| keeper.keep_outcome("local-1", job, &job.to_string()));
    let mut connect = connect_v4("c", 0);
    connect[9] = 0;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
    raw.send(&asking(0x82, false, &[(ANSWER, Some(1))])).await;
    assert_eq!(raw.packet().await.unwrap().0, 0x90);
    let mut sent = Vec::new();
    for _ in 0..3 {
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!(first, 0x32, "QoS 1, not sent before");
        sent.push(body);
    }
    drop(raw);
    let mut raw = Raw::open(&door).await;
    raw.send(&connect).await;
    raw.expect(&[0x20, 2, 1, 0]).await;
    for body in sent {
        assert_eq!(raw.packet().await.unwrap(), (0x3a, body), "with DUP");
    }
}

#[tokio::test]
async fn overlapping_subscriptions_bring_one_copy_at_the_highest_qos() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    client.subscribe(ANSWER, QoS::AtMostOnce).await;
    client.subscribe("tg/v1/+/+/answer/+", QoS::AtLeastOnce).await;
    keeper.keep_outcome("local-1", 1, "one");
    door.outcome_ready(&device(), JobId(1), Bytes::from_static(b"one"));
    let Packet::Publish(first) = client.next().await else { panic!("the outcome comes") };
    assert_eq!((first.qos, first.payload.as_ref()), (QoS::AtLeastOnce, b"one".as_slice()));
    keeper.until(|store| store.released == [JobId(1)]).await;
    client.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "fence").await.unwrap();
    assert_eq!(client.message().await.1, "accepted", "no second copy came before");
}

#[tokio::test]
async fn a_subscription_replaces_the_one_with_the_same_filter() {
    let (door, keeper) = door().await;
    let mut client = Client::connect(&door, "c").await;
    client.subscribe(ANSWER, QoS::AtLeastOnce).await;
    client.subscribe(ANSWER, QoS::AtMostOnce).await;
    keeper.keep_outcome("local-1", 1, "one");
    door.outcome_ready(&device(), JobId(1), Bytes::from_static(b"one"));
    let Packet::Publish(first) = client.next().await else { panic!("the outcome comes") };
    assert_eq!((first.qos, first.payload.as_ref()), (QoS::AtMostOnce, b"one".as_slice()));
}

#[tokio::test]
async fn one_suback_has_a_code_for_each_filter_in_their_order() {
    let (door, _keeper) = door().await;
    let filters = [(ANSWER, Some(1)), ("tg/v1/s/g/answer/d7", Some(1)), ("plant/+", Some(0)), ("a/#/b", Some(2))];
    let mut raw = v4(&door, "four").await;
    raw.send(&asking(0x82, false, &filters)).await;
    raw.expect(&[0x90, 6, 0, 9, 1, 0x80, 0, 0x80]).await;
    let (mut raw, _) = Raw::greet_v5(&door, "five", &[]).await;
    raw.send(&asking(0x82, true, &filters)).await;
    raw.expect(&[0x90, 7, 0, 9, 0, 1, 0x87, 0, 0x8f]).await;
}

#[tokio::test]
async fn one_unsuback_has_a_code_for_each_filter_and_filters_are_compared_as_they_are() {
    let (door, _keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    for filter in ["a/+", "a/b", ANSWER] {
        raw.subscribe_v5(filter, 0).await;
    }
    let filters = [("a/x", None), ("a/+", None), ("A/b", None), (ANSWER, None)];
    raw.send(&asking(0xa2, true, &filters)).await;
    raw.expect(&[0xb0, 7, 0, 9, 0, 0x11, 0, 0x11, 0]).await;
    for (topic, qos) in [("a/c", None), ("a/b", Some(1))] {
        let flags = if qos.is_some() { 2 } else { 0 };
        raw.send(&publish_v5(flags, topic, qos, &[], b"x")).await;
    }
    let mut packets = vec![raw.packet().await.unwrap(), raw.packet().await.unwrap()];
    packets.sort();
    assert_eq!(packets[0].0 & 0xf0, 0x30, "{packets:02x?}");
    assert!(packets[0].1.starts_with(&text("a/b")), "what still stands brings its message, the other none");
    assert_eq!(packets[1].0, 0x40);
}

#[tokio::test]
async fn a_delivery_that_was_begun_is_completed_after_its_unsubscribe() {
    let (door, keeper) = door().await;
    keeper.keep_outcome("local-1", 1, "one");
    let mut raw = v4(&door, "c").await;
    raw.send(&asking(0x82, false, &[(ANSWER, Some(1))])).await;
    assert_eq!(raw.packet().await.unwrap().0, 0x90);
    let (_, body) = raw.packet().await.unwrap();
    raw.send(&asking(0xa2, false, &[(ANSWER, None)])).await;
    raw.expect(&[0xb0, 2, 0, 9]).await;
    let at = text(ANSWER).len();
    raw.send(&packet(0x40, &body[at..at + 2])).await;
    keeper.until(|store| store.released == [JobId(1)]).await;
    // And nothing new comes.
    keeper.keep_outcome("local-1", 2, "two");
    door.outcome_ready(&device(), JobId(2), Bytes::from_static(b"two"));
    raw.send(&publish_v4(2, PROMPT.as_bytes(), Some(1), b"fence")).await;
    raw.expect(&[0x40, 2, 0, 1]).await;
}

#[tokio::test]
async fn dup_is_not_passed_on_and_neither_is_anothers_identifier() {
    let (door, _keeper) = door().await;
    let mut reader = Client::connect(&door, "reader").await;
    reader.subscribe("n", QoS::AtLeastOnce).await;
    let mut raw = v4(&door, "w").await;
    raw.send(&publish_v4(2 | 8, b"n", Some(700), b"x")).await;
    raw.expect(&[0x40, 2, 2, 0xbc]).await;
    let Packet::Publish(publish) = reader.next().await else { panic!("it comes") };
    assert!(!publish.dup && publish.pkid != 700, "{publish:?}");
}

#[tokio::test]
async fn topics_are_compared_as_they_are() {
    let (door, _keeper) = door().await;
    let mut reader = Client::connect(&door, "reader").await;
    let all = ["x/\u{e9}", "x/e\u{301}", "x/\u{feff}y", "x/y", "x//y", "X/y"];
    for filter in [all[0], all[2], all[4]] {
        reader.subscribe(filter, QoS::AtLeastOnce).await;
    }
    let writer = Client::connect(&door, "writer").await;
    for topic in all {
        writer.mqtt.publish(topic, QoS::AtLeastOnce, false, "x").await.unwrap();
    }
    for expect in [all[0], all[2], all[4]] {
        assert_eq!(reader.message().await.0, expect);
    }
}

#[tokio::test]
async fn a_retained_message_takes_the_place_of_the_last() {
    let (door, _keeper) = door().await;
    let mut writer = Client::connect(&door, "writer").await;
    for (qos, word) in [(QoS::AtLeastOnce, "first"), (QoS::AtMostOnce, "second"), (QoS::AtLeastOnce, "third")] {
        writer.mqtt.publish("kept/x", qos, true, word).await.unwrap();
    }
    assert!(matches!(writer.next().await, Packet::PubAck(_)) && matches!(writer.next().await, Packet::PubAck(_)));
    let mut late = Client::connect(&door, "late").await;
    late.mqtt.subscribe("kept/+", QoS::AtLeastOnce).await.unwrap();
    late.mqtt.publish("kept/end", QoS::AtLeastOnce, false, "end").await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        if let Packet::Publish(publish) = late.next().await {
            seen.push((publish.payload, publish.retain));
        }
    }
    assert_eq!(seen, [(Bytes::from_static(b"third"), true), (Bytes::from_static(b"end"), false)]);
}

#[tokio::test]
async fn an_alias_does_not_outlive_its_connection() {
    let (door, keeper) = door().await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 0, 0, &SESSION_EXPIRY_60)).await;
    raw.packet().await.unwrap();
    for alias in [1, 16] {
        raw.send(&publish_v5(2, PROMPT, Some(1), &[0x23, 0, alias], b"named")).await;
        assert_eq!(raw.packet().await.unwrap().0, 0x40);
    }
    drop(raw);
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 0, 0, &SESSION_EXPIRY_60)).await;
    assert_eq!(raw.packet().await.unwrap().1[0], 1, "the session is there");
    raw.send(&publish_v5(2, "", Some(2), &[0x23, 0, 1], b"nameless")).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x94));
    assert!(raw.rest().await.is_empty(), "nothing follows DISCONNECT");
    assert_eq!(keeper.store.lock().unwrap().prompts.len(), 2);
}
