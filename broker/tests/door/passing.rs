//! What MQTT 5 says of messages on their way through a broker that takes everything: expiry, identifiers, options.

use crate::behind::whole_door;
use crate::support::*;
use bytes::Bytes;
use std::time::Duration;
use tidegate_schemas::JobId;

const EXPIRES_IN_1: [u8; 5] = [0x02, 0, 0, 0, 1];
/// A moment in which a message of one second has expired, to the second.
const EXPIRED: Duration = Duration::from_millis(2_200);

/// SUBSCRIBE with a subscription identifier.
fn subscribe(filter: &str, options: u8, identifier: u8) -> Vec<u8> {
    let mut body = vec![0, 7, 2, 0x0b, identifier];
    body.extend(text(filter));
    body.push(options);
    packet(0x82, &body)
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() {
    let (door, _keeper, _broker) = whole_door().await;
    let (mut writer, _) = Raw::greet_v5(&door, "w", &[]).await;
    for (topic, properties) in [("kept/short", &EXPIRES_IN_1[..]), ("kept/long", &[])] {
        writer.send(&publish_v5(3, topic, Some(1), properties, b"x")).await;
        assert_eq!(writer.packet().await.unwrap().0, 0x40);
    }
    tokio::time::sleep(EXPIRED).await;
    let (mut late, _) = Raw::greet_v5(&door, "late", &[]).await;
    assert_eq!(late.subscribe_v5("kept/+", 0).await, 0);
    let (first, body) = late.packet().await.unwrap();
    assert!(first == 0x31 && body.starts_with(&text("kept/long")), "{first:#x} {body:02x?}");
    late.send(&publish_v5(0, "kept/end", None, &[], b"end")).await;
    assert!(late.packet().await.unwrap().1.ends_with(b"end"), "the other one does not come");
}

#[tokio::test]
async fn a_delivery_that_was_begun_is_completed_whatever_its_expiry() {
    let (door, _keeper, _broker) = whole_door().await;
    let online = async |present: u8| {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect_v5("r", 0, 0, &[0x11, 0, 0, 0, 60])).await;
        assert_eq!(raw.packet().await.unwrap().1[..2], [present, 0]);
        raw
    };
    let mut raw = online(0).await;
    assert_eq!(raw.subscribe_v5("n", 2).await, 2);
    let (mut writer, _) = Raw::greet_v5(&door, "w", &[]).await;
    writer.send(&publish_v5(4, "n", Some(1), &EXPIRES_IN_1, b"once")).await;
    let (first, publish) = raw.packet().await.unwrap();
    assert_eq!(first, 0x34);
    drop(raw);
    tokio::time::sleep(EXPIRED).await;
    let mut raw = online(1).await;
    let (first, again) = raw.packet().await.unwrap();
    assert_eq!((first, &again[..5]), (0x3c, &publish[..5]), "the same identifier, with DUP");
    let id = [publish[3], publish[4]];
    raw.send(&packet(0x50, &id)).await;
    assert_eq!(raw.packet().await.unwrap(), (0x62, id.to_vec()));
    raw.send(&packet(0x70, &id)).await;
    raw.send(&[0xc0, 0]).await;
    assert_eq!(raw.packet().await.unwrap().0, 0xd0);
}

#[tokio::test]
async fn the_identifiers_of_all_subscriptions_come_with_an_outcome() {
    let (door, keeper, _broker) = whole_door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    for (filter, identifier) in [(ANSWER, 5), ("tg/v1/+/+/answer/+", 6)] {
        raw.send(&subscribe(filter, 1, identifier)).await;
        assert_eq!(raw.packet().await.unwrap().0, 0x90);
    }
    keeper.keep_outcome("local-1", 1, "one");
    door.outcome_ready(&"local-1".parse().unwrap(), JobId(1), Bytes::from_static(b"one"));
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!(first, 0x32);
    assert!(has(&body, &[0x0b, 5]) && has(&body, &[0x0b, 6]) && body.ends_with(b"one"), "{body:02x?}");
}

#[tokio::test]
async fn no_local_on_a_shared_subscription_is_a_protocol_error() {
    let (door, _keeper, _broker) = whole_door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    raw.send(&subscribe("$share/g/t", 1 | 4, 5)).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x82));
}

#[tokio::test]
async fn retain_handling_is_honoured_and_an_empty_message_without_the_flag_clears_nothing() {
    let (door, _keeper, _broker) = whole_door().await;
    let (mut writer, _) = Raw::greet_v5(&door, "w", &[]).await;
    for (flags, payload) in [(3, &b"kept"[..]), (2, b"")] {
        writer.send(&publish_v5(flags, "kept/x", Some(1), &[], payload)).await;
        assert_eq!(writer.packet().await.unwrap().0, 0x40);
    }
    // Retain Handling 2 sends nothing, 1 only to a new subscription, 0 always.
    for (options, comes) in [(0x20, false), (0x10, false), (0x00, true)] {
        let (mut raw, _) = Raw::greet_v5(&door, "r", &[]).await;
        if options == 0x10 {
            assert_eq!(raw.subscribe_v5("kept/+", 0x20).await, 0);
        }
        assert_eq!(raw.subscribe_v5("kept/+", options).await, 0);
        raw.send(&publish_v5(0, "kept/end", None, &[], b"end")).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first == 0x31, body.ends_with(b"kept")), (comes, comes), "{options:#x} {first:#x}");
    }
}
