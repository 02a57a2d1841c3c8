//! CONNECT and CONNACK, statement by statement (`CONFORMANCE.md`): what is refused, how it is said, what is announced.

use crate::behind::Mosquitto;
use crate::support::*;
use rumqttc::{Packet, QoS};
use tidegate_broker::{BackendConfig, DoorConfig, DoorLimits};

/// A CONNECT of 3.1.1 with these flags and this payload.
fn v4(flags: u8, fields: &[&str]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
    fields.iter().for_each(|field| body.extend(text(field)));
    packet(0x10, &body)
}

/// The same of MQTT 5, without properties.
fn v5(flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, flags, 0, 0, 0];
    body.extend(payload);
    packet(0x10, &body)
}

#[tokio::test]
async fn a_malformed_connect_of_3_1_1_is_closed_without_a_word() {
    let (door, _keeper) = door().await;
    for (bytes, what) in [
        (v4(0x03, &["c"]), "the reserved flag"),
        (v4(0x0a, &["c"]), "a will QoS without a will"),
        (v4(0x22, &["c"]), "a will to be retained without a will"),
        (v4(0x1e, &["c", "t", "w"]), "a will at QoS 3"),
        (v4(0x06, &["c"]), "a will that is not there"),
        (v4(0x82, &["c"]), "a user name that is not there"),
        (v4(0xc2, &["c", "u"]), "a password that is not there"),
        (v4(0x02, &["c", "u"]), "a user name without its flag"),
        (v4(0x82, &["c", "u", "p"]), "a password without its flag"),
        (v4(0x42, &["c", "p"]), "a password without a user name"),
        (v4(0x02, &[]), "no client id"),
        (vec![0x11, 0], "a reserved flag of the fixed header"),
        (packet(0x10, &[0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, 0xff]), "a client id that is no UTF-8"),
    ] {
        let mut raw = Raw::open(&door).await;
        raw.send(&bytes).await;
        assert!(raw.rest().await.is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_malformed_connect_of_mqtt_5_hears_its_reason() {
    let (door, _keeper) = door().await;
    for (bytes, reason) in [
        (v5(0x03, &text("c")), 0x81),
        (v5(0x0a, &text("c")), 0x81),
        (v5(0x22, &text("c")), 0x81),
        (v5(0x06, &text("c")), 0x81),
        (v5(0x82, &text("c")), 0x81),
        (v5(0x02, &[text("c"), text("u")].concat()), 0x81),
        (v5(0x06, &[text("c"), vec![0], vec![0, 1, 0xff], text("w")].concat()), 0x81),
        (v5(0x82, &[text("c"), vec![0, 1, 0]].concat()), 0x81),
        (connect_v5("c", 2, 0, &[0x21, 0, 0]), 0x82),
        (connect_v5("c", 2, 0, &[0x17, 2]), 0x82),
        (connect_v5(&"x".repeat(129), 2, 0, &[]), 0x85),
        (connect_v5("c", 2, 0, &[0x15, 0, 1, b'x']), 0x8c),
    ] {
        let mut raw = Raw::open(&door).await;
        raw.send(&bytes).await;
        let (first, body) = raw.packet().await.expect("CONNACK comes");
        assert_eq!((first, body[0], body[1]), (0x20, 0, reason), "{bytes:02x?}");
        assert!(raw.rest().await.is_empty(), "then it closes");
    }
}

#[tokio::test]
async fn a_client_id_or_a_level_that_is_refused_has_its_code_in_3_1_1() {
    let (door, _keeper) = door().await;
    let mut other_level = v4(0x02, &["c"]);
    other_level[8] = 3;
    for (bytes, code) in [(v4(0, &[""]), 2), (v4(0x02, &[&"x".repeat(129)]), 2), (other_level, 1)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&bytes).await;
        raw.expect(&[0x20, 2, 0, code]).await;
        assert!(raw.rest().await.is_empty());
    }
    let mut raw = Raw::open(&door).await;
    raw.send(&v4(0x02, &[""])).await;
    raw.expect(&[0x20, 2, 0, 0]).await;
}

#[tokio::test]
async fn nothing_that_follows_a_refused_connect_is_processed() {
    let (door, keeper) = door().await;
    let mut refused = v4(0x06, &["c", "tg/v1/s/g/state/health", "w"]);
    refused.extend(publish_v4(2, PROMPT.as_bytes(), Some(1), b"hello"));
    let mut raw = Raw::open(&door).await;
    raw.send(&refused).await;
    raw.expect(&[0x20, 2, 0, 5]).await;
    assert!(raw.rest().await.is_empty());
    let mut fence = Client::connect(&door, "fence").await;
    fence.mqtt.publish(PROMPT, QoS::AtLeastOnce, false, "after").await.unwrap();
    assert!(matches!(fence.next().await, Packet::PubAck(_)));
    assert_eq!(keeper.store.lock().unwrap().handed, 1);
}

#[tokio::test]
async fn connack_comes_first_and_once_and_a_second_connect_ends_it() {
    let (door, _keeper) = door().await;
    let mut raw = Raw::open(&door).await;
    let mut bytes = connect_v4("c", 0);
    bytes.extend([0xc0, 0, 0xc0, 0]);
    bytes.extend(connect_v4("c", 0));
    bytes.extend([0xc0, 0]);
    raw.send(&bytes).await;
    raw.expect(&[0x20, 2, 0, 0, 0xd0, 0, 0xd0, 0]).await;
    assert!(raw.rest().await.is_empty());
}

#[tokio::test]
async fn a_clean_start_finds_no_session_and_another_does() {
    let (door, _keeper) = door().await;
    for (flags, present) in [(0, 0), (0, 1), (2, 0), (0, 0)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&v4(flags, &["c"])).await;
        raw.expect(&[0x20, 2, present, 0]).await;
        raw.send(&[0xe0, 0]).await;
        assert!(raw.rest().await.is_empty());
        until(|| door.stats().connections == 0).await;
    }
}

#[tokio::test]
async fn a_will_is_retained_only_if_it_says_so() {
    let (door, _keeper) = door().await;
    let mut watcher = Client::connect(&door, "watcher").await;
    watcher.subscribe("wills/#", QoS::AtLeastOnce).await;
    for (flags, id) in [(0x0e, "passing"), (0x2e, "kept")] {
        let mut raw = Raw::open(&door).await;
        raw.send(&v4(flags, &[id, &format!("wills/{id}"), "gone"])).await;
        raw.expect(&[0x20, 2, 0, 0]).await;
        drop(raw);
        assert_eq!(watcher.message().await.0, format!("wills/{id}"));
    }
    let mut late = Client::connect(&door, "late").await;
    late.mqtt.subscribe("wills/#", QoS::AtLeastOnce).await.unwrap();
    late.mqtt.publish("wills/end", QoS::AtLeastOnce, false, "").await.unwrap();
    let mut seen = Vec::new();
    while seen.last() != Some(&("wills/end".to_owned(), false)) {
        if let Packet::Publish(publish) = late.next().await {
            seen.push((publish.topic, publish.retain));
        }
    }
    assert_eq!(seen, [("wills/kept".to_owned(), true), ("wills/end".to_owned(), false)]);
}

#[tokio::test]
async fn the_servers_keep_alive_holds_and_else_the_clients() {
    let limits = DoorLimits { keep_alive_max_s: 1, ..DoorLimits::default() };
    let (door, _keeper) = door_with(DoorConfig { limits, ..config() }).await;
    for (asked, announced) in [(100, true), (1, false)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&connect_v5("c", 2, asked, &[])).await;
        let (_, body) = raw.packet().await.unwrap();
        assert_eq!(has(&body, &[0x13, 0, 1]), announced, "{body:02x?}");
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[0]), (0xe0, 0x8d), "silence is noticed after a second and a half");
    }
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_in_connack() {
    let (door, _keeper) = door().await;
    for wants in [0, 1] {
        let (_raw, body) = Raw::greet_v5(&door, "c", &[0x19, wants]).await;
        // After flags and code: a length of one byte, then properties of one, two or four bytes.
        let mut at = 3;
        while at < body.len() {
            let (id, bytes) = (
                body[at],
                match body[at] {
                    0x21 | 0x22 | 0x13 => 2,
                    0x27 => 4,
                    _ => 1,
                },
            );
            assert!([0x21, 0x27, 0x22, 0x2a, 0x29].contains(&id), "{id:#x} in {body:02x?}");
            at += 1 + bytes;
        }
    }
}

