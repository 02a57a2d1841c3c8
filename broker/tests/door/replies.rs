//! Correlation Data and Response Topic: kept with the prompt, given back with its frames.

use crate::support::*;
use bytes::Bytes;
use tidegate_broker::{Door, DoorConfig, DoorError, Ephemeral, Outgoing};
use tidegate_schemas::{CORRELATION_BYTES_MAX, JobId, Reply};

/// Properties: Response Topic, Correlation Data.
fn asks(topic: &str, correlation: &str) -> Vec<u8> {
    let mut properties = Vec::new();
    if !topic.is_empty() {
        properties.push(0x08);
        properties.extend(text(topic));
    }
    properties.push(0x09);
    properties.extend(text(correlation));
    properties
}

async fn replying() -> (Door, std::sync::Arc<FakeKeeper>) {
    door_with(DoorConfig { reply_topics: vec!["replies/{client_id}/#".to_owned()], ..config() }).await
}

#[tokio::test]
async fn correlation_data_come_back_with_every_frame() {
    let (door, keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    assert_eq!(raw.subscribe_v5(ANSWER, 1).await, 1);
    raw.send(&publish_v5(2, PROMPT, Some(1), &asks("", "corr-7"), b"hello")).await;
    let (_, accepted) = raw.packet().await.unwrap();
    assert!(has(&accepted, &[0x09, 0, 6, b'c', b'o', b'r', b'r', b'-', b'7']) && accepted.ends_with(b"accepted"));
    assert_eq!(raw.packet().await.unwrap().0, 0x40);
    let reply = keeper.store.lock().unwrap().replies[0].clone();
    assert_eq!(reply, Reply { topic: None, correlation: Some(b"corr-7".to_vec()) });
    keeper.keep_outcome_for("local-1", 1, "the answer", reply.clone());
    let device = "local-1".parse().unwrap();
    door.send_to(&device, Bytes::from_static(b"a token"), Ephemeral::Lossy, reply.clone());
    let outgoing = Outgoing { reply, ..Outgoing::new(JobId(1), Bytes::from_static(b"the answer")) };
    door.deliver(&device, outgoing);
    for (first, end) in [(0x30, b"a token".as_slice()), (0x32, b"the answer")] {
        let (got, body) = raw.packet().await.unwrap();
        assert_eq!(got, first);
        assert!(has(&body, b"corr-7") && body.ends_with(end), "{body:02x?}");
    }
    drop(raw);
    // A session that comes later gets it from the store, with the same data.
    let (mut late, _) = Raw::greet_v5(&door, "late", &[]).await;
    assert_eq!(late.subscribe_v5(ANSWER, 1).await, 1);
    let (_, body) = late.packet().await.unwrap();
    assert!(has(&body, b"corr-7") && body.ends_with(b"the answer"));
}

#[tokio::test]
async fn an_outcome_goes_to_its_response_topic_until_its_device_acknowledged_it() {
    let (door, keeper) = replying().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    let (mut other, _) = Raw::greet_v5(&door, "other", &[]).await;
    assert_eq!(other.subscribe_v5(ANSWER, 1).await, 1);
    assert_eq!(raw.subscribe_v5("replies/c/+", 1).await, 1);
    raw.send(&publish_v5(2, PROMPT, Some(1), &asks("replies/c/7", "x"), b"hello")).await;
    let (_, accepted) = raw.packet().await.unwrap();
    assert!(has(&accepted, b"replies/c/7") && accepted.ends_with(b"accepted"));
    assert_eq!(raw.packet().await.unwrap().0, 0x40);
    let reply = keeper.store.lock().unwrap().replies[0].clone();
    assert_eq!(reply.topic.as_deref(), Some("replies/c/7"));
    keeper.keep_outcome_for("local-1", 1, "there", reply.clone());
    keeper.keep_outcome("local-1", 2, "here");
    let device = "local-1".parse().unwrap();
    door.deliver(&device, Outgoing { reply, ..Outgoing::new(JobId(1), Bytes::from_static(b"there")) });
    door.outcome_ready(&device, JobId(2), Bytes::from_static(b"here"));
    let (_, there) = raw.packet().await.unwrap();
    assert!(there.starts_with(&text("replies/c/7")) && there.ends_with(b"there"));
    let (_, here) = other.packet().await.unwrap();
    assert!(here.starts_with(&text(ANSWER)) && here.ends_with(b"here"), "the answer topic hears only of its own");
    raw.send(&packet(0x40, &there[13..15])).await;
    keeper.until(|store| store.released.contains(&JobId(1))).await;
}

#[tokio::test]
async fn response_topics_elsewhere_are_refused() {
    let (door, keeper) = replying().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    for (id, topic) in (1_u16..).zip(["elsewhere", "replies/other/7", PROMPT, "tg/v1/s/g/answer/d7", "$SYS/x"]) {
        raw.send(&publish_v5(2, PROMPT, Some(id), &asks(topic, "x"), b"hello")).await;
        let (first, ack) = raw.packet().await.unwrap();
        assert_eq!((first, ack[2]), (0x40, 0x87), "{topic}");
    }
    let long = "x".repeat(CORRELATION_BYTES_MAX + 1);
    let mut body = text(PROMPT);
    body.extend([0, 9, 0x84, 0x02, 0x09]);
    body.extend(text(&long));
    raw.send(&packet(0x32, &body)).await;
    let (first, ack) = raw.packet().await.unwrap();
    assert_eq!((first, ack[2]), (0x40, 0x97));
    assert_eq!(keeper.store.lock().unwrap().handed, 0);
    raw.send(&publish_v5(2, PROMPT, Some(7), &asks("a/+", "x"), b"hello")).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x82), "a wildcard is no topic (MQTT-3.3.2-14)");
}

#[tokio::test]
async fn patterns_that_overlap_what_is_reserved_keep_the_door_shut() {
    for pattern in ["#", "+/v1/s/g/prompt/x", "tg/x", "plant/{identity}/temp", "{device}/x"] {
        let mut config = DoorConfig { reply_topics: vec![pattern.to_owned()], ..config() };
        config.reserved = vec!["plant/#".to_owned()];
        let error = Door::start(config, FakeKeeper::new()).await.unwrap_err();
        assert!(matches!(error, DoorError::ReplyTopic { .. }), "{pattern}: {error}");
    }
}
