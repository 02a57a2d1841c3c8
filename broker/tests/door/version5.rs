//! MQTT 5 as the door serves it itself: what is announced, aliases, windows, session expiry, wills with a delay.

use crate::support::*;
use rumqttc::QoS;
use std::time::{Duration, Instant};

const SESSION_EXPIRY: u8 = 0x11;

#[tokio::test]
async fn connack_says_what_was_assigned_and_what_is_limited() {
    let (door, _keeper) = door().await;
    let mut raw = Raw::open(&door).await;
    raw.send(&connect_v5("", 2, 7_200, &[SESSION_EXPIRY, 0xff, 0xff, 0xff, 0xff])).await;
    let (_, body) = raw.packet().await.unwrap();
    assert!(has(&body, b"auto-"), "Assigned Client Identifier: {body:02x?}");
    assert!(has(&body, &[0x13, 0x0e, 0x10]), "Server Keep Alive is 3600");
    assert!(has(&body, &[SESSION_EXPIRY, 0, 9, 0x3a, 0x80]), "seven days is as long as a session is kept");
    assert!(has(&body, &[0x22, 0, 16]) && has(&body, &[0x21, 0, 64]), "aliases and Receive Maximum");
    assert!(has(&body, &[0x2a, 0]) && has(&body, &[0x29, 0]), "rumqttd shares nothing and knows no identifiers");
    let (_, body) = Raw::greet_v5(&door, "mine", &[]).await;
    assert!(!has(&body, b"auto-") && !has(&body, &[0x13, 0x0e]));
}

#[tokio::test]
async fn a_topic_alias_stands_for_its_topic_until_it_gets_another() {
    let (door, keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    raw.send(&publish_v5(2, PROMPT, Some(1), &[0x23, 0, 3], b"one")).await;
    raw.send(&publish_v5(2, "", Some(2), &[0x23, 0, 3], b"two")).await;
    keeper.until(|store| store.prompts.len() == 2).await;
    for bad in [&[0x23, 0, 4][..], &[0x23, 0, 0], &[0x23, 0, 17]] {
        let (mut raw, _) = Raw::greet_v5(&door, "bad", &[]).await;
        raw.send(&publish_v5(0, "", None, bad, b"x")).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[0]), (0xe0, 0x94), "{bad:02x?}");
    }
}

#[tokio::test]
async fn no_more_outcomes_are_in_flight_than_the_client_takes() {
    let (door, keeper) = door().await;
    for job in 0..5 {
        keeper.keep_outcome("local-1", job, &job.to_string());
    }
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[0x21, 0, 2]).await;
    assert_eq!(raw.subscribe_v5(ANSWER, 2).await, 1, "outcomes come at QoS 1");
    for job in 0..5_u8 {
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body.last()), (0x32, Some(&(b'0' + job))));
        if job == 1 {
            // Two are out; a ping is answered before a third comes.
            raw.send(&[0xc0, 0]).await;
            raw.expect(&[0xd0, 0]).await;
        }
        let at = text(ANSWER).len();
        if job >= 1 {
            raw.send(&packet(0x40, &[0, job])).await;
        }
        assert_eq!(body[at..at + 2], [0, job + 1]);
    }
}

#[tokio::test]
async fn a_session_lives_as_long_as_it_asked() {
    let (door, _keeper) = door().await;
    let present = async |properties: &[u8]| {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect_v5("c", 0, 0, properties)).await;
        let (_, body) = raw.packet().await.unwrap();
        // A normal end; the session goes on for its time.
        raw.send(&[0xe0, 0]).await;
        assert!(raw.rest().await.is_empty());
        until(|| door.stats().connections == 0).await;
        body[0]
    };
    assert_eq!(present(&[SESSION_EXPIRY, 0, 0, 0, 3]).await, 0);
    assert_eq!(present(&[SESSION_EXPIRY, 0, 0, 0, 3]).await, 1);
    tokio::time::sleep(Duration::from_millis(3_400)).await;
    assert_eq!(present(&[]).await, 0, "its time is over");
    assert_eq!(present(&[]).await, 0, "without expiry it ends with its connection");
}

/// CONNECT with a will to `wills/NAME` after a delay, and a session of 60 s.
fn with_will(id: &str, delay_s: u8) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 4, 0, 0, 5, SESSION_EXPIRY, 0, 0, 0, 60];
    body.extend(text(id));
    body.extend([5, 0x18, 0, 0, 0, delay_s]);
    body.extend(text(&format!("wills/{id}")));
    body.extend(text("gone"));
    packet(0x10, &body)
}