#[tokio::test]
async fn wills_and_publishes_above_what_the_backend_takes_are_refused() {
    let broker = Mosquitto::start_with("max_qos 1\nretain_available false\n").await;
    let mut config = config();
    config.backend = BackendConfig::Mqtt { addr: broker.addr, user: None, password_file: None };
    let (door, _keeper) = door_with(config).await;
    let will = |flags: u8| v5(flags, &[text("c"), vec![0], text("wills/c"), text("gone")].concat());
    for (bytes, reason) in [(will(0x16), 0x9b), (will(0x26), 0x9a), (will(0x0e), 0)] {
        let mut raw = Raw::open(&door).await;
        raw.send(&bytes).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[1]), (0x20, reason), "{bytes:02x?}");
        if reason == 0 {
            assert!(has(&body, &[0x24, 1]) && has(&body, &[0x25, 0]), "Maximum QoS, Retain Available: {body:02x?}");
        } else {
            assert!(raw.rest().await.is_empty());
        }
    }
    for (flags, id, reason) in [(4, Some(1), 0x9b), (1, None, 0x9a)] {
        let (mut raw, _) = Raw::greet_v5(&door, "w", &[]).await;
        raw.send(&publish_v5(flags, "t", id, &[], b"x")).await;
        let (first, body) = raw.packet().await.unwrap();
        assert_eq!((first, body[0]), (0xe0, reason));
    }
    let (mut raw, _) = Raw::greet_v5(&door, "r", &[]).await;
    assert!(raw.subscribe_v5("t", 2).await <= 2, "subscriptions may ask for any QoS all the same");
}
