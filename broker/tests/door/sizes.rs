//! Maximum Packet Size of a client (MQTT 5.0, 3.1.2.11.4): nothing larger is sent to it, reasons go first.

use crate::support::*;
use bytes::Bytes;
use tidegate_schemas::{DeviceId, JobId};

fn max(bytes: u8) -> [u8; 5] {
    [0x27, 0, 0, 0, bytes]
}

fn device() -> DeviceId {
    "local-1".parse().unwrap()
}

#[tokio::test]
async fn a_client_that_cannot_take_connack_is_told_so_and_takes_no_session_over() {
    let (door, _keeper) = door().await;
    let (mut first, _) = Raw::greet_v5(&door, "c", &[]).await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 2, 0, &max(12))).await;
    raw.expect(&[0x20, 3, 0, 0x95, 0]).await;
    assert!(raw.rest().await.is_empty());
    first.send(&[0xc0, 0]).await;
    first.expect(&[0xd0, 0]).await;
}

#[tokio::test]
async fn reason_strings_are_left_out_where_they_do_not_fit() {
    let (door, _keeper) = door().await;
    for (most, said) in [(100, true), (24, false)] {
        let (mut raw, _) = Raw::greet_v5(&door, "c", &max(most)).await;
        for (qos, ack) in [(2, 0x40), (4, 0x50)] {
            raw.send(&publish_v5(qos, "tg/v1/s/g/prompt/d7", Some(1), &[], b"x")).await;
            let (first, body) = raw.packet().await.unwrap();
            assert_eq!((first, body[2]), (ack, 0x87));
            assert_eq!(has(&body, b"another device"), said, "{body:02x?}");
        }
        raw.send(&publish_v5(0, "a/#", None, &[], b"")).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[0], has(&body, b"wildcard")), (0xe0, 0x90, said), "{body:02x?}");
    }
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("c", 2, 0, &[&max(24)[..], &[0x15, 0, 1, b'x']].concat())).await;
    raw.expect(&[0x20, 3, 0, 0x8c, 0]).await;
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_announced_and_one_in_flight_too() {
    let (door, keeper) = door().await;
    let answer = format!("{{\"kind\":\"answer\",\"id\":\"a\",\"text\":\"{}\"}}", "x".repeat(300));
    let expiry = [0x11, 0, 0, 0, 60];
    let connect = async |properties: &[u8], present: u8| {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect_v5("c", 0, 0, properties)).await;
        assert_eq!(raw.packet().await.unwrap().1[..2], [present, 0]);
        raw
    };
    let mut raw = connect(&expiry, 0).await;
    assert_eq!(raw.subscribe_v5(ANSWER, 1).await, 1);
    keeper.keep_outcome("local-1", 1, &answer);
    door.outcome_ready(&device(), JobId(1), Bytes::from(answer.clone()));
    assert!(raw.packet().await.unwrap().1.ends_with(answer.as_bytes()));
    drop(raw);
    // What it had in flight is over what it takes now, and so is what arises.
    let mut raw = connect(&[&expiry[..], &max(200)].concat(), 1).await;
    keeper.keep_outcome("local-1", 2, &answer);
    door.outcome_ready(&device(), JobId(2), Bytes::from(answer.clone()));
    for _ in 0..2 {
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!(first, 0x32);
        assert!(body.len() < 200 && has(&body, b"too_large"), "{}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn a_general_message_that_does_not_fit_counts_as_delivered() {
    let (door, _keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &max(100)).await;
    assert_eq!(raw.subscribe_v5("n", 1).await, 1);
    let writer = Client::connect(&door, "w").await;
    for word in ["x".repeat(200), "small".to_owned()] {
        writer.mqtt.publish("n", rumqttc::QoS::AtLeastOnce, false, word).await.unwrap();
    }
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!(first, 0x32);
    assert!(body.ends_with(b"small"));
    assert!(door.stats().dropped_frames > 0);
}