#[tokio::test]
async fn a_will_waits_for_its_delay_and_a_return_in_time_cancels_it() {
    let (door, _keeper) = door().await;
    let mut watcher = Client::connect(&door, "watcher").await;
    watcher.subscribe("wills/#", QoS::AtLeastOnce).await;
    let connect = async |id: &str| {
        let mut raw = Raw::open(&door).await;
        raw.send(&with_will(id, 2)).await;
        assert_eq!(raw.packet().await.unwrap().1[1], 0);
        raw
    };
    drop(connect("returns").await);
    let begin = Instant::now();
    drop(connect("stays-away").await);
    until(|| door.stats().connections == 1).await;
    let _back = connect("returns").await;
    assert_eq!(watcher.message().await.0, "wills/stays-away");
    let waited = begin.elapsed();
    // The other one left first: had its will not been cancelled, it would have come first.
    assert!(waited >= Duration::from_millis(1_900), "{waited:?}");
}

#[tokio::test]
async fn disconnect_with_will_publishes_it_and_reasons_are_said_only_to_who_wants_them() {
    let (door, _keeper) = door().await;
    let mut watcher = Client::connect(&door, "watcher").await;
    watcher.subscribe("wills/#", QoS::AtLeastOnce).await;
    let mut raw = Raw::open(&door).await;
    raw.send(&with_will("leaves", 0)).await;
    assert_eq!(raw.packet().await.unwrap().1[1], 0);
    raw.send(&[0xe0, 1, 0x04]).await;
    assert_eq!(watcher.message().await.0, "wills/leaves");
    for (problem, expect) in [(1, true), (0, false)] {
        let (mut raw, _) = Raw::greet_v5(&door, "c", &[0x17, problem]).await;
        raw.send(&publish_v5(2, PROMPT, Some(1), &[], b"refuse")).await;
        let (_, ack) = raw.packet().await.unwrap();
        assert_eq!((ack[2], has(&ack, b"full")), (0x97, expect), "{ack:02x?}");
    }
}

#[tokio::test]
async fn what_a_client_must_not_send_ends_its_connection_with_the_reason() {
    let (door, _keeper) = door().await;
    let mut empty_subscribe = vec![0, 1, 0];
    empty_subscribe.extend(text("a"));
    for (bytes, reason) in [
        (connect_v5("again", 2, 0, &[]), 0x82),
        (publish_v5(2, "t", Some(1), &[0x0b, 5], b""), 0x82),
        (publish_v5(0, "a/#", None, &[], b""), 0x90),
        (publish_v5(0, "", None, &[], b""), 0x82),
        (packet(0x80, &empty_subscribe), 0x81),
        (packet(0xf0, &[0x18, 0]), 0x82),
        (packet(0x20, &[0, 0, 0]), 0x82),
        (packet(0x82, &[0, 1, 3, 0x0b, 5, 5, 0, 1, b'a', 0]), 0x82),
    ] {
        let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
        raw.send(&bytes).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[0]), (0xe0, reason), "{bytes:02x?}");
    }
}

#[tokio::test]
async fn what_rumqttd_cannot_carry_is_not_silently_something_else() {
    let (door, _keeper) = door().await;
    let (mut raw, _) = Raw::greet_v5(&door, "c", &[]).await;
    assert_eq!(raw.subscribe_v5("t/#", 2).await, 1, "QoS 2 is granted as 1");
    // Content Type and a user property do not pass; No Local does not hold.
    assert_eq!(raw.subscribe_v5("t/+", 1 | 4).await, 1);
    let properties = [0x03, 0, 1, b'x', 0x26, 0, 1, b'a', 0, 1, b'b'];
    raw.send(&publish_v5(2, "t/x", Some(1), &properties, b"hi")).await;
    let mut publishes = 0;
    while publishes < 2 {
        let (first, body) = raw.packet().await.unwrap();
        if first != 0x40 {
            assert_eq!((first, &body[7..]), (0x32, [0, b'h', b'i'].as_slice()), "no properties: {body:02x?}");
            publishes += 1;
        }
    }
    // A subscription identifier would be lost, so it is refused.
    let mut subscribe = vec![0, 1, 2, 0x0b, 5];
    subscribe.extend(text("a"));
    subscribe.push(0);
    raw.send(&packet(0x82, &subscribe)).await;
    let (first, body) = raw.packet().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0xa1));
}
